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
from routes.fib import FibEntry, Hop
from routes.prefix import Address, Prefix, format_address

CHUNK_BYTES = 60_000
CHUNK_MESSAGES = 1_000
"""A chunk is what one send carries; each of its messages can queue one error on the socket."""

TEMPLATE_LIMIT = 1_000
"""Shapes that are remembered; a few exist, unless preferred sources change all the time."""

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
    operation: Operation
    metric: int
    size: int
    """Bytes of the destination address: 4 or 16."""
    source: bytes | None
    hops: tuple[tuple[int, bool], ...]
    """Bytes of each gateway (0: none), and whether it is on-link."""
    by_object: bool = False


class _Template:
    """A message without sequence number, destination, gateways and interfaces."""

    def __init__(self, shape: _Shape, table: int, protocol: int) -> None:
        encoded = _encode(shape, table, protocol)
        tail = encoded[32 + shape.size :]
        layout = Struct(f"=8sI5sB14s{shape.size}s{len(tail)}s")
        self.pack = layout.pack
        self.size = layout.size
        self.head = nl.HEADER.pack(layout.size, *shape.operation, 0, 0)[:8]
        self.middle = encoded[12:17]
        self.rest = encoded[18:32]
        """From behind rtm_dst_len to the header of RTA_DST."""
        self.fixed: list[bytes] = []
        """What of the tail is before, between and behind the variable places."""
        start = 0
        for begin, end in sorted(_places(tail, 0, len(tail))):
            self.fixed.append(tail[start:begin])
            start = end
        self.fixed.append(tail[start:])

    def tail(self, hops: tuple[Hop, ...]) -> bytes:
        """The tail with these next hops, which have the shape of the template."""
        fixed = self.fixed
        if len(hops) == 1:
            gateway, ifindex, _ = hops[0]
            if gateway is None:
                return fixed[0] + nl.U32.pack(ifindex) + fixed[1]
            return fixed[0] + gateway + fixed[1] + nl.U32.pack(ifindex) + fixed[2]
        parts = [fixed[0]]
        at = 1
        for gateway, ifindex, _ in hops:
            parts += (nl.U32.pack(ifindex), fixed[at])
            at += 1
            if gateway is not None:
                parts += (gateway, fixed[at])
                at += 1
        return b"".join(parts)


def _places(tail: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where gateways, interfaces and the number of a next-hop object are."""
    for kind, begin, stop in nl.attributes(tail, start, end):
        if kind in (nl.RTA_OIF, nl.RTA_GATEWAY, nl.RTA_NH_ID):
            yield begin, stop
        elif kind == nl.RTA_VIA:
            yield begin + 2, stop
        elif kind == nl.RTA_MULTIPATH:
            place = begin
            while place < stop:  # rtnexthop: length, flags, weight, ifindex, attributes
                size = nl.ATTRIBUTE.unpack_from(tail, place)[0]
                yield place + 4, place + 8
                yield from _places(tail, place + 8, place + size)
                place += size


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
    if shape.operation is REMOVE:
        message["scope"] = nl.RT_SCOPE_NOWHERE  # any scope and any type
    else:
        message["type"] = nl.RTN_UNICAST if shape.hops or shape.by_object else nl.RTN_UNREACHABLE
        if shape.source is not None:
            attributes.append(("RTA_PREFSRC", format_address(Address(shape.source))))
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


Prepared = tuple[Callable[..., bytes], bytes, bytes, bytes, bytes, int]
"""Of a message: how to pack it, what is before the sequence number, before and behind the prefix length,
the tail, and its size."""


class RouteEncoder:
    """Makes chunks of route messages for one table and protocol.

    `next_seq(count)` reserves sequence numbers, so that every error finds its prefix; `note` hears of each
    entry that is about to be in the kernel.
    """

    def __init__(
        self,
        table: int,
        protocol: int,
        next_seq: Callable[[int], int],
        note: Callable[[FibEntry], None] = lambda _: None,
    ) -> None:
        self._note = note
        self._next_seq = next_seq
        self._table = table
        self._protocol = protocol
        self._templates: dict[tuple[object, ...], _Template] = {}
        """By `_Shape`, which equals the plain tuple of its fields."""

    def chunks(
        self,
        operation: Operation,
        metric: int,
        items: Iterable[tuple[Prefix, FibEntry]],
        object_of: Callable[[FibEntry], int],
    ) -> Iterator[Chunk]:
        """Encode `items`; `object_of` names the next-hop object of an IPv4 entry, or 0."""
        prepared: dict[int, dict[int, Prepared]] = {4: {}, 16: {}}
        parts: list[bytes] = []
        taken: list[tuple[Prefix, FibEntry]] = []
        seq = self._next_seq(CHUNK_MESSAGES)
        room = CHUNK_BYTES
        installs = operation is not REMOVE
        for item in items:
            (address, length), entry = item
            known = prepared[len(address)]
            ready = known.get(id(entry))
            if ready is None:
                object_id = object_of(entry) if installs and len(address) == 4 else 0
                if installs:
                    self._note(entry)
                ready = known[id(entry)] = self._prepare(operation, metric, len(address), entry, object_id)
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
        object_id: int,
    ) -> Prepared:
        hops, source, _ = entry
        by_object = object_id != 0
        sizes: tuple[tuple[int, bool], ...] = ()
        if hops and not by_object and operation is not REMOVE:
            sizes = tuple([(len(gateway) if gateway else 0, onlink) for gateway, _, onlink in hops])
        shape = (operation, metric, size, source, sizes, by_object)
        template = self._templates.get(shape) or self._new_template(_Shape(*shape))
        if by_object:
            tail = template.fixed[0] + nl.U32.pack(object_id)
        else:
            tail = template.tail(hops) if sizes else template.fixed[0]
        return template.pack, template.head, template.middle, template.rest, tail, template.size

    def _new_template(self, shape: _Shape) -> _Template:
        if len(self._templates) >= TEMPLATE_LIMIT:
            self._templates.clear()
        template = self._templates[shape] = _Template(shape, self._table, self._protocol)
        return template


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
