"""BGPNodeState: what is a change, when it is written, and what 5,000 nodes cost an API server."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bgpd.kube import node_state as state
from bgpd.kube.client import KubeClient
from bgpd.kube.conditions import Say, merged
from bgpd.kube.custom import decode_node_state
from bgpd.kube.custom_state import Drift, RefusedPath, RouteCounts, SessionState
from bgpd.kube.node_state import NodeFacts, StateSchedule, differ, object_body, status_body
from bgpd.kube.node_state_writer import NodeStateWriter
from bgpd.lab.stand_in_api_server import StandInApiServer
from routes.prefix import Family, Prefix, parse_address

WHEN = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
UP = SessionState("192.0.2.1", 65000, "Established", WHEN, (Family.IPV4,), 100, 1)
FACTS = NodeFacts(
    router_id=0xC0000207,
    asn=65000,
    version="0.1.0",
    addresses=(parse_address("192.0.2.7"),),
    pod_cidrs=(Prefix.parse("10.244.1.0/24"),),
    sessions=(UP,),
    routes=RouteCounts(1000, 990, 10, 985, 5),
    refusals=(RefusedPath("192.0.2.1", "martian", Prefix.parse("127.0.0.0/8"), "no"),),
    drift=Drift(1, 0),
    conditions=(Say("Ready", True, "Converged", "all peers are in"),),
)
DOWN = replace(FACTS, sessions=(replace(UP, state="Active", reason="hold timer expired"),))


def test_the_body_is_what_the_schema_reads_back() -> None:
    conditions = merged((), FACTS.conditions, WHEN, 0)
    body = {**object_body("n1", "u"), "status": status_body(FACTS, conditions)}
    back = decode_node_state(json.dumps(body).encode())
    assert (back.router_id, back.asn, back.addresses, back.pod_cidrs) == (
        FACTS.router_id, FACTS.asn, FACTS.addresses, FACTS.pod_cidrs,
    )  # fmt: skip
    assert (back.sessions, back.routes, back.refusals, back.drift) == (
        FACTS.sessions, FACTS.routes, FACTS.refusals, FACTS.drift,
    )  # fmt: skip
    assert back.conditions == conditions


def test_the_body_is_bounded_and_shows_trouble_first() -> None:
    sessions = tuple(replace(UP, peer=f"p{number:03}") for number in range(100))
    broken = replace(UP, peer="z", state="Idle", reason="x" * 5000)
    facts = replace(FACTS, sessions=(*sessions, broken), refusals=FACTS.refusals * 99, version="v" * 99)
    body = {**object_body("n1", "u"), "status": status_body(facts, ())}
    back = decode_node_state(json.dumps(body).encode())
    assert back.sessions[0].peer == "z"


@pytest.mark.parametrize(
    ("changed", "differs", "urgent"),
    [
        pytest.param(FACTS, False, False, id="nothing"),
        pytest.param(
            replace(FACTS, routes=replace(FACTS.routes, received=1049)), False, False, id="digits of a count"
        ),
        pytest.param(replace(FACTS, routes=replace(FACTS.routes, received=1060)), True, False, id="a count"),
        pytest.param(replace(FACTS, routes=replace(FACTS.routes, failed=6)), True, False, id="a small count"),
        pytest.param(replace(FACTS, drift=Drift(1, 1)), True, False, id="drift"),
        pytest.param(replace(FACTS, refusals=()), True, False, id="refusals"),
        pytest.param(replace(FACTS, sessions=(replace(UP, since=None),)), True, False, id="up again"),
        pytest.param(
            replace(FACTS, sessions=(replace(UP, received=0),)), True, True, id="a peer without paths"
        ),
        pytest.param(DOWN, True, True, id="a session"),
        pytest.param(replace(FACTS, sessions=()), True, True, id="a peer that is gone"),
        pytest.param(replace(FACTS, conditions=(Say("Ready", False, "X"),)), True, True, id="a condition"),
        pytest.param(replace(FACTS, pod_cidrs=()), True, True, id="its prefixes"),
    ],
)
def test_what_counts_as_a_change(changed: NodeFacts, differs: bool, urgent: bool) -> None:
    assert differ(FACTS, changed) is differs
    assert (FACTS.urgent != changed.urgent) is urgent


def test_a_session_that_tries_again_and_again_is_no_news() -> None:
    tries = [replace(UP, state=state, since=None, received=0) for state in ("Idle", "Connect", "OpenSent")]
    first, *others = (replace(FACTS, sessions=(each,)) for each in tries)
    assert all(first.urgent == each.urgent and not differ(first, each) for each in others)
    refused = replace(FACTS, sessions=(replace(tries[0], reason="connection refused"),))
    timed_out = replace(FACTS, sessions=(replace(tries[1], reason="timed out"),))
    assert differ(first, refused), "the first reason is one"
    assert not differ(refused, timed_out)


class Story:
    """One node's schedule, on virtual time."""

    def __init__(self, name: str = "n1", nodes: int = 3) -> None:
        self.schedule = StateSchedule(name)
        self.schedule.cluster_has(nodes)
        self.now = 1000.0
        self.writes: list[tuple[float, NodeFacts]] = []

    def offer(self, facts: NodeFacts) -> None:
        self.schedule.offer(self.now, facts)

    def until(self, end: float) -> Story:
        while self.now < end:
            step = self.schedule.next(self.now)
            if isinstance(step, NodeFacts):
                self.writes.append((self.now, step))
                self.schedule.wrote(self.now, step)
            else:
                self.now = min(end, self.now + (end if step is None else step))
        return self


