"""Two reflectors die and come back, agents die meanwhile, nodes come: nobody loses a packet or a route.

The first lab has the default timers, and is watched by pings every 10 ms in both directions and by
`ip monitor route` on every node.  The second has short ones, and shows when held routes do go, and when a
restarted reflector says End-of-RIB.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest

from api.client import Client, UnreachableError
from bgpd.config import FibConfig
from bgpd.lab.converge import wait_converged
from bgpd.lab.kernel_routes import learned_routes
from bgpd.lab.plan import Fabric
from bgpd.lab.reflector_story import agent_peers, sessions_up, tables_complete
from bgpd.lab.topology import RunningReflector, Topology
from bgpd.lab.witness import Seen, Witness
from routes.path import PeerName
from routes.peer import PeerStatus, SessionState
from routes.view import DaemonStatus, Explanation, FibView
from tests.e2e.conftest import CONVERGED_WITHIN, MakeLab
from tests.e2e.network import Asked, eventually, ours
from tests.e2e.podbgp import podbgp

NODE1, NODE2 = "10.244.1.0/24", "10.244.2.0/24"
FIRST, SECOND = PeerName("192.0.2.1"), PeerName("192.0.2.2")
DEFERRAL = 120.0
"""Default `reflector.deferral_time`."""
RESTART_TIME, AGENT_DEFERRAL, REFLECTOR_DEFERRAL = 4, 8, 10
"""Of the second lab, seconds."""
MOMENT = 0.5


@dataclass
class Story:
    """What happened in the first lab."""

    topology: Topology
    kernel: dict[str, list[str]] = field(default_factory=dict)
    paths: Explanation | None = None
    entries: list[FibView] = field(default_factory=list)
    one_dead: Explanation | None = None
    all_dead: Explanation | None = None
    peers: dict[PeerName, PeerStatus] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    kernel_alone: dict[str, list[str]] = field(default_factory=dict)
    restarted: DaemonStatus | None = None
    adopted: FibView | None = None
    kernel_adopted: list[str] = field(default_factory=list)
    back: list[DaemonStatus] = field(default_factory=list)
    flaps: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    seen: Seen | None = None


def explained(topology: Topology, node: str, nlri: str) -> Explanation:
    with Client(f"unix://{topology.agents[node].socket}") as client:
        return client.explain(nlri)


def reflector_status(reflector: RunningReflector) -> DaemonStatus:
    with Client(f"unix://{reflector.socket}") as client:
        return client.status()


def kernels(topology: Topology) -> dict[str, list[str]]:
    return {node.name: ours(node.namespace) for node in topology.plan.nodes}


def remembered(reflector: RunningReflector) -> set[str]:
    memory = reflector.config.with_suffix(".json")
    return set(json.loads(memory.read_text())["clients"]) if memory.exists() else set()


def wait_remembered(topology: Topology) -> None:
    clients = {str(node.addresses[0]) for node in topology.plan.nodes}
    eventually(lambda: all(remembered(each) == clients for each in topology.reflectors.values()))


@pytest.fixture(scope="module")
def story(make_shared_lab: MakeLab) -> Story:
    topology = make_shared_lab(Fabric.REFLECTOR, nodes=3)
    told = Story(topology)
    eventually(lambda: tables_complete(topology))
    wait_remembered(topology)
    told.paths, told.entries = explained(topology, "node1", NODE2), asked(topology, "node1").entries(NODE2)
    told.kernel = kernels(topology)
    with Witness(topology) as witness:
        lose_both(told)
        restart_an_agent(told)
        for reflector in topology.reflectors.values():
            reflector.process.start()
        eventually(lambda: tables_complete(topology))
        told.back = [reflector_status(each) for each in topology.reflectors.values()]
        join(told)
        time.sleep(MOMENT)
        told.seen = witness.stop()
    return told


def asked(topology: Topology, node: str) -> Asked:
    return Asked(topology.agents[node])


def lose_both(story: Story) -> None:
    topology = story.topology
    first, second = topology.reflectors.values()
    first.process.kill()
    eventually(lambda: sessions_up(topology) == 3)
    time.sleep(MOMENT)
    story.one_dead = explained(topology, "node1", NODE2)
    second.process.kill()
    eventually(lambda: sessions_up(topology) == 0)
    time.sleep(MOMENT)
    story.all_dead = explained(topology, "node1", NODE2)
    story.peers = asked(topology, "node1").peers()
    story.shown = {word: podbgp(asked(topology, "node1"), word) for word in ("routes", "peers", "status")}
    story.kernel_alone = kernels(topology)


def restart_an_agent(story: Story) -> None:
    """`kill -9` of node 3's agent while there is no reflector."""
    agent, node = story.topology.agents["node3"], story.topology.plan.nodes[2]
    agent.process.kill()
    agent.process.start()
    eventually(Asked(agent).answers)
    time.sleep(MOMENT)
    story.restarted = Asked(agent).status()
    story.adopted = Asked(agent).entry(NODE1)
    story.kernel_adopted = ours(node.namespace)


