"""What a lab consists of: every name, address and link of it, decided before anything is touched.

Pure: a plan is computed from the options alone, so a test can read it and the same options give the same
network.  It must never look at the host.

Addresses are those of the documentation (RFC 5737, RFC 3849), private (10/8, fd00::/8) and shared
(RFC 6598) ranges.  Links to routers are /31 (RFC 3021) and /127 (RFC 6164).  Each node behind routers
has an AS number of its own, since two nodes that share one would refuse each other's paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

from bgpd.lab.command import LabError

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

MESH_ASN = 65000
FIRST_ROUTER_ASN = 64601
FIRST_NODE_ASN = 65001
ROUTERS = 2
MOST_NODES = 100
MOST_PODS = 100

POD_NETWORKS: tuple[Network, ...] = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/48"))
NODE_NETWORKS: tuple[Network, ...] = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))


class Fabric(StrEnum):
    """What carries packets between the nodes."""

    MESH = "mesh"
    """One link that all nodes share; the agents peer with each other over iBGP."""
    FRR = "frr"
    BIRD = "bird"
    """Two top-of-rack routers; each node has a link and an eBGP session to both."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod: its namespace holds `eth0`, the node holds `device`, the other end."""

    name: str
    namespace: str
    device: str
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Uplink:
    """A link of a node to the shared link or to a router, seen from the node."""

    device: str
    far_namespace: str
    far_device: str
    addresses: tuple[Interface, ...]
    far_addresses: tuple[Interface, ...]
    """None on the shared link."""


@dataclass(frozen=True, slots=True)
class Session:
    """A BGP session that a node's agent is configured with."""

    address: Address
    asn: int
    source: Address


@dataclass(frozen=True, slots=True)
class Node:
    """A node: its pods hang on it, and its agent runs in its namespace."""

    name: str
    namespace: str
    number: int
    asn: int
    addresses: tuple[Address, ...]
    """Where it is reached: on the shared link, or on its loopback behind routers."""
    pod_networks: tuple[Network, ...]
    pods: tuple[Pod, ...]
    uplinks: tuple[Uplink, ...]
    sessions: tuple[Session, ...]

    @property
    def router_id(self) -> Address:
        return self.addresses[0]

    @property
    def gateways(self) -> tuple[Address, ...]:
        """The addresses that its pods have as their gateway, as host-local reserves them."""
        return tuple(network[1] for network in self.pod_networks)


@dataclass(frozen=True, slots=True)
class RouterSession:
    """A router's neighbour: the node at the far end of one of its links."""

    node: str
    address: Address
    asn: int
    source: Address


@dataclass(frozen=True, slots=True)
class Router:
    """A top-of-rack router."""

    name: str
    namespace: str
    asn: int
    router_id: Address
    sessions: tuple[RouterSession, ...]
    dual_stack: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole lab."""

    fabric: Fabric
    nodes: tuple[Node, ...]
    routers: tuple[Router, ...]
    switch_namespace: str
    """Holds the bridge of the shared link; empty with routers."""
    dual_stack: bool

    @property
    def pods(self) -> tuple[Pod, ...]:
        return tuple(pod for node in self.nodes for pod in node.pods)

    @property
    def fabric_namespaces(self) -> tuple[str, ...]:
        """Every packet between two nodes crosses one of these."""
        return tuple(router.namespace for router in self.routers) or (self.switch_namespace,)

    @property
    def namespaces(self) -> tuple[str, ...]:
        nodes = tuple(node.namespace for node in self.nodes)
        return self.fabric_namespaces + nodes + tuple(pod.namespace for pod in self.pods)

    def advertised(self, node: Node) -> tuple[Network, ...]:
        """What a node's agent announces: its pods, and behind routers the address it is reached at."""
        hosts = tuple(ip_network(address) for address in node.addresses) if self.routers else ()
        return node.pod_networks + hosts

    def learned(self, node: Node) -> tuple[Network, ...]:
        """The kernel entries that a node must end up with."""
        return tuple(n for other in self.nodes if other is not node for n in self.advertised(other))

    @property
    def paths(self) -> int:
        """The next hops that each learned entry must have."""
        return len(self.routers) or 1


