"""The way between the lab's nodes and their API server: a link that is not the pods' network.

A cluster's API server must be reached before any pod route exists, so the lab gives it what data centres call
an out-of-band network: a bridge in the control plane's namespace, and one link to each node.  Pure but for
`attach`.  No pod's packet ever takes it: there is no route for pods on the control plane's side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from bgpd.lab import netns
from bgpd.lab.command import LabError
from bgpd.lab.plan import Node, Plan

NETWORK = IPv4Network("198.51.100.0/24")
"""For documentation (RFC 5737); no fabric of the lab uses it."""
CONTROL_ADDRESS = NETWORK[1]
BRIDGE = "manage0"
DEVICE = "manage0"
"""On a node."""
FIRST_NODE = 100
MOST_NODES = 150


@dataclass(frozen=True, slots=True)
class ManagementLink:
    """A node's link to the API server."""

    namespace: str
    far_device: str
    address: IPv4Address


def management_link(node: Node) -> ManagementLink:
    """The link of a node of the plan."""
    if not 1 <= node.number <= MOST_NODES:
        raise LabError(f"the API server's network has room for {MOST_NODES} nodes, not for {node.name}")
    return ManagementLink(node.namespace, node.name, NETWORK[FIRST_NODE + node.number])


def without_pods(plan: Plan) -> Plan:
    """The plan without the pods that the lab wires itself, where the CNI plugins are to do it."""
    return replace(plan, nodes=tuple(replace(node, pods=()) for node in plan.nodes))


def create_control_namespace(namespace: str) -> None:
    """The control plane's namespace, with the bridge and its own address."""
    netns.create([namespace])
    netns.batch(
        namespace,
        [
            f"link add {BRIDGE} type bridge mcast_snooping 0",
            f"link set {BRIDGE} up",
            netns.add_address(BRIDGE, f"{CONTROL_ADDRESS}/{NETWORK.prefixlen}"),
        ],
    )


def attach(namespace: str, link: ManagementLink) -> None:
    """Link a node that is already built to the control plane's bridge."""
    netns.batch(
        link.namespace,
        [
            f"link add {DEVICE} type veth peer name {link.far_device} netns {namespace}",
            f"link set {DEVICE} up",
            netns.add_address(DEVICE, f"{link.address}/{NETWORK.prefixlen}"),
        ],
    )
    netns.batch(namespace, [f"link set {link.far_device} master {BRIDGE} up"])
