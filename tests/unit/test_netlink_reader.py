"""Reading route messages: the fast ways give what the slow way gives, and nonsense is refused."""

from __future__ import annotations

import errno
import os

import pytest
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bgpd.errors import KernelError
from bgpd.kernel import rtnetlink as nl
from bgpd.kernel.messages import CREATE, RouteEncoder
from bgpd.kernel.monitor import INSTRUCTION, JEQ, LD_BYTE, LD_HALF, LD_WORD, RET, notification_filter
from bgpd.kernel.route_reader import ObjectMap, Ownership, Place, RouteReader, RouteShape
from routes.fib import FibEntry, Hop
from routes.next_hop import RouteKind
from routes.prefix import Prefix, parse_address

OWNERSHIP = Ownership(254, 179, frozenset((20, 21)))
NO_OBJECTS = ObjectMap({}, set())


def a_route(**fields: object) -> bytes:
    """A route as the kernel writes it: RTA_TABLE first, then RTA_DST."""
    extra = fields.pop("extra", [])
    assert isinstance(extra, list)
    message = rtmsg()
    defaults: dict[str, object] = {"family": 2, "dst_len": 24, "table": 254, "proto": 179, "type": 1}
    for name, value in {**defaults, **fields}.items():
        message[name] = value
    dst = "10.1.0.0" if message["family"] == 2 else "fd00::"
    message["attrs"] = [
        ("RTA_TABLE", 254),
        ("RTA_DST", dst),
        *(extra if any(name == "RTA_PRIORITY" for name, _ in extra) else [("RTA_PRIORITY", 20), *extra]),
    ]
    message["header"]["type"] = nl.RTM_NEWROUTE
    message.encode()
    return bytes(message.data)


GATEWAY: list[tuple[str, object]] = [("RTA_GATEWAY", "192.0.2.1"), ("RTA_OIF", 3)]
ENTRY = FibEntry.of([Hop(parse_address("192.0.2.1"), 3)])


def read(data: bytes, objects: ObjectMap = NO_OBJECTS) -> list[tuple[Prefix, RouteShape]]:
    return [(nlri, shape) for _, nlri, shape in RouteReader(OWNERSHIP, objects).read(data)]


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (a_route(extra=GATEWAY), Place.OURS),
        (a_route(extra=[("RTA_PRIORITY", 21), *GATEWAY]), Place.OURS),
        (a_route(extra=[("RTA_PRIORITY", 22), *GATEWAY]), Place.FOREIGN),
        (a_route(proto=186, extra=GATEWAY), Place.IN_OUR_PLACE),
        (a_route(proto=186, extra=[("RTA_PRIORITY", 0), *GATEWAY]), Place.FOREIGN),
        (a_route(tos=16, extra=GATEWAY), Place.IGNORED),
    ],
)
def test_whose_a_route_is(message: bytes, place: Place) -> None:
    ((nlri, shape),) = read(message)
    assert (nlri, shape.place) == (Prefix.parse("10.1.0.0/24"), place)
    assert shape.entry == ENTRY


@pytest.mark.parametrize(
    "message",
    [
        a_route(type=6),
        a_route(extra=[*GATEWAY, ("RTA_METRICS", {"attrs": [("RTAX_MTU", 1400)]})]),
        a_route(extra=[*GATEWAY, ("RTA_FLOW", 7)]),
        a_route(extra=[("RTA_MULTIPATH", [{"oif": 3, "hops": 5, "attrs": [("RTA_GATEWAY", "192.0.2.1")]}])]),
        a_route(family=10, extra=[("RTA_GATEWAY", "fd00::1"), ("RTA_OIF", 3), ("RTA_PREF", 1)]),
        a_route(family=10, extra=[("RTA_OIF", 3), ("RTA_CACHEINFO", {"rta_expires": 100})]),
    ],
)
def test_what_we_never_set_is_odd(message: bytes) -> None:
    ((_, shape),) = read(message)
    assert shape.entry.odd
    assert shape.entry != FibEntry.of(shape.entry.hops, shape.entry.preferred_source)


