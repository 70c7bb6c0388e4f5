"""Properties of the codec: it never raises on bytes, loses nothing, and does not care how bytes arrive."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bgpd.bgp.codec import Decoder, encode_open, encode_updates
from bgpd.bgp.framing import HEADER_SIZE, frame
from bgpd.bgp.message import Malformed, Message, Open, Update
from routes.path import PathAttributes, PeerKind
from routes.peer import Capabilities, GracefulRestart, Negotiated
from routes.prefix import Family, Prefix
from tests.property.bgp_messages import BOTH, SESSIONS, SOME_FAMILIES, U32, Sender, path_attributes, prefixes
from tests.property.bgp_messages import session as make_session

SEEDS = st.integers(0, 2**32 - 1)


def decoder_of(negotiated: Negotiated | None) -> Decoder:
    decoder = Decoder()
    decoder.negotiated = negotiated
    return decoder


def in_pieces(stream: bytes, cuts: list[int], negotiated: Negotiated) -> list[Message]:
    decoder = decoder_of(negotiated)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [message for start, end in pairwise(edges) for message in decoder.feed(stream[start:end])]


@settings(deadline=None)
@given(st.binary(max_size=200), st.none() | SESSIONS)
@example(b"\xff" * 16 + b"\x00\x1d\x01" + b"\x04" + bytes(9), None)
def test_no_bytes_raise(data: bytes, negotiated: Negotiated | None) -> None:
    decoder_of(negotiated).feed(data)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 6), st.binary(max_size=120), st.none() | SESSIONS)
def test_no_framed_bytes_raise(kind: int, body: bytes, negotiated: Negotiated | None) -> None:
    decoder_of(negotiated).feed(frame(kind, body))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=40))
def test_no_capabilities_raise(fixed_and_parameters: bytes, tail: bytes) -> None:
    body = b"\x04\xfd\xe8\x00\x5a\x0a\x00\x00\x01" + bytes((len(fixed_and_parameters),))
    decoder_of(None).feed(frame(1, body + fixed_and_parameters))
    parameter = bytes((2, len(tail))) + tail
    decoder_of(None).feed(frame(1, body[:-1] + bytes((len(parameter),)) + parameter))


@settings(max_examples=200, deadline=None)
@given(SEEDS, SESSIONS)
def test_broken_updates_end_the_session_or_say_what_was_wrong(seed: int, negotiated: Negotiated) -> None:
    for message in decoder_of(negotiated).feed(Sender(seed, negotiated).broken(5)):
        if isinstance(message, Update):
            assert (message.attributes is not None) == bool(message.announced)
            assert message.announced or message.withdrawn or message.error
        if isinstance(message, Malformed):
            assert message.notification.code in (1, 3)
            assert message.text


@settings(max_examples=200, deadline=None)
@given(SEEDS, SESSIONS, st.lists(st.integers(0, 10_000), max_size=8))
def test_arrival_in_pieces_changes_nothing(seed: int, negotiated: Negotiated, cuts: list[int]) -> None:
    stream = Sender(seed, negotiated).stream(8, 0.02)
    assert in_pieces(stream, cuts, negotiated) == decoder_of(negotiated).feed(stream)


def test_arrival_byte_by_byte_changes_nothing() -> None:
    negotiated = make_session()
    stream = Sender(1, negotiated).stream(20, 0.0)
    assert in_pieces(stream, list(range(len(stream))), negotiated) == decoder_of(negotiated).feed(stream)


@st.composite
def announcements(
    draw: st.DrawFn,
) -> tuple[Negotiated, PathAttributes, list[Prefix], list[Prefix], int]:
    kind = draw(st.sampled_from([PeerKind.IBGP, PeerKind.EBGP]))
    family = draw(st.sampled_from(Family))
    ipv6_hop = family is Family.IPV6 or draw(st.booleans())
    negotiated = make_session(
        kind,
        four_octet=draw(st.booleans()),
        extended_next_hop=frozenset({Family.IPV4}),
        add_path=draw(SOME_FAMILIES),
        extended_message=draw(st.booleans()),
    )
    attributes = draw(path_attributes(kind is PeerKind.IBGP, ipv6_hop))
    announced = draw(st.lists(prefixes(family), min_size=1, max_size=5, unique=True))
    withdrawn = draw(st.lists(prefixes(draw(st.sampled_from(Family))), max_size=5, unique=True))
    path_id = draw(st.integers(0, 2**32 - 1))
    return negotiated, attributes, announced, withdrawn, path_id


@settings(max_examples=300, deadline=None)
@given(announcements())
def test_what_is_encoded_comes_back(
    case: tuple[Negotiated, PathAttributes, list[Prefix], list[Prefix], int],
) -> None:
    negotiated, attributes, announced, withdrawn, path_id = case
    messages = encode_updates(attributes, announced, withdrawn, negotiated, path_id)
    assert all(len(message) <= 4096 for message in messages)
    updates = decoder_of(negotiated).feed(b"".join(messages))
    here: list[Prefix] = []
    gone: list[Prefix] = []
    for update in updates:
        assert isinstance(update, Update)
        assert not update.error
        here += update.announced
        gone += update.withdrawn
        if update.announced:
            assert update.attributes == attributes
        for nlri in update.announced + update.withdrawn:
            assert update.path_id == (path_id if nlri.family in negotiated.add_path_receive else 0)
    assert here == announced
    assert sorted(gone) == sorted(withdrawn)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 4000), st.sampled_from(Family), st.booleans())
def test_any_number_of_prefixes_is_packed_into_full_messages(
    count: int, family: Family, add_path: bool
) -> None:
    negotiated = make_session(add_path=BOTH if add_path else frozenset())
    size = 4 if family is Family.IPV4 else 16
    gone = [Prefix.parse("0.0.0.0/0" if size == 4 else "::/0")] * count
    messages = encode_updates(None, [], gone, negotiated)
    updates = decoder_of(negotiated).feed(b"".join(messages))
    assert sum(len(update.withdrawn) for update in updates if isinstance(update, Update)) == count
    assert all(len(message) > 4000 for message in messages[:-1])
    assert all(HEADER_SIZE < len(message) <= 4096 for message in messages)


GRACEFUL = st.builds(
    GracefulRestart,
    st.integers(0, 4095),
    st.booleans(),
    st.booleans(),
    st.lists(
        st.tuples(st.sampled_from(Family), st.booleans()), max_size=2, unique_by=lambda pair: pair[0]
    ).map(tuple),
)
CAPABILITIES = st.builds(
    Capabilities,
    families=SOME_FAMILIES.filter(bool),
    four_octet_asn=st.none() | st.integers(1, 2**32 - 1),
    route_refresh=st.booleans(),
    enhanced_route_refresh=st.booleans(),
    extended_message=st.booleans(),
    extended_next_hop=st.sampled_from([frozenset(), frozenset({Family.IPV4})]),
    add_path_send=SOME_FAMILIES,
    add_path_receive=SOME_FAMILIES,
    graceful_restart=st.none() | GRACEFUL,
)


@settings(deadline=None)
@given(CAPABILITIES, st.integers(1, 65535), st.sampled_from([0, 3, 90, 65535]), U32.filter(bool))
def test_open_comes_back(capabilities: Capabilities, asn: int, hold_time: int, bgp_id: int) -> None:
    message = Open(capabilities.four_octet_asn or asn, hold_time, bgp_id, capabilities)
    if capabilities.four_octet_asn is None:
        message = Open(asn, hold_time, bgp_id, capabilities)
    assert decoder_of(None).feed(encode_open(message)) == [message]
