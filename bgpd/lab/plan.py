"""What a lab consists of: every name, address and link of it, decided before anything is touched.

Pure: a plan is computed from the options alone, so a test can read it and the same options give the same
network.  It must never look at the host.

Addresses are those of the documentation (RFC 5737, RFC 3849), private (10/8, fd00::/8) and shared
(RFC 6598) ranges.  Links to routers are /31 (RFC 3021) and /127 (RFC 6164).  Each node behind routers
has an AS number of its own, since two nodes that share one would refuse each other's paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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

from bgpd.lab import light_plan
from bgpd.lab.command import LabError
from bgpd.lab.light_plan import LightNode

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

IBGP_ASN = 65000
FIRST_ROUTER_ASN = 64601
FIRST_NODE_ASN = 65001
ROUTERS = 2
REFLECTORS = 2
SHARED_DEVICE = "fabric0"
MOST_NODES = 100
MOST_PODS = 100

POD_NETWORKS: tuple[Network, ...] = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/48"))
NODE_NETWORKS: tuple[Network, ...] = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))


class Fabric(StrEnum):
    """What carries packets, and paths, between the nodes."""

    REFLECTOR = "reflector"
    """One link that all nodes share; the agents peer with two route reflectors over iBGP."""
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
class Reflector:
    """A route reflector on the shared link; all its clients come from ranges."""

    name: str
    namespace: str
    """Its own, or that of the node that it shares with an agent."""
    node: str
    """That node; empty when it has a namespace of its own."""
    address: Address
    """Where it listens, and its router ID; on a node, not the agent's."""
    other: Address
    """The other reflector: its only configured peer."""
    uplink: Uplink | None
    """Its end of the shared link; None where it shares its node's."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole lab."""

    fabric: Fabric
    nodes: tuple[Node, ...]
    routers: tuple[Router, ...]
    switch_namespace: str
    """Holds the bridge of the shared link; empty with routers."""
    dual_stack: bool
    reflectors: tuple[Reflector, ...] = ()
    light_nodes: tuple[LightNode, ...] = ()
    light_namespace: str = ""
    """Holds all light nodes."""

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
        reflectors = tuple(reflector.namespace for reflector in self.reflectors if not reflector.node)
        light = (self.light_namespace,) if self.light_nodes else ()
        pods = tuple(pod.namespace for pod in self.pods)
        return self.fabric_namespaces + reflectors + light + nodes + pods

    def advertised(self, node: Node) -> tuple[Network, ...]:
        """What a node's agent announces: its pods, and behind routers the address it is reached at."""
        hosts = tuple(ip_network(address) for address in node.addresses) if self.routers else ()
        return node.pod_networks + hosts

    def learned(self, node: Node) -> tuple[Network, ...]:
        """The kernel entries that a node must end up with."""
        others = (n for other in self.nodes if other is not node for n in self.advertised(other))
        light = (n for light_node in self.light_nodes for n in light_node.pod_networks)
        return (*others, *light)

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
    light_nodes: int = 0,
    dual_stack: bool = True,
) -> Plan:
    """The plan of a lab; `name_namespace` turns `node1` into the name of its namespace."""
    if not 2 <= nodes <= MOST_NODES:
        raise LabError(f"a lab has 2 to {MOST_NODES} nodes, not {nodes}")
    if not 1 <= pods_per_node <= MOST_PODS:
        raise LabError(f"a node of the lab has 1 to {MOST_PODS} pods, not {pods_per_node}")
    if light_nodes and fabric is not Fabric.REFLECTOR:
        raise LabError(f"light nodes are clients of reflectors: there are none in the fabric {fabric}")
    families = 2 if dual_stack else 1
    routers = tuple(range(1, ROUTERS + 1)) if fabric in (Fabric.FRR, Fabric.BIRD) else ()
    numbers = range(1, nodes + 1)
    return Plan(
        fabric=fabric,
        nodes=tuple(
            _node(name_namespace, fabric, number, numbers, pods_per_node, families) for number in numbers
        ),
        routers=tuple(_router(name_namespace, router, numbers, families) for router in routers),
        switch_namespace="" if routers else name_namespace("switch"),
        dual_stack=dual_stack,
        reflectors=_reflectors(name_namespace) if fabric is Fabric.REFLECTOR else (),
        light_nodes=light_plan.light_nodes(light_nodes, families),
        light_namespace=name_namespace("light"),
    )