def join(story: Story) -> None:
    topology = story.topology
    files = [agent.config for agent in topology.agents.values()]
    files += [reflector.config for reflector in topology.reflectors.values()]
    before = {str(file): file.read_text() for file in files}
    story.flaps = {node.name: flaps(topology, node.name) for node in topology.plan.nodes}
    topology.join()
    wait_converged(topology, CONVERGED_WITHIN)
    story.files = {str(file): file.read_text() for file in files if file.read_text() != before[str(file)]}
    story.flaps = {name: flaps(topology, name) - count for name, count in story.flaps.items()}


def flaps(topology: Topology, name: str) -> int:
    node = next(node for node in topology.plan.nodes if node.name == name)
    return sum(peer.counters.flaps for peer in agent_peers(topology, node))


def test_no_ping_is_lost(story: Story) -> None:
    assert story.seen
    assert story.seen.lost == {}
    assert story.seen.fewest > 300


def test_no_route_is_deleted_on_any_node(story: Story) -> None:
    assert story.seen
    assert story.seen.deleted == []


def test_what_is_in_the_kernels_is_not_even_replaced(story: Story) -> None:
    """All that the witness saw of the first three nodes are the routes of the fourth."""
    assert story.seen
    texts = [event.text for events in story.seen.changes.values() for event in events]
    assert [text for text in texts if "10.244.4.0/24" not in text and "fd00:10:244:4::/64" not in text] == []


def test_the_best_path_of_two_reflectors_is_installed_once(story: Story) -> None:
    assert story.paths
    assert {path.path.source.peer for path in story.paths.paths} == {FIRST, SECOND}
    assert [path.best for path in story.paths.paths].count(True) == 1
    (entry,) = story.entries
    assert (entry.installed, len(entry.next_hops)) == (True, 1)
    for node in story.topology.plan.nodes:
        learned = learned_routes(node.namespace)
        assert all(len(route.next_hops) == 1 for route in learned.values())


def test_a_node_with_a_reflector_has_two_processes_with_two_router_ids(story: Story) -> None:
    topology = story.topology
    (reflector,) = (each for each in topology.reflectors.values() if each.reflector.node)
    agent = topology.agents[reflector.reflector.node]
    assert reflector.process.namespace == agent.process.namespace
    assert reflector.process.pid != agent.process.pid
    assert reflector_status(reflector).router_id != Asked(agent).status().router_id
    assert "listen =" not in agent.config.read_text().split("[agent]")[0]


def test_with_one_reflector_dead_the_other_one_serves(story: Story) -> None:
    assert story.one_dead
    stale = {path.path.source.peer: path.stale for path in story.one_dead.paths}
    assert stale == {FIRST: True, SECOND: False}


def test_with_both_dead_the_agents_hold_what_they_know_and_say_so(story: Story) -> None:
    assert story.all_dead
    assert {path.path.source.peer: path.stale for path in story.all_dead.paths} == {FIRST: True, SECOND: True}
    assert story.all_dead.failed is None
    assert story.kernel_alone == story.kernel
    for peer in story.peers.values():
        assert peer.state is not SessionState.ESTABLISHED
        assert peer.last_error
        assert sum(counts.stale for _, counts in peer.families) == 4
    assert story.shown["routes"].count(">s ") == 4
    assert "4 stale" in story.shown["peers"]
    assert "0 of 2 established" in story.shown["status"]


def test_an_agent_that_restarts_meanwhile_holds_what_it_finds_until_its_deferral_timer(story: Story) -> None:
    assert story.restarted
    assert story.adopted
    status = story.restarted
    assert not status.convergence.complete
    assert set(status.convergence.waiting_for) == {FIRST, SECOND}
    deferral = FibConfig().deferral_time
    assert status.convergence.held_until == pytest.approx(status.started + deferral, abs=1.0)
    assert (story.adopted.installed, story.adopted.held) == (True, True)
    assert story.adopted.reason == "kept until the peers have sent their tables"
    assert story.kernel_adopted == story.kernel["node3"]


