"""Route messages in bulk: pyroute2 encodes one template for each shape, addresses are patched into copies.

Owns what is written to the kernel about routes.  It must never decide what to write, and never send.
pyroute2 needs some 200 us to encode one message and the kernel 5 us to install it, so encoding each
message anew would be the whole cost of a bulk install.  Two routes have one shape when their messages
differ in bytes only at fixed places: destination, gateways, interfaces, preferred source.

Layout of a message: nlmsghdr (16 bytes), rtmsg (12), RTA_DST, then the tail, which is all that depends on
the entry and nothing that depends on the prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import NamedTuple

from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bgpd.kernel import rtnetlink as nl
from routes.fib import FibEntry
from routes.prefix import Prefix

CHUNK_BYTES = 60_000
CHUNK_MESSAGES = 1_000
"""A chunk is what one send carries; each of its messages can queue one error on the socket."""

FAMILY_OF_SIZE = {4: nl.AF_INET, 16: nl.AF_INET6}
ANY_ADDRESS = {4: "0.0.0.0", 16: "::"}  # noqa: S104  # a placeholder in a template, nothing is bound to it


class Operation(NamedTuple):
    """What a route message does."""

    kind: int
    flags: int


CREATE = Operation(nl.RTM_NEWROUTE, nl.NLM_F_REQUEST | nl.NLM_F_CREATE | nl.NLM_F_EXCL)
REPLACE = Operation(nl.RTM_NEWROUTE, nl.NLM_F_REQUEST | nl.NLM_F_REPLACE)
REMOVE = Operation(nl.RTM_DELROUTE, nl.NLM_F_REQUEST)
"""Removes by prefix, table, metric and protocol, whatever the rest of the entry is."""


class Chunk(NamedTuple):
    """Messages for one send; only the last asks for an acknowledgement."""

    data: bytes
    first_seq: int
    items: list[tuple[Prefix, FibEntry]]


class _Shape(NamedTuple):
    size: int
    """Bytes of the destination address: 4 or 16."""
    hops: tuple[tuple[int, bool], ...]
    """Bytes of each gateway (0: none), and whether it is on-link."""
    source: bool
    by_object: bool
    removal: bool
    metric: int


class _Template:
    """A tail whose variable places are known, and the fixed bytes before it."""

    def __init__(self, shape: _Shape, table: int, protocol: int) -> None:
        encoded = _encode(shape, table, protocol)
        self.rest = encoded[18:32]
        """From behind rtm_dst_len to the header of RTA_DST."""
        self._tail = encoded[32 + shape.size :]
        self._gateways: list[tuple[int, int]] = []
        self._links: list[int] = []
        self._source = 0
        self._object = 0
        self._find_places(self._tail, 0, len(self._tail))

    def _find_places(self, tail: bytes, start: int, end: int) -> None:
        for kind, begin, stop in nl.attributes(tail, start, end):
            if kind == nl.RTA_OIF:
                self._links.append(begin)
            elif kind == nl.RTA_GATEWAY:
                self._gateways.append((begin, stop))
            elif kind == nl.RTA_VIA:
                self._gateways.append((begin + 2, stop))
            elif kind == nl.RTA_PREFSRC:
                self._source = begin
            elif kind == nl.RTA_NH_ID:
                self._object = begin
            elif kind == nl.RTA_MULTIPATH:
                place = begin
                while place < stop:  # rtnexthop: length, flags, weight, ifindex, attributes
                    size = nl.ATTRIBUTE.unpack_from(tail, place)[0]
                    self._links.append(place + 4)
                    self._find_places(tail, place + 8, place + size)
                    place += size

    def tail(self, entry: FibEntry, object_id: int) -> bytes:
        """The tail for this entry."""
        tail = bytearray(self._tail)
        if object_id:
            nl.U32.pack_into(tail, self._object, object_id)
        else:
            for place, hop in zip(self._links, entry.hops, strict=False):
                nl.U32.pack_into(tail, place, hop.ifindex)
            gateways = [hop.gateway for hop in entry.hops if hop.gateway is not None]
            for (begin, stop), gateway in zip(self._gateways, gateways, strict=False):
                tail[begin:stop] = gateway
        if self._source and entry.preferred_source is not None:
            tail[self._source : self._source + len(entry.preferred_source)] = entry.preferred_source
        return bytes(tail)


class _rtmsg(rtmsg):  # type: ignore[misc]  # noqa: N801  # pyroute2 is untyped, and names messages as C does
    """rtmsg with RTA_NH_ID, which pyroute2 0.9.7 lacks."""

    _nlmsg_base__compiled_nla = False
    nla_map = (
        *rtmsg.nla_map,
        *(("RTA_UNUSED", "none"),) * (nl.RTA_NH_ID - len(rtmsg.nla_map)),
        ("RTA_NH_ID", "uint32"),
    )


def _encode(shape: _Shape, table: int, protocol: int) -> bytes:
    message = _rtmsg()
    message["family"] = FAMILY_OF_SIZE[shape.size]
    message["table"] = table if table < 256 else nl.RT_TABLE_COMPAT
    message["proto"] = protocol
    message["scope"] = nl.RT_SCOPE_UNIVERSE
    message["attrs"] = attributes = [
        ("RTA_DST", ANY_ADDRESS[shape.size]),
        ("RTA_TABLE", table),
        ("RTA_PRIORITY", shape.metric),
    ]
    if shape.removal:
        message["scope"] = nl.RT_SCOPE_NOWHERE  # any scope and any type
    else:
        message["type"] = nl.RTN_UNICAST if shape.hops or shape.by_object else nl.RTN_UNREACHABLE
        if shape.source:
            attributes.append(("RTA_PREFSRC", ANY_ADDRESS[shape.size]))
        _add_hops(message, shape)
    message.encode()
    return bytes(message.data)


def _add_hops(message: rtmsg, shape: _Shape) -> None:
    attributes = message["attrs"]
    gateways = [_gateway(shape.size, size) for size, _ in shape.hops]
    flags = [nl.RTNH_F_ONLINK if onlink else 0 for _, onlink in shape.hops]
    if shape.by_object:
        attributes.append(("RTA_NH_ID", 0))
    elif len(shape.hops) == 1:
        message["flags"] = flags[0]
        attributes.extend([*gateways[0], ("RTA_OIF", 0)])
    elif shape.hops:
        hops = [
            {"oif": 0, "hops": 0, "flags": flag, "attrs": gateway}
            for flag, gateway in zip(flags, gateways, strict=True)
        ]
        attributes.append(("RTA_MULTIPATH", hops))
    if shape.size == 4 and shape.hops and all(size == 0 for size, _ in shape.hops):
        message["scope"] = nl.RT_SCOPE_LINK


def _gateway(size: int, gateway_size: int) -> list[tuple[str, object]]:
    if gateway_size == 0:
        return []
    if gateway_size == size:
        return [("RTA_GATEWAY", ANY_ADDRESS[size])]
    return [("RTA_VIA", {"family": FAMILY_OF_SIZE[gateway_size], "addr": ANY_ADDRESS[gateway_size]})]


class _Prepared(NamedTuple):
    """All of a message but sequence number, prefix length and address."""

    pack: Callable[..., bytes]
    head: bytes
    middle: bytes
    rest: bytes
    tail: bytes
    size: int


class RouteEncoder:
    """Makes chunks of route messages for one table and protocol.

    `next_seq(count)` reserves sequence numbers, so that every error finds its prefix.
    """

    def __init__(self, table: int, protocol: int, next_seq: Callable[[int], int]) -> None:
        self._next_seq = next_seq
        self._table = table
        self._protocol = protocol
        self._templates: dict[_Shape, _Template] = {}
        self._layouts: dict[tuple[int, int], Struct] = {}

    def chunks(
        self,
        operation: Operation,
        metric: int,
        items: Iterable[tuple[Prefix, FibEntry]],
        object_of: Callable[[FibEntry], int],
    ) -> Iterator[Chunk]:
        """Encode `items`; `object_of` names the next-hop object of an IPv4 entry, or 0."""
        prepared: dict[int, dict[int, _Prepared]] = {4: {}, 16: {}}
        parts: list[bytes] = []
        taken: list[tuple[Prefix, FibEntry]] = []
        seq = self._next_seq(CHUNK_MESSAGES)
        room = CHUNK_BYTES
        for item in items:
            (address, length), entry = item
            known = prepared[len(address)]
            ready = known.get(id(entry))
            if ready is None:
                ready = known[id(entry)] = self._prepare(operation, metric, len(address), entry, object_of)
            pack, head, middle, rest, tail, size = ready
            if size > room or len(taken) == CHUNK_MESSAGES:
                yield _chunk(parts, taken, seq)
                parts, taken, room = [], [], CHUNK_BYTES
                seq = self._next_seq(CHUNK_MESSAGES)
            parts.append(pack(head, seq + len(taken), middle, length, rest, address, tail))
            taken.append(item)
            room -= size
        if taken:
            yield _chunk(parts, taken, seq)

    def _prepare(
        self,
        operation: Operation,
        metric: int,
        size: int,
        entry: FibEntry,
        object_of: Callable[[FibEntry], int],
    ) -> _Prepared:
        removal = operation.kind == nl.RTM_DELROUTE
        object_id = 0 if removal or size == 16 else object_of(entry)
        if removal:
            shape = _Shape(size, (), False, False, True, metric)
        else:
            hops = tuple((len(hop.gateway or b""), hop.onlink) for hop in entry.hops) if not object_id else ()
            shape = _Shape(size, hops, entry.preferred_source is not None, bool(object_id), False, metric)
        template = self._templates.get(shape)
        if template is None:
            template = self._templates[shape] = _Template(shape, self._table, self._protocol)
        tail = template.tail(entry, object_id)
        layout = self._layouts.get((size, len(tail)))
        if layout is None:
            layout = self._layouts[size, len(tail)] = Struct(f"=8sI5sB14s{size}s{len(tail)}s")
        head = nl.HEADER.pack(layout.size, *operation, 0, 0)[:8]
        middle = bytes((0, 0, 0, 0, FAMILY_OF_SIZE[size]))
        return _Prepared(layout.pack, head, middle, template.rest, tail, layout.size)


def _chunk(parts: list[bytes], items: list[tuple[Prefix, FibEntry]], first_seq: int) -> Chunk:
    return Chunk(with_fence(parts), first_seq, items)


def with_fence(parts: list[bytes]) -> bytes:
    """Join messages, of which the last then asks for an acknowledgement."""
    last = bytearray(parts[-1])
    nl.ATTRIBUTE.pack_into(last, 4, *_kind_and_flags(last, nl.NLM_F_ACK))
    return b"".join([*parts[:-1], last])


def _kind_and_flags(message: bytearray, add: int) -> tuple[int, int]:
    kind, flags = nl.ATTRIBUTE.unpack_from(message, 4)
    return kind, flags | add
