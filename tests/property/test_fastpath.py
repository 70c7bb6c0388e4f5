"""The fast paths, in and out, never differ from the way through ExaBGP."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.bgp.codec import Decoder, pack_attributes, pack_by_exabgp
from bgpd.bgp.fastpack import pack_common
from bgpd.bgp.fastpath import FastPath
from bgpd.bgp.message import Malformed, Message
from routes.path import EMPTY_AS_PATH, AsPath, AsSegment, Origin, PathAttributes, PeerKind, SegmentKind
from routes.peer import Negotiated
from routes.prefix import Address
from tests.property.bgp_messages import SESSIONS, Sender, path_attributes, session

SEEDS = st.integers(0, 2**32 - 1)
FOUR_OCTET = SESSIONS.filter(lambda negotiated: negotiated.four_octet)


def decoded(stream: bytes, negotiated: Negotiated, *, fast: bool) -> list[Message]:
    decoder = Decoder(fast=fast)
    decoder.negotiated = negotiated
    return decoder.feed(stream)


def messages_of(stream: bytes) -> list[bytes]:
    messages = []
    while stream:
        size = int.from_bytes(stream[16:18], "big")
        messages.append(stream[:size])
        stream = stream[size:]
    return messages


@settings(max_examples=300, deadline=None)
@given(SEEDS, FOUR_OCTET, st.sampled_from([0.0, 0.05, 0.1]))
def test_updates_decode_alike(seed: int, negotiated: Negotiated, strange: float) -> None:
    for message in messages_of(Sender(seed, negotiated).stream(25, strange)):
        assert decoded(message, negotiated, fast=True) == decoded(message, negotiated, fast=False)


@settings(max_examples=300, deadline=None)
@given(SEEDS, FOUR_OCTET)
def test_broken_updates_decode_alike(seed: int, negotiated: Negotiated) -> None:
    for message in messages_of(Sender(seed, negotiated).broken(25)):
        assert decoded(message, negotiated, fast=True) == decoded(message, negotiated, fast=False)


@settings(max_examples=100, deadline=None)
@given(SEEDS, FOUR_OCTET)
def test_what_is_remembered_changes_nothing(seed: int, negotiated: Negotiated) -> None:
    """One decoder for a long stream that repeats itself."""
    messages = messages_of(Sender(seed, negotiated).stream(50, 0.0))
    alone = [decoded(message, negotiated, fast=False) for message in messages]
    ending = [any(isinstance(each, Malformed) for each in answer) for answer in alone]
    stream = b"".join(message for message, ends in zip(messages, ending, strict=True) if not ends)
    expected = [each for answer, ends in zip(alone, ending, strict=True) if not ends for each in answer]
    assert decoded(stream * 2, negotiated, fast=True) == expected * 2


@settings(max_examples=300, deadline=None)
@given(st.booleans().flatmap(lambda inside: st.tuples(st.just(inside), path_attributes(inside, False))))
def test_attributes_encode_alike(case: tuple[bool, PathAttributes]) -> None:
    internal, attributes = case
    for next_hop in (True, False):
        slow = pack_by_exabgp(attributes, next_hop, True, internal)
        assert pack_common(attributes, next_hop=next_hop, internal=internal) in (slow, None)


@pytest.mark.parametrize("count", [1, 21, 22, 63, 64, 65, 255, 256])
def test_long_lists_encode_alike(count: int) -> None:
    """Lengths of one byte and of two, segments that have to be cut in two."""
    numbers = tuple(range(1, count + 1))
    plain = PathAttributes(Origin.IGP, EMPTY_AS_PATH, Address(b"\x0a\0\0\1"), local_pref=1)
    for attributes in (
        plain._replace(as_path=AsPath.of((AsSegment(SegmentKind.SEQUENCE, numbers),))),
        plain._replace(as_path=AsPath.of((AsSegment(SegmentKind.SEQUENCE, ()),))),
        plain._replace(communities=numbers),
        plain._replace(cluster_list=numbers),
        plain._replace(large_communities=tuple((n, n, n) for n in numbers)),
        plain._replace(extended_communities=tuple(n.to_bytes(8, "big") for n in numbers)),
    ):
        assert pack_attributes(attributes, True, True, PeerKind.IBGP) == pack_by_exabgp(
            attributes, True, True, True
        )


def test_common_attributes_need_no_exabgp() -> None:
    path = AsPath.of((AsSegment(SegmentKind.SEQUENCE, (65001, 70000)),))
    attributes = PathAttributes(Origin.IGP, path, Address(b"\x0a\0\0\1"), local_pref=100, communities=(1, 2))
    assert pack_common(attributes, next_hop=True, internal=True) is not None


@pytest.mark.parametrize("kind", [PeerKind.IBGP, PeerKind.EBGP])
def test_most_plain_updates_need_no_exabgp(kind: PeerKind) -> None:
    """Otherwise the properties above would say nothing."""
    negotiated = session(kind)
    fast = slow = 0
    for message in messages_of(Sender(7, negotiated).stream(1000, 0.0)):
        answer = decoded(message, negotiated, fast=False)
        if isinstance(answer[0], Malformed):
            continue
        if FastPath(negotiated, 4096).decode(message, 0, []):
            fast += 1
        else:
            slow += 1
    assert fast > slow