def test_two_reflectors_that_restart_do_not_wait_for_each_other(story: Story) -> None:
    for status in story.back:
        assert status.convergence.complete
        assert status.convergence.at - status.started < DEFERRAL / 4


def test_a_node_joins_without_any_change_of_the_others(story: Story) -> None:
    assert story.files == {}
    assert set(story.flaps.values()) == {0}
    assert len(story.topology.plan.nodes) == 4


# -- what the timers end --


@pytest.fixture(scope="module")
def impatient(make_shared_lab: MakeLab) -> Topology:
    """A lab of two nodes with short timers, and all sessions up."""
    topology = make_shared_lab(Fabric.REFLECTOR, agents=False)
    topology.stop()
    for reflector in topology.reflectors.values():
        text = reflector.config.read_text()
        text = text.replace("[reflector]\n", f"[reflector]\ndeferral_time = {REFLECTOR_DEFERRAL}\n")
        reflector.config.write_text(
            text.replace("[speaker]\n", f"[speaker]\nrestart_time = {RESTART_TIME}\n")
        )
    for agent in topology.agents.values():
        text = agent.config.read_text()
        agent.config.write_text(text.replace("[fib]\n", f"[fib]\ndeferral_time = {AGENT_DEFERRAL}\n"))
    topology.start_routers()
    topology.start_agents()
    return topology


def settled(topology: Topology) -> None:
    processes = [reflector.process for reflector in topology.reflectors.values()]
    processes += [agent.process for agent in topology.agents.values()]
    for process in processes:
        if not process.running:
            process.start()
    wait_converged(topology, CONVERGED_WITHIN)
    eventually(lambda: complete(topology))
    wait_remembered(topology)


def complete(topology: Topology) -> bool:
    """An agent that was just started may not answer yet."""
    try:
        return tables_complete(topology)
    except UnreachableError:
        return False


def has_route(topology: Topology, number: int, nlri: str) -> bool:
    return ip_network(nlri) in learned_routes(topology.plan.nodes[number - 1].namespace)


def test_held_routes_go_when_the_stated_timers_end_and_not_before(impatient: Topology) -> None:
    """Node 1 keeps paths for the reflectors' restart time; node 2's agent restarts: its deferral timer."""
    settled(impatient)
    agent = impatient.agents["node2"]
    for reflector in impatient.reflectors.values():
        reflector.process.kill()
    killed = time.monotonic()
    agent.process.kill()
    agent.process.start()
    restarted = time.monotonic()
    eventually(lambda: not has_route(impatient, 1, NODE2), "node 1 drops what the reflectors said")
    assert RESTART_TIME - 0.2 < time.monotonic() - killed < RESTART_TIME + 2
    assert has_route(impatient, 2, NODE1)
    eventually(lambda: not has_route(impatient, 2, NODE1), "node 2 drops what it found")
    assert AGENT_DEFERRAL - 0.2 < time.monotonic() - restarted < AGENT_DEFERRAL + 3
    settled(impatient)
    assert has_route(impatient, 1, NODE2)


def waited_for(reflector: RunningReflector) -> set[PeerName] | None:
    """Whom a reflector waits for; None: for nobody any more."""
    try:
        convergence = reflector_status(reflector).convergence
    except UnreachableError:
        return set()
    return None if convergence.complete else set(convergence.waiting_for)


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_restarted_reflector_says_end_of_rib_when_its_clients_are_back_or_its_timer_ends(
    impatient: Topology, comes_back: bool
) -> None:
    settled(impatient)
    reflector, missing = impatient.reflectors["reflector1"], impatient.agents["node2"]
    node = impatient.plan.nodes[0]
    missing.process.kill()
    reflector.process.kill()
    reflector.process.start()
    eventually(lambda: waited_for(reflector) == {PeerName("192.0.2.12")}, lambda: str(waited_for(reflector)))
    if comes_back:
        missing.process.start()

    def end_of_rib_here() -> bool:
        (peer,) = (peer for peer in agent_peers(impatient, node) if peer.name == FIRST)
        early = peer.end_of_rib != () and waited_for(reflector) is not None
        assert not early, "End-of-RIB before the clients are back"
        return len(peer.end_of_rib) == 2

    eventually(end_of_rib_here, reflector.process.tail)
    assert waited_for(reflector) is None
    ended = reflector_status(reflector).convergence.at - reflector_status(reflector).started
    if comes_back:
        assert ended < REFLECTOR_DEFERRAL - 0.2
        assert has_route(impatient, 1, NODE2)
    else:
        assert ended == pytest.approx(REFLECTOR_DEFERRAL, abs=1.0)
