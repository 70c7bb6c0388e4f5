"""Next hops as real daemons announce them: IPv6 ones for IPv4, link-local ones, several, and useless ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bgpd.lab import netns
from bgpd.lab.fabric_bird import Bird
from routes.prefix import Family, format_address
from routes.view import Gate, Table
from tests.interop.agent import ASN, OWN, config, peer
from tests.interop.conftest import MakeAgent, MakeSpeaker
from tests.interop.harness.lan import DEVICE, LanHost
from tests.interop.harness.speaker import Announcement, Neighbor

THEIR_ASN = 65001
THEIRS = {"ipv4": "10.2.0.0/24", "ipv6": "fd00:2::/64"}
LINK_LOCAL = ("fe80::a", "fe80::b")
FAR = "203.0.113.9"
ROUTERS = ("frr", "bird")
"""The daemons that people build IPv6-only and unnumbered fabrics of."""


@pytest.fixture
def ipv6_lan(lan: list[LanHost]) -> list[LanHost]:
    """The link without any IPv4 address."""
    for host in lan:
        netns.batch(host.namespace, [f"address del {host.ipv4}/24 dev {DEVICE}"])
    return lan


@pytest.mark.parametrize("daemon", ROUTERS)
def test_ipv4_over_an_ipv6_only_link(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, ipv6_lan: list[LanHost], daemon: str
) -> None:
    us, them = ipv6_lan
    neighbor = Neighbor(us.ipv6, ASN, them.ipv6, extended_next_hop=True)
    speaker = make_speaker(daemon, them, THEIR_ASN, neighbor)
    speaker.announce(*(Announcement(prefix) for prefix in THEIRS.values()))
    agent = make_agent(us, config(us, peer(them.ipv6, THEIR_ASN)))
    speaker.start()
    agent.wait_ready()
    negotiated = agent.wait_established(them.ipv6).negotiated
    assert negotiated is not None
    assert negotiated.extended_next_hop == {Family.IPV4}
    speaker.wait_established()

    for prefix in THEIRS.values():
        attributes = agent.wait_path(prefix).attributes
        assert format_address(attributes.next_hop) == them.ipv6
        agent.wait_kernel(prefix, format_address(attributes.link_local or attributes.next_hop))
    for prefix in OWN:
        assert speaker.wait_best(prefix).next_hop == us.ipv6
    speaker.withdraw(THEIRS["ipv4"])
    agent.wait_gone(THEIRS["ipv4"])


def test_a_family_without_a_next_hop_is_not_announced_and_the_api_says_why(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, ipv6_lan: list[LanHost]
) -> None:
    us, them = ipv6_lan
    speaker = make_speaker("bird", them, THEIR_ASN, Neighbor(us.ipv6, ASN, them.ipv6))
    agent = make_agent(us, config(us, peer(them.ipv6, THEIR_ASN)))
    speaker.start()
    agent.wait_ready()
    status = agent.wait_established(them.ipv6)
    ((family, reason),) = status.not_announced
    assert family is Family.IPV4
    assert reason.startswith("the link of 2001:db8::1 has no ipv4 address, and the peer did not negotiate")
    agent.wait_logged("family not announced", peer=them.ipv6, family="ipv4", reason=reason)
    speaker.wait_best(OWN[1])
    assert speaker.paths(OWN[0]) == []

    netns.batch(us.namespace, [netns.add_address(DEVICE, f"{us.ipv4}/24")])
    netns.batch(them.namespace, [netns.add_address(DEVICE, f"{them.ipv4}/24")])
    assert speaker.wait_best(OWN[0]).next_hop == us.ipv4
    assert agent.peer(them.ipv6).not_announced == ()


@pytest.mark.parametrize("daemon", ROUTERS)
def test_a_neighbour_at_its_link_local_address(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, ipv6_lan: list[LanHost], daemon: str
) -> None:
    us, them = ipv6_lan
    for host, address in zip(ipv6_lan, LINK_LOCAL, strict=True):
        lines = [f"address del {host.ipv6}/64 dev {DEVICE}", f"address flush dev {DEVICE} scope link"]
        netns.batch(host.namespace, [*lines, netns.add_address(DEVICE, f"{address}/64")])
    ours, theirs = (f"{address}%{DEVICE}" for address in LINK_LOCAL)
    speaker = make_speaker(daemon, them, THEIR_ASN, Neighbor(ours, ASN, theirs, extended_next_hop=True))
    speaker.announce(*(Announcement(prefix) for prefix in THEIRS.values()))
    agent = make_agent(us, config(us, peer(theirs, THEIR_ASN)))
    speaker.start()
    agent.wait_ready()
    agent.wait_established(theirs)
    for prefix in THEIRS.values():
        route = agent.wait_kernel(prefix, LINK_LOCAL[1])
        assert [hop.device for hop in route.next_hops] == [DEVICE]
    for prefix in OWN:
        assert speaker.wait_best(prefix).next_hop == LINK_LOCAL[0]
    speaker.withdraw(*THEIRS.values())
    for prefix in THEIRS.values():
        agent.wait_gone(prefix)


def test_an_unresolved_next_hop_keeps_a_path_out_of_the_kernel_until_a_route_leads_there(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost]
) -> None:
    us, them = lan
    prefix = THEIRS["ipv4"]
    speaker = make_speaker("gobgp", them, ASN, Neighbor(us.ipv4, ASN, them.ipv4))
    speaker.announce(Announcement(prefix, next_hop=FAR))
    agent = make_agent(us, config(us, peer(them.ipv4, ASN)))
    speaker.start()
    agent.wait_ready()
    path = agent.wait_path(prefix)
    assert path.accepted
    assert (path.best, path.lost_at) == (False, "unresolved")
    assert path.reason == f"its next hop {FAR} can't be resolved: no route leads to {FAR}"
    assert agent.client.explain(prefix).failed is Gate.NEXT_HOP
    assert agent.kernel(prefix) is None

    netns.batch(us.namespace, [f"route add 203.0.113.0/24 via {them.ipv4}"])
    agent.wait_kernel(prefix, them.ipv4)
    netns.batch(us.namespace, ["route del 203.0.113.0/24"])
    agent.wait_path(prefix, lambda view: view.lost_at == "unresolved")
    assert agent.wait_path(prefix).reason
    assert agent.client.explain(prefix).failed is Gate.NEXT_HOP


ADD_PATH = """
log stderr all;
router id {them};
protocol device {{ scan time 1; }}
protocol static one {{ ipv4; route {prefix} via 192.0.2.77; }}
protocol static two {{ ipv4; route {prefix} via 192.0.2.78; }}
protocol bgp peer1 {{
  local {them} as {asn};
  neighbor {us} as {asn};
  direct;
  ipv4 {{ import all; export where source = RTS_STATIC; add paths tx; }};
}}
"""


@pytest.fixture
def add_path_bird(lan: list[LanHost]) -> Iterator[Bird]:
    us, them = lan
    text = ADD_PATH.format(us=us.ipv4, them=them.ipv4, prefix=THEIRS["ipv4"], asn=ASN)
    bird = Bird(them.name, them.namespace, them.folder, text)
    yield bird
    bird.stop()


def test_two_paths_of_one_peer_become_one_route_with_two_next_hops(
    make_agent: MakeAgent, lan: list[LanHost], add_path_bird: Bird
) -> None:
    us, them = lan
    prefix = THEIRS["ipv4"]
    agent = make_agent(us, config(us, peer(them.ipv4, ASN, add_path=True)))
    add_path_bird.start()
    agent.wait_ready()
    negotiated = agent.wait_established(them.ipv4).negotiated
    assert negotiated is not None
    assert negotiated.add_path_receive == {Family.IPV4}
    agent.wait_kernel(prefix, "192.0.2.77", "192.0.2.78")
    paths = agent.paths(prefix, Table.LOC_RIB)
    assert [(path.best, path.multipath) for path in paths] == [(True, False), (False, True)]
    assert len({path.path.path_id for path in paths}) == 2

    add_path_bird.birdc("disable", "two")
    agent.wait_kernel(prefix, "192.0.2.77")
    add_path_bird.birdc("disable", "one")
    agent.wait_gone(prefix)
