"""Which link is the uplink, and so how large pods' packets may be."""

from __future__ import annotations

import pytest

from bgpd.kernel.uplinks import LinkMtu, Uplinks
from bgpd.node.errors import HostError
from bgpd.node.uplink import choose
from routes.next_hop import InterfaceAddress
from routes.prefix import Prefix, parse_address

NODE = "192.0.2.11"
PODS = (Prefix.parse("10.244.1.0/24"),)
LO = LinkMtu(1, "lo", True, True, 65536)
ETH0, ETH1 = LinkMtu(2, "eth0", True, False, 1500), LinkMtu(3, "eth1", True, False, 9000)
POD = LinkMtu(4, "veth1", True, False, 1400)
DOWN = LinkMtu(5, "eth5", False, False, 1000)


def held(link: LinkMtu, address: str) -> InterfaceAddress:
    return InterfaceAddress(link.ifindex, parse_address(address), 32)


@pytest.mark.parametrize(
    ("addresses", "defaults", "names", "mtu"),
    [
        ([held(ETH1, NODE), held(ETH0, "203.0.113.1")], {2}, ("eth1",), 9000),
        ([held(ETH1, NODE), held(ETH0, NODE)], set(), ("eth0", "eth1"), 1500),
        ([held(LO, NODE)], {2, 3}, ("eth0", "eth1"), 1500),
        ([held(LO, NODE)], {3, 5, 99}, ("eth1",), 9000),
        ([held(LO, NODE), held(ETH1, "fd00::1"), held(POD, "10.244.1.1")], set(), ("eth1",), 9000),
    ],
    ids=["node-address", "on-two-links", "behind-routers", "gone-or-down", "no-default-route"],
)
def test_the_uplink(
    addresses: list[InterfaceAddress], defaults: set[int], names: tuple[str, ...], mtu: int
) -> None:
    facts = Uplinks((LO, ETH0, ETH1, POD, DOWN), tuple(addresses), frozenset(defaults))
    chosen = choose(facts, [parse_address(NODE)], PODS)
    assert (chosen.links, chosen.mtu) == (names, mtu)


def test_without_any_the_setting_that_helps_is_named() -> None:
    facts = Uplinks(
        (LO, ETH0, POD), (held(LO, NODE), held(ETH0, "fe80::1"), held(POD, "10.244.1.1")), frozenset()
    )
    with pytest.raises(HostError, match=r"192\.0\.2\.11.*spec\.pods\.mtu"):
        choose(facts, [parse_address(NODE)], PODS)
