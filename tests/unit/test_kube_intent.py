"""What a cluster's objects make of a node's agent, and of a reflector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from bgpd.config import Config, SpeakerConfig
from bgpd.kube.custom_values import (
    AddressRange,
    AsnRange,
    BgpAddressPool,
    BgpCluster,
    BgpPeer,
    ClusterStatus,
    Phase,
    Policies,
    Reflector,
    SecretKey,
    Speakers,
    Topology,
)
from bgpd.kube.intent import (
    MOST_NODES_IN_MESH,
    NOTHING,
    PODS_ONLY,
    ClusterFacts,
    Gateway,
    agent_intent,
    client_addresses,
    reflector_intent,
)
from bgpd.kube.objects import Node
from bgpd.kube.selector import LabelSelector
from bgpd.node.drain import DrainPlan
from bgpd.reload import plan_reload
from routes.path import PeerKind
from routes.prefix import Address, Family, Prefix, parse_address
from routes.route_policy import RoutePolicy

PODS = (Prefix.parse("10.244.0.0/16"), Prefix.parse("fd00:10:244::/48"))
SECRET = SecretKey("bgp", "password")
HOST = Config("", SpeakerConfig(0, 0))


def node(number: int, **other: object) -> Node:
    made = Node(
        name=f"n{number}",
        uid=f"uid-{number}",
        pod_cidrs=(Prefix.parse(f"10.244.{number}.0/24"), Prefix.parse(f"fd00:10:244:{number}::/64")),
        addresses=(parse_address(f"192.0.2.{number}"), parse_address(f"2001:db8::{number}")),
        ready=True,
    )
    return replace(made, **other)  # type: ignore[arg-type]  # any field


def cluster(topology: Topology = Topology.MESH, **other: object) -> BgpCluster:
    made = BgpCluster("default", "c", 1, 65000, topology, PODS)
    return replace(made, **other)  # type: ignore[arg-type]  # any field


def facts(
    what: BgpCluster, own: Node | None = None, others: Sequence[Node] = (), **other: object
) -> ClusterFacts:
    own = own or node(1)
    return ClusterFacts(HOST, own, what, nodes=(own, *others), **other)  # type: ignore[arg-type]  # any field


def reasons(found: ClusterFacts) -> set[str]:
    return {problem.reason for problem in agent_intent(found).problems}


def test_in_a_mesh_a_node_peers_with_every_other_from_its_own_address() -> None:
    config = agent_intent(facts(cluster(), others=(node(2), node(3)))).config
    assert [(peer.name, peer.kind, peer.description) for peer in config.peers] == [
        ("192.0.2.2", PeerKind.IBGP, "n2"),
        ("192.0.2.3", PeerKind.IBGP, "n3"),
    ]
    assert {peer.source_address for peer in config.peers} == {parse_address("192.0.2.1")}
    assert {peer.export_policies for peer in config.peers} == {(PODS_ONLY,)}
    assert [path.nlri for path in config.agent.advertise] == list(node(1).pod_cidrs)
    assert {endpoint.port for endpoint in config.speaker.listen} == {179}
    assert config.speaker.router_id == int.from_bytes(parse_address("192.0.2.1"), "big")


def test_two_nodes_meet_over_a_family_that_both_have() -> None:
    ipv6_only = node(2, addresses=(parse_address("2001:db8::2"),))
    config = agent_intent(facts(cluster(), others=(ipv6_only,))).config
    assert [peer.name for peer in config.peers] == ["2001:db8::2"]
    stranger = node(3, addresses=(parse_address("2001:db8::3"),))
    ipv4_only = node(1, addresses=(parse_address("192.0.2.1"),))
    assert agent_intent(facts(cluster(), ipv4_only, (stranger,))).config.peers == ()


def test_with_reflectors_a_node_peers_with_those_of_the_status_and_listens_nowhere() -> None:
    reflectors = tuple(
        Reflector(f"n{n}", f"uid-{n}", node(n).addresses, n, phase)
        for n, phase in ((7, Phase.ACTIVE), (8, Phase.STARTING))
    )
    what = cluster(Topology.REFLECTOR, status=ClusterStatus(reflectors=reflectors))
    config = agent_intent(facts(what)).config
    assert [peer.name for peer in config.peers] == ["192.0.2.7", "192.0.2.8"]
    assert config.speaker.listen == ()
    assert {peer.export_policies for peer in config.peers} == {()}


@pytest.mark.parametrize(
    ("own", "others", "reason", "advertised"),
    [
        (node(1, pod_cidrs=()), (), "NoPodCIDR", 0),
        (node(1, pod_cidrs=(Prefix.parse("192.168.0.0/24"),)), (), "PodCIDROutsideCluster", 0),
        (node(1), (node(2, pod_cidrs=(Prefix.parse("10.244.1.0/24"),)),), "DuplicatePodCIDR", 1),
        (node(1, problems=("spec.podCIDRs: 'x' is no prefix",)), (), "InvalidField", 2),
    ],
)
def test_a_prefix_that_is_in_doubt_is_reported_and_not_advertised(
    own: Node, others: tuple[Node, ...], reason: str, advertised: int
) -> None:
    found = facts(cluster(), own, others)
    assert reasons(found) == {reason}
    assert len(agent_intent(found).config.agent.advertise) == advertised


def test_a_mesh_beyond_its_size_is_refused() -> None:
    many = [
        node(
            1,
            name=f"m{n}",
            uid=f"m{n}",
            addresses=(Address(bytes((10, 0, n // 250, n % 250))),),
            pod_cidrs=(),
        )
        for n in range(MOST_NODES_IN_MESH)
    ]
    found = facts(cluster(), others=many)
    assert reasons(found) == {"MeshTooLarge"}
    assert agent_intent(found).config.peers == ()


def test_without_its_secret_no_session_starts_and_with_it_every_one_has_the_password() -> None:
    what = cluster(password_secret=SECRET)
    missing = facts(what, others=(node(2),))
    assert reasons(missing) == {"NoPassword"}
    assert [(peer.shutdown, peer.password) for peer in agent_intent(missing).config.peers] == [(True, "")]
    there = facts(what, others=(node(2),), passwords=lambda _: "s3cret")
    assert [(peer.shutdown, peer.password) for peer in agent_intent(there).config.peers] == [
        (False, "s3cret")
    ]


def test_in_a_fabric_each_node_has_its_own_as_number_where_the_cluster_says_so() -> None:
    what = cluster(Topology.FABRIC, node_asns=AsnRange(4200000000, 4200000999))
    assert agent_intent(facts(what, node(7))).config.speaker.asn == 4200000007
    assert agent_intent(facts(cluster(Topology.FABRIC), node(7))).config.speaker.asn == 65000


TOR = BgpPeer("tor", "p", 1, 64601, address=parse_address("192.0.2.254"))


@pytest.mark.parametrize(
    ("peer", "names"),
    [
        (TOR, ["192.0.2.254"]),
        (replace(TOR, nodes=LabelSelector((("rack", "a"),))), ["192.0.2.254"]),
        (replace(TOR, nodes=LabelSelector((("rack", "b"),))), []),
        (replace(TOR, speakers=Speakers.REFLECTORS), []),
        (replace(TOR, address=None, gateway=Family.IPV6), ["fe80::1%eth0"]),
        (replace(TOR, address=None, gateway=Family.IPV4), []),
    ],
)
def test_a_bgp_peer_is_for_the_nodes_that_it_selects(peer: BgpPeer, names: list[str]) -> None:
    gateways = {Family.IPV6: Gateway(parse_address("fe80::1"), "eth0")}
    found = facts(cluster(Topology.FABRIC), node(1, labels={"rack": "a"}), peers=(peer,), gateways=gateways)
    assert [made.name for made in agent_intent(found).config.peers] == names


def test_a_peer_whose_policy_is_missing_is_kept_down_and_named() -> None:
    peer = replace(TOR, policies=Policies(imports=("strict",)))
    found = facts(cluster(Topology.FABRIC), peers=(peer,))
    assert reasons(found) == {"UnknownPolicy"}
    assert agent_intent(found).config.peers[0].shutdown
    known = facts(cluster(Topology.FABRIC), peers=(peer,), policies={"strict": RoutePolicy("strict")})
    made = agent_intent(known).config.peers[0]
    assert (made.shutdown, made.import_policies) == (False, ("strict",))


def test_of_two_bgp_peers_with_one_address_the_first_counts() -> None:
    second = replace(TOR, name="b", asn=1, description="the other rack")
    intent = agent_intent(facts(cluster(Topology.FABRIC), peers=(second, replace(TOR, name="a"))))
    assert [peer.asn for peer in intent.config.peers] == [64601]
    (problem,) = intent.problems
    assert (problem.kind, problem.name, problem.reason) == ("BGPPeer", "b", "Duplicate")
    assert problem.text.endswith("is already the neighbour of BGPPeer a")


def test_a_node_that_is_drained_announces_as_its_plan_says() -> None:
    going = facts(cluster(), drain=DrainPlan(True, False, True, "cordoned"))
    assert agent_intent(going).config.agent.drain
    assert len(agent_intent(going).config.agent.advertise) == 2
    gone = facts(cluster(), drain=DrainPlan(True, False, False, "deleted"))
    assert agent_intent(gone).config.agent.advertise == ()


def test_a_changed_address_needs_no_restart_and_another_as_number_does() -> None:
    before = agent_intent(facts(cluster(), others=(node(2),))).config
    moved = node(1, addresses=(parse_address("192.0.2.1"), parse_address("2001:db8::99")))
    after = agent_intent(facts(cluster(), moved, (node(2),))).config
    assert after != before
    plan_reload(before, after)
    with pytest.raises(Exception, match=r"speaker\.asn"):
        plan_reload(before, agent_intent(facts(cluster(asn=65001), others=(node(2),))).config)


# -- reflectors ---------------------------------------------------------------------------------------


def test_a_reflector_takes_clients_only_from_addresses_of_nodes() -> None:
    config = reflector_intent(facts(cluster(Topology.REFLECTOR), others=(node(2),))).config
    assert config.reflector is not None
    members = {address for clients in config.reflector.clients for address in clients.members or ()}
    assert members == {*node(1).addresses, *node(2).addresses}
    assert {clients.export_policies for clients in config.reflector.clients} == {(PODS_ONLY,)}
    assert config.speaker.router_id == config.reflector.cluster_id
    assert config.speaker.router_id != int.from_bytes(parse_address("192.0.2.1"), "big")


def test_a_reflector_takes_of_its_clients_what_the_cluster_has_and_no_more() -> None:
    pool = BgpAddressPool(
        "p", "u", 1, (AddressRange(parse_address("203.0.113.0"), parse_address("203.0.113.63")),)
    )
    services = (Prefix.parse("10.96.0.0/12"),)
    what = facts(cluster(Topology.REFLECTOR, service_cidrs=services), pools=[pool])
    config = reflector_intent(what).config
    assert config.reflector is not None
    for clients in config.reflector.clients:
        assert clients.max_prefixes is not None
        assert clients.allow == config.imports.allow
        assert {each.prefix for each in clients.allow} == {*PODS, *services, Prefix.parse("203.0.113.0/26")}


def test_who_waits_for_a_router_where_nobody_listens_is_told() -> None:
    peer = BgpPeer("r", "u", 1, 65010, parse_address("192.0.2.254"), passive=True)
    assert reasons(facts(cluster(Topology.REFLECTOR), peers=[peer])) == {"NotListening"}
    assert reasons(facts(cluster(), peers=[peer])) == set()


def test_a_reflector_without_its_secret_admits_nobody() -> None:
    intent = reflector_intent(facts(cluster(Topology.REFLECTOR, password_secret=SECRET)))
    assert intent.config.reflector is not None
    assert [clients.members for clients in intent.config.reflector.clients] == [frozenset(), frozenset()]
    assert {problem.reason for problem in intent.problems} == {"NoPassword"}


def test_a_reflector_tells_the_fabric_pods_and_services_and_hears_nothing_unless_told_to() -> None:
    pool = BgpAddressPool(
        "p", "u", 1, (AddressRange(parse_address("203.0.113.0"), parse_address("203.0.113.63")),)
    )
    what = cluster(Topology.REFLECTOR, service_cidrs=(Prefix.parse("10.96.0.0/16"),))
    peer = replace(TOR, speakers=Speakers.REFLECTORS)
    config = reflector_intent(facts(what, peers=(peer,), pools=(pool,))).config
    assert [str(entry.prefix) for entry in config.imports.allow] == [
        *map(str, PODS),
        "10.96.0.0/16",
        "203.0.113.0/26",
    ]
    assert [made.import_policies for made in config.peers] == [(NOTHING.name,)]


def test_ready_nodes_are_waited_for_at_the_address_that_their_session_comes_from() -> None:
    found = facts(cluster(Topology.REFLECTOR), others=(node(2, ready=False), node(3)))
    assert client_addresses(found) == {parse_address("192.0.2.1"), parse_address("192.0.2.3")}