def with_one_more(plan: Plan, name_namespace: Callable[[str], str]) -> Plan:
    """The plan with another node, and nothing else changed: what clients of a range are for."""
    if plan.fabric is not Fabric.REFLECTOR:
        raise LabError(f"in the fabric {plan.fabric} another node changes the others' configuration")
    number = len(plan.nodes) + 1
    if number > MOST_NODES:
        raise LabError(f"a lab has up to {MOST_NODES} nodes")
    numbers, pods = range(1, number + 1), len(plan.nodes[0].pods)
    node = _node(name_namespace, plan.fabric, number, numbers, pods, 2 if plan.dual_stack else 1)
    return replace(plan, nodes=(*plan.nodes, node))


def _node(
    name_namespace: Callable[[str], str],
    fabric: Fabric,
    number: int,
    numbers: range,
    pods_per_node: int,
    families: int,
) -> Node:
    addresses = tuple(_node_addresses(number))[:families]
    behind_routers = fabric in (Fabric.FRR, Fabric.BIRD)
    if behind_routers:
        uplinks = tuple(
            _router_link(name_namespace, number, router, families) for router in range(1, ROUTERS + 1)
        )
        sessions = tuple(
            Session(link.far_addresses[0].ip, FIRST_ROUTER_ASN + index, link.addresses[0].ip)
            for index, link in enumerate(uplinks)
        )
    else:
        uplinks = (_switch_link(name_namespace, f"node{number}", addresses),)
        far = (
            [_reflector_address(reflector) for reflector in range(1, REFLECTORS + 1)]
            if fabric is Fabric.REFLECTOR
            else [next(_node_addresses(other)) for other in numbers if other != number]
        )
        sessions = tuple(Session(address, IBGP_ASN, addresses[0]) for address in far)
    networks = tuple(_pod_networks(number))[:families]
    return Node(
        name=f"node{number}",
        namespace=name_namespace(f"node{number}"),
        number=number,
        asn=FIRST_NODE_ASN + number - 1 if behind_routers else IBGP_ASN,
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


def _reflectors(name_namespace: Callable[[str], str]) -> tuple[Reflector, ...]:
    """The first has a namespace of its own; the second shares node 1 with its agent."""
    first, second = _reflector_address(1), _reflector_address(2)
    uplink = _switch_link(name_namespace, "reflector1", (first,))
    return (
        Reflector("reflector1", name_namespace("reflector1"), "", first, second, uplink),
        Reflector("reflector2", name_namespace("node1"), "node1", second, first, None),
    )


def _reflector_address(number: int) -> Address:
    return NODE_NETWORKS[0][number]


def _pod(name_namespace: Callable[[str], str], node: int, pod: int, networks: tuple[Network, ...]) -> Pod:
    name = f"pod{node}-{pod}"
    return Pod(name, name_namespace(name), f"vpod{pod}", tuple(network[pod + 1] for network in networks))


def _node_addresses(number: int) -> Iterator[Address]:
    yield NODE_NETWORKS[0][10 + number]
    yield ip_address(f"2001:db8::{10 + number}")


def _pod_networks(number: int) -> Iterator[Network]:
    yield ip_network(f"10.244.{number}.0/24")
    yield ip_network(f"fd00:10:244:{number}::/64")


def _switch_link(name_namespace: Callable[[str], str], name: str, addresses: tuple[Address, ...]) -> Uplink:
    pairs = zip(addresses, NODE_NETWORKS, strict=False)
    return Uplink(
        device=SHARED_DEVICE,
        far_namespace=name_namespace("switch"),
        far_device=name,
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
