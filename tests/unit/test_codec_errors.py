"""Each error in an UPDATE gets the answer that RFC 7606 and its kin prescribe."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from bgpd.bgp.codec import Decoder
from bgpd.bgp.framing import UPDATE, frame
from bgpd.bgp.message import EndOfRib, Malformed, Message, Update
from routes.path import Aggregator, AsPath, AsSegment, PathAttributes, PeerKind, SegmentKind, UnknownAttribute
from routes.peer import Negotiated
from routes.prefix import Family, Prefix, parse_address
from tests.property.bgp_messages import attribute, session, update

IBGP, EBGP = session(PeerKind.IBGP), session(PeerKind.EBGP)
OLD = session(PeerKind.IBGP, four_octet=False)
IPV4_ONLY = session(families=frozenset({Family.IPV4}))

POD = Prefix.parse("10.244.1.0/24")
NLRI = b"\x18\x0a\xf4\x01"
POD6 = Prefix.parse("fd00:1::/32")
NLRI6 = b"\x20\xfd\0\0\1"
HOP6 = parse_address("fd00::9")
NEAR = parse_address("fe80::9")

ORIGIN = attribute(0x40, 1, b"\0")
NO_PATH = attribute(0x40, 2, b"")
PATH = attribute(0x40, 2, b"\x02\x01\0\0\xfd\xe9")
HOP = attribute(0x40, 3, b"\x0a\0\0\x09")
MED = attribute(0x80, 4, b"\0\0\0\7")
PREFERENCE = attribute(0x40, 5, b"\0\0\0\x64")
REACH = attribute(0x80, 14, b"\0\2\1\x10" + HOP6 + b"\0" + NLRI6)
UNREACH = attribute(0x80, 15, b"\0\2\1" + NLRI6)

SOUND = ORIGIN + PATH + HOP + PREFERENCE
SOUND6 = REACH + ORIGIN + PATH + PREFERENCE
EXTERNAL = ORIGIN + PATH + HOP


def decoded(message: bytes, negotiated: Negotiated = IBGP) -> list[Message]:
    decoder = Decoder()
    decoder.negotiated = negotiated
    return decoder.feed(message)


def the_update(message: bytes, negotiated: Negotiated = IBGP) -> Update:
    (only,) = decoded(message, negotiated)
    assert isinstance(only, Update), only
    return only


def attributes_of(message: bytes, negotiated: Negotiated = IBGP) -> PathAttributes:
    attributes = the_update(message, negotiated).attributes
    assert attributes is not None
    return attributes


def test_a_sound_update_has_no_error() -> None:
    (message,) = decoded(update(SOUND, NLRI))
    assert isinstance(message, Update)
    assert (message.announced, message.withdrawn, message.error) == ((POD,), (), "")


class Wrong(NamedTuple):
    """Attributes for one IPv4 prefix, and a word of the sentence about them."""

    block: bytes
    word: str
    negotiated: Negotiated = IBGP


WITHDRAWN = {
    "no ORIGIN": Wrong(PATH + HOP + PREFERENCE, "ORIGIN is missing"),
    "no AS_PATH": Wrong(ORIGIN + HOP + PREFERENCE, "AS_PATH is missing"),
    "no NEXT_HOP": Wrong(ORIGIN + PATH + PREFERENCE, "NEXT_HOP is missing"),
    "no LOCAL_PREF from iBGP": Wrong(EXTERNAL, "LOCAL_PREF is missing"),
    "ORIGIN 3": Wrong(attribute(0x40, 1, b"\3") + PATH + HOP + PREFERENCE, "ORIGIN 3"),
    "ORIGIN of 2 bytes": Wrong(attribute(0x40, 1, b"\0\0") + PATH + HOP + PREFERENCE, "ORIGIN has 2 bytes"),
    "ORIGIN optional": Wrong(attribute(0xC0, 1, b"\0") + PATH + HOP + PREFERENCE, "flags"),
    "AS_PATH cut short": Wrong(ORIGIN + attribute(0x40, 2, b"\2\2\0\0\0\1") + HOP + PREFERENCE, "AS_PATH"),
    "AS_PATH segment 7": Wrong(ORIGIN + attribute(0x40, 2, b"\7\1\0\0\0\1") + HOP + PREFERENCE, "AS_PATH"),
    "AS_PATH segment empty": Wrong(ORIGIN + attribute(0x40, 2, b"\2\0") + HOP + PREFERENCE, "empty"),
    "AS_PATH with AS 0": Wrong(ORIGIN + attribute(0x40, 2, b"\2\1\0\0\0\0") + HOP + PREFERENCE, "AS 0"),
    "AS_PATH confederation": Wrong(ORIGIN + attribute(0x40, 2, b"\3\1\0\0\0\1") + HOP, "RFC 5065", EBGP),
    "NEXT_HOP of 5 bytes": Wrong(ORIGIN + PATH + attribute(0x40, 3, bytes(5)) + PREFERENCE, "NEXT_HOP has 5"),
    "NEXT_HOP 0.0.0.0": Wrong(ORIGIN + PATH + attribute(0x40, 3, bytes(4)) + PREFERENCE, "next hop"),
    "NEXT_HOP 127.0.0.1": Wrong(ORIGIN + PATH + attribute(0x40, 3, b"\x7f\0\0\1") + PREFERENCE, "next hop"),
    "NEXT_HOP 224.0.0.1": Wrong(ORIGIN + PATH + attribute(0x40, 3, b"\xe0\0\0\1") + PREFERENCE, "next hop"),
    "NEXT_HOP 255.255.255.255": Wrong(
        ORIGIN + PATH + attribute(0x40, 3, b"\xff" * 4) + PREFERENCE, "next hop"
    ),
    "MED of 3 bytes": Wrong(SOUND + attribute(0x80, 4, bytes(3)), "MULTI_EXIT_DISC has 3"),
    "LOCAL_PREF of 0 bytes": Wrong(EXTERNAL + attribute(0x40, 5, b""), "LOCAL_PREF has 0"),
    "COMMUNITIES of 6 bytes": Wrong(SOUND + attribute(0xC0, 8, bytes(6)), "COMMUNITIES has 6"),
    "COMMUNITIES of 0 bytes": Wrong(SOUND + attribute(0xC0, 8, b""), "COMMUNITIES has 0"),
    "EXTENDED of 9 bytes": Wrong(SOUND + attribute(0xC0, 16, bytes(9)), "EXTENDED_COMMUNITIES has 9"),
    "LARGE of 8 bytes": Wrong(SOUND + attribute(0xC0, 32, bytes(8)), "LARGE_COMMUNITIES has 8"),
    "ORIGINATOR_ID of 5 bytes": Wrong(SOUND + attribute(0x80, 9, bytes(5)), "ORIGINATOR_ID has 5"),
    "CLUSTER_LIST of 5 bytes": Wrong(SOUND + attribute(0x80, 10, bytes(5)), "CLUSTER_LIST has 5"),
    "attribute beyond the end": Wrong(SOUND + b"\x80\x04\x09\0\0\0\1", "in the middle of one"),
    "half an attribute header": Wrong(SOUND + b"\x80\x04", "in the middle of one"),
}


@pytest.mark.parametrize("case", WITHDRAWN.values(), ids=WITHDRAWN)
def test_treat_as_withdraw(case: Wrong) -> None:
    message = the_update(update(case.block, NLRI), case.negotiated)
    assert (message.attributes, message.announced, message.withdrawn) == (None, (), (POD,))
    assert case.word in message.error


WITHDRAWN6 = {
    "no ORIGIN": (REACH + PATH + PREFERENCE, "ORIGIN is missing"),
    "multicast next hop": (
        attribute(0x80, 14, b"\0\2\1\x10\xff\2" + bytes(14) + b"\0" + NLRI6) + ORIGIN + PATH + PREFERENCE,
        "next hop",
    ),
    "loopback next hop": (
        attribute(0x80, 14, b"\0\2\1\x10" + bytes(15) + b"\1\0" + NLRI6) + ORIGIN + PATH + PREFERENCE,
        "next hop",
    ),
    "no next hop at all": (
        attribute(0x80, 14, b"\0\2\1\x20" + bytes(32) + b"\0" + NLRI6) + ORIGIN + PATH + PREFERENCE,
        "next hop",
    ),
}


@pytest.mark.parametrize(("block", "word"), WITHDRAWN6.values(), ids=WITHDRAWN6)
def test_treat_as_withdraw_ipv6(block: bytes, word: str) -> None:
    message = the_update(update(block))
    assert (message.announced, message.withdrawn) == ((), (POD6,))
    assert word in message.error


DISCARDED = {
    "ATOMIC_AGGREGATE of 1 byte": Wrong(SOUND + attribute(0x40, 6, b"\0"), "ATOMIC_AGGREGATE"),
    "AGGREGATOR of 6 bytes": Wrong(SOUND + attribute(0xC0, 7, bytes(6)), "AGGREGATOR has 6"),
    "AGGREGATOR with AS 0": Wrong(SOUND + attribute(0xC0, 7, bytes(7) + b"\1"), "AS 0"),
    "AGGREGATOR not optional": Wrong(SOUND + attribute(0x40, 7, b"\0\0\0\1\0\0\0\1"), "flags"),
    "LOCAL_PREF from eBGP": Wrong(SOUND, "LOCAL_PREF from an external", EBGP),
    "LOCAL_PREF of 1 byte from eBGP": Wrong(EXTERNAL + attribute(0x40, 5, b"\0"), "LOCAL_PREF", EBGP),
    "ORIGINATOR_ID from eBGP": Wrong(EXTERNAL + attribute(0x80, 9, bytes(4)), "ORIGINATOR_ID", EBGP),
    "CLUSTER_LIST from eBGP": Wrong(EXTERNAL + attribute(0x80, 10, bytes(4)), "CLUSTER_LIST", EBGP),
    "AS4_PATH from a new speaker": Wrong(SOUND + attribute(0xC0, 17, b"\2\1\0\0\0\1"), "AS4_PATH"),
    "AS4_AGGREGATOR from a new speaker": Wrong(SOUND + attribute(0xC0, 18, bytes(8)), "AS4_AGGREGATOR"),
    "a second ORIGIN": Wrong(SOUND + attribute(0x40, 1, b"\2"), "ORIGIN occurs twice"),
}


@pytest.mark.parametrize("case", DISCARDED.values(), ids=DISCARDED)
def test_attribute_discard(case: Wrong) -> None:
    message = the_update(update(case.block, NLRI), case.negotiated)
    assert message.announced == (POD,)
    assert case.word in message.error
    assert message.attributes is not None
    clean = EXTERNAL if case.negotiated is EBGP else SOUND
    assert message.attributes == attributes_of(update(clean, NLRI), case.negotiated)


RESET = {
    "withdrawn length too large": (frame(UPDATE, b"\0\xff\0\0"), 1),
    "attribute length too large": (frame(UPDATE, b"\0\0\0\xff"), 1),
    "a /33": (update(SOUND, b"\x21" + bytes(5)), 10),
    "NLRI cut short": (update(SOUND, b"\x18\x0a\xf4"), 10),
    "withdrawn routes cut short": (update(b"", withdrawn=b"\x18\x0a"), 10),
    "MP_REACH_NLRI twice": (update(SOUND6 + REACH), 1),
    "MP_UNREACH_NLRI twice": (update(UNREACH + UNREACH), 1),
    "MP_REACH_NLRI of 4 bytes": (update(attribute(0x80, 14, b"\0\2\1\0")), 9),
    "MP_REACH_NLRI transitive": (update(attribute(0xC0, 14, b"\0\2\1\x10" + HOP6 + b"\0" + NLRI6)), 9),
    "MP_REACH_NLRI, next hop of 8 bytes": (update(attribute(0x80, 14, b"\0\2\1\x08" + bytes(9) + NLRI6)), 9),
    "MP_REACH_NLRI, next hop beyond the end": (update(attribute(0x80, 14, b"\0\2\1\xff" + bytes(20))), 9),
    "MP_REACH_NLRI with a /129": (
        update(attribute(0x80, 14, b"\0\2\1\x10" + HOP6 + b"\0\x81" + bytes(17))),
        9,
    ),
    "MP_REACH_NLRI without NLRI": (update(attribute(0x80, 14, b"\0\2\1\x10" + HOP6 + b"\0")), 9),
    "MP_REACH_NLRI, IPv6 hop without RFC 8950": (
        update(attribute(0x80, 14, b"\0\1\1\x10" + HOP6 + b"\0" + NLRI)),
        9,
    ),
    "MP_UNREACH_NLRI of 2 bytes": (update(attribute(0x80, 15, b"\0\2")), 9),
    "MP_UNREACH_NLRI cut short": (update(attribute(0x80, 15, b"\0\2\1\x40\xfd")), 9),
    "unknown well-known attribute": (update(SOUND + attribute(0x40, 99, b"x"), NLRI), 2),
    "an error, and nothing to withdraw": (update(ORIGIN + attribute(0x40, 3, bytes(5))), 5),
    "an error, and only withdrawals": (update(attribute(0x80, 4, b""), withdrawn=NLRI), 5),
}


@pytest.mark.parametrize(("message", "subcode"), RESET.values(), ids=RESET)
def test_session_reset(message: bytes, subcode: int) -> None:
    *before, last = decoded(update(SOUND, NLRI) + message + update(SOUND, NLRI))
    assert len(before) == 1
    assert isinstance(last, Malformed)
    assert (last.notification.code, last.notification.subcode) == (3, subcode)
    assert last.text


def test_nothing_is_decoded_after_a_reset() -> None:
    decoder = Decoder()
    decoder.negotiated = IBGP
    decoder.feed(frame(UPDATE, b"\0\xff\0\0"))
    assert decoder.feed(update(SOUND, NLRI)) == []


def test_the_attribute_is_quoted() -> None:
    wrong = attribute(0x40, 99, b"x")
    *_, last = decoded(update(SOUND + wrong, NLRI))
    assert isinstance(last, Malformed)
    assert last.notification.data == wrong


def test_the_strongest_answer_wins() -> None:
    """A discarded attribute and a wrong one: withdraw.  With an error in MP_REACH_NLRI: reset."""
    block = SOUND + attribute(0x40, 6, b"\0") + attribute(0x80, 4, b"")
    message = the_update(update(block, NLRI))
    assert message.withdrawn == (POD,)
    assert "ATOMIC_AGGREGATE" in message.error
    assert "MULTI_EXIT_DISC" in message.error
    assert isinstance(decoded(update(block + REACH + REACH, NLRI))[0], Malformed)


def test_withdrawals_of_a_wrong_update_still_count() -> None:
    first, second = decoded(update(ORIGIN + HOP + PREFERENCE, NLRI, withdrawn=b"\x08\x0a"))
    assert isinstance(first, Update)
    assert isinstance(second, Update)
    assert (first.withdrawn, first.error) == ((Prefix.parse("10.0.0.0/8"),), "")
    assert second.withdrawn == (POD,)


def test_only_the_prefixes_behind_an_unusable_next_hop_are_withdrawn() -> None:
    block = ORIGIN + PATH + attribute(0x40, 3, b"\x7f\0\0\1") + PREFERENCE + REACH
    ipv4, ipv6 = decoded(update(block, NLRI))
    assert isinstance(ipv4, Update)
    assert isinstance(ipv6, Update)
    assert (ipv4.withdrawn, ipv6.announced) == ((POD,), (POD6,))


def test_next_hop_beside_mp_reach_is_ignored() -> None:
    attributes = attributes_of(update(SOUND6 + attribute(0x40, 3, b"\x7f\0\0\1")))
    assert attributes.next_hop == HOP6


def test_a_prefix_withdrawn_and_announced_ends_announced() -> None:
    first, second = decoded(update(SOUND, NLRI, withdrawn=NLRI))
    assert isinstance(first, Update)
    assert isinstance(second, Update)
    assert (first.withdrawn, second.announced) == ((POD,), (POD,))


def test_families_that_were_not_negotiated_are_ignored_and_named() -> None:
    (message,) = decoded(update(SOUND6), IPV4_ONLY)
    assert message == Update(None, (), (), 0, "ipv6, which was not negotiated, is ignored")
    vpn = attribute(0x80, 14, b"\0\x19\x46\x04" + bytes(4) + b"\0\1\2\3")
    ours, also = decoded(update(vpn + SOUND, NLRI)), decoded(update(SOUND, NLRI), IPV4_ONLY)
    assert isinstance(ours[0], Update)
    assert "AFI 25 SAFI 70" in ours[0].error
    assert isinstance(also[0], Update)
    assert ours[0].announced == also[0].announced == (POD,)


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (0xC0, (UnknownAttribute(0xE0, 99, b"x"),)),
        (0xE0, (UnknownAttribute(0xE0, 99, b"x"),)),
        (0xD0, (UnknownAttribute(0xE0, 99, b"x"),)),
        (0x80, ()),
    ],
)
def test_unknown_optional_attributes(flags: int, kept: tuple[UnknownAttribute, ...]) -> None:
    block = SOUND + attribute(flags & 0xEF, 99, b"x", wide=bool(flags & 0x10))
    assert attributes_of(update(block, NLRI)).unknown == kept


@pytest.mark.parametrize(
    ("raw", "next_hop", "link_local"),
    [
        (HOP6 + NEAR, HOP6, NEAR),
        (HOP6, HOP6, None),
        (NEAR, NEAR, None),
        (HOP6 + HOP6, HOP6, None),
        (bytes(16) + NEAR, NEAR, NEAR),
        (NEAR + NEAR, NEAR, NEAR),
    ],
)
def test_ipv6_next_hops(raw: bytes, next_hop: bytes, link_local: bytes | None) -> None:
    reach = attribute(0x80, 14, bytes((0, 2, 1, len(raw))) + raw + b"\0" + NLRI6)
    attributes = attributes_of(update(reach + ORIGIN + PATH + PREFERENCE))
    assert (attributes.next_hop, attributes.link_local) == (next_hop, link_local)


def test_ipv4_with_an_ipv6_next_hop() -> None:
    reach = attribute(0x80, 14, b"\0\1\1\x10" + HOP6 + b"\0" + NLRI)
    message = the_update(
        update(reach + ORIGIN + PATH + PREFERENCE), session(extended_next_hop=frozenset({Family.IPV4}))
    )
    assert message.announced == (POD,)
    assert message.attributes is not None
    assert message.attributes.next_hop == HOP6


@pytest.mark.parametrize(
    ("body", "family"), [(b"", Family.IPV4), (attribute(0x80, 15, b"\0\2\1"), Family.IPV6)]
)
def test_end_of_rib(body: bytes, family: Family) -> None:
    assert decoded(update(body)) == [EndOfRib(family)]


def test_end_of_rib_of_another_family_is_none() -> None:
    assert decoded(update(b""), session(families=frozenset({Family.IPV6}))) == []
    assert not any(
        isinstance(m, EndOfRib) for m in decoded(update(attribute(0x80, 15, b"\0\2\1")), IPV4_ONLY)
    )


def test_path_ids_split_an_update() -> None:
    negotiated = session(add_path=frozenset({Family.IPV4}))
    nlri = b"\0\0\0\1" + NLRI + b"\0\0\0\2\x08\x0a" + b"\0\0\0\1\0"
    one, two = decoded(update(SOUND, nlri), negotiated)
    assert isinstance(one, Update)
    assert isinstance(two, Update)
    assert (one.path_id, one.announced) == (1, (POD, Prefix.parse("0.0.0.0/0")))
    assert (two.path_id, two.announced) == (2, (Prefix.parse("10.0.0.0/8"),))


def test_host_bits_are_cleared() -> None:
    message = the_update(update(SOUND, b"\x0c\x0a\xff\x09\x0a\xff"))
    assert message.announced == (Prefix.parse("10.240.0.0/12"), Prefix.parse("10.128.0.0/9"))


SEQUENCE = SegmentKind.SEQUENCE
BIG = b"\2\2\0\1\x11\x70\0\0\0\7"


@pytest.mark.parametrize(
    ("as_path", "as4_path", "merged"),
    [
        (b"\2\3\0\1\x5b\xa0\0\7", BIG, (1, 70000, 7)),
        (b"\2\1\x5b\xa0", BIG, (23456,)),  # AS_PATH shorter than AS4_PATH: ignored
        (b"\2\2\x5b\xa0\0\7", b"", (23456, 7)),
        (b"\2\2\x5b\xa0\0\7", b"\2\0", (23456, 7)),  # malformed AS4_PATH: discarded
        (b"\2\2\x5b\xa0\0\7", b"\3\1\0\0\0\1" + BIG, (70000, 7)),  # confederation segments: dropped
    ],
)
def test_as4_path_restores_as_numbers(as_path: bytes, as4_path: bytes, merged: tuple[int, ...]) -> None:
    block = ORIGIN + attribute(0x40, 2, as_path) + HOP + PREFERENCE
    if as4_path:
        block += attribute(0xC0, 17, as4_path)
    attributes = attributes_of(update(block, NLRI), OLD)
    assert attributes.as_path == AsPath.of((AsSegment(SEQUENCE, merged),))


@pytest.mark.parametrize(
    ("two", "four", "result"),
    [
        (b"\x5b\xa0", b"\0\1\x11\x70", Aggregator(70000, 9)),
        (b"\0\7", b"\0\1\x11\x70", Aggregator(7, 9)),
        (b"\0\7", b"", Aggregator(7, 9)),
        (b"", b"\0\1\x11\x70", None),
    ],
)
def test_as4_aggregator(two: bytes, four: bytes, result: Aggregator | None) -> None:
    block = ORIGIN + attribute(0x40, 2, b"\2\1\0\1") + HOP + PREFERENCE
    block += attribute(0xC0, 7, two + b"\0\0\0\x09") if two else b""
    block += attribute(0xC0, 18, four + b"\0\0\0\x09") if four else b""
    assert attributes_of(update(block, NLRI), OLD).aggregator == result
