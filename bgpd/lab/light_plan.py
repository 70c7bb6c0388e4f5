"""The light nodes of a lab: speakers without a kernel table, pods or namespace of their own.

Pure: names and addresses by number.  All light nodes live in one namespace and one process
(`bgpd/lab/light_nodes.py`), so a thousand of them fit where a thousand whole nodes do not.  They have a
network of their own on the shared link (RFC 6598), and pod networks beside those of the real nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from bgpd.lab.command import LabError

MOST_LIGHT_NODES = 10_000
NETWORK = IPv4Network("100.64.0.0/16")
"""Where light nodes connect from: the second range of the reflectors' clients."""
POD_NETWORKS: tuple[IPv4Network | IPv6Network, ...] = (
    IPv4Network("10.64.0.0/10"),
    IPv6Network("fd00:10:64::/48"),
)
DEVICE = "fabric0"
HARDWARE_ADDRESS = "02:00:00:64:00:01"
"""The light nodes' end of the shared link: reflectors have it as a fixed neighbour, since the kernel's
neighbour table (1,024 by default, one for all namespaces) is too small for many of them."""


@dataclass(frozen=True, slots=True)
class LightNode:
    """One light node."""

    number: int
    next_hops: tuple[IPv4Address | IPv6Address, ...]
    """What it announces as next hop; the first is also its router ID and where it connects from."""
    pod_networks: tuple[IPv4Network | IPv6Network, ...]

    @property
    def address(self) -> IPv4Address | IPv6Address:
        return self.next_hops[0]


def light_nodes(count: int, families: int) -> tuple[LightNode, ...]:
    """`count` of them, numbered from 1, with IPv4 alone or both families."""
    if not 0 <= count <= MOST_LIGHT_NODES:
        raise LabError(f"a lab has up to {MOST_LIGHT_NODES} light nodes, not {count}")
    return tuple(_light_node(number, families) for number in range(1, count + 1))


def _light_node(number: int, families: int) -> LightNode:
    next_hops = (NETWORK[number], ip_address(f"2001:db8::1:{number:x}"))
    pods = (
        IPv4Network((int(POD_NETWORKS[0].network_address) + (number << 8), 24)),
        ip_network(f"fd00:10:64:{number:x}::/64"),
    )
    return LightNode(number, next_hops[:families], pods[:families])
