"""Next-hop resolution: one small node, and what each next hop resolves to on it."""

from __future__ import annotations

import pytest

from routes.fib import Hop
from routes.next_hop import (
    ForeignRoute,
    InterfaceAddress,
    Link,
    ResolveOptions,
    Resolver,
    RouteKind,
    losses,
)
from routes.prefix import Prefix, parse_address

ETH0, ETH1, DOWN, DARK = 2, 3, 4, 5
LINKS = (
    Link(ETH0, "eth0", up=True, lower_up=True),
    Link(ETH1, "eth1", up=True, lower_up=True),
    Link(DOWN, "eth2", up=False, lower_up=False),
    Link(DARK, "eth3", up=True, lower_up=False),
)
ADDRESSES = (
    InterfaceAddress(ETH0, parse_address("192.0.2.1"), 24),
    InterfaceAddress(ETH0, parse_address("fd00::1"), 64),
    InterfaceAddress(ETH0, parse_address("fe80::1"), 64),
)


def hop(gateway: str | None, ifindex: int, *, onlink: bool = False) -> Hop:
    return Hop(parse_address(gateway) if gateway else None, ifindex, onlink)


def route(prefix: str, *hops: Hop, metric: int = 0, kind: RouteKind = RouteKind.UNICAST) -> ForeignRoute:
    return ForeignRoute(Prefix.parse(prefix), metric, 4, kind, hops)


ROUTES = (
    route("192.0.2.0/24", hop(None, ETH0)),
    route("fd00::/64", hop(None, ETH0), metric=256),
    route("198.51.100.0/24", hop("192.0.2.254", ETH0), metric=10),
    route("198.51.100.0/24", hop("192.0.2.99", ETH0), metric=50),
    route("198.51.100.128/25", hop("192.0.2.253", ETH0)),
    route("203.0.113.0/24", hop("192.0.2.2", ETH0), hop("192.0.2.3", ETH1), hop("192.0.2.4", DOWN)),
    route("100.64.0.0/24", hop(None, DOWN)),
    route("100.64.1.0/24", hop(None, DARK)),
    route("100.64.2.0/24", hop(None, 77)),
    route("100.65.0.0/16", kind=RouteKind.BLACKHOLE),
    route("10.9.0.0/16", hop("fe80::9", ETH1)),
    route("10.8.0.0/16", hop("172.16.0.1", ETH1, onlink=True)),
    route("fd01::/48", hop("fd00::fe", ETH0), metric=1024),
)
DEFAULT = route("0.0.0.0/0", hop("192.0.2.254", ETH0))
ONLINK = ResolveOptions(onlink=(Prefix.parse("172.20.0.0/16"), Prefix.parse("192.0.2.0/24")))


def resolver(options: ResolveOptions | None = None, *more: ForeignRoute) -> Resolver:
    return Resolver(LINKS, ADDRESSES, (*ROUTES, *more), options)


@pytest.mark.parametrize(
    ("next_hop", "expected", "cost"),
    [
        ("192.0.2.7", (hop("192.0.2.7", ETH0),), 0),
        ("fd00::7", (hop("fd00::7", ETH0),), 0),
        ("198.51.100.7", (hop("192.0.2.254", ETH0),), 11),
        ("198.51.100.200", (hop("192.0.2.253", ETH0),), 1),
        ("203.0.113.1", (hop("192.0.2.2", ETH0), hop("192.0.2.3", ETH1)), 1),
        ("10.9.1.1", (hop("fe80::9", ETH1),), 1),
        ("10.8.1.1", (hop("172.16.0.1", ETH1, onlink=True),), 1),
        ("fd01::7", (hop("fd00::fe", ETH0),), 1025),
    ],
)
def test_a_next_hop_leads_to_the_hops_of_the_longest_match(
    next_hop: str, expected: tuple[Hop, ...], cost: int
) -> None:
    assert resolver().resolve(parse_address(next_hop), None, 0) == (expected, cost, "")


