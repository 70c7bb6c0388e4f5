"""The objects of a large cluster, as large as real ones.

Owns what they look like.  Pure.  Node `n` has the address 172.16.0.1 + n and the n-th /24
of 10.0.0.0/8, so that whoever measures knows from a number what to wait for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Json = dict[str, object]

ASN = 65000
POD_RANGES = ("10.0.0.0/10", "fd00::/16")
SERVICE_RANGES = ("10.96.0.0/12",)
POOL = "203.0.0.0/16"
CONDITIONS = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "Ready")
IMAGES = 50
NOW = "2026-01-01T00:00:00Z"


def node_name(number: int) -> str:
    return f"node-{number:05}.cluster.example"


def node_address(number: int) -> str:
    """Of Node 0 to 65,000: 172.16.0.1 and on."""
    return f"172.16.{(number + 1) >> 8}.{(number + 1) & 255}"


def pod_cidr(number: int) -> str:
    return f"10.{number >> 8}.{number & 255}.0/24"


def pod_cidrs(number: int) -> Json:
    """What nodeipam writes into a Node's spec."""
    cidrs = [pod_cidr(number), f"fd00:{number:x}::/64"]
    return {"podCIDR": cidrs[0], "podCIDRs": cidrs}


def node(number: int, *, prefixes: bool = True) -> Json:
    """A Node of 12 KB, as a kubelet keeps it: conditions, 50 images, managed fields."""
    name = node_name(number)
    images = [
        {"names": [f"registry.example.com/team/{k}@sha256:{'ab' * 32}", f"registry.example.com/team/{k}:v1"],
         "sizeBytes": k << 20} for k in range(IMAGES)
    ]  # fmt: skip
    heard = {"lastHeartbeatTime": NOW, "lastTransitionTime": NOW}
    conditions = [
        {"type": kind, "status": str(kind == "Ready"), "reason": f"Kubelet{kind}", "message": "is well",
         **heard}
        for kind in CONDITIONS
    ]  # fmt: skip
    said: Json = {"f:status": {}, "f:reason": {}, "f:message": {}, "f:lastHeartbeatTime": {}}
    managed = {f'k:{{"type":"{kind}"}}': said for kind in CONDITIONS}
    fields = [
        {"manager": one, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "time": NOW,
         "fieldsV1": {"f:status": {"f:conditions": managed}}} for one in ("kubelet", "manager")
    ]  # fmt: skip
    labels = {
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": "large", "topology.kubernetes.io/region": "here",
        "topology.kubernetes.io/zone": f"zone-{number % 3}",
    }  # fmt: skip
    addresses = [
        {"type": "InternalIP", "address": node_address(number)},
        {"type": "InternalIP", "address": f"fd01::{number + 1:x}"},
        {"type": "Hostname", "address": name},
    ]
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "managedFields": fields},
        "spec": pod_cidrs(number) if prefixes else {},
        "status": {"addresses": addresses, "conditions": conditions, "images": images},
    }  # fmt: skip


def cluster(topology: str) -> Json:
    """The one BGPCluster; nobody waits long for Nodes that are no more than objects."""
    timers: Json = {"deferralTime": 5, "connectRetry": 1}
    spec = {
        "asn": ASN, "topology": topology, "podCIDRs": list(POD_RANGES), "serviceCIDRs": list(SERVICE_RANGES),
        "timers": timers,
    }  # fmt: skip
    return _custom("BGPCluster", "default", spec)


def reflectors(addresses: Iterable[str]) -> Json:
    """The status of a BGPCluster whose reflectors are these."""
    found = [
        {"node": f"reflector-{k}", "uid": f"0-{k}", "addresses": [address], "routerID": f"192.0.2.{k + 1}",
         "phase": "Active"} for k, address in enumerate(addresses)
    ]  # fmt: skip
    return {"status": {"reflectors": found}}


def router(address: str) -> Json:
    """A BGPPeer: the fabric, to which reflector and agent are the same neighbour."""
    return _custom("BGPPeer", "router", {"address": address, "asn": ASN})


def advertisement() -> Json:
    """Announces every Service: the ClusterIPs as one, LoadBalancer IPs each."""
    spec = {"addresses": ["ClusterIP", "LoadBalancerIP"]}
    return _custom("BGPAdvertisement", "all", spec)


def pool() -> Json:
    return _custom("BGPAddressPool", "public", {"ranges": [POOL]})


def ingress(number: int) -> str:
    """The LoadBalancer address of a Service."""
    return f"203.0.{number >> 8}.{number & 255}"


def service(number: int) -> Json:
    """One of many; every second one goes where its endpoints are."""
    return {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": f"s{number}", "namespace": "default", "labels": {"app": f"a{number}"}},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "podbgp.dev/bgp", "selector": {"app": f"a{number}"},
            "clusterIP": f"10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}",
            "externalTrafficPolicy": "Local" if number % 2 else "Cluster",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 1}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": ingress(number)}]}},
    }  # fmt: skip


def endpoint_slice(number: int, nodes: Iterable[int]) -> Json:
    """The endpoints of a Service, on these Nodes."""
    endpoints = [
        {"addresses": [f"10.{n >> 8}.{n & 255}.{k + 2}"], "nodeName": node_name(n), "zone": f"zone-{n % 3}",
         "conditions": {"ready": True, "serving": True, "terminating": False},
         "targetRef": {"kind": "Pod", "namespace": "default", "name": f"a{number}-{k}",
                       "uid": f"{number}-{k}"}}
        for k, n in enumerate(nodes)
    ]  # fmt: skip
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": f"s{number}-x", "namespace": "default",
                     "labels": {"kubernetes.io/service-name": f"s{number}"}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }  # fmt: skip


def _custom(kind: str, name: str, spec: Mapping[str, object]) -> Json:
    return {"apiVersion": "podbgp.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
