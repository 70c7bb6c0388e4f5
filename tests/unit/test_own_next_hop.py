"""The next hop of our own announcements, for each kind of session."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from routes.own_next_hop import ConfiguredNextHops, OwnNextHop, own_next_hop
from routes.path import PeerKind
from routes.peer import Negotiated
from routes.prefix import Address, Family, parse_address

V4 = parse_address("192.0.2.11")
V6 = parse_address("fd00::11")
LINK_LOCAL = parse_address("fe80::11")
NONE = ConfiguredNextHops()


@dataclass
class FakeNode:
    """Interfaces as a table."""

    links: dict[int, tuple[Address, ...]] = field(default_factory=dict)

    def interface_of(self, address: Address) -> int:
        return next((i for i, held in self.links.items() if address in held), 0)

    def addresses_on(self, ifindex: int) -> tuple[Address, ...]:
        return self.links.get(ifindex, ())


def session(local: Address, **changes: object) -> Negotiated:
    base = Negotiated(
        kind=PeerKind.IBGP,
        local_asn=65000,
        peer_asn=65000,
        peer_bgp_id=1,
        local_address=local,
        peer_address=local,
        ifindex=0,
        hold_time=90,
        families=frozenset(Family),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # a table of fields


NODE = FakeNode({2: (LINK_LOCAL, V4, V6), 3: (LINK_LOCAL,)})


@pytest.mark.parametrize(
    ("family", "local", "expected"),
    [
        (Family.IPV4, V4, OwnNextHop(V4)),
        (Family.IPV6, V6, OwnNextHop(V6)),
        (Family.IPV6, V4, OwnNextHop(V6)),
        (Family.IPV4, V6, OwnNextHop(V4)),
    ],
)
def test_own_address_of_that_family(family: Family, local: Address, expected: OwnNextHop) -> None:
    assert own_next_hop(family, session(local), NODE, NONE) == expected


def test_link_local_session_gives_both_addresses() -> None:
    assert own_next_hop(Family.IPV6, session(LINK_LOCAL, ifindex=2), NODE, NONE) == OwnNextHop(V6, LINK_LOCAL)
    assert own_next_hop(Family.IPV6, session(LINK_LOCAL, ifindex=3), NODE, NONE) == OwnNextHop(LINK_LOCAL)


def test_extended_next_hop_serves_ipv4_without_an_ipv4_address() -> None:
    node = FakeNode({2: (V6,)})
    extended = session(V6, extended_next_hop=frozenset({Family.IPV4}))
    assert own_next_hop(Family.IPV4, extended, node, NONE) == OwnNextHop(V6)


def test_no_next_hop_has_a_reason_that_says_what_to_do() -> None:
    node = FakeNode({2: (V6,)})
    without = own_next_hop(Family.IPV4, session(V6), node, NONE)
    assert without.address is None
    assert "RFC 8950" in without.reason
    assert "next_hop_ipv4" in without.reason


def test_configuration_wins() -> None:
    loopback = parse_address("198.51.100.1")
    assert own_next_hop(Family.IPV4, session(V4), NODE, ConfiguredNextHops(ipv4=loopback)).address == loopback
