"""A VXLAN (RFC 7348) between the lab's two nodes, beside the routes of their agents.

Owns which of the two ways the same pods' packets take.  The overlay is built as the overlay networks for
Kubernetes build it: a VXLAN device on each node, the other's as a fixed neighbour, and a route to the other's
pods through it.  Its route is preferred by metric, so that adding it turns the overlay on and removing it
leaves the agents' routes, which nobody touches.  Pods' links get the MTU that each way leaves them.
"""

from __future__ import annotations

from enum import StrEnum

from bgpd.kernel.uplinks import read_uplinks
from bgpd.lab import compare_offloads, netns
from bgpd.lab.command import LabError
from bgpd.lab.plan import SHARED_DEVICE, Node, Plan
from bgpd.lab.pods import POD_DEVICE

DEVICE = "vxlan1"
PORT = 4789
PREFERRED = 5
"""The metric of the overlay's route; the agents' is higher."""


class Way(StrEnum):
    """How pods' packets cross the fabric."""

    NATIVE = "native"
    OVERLAY = "overlay"


class Offloads(StrEnum):
    """What the devices do themselves."""

    ALL = "all"
    """As the kernel has them at start."""
    NO_TUNNEL = "no tunnel offload"
    """The nodes' links can't cut up tunnelled packets, as many network cards can't."""
    NONE = "none"


class Overlay:
    """The overlay of a lab with two nodes."""

    def __init__(self, plan: Plan) -> None:
        if len(plan.nodes) != 2:
            raise LabError(f"two nodes are compared, not {len(plan.nodes)}")
        self._plan = plan
        self._way = Way.NATIVE
        self._offloads: Offloads | None = None
        self._before: dict[tuple[str, str], dict[str, bool]] = {}
        self.mtu: dict[Way, int] = {}

    def build(self) -> None:
        """Make the devices; no packet takes them yet."""
        one, two = self._plan.nodes
        for node, other in ((one, two), (two, one)):
            netns.batch(node.namespace, [_device(node, other)])
            # Else the device itself sends through the tunnel, while pods' packets do not.
            netns.set_sysctls(node.namespace, {f"net.ipv6.conf.{DEVICE}.disable_ipv6": "1"})
            netns.batch(node.namespace, _device_commands(node, other))
        mtus = netns.call_in(one.namespace, lambda: {link.name: link.mtu for link in read_uplinks().links})
        self.mtu = {Way.NATIVE: mtus[SHARED_DEVICE], Way.OVERLAY: mtus[DEVICE]}
        self._before = {
            place: compare_offloads.read(*place) for places in self._devices().values() for place in places
        }

    def take(self, way: Way) -> None:
        """Lead the pods' packets this way from now on."""
        one, two = self._plan.nodes
        for node, other in ((one, two), (two, one)):
            lines = [f"link set {pod.device} mtu {self.mtu[way]}" for pod in node.pods]
            if way is not self._way:
                verb = "add" if way is Way.OVERLAY else "del"
                lines.append(f"route {verb} {_route(other)}")
            netns.batch(node.namespace, lines)
            for pod in node.pods:
                netns.batch(pod.namespace, [f"link set {POD_DEVICE} mtu {self.mtu[way]}"])
        self._way = way

    def offload(self, offloads: Offloads) -> bool:
        """Give the devices these offloads, and take the others away; whether they had others before."""
        if offloads is self._offloads:
            return False
        self._offloads = offloads
        devices = self._devices()
        for places in devices.values():
            for place in places:
                wanted = dict(self._before[place])
                if offloads is Offloads.NONE:
                    wanted = dict.fromkeys(wanted, False)
                elif offloads is Offloads.NO_TUNNEL and place in devices["uplink"]:
                    wanted |= dict.fromkeys(compare_offloads.TUNNEL, False)
                compare_offloads.change(*place, wanted)
        return True

    def offloads(self) -> dict[str, list[str]]:
        """What is on now, by kind of device."""
        return {
            kind: [name for name, on in compare_offloads.read(*places[0]).items() if on]
            for kind, places in self._devices().items()
        }

    def _devices(self) -> dict[str, list[tuple[str, str]]]:
        """By kind (`compare_report.KINDS`): namespace and name of each device that a packet passes."""
        nodes = self._plan.nodes
        return {
            "pod": [(pod.namespace, POD_DEVICE) for node in nodes for pod in node.pods],
            "podFarEnd": [(node.namespace, pod.device) for node in nodes for pod in node.pods],
            "vxlan": [(node.namespace, DEVICE) for node in nodes],
            "uplink": [(node.namespace, SHARED_DEVICE) for node in nodes],
            "fabric": [(link.far_namespace, link.far_device) for node in nodes for link in node.uplinks],
        }


def _hardware_address(node: Node) -> str:
    return f"02:00:00:00:00:{node.number:02x}"


def _device(node: Node, other: Node) -> str:
    ends = f"local {node.addresses[0]} remote {other.addresses[0]} dstport {PORT} dev {SHARED_DEVICE}"
    return f"link add {DEVICE} address {_hardware_address(node)} type vxlan id 1 {ends}"


def _device_commands(node: Node, other: Node) -> list[str]:
    here, there = node.pod_networks[0][0], other.pod_networks[0][0]
    return [
        f"link set {DEVICE} up",
        netns.add_address(DEVICE, f"{here}/32"),
        f"neighbour add {there} lladdr {_hardware_address(other)} dev {DEVICE} nud permanent",
    ]


def _route(other: Node) -> str:
    network = other.pod_networks[0]
    return f"{network} via {network[0]} dev {DEVICE} onlink metric {PREFERRED}"