@pytest.mark.parametrize(
    ("next_hop", "reason"),
    [
        ("192.0.2.1", "192.0.2.1 is an address of this node"),
        ("10.0.0.1", "no route leads to 10.0.0.1"),
        ("100.64.0.1", "link eth2 is down"),
        ("100.64.1.1", "link eth3 has no carrier"),
        ("100.64.2.1", "link 77 does not exist"),
        ("100.65.0.1", "the route 100.65.0.0/16 of protocol 4 (static) to 100.65.0.1 is blackhole"),
        ("fe80::7", "fe80::7 is link-local, and the session is not bound to a link"),
        ("0.0.0.0", "0.0.0.0 is no address of a router"),
        ("::", ":: is no address of a router"),
    ],
)
def test_what_can_not_be_resolved_says_why(next_hop: str, reason: str) -> None:
    assert resolver().resolve(parse_address(next_hop), None, 0) == ((), 0, reason)


def test_the_default_route_counts_only_where_it_is_allowed() -> None:
    far = parse_address("10.0.0.1")
    refused = resolver(None, DEFAULT).resolve(far, None, 0)
    assert refused.reason == "only the default route leads to 10.0.0.1, and resolve_via_default is off"
    allowed = resolver(ResolveOptions(via_default=True), DEFAULT).resolve(far, None, 0)
    assert allowed.hop == (hop("192.0.2.254", ETH0),)


@pytest.mark.parametrize(
    ("next_hop", "link_local", "ifindex", "expected"),
    [
        ("fe80::7", None, ETH1, hop("fe80::7", ETH1)),
        ("fd00::7", "fe80::7", ETH0, hop("fe80::7", ETH0)),
        ("::", "fe80::7", ETH0, hop("fe80::7", ETH0)),
        ("fd00::7", "fe80::7", 0, hop("fd00::7", ETH0)),
    ],
)
def test_link_local_next_hops_are_on_the_link_of_the_session(
    next_hop: str, link_local: str | None, ifindex: int, expected: Hop
) -> None:
    second = parse_address(link_local) if link_local else None
    assert resolver().resolve(parse_address(next_hop), second, ifindex).hop == (expected,)


def test_a_link_local_address_is_our_own_only_on_its_link() -> None:
    same = parse_address("fe80::1")
    assert resolver().resolve(same, None, ETH0).reason == "fe80::1 is an address of this node"
    assert resolver().resolve(same, None, ETH1).hop == (hop("fe80::1", ETH1),)


def test_a_next_hop_that_is_configured_on_link_needs_no_route() -> None:
    node = resolver(ONLINK, DEFAULT)
    assert node.resolve(parse_address("172.20.0.1"), None, ETH1).hop == (
        hop("172.20.0.1", ETH1, onlink=True),
    )
    assert "not bound to a link" in node.resolve(parse_address("172.20.0.1"), None, 0).reason
    assert node.resolve(parse_address("172.20.0.1"), None, DOWN).reason == "link eth2 is down"
    assert node.resolve(parse_address("192.0.2.7"), None, ETH1).hop == (hop("192.0.2.7", ETH0),)


def test_snapshots_tell_what_was_lost() -> None:
    before = resolver()
    links = (LINKS[0]._replace(lower_up=False), LINKS[1]._replace(name="renamed"), LINKS[2])
    moved = ADDRESSES[0]._replace(ifindex=ETH1)
    after = Resolver(links, (moved, *ADDRESSES[2:]), ROUTES)
    lost = losses(before, after)
    assert lost.links == {ETH0, DARK}
    assert lost.addresses == {parse_address("fd00::1")}
    assert losses(before, resolver()) == (frozenset(), frozenset())


def test_the_default_gateway_is_the_first_usable_one_of_the_default_route() -> None:
    with_dead_first = route("0.0.0.0/0", hop("192.0.2.7", DOWN), hop("192.0.2.254", ETH0))
    assert resolver(None, with_dead_first).default_gateway(4) == hop("192.0.2.254", ETH0)


@pytest.mark.parametrize("default", [(), (route("0.0.0.0/0", kind=RouteKind.BLACKHOLE),), (DEFAULT,)])
def test_without_a_default_route_there_is_no_default_gateway(default: tuple[ForeignRoute, ...]) -> None:
    expected = hop("192.0.2.254", ETH0) if default == (DEFAULT,) else None
    assert resolver(None, *default).default_gateway(4) == expected
    assert resolver(None, *default).default_gateway(16) is None
