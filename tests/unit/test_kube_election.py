"""Which Nodes reflect: whom the election takes, and how one reflector follows another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bgpd.kube import election
from bgpd.kube.candidates import Candidate, candidate_of, decode_elector_node
from bgpd.kube.custom_values import Phase
from bgpd.kube.election import Plan, Standing, Witness, elect
from bgpd.kube.objects import ZONE_LABEL, Node
from routes.prefix import parse_address

A, S, D = Phase.ACTIVE, Phase.STARTING, Phase.DRAINING


def node(name: str, zone: str = "", **what: bool | float) -> Candidate:
    address = parse_address(f"192.0.2.{sum(map(ord, name)) % 250 + 1}")
    return replace(Candidate(name, name, (address,), zone, 100.0), **what)  # type: ignore[arg-type]  # a table


class Story:
    """A cluster that the test changes, and what the election makes of it."""

    def __init__(self, *nodes: Candidate, count: int = 2) -> None:
        self.nodes = {one.uid: one for one in nodes}
        self.count = count
        self.now = 1000.0
        self.silent: set[str] = set()
        self.standing = Standing()
        self.plan: Plan | None = None

    def change(self, name: str, **what: bool | float | str) -> None:
        self.nodes[name] = replace(self.nodes[name], **what)  # type: ignore[arg-type]  # a table

    def after(self, seconds: float, reporters: int | None = None) -> dict[str, Phase]:
        self.now += seconds
        agents = len(self.nodes) if reporters is None else reporters
        reached = {
            one.uid: agents
            for one in self.standing.reflectors
            if one.uid in self.nodes and one.uid not in self.silent
        }
        trusted = any(one.ready for one in self.nodes.values())
        self.plan = elect(self.nodes, Witness(agents, reached, trusted), self.standing, self.count, self.now)
        self.standing = self.plan.standing
        return {one.node: one.phase for one in self.plan.reflectors}

    def settled(self) -> Story:
        self.after(0)
        self.after(1)
        return self


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param([node("b"), node("a")], {"a", "b"}, id="all of a small cluster"),
        pytest.param([node("a")], {"a"}, id="a cluster smaller than the count"),
        pytest.param([node("a", "x"), node("b", "x"), node("c", "y")], {"a", "c"}, id="one in each zone"),
        pytest.param(
            [node("a"), node("b", created=9.0), node("c", created=8.0)], {"b", "c"}, id="the oldest"
        ),
        pytest.param([node("a", ready=False), node("b"), node("c")], {"b", "c"}, id="Ready ones"),
        pytest.param(
            [node("a", ready=False), node("b", ready=False)], {"a", "b"}, id="an empty cluster: none is Ready"
        ),
        pytest.param([node("a", leaving=True), node("b"), node("c")], {"b", "c"}, id="none that leaves"),
        pytest.param(
            [node("a", spot=True), node("b"), node("c")], {"b", "c"}, id="none that may be taken back"
        ),
        pytest.param([node("a", reports=False), node("b"), node("c")], {"b", "c"}, id="where an agent runs"),
        pytest.param([replace(node("a"), addresses=()), node("b")], {"b"}, id="none without an address"),
    ],
)
def test_whom_it_takes(nodes: list[Candidate], expected: set[str]) -> None:
    assert Story(*nodes).after(0) == dict.fromkeys(expected, S)


def test_a_node_is_read_for_what_tells_whether_it_stays() -> None:
    labels = {ZONE_LABEL: "z", "cloud.google.com/gke-spot": "true"}
    taints = frozenset(["ToBeDeletedByClusterAutoscaler"])
    found = candidate_of(Node("n", "u", labels, ready=True, taints=taints, created=5.0), reports=False)
    assert found == Candidate("u", "n", (), "z", 5.0, ready=True, leaving=True, spot=True, reports=False)
    assert candidate_of(Node("n", "u", unschedulable=True), reports=True).leaving
    assert not candidate_of(Node("n", "u"), reports=True).leaving


def test_labels_that_say_nothing_of_it_are_not_kept() -> None:
    raw = b"""{"metadata": {"name": "n", "uid": "u", "labels": {"topology.kubernetes.io/zone": "z", "x": "y",
        "cloud.google.com/gke-spot": "true"}}}"""
    kept = {"topology.kubernetes.io/zone": "z", "cloud.google.com/gke-spot": "true"}
    assert decode_elector_node(raw).labels == kept


def test_a_new_one_is_active_when_nine_of_ten_agents_have_its_routes() -> None:
    story = Story(*(node(f"n{number}") for number in range(10)), count=1)
    (name,) = story.after(0)
    for reached, phase in ((8, S), (9, A)):
        witness = Witness(10, {name: reached})
        plan = elect(story.nodes, witness, story.standing, 1, story.now + 1)
        assert plan.reflectors[0].phase is phase
    late = story.now + election.STARTING_TIME
    assert elect(story.nodes, Witness(10, {name: 5}), story.standing, 1, late).reflectors[0].phase is A


def test_a_cordoned_one_is_replaced_make_before_break() -> None:
    story = Story(node("a"), node("b"), node("c")).settled()
    story.change("a", leaving=True)
    assert story.after(1) == {"a": A, "b": A, "c": S}
    assert story.after(1) == {"a": D, "b": A, "c": A}
    assert story.after(election.DRAIN_TIME - 1) == {"a": D, "b": A, "c": A}
    assert story.after(1) == {"b": A, "c": A}
    story.change("a", leaving=False)
    assert story.after(1) == {"b": A, "c": A}, "who is elected stays"


def test_a_cordon_that_is_taken_back_takes_the_start_back() -> None:
    story = Story(node("a"), node("b"), node("c")).settled()
    story.change("a", leaving=True)
    story.silent = {"c"}
    assert story.after(1) == {"a": A, "b": A, "c": S}
    story.change("a", leaving=False)
    assert story.after(1) == {"a": A, "b": A}


def test_two_cordoned_ones_are_replaced_one_after_the_other() -> None:
    story = Story(*(node(name) for name in "abcd")).settled()
    story.change("a", leaving=True)
    story.change("b", leaving=True)
    seen = [story.after(1) for _ in range(3)]
    assert seen == [
        {"a": A, "b": A, "c": S},
        {"a": A, "b": D, "c": A, "d": S},
        {"a": D, "b": D, "c": A, "d": A},
    ]


def test_a_replacement_waits_for_one_that_is_missing() -> None:
    story = Story(*(node(name) for name in "abcd")).settled()
    del story.nodes["a"]
    story.change("b", leaving=True)
    assert story.after(1) == {"b": A, "c": S}


def test_the_last_one_is_not_drained_without_a_successor() -> None:
    story = Story(node("a"), count=1).settled()
    story.change("a", leaving=True)
    assert story.after(10_000) == {"a": A}


def test_one_whose_node_is_gone_is_replaced_at_once() -> None:
    story = Story(node("a"), node("b"), node("c")).settled()
    del story.nodes["a"]
    assert story.after(0.1) == {"b": A, "c": S}


def test_one_whose_node_object_is_gone_serves_on_while_agents_hold_sessions() -> None:
    story = Story(node("a"), node("b"), count=1).settled()
    del story.nodes["a"]
    plan = elect(story.nodes, Witness(1, {"a": 1}), story.standing, 1, story.now)
    assert {one.node: one.phase for one in plan.reflectors} == {"a": A, "b": S}


@pytest.mark.parametrize(
    ("ready", "others_ready", "patience"),
    [
        pytest.param(False, True, election.NOT_READY_PATIENCE, id="its Node is not Ready"),
        pytest.param(True, True, election.READY_PATIENCE, id="its Node is Ready: it may be restarting"),
        pytest.param(False, False, election.UNSURE_PATIENCE, id="most Nodes are not Ready: is it us?"),
    ],
)
def test_a_silent_one_is_waited_for(ready: bool, others_ready: bool, patience: float) -> None:
    story = Story(*(node(name) for name in "abcde"), count=1).settled()
    story.silent = {"a"}
    story.change("a", ready=ready)
    for name in "bcd":
        story.change(name, ready=others_ready)
    assert story.after(1) == {"a": A}
    assert story.plan is not None
    assert story.plan.wake == story.now + patience
    assert story.after(patience - 0.1) == {"a": A}
    assert story.after(0.1) == {"a": A, "e": S} if not others_ready else {"a": A, "b": S}


def test_a_node_that_is_not_ready_but_whose_sessions_live_stays() -> None:
    story = Story(node("a"), node("b"), node("c")).settled()
    story.change("a", ready=False)
    assert story.after(10_000) == {"a": A, "b": A}


def test_nothing_changes_when_no_node_is_ready() -> None:
    story = Story(*(node(name) for name in "abcd")).settled()
    for name in "abcd":
        story.change(name, ready=False)
    story.silent = set("ab")
    assert story.after(1) == {"a": A, "b": A}
    assert story.after(100_000) == {"a": A, "b": A}


def test_nothing_changes_when_no_agent_reports() -> None:
    story = Story(*(node(name) for name in "abcd")).settled()
    story.silent = set("ab")
    assert story.after(100_000, reporters=0) == {"a": A, "b": A}


def test_one_that_can_not_start_is_given_up_for_another_and_shunned() -> None:
    story = Story(node("a"), node("b"), node("c"), count=1)
    story.silent = {"a"}
    assert story.after(0) == {"a": S}
    assert story.after(election.STARTING_TIME) == {"b": S}
    story.silent = {"a", "b"}
    assert story.after(election.STARTING_TIME) == {"c": S}
    story.silent = set("abc")
    assert story.after(election.STARTING_TIME) == {"c": S}, "nobody else is left: it may go on trying"


def test_a_larger_count_starts_all_that_are_missing_and_a_smaller_one_drains() -> None:
    story = Story(*(node(name) for name in "abcd"), count=1).settled()
    story.count = 3
    assert story.after(1) == {"a": A, "b": S, "c": S}
    assert story.after(1) == {"a": A, "b": A, "c": A}
    story.count = 1
    assert story.after(1) == {"a": A, "b": D, "c": D}
    assert story.after(election.DRAIN_TIME) == {"a": A}


def test_a_draining_one_is_called_back_when_the_others_go() -> None:
    story = Story(node("a"), node("b"), count=2).settled()
    story.count = 1
    assert story.after(1) == {"a": A, "b": D}
    del story.nodes["a"]
    assert story.after(1) == {"b": A}


def test_a_crowded_zone_is_relieved_after_a_while_and_only_once() -> None:
    story = Story(node("a", "x"), node("b", "x")).settled()
    story.nodes["c"] = node("c", "y")
    assert story.after(1) == {"a": A, "b": A}
    assert story.after(election.REBALANCE_TIME) == {"a": A, "b": A, "c": S}
    assert story.after(1) == {"a": A, "b": D, "c": A}
    assert story.after(election.DRAIN_TIME) == {"a": A, "c": A}
    assert story.after(10_000) == {"a": A, "c": A}


def test_a_changed_address_is_taken_without_another_election() -> None:
    story = Story(node("a"), count=1).settled()
    story.nodes["a"] = replace(story.nodes["a"], addresses=(parse_address("2001:db8::1"),))
    story.after(1)
    assert story.standing.reflectors[0].addresses == (parse_address("2001:db8::1"),)
    assert story.standing.reflectors[0].phase is A


def test_each_step_is_told_with_its_reason() -> None:
    story = Story(node("a", "x"), count=1)
    story.after(0)
    assert story.plan is not None
    assert [(step.reason, step.node) for step in story.plan.steps] == [("ReflectorElected", "a")]
    story.after(1)
    assert [step.text for step in story.plan.steps] == ["1 of 1 agents have its routes"]
    assert story.plan.wake is None
