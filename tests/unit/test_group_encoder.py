"""What a group is told, as bytes: every key in one message, whole, and within 4,096 bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bgpd.bgp.codec import Decoder
from bgpd.bgp.group_encoder import Encoded, GroupEncoder, Key
from bgpd.bgp.message import Update
from routes.path import EMPTY_AS_PATH, Origin, PathAttributes
from routes.prefix import Family, Prefix, parse_address
from tests.property.bgp_messages import session

V4_HOP, V6_HOP = parse_address("192.0.2.1"), parse_address("fd00::1")
MANY = {
    Family.IPV4: [(Prefix.parse(f"10.{n >> 8}.{n & 255}.0/24"), n + 1) for n in range(3000)],
    Family.IPV6: [(Prefix.parse(f"fd00:{n:x}::/64"), n + 1) for n in range(1200)],
}
HUGE = tuple(range(1, 1100))
"""Communities that fit no message of 4,096 bytes."""


def plain(family: Family, **fields: object) -> PathAttributes:
    hop = V4_HOP if family is Family.IPV4 else V6_HOP
    return PathAttributes(Origin.IGP, EMPTY_AS_PATH, hop, local_pref=100)._replace(**fields)  # type: ignore[arg-type] # named by the caller


def read(encoded: Encoded, *, add_path: bool) -> list[tuple[Update, list[Key]]]:
    """Each message as a peer reads it, beside the keys that it is said to hold."""
    families = frozenset(Family) if add_path else frozenset[Family]()
    decoder = Decoder()
    decoder.negotiated = replace(session(add_path=families), add_path_send=frozenset())
    found = []
    for data, keys in encoded:
        assert len(data) <= 4096
        updates = [message for message in decoder.feed(data) if isinstance(message, Update)]
        told = [(nlri, u.path_id) for u in updates for nlri in (*u.announced, *u.withdrawn)]
        held: list[Key] = [each if add_path else each[0] for each in told]
        assert held == list(keys)
        found.append((updates[0], held))
    return found


@pytest.mark.parametrize("add_path", [False, True])
@pytest.mark.parametrize("family", Family)
def test_every_key_is_in_exactly_one_full_message(family: Family, add_path: bool) -> None:
    encoder = GroupEncoder(family, session(add_path=frozenset(Family) if add_path else frozenset()))
    keys = MANY[family] if add_path else [nlri for nlri, _ in MANY[family]]
    attributes = plain(family)
    for encoded in (encoder.announce(attributes, keys), encoder.withdraw(keys)):
        messages = read(encoded, add_path=add_path)
        assert [key for _, held in messages for key in held] == keys
        assert all(len(data) > 4050 for data, _ in encoded[:-1])
    assert all(
        u.attributes == attributes for u, _ in read(encoder.announce(attributes, keys), add_path=add_path)
    )


@pytest.mark.parametrize("family", Family)
def test_attributes_that_fit_no_message_withdraw_what_they_would_replace(family: Family) -> None:
    keys = [nlri for nlri, _ in MANY[family][:5]]
    encoded = GroupEncoder(family, session()).announce(plain(family, communities=HUGE), keys)
    messages = read(encoded, add_path=False)
    assert [key for _, held in messages for key in held] == keys
    assert all(update.attributes is None for update, _ in messages)


def test_attributes_that_nearly_fill_a_message_leave_room_for_one_key() -> None:
    keys = [nlri for nlri, _ in MANY[Family.IPV4][:5]]
    attributes = plain(Family.IPV4, communities=tuple(range(1, 1008)))
    encoded = GroupEncoder(Family.IPV4, session()).announce(attributes, keys)
    messages = read(encoded, add_path=False)
    assert [key for _, held in messages for key in held] == keys
    assert all(update.attributes == attributes for update, _ in messages)


@pytest.mark.parametrize("family", Family)
def test_of_nothing_nothing_is_told(family: Family) -> None:
    """An UPDATE without prefixes is an End-of-RIB (RFC 4724 section 2)."""
    encoder = GroupEncoder(family, session())
    assert encoder.announce(plain(family), []) == encoder.withdraw([]) == []


def test_attributes_are_told_apart_whatever_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bgpd.bgp.group_encoder._MEMORY", 3)
    encoder, nlri = GroupEncoder(Family.IPV4, session()), MANY[Family.IPV4][0][0]
    for med in (*range(10), *range(10)):  # each is freed, and another may get its identity
        ((data, _),) = encoder.announce(plain(Family.IPV4, med=med), [nlri])
        ((update, _),) = read([(data, [nlri])], add_path=False)
        assert update.attributes is not None
        assert update.attributes.med == med