def make_plan(
    name_namespace: Callable[[str], str],
    *,
    fabric: Fabric = Fabric.MESH,
    nodes: int = 3,
    pods_per_node: int = 2,
    dual_stack: bool = True,
) -> Plan:
    """The plan of a lab; `name_namespace` turns `node1` into the name of its namespace."""
    if not 2 <= nodes <= MOST_NODES:
        raise LabError(f"a lab has 2 to {MOST_NODES} nodes, not {nodes}")
    if not 1 <= pods_per_node <= MOST_PODS:
        raise LabError(f"a node of the lab has 1 to {MOST_PODS} pods, not {pods_per_node}")
    families = 2 if dual_stack else 1
    routers = () if fabric is Fabric.MESH else tuple(range(1, ROUTERS + 1))
    numbers = range(1, nodes + 1)
    return Plan(
        fabric=fabric,
        nodes=tuple(
            _node(name_namespace, number, numbers, routers, pods_per_node, families) for number in numbers
        ),
        routers=tuple(_router(name_namespace, router, numbers, families) for router in routers),
        switch_namespace="" if routers else name_namespace("switch"),
        dual_stack=dual_stack,
    )


def _node(
    name_namespace: Callable[[str], str],
    number: int,
    numbers: range,
    routers: tuple[int, ...],
    pods_per_node: int,
    families: int,
) -> Node:
    addresses = tuple(_node_addresses(number))[:families]
    if routers:
        uplinks = tuple(_router_link(name_namespace, number, router, families) for router in routers)
        sessions = tuple(
            Session(link.far_addresses[0].ip, FIRST_ROUTER_ASN + index, link.addresses[0].ip)
            for index, link in enumerate(uplinks)
        )
    else:
        uplinks = (_switch_link(name_namespace, number, addresses),)
        sessions = tuple(
            Session(next(_node_addresses(other)), MESH_ASN, addresses[0])
            for other in numbers
            if other != number
        )
    networks = tuple(_pod_networks(number))[:families]
    return Node(
        name=f"node{number}",
        namespace=name_namespace(f"node{number}"),
        number=number,
        asn=FIRST_NODE_ASN + number - 1 if routers else MESH_ASN,
        addresses=addresses,
        pod_networks=networks,
        pods=tuple(_pod(name_namespace, number, pod, networks) for pod in range(1, pods_per_node + 1)),
        uplinks=uplinks,
        sessions=sessions,
    )


def _router(name_namespace: Callable[[str], str], router: int, numbers: range, families: int) -> Router:
    links = [(number, _router_link(name_namespace, number, router, families)) for number in numbers]
    return Router(
        name=f"tor{router}",
        namespace=name_namespace(f"tor{router}"),
        asn=FIRST_ROUTER_ASN + router - 1,
        router_id=NODE_NETWORKS[0][router],
        sessions=tuple(
            RouterSession(
                f"node{number}", link.addresses[0].ip, FIRST_NODE_ASN + number - 1, link.far_addresses[0].ip
            )
            for number, link in links
        ),
        dual_stack=families == 2,
    )


def _pod(name_namespace: Callable[[str], str], node: int, pod: int, networks: tuple[Network, ...]) -> Pod:
    name = f"pod{node}-{pod}"
    return Pod(name, name_namespace(name), f"vpod{pod}", tuple(network[pod + 1] for network in networks))


def _node_addresses(number: int) -> Iterator[Address]:
    yield NODE_NETWORKS[0][10 + number]
    yield ip_address(f"2001:db8::{10 + number}")


def _pod_networks(number: int) -> Iterator[Network]:
    yield ip_network(f"10.244.{number}.0/24")
    yield ip_network(f"fd00:10:244:{number}::/64")


def _switch_link(name_namespace: Callable[[str], str], number: int, addresses: tuple[Address, ...]) -> Uplink:
    pairs = zip(addresses, NODE_NETWORKS, strict=False)
    return Uplink(
        device="fabric0",
        far_namespace=name_namespace("switch"),
        far_device=f"node{number}",
        addresses=tuple(ip_interface(f"{address}/{network.prefixlen}") for address, network in pairs),
        far_addresses=(),
    )


def _router_link(name_namespace: Callable[[str], str], number: int, router: int, families: int) -> Uplink:
    far = (
        ip_interface(f"100.64.{router}.{2 * number}/31"),
        ip_interface(f"2001:db8:ff:{router}::{number}:0/127"),
    )
    near = (
        ip_interface(f"100.64.{router}.{2 * number + 1}/31"),
        ip_interface(f"2001:db8:ff:{router}::{number}:1/127"),
    )
    return Uplink(
        device=f"tor{router}",
        far_namespace=name_namespace(f"tor{router}"),
        far_device=f"node{number}",
        addresses=near[:families],
        far_addresses=far[:families],
    )
