"""What an agent says of its own prefixes when they, or its addresses, change."""

from __future__ import annotations

from bgpd.announce import OwnPrefixes
from bgpd.bgp import codec
from bgpd.bgp.message import Update
from routes.own_next_hop import ConfiguredNextHops
from routes.path import PeerKind, PeerName
from routes.peer import Negotiated
from routes.prefix import Address, Family, Prefix, format_address, parse_address

LOCAL = parse_address("192.0.2.1")
FIRST, SECOND = Prefix.parse("10.1.0.0/24"), Prefix.parse("10.2.0.0/24")
NEGOTIATED = Negotiated(
    kind=PeerKind.IBGP,
    local_asn=65000,
    peer_asn=65000,
    peer_bgp_id=2,
    local_address=LOCAL,
    peer_address=parse_address("192.0.2.2"),
    ifindex=2,
    hold_time=90,
    families=frozenset({Family.IPV4}),
)


class Node:
    """One link with `LOCAL` on it."""

    def interface_of(self, address: Address) -> int:
        return 2 if address == LOCAL else 0

    def addresses_on(self, ifindex: int) -> tuple[Address, ...]:
        return (LOCAL,) if ifindex == 2 else ()


class Peer:
    """A session that remembers what it was told."""

    name = PeerName("192.0.2.2")
    negotiated: Negotiated | None = NEGOTIATED

    def __init__(self) -> None:
        self._decoder = codec.Decoder()
        self._decoder.negotiated = NEGOTIATED
        self.has: dict[Prefix, str] = {}
        """Next hops of what it was announced."""

    def send(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            if isinstance(message, Update):
                for nlri in message.withdrawn:
                    self.has.pop(nlri, None)
                for nlri in message.announced:
                    assert message.attributes is not None
                    self.has[nlri] = format_address(message.attributes.next_hop)


def test_one_reload_can_add_a_prefix_and_move_the_next_hop_of_all() -> None:
    own, peer = OwnPrefixes(Node(), ConfiguredNextHops()), Peer()
    own.originate([FIRST])
    own.session_up(peer, NEGOTIATED)
    assert peer.has == {FIRST: "192.0.2.1"}

    own.configured = ConfiguredNextHops(ipv4=parse_address("192.0.2.77"))
    own.originate([FIRST, SECOND])
    own.addresses_changed()
    assert peer.has == {FIRST: "192.0.2.77", SECOND: "192.0.2.77"}

    own.configured = ConfiguredNextHops()
    own.originate([SECOND])
    own.addresses_changed()
    assert peer.has == {SECOND: "192.0.2.1"}