def settled(name: str = "n1", nodes: int = 3) -> Story:
    story = Story(name, nodes)
    story.offer(FACTS)
    story.until(3000)
    assert [facts for _, facts in story.writes] == [FACTS]
    story.writes.clear()
    return story


def test_the_first_write_comes_within_a_second() -> None:
    story = Story()
    story.offer(FACTS)
    assert story.until(1001).writes


def test_nothing_is_written_while_nothing_changes() -> None:
    story = settled()
    for _ in range(100):
        story.offer(replace(FACTS))
        story.until(story.now + 100)
    assert story.writes == []


def test_a_lost_session_is_written_within_a_second() -> None:
    story = settled()
    story.offer(DOWN)
    assert story.until(story.now + 1).writes[0][1] is DOWN


def test_counts_are_written_in_their_turn_and_with_what_is_true_by_then() -> None:
    story = settled()
    begun = story.now
    for received in range(2000, 2400, 10):
        story.offer(replace(FACTS, routes=replace(FACTS.routes, received=received)))
        story.until(story.now + 1)
    story.until(begun + 100)
    (at, first), *more = story.writes
    assert at - begun <= state.INTERVAL
    assert first.routes.received > 2000
    assert len(more) <= 2


def test_the_last_digits_come_in_the_end() -> None:
    story = settled()
    near = replace(FACTS, routes=replace(FACTS.routes, received=1001))
    story.offer(near)
    assert not story.until(story.now + 0.1).writes
    assert story.until(story.now + state.REFRESH).writes[0][1] == near


def test_a_change_that_is_taken_back_is_not_written() -> None:
    story = settled("n1", nodes=5000)
    story.offer(DOWN)
    story.offer(FACTS)
    assert not story.until(story.now + 1000).writes


def test_a_flapping_session_is_rationed() -> None:
    story = settled()
    begun = story.now
    for turn in range(600):
        story.offer(DOWN if turn % 2 else FACTS)
        story.until(story.now + 1)
    assert len(story.writes) <= state.BURST + (story.now - begun) / state.CREDIT + 1


def test_a_failed_write_is_tried_again_later_each_time_and_not_before_it_was_told() -> None:
    schedule = StateSchedule("n1")
    schedule.offer(0, FACTS)
    assert schedule.next(1) is FACTS
    waits = []
    for _ in range(8):
        schedule.failed(100, None, 1.0)
        waits.append(schedule.next(100))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    schedule.failed(100, 30.0, 0.0)
    assert schedule.next(100) == 30.0


def per_second(stories: list[Story]) -> int:
    return max(Counter(int(at) for story in stories for at, _ in story.writes).values())


