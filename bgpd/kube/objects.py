"""Kubernetes' own objects as plain values: only what podbgp uses of them.

Each `decode_*` takes the raw JSON of one object and reads it with msgspec straight into small structs, so
that what is not declared costs neither time nor memory (a Node has 12 KB, of which 200 bytes matter).  The
values leave out what changes without meaning (resource versions, heartbeats), so two of them are equal
exactly when nothing happened that concerns us.

Objects are hostile: what has the wrong type raises (`msgspec.ValidationError`, a ValueError); an address or a
prefix that is none becomes an entry in `problems`, so that one bad field is reported and never guessed at.
This module must never talk to an API server.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from bgpd.kube import object_wire as wire
from routes.prefix import ADDRESS_SIZE, Address, Family, Prefix, parse_address

STARTUP_TAINT = "podbgp.dev/not-ready"
ZONE_LABEL = "topology.kubernetes.io/zone"
SERVICE_LABEL = "kubernetes.io/service-name"
LOAD_BALANCER_CLASS = "podbgp.dev/bgp"

PROTOCOLS = frozenset(("TCP", "UDP", "SCTP"))
HIGHEST_PORT = 65_535
MOST_ADDRESSES = 64
"""Of one object's list of addresses; Kubernetes itself allows fewer."""


# -- what podbgp works with ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster."""

    name: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=dict)
    pod_cidrs: tuple[Prefix, ...] = ()
    addresses: tuple[Address, ...] = ()
    """InternalIPs in the order of the status, or, where there is none, the ExternalIPs."""
    unschedulable: bool = False
    deleting: bool = False
    ready: bool = False
    network_unavailable: str = ""
    """`True`, `False`, `Unknown`, or empty where the condition is missing."""
    taints: frozenset[str] = frozenset()
    """Keys."""
    created: float = 0.0
    """Seconds since the epoch."""
    problems: tuple[str, ...] = ()

    namespace = ""

    @property
    def zone(self) -> str:
        return self.labels.get(ZONE_LABEL, "")

    def addresses_of(self, family: Family) -> tuple[Address, ...]:
        size = ADDRESS_SIZE[family]
        return tuple(address for address in self.addresses if len(address) == size)


@dataclass(frozen=True, slots=True)
class Service:
    """A Service."""

    name: str
    namespace: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Those of `podbgp.dev/`."""
    type: str = "ClusterIP"
    cluster_ips: tuple[Address, ...] = ()
    """Empty for a headless Service."""
    external_ips: tuple[Address, ...] = ()
    load_balancer_ip: str = ""
    """`spec.loadBalancerIP` as written."""
    load_balancer_class: str | None = None
    ingress: tuple[Address, ...] = ()
    """`status.loadBalancer`."""
    external_local: bool = False
    internal_local: bool = False
    families: tuple[Family, ...] = (Family.IPV4,)
    family_policy: str = "SingleStack"
    ports: frozenset[tuple[str, int]] = frozenset()
    """Protocol and port."""
    selector: Mapping[str, str] = field(default_factory=dict)
    """Which pods it leads to; empty where somebody else writes its endpoints."""
    created: float = 0.0
    """Seconds since the epoch."""
    deleting: bool = False
    problems: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a Service's packets can end: on which node, and in which state."""

    node: str
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Some of a Service's endpoints, of one family."""

    name: str
    namespace: str
    uid: str
    service: str
    family: Family
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, as far as readiness and drain look at it."""

    name: str
    namespace: str
    uid: str
    node: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    host_network: bool = False
    phase: str = ""
    ready: bool = False
    deleting: bool = False
    host_ip: str = ""
    addresses: tuple[Address, ...] = ()

    @property
    def over(self) -> bool:
        """Whether it has ended and only its object is left."""
        return self.phase in {"Succeeded", "Failed"}


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret of podbgp's own namespace."""

    name: str
    namespace: str
    uid: str
    data: Mapping[str, bytes] = field(default_factory=dict, repr=False)


# -- from one to the other ----------------------------------------------------------------------------

_NODE = msgspec.json.Decoder(wire.Node)
_SERVICE = msgspec.json.Decoder(wire.Service)
_SLICE = msgspec.json.Decoder(wire.EndpointSlice)
_POD = msgspec.json.Decoder(wire.Pod)
_SECRET = msgspec.json.Decoder(wire.Secret)


def decode_node(raw: bytes | msgspec.Raw) -> Node:
    """A Node from its JSON."""
    form = _NODE.decode(raw)
    meta, spec, status = form.metadata, form.spec, form.status
    problems: list[str] = []
    conditions = {condition.type: condition.status for condition in status.conditions or ()}
    return Node(
        name=meta.name,
        uid=meta.uid,
        labels=meta.labels or {},
        pod_cidrs=_pod_cidrs(spec, problems),
        addresses=_node_addresses(status.addresses or (), problems),
        unschedulable=spec.unschedulable,
        deleting=meta.deletionTimestamp is not None,
        ready=conditions.get("Ready") == "True",
        network_unavailable=conditions.get("NetworkUnavailable", ""),
        taints=frozenset(taint.key for taint in spec.taints or ()),
        created=meta.creationTimestamp.timestamp() if meta.creationTimestamp else 0.0,
        problems=tuple(problems),
    )


def _pod_cidrs(spec: wire.NodeSpec, problems: list[str]) -> tuple[Prefix, ...]:
    written = spec.podCIDRs or ([spec.podCIDR] if spec.podCIDR else [])
    prefixes: list[Prefix] = []
    for text in written[:MOST_ADDRESSES]:
        try:
            prefix = Prefix.parse(text)
        except ValueError:
            problems.append(f"spec.podCIDRs: {text[:60]!r} is no prefix without host bits")
            continue
        if prefix not in prefixes:
            prefixes.append(prefix)
    return tuple(prefixes)


