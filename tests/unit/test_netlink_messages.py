"""Bulk encoding: what is patched together equals what pyroute2 encodes for each route by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bgpd.kernel import rtnetlink as nl
from bgpd.kernel.messages import (
    CHUNK_BYTES,
    CHUNK_MESSAGES,
    CREATE,
    REMOVE,
    REPLACE,
    Chunk,
    Operation,
    RouteEncoder,
    with_fence,
)
from routes.fib import UNREACHABLE, FibEntry, Hop
from routes.prefix import Address, Prefix, format_address, parse_address

TABLE, PROTOCOL, METRIC = 254, 179, 20


def an_encoder(table: int = TABLE) -> RouteEncoder:
    numbers = count(1, CHUNK_MESSAGES)
    return RouteEncoder(table, PROTOCOL, lambda _: next(numbers))


def inline(_: FibEntry) -> int:
    return 0


def encode(
    operation: Operation,
    *items: tuple[str, FibEntry],
    object_of: Callable[[FibEntry], int] = inline,
    table: int = TABLE,
) -> list[Chunk]:
    pairs = [(Prefix.parse(text), entry) for text, entry in items]
    return list(an_encoder(table).chunks(operation, METRIC, pairs, object_of))


def hop(gateway: str | None, ifindex: int = 3, *, onlink: bool = False) -> Hop:
    return Hop(parse_address(gateway) if gateway else None, ifindex, onlink)


def by_pyroute2(nlri: Prefix, entry: FibEntry, seq: int) -> bytes:
    """The same route, encoded by pyroute2 alone."""
    message = rtmsg()
    size = len(nlri.address)
    message["family"] = 2 if size == 4 else 10
    message["dst_len"] = nlri.length
    message["table"], message["proto"] = TABLE, PROTOCOL
    message["type"] = 1 if entry.hops else 7
    message["scope"] = 253 if size == 4 and entry.hops and entry.hops[0].gateway is None else 0
    attributes = [
        ("RTA_DST", format_address(nlri.address)),
        ("RTA_TABLE", TABLE),
        ("RTA_PRIORITY", METRIC),
    ]
    if entry.preferred_source is not None:
        attributes.append(("RTA_PREFSRC", format_address(entry.preferred_source)))
    if len(entry.hops) == 1:
        message["flags"] = 4 if entry.hops[0].onlink else 0
        attributes += [*gateway_of(size, entry.hops[0]), ("RTA_OIF", entry.hops[0].ifindex)]
    elif entry.hops:
        hops = [
            {"oif": hop.ifindex, "hops": 0, "flags": 4 if hop.onlink else 0, "attrs": gateway_of(size, hop)}
            for hop in entry.hops
        ]
        attributes.append(("RTA_MULTIPATH", hops))
    message["attrs"] = attributes
    message["header"]["type"] = nl.RTM_NEWROUTE
    message["header"]["flags"] = CREATE.flags | nl.NLM_F_ACK
    message["header"]["sequence_number"] = seq
    message.encode()
    return bytes(message.data)


def gateway_of(size: int, hop: Hop) -> list[tuple[str, object]]:
    if hop.gateway is None:
        return []
    text = format_address(hop.gateway)
    if len(hop.gateway) == size:
        return [("RTA_GATEWAY", text)]
    return [("RTA_VIA", {"family": 10, "addr": text})]


SHAPES = [
    ("10.1.0.0/24", FibEntry.of([hop("192.0.2.1")])),
    ("10.1.0.1/32", FibEntry.of([hop("192.0.2.1", onlink=True)], parse_address("192.0.2.9"))),
    ("0.0.0.0/0", FibEntry.of([hop("fe80::1")])),
    ("10.1.0.0/24", FibEntry.of([hop(None)])),
    ("10.1.0.0/24", FibEntry.of([hop("192.0.2.1", 3), hop("192.0.2.2", 70000), hop("fe80::1", 5)])),
    ("10.1.0.0/24", FibEntry.of([hop("192.0.2.1", 3), hop("192.0.2.2", 4, onlink=True)])),
    ("10.1.0.0/24", UNREACHABLE),
    ("fd00::/64", FibEntry.of([hop("fe80::1")])),
    ("fd00::1/128", FibEntry.of([hop("fd09::1", onlink=True)], parse_address("fd00::9"))),
    ("fd00::/64", FibEntry.of([hop(f"fd00::{at + 1:x}", at + 1) for at in range(32)])),
    ("::/0", UNREACHABLE),
]


@pytest.mark.parametrize(("text", "entry"), SHAPES)
def test_a_patched_message_equals_one_that_pyroute2_made(text: str, entry: FibEntry) -> None:
    (chunk,) = encode(CREATE, (text, entry))
    assert chunk.data.hex(" ", 4) == by_pyroute2(Prefix.parse(text), entry, chunk.first_seq).hex(" ", 4)


def test_shapes_do_not_leak_into_each_other() -> None:
    (chunk,) = encode(CREATE, *SHAPES, *reversed(SHAPES))
    for at, (message, item) in enumerate(zip(split(chunk.data), [*SHAPES, *SHAPES[::-1]], strict=True)):
        alone = bytearray(by_pyroute2(Prefix.parse(item[0]), item[1], chunk.first_seq + at))
        if at < 2 * len(SHAPES) - 1:
            alone[6] &= ~nl.NLM_F_ACK & 0xFF
        assert message == alone


def split(data: bytes) -> Iterator[bytes]:
    for message in nl.messages(data):
        yield data[message.start - nl.HEADER_SIZE : message.end]


def test_only_the_last_message_of_a_chunk_asks_for_an_acknowledgement() -> None:
    items = [(f"10.{at // 256}.{at % 256}.0/24", UNREACHABLE) for at in range(CHUNK_MESSAGES + 1)]
    chunks = encode(CREATE, *items)
    assert [len(chunk.items) for chunk in chunks] == [CHUNK_MESSAGES, 1]
    seqs = []
    for chunk in chunks:
        asked = [bool(message.flags & nl.NLM_F_ACK) for message in nl.messages(chunk.data)]
        assert asked == [False] * (len(asked) - 1) + [True]
        numbers = [message.seq for message in nl.messages(chunk.data)]
        assert numbers == list(range(chunk.first_seq, chunk.first_seq + len(chunk.items)))
        seqs += numbers
    assert len(set(seqs)) == len(items)


def test_a_chunk_fits_into_one_send() -> None:
    wide = FibEntry.of([hop(f"fd00::{at + 1:x}", at + 1) for at in range(64)])
    chunks = encode(CREATE, *((f"fd00:{at:x}::/32", wide) for at in range(100)))
    assert len(chunks) > 1
    assert max(len(chunk.data) for chunk in chunks) <= CHUNK_BYTES
    assert sum(len(chunk.items) for chunk in chunks) == 100


@pytest.mark.parametrize(
    ("operation", "kind", "flags"),
    [
        (CREATE, nl.RTM_NEWROUTE, nl.NLM_F_REQUEST | nl.NLM_F_CREATE | nl.NLM_F_EXCL),
        (REPLACE, nl.RTM_NEWROUTE, nl.NLM_F_REQUEST | nl.NLM_F_REPLACE),
        (REMOVE, nl.RTM_DELROUTE, nl.NLM_F_REQUEST),
    ],
)
def test_creating_is_exclusive_and_replacing_creates_nothing(
    operation: Operation, kind: int, flags: int
) -> None:
    (chunk,) = encode(operation, SHAPES[0])
    (message,) = nl.messages(chunk.data)
    assert (message.kind, message.flags) == (kind, flags | nl.NLM_F_ACK)


def test_a_removal_names_table_metric_and_protocol_and_no_next_hop() -> None:
    (chunk,) = encode(REMOVE, ("10.1.0.0/24", UNREACHABLE))
    (message,) = nl.messages(chunk.data)
    kinds = {kind for kind, _, _ in nl.attributes(chunk.data, message.start + 12, message.end)}
    assert kinds == {nl.RTA_DST, nl.RTA_TABLE, nl.RTA_PRIORITY}
    assert chunk.data[message.start + 5] == PROTOCOL
    assert chunk.data[message.start + 6] == nl.RT_SCOPE_NOWHERE


def test_a_large_table_number_is_in_its_attribute() -> None:
    (chunk,) = encode(CREATE, SHAPES[0], table=70000)
    (message,) = nl.messages(chunk.data)
    assert chunk.data[message.start + 4] == nl.RT_TABLE_COMPAT
    values = {
        kind: nl.u32(chunk.data, begin)
        for kind, begin, _ in nl.attributes(chunk.data, message.start + 12, message.end)
    }
    assert values[nl.RTA_TABLE] == 70000


def test_an_object_stands_for_the_next_hop_of_ipv4_only() -> None:
    entry = FibEntry.of([hop("fe80::1")])
    (chunk,) = encode(CREATE, ("10.1.0.0/24", entry), ("fd00::/64", entry), object_of=lambda _: 77)
    with_object, without = (
        {
            kind: chunk.data[begin:end]
            for kind, begin, end in nl.attributes(chunk.data, message.start + 12, message.end)
        }
        for message in nl.messages(chunk.data)
    )
    assert with_object[nl.RTA_NH_ID] == nl.U32.pack(77)
    assert nl.RTA_OIF not in with_object
    assert nl.RTA_NH_ID not in without
    assert without[nl.RTA_GATEWAY] == parse_address("fe80::1")


def test_a_fence_leaves_the_other_messages_alone() -> None:
    first, last = (nl.HEADER.pack(16, nl.RTM_NEWROUTE, nl.NLM_F_REQUEST, seq, 0) for seq in (1, 2))
    assert [message.flags for message in nl.messages(with_fence([first, last]))] == [1, 5]


def test_host_bits_and_lengths_are_written_as_given() -> None:
    nlri = Prefix(Address(bytes((10, 1, 2, 3))), 32)
    (chunk,) = list(an_encoder().chunks(CREATE, METRIC, [(nlri, SHAPES[0][1])], inline))
    assert chunk.data[17] == 32
    assert chunk.data[32:36] == nlri.address
