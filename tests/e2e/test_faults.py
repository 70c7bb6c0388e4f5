"""Links, addresses and the kernel fail under a running agent: it follows, says why, and comes back."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from bgpd.lab import netns
from bgpd.lab.command import try_run
from bgpd.lab.converge import wait_converged
from bgpd.lab.topology import Topology
from routes.path import PeerName
from routes.peer import SessionState
from routes.prefix import Family
from tests.e2e.conftest import CONVERGED_WITHIN, MakeLab
from tests.e2e.network import SECOND, Asked, eventually, ours, shown

PEER = PeerName("192.0.2.12")
LEARNED = {4: "10.244.2.0/24", 6: "fd00:10:244:2::/64"}
NODE = {4: "192.0.2.11/24", 6: "2001:db8::11/64"}
OWN = ("10.244.1.0/24", "fd00:10:244:1::/64")
PREFERRED = "198.51.100.1"
VERSIONS = (4, 6)


@pytest.fixture(scope="module")
def network(make_shared_lab: MakeLab) -> Topology:
    """A mesh of two; node 1 prefers an IPv4 source address that another device holds."""
    topology = make_shared_lab(agents=False)
    config, node = topology.agents["node1"].config, topology.plan.nodes[0]
    config.write_text(
        config.read_text().replace("[fib]\n", f'[fib]\npreferred_source_ipv4 = "{PREFERRED}"\n')
    )
    netns.batch(node.namespace, [netns.add_address("lo", f"{PREFERRED}/32")])
    topology.start_agents()
    wait_converged(topology, CONVERGED_WITHIN)
    return topology


@pytest.fixture
def asked(network: Topology) -> Asked:
    return Asked(network.agents["node1"])


@pytest.fixture
def namespace(network: Topology, asked: Asked) -> Iterator[str]:
    """Node 1, which is at the end as it was; an agent that was not restarted has the same session."""
    namespace, process = network.plan.nodes[0].namespace, network.agents["node1"].process
    before, since, pid = sorted(shown(namespace)), asked.peers()[PEER].since, process.pid
    yield namespace
    eventually(lambda: sorted(shown(namespace)) == before, lambda: str(shown(namespace)))
    assert process.pid != pid or asked.peers()[PEER].since == pytest.approx(since, abs=0.1)


def has(namespace: str, *prefixes: str) -> bool:
    """Whether the kernel has exactly these learned entries."""
    learned = [line.split(maxsplit=1)[0] for line in ours(namespace) if "unreachable" not in line]
    return sorted(learned) == sorted(prefixes)


def within_a_second(namespace: str, *prefixes: str) -> None:
    eventually(lambda: has(namespace, *prefixes), lambda: str(ours(namespace)), SECOND)


def gives_up(asked: Asked, nlri: str, reason: str) -> None:
    eventually(lambda: reason in asked.reasons(nlri)[PEER], lambda: str(asked.reasons(nlri)), SECOND)


# -- links and addresses --


def test_a_link_goes_down_and_comes_back(asked: Asked, namespace: str) -> None:
    """The kernel drops IPv4 routes of a link in silence, and with the link its IPv6 addresses."""
    netns.batch(namespace, ["link set fabric0 down"])
    within_a_second(namespace)
    for version in VERSIONS:
        gives_up(asked, LEARNED[version], "can't be resolved: no route leads to")
    netns.batch(namespace, ["link set fabric0 up"])
    within_a_second(namespace, LEARNED[4])
    netns.batch(namespace, [netns.add_address("fabric0", NODE[6])])
    within_a_second(namespace, *LEARNED.values())
    assert asked.reasons(LEARNED[4]) == {PEER: ""}


def test_a_link_that_is_up_again_before_anybody_looked_has_its_routes(namespace: str) -> None:
    lines = ["link set fabric0 down", "link set fabric0 up", netns.add_address("fabric0", NODE[6])]
    netns.batch(namespace, lines)
    within_a_second(namespace, *LEARNED.values())


def test_a_link_loses_its_carrier_and_gets_it_back(network: Topology, asked: Asked, namespace: str) -> None:
    (uplink,) = network.plan.nodes[0].uplinks
    netns.batch(uplink.far_namespace, [f"link set {uplink.far_device} down"])
    within_a_second(namespace)
    for version in VERSIONS:
        gives_up(asked, LEARNED[version], "can't be resolved: link fabric0 has no carrier")
    netns.batch(uplink.far_namespace, [f"link set {uplink.far_device} up"])
    within_a_second(namespace, *LEARNED.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_an_address_goes_and_comes_back(asked: Asked, namespace: str, version: int) -> None:
    netns.batch(namespace, [f"address del {NODE[version]} dev fabric0"])
    within_a_second(namespace, LEARNED[10 - version])
    gives_up(asked, LEARNED[version], "can't be resolved: no route leads to")
    netns.batch(namespace, [netns.add_address("fabric0", NODE[version])])
    within_a_second(namespace, *LEARNED.values())


def test_without_an_address_of_a_family_the_peer_is_told_so_and_the_operator_why(
    network: Topology, asked: Asked, namespace: str
) -> None:
    other = network.plan.nodes[1].namespace
    own = str(network.plan.nodes[0].pod_networks[1])
    assert has(other, "10.244.1.0/24", own)
    netns.batch(namespace, [f"address del {NODE[6]} dev fabric0"])
    within_a_second(other, "10.244.1.0/24")
    ((family, reason),) = asked.peers()[PEER].not_announced
    assert (family, reason) == (
        Family.IPV6,
        "the link of 192.0.2.11 has no ipv6 address: give the link one, or set [agent] next_hop_ipv6",
    )
    netns.batch(namespace, [netns.add_address("fabric0", NODE[6])])
    within_a_second(other, "10.244.1.0/24", own)
    assert asked.peers()[PEER].not_announced == ()


def test_what_the_kernel_refuses_is_told_with_its_reason_and_tried_again(
    asked: Asked, namespace: str
) -> None:
    """Entries with a preferred source go in silence with that address, and can't be made without it."""
    netns.batch(namespace, [f"address del {PREFERRED}/32 dev lo"])
    within_a_second(namespace, LEARNED[6])
    eventually(lambda: "Invalid prefsrc address" in asked.entry(LEARNED[4]).reason, within=SECOND)
    assert not asked.entry(LEARNED[4]).installed
    eventually(lambda: bool(asked.log("kernel refused entries")), within=SECOND)
    netns.batch(namespace, [netns.add_address("lo", f"{PREFERRED}/32")])
    within_a_second(namespace, *LEARNED.values())
    assert asked.entry(LEARNED[4]).installed


