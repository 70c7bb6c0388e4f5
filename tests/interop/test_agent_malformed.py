"""What no daemon would send: a scripted peer breaks UPDATEs, and the agent says what is wrong with them.

RFC 7606 in the whole agent: an attribute that makes no sense costs the prefixes of that UPDATE alone,
also in the kernel; bytes that can't be parsed cost the session, with a NOTIFICATION.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from bgpd.bgp import codec
from bgpd.bgp.message import Keepalive, Notification, Open
from bgpd.lab import netns
from routes.path import AsPath, AsSegment, Origin, PathAttributes, PeerKind, SegmentKind
from routes.peer import Capabilities, Negotiated, SessionState
from routes.prefix import Family, Prefix, parse_address
from tests.interop.agent import ASN, Agent, config, peer
from tests.interop.conftest import MakeAgent
from tests.interop.harness.lan import LanHost

THEIR_ASN = 65001
PREFIX = "10.2.0.0/24"
OTHER = "10.3.0.0/24"
ORIGIN = bytes.fromhex("40010100")
NLRI = bytes.fromhex("180a0200")


class ScriptedPeer:
    """A session that is up, and says what it is told to."""

    def __init__(self, us: LanHost, them: LanHost) -> None:
        self._decoder = codec.Decoder()
        self._ours, self._theirs = parse_address(us.ipv4), parse_address(them.ipv4)
        self._negotiated = Negotiated(
            kind=PeerKind.EBGP,
            local_asn=THEIR_ASN,
            peer_asn=ASN,
            peer_bgp_id=1,
            local_address=self._theirs,
            peer_address=self._ours,
            ifindex=0,
            hold_time=90,
            families=frozenset({Family.IPV4}),
        )
        self._socket = netns.open_socket(them.namespace, socket.AF_INET, socket.SOCK_STREAM)
        self._socket.settimeout(5)
        self._socket.bind((them.ipv4, 0))
        self._socket.connect((us.ipv4, 179))
        capabilities = Capabilities(families=frozenset({Family.IPV4}), four_octet_asn=THEIR_ASN)
        self.send(codec.encode_open(Open(THEIR_ASN, 90, int.from_bytes(self._theirs), capabilities)))
        self._wait_for(Keepalive)
        self._decoder.negotiated = self._negotiated
        self.send(codec.encode_keepalive())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()

    def update(self, *prefixes: str) -> bytes:
        """An UPDATE without fault."""
        path = AsPath.of((AsSegment(SegmentKind.SEQUENCE, (THEIR_ASN,)),))
        attributes = PathAttributes(Origin.IGP, path, self._theirs)
        (message,) = codec.encode_updates(
            attributes, [Prefix.parse(text) for text in prefixes], (), self._negotiated
        )
        return message

    def notification(self) -> Notification:
        """What ends the session."""
        message = self._wait_for(Notification)
        assert isinstance(message, Notification)
        return message

    def _wait_for(self, kind: type[Keepalive | Notification]) -> object:
        while data := self._socket.recv(4096):
            for message in self._decoder.feed(data):
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"the agent closed without a {kind.__name__}")


@pytest.fixture
def session(make_agent: MakeAgent, lan: list[LanHost]) -> Iterator[tuple[Agent, ScriptedPeer]]:
    us, them = lan
    agent = make_agent(us, config(us, peer(them.ipv4, THEIR_ASN, families=["ipv4"], passive=True)))
    agent.wait_ready()
    scripted = ScriptedPeer(us, them)
    agent.wait_established(them.ipv4)
    scripted.send(scripted.update(PREFIX, OTHER))
    for prefix in (PREFIX, OTHER):
        agent.wait_kernel(prefix, them.ipv4)
    yield agent, scripted
    scripted.close()


def test_a_senseless_attribute_withdraws_its_prefixes_and_no_others(
    session: tuple[Agent, ScriptedPeer], lan: list[LanHost]
) -> None:
    agent, scripted = session
    name = lan[1].ipv4
    scripted.send(scripted.update(PREFIX).replace(ORIGIN, ORIGIN[:3] + b"\x09"))
    agent.wait_gone(PREFIX)
    line = agent.wait_logged("malformed UPDATE", peer=name, level="warning")
    assert "ORIGIN" in str(line["error"])
    assert agent.kernel(OTHER) is not None
    status = agent.peer(name)
    assert status.last_error is not None
    assert status.last_error.text == f"malformed UPDATE: {line['error']}"
    assert (status.state, status.counters.flaps) == (SessionState.ESTABLISHED, 0)

    scripted.send(scripted.update(PREFIX))
    agent.wait_kernel(PREFIX, name)


def test_an_update_that_can_not_be_parsed_ends_the_session_with_a_reason(
    session: tuple[Agent, ScriptedPeer], lan: list[LanHost]
) -> None:
    agent, scripted = session
    name = lan[1].ipv4
    scripted.send(scripted.update(PREFIX).replace(NLRI, b"\x21" + NLRI[1:]))
    sent = scripted.notification()
    assert (sent.code, sent.subcode) == (3, 10)
    status = agent.wait_error(name, "the field of NLRI can't be parsed")
    assert status.last_error is not None
    assert (status.last_error.code, status.last_error.subcode, status.last_error.sent) == (3, 10, True)
    agent.wait_logged("session down", peer=name, reason=status.last_error.text)
    for prefix in (PREFIX, OTHER):
        agent.wait_gone(prefix)
