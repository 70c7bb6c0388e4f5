"""Two routers, and one of them is gone: the other carries everything, within a second."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from bgpd.lab import netns
from bgpd.lab.kernel_routes import learned_routes
from bgpd.lab.plan import Fabric, Uplink
from bgpd.lab.topology import Topology
from bgpd.lab.witness import Witness
from tests.e2e.conftest import MakeLab
from tests.e2e.network import PATIENCE, SECOND, Asked, eventually

BOTH, SECOND_ONLY = {"tor1", "tor2"}, {"tor2"}
SLACK = 0.03
"""A probe is sent up to so long before the moment that its line in ping's output gives."""


@pytest.fixture(scope="module", params=[Fabric.FRR, Fabric.BIRD])
def network(make_shared_lab: MakeLab, request: pytest.FixtureRequest) -> Topology:
    """Sixteen flows between the pods, so that each router carries some."""
    return make_shared_lab(request.param, pods_per_node=2)


@pytest.fixture(autouse=True)
def whole(network: Topology) -> Iterator[None]:
    """Every story begins and ends with two next hops in each entry."""
    wait_for(network, BOTH, PATIENCE)
    yield
    wait_for(network, BOTH, PATIENCE)


def hops(network: Topology, node: str) -> dict[str, set[str]]:
    """The devices that each learned entry of a node leads over."""
    namespace = network.agents[node].node.namespace
    return {
        str(prefix): {hop.device for hop in route.next_hops}
        for prefix, route in learned_routes(namespace).items()
    }


def wait_for(network: Topology, devices: set[str], within: float, nodes: str = "node1 node2") -> float:
    """Until every entry leads over exactly these devices, and no entry is missing."""

    def good() -> bool:
        tables = [hops(network, node) for node in nodes.split()]
        return all(len(table) == 4 and all(hop == devices for hop in table.values()) for table in tables)

    return eventually(good, lambda: str({node: hops(network, node) for node in network.agents}), within)


def carried(network: Topology) -> dict[str, int]:
    """Packets that the nodes have sent over each router."""
    sent = dict.fromkeys(BOTH, 0)
    for node in network.plan.nodes:
        output = netns.run_in(node.namespace, [netns.ip_tool(), "-json", "-stats", "link", "show"])
        for link in json.loads(output):
            if link["ifname"] in sent:
                sent[link["ifname"]] += link["stats64"]["tx"]["packets"]
    return sent


def test_only_packets_of_the_first_second_are_lost_with_a_router(network: Topology) -> None:
    router = network.routers["tor1"]
    with Witness(network) as witness:
        before = carried(network)
        time.sleep(0.3)
        assert all(carried(network)[name] - before[name] > 50 for name in BOTH)
        killed_at = time.time()
        router.kill_bgp()
        wait_for(network, SECOND_ONLY, SECOND)
        time.sleep(SECOND)
        seen = witness.stop()
    late = {
        str(ping): lost
        for ping, losses in seen.lost.items()
        if (lost := [round(each.at - killed_at, 3) for each in losses if not _in_second(each.at, killed_at)])
    }
    assert late == {}
    router.start_bgp()


def _in_second(at: float, since: float) -> bool:
    return since - SLACK <= at <= since + SECOND


def test_the_peers_that_are_left_keep_their_sessions(network: Topology) -> None:
    agents = {name: Asked(agent) for name, agent in network.agents.items()}
    left = {name: network.agents[name].node.sessions[1].address for name in agents}
    before = {name: sessions(asked) for name, asked in agents.items()}
    network.routers["tor1"].kill_bgp()
    wait_for(network, SECOND_ONLY, SECOND)
    network.routers["tor1"].start_bgp()
    wait_for(network, BOTH, PATIENCE)
    after = {name: sessions(asked) for name, asked in agents.items()}
    for name, address in left.items():
        assert after[name].pop(str(address)) == pytest.approx(before[name].pop(str(address)), abs=0.1)
        (peer,) = after[name]
        assert after[name][peer] > before[name][peer] + 0.1


def sessions(asked: Asked) -> dict[str, float]:
    """For each peer, since when its session stands."""
    return {str(name): peer.since for name, peer in asked.peers().items()}


def test_a_next_hop_that_is_removed_by_hand_is_back_within_a_second(network: Topology) -> None:
    node = network.plan.nodes[0]
    routes = learned_routes(node.namespace)
    v4, v6 = (next(routes[prefix] for prefix in routes if prefix.version == version) for version in (4, 6))
    left = next(hop for hop in v4.next_hops if hop.device == "tor2")
    gone = next(hop for hop in v6.next_hops if hop.device == "tor1")
    ours = "proto 179 metric 20"
    netns.batch(
        node.namespace,
        [
            f"route replace {v4.destination} via {left.gateway} dev tor2 src {v4.preferred_source} {ours}",
            f"route del {v6.destination} via {gone.gateway} dev tor1 {ours}",
        ],
    )
    assert {str(prefix) for prefix, devices in hops(network, "node1").items() if devices == SECOND_ONLY} <= {
        str(v4.destination),
        str(v6.destination),
    }
    wait_for(network, BOTH, SECOND, "node1")


def set_far_end(uplink: Uplink, state: str) -> None:
    lines = [f"link set {uplink.far_device} {state}"]
    if state == "up":  # the kernel took the IPv6 addresses of the device away with it
        lines += [
            netns.add_address(uplink.far_device, str(address))
            for address in uplink.far_addresses
            if address.version == 6
        ]
    netns.batch(uplink.far_namespace, lines)


def test_a_lost_carrier_takes_one_next_hop_of_its_node_alone(network: Topology) -> None:
    """Nothing arrives over that link any more either, until the router's own word reaches the others."""
    uplink = network.plan.nodes[0].uplinks[0]
    set_far_end(uplink, "down")
    try:
        wait_for(network, SECOND_ONLY, SECOND, "node1")
        lost = "its next hop 100.64.1.2 can't be resolved: link tor1 has no carrier"
        reasons = Asked(network.agents["node1"]).reasons("10.244.2.0/24")
        assert reasons == {"100.64.1.2": lost, "100.64.2.2": ""}
    finally:
        set_far_end(uplink, "up")