def test_kinds_and_multipath_are_read() -> None:
    ((_, blackhole),) = read(a_route(type=6))
    assert blackhole.kind is RouteKind.BLACKHOLE
    hops = [
        {"oif": 4, "hops": 0, "flags": 4, "attrs": [("RTA_VIA", {"family": 10, "addr": "fe80::1"})]},
        {"oif": 3, "hops": 0, "flags": 16, "attrs": [("RTA_GATEWAY", "192.0.2.1")]},
    ]
    ((_, shape),) = read(a_route(extra=[("RTA_MULTIPATH", hops)]))
    expected = [Hop(parse_address("192.0.2.1"), 3), Hop(parse_address("fe80::1"), 4, onlink=True)]
    assert shape.entry == FibEntry.of(expected)


def test_the_fast_ways_give_what_the_slow_way_gives() -> None:
    """The memo and the skeleton need a first message of a shape; alone, each message is read slowly."""
    numbers = iter(range(1, 1 << 30, 1000))
    encoder = RouteEncoder(254, 179, lambda _: next(numbers))
    alone, items = [], []
    for size, source in ((4, None), (4, "192.0.2.9"), (4, "192.0.2.8"), (16, None), (16, "fd00::9")):
        gateways = [("192.0.2.%d" if size == 4 else "fd00::%d") % at for at in (1, 2, 3, 3)]
        for at, gateway in enumerate(gateways):
            for onlink in (False, True):
                hop = Hop(parse_address(gateway), 3 + at, onlink)
                entry = FibEntry.of([hop], parse_address(source) if source else None)
                items.append((Prefix.parse("10.1.0.0/24" if size == 4 else "fd00::/64"), entry))
    together = b""
    for chunk in (next(encoder.chunks(CREATE, 20, [item], lambda _: 0)) for item in items):
        message = table_first(chunk.data)
        together += message
        alone += read(message)
    assert read(together) == alone
    assert [(nlri, shape.entry) for nlri, shape in alone] == items


def table_first(data: bytes) -> bytes:
    """Our messages begin with RTA_DST, the kernel's with RTA_TABLE."""
    end = 36 if data[16] == nl.AF_INET else 48
    return data[:28] + data[end : end + 8] + data[28:end] + data[end + 8 :]


def test_objects_are_read_as_what_they_stand_for() -> None:
    known = ObjectMap({7: ENTRY.hops, 8: ENTRY.hops, 9: (*ENTRY.hops, Hop(None, 4))}, {7, 9})
    ours, strange, group, gone = (
        read(with_object(a_route(), number), known)[0][1] for number in (7, 8, 9, 10)
    )
    assert ours.entry == ENTRY
    assert strange.entry.hops == ENTRY.hops
    assert strange.entry != ENTRY
    assert len(group.entry.hops) == 2
    assert gone.entry != ENTRY
    several = read(with_object(a_route(), 7) + with_object(a_route(), 8), known)
    assert [shape.entry for _, shape in several] == [ours.entry, strange.entry]


def with_object(message: bytes, number: int) -> bytes:
    attribute = nl.ATTRIBUTE.pack(8, nl.RTA_NH_ID) + nl.U32.pack(number)
    return nl.U32.pack(len(message) + len(attribute)) + message[4:] + attribute


def test_the_end_of_a_dump_and_its_interruption_are_noted() -> None:
    done = nl.HEADER.pack(20, nl.NLMSG_DONE, 2, 1, 0) + bytes(4)
    reader = RouteReader(OWNERSHIP, NO_OBJECTS)
    assert len(list(reader.read(a_route() + a_route() + done))) == 2
    assert (reader.done, reader.interrupted) == (True, False)
    interrupted = bytearray(a_route())
    interrupted[6] |= nl.NLM_F_DUMP_INTR
    list(reader.read(bytes(interrupted)))
    assert reader.interrupted


