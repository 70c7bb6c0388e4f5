"""A light node's side of a session: what it says, when, and what ends it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from bgpd.bgp.codec import Decoder, encode_keepalive, encode_notification, encode_open
from bgpd.bgp.message import EndOfRib, Keepalive, Message, Notification, Open, Update
from bgpd.lab.light_nodes import Session, script
from bgpd.lab.light_plan import light_nodes
from bgpd.lab.present import Presenter
from bgpd.lab.run import LabOptions, run_lab
from routes.path import PeerKind
from routes.peer import Capabilities, Negotiated
from routes.prefix import Family, Prefix, parse_address

ASN = 65000
BOTH = frozenset(Family)
NODE = light_nodes(300, 2)[299]
OPEN = encode_open(Open(ASN, 90, 1, Capabilities(BOTH, ASN)))
TABLE = bytes(100_000)
"""Whatever a reflector sends once the session is established; nobody reads it."""


@pytest.fixture
def session() -> Iterator[tuple[Session, socket.socket]]:
    """A session that is connected, and the reflector's end of it."""
    near, far = socket.socketpair()
    with near, far:
        far.settimeout(2)
        one = Session(NODE, "192.0.2.1", script(NODE, ASN))
        one.sock = near
        yield one, far


def heard(far: socket.socket) -> list[Message]:
    """What a reflector makes of all that came."""
    decoder = Decoder()
    address = parse_address("192.0.2.1")
    decoder.negotiated = Negotiated(PeerKind.IBGP, ASN, ASN, 0, address, address, 0, 90, BOTH)
    return decoder.feed(far.recv(1 << 16))


@pytest.mark.parametrize("piece", [1, 19, 1 << 20])
def test_it_announces_its_prefixes_once_it_is_established(
    session: tuple[Session, socket.socket], piece: int
) -> None:
    one, far = session
    said = OPEN + encode_keepalive() + (TABLE if piece > 19 else b"")
    for at in range(0, len(said), piece):
        assert not one.up
        one.take(memoryview(said[at : at + piece]))
    assert one.up
    keepalive, *rest = heard(far)
    assert isinstance(keepalive, Keepalive)
    updates = [message for message in rest if isinstance(message, Update)]
    assert [u.announced for u in updates] == [
        (Prefix.parse("10.65.44.0/24"),),
        (Prefix.parse("fd00:10:64:12c::/64"),),
    ]
    hops = [u.attributes.next_hop for u in updates if u.attributes]
    assert hops == [parse_address("100.64.1.44"), parse_address("2001:db8::1:12c")]
    assert [m.family for m in rest if isinstance(m, EndOfRib)] == [Family.IPV4, Family.IPV6]


def test_it_opens_with_a_router_id_of_its_own_and_keeps_no_forwarding_state() -> None:
    (opening,) = Decoder().feed(script(NODE, ASN).opening)
    assert isinstance(opening, Open)
    assert opening.bgp_id == int(NODE.address)
    restart = opening.capabilities.graceful_restart
    assert restart
    assert restart.families == ()


@pytest.mark.parametrize(
    "said",
    [
        encode_notification(Notification(6, 2)),
        encode_keepalive(),
        OPEN + OPEN,
        b"\xff" * 16 + b"\x00\x12\x04",
        b"\xff" * 16 + b"\x10\x01\x01",
    ],
    ids=["NOTIFICATION", "KEEPALIVE first", "two OPENs", "too short", "too long"],
)
def test_what_does_not_belong_there_ends_the_session(
    session: tuple[Session, socket.socket], said: bytes
) -> None:
    with pytest.raises(ConnectionError):
        session[0].take(memoryview(said))
    assert not session[0].up


def test_light_nodes_without_reflectors_are_refused_before_anything_is_built() -> None:
    output = StringIO()
    presenter = Presenter(Console(file=output, width=200))
    assert run_lab(LabOptions(fabric="mesh", light_nodes=5), presenter) == 1
    assert "light nodes are clients of reflectors" in output.getvalue()