def _node_addresses(written: Iterable[wire.TypedAddress], problems: list[str]) -> tuple[Address, ...]:
    found: dict[str, list[Address]] = {"InternalIP": [], "ExternalIP": []}
    for entry in list(written)[:MOST_ADDRESSES]:
        if entry.type not in found:
            continue
        address = _address(entry.address)
        if address is None:
            problems.append(f"status.addresses: {entry.address[:60]!r} is no IP address")
        elif address not in found[entry.type]:
            found[entry.type].append(address)
    return tuple(found["InternalIP"] or found["ExternalIP"])


def _address(text: str) -> Address | None:
    try:
        address = parse_address(text)
    except ValueError:
        return None
    parsed = ipaddress.ip_address(address)
    return None if parsed.is_unspecified or parsed.is_multicast or parsed.is_loopback else address


def _addresses(texts: Iterable[str], where: str, problems: list[str]) -> tuple[Address, ...]:
    found: list[Address] = []
    for text in list(texts)[:MOST_ADDRESSES]:
        address = _address(text)
        if address is None:
            problems.append(f"{where}: {text[:60]!r} is no unicast IP address")
        elif address not in found:
            found.append(address)
    return tuple(found)


def decode_service(raw: bytes | msgspec.Raw) -> Service:
    """A Service from its JSON."""
    form = _SERVICE.decode(raw)
    meta, spec = form.metadata, form.spec
    problems: list[str] = []
    cluster = [text for text in spec.clusterIPs or [spec.clusterIP] if text not in {"", "None"}]
    ingress = [entry.ip for entry in form.status.loadBalancer.ingress or () if entry.ip]
    cluster_ips = _addresses(cluster, "spec.clusterIPs", problems)
    return Service(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        labels=meta.labels or {},
        annotations=meta.own_annotations(),
        type=spec.type,
        cluster_ips=cluster_ips,
        external_ips=_addresses(spec.externalIPs or (), "spec.externalIPs", problems),
        load_balancer_ip=spec.loadBalancerIP,
        load_balancer_class=spec.loadBalancerClass,
        ingress=_addresses(ingress, "status.loadBalancer.ingress", problems),
        external_local=spec.externalTrafficPolicy == "Local",
        internal_local=spec.internalTrafficPolicy == "Local",
        families=_families(spec, cluster_ips),
        family_policy=spec.ipFamilyPolicy or "SingleStack",
        ports=_ports(spec.ports or (), problems),
        selector=spec.selector or {},
        created=meta.creationTimestamp.timestamp() if meta.creationTimestamp else 0.0,
        deleting=meta.deletionTimestamp is not None,
        problems=tuple(problems),
    )


def _ports(written: Iterable[wire.ServicePort], problems: list[str]) -> frozenset[tuple[str, int]]:
    """They become text of the packet filter, so that nothing else may pass."""
    found = set()
    for port in written:
        if port.protocol in PROTOCOLS and 0 < port.port <= HIGHEST_PORT:
            found.add((port.protocol, port.port))
        elif len(problems) < MOST_ADDRESSES:
            problems.append(f"spec.ports: {port.protocol[:20]!r} {port.port} is no port")
    return frozenset(found)


def _families(spec: wire.ServiceSpec, cluster_ips: tuple[Address, ...]) -> tuple[Family, ...]:
    """`ipFamilies`, or what the cluster IPs say where a server does not know the field."""
    named = tuple(Family.IPV6 if name == "IPv6" else Family.IPV4 for name in spec.ipFamilies or ())
    held = tuple(Family.IPV4 if len(address) == 4 else Family.IPV6 for address in cluster_ips)
    return named[:2] or held[:2] or (Family.IPV4,)


def decode_endpoint_slice(raw: bytes | msgspec.Raw) -> EndpointSlice:
    """An EndpointSlice (v1 or v1beta1) from its JSON; one of FQDNs has no endpoints."""
    form = _SLICE.decode(raw)
    meta = form.metadata
    family = Family.IPV6 if form.addressType == "IPv6" else Family.IPV4
    endpoints = () if form.addressType == "FQDN" else form.endpoints or ()
    return EndpointSlice(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        service=(meta.labels or {}).get(SERVICE_LABEL, ""),
        family=family,
        endpoints=tuple(map(_endpoint, endpoints)),
    )


def _endpoint(form: wire.Endpoint) -> Endpoint:
    """Conditions that are absent mean: ready, and serving as ready, and not terminating (the API's words)."""
    conditions = form.conditions
    ready = conditions.ready is not False
    return Endpoint(
        node=form.nodeName or (form.topology or {}).get("kubernetes.io/hostname", ""),
        ready=ready,
        serving=ready if conditions.serving is None else conditions.serving,
        terminating=bool(conditions.terminating),
    )


def decode_pod(raw: bytes | msgspec.Raw) -> Pod:
    """A Pod from its JSON."""
    form = _POD.decode(raw)
    meta, status = form.metadata, form.status
    conditions = {condition.type: condition.status for condition in status.conditions or ()}
    return Pod(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        node=form.spec.nodeName,
        labels=meta.labels or {},
        host_network=form.spec.hostNetwork,
        phase=status.phase,
        ready=conditions.get("Ready") == "True",
        deleting=meta.deletionTimestamp is not None,
        host_ip=status.hostIP,
        addresses=_addresses((entry.ip for entry in status.podIPs or ()), "status.podIPs", []),
    )


def decode_secret(raw: bytes | msgspec.Raw) -> Secret:
    """A Secret from its JSON."""
    form = _SECRET.decode(raw)
    meta = form.metadata
    return Secret(meta.name, meta.namespace, meta.uid, form.data or {})