@pytest.mark.parametrize(("code", "fails"), [(errno.ENOENT, False), (errno.EPERM, True)])
def test_a_failed_dump_is_an_error_except_for_a_table_that_nobody_made(code: int, fails: bool) -> None:
    data = nl.HEADER.pack(36, nl.NLMSG_ERROR, 0, 1, 0) + nl.I32.pack(-code) + bytes(16)
    reader = RouteReader(OWNERSHIP, NO_OBJECTS)
    if fails:
        with pytest.raises(KernelError, match="not permitted"):
            list(reader.read(data))
    else:
        assert list(reader.read(data)) == []
        assert reader.done


@pytest.mark.parametrize("size", [0, 15, 27, 10_000])
def test_lengths_that_do_not_add_up_are_refused(size: int) -> None:
    broken = nl.U32.pack(size) + a_route()[4:]
    with pytest.raises(KernelError):
        read(broken)


def test_any_damage_is_refused_or_read_and_never_worse() -> None:
    message = a_route(
        extra=[("RTA_MULTIPATH", [{"oif": 3, "hops": 0, "attrs": [("RTA_GATEWAY", "192.0.2.1")]}])]
    )
    for at in range(len(message)):
        for value in (0, 1, 3, 255):
            damaged = message[:at] + bytes((value,)) + message[at + 1 :]
            try:
                read(damaged)
            except KernelError:
                continue


def test_failures_carry_the_kernels_words() -> None:
    text = b"Nexthop has invalid gateway\0"
    attribute = nl.ATTRIBUTE.pack(4 + len(text), 1) + text
    header = nl.HEADER.pack(36 + len(attribute), nl.NLMSG_ERROR, nl.NLM_F_CAPPED | nl.NLM_F_ACK_TLVS, 5, 0)
    data = header + nl.I32.pack(-errno.ENETUNREACH) + bytes(16) + attribute
    (message,) = nl.messages(data)
    failure = nl.failure_of(data, message)
    assert failure == (errno.ENETUNREACH, "Nexthop has invalid gateway (ENETUNREACH)")
    plain = nl.HEADER.pack(36, nl.NLMSG_ERROR, nl.NLM_F_CAPPED, 5, 0) + nl.I32.pack(-errno.ESRCH) + bytes(16)
    failure = nl.failure_of(plain, next(nl.messages(plain)))
    assert failure == (errno.ESRCH, f"{os.strerror(errno.ESRCH)} (ESRCH)")
    acknowledged = plain[:16] + bytes(20)
    assert nl.failure_of(acknowledged, next(nl.messages(acknowledged))) is None


@pytest.mark.parametrize(
    ("kind", "table", "port", "accepted"),
    [
        (nl.RTM_NEWROUTE, 254, 99, True),
        (nl.RTM_DELROUTE, 254, 99, True),
        (nl.RTM_NEWROUTE, 100, 99, True),
        (nl.RTM_NEWROUTE, 255, 99, False),
        (nl.RTM_DELROUTE, 101, 99, False),
        (nl.RTM_NEWROUTE, 254, 4711, False),
        (nl.RTM_NEWLINK, 255, 99, True),
        (nl.RTM_NEWLINK, 255, 4711, False),
    ],
)
def test_the_filter_hides_our_own_changes_and_other_tables(
    kind: int, table: int, port: int, accepted: bool
) -> None:
    """Run in an interpreter of the six instructions that it uses."""
    data = nl.HEADER.pack(28, kind, 0, 0, port) + bytes((2, 24, 0, 0, table, 4, 0, 1)) + bytes(4)
    assert bool(run_filter(notification_filter(4711, 100), data)) == accepted


def run_filter(program: bytes, data: bytes) -> int:
    sizes = {LD_WORD: 4, LD_HALF: 2, LD_BYTE: 1}
    instructions = list(INSTRUCTION.iter_unpack(program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == RET:
            return int(value)
        if code == JEQ:
            at += if_true if accumulator == value else if_false
        else:
            accumulator = int.from_bytes(data[value : value + sizes[code]], "big")
