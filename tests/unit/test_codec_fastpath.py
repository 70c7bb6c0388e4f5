"""Messages that look common and are not: the fast path leaves each of them alone."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from bgpd.bgp.codec import Decoder
from bgpd.bgp.fastpath import FastPath
from bgpd.bgp.message import Malformed, Message
from routes.path import PeerKind
from routes.peer import Negotiated
from routes.prefix import Family
from tests.property.bgp_messages import attribute, session, update

ORIGIN = attribute(0x40, 1, b"\0")
PATH = attribute(0x40, 2, b"\2\1\0\0\0\7")
HOP = attribute(0x40, 3, b"\x0a\0\0\1")
PREFERENCE = attribute(0x40, 5, b"\0\0\0\x64")
LARGE = attribute(0xC0, 32, bytes(12))
BASE = ORIGIN + PATH + HOP + PREFERENCE
NLRI = b"\x18\x0a\0\0"
HOP6 = b"\xfd" + bytes(15)
NLRI6 = b"\x40\xfd" + bytes(7)
REST = ORIGIN + PATH + PREFERENCE
BOTH = frozenset(Family)


def reach(header: bytes = b"\0\2\1\x10", hop: bytes = HOP6, nlri: bytes = NLRI6) -> bytes:
    return attribute(0x80, 14, header + hop + b"\0" + nlri)


class Case(NamedTuple):
    message: bytes
    negotiated: Negotiated = session()


GOOD = [
    Case(update(BASE, NLRI)),
    Case(update(BASE + LARGE, NLRI)),
    Case(update(reach() + REST)),
    Case(update(REST + reach() + LARGE)),
    Case(update(ORIGIN + PATH + HOP, NLRI), session(PeerKind.EBGP)),
    Case(update(b"", withdrawn=NLRI)),
    Case(update(attribute(0x80, 15, b"\0\2\1" + NLRI6))),
]

LEFT = {
    "marker": Case(b"\xff\xfe" + update(BASE, NLRI)[2:]),
    "another type": Case(update(BASE, NLRI)[:18] + b"\4" + update(BASE, NLRI)[19:]),
    "longer than the limit": Case(update(BASE, NLRI * 1100)),
    "withdrawn and announced": Case(update(BASE, NLRI, withdrawn=NLRI)),
    "withdrawn, with attributes": Case(update(ORIGIN, withdrawn=NLRI)),
    "withdrawn cut short": Case(update(b"", withdrawn=b"\x18\x0a")),
    "IPv4 is not of this session": Case(update(BASE, NLRI), session(families=frozenset({Family.IPV6}))),
    "withdrawn IPv4 is not either": Case(update(b"", withdrawn=NLRI), session(families=frozenset())),
    "path IDs": Case(update(BASE, NLRI), session(add_path=BOTH)),
    "path IDs in MP_REACH_NLRI": Case(update(reach() + REST), session(add_path=BOTH)),
    "LOCAL_PREF from eBGP": Case(update(BASE, NLRI), session(PeerKind.EBGP)),
    "no LOCAL_PREF from iBGP": Case(update(ORIGIN + PATH + HOP, NLRI)),
    "ORIGINATOR_ID from eBGP": Case(
        update(ORIGIN + PATH + HOP + attribute(0x80, 9, bytes(4)), NLRI), session(PeerKind.EBGP)
    ),
    "no NEXT_HOP": Case(update(REST, NLRI)),
    "martian NEXT_HOP": Case(update(ORIGIN + PATH + attribute(0x40, 3, b"\x7f\0\0\1") + PREFERENCE, NLRI)),
    "AS 0": Case(update(ORIGIN + attribute(0x40, 2, b"\2\1\0\0\0\0") + HOP + PREFERENCE, NLRI)),
    "a confederation": Case(update(ORIGIN + attribute(0x40, 2, b"\3\1\0\0\0\7") + HOP + PREFERENCE, NLRI)),
    "an empty segment": Case(
        update(ORIGIN + attribute(0x40, 2, b"\2\0\2\1\0\0\0\7") + HOP + PREFERENCE, NLRI)
    ),
    "a segment beyond the end": Case(
        update(ORIGIN + attribute(0x40, 2, b"\2\2\0\0\0\7") + HOP + PREFERENCE, NLRI)
    ),
    "LARGE_COMMUNITIES twice": Case(update(BASE + LARGE + attribute(0xC0, 16, bytes(8)) + LARGE, NLRI)),
    "a partial attribute": Case(update(BASE + attribute(0xE0, 8, bytes(4)), NLRI)),
    "MP_REACH_NLRI beside NLRI": Case(update(reach() + BASE, NLRI)),
    "MP_REACH_NLRI twice": Case(update(reach() + REST + reach())),
    "MP_REACH_NLRI empty": Case(update(reach(nlri=b"") + REST)),
    "MP_REACH_NLRI beyond the end": Case(update((REST + reach())[:-1])),
    "MP_REACH_NLRI, multicast": Case(update(reach(b"\0\2\2\x10") + REST)),
    "MP_REACH_NLRI, unusable next hop": Case(update(reach(hop=b"\xff" + bytes(15)) + REST)),
    "MP_REACH_NLRI, IPv4 without RFC 8950": Case(update(reach(b"\0\1\1\x10", nlri=NLRI) + REST)),
    "MP_UNREACH_NLRI with attributes": Case(
        update(attribute(0x80, 15, b"\0\2\1" + NLRI6) + attribute(0x40, 2, b"\2\1\0\0\0\7"))
    ),
    "End-of-RIB": Case(update(b"")),
    "End-of-RIB for IPv6": Case(update(attribute(0x80, 15, b"\0\2\1"))),
    "an IPv4 prefix of 33 bits": Case(update(BASE, b"\x21" + bytes(5))),
    "a prefix cut short": Case(update(BASE, NLRI + b"\x18\x0a")),
    "incomplete": Case(update(BASE, NLRI)[:-1]),
    "header alone": Case(update(BASE, NLRI)[:22]),
}


@pytest.mark.parametrize("case", GOOD)
def test_common_messages_are_taken(case: Case) -> None:
    assert FastPath(case.negotiated, 4096).decode(case.message, 0, []) == len(case.message)


@pytest.mark.parametrize("case", LEFT.values(), ids=LEFT)
def test_the_others_are_left_alone(case: Case) -> None:
    messages: list[Message] = []
    assert FastPath(case.negotiated, 4096).decode(case.message, 0, messages) == 0
    assert messages == []


def test_it_stops_at_the_first_uncommon_message_and_goes_on_behind_it() -> None:
    common, uncommon = update(BASE, NLRI), update(BASE + attribute(0x40, 6, b""), NLRI)
    messages: list[Message] = []
    assert FastPath(session(), 4096).decode(common * 2 + uncommon + common, 0, messages) == 2 * len(common)
    decoder = Decoder()
    decoder.negotiated = session()
    assert len(decoder.feed(common * 2 + uncommon + common)) == 4


def test_memory_is_bounded() -> None:
    """Distinct attributes, next hops and AS paths, more than are remembered."""
    fast = FastPath(session(), 4096)
    for number in range(5000):
        number_bytes = number.to_bytes(4, "big")
        path = attribute(0x40, 2, b"\2\1\0\1" + number_bytes[2:])
        hop = HOP6[:12] + number_bytes + b"\xfe\x80" + bytes(14)
        message = update(reach(b"\0\2\1\x20", hop) + ORIGIN + path + PREFERENCE)
        assert fast.decode(message, 0, []) == len(message)
    for memo in (fast._blocks, fast._as_paths, fast._next_hops):  # noqa: SLF001 - a bound has no other face
        assert len(memo) <= 4096


def test_a_broken_message_behind_common_ones_ends_the_session() -> None:
    decoder = Decoder()
    decoder.negotiated = session()
    first, last = decoder.feed(update(BASE, NLRI) + b"\xff\xfe" + update(BASE, NLRI)[2:])
    assert not isinstance(first, Malformed)
    assert isinstance(last, Malformed)
