"""What the kernel says of links, as far as choosing an uplink needs it: MTU, addresses, default routes.

Owns one reader more of the same link dump.  It must never choose (`bgpd/node/uplink.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from bgpd.kernel import rtnetlink as nl
from bgpd.kernel.command_socket import CommandSocket, dump
from bgpd.kernel.dumps import (
    IFINFOMSG,
    AddressReader,
    TableReader,
    address_request,
    link_request,
    route_request,
)
from bgpd.kernel.next_hop_objects import DEFAULT_THRESHOLD, NextHopObjects
from bgpd.kernel.route_reader import Ownership
from routes.next_hop import InterfaceAddress

IFLA_MTU = 4
IFF_LOOPBACK = 0x8
NOBODY = Ownership(0, 0, frozenset())
"""Makes every route somebody's: learned default routes count as well."""


class LinkMtu(NamedTuple):
    """A network device and the largest packet that it takes."""

    ifindex: int
    name: str
    up: bool
    loopback: bool
    mtu: int


class Uplinks(NamedTuple):
    """All that is asked."""

    links: tuple[LinkMtu, ...]
    addresses: tuple[InterfaceAddress, ...]
    default_links: frozenset[int]
    """The interfaces of default routes, of both families, in the main table."""


class MtuReader:
    """Collects links with their MTU."""

    def __init__(self) -> None:
        self.done = False
        self.interrupted = False
        self.links: list[LinkMtu] = []

    def take(self, data: bytes) -> None:
        """Read one buffer."""
        for message in nl.messages(data):
            self.interrupted |= bool(message.flags & nl.NLM_F_DUMP_INTR)
            if nl.ends_dump(data, message):
                self.done = True
            elif message.kind == nl.RTM_NEWLINK:
                self.links.append(_link(data, message))


def _link(data: bytes, message: nl.Message) -> LinkMtu:
    _, _, ifindex, flags, _ = IFINFOMSG.unpack_from(data, message.start)
    name, mtu = f"link {ifindex}", 0
    for key, begin, end in nl.attributes(data, message.start + IFINFOMSG.size, message.end):
        if key == nl.IFLA_IFNAME:
            name = data[begin:end].rstrip(b"\0").decode("utf-8", "replace")
        elif key == IFLA_MTU:
            mtu = nl.u32(data[begin:end], 0)
    return LinkMtu(ifindex, name, bool(flags & nl.IFF_UP), bool(flags & IFF_LOOPBACK), mtu)


def read_uplinks() -> Uplinks:
    """Read the links of the namespace that the process is in; KernelError when that fails."""
    defaults: set[int] = set()
    with CommandSocket() as sock:
        objects = NextHopObjects(sock, NOBODY, DEFAULT_THRESHOLD)
        objects.load()  # with nexthop_compat_mode=0 routes name the object alone
    for family in (nl.AF_INET, nl.AF_INET6):
        reader = dump(route_request(family, nl.RT_TABLE_MAIN), lambda: TableReader(NOBODY, objects.map))
        for route in reader.foreign:
            if route.prefix.length == 0:
                defaults.update(hop.ifindex for hop in route.hops)
    links = dump(link_request(), MtuReader).links
    addresses = dump(address_request(), AddressReader).addresses
    return Uplinks(tuple(links), tuple(addresses), frozenset(defaults))