def test_five_thousand_nodes_that_lose_a_reflector_write_two_hundred_in_a_second() -> None:
    stories = [settled(f"node-{number}", nodes=5000) for number in range(5000)]
    for story in stories:
        story.offer(DOWN)
        story.until(story.now + 60)
    assert sum(len(story.writes) for story in stories) == 5000
    assert max(at for story in stories for at, _ in story.writes) - 3000 <= 26
    assert per_second(stories) <= 1.3 * state.URGENT_PER_SECOND  # hashes are not quite even


def test_a_cluster_in_which_every_count_moves_all_the_time_writes_a_hundred_in_a_second() -> None:
    stories = [settled(f"node-{number}", nodes=1000) for number in range(1000)]
    for story in stories:
        for turn in range(20):
            story.offer(replace(FACTS, routes=replace(FACTS.routes, received=2000 * (turn + 1))))
            story.until(story.now + 10)
    writes = sum(len(story.writes) for story in stories)
    assert writes / 200 <= 1000 / state.INTERVAL * 1.2
    assert per_second(stories) <= state.STEADY_PER_SECOND


# -- against the API server ----------------------------------------------------------------------------


def eventually(check: Callable[[], bool], seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with StandInApiServer() as server:
        yield server


@pytest.fixture
def writer(server: StandInApiServer, tmp_path: Path) -> Iterator[NodeStateWriter]:
    client = KubeClient.load(server.kubeconfig(tmp_path / "config"), timeout=2)
    writer = NodeStateWriter(client, "n1", "uid-1")
    writer.start()
    yield writer
    writer.stop()
    assert "node state" not in [thread.name for thread in threading.enumerate()]


def shown(server: StandInApiServer) -> dict[str, object]:
    found = server.list("BGPNodeState")
    return json.loads(json.dumps(found[0])) if found else {}


def state_of(server: StandInApiServer) -> object:
    status = shown(server).get("status")
    sessions = status.get("sessions") if isinstance(status, dict) else None
    return sessions[0]["state"] if isinstance(sessions, list) and sessions else None


def test_the_object_is_made_with_its_node_as_owner_and_follows(
    server: StandInApiServer, writer: NodeStateWriter
) -> None:
    writer.offer(FACTS)
    eventually(lambda: state_of(server) == "Established")
    assert json.dumps(shown(server)["metadata"]).count('"uid-1"') == 1
    writer.offer(DOWN)
    eventually(lambda: state_of(server) == "Active")
    eventually(lambda: writer.writes == 2)


def test_what_an_earlier_node_left_is_waited_for(server: StandInApiServer, writer: NodeStateWriter) -> None:
    server.create(json.loads(json.dumps(object_body("n1", "uid-0"))))
    writer.offer(FACTS)
    eventually(lambda: "earlier Node" in writer.error)
    assert state_of(server) is None
    server.delete("BGPNodeState", "n1")  # as the garbage collector does
    eventually(lambda: state_of(server) == "Established")
    assert "uid-0" not in json.dumps(shown(server))


def test_times_of_conditions_survive_a_restart_of_the_agent(
    server: StandInApiServer, writer: NodeStateWriter
) -> None:
    old = status_body(FACTS, merged((), FACTS.conditions, datetime(2020, 1, 1, tzinfo=UTC), 0))
    server.create(json.loads(json.dumps(object_body("n1", "uid-1"))))
    server.patch("BGPNodeState", "n1", {"status": old}, subresource="status")
    writer.offer(DOWN)
    eventually(lambda: state_of(server) == "Active")
    assert "2020-01-01T00:00:00Z" in json.dumps(shown(server)["status"])


def test_a_deleted_object_and_a_new_node_are_written_again(
    server: StandInApiServer, writer: NodeStateWriter
) -> None:
    writer.offer(FACTS)
    eventually(lambda: state_of(server) == "Established")
    server.delete("BGPNodeState", "n1")
    writer.node_is("uid-2")
    eventually(lambda: "uid-2" in json.dumps(shown(server)) and state_of(server) == "Established")


@pytest.mark.alone
def test_an_api_server_that_is_away_holds_nothing_up(
    server: StandInApiServer, writer: NodeStateWriter
) -> None:
    server.down()
    begun = time.monotonic()
    writer.offer(FACTS)
    assert time.monotonic() - begun < 0.1
    eventually(lambda: bool(writer.error))
    server.up()
    eventually(lambda: state_of(server) == "Established")
    eventually(lambda: writer.error == "")
