"""Whatever entry is encoded is read back as it was, however many others are in the same buffer."""

from __future__ import annotations

from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.kernel import rtnetlink as nl
from bgpd.kernel.messages import CHUNK_MESSAGES, CREATE, RouteEncoder
from bgpd.kernel.route_reader import ObjectMap, Ownership, Place, RouteReader
from routes.fib import FibEntry, Hop
from routes.prefix import Address, Prefix


def addresses(size: int) -> st.SearchStrategy[Address]:
    return st.binary(min_size=size, max_size=size).filter(any).map(Address)


def entries(size: int) -> st.SearchStrategy[FibEntry]:
    gateways = st.none() | addresses(16) if size == 16 else st.none() | addresses(4) | addresses(16)
    hops = st.lists(st.builds(Hop, gateways, st.integers(1, 2**31 - 1), st.booleans()), max_size=4)
    return st.builds(FibEntry.of, hops, st.none() | addresses(size))


@st.composite
def prefixes(draw: st.DrawFn, size: int) -> Prefix:
    length = draw(st.integers(0, size * 8))
    value = int.from_bytes(draw(addresses(size)), "big") >> (size * 8 - length) << (size * 8 - length)
    return Prefix(Address(value.to_bytes(size, "big")), length)


items = st.sampled_from([4, 16]).flatmap(lambda size: st.tuples(prefixes(size), entries(size)))


def as_the_kernel_writes(message: bytes) -> bytes:
    """RTA_TABLE comes first in a dump, and a default route has no RTA_DST."""
    end = 36 if message[16] == nl.AF_INET else 48
    dst = message[28:end] if message[17] else b""
    body = message[16:28] + message[end : end + 8] + dst + message[end + 8 :]
    return nl.U32.pack(len(body) + 16) + message[4:16] + body


@settings(deadline=None)
@given(st.lists(items, min_size=1, max_size=12))
def test_round_trip(wanted: list[tuple[Prefix, FibEntry]]) -> None:
    numbers = count(1, CHUNK_MESSAGES)
    encoder = RouteEncoder(70000, 179, lambda _: next(numbers))
    data = b""
    for chunk in encoder.chunks(CREATE, 4278198272, wanted, lambda _: 0):
        for message in nl.messages(chunk.data):
            data += as_the_kernel_writes(chunk.data[message.start - nl.HEADER_SIZE : message.end])
    reader = RouteReader(Ownership(70000, 179, frozenset((4278198272,))), ObjectMap({}, set()))
    found = list(reader.read(data))
    assert [(nlri, shape.entry) for _, nlri, shape in found] == wanted
    assert {shape.place for _, _, shape in found} == {Place.OURS}
