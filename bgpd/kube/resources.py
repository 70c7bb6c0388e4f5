"""Where each kind of object lives in the API, and how it is read."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from bgpd.kube import custom, objects
from bgpd.kube.client import KubeClient
from bgpd.kube.errors import NotFound
from bgpd.kube.watch import Resource

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


class _Version(msgspec.Struct):
    version: str


class _Group(msgspec.Struct):
    versions: list[_Version]


def slice_version(client: KubeClient) -> str:
    """The newest version of EndpointSlices that we can read (v1 came in 1.21); raises KubeError."""
    try:
        served = msgspec.json.decode(client.get("/apis/discovery.k8s.io"), type=_Group)
    except (NotFound, msgspec.MsgspecError):
        return SLICE_VERSIONS[0]
    found = {each.version for each in served.versions}
    return next((version for version in SLICE_VERSIONS if version in found), SLICE_VERSIONS[0])
