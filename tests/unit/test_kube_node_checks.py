"""What only who knows all Nodes can see, and what the agents say of reflectors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bgpd.kube import node_checks
from bgpd.kube.agents_word import AgentsWord
from bgpd.kube.custom_state import BgpNodeState, SessionState
from bgpd.kube.custom_values import (
    Phase,
)
from bgpd.kube.election import Reflector
from bgpd.kube.identity import reflector_router_id_of
from bgpd.kube.node_checks import Check, NodeChecks
from bgpd.kube.objects import Node
from routes.prefix import Prefix, parse_address

POD_RANGE = Prefix.parse("10.244.0.0/16")


def node(name: str, cidr: str = "", address: str = "", uid: str = "") -> Node:
    number = ord(name[-1])
    return Node(
        name,
        uid or f"uid-{name}",
        pod_cidrs=(Prefix.parse(cidr or f"10.244.{number}.0/24"),) if cidr != "-" else (),
        addresses=(parse_address(address or f"192.0.2.{number}"),),
        ready=True,
    )


def state(name: str, **what: object) -> BgpNodeState:
    return replace(BgpNodeState(name, f"state-{name}", 1), **what)  # type: ignore[arg-type]  # a table


class Story:
    """Checks on a clock that the test sets."""

    def __init__(self, *nodes: Node, reporting: bool = True) -> None:
        self.checks = NodeChecks()
        self.checks.ranges_replaced(0, (POD_RANGE,))
        for each in nodes:
            self.checks.node_changed(0, each)
            if reporting:
                self.checks.state_changed(0, state(each.name))

    def problems(self, at: float = 0) -> dict[Check, set[str]]:
        self.checks.pass_time(at)
        return {check: set(found) for check, found in self.checks.problems.items() if found}


def test_a_cluster_in_order_has_no_problems() -> None:
    story = Story(node("a"), node("b"))
    assert story.problems(at=10_000) == {}
    assert story.checks.take_news() == []


def test_duplicate_prefixes_are_said_of_both_and_taken_back_of_both() -> None:
    story = Story(node("a"), node("b"), node("c", "10.244.97.0/25"))
    assert story.problems() == {Check.DUPLICATE_PREFIX: {"a", "c"}}
    assert "overlaps 10.244.97.0/25" in story.checks.problems[Check.DUPLICATE_PREFIX]["a"]
    story.checks.take_news()
    story.checks.node_deleted(1, node("c", "10.244.97.0/25"))
    assert story.problems() == {}
    assert [(news.node.name, news.text) for news in story.checks.take_news()] == [("c", ""), ("a", "")]


def test_duplicate_router_ids_are_found_also_between_a_node_and_a_reflector() -> None:
    story = Story(node("a"), node("b", address="192.0.2.97"))
    assert story.problems() == {Check.DUPLICATE_ROUTER_ID: {"a", "b"}}
    router_id = reflector_router_id_of("uid-b")
    twin = ".".join(str(byte) for byte in router_id.to_bytes(4, "big"))
    story = Story(node("a", address=twin), node("b"))
    story.checks.reflectors_replaced(1, ["uid-b"])
    assert story.problems() == {Check.DUPLICATE_ROUTER_ID: {"a"}}
    story.checks.reflectors_replaced(2, [])
    assert story.problems() == {}


def test_a_new_node_gets_time_for_its_prefix_and_its_state() -> None:
    story = Story(node("a", "-"), reporting=False)
    assert story.checks.wait(0) == node_checks.NO_PREFIX_AFTER
    assert story.problems() == {}
    assert story.problems(node_checks.NO_PREFIX_AFTER) == {Check.NO_PREFIX: {"a"}}
    late = story.problems(node_checks.NO_STATE_AFTER)
    assert late == {Check.NO_PREFIX: {"a"}, Check.NO_STATE: {"a"}}
    story.checks.state_changed(999, state("a"))
    story.checks.node_changed(999, node("a"))
    assert story.problems(999) == {}


def test_a_prefix_outside_the_clusters_ranges_is_named() -> None:
    story = Story(node("a", "10.99.0.0/24"))
    assert story.problems() == {Check.OUTSIDE: {"a"}}
    story.checks.ranges_replaced(1, (Prefix.parse("10.0.0.0/8"),))
    assert story.problems() == {}


@pytest.mark.parametrize(
    "what",
    [
        {"pod_cidrs": (Prefix.parse("10.244.7.0/24"),)},
        {"addresses": (parse_address("198.51.100.1"),)},
    ],
)
def test_a_node_that_advertises_what_is_not_its_own_is_reported_after_a_while(
    what: dict[str, object],
) -> None:
    story = Story(node("a"))
    story.checks.state_changed(10, state("a", **what))
    assert story.problems(10) == {}
    assert story.problems(10 + node_checks.FOREIGN_AFTER) == {Check.FOREIGN: {"a"}}
    story.checks.state_changed(100, state("a"))
    assert story.problems(100) == {}


def test_a_node_made_again_is_another_one() -> None:
    story = Story(node("a", "-"))
    story.checks.node_changed(100, node("a", uid="new"))
    story.checks.node_deleted(101, node("a", "-"))
    assert story.checks.nodes["a"].uid == "new", "the old one's end came late"


def test_a_summary_names_a_few_and_counts_the_rest() -> None:
    many = {f"n{number:02}": "x" for number in range(20)}
    assert node_checks.summary(many).startswith("20 Nodes: n00: x; n01: x")
    assert node_checks.summary(many).endswith("and 15 more")
    assert node_checks.summary({"a": "x"}) == "1 Node: a: x"


# -- what the agents say --------------------------------------------------------------------------------

R = Reflector("r", "uid-r", (parse_address("192.0.2.9"), parse_address("2001:db8::9")), 1, Phase.ACTIVE)


def up(name: str, peer: str = "192.0.2.9", received: int = 1, how: str = "Established") -> BgpNodeState:
    return state(name, sessions=(SessionState(peer, 65000, how, received=received),))


def test_sessions_with_any_address_of_a_reflector_count_once_for_each_node() -> None:
    word = AgentsWord()
    for each in (up("a"), up("b", "2001:db8::9"), up("c", how="Active"), up("d", received=0)):
        word.said(each)
    witness = word.witness([R], set("abcd"), set("abcd"))
    assert (witness.reporters, witness.reached, witness.served) == (4, {"uid-r": 3}, {"uid-r": 2})


def test_only_ready_nodes_testify_where_there_are_any() -> None:
    word = AgentsWord()
    for name in "abc":
        word.said(up(name))
    assert word.witness([R], {"a"}, set("abc")).reporters == 1
    nobody = word.witness([R], set(), set("abc"))
    assert (nobody.reporters, nobody.trusted) == (3, False)
    assert word.witness([R], {"a"}, {"a"}).served == {"uid-r": 1}


def test_what_changes_nothing_is_said_to_change_nothing() -> None:
    word = AgentsWord()
    assert word.said(up("a", received=1))
    assert not word.said(up("a", received=7))
    assert word.said(up("a", received=0))
    assert word.silent("a")
    assert not word.silent("a")
    assert word.witness([R], set("a"), set("a")).reporters == 0
