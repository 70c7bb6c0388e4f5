"""Reads route messages of dumps and notifications, raw and fast.

Owns what a kernel route looks like as a `FibEntry`.  It must never decide what happens to it.
Messages of one shape differ only in the destination, so everything else in a message is the key to a
memo: a table of 100,000 entries over 64 gateways is parsed 64 times.  Attributes that podbgp never sets
end up in `FibEntry.odd`, so that an entry that was changed by hand differs from every wanted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from struct import Struct
from typing import NamedTuple

from bgpd.errors import KernelError
from bgpd.kernel import rtnetlink as nl
from routes.fib import FibEntry, Hop
from routes.next_hop import RouteKind
from routes.prefix import Address, Prefix

MEMO_LIMIT = 200_000
"""Shapes; beyond it the memo starts anew (entries with next-hop objects all differ)."""

START = Struct("=IHH8xBB")
"""nlmsghdr and the start of rtmsg: length, type, flags; family, rtm_dst_len."""
RTMSG = Struct("=BBBBBBBBI")
"""family, dst_len, src_len, tos, table, protocol, scope, type, flags."""
RTNEXTHOP = Struct("=HBBi")
"""length, flags, weight, ifindex."""
RTMSG_END, PROTOCOL_AT = 28, 21
DST_START, DST_END = 36, {nl.AF_INET: 44, nl.AF_INET6: 56}
"""Where RTA_DST lies in messages that begin with RTA_TABLE and RTA_DST, as the kernel writes them."""
DST_HEADER = {family: nl.ATTRIBUTE.pack(end - DST_START, nl.RTA_DST) for family, end in DST_END.items()}
ANY = {nl.AF_INET: Address(bytes(4)), nl.AF_INET6: Address(bytes(16))}
ROUTES = frozenset((nl.RTM_NEWROUTE, nl.RTM_DELROUTE))

KINDS = {
    nl.RTN_UNICAST: RouteKind.UNICAST,
    nl.RTN_BLACKHOLE: RouteKind.BLACKHOLE,
    nl.RTN_UNREACHABLE: RouteKind.UNREACHABLE,
    nl.RTN_PROHIBIT: RouteKind.PROHIBIT,
}
PLAIN = {nl.RTA_PREF: bytes(1)}
"""Attributes that the kernel always adds, with the value that means nothing."""
RTA_EXPIRES = slice(8, 12)
"""In rta_cacheinfo: the lifetime, 0 for a route without."""
ZERO = bytes(4)


class Place(Enum):
    """Whose a route is."""

    OURS = 1
    """Table, metric and protocol are ours."""
    IN_OUR_PLACE = 2
    """Table and metric are ours, the protocol is not: it blocks, or has taken, an entry of ours."""
    FOREIGN = 3
    IGNORED = 4
    """With a type of service or a source prefix: it never meets ours, and resolves no next hop."""


class RouteShape(NamedTuple):
    """All of a route but its destination."""

    place: Place
    table: int
    metric: int
    protocol: int
    kind: RouteKind
    entry: FibEntry
    object_id: int
    """The next-hop object that it uses, or 0."""


class ObjectMap(NamedTuple):
    """What next-hop objects stand for, by their ID."""

    hops: dict[int, tuple[Hop, ...]]
    ours: set[int]

    def replace(self, now: ObjectMap) -> None:
        """Take this instead; other threads may look at any moment, so that it is never empty in between."""
        self.hops.update(now.hops)
        self.ours.update(now.ours)
        for object_id in self.hops.keys() - now.hops:
            del self.hops[object_id]
        self.ours.intersection_update(now.ours)


class InUse(NamedTuple):
    """What entries of ours depend on, or did since the last dump."""

    links: set[int]
    sources: set[bytes]
    """Preferred sources."""

    def note(self, entry: FibEntry) -> None:
        """This entry is in the kernel, or is about to be."""
        for hop in entry.hops:
            self.links.add(hop.ifindex)
        if entry.preferred_source is not None:
            self.sources.add(entry.preferred_source)

    def add(self, more: InUse) -> None:
        """These are in use as well."""
        self.links.update(more.links)
        self.sources.update(more.sources)

    def keep_only(self, now: InUse) -> None:
        """Nothing but these is in use."""
        self.links.intersection_update(now.links)
        self.sources.intersection_update(now.sources)


class Ownership(NamedTuple):
    """What makes a route ours."""

    table: int
    protocol: int
    metrics: frozenset[int]

    def place(self, table: int, protocol: int, metric: int) -> Place:
        """Whose a route with these is."""
        if table != self.table or metric not in self.metrics:
            return Place.FOREIGN
        return Place.OURS if protocol == self.protocol else Place.IN_OUR_PLACE


class _Skeleton(NamedTuple):
    """How to read messages that differ from a known one only in gateway, interface and object."""

    layout: Struct
    """Of what is behind RTA_DST: fixed bytes, and between them the variable places."""
    fixed: tuple[bytes, ...]
    gateway: int
    """Where in what is unpacked it is; 0: there is none."""
    link: int
    object_id: int
    like: RouteShape


def _skeleton(data: bytes, behind: int, end: int, shape: RouteShape) -> _Skeleton:
    places: list[tuple[int, int, int]] = []
    for key, begin, stop in nl.attributes(data, behind, end):
        if key in (nl.RTA_GATEWAY, nl.RTA_OIF, nl.RTA_NH_ID):
            places.append((begin, stop, key))
        elif key == nl.RTA_VIA:
            places.append((begin + 2, stop, nl.RTA_GATEWAY))
    layout, at = "=", behind
    for begin, stop, key in places:
        layout += f"{begin - at}s" + (f"{stop - begin}s" if key == nl.RTA_GATEWAY else "I")
        at = stop
    layout += f"{end - at}s"
    where = {key: 2 * number + 1 for number, (_, _, key) in enumerate(places)}
    struct = Struct(layout)
    gateway, link, object_id = (where.get(key, 0) for key in (nl.RTA_GATEWAY, nl.RTA_OIF, nl.RTA_NH_ID))
    return _Skeleton(struct, struct.unpack_from(data, behind)[::2], gateway, link, object_id, shape)


class RouteReader:
    """Turns buffers of route messages into prefixes and shapes."""

    def __init__(self, ownership: Ownership, objects: ObjectMap, skipped: int | None = None) -> None:
        self._skipped = skipped
        """A protocol whose routes are not looked at."""
        self._ownership = ownership
        self._objects = objects
        self._memo: dict[bytes, RouteShape] = {}
        self._skeletons: dict[tuple[bytes, int], _Skeleton] = {}
        self.done = False
        self.interrupted = False

    def read(self, data: bytes) -> Iterator[tuple[int, Prefix, RouteShape]]:
        """Each route message with its type; notes the end of a dump, and whether it was interrupted."""
        offset, end = 0, len(data)
        unpack, memo, new = START.unpack_from, self._memo, tuple.__new__
        while end - offset >= RTMSG_END:
            size, kind, flags, family, length = unpack(data, offset)
            if kind not in ROUTES:
                break
            if size < RTMSG_END or size > end - offset:
                raise KernelError(f"route message of {size} bytes in a buffer with {end - offset} left")
            if flags & nl.NLM_F_DUMP_INTR:
                self.interrupted = True
            if data[offset + PROTOCOL_AT] == self._skipped:
                offset += (size + 3) & ~3
                continue
            behind = offset + DST_END.get(family, 0)
            if length and data[offset + DST_START : offset + DST_START + 4] == DST_HEADER.get(family):
                address = data[offset + DST_START + 4 : behind]
                key = data[offset + 18 : offset + DST_START] + data[behind : offset + size]
                shape = memo.get(key)
                if shape is None:
                    shape = self._remember(key, self._new_shape(data, offset, behind, offset + size))
                yield kind, new(Prefix, (address, length)), shape
            elif family in DST_END:
                address, shape = self._parse(data, offset, offset + size)
                yield kind, new(Prefix, (address, length)), shape
            offset += (size + 3) & ~3
        self._finish(data[offset:])

    def _new_shape(self, data: bytes, start: int, behind: int, end: int) -> RouteShape:
        """The shape of a message that is not remembered, quickly if one much like it was seen before."""
        kind_of_message = (data[start + 18 : start + DST_START], end - behind)
        skeleton = self._skeletons.get(kind_of_message)
        shape = self._through_skeleton(skeleton, data, behind) if skeleton is not None else None
        if shape is None:
            _, shape = self._parse(data, start, end)
            if shape.place is Place.OURS and len(shape.entry.hops) == 1 and not shape.entry.odd:
                self._skeletons[kind_of_message] = _skeleton(data, behind, end, shape)
        return shape

    def _through_skeleton(self, skeleton: _Skeleton, data: bytes, behind: int) -> RouteShape | None:
        layout, fixed, gateway, link, object_id, like = skeleton
        values = layout.unpack_from(data, behind)
        if values[::2] != fixed:
            return None
        number = values[object_id] if object_id else 0
        if number:
            known = self._objects.hops.get(number)
            if known is None or number not in self._objects.ours:
                return None
            hops = known
        else:
            before = like.entry.hops[0]
            hops = (Hop(values[gateway] if gateway else None, values[link], before.onlink),)
        entry = FibEntry(hops, like.entry.preferred_source)
        return RouteShape(*like[:5], entry, number)

    def _remember(self, key: bytes, shape: RouteShape) -> RouteShape:
        if len(self._memo) >= MEMO_LIMIT:
            self._memo.clear()
        self._memo[key] = shape
        return shape

    def _finish(self, rest: bytes) -> None:
        for message in nl.messages(rest):
            if message.flags & nl.NLM_F_DUMP_INTR:
                self.interrupted = True
            if nl.ends_dump(rest, message):
                self.done = True

    def _parse(self, data: bytes, start: int, end: int) -> tuple[Address, RouteShape]:
        family, _, src_len, tos, table, protocol, _, kind, flags = RTMSG.unpack_from(data, start + 16)
        values = {key: data[begin:stop] for key, begin, stop in nl.attributes(data, start + RTMSG_END, end)}
        take = values.pop
        address = Address(take(nl.RTA_DST, ANY[family]))
        table = nl.u32(take(nl.RTA_TABLE, nl.U32.pack(table)), 0)
        metric = nl.u32(take(nl.RTA_PRIORITY, ZERO), 0)
        source = take(nl.RTA_PREFSRC, None)
        ifindex = nl.u32(take(nl.RTA_OIF, ZERO), 0)
        gateway = take(nl.RTA_GATEWAY, None) or take(nl.RTA_VIA, b"")[2:] or None
        object_id = nl.u32(take(nl.RTA_NH_ID, ZERO), 0)
        hops, odd = _multipath(take(nl.RTA_MULTIPATH, b""))
        if kind == nl.RTN_UNICAST and ifindex and not hops:
            hops = [Hop(Address(gateway) if gateway else None, ifindex, bool(flags & nl.RTNH_F_ONLINK))]
        odd += take(nl.RTA_CACHEINFO, b"")[RTA_EXPIRES].rstrip(b"\0")
        odd += b"".join(nl.U32.pack(key) + value for key, value in values.items() if PLAIN.get(key) != value)
        if kind not in (nl.RTN_UNICAST, nl.RTN_UNREACHABLE):
            odd += bytes((kind,))
        place = Place.IGNORED if tos or src_len else self._ownership.place(table, protocol, metric)
        if object_id:
            hops, odd = self._through_object(object_id, hops, odd, place)
        entry = FibEntry.of(hops, Address(source) if source else None, odd)
        route_kind = KINDS.get(kind, RouteKind.OTHER)
        return address, RouteShape(place, table, metric, protocol, route_kind, entry, object_id)

    def _through_object(
        self, object_id: int, inline: list[Hop], odd: bytes, place: Place
    ) -> tuple[list[Hop], bytes]:
        """The kernel shows the hops beside the object's ID only with net.ipv4.nexthop_compat_mode=1."""
        hops = list(self._objects.hops.get(object_id, inline))
        if place is Place.OURS and object_id not in self._objects.ours:
            odd += b"object"
        return hops, odd


def _multipath(data: bytes) -> tuple[list[Hop], bytes]:
    """Read the value of RTA_MULTIPATH: the hops, and what is odd about them."""
    hops: list[Hop] = []
    odd, begin, end = b"", 0, len(data)
    while end - begin >= RTNEXTHOP.size:
        size, flags, weight, ifindex = RTNEXTHOP.unpack_from(data, begin)
        if size < RTNEXTHOP.size or size > end - begin:
            raise KernelError(f"next hop of {size} bytes where {end - begin} are left")
        gateway: Address | None = None
        for key, start, stop in nl.attributes(data, begin + RTNEXTHOP.size, begin + size):
            if key in (nl.RTA_GATEWAY, nl.RTA_VIA):
                gateway = Address(data[start if key == nl.RTA_GATEWAY else start + 2 : stop])
            else:
                odd += nl.U32.pack(key) + data[start:stop]
        if weight:
            odd += bytes((weight,))
        hops.append(Hop(gateway, ifindex, bool(flags & nl.RTNH_F_ONLINK)))
        begin += (size + 3) & ~3
    return hops, odd
