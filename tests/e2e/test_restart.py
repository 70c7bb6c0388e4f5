"""An agent is killed and started again, and nobody notices: no packet is lost, no route deleted.

The three fabrics live through it side by side, each with the default `fib.hold_time`.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from bgpd.config import FibConfig
from bgpd.lab import netns
from bgpd.lab.converge import wait_converged
from bgpd.lab.plan import Fabric
from bgpd.lab.topology import Topology
from bgpd.lab.witness import Seen, Witness
from tests.e2e.conftest import CONVERGED_WITHIN, MakeLab
from tests.e2e.network import Asked, eventually, ours

HOLD = FibConfig().hold_time
LEFT_OVER = "10.244.99.0/24"
"""An entry of ours that no peer announces any more."""


@dataclass
class Story:
    """What happened in one fabric."""

    topology: Topology
    before: list[str] = field(default_factory=list)
    end_of_rib: float = 0.0
    held: int = 0
    held_until: float = 0.0
    left_over_gone: float = 0.0
    watched_until: float = 0.0
    after: list[str] = field(default_factory=list)
    killed: Seen | None = None
    terminated: Seen | None = None


def restarting(topology: Topology) -> Asked:
    return Asked(topology.agents["node1"])


@pytest.fixture(scope="module")
def stories(make_shared_lab: MakeLab) -> dict[Fabric, Story]:
    told = {fabric: Story(make_shared_lab(fabric, agents=False)) for fabric in Fabric}
    for story in told.values():
        story.topology.start_agents()
    for story in told.values():
        wait_converged(story.topology, CONVERGED_WITHIN)
    kill_nine(list(told.values()))
    sigterm(list(told.values()))
    return told


def kill_nine(stories: list[Story]) -> None:
    with ExitStack() as stack:
        witnesses = [stack.enter_context(Witness(story.topology)) for story in stories]
        for story in stories:
            agent, node = story.topology.agents["node1"], story.topology.plan.nodes[0]
            story.before = ours(node.namespace)
            gateway = node.uplinks[0].far_addresses[0].ip if node.uplinks[0].far_addresses else "192.0.2.12"
            agent.process.kill()
            netns.batch(node.namespace, [f"route add {LEFT_OVER} via {gateway} proto 179 metric 20"])
        for story in stories:
            story.topology.agents["node1"].process.start()
        for story in stories:
            story.end_of_rib = restarting(story.topology).wait_converged()
            status = restarting(story.topology).status()
            story.held = sum(count.held for count in status.fib)
            story.held_until = status.convergence.held_until
        for story in stories:
            story.left_over_gone = wait_gone(story.topology.plan.nodes[0].namespace, LEFT_OVER)
            story.after = ours(story.topology.plan.nodes[0].namespace)
        time.sleep(max(0.0, max(story.end_of_rib for story in stories) + HOLD + 0.5 - time.time()))
        for story, witness in zip(stories, witnesses, strict=True):
            story.watched_until = time.time()
            story.killed = witness.stop()


def wait_gone(namespace: str, prefix: str) -> float:
    """When a kernel had no entry of ours for the prefix any more."""
    eventually(lambda: not any(prefix in line for line in ours(namespace)))
    return time.time()


def sigterm(stories: list[Story]) -> None:
    with ExitStack() as stack:
        witnesses = [stack.enter_context(Witness(story.topology)) for story in stories]
        for story in stories:
            story.topology.agents["node1"].process.signal(signal.SIGTERM)
        for story in stories:
            process = story.topology.agents["node1"].process
            assert process.wait() == 0, process.tail()
            process.start()
        for story in stories:
            restarting(story.topology).wait_converged()
        time.sleep(0.5)
        for story, witness in zip(stories, witnesses, strict=True):
            story.terminated = witness.stop()


def seen(story: Story, which: str) -> Seen:
    found = story.killed if which == "killed" else story.terminated
    assert found is not None
    return found


@pytest.mark.parametrize("fabric", Fabric)
@pytest.mark.parametrize("way", ["killed", "terminated"])
def test_no_packet_is_lost(stories: dict[Fabric, Story], fabric: Fabric, way: str) -> None:
    witness = seen(stories[fabric], way)
    assert witness.lost == {}
    assert witness.fewest > 20


@pytest.mark.parametrize("fabric", Fabric)
def test_no_route_is_deleted_on_any_node(stories: dict[Fabric, Story], fabric: Fabric) -> None:
    story = stories[fabric]
    assert [text for text in seen(story, "killed").deleted if LEFT_OVER not in text] == []
    assert seen(story, "terminated").deleted == []


@pytest.mark.parametrize("fabric", Fabric)
def test_the_table_is_in_the_end_as_it_was(stories: dict[Fabric, Story], fabric: Fabric) -> None:
    story = stories[fabric]
    assert story.after == story.before


def test_what_is_announced_as_before_is_not_touched(stories: dict[Fabric, Story]) -> None:
    """Of two routers, one announces first, and has the traffic until the other does too; a mesh has one."""
    changes = seen(stories[Fabric.MESH], "killed").changes
    assert [
        event.text for events in changes.values() for event in events if LEFT_OVER not in event.text
    ] == []


@pytest.mark.parametrize("fabric", Fabric)
def test_what_nobody_announces_is_held_and_then_goes(stories: dict[Fabric, Story], fabric: Fabric) -> None:
    story = stories[fabric]
    assert story.held == 1
    assert story.held_until == pytest.approx(story.end_of_rib + HOLD, abs=0.1)
    assert story.end_of_rib + HOLD - 0.5 < story.left_over_gone < story.end_of_rib + HOLD + 2.0
    assert story.watched_until >= story.end_of_rib + HOLD
