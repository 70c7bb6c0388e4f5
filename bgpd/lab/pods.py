"""Wiring a pod to its node as the CNI plugin `ptp` does.

Pure: turns a plan's pod into the `ip` commands of both ends.  The pod has its address with the node's
prefix length but no connected route: everything, its neighbours on the same node included, goes through
the gateway.  The node has the gateway's address as a host address on each pod's device and a host route
to the pod, so that packets between pods are routed, never bridged.
"""

from __future__ import annotations

from bgpd.lab.netns import add_address
from bgpd.lab.plan import Node, Pod

POD_DEVICE = "eth0"


def node_commands(node: Node, pod: Pod) -> list[str]:
    """`ip` commands in the node's namespace; they make the pod's device too."""
    device = pod.device
    lines = [
        f"link add {device} type veth peer name {POD_DEVICE} netns {pod.namespace}",
        f"link set {device} up",
    ]
    for gateway, address in zip(node.gateways, pod.addresses, strict=True):
        bits = gateway.max_prefixlen
        scope = "scope host" if gateway.version == 4 else ""
        lines.append(add_address(device, f"{gateway}/{bits}"))
        lines.append(f"route add {address}/{bits} dev {device} {scope}")
    return lines


def pod_commands(node: Node, pod: Pod) -> list[str]:
    """`ip` commands in the pod's namespace."""
    lines = [f"link set {POD_DEVICE} up"]
    for gateway, address, network in zip(node.gateways, pod.addresses, node.pod_networks, strict=True):
        everything = "0.0.0.0/0" if gateway.version == 4 else "::/0"
        lines += [
            add_address(POD_DEVICE, f"{address}/{network.prefixlen}", "noprefixroute"),
            f"route add {gateway}/{gateway.max_prefixlen} dev {POD_DEVICE} src {address} scope link",
            f"route add {network} via {gateway} dev {POD_DEVICE} src {address}",
            f"route add {everything} via {gateway} dev {POD_DEVICE}",
        ]
    return lines
