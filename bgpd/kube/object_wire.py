"""The parts of Kubernetes' own objects that podbgp reads, as their JSON has them.

`objects.py` makes values of these; nothing else uses them.  What is not declared here is skipped by msgspec
without a cost.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

ANNOTATION_PREFIX = "podbgp.dev/"
"""Annotations of others are not kept."""


class Meta(msgspec.Struct):
    name: str
    uid: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletionTimestamp: str | None = None  # noqa: N815  as in the API
    creationTimestamp: datetime | None = None  # noqa: N815  as in the API

    def own_annotations(self) -> dict[str, str]:
        found = self.annotations or {}
        return {key: text for key, text in found.items() if key.startswith(ANNOTATION_PREFIX)}


class Taint(msgspec.Struct):
    key: str
    effect: str = ""
    value: str = ""


class NodeSpec(msgspec.Struct):
    podCIDR: str = ""  # noqa: N815  as in the API
    podCIDRs: list[str] | None = None  # noqa: N815  as in the API
    unschedulable: bool = False
    taints: list[Taint] | None = None


class TypedAddress(msgspec.Struct):
    type: str
    address: str


class Condition(msgspec.Struct):
    type: str
    status: str


class NodeStatus(msgspec.Struct):
    addresses: list[TypedAddress] | None = None
    conditions: list[Condition] | None = None


class Node(msgspec.Struct):
    metadata: Meta
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class ServicePort(msgspec.Struct):
    port: int
    protocol: str = "TCP"
    name: str = ""


class ServiceSpec(msgspec.Struct):
    type: str = "ClusterIP"
    clusterIP: str = ""  # noqa: N815  as in the API
    clusterIPs: list[str] | None = None  # noqa: N815  as in the API
    externalIPs: list[str] | None = None  # noqa: N815  as in the API
    loadBalancerIP: str = ""  # noqa: N815  as in the API
    loadBalancerClass: str | None = None  # noqa: N815  as in the API
    externalTrafficPolicy: str | None = None  # noqa: N815  as in the API
    internalTrafficPolicy: str | None = None  # noqa: N815  as in the API
    ipFamilies: list[str] | None = None  # noqa: N815  as in the API
    ipFamilyPolicy: str | None = None  # noqa: N815  as in the API
    ports: list[ServicePort] | None = None
    selector: dict[str, str] | None = None


class Ingress(msgspec.Struct):
    ip: str = ""


class LoadBalancer(msgspec.Struct):
    ingress: list[Ingress] | None = None


class ServiceStatus(msgspec.Struct):
    loadBalancer: LoadBalancer = msgspec.field(default_factory=LoadBalancer)  # noqa: N815  as in the API


class Service(msgspec.Struct):
    metadata: Meta
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)


class EndpointConditions(msgspec.Struct):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(msgspec.Struct):
    nodeName: str | None = None  # noqa: N815  as in the API
    topology: dict[str, str] | None = None  # v1beta1 names the node here
    conditions: EndpointConditions = msgspec.field(default_factory=EndpointConditions)


class EndpointSlice(msgspec.Struct):
    metadata: Meta
    addressType: str = "IPv4"  # noqa: N815  as in the API
    endpoints: list[Endpoint] | None = None


class PodSpec(msgspec.Struct):
    nodeName: str = ""  # noqa: N815  as in the API
    hostNetwork: bool = False  # noqa: N815  as in the API


class PodIP(msgspec.Struct):
    ip: str = ""


class PodStatus(msgspec.Struct):
    phase: str = ""
    hostIP: str = ""  # noqa: N815  as in the API
    podIPs: list[PodIP] | None = None  # noqa: N815  as in the API
    conditions: list[Condition] | None = None


class Pod(msgspec.Struct):
    metadata: Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class Secret(msgspec.Struct):
    metadata: Meta
    data: dict[str, bytes] | None = None  # msgspec decodes the base64
