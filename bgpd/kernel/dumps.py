"""What is asked of the kernel in dumps, and the readers of links and addresses.

Owns the requests (encoded once by pyroute2, strict: the kernel filters by table and protocol) and turns
link and address dumps into the values of `routes/next_hop.py`.  Routes are read by `route_reader.py`.
"""

from __future__ import annotations

from functools import cache
from struct import Struct

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bgpd.kernel import rtnetlink as nl
from bgpd.kernel.route_reader import ObjectMap, Ownership, Place, RouteReader, RouteShape
from routes.fib import FibEntry, Found
from routes.next_hop import ForeignRoute, InterfaceAddress, Link
from routes.prefix import Address, Prefix

IFINFOMSG = Struct("=BxHiII")
"""family, device type, ifindex, flags, changed flags."""
IFADDRMSG = Struct("=BBBBI")
"""family, prefix length, flags, scope, ifindex."""


def _encoded(message: nlmsg, kind: int) -> bytes:
    message["header"]["type"] = kind
    message["header"]["flags"] = nl.NLM_F_REQUEST | nl.NLM_F_DUMP
    message.encode()
    return bytes(message.data)


@cache
def route_request(family: int, table: int = 0, protocol: int = 0) -> bytes:
    """Routes of a family; 0 is any table, any protocol."""
    message = rtmsg()
    message["family"] = family
    message["proto"] = protocol
    message["attrs"] = [("RTA_TABLE", table)] if table else []
    return _encoded(message, nl.RTM_GETROUTE)


@cache
def link_request() -> bytes:
    """All links, without their statistics."""
    message = ifinfmsg()
    message["attrs"] = [("IFLA_EXT_MASK", nl.RTEXT_FILTER_SKIP_STATS)]
    return _encoded(message, nl.RTM_GETLINK)


@cache
def address_request() -> bytes:
    """All addresses of both families."""
    return _encoded(ifaddrmsg(), nl.RTM_GETADDR)


class _MessageReader:
    """Reads a dump message by message."""

    def __init__(self) -> None:
        self.done = False
        self.interrupted = False

    def take(self, data: bytes) -> None:
        for message in nl.messages(data):
            self.interrupted |= bool(message.flags & nl.NLM_F_DUMP_INTR)
            if nl.ends_dump(data, message):
                self.done = True
            else:
                self._read(data, message)

    def _read(self, data: bytes, message: nl.Message) -> None:
        raise NotImplementedError


class LinkReader(_MessageReader):
    """Collects links."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[Link] = []

    def _read(self, data: bytes, message: nl.Message) -> None:
        if message.kind != nl.RTM_NEWLINK:
            return
        _, _, ifindex, flags, _ = IFINFOMSG.unpack_from(data, message.start)
        name = f"link {ifindex}"
        for key, begin, end in nl.attributes(data, message.start + IFINFOMSG.size, message.end):
            if key == nl.IFLA_IFNAME:
                name = data[begin:end].rstrip(b"\0").decode("utf-8", "replace")
        self.links.append(Link(ifindex, name, bool(flags & nl.IFF_UP), bool(flags & nl.IFF_LOWER_UP)))


class AddressReader(_MessageReader):
    """Collects addresses of this node; on a point-to-point link the local one, not the peer's."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[InterfaceAddress] = []

    def _read(self, data: bytes, message: nl.Message) -> None:
        if message.kind != nl.RTM_NEWADDR:
            return
        family, length, _, _, ifindex = IFADDRMSG.unpack_from(data, message.start)
        values = {
            key: data[begin:end]
            for key, begin, end in nl.attributes(data, message.start + IFADDRMSG.size, message.end)
        }
        address = values.get(nl.IFA_LOCAL) or values.get(nl.IFA_ADDRESS)
        if address and family in (nl.AF_INET, nl.AF_INET6):
            self.addresses.append(InterfaceAddress(ifindex, Address(address), length))


class TableReader(RouteReader):
    """Sorts the routes of a table into ours and others'; what else has our protocol is neither."""

    def __init__(self, ownership: Ownership, objects: ObjectMap, *, foreign_only: bool = False) -> None:
        super().__init__(ownership, objects, ownership.protocol if foreign_only else None)
        self._protocol = ownership.protocol
        self.entries: dict[int, dict[Prefix, FibEntry]] = {metric: {} for metric in ownership.metrics}
        self.foreign: list[ForeignRoute] = []

    def take(self, data: bytes) -> None:
        """Read one buffer."""
        for _, nlri, shape in self.read(data):
            if shape.place is Place.OURS:
                self.entries[shape.metric][nlri] = shape.entry
            elif shape.place is not Place.IGNORED and shape.protocol != self._protocol:
                self.foreign.append(foreign_route(nlri, shape))


class PlaceReader(RouteReader):
    """Looks for what is in the places (table and one metric of ours) of some prefixes."""

    def __init__(
        self, ownership: Ownership, objects: ObjectMap, metric: int, wanted: frozenset[Prefix]
    ) -> None:
        super().__init__(ownership, objects)
        self._metric = metric
        self._wanted = wanted
        self.found: dict[Prefix, Found] = {}

    def take(self, data: bytes) -> None:
        """Read one buffer."""
        for _, nlri, shape in self.read(data):
            if shape.metric != self._metric or nlri not in self._wanted:
                continue
            entry, foreign = self.found.get(nlri, Found(None))
            if shape.place is Place.OURS:
                self.found[nlri] = Found(shape.entry, foreign)
            elif shape.place is Place.IN_OUR_PLACE:
                self.found[nlri] = Found(entry, shape.protocol)


class UseReader(RouteReader):
    """Collects the next-hop objects that routes use."""

    def __init__(self, ownership: Ownership, objects: ObjectMap) -> None:
        super().__init__(ownership, objects)
        self.used: set[int] = set()

    def take(self, data: bytes) -> None:
        """Read one buffer."""
        self.used.update(shape.object_id for _, _, shape in self.read(data))


def foreign_route(nlri: Prefix, shape: RouteShape) -> ForeignRoute:
    """A route of somebody else, as next-hop resolution sees it."""
    return ForeignRoute(nlri, shape.metric, shape.protocol, shape.kind, shape.entry.hops)
