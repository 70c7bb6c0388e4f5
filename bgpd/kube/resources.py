"""Where each kind of object lives in the API, and how it is read."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import msgspec

from bgpd.kube import custom, objects
from bgpd.kube.client import KubeClient
from bgpd.kube.errors import Nonsense, NotFound
from bgpd.kube.watch import Resource

T = TypeVar("T")

GROUP = "/apis/podbgp.dev/v1alpha1"

NODES = Resource("/api/v1/nodes", "Node", objects.decode_node)
SERVICES = Resource("/api/v1/services", "Service", objects.decode_service)
PODS = Resource("/api/v1/pods", "Pod", objects.decode_pod)
CLUSTERS = Resource(f"{GROUP}/bgpclusters", "BGPCluster", custom.decode_cluster)
PEERS = Resource(f"{GROUP}/bgppeers", "BGPPeer", custom.decode_peer)
POLICIES = Resource(f"{GROUP}/bgppolicies", "BGPPolicy", custom.decode_policy)
ADVERTISEMENTS = Resource(f"{GROUP}/bgpadvertisements", "BGPAdvertisement", custom.decode_advertisement)
POOLS = Resource(f"{GROUP}/bgpaddresspools", "BGPAddressPool", custom.decode_pool)
NODE_STATES = Resource(f"{GROUP}/bgpnodestates", "BGPNodeState", custom.decode_node_state)

SLICE_VERSIONS = ("v1", "v1beta1")


def node(name: str) -> Resource[objects.Node]:
    """One Node alone: an agent must not cost the API server the square of the cluster."""
    return replace(NODES, field_selector=f"metadata.name={name}")


def pods_on(name: str) -> Resource[objects.Pod]:
    """The pods bound to a Node."""
    return replace(PODS, field_selector=f"spec.nodeName={name}")


def secret(namespace: str, name: str) -> Resource[objects.Secret]:
    """One Secret alone."""
    path = f"/api/v1/namespaces/{namespace}/secrets"
    return Resource(path, "Secret", objects.decode_secret, field_selector=f"metadata.name={name}")


def endpoint_slices(version: str) -> Resource[objects.EndpointSlice]:
    """EndpointSlices in a version that the API server has."""
    path = f"/apis/discovery.k8s.io/{version}/endpointslices"
    return Resource(path, "EndpointSlice", objects.decode_endpoint_slice)


class _Some(msgspec.Struct):
    kind: str
    items: list[msgspec.Raw]


_SOME = msgspec.json.Decoder(_Some)


def has_cluster(client: KubeClient) -> bool:
    """Whether the API server has a BGPCluster: without one it has lost its data.  Raises KubeError."""
    return not is_empty(client, CLUSTERS)


def is_empty(client: KubeClient, resource: Resource[T]) -> bool:
    """Whether the API server has no object of a resource; raises KubeError."""
    path = resource.path
    try:
        found = _SOME.decode(client.get(path, **resource.query(), limit=1))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Nonsense(200, "NotAList", str(error)[:300], where=path) from error
    if found.kind != f"{resource.kind}List":
        raise Nonsense(200, "NotAList", f"kind {found.kind[:60]!r}", where=path)
    return not found.items


class _Version(msgspec.Struct):
    version: str


class _Group(msgspec.Struct):
    versions: list[_Version]


_GROUP = msgspec.json.Decoder(_Group)


def slice_version(client: KubeClient) -> str:
    """The newest version of EndpointSlices that we can read (v1 came in 1.21); raises KubeError."""
    try:
        served = _GROUP.decode(client.get("/apis/discovery.k8s.io"))
    except NotFound:
        return SLICE_VERSIONS[0]
    except (ValueError, RecursionError) as error:
        raise Nonsense(200, "NotAGroup", str(error)[:300], where="/apis/discovery.k8s.io") from error
    found = {each.version for each in served.versions}
    return next((version for version in SLICE_VERSIONS if version in found), SLICE_VERSIONS[0])
