"""The fast path never differs from the way through ExaBGP."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.bgp.codec import Decoder
from bgpd.bgp.fastpath import FastPath
from bgpd.bgp.message import Malformed, Message
from routes.path import PeerKind
from routes.peer import Negotiated
from tests.property.bgp_messages import SESSIONS, Sender, session

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
@given(SEEDS, FOUR_OCTET, st.sampled_from([0.0, 0.02, 0.2]))
def test_updates_decode_alike(seed: int, negotiated: Negotiated, strange: float) -> None:
    for message in messages_of(Sender(seed, negotiated).stream(10, strange)):
        assert decoded(message, negotiated, fast=True) == decoded(message, negotiated, fast=False)


@settings(max_examples=300, deadline=None)
@given(SEEDS, FOUR_OCTET)
def test_broken_updates_decode_alike(seed: int, negotiated: Negotiated) -> None:
    for message in messages_of(Sender(seed, negotiated).broken(10)):
        assert decoded(message, negotiated, fast=True) == decoded(message, negotiated, fast=False)


@settings(max_examples=100, deadline=None)
@given(SEEDS, FOUR_OCTET)
def test_what_is_remembered_changes_nothing(seed: int, negotiated: Negotiated) -> None:
    """One decoder for a long stream that repeats itself."""
    stream = Sender(seed, negotiated).stream(20, 0.0) * 2
    assert decoded(stream, negotiated, fast=True) == decoded(stream, negotiated, fast=False)


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