def test_notifications_that_were_lost_are_made_up_for(
    network: Topology, asked: Asked, namespace: str
) -> None:
    """The agent sleeps while others change more than its socket can hold; ours is among it."""
    process = network.agents["node1"].process
    many = [f"{a}.{b}.{c}.0/24" for a in (41, 42) for b in range(150) for c in range(150)]
    before = ours(namespace)
    process.signal(signal.SIGSTOP)
    try:
        netns.batch(namespace, [f"route add blackhole {prefix} proto 99" for prefix in many])
        netns.batch(namespace, [f"route del {LEARNED[4]} proto 179", f"route del {LEARNED[6]} proto 179"])
        netns.run_in(namespace, [netns.ip_tool(), "route", "flush", "proto", "99"])
    finally:
        process.signal(signal.SIGCONT)
    eventually(lambda: ours(namespace) == before, lambda: str(ours(namespace)), 2 * SECOND)
    assert asked.log("kernel entries may have changed unseen")
    assert asked.peers()[PEER].state is SessionState.ESTABLISHED


# -- what must never happen to a packet --


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.244.2.77", "From 192.0.2.12 icmp_seq=1 Destination Host Unreachable"),
        ("10.244.1.77", "From 10.244.1.1 icmp_seq=1 Destination Host Unreachable"),
        ("fd00:10:244:2::77", "From 2001:db8::12 icmp_seq=1 Destination unreachable: No route"),
        ("fd00:10:244:1::77", "From fd00:10:244:1::1 icmp_seq=1 Destination unreachable: No route"),
    ],
)
def test_a_pod_that_does_not_exist_is_unreachable(network: Topology, address: str, said: str) -> None:
    """Its node says so at once; otherwise the packet would go to and fro until its TTL ends."""
    pod = network.plan.pods[0]
    answer = try_run(netns.in_namespace(pod.namespace, ["ping", "-n", "-c", "1", "-W", "5", address]))
    assert said in answer
    assert "exceeded" not in answer


ROUTED = {"10.244.1.77": "10.244.1.254/24", "fd00:10:244:1::77": "fd00:10:244:1::fe/64"}


def goes_to(namespace: str, address: str) -> str:
    return try_run([netns.ip_tool(), "-n", namespace, "route", "get", address])


@pytest.mark.parametrize("agent_first", [True, False])
def test_a_connected_route_wins_whichever_came_first(
    network: Topology, asked: Asked, namespace: str, agent_first: bool
) -> None:
    process = network.agents["node1"].process
    if not agent_first:
        process.kill()
        netns.batch(namespace, [f"route del unreachable {prefix}" for prefix in OWN])
    bridge = ["link add cni0 type bridge", "link set cni0 up"]
    netns.batch(namespace, bridge + [netns.add_address("cni0", address) for address in ROUTED.values()])
    if not agent_first:
        process.start()
        asked.wait_converged()
        eventually(lambda: len(ours(namespace)) == 4)
    assert [a for a in ROUTED if "dev cni0" not in goes_to(namespace, a)] == []
    netns.batch(namespace, ["link del cni0"])
    assert [a for a in ROUTED if "No route to host" not in goes_to(namespace, a)] == []
    assert len(ours(namespace)) == 4
