"""The election under random churn: whatever Nodes and agents do, reflectors are never let go too early."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.kube.candidates import Candidate
from bgpd.kube.custom_values import Phase
from bgpd.kube.election import Plan, Standing, Witness, elect
from routes.prefix import parse_address

NAMES = [f"n{number}" for number in range(8)]


def candidate(name: str, zone: str) -> Candidate:
    number = int(name[1:])
    return Candidate(name, name, (parse_address(f"192.0.2.{number + 1}"),), zone, created=float(number % 3))


class Cluster:
    """Nodes, and agents that say whom they reach."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.now = 0.0
        self.nodes: dict[str, Candidate] = {}
        self.silent: set[str] = set()
        self.mute = False
        """Whether no agent reports."""
        self.standing = Standing()

    def vote(self) -> Plan:
        reporters = 0 if self.mute else max(len(self.nodes), 1)
        reached = {
            one.uid: reporters
            for one in self.standing.reflectors
            if one.uid in self.nodes and one.uid not in self.silent and not self.mute
        }
        trusted = any(node.ready for node in self.nodes.values())
        before = self.standing
        plan = elect(self.nodes, Witness(reporters, reached, trusted), before, self.count, self.now)
        self._check(before, plan, reached)
        self.standing = plan.standing
        return plan

    def _check(self, before: Standing, plan: Plan, reached: dict[str, int]) -> None:
        was = {one.uid for one in before.reflectors if one.phase is Phase.ACTIVE}
        lost = {uid for uid in was if uid not in self.nodes and not reached.get(uid)}
        phases = Counter(one.phase for one in plan.reflectors)
        active, starting = phases[Phase.ACTIVE], phases[Phase.STARTING]
        assert active >= min(len(was - lost), self.count), (
            "a reflector was let go before its successor served"
        )
        assert active or not was - lost, "the last one was drained"
        assert starting <= max(self.count - active, 1), "two replacements at once"
        assert len({one.uid for one in plan.reflectors}) == len(plan.reflectors)
        again = elect(
            dict(reversed(self.nodes.items())),
            Witness(
                0 if self.mute else max(len(self.nodes), 1),
                reached,
                any(n.ready for n in self.nodes.values()),
            ),
            before,
            self.count,
            self.now,
        )
        assert again == plan, "the order of the Nodes decided"


nodes = st.sampled_from(NAMES)
events = st.one_of(
    st.tuples(st.sampled_from(["join", "gone", "ready", "cordon", "silent"]), nodes),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 31.0, 61.0, 121.0, 301.0, 700.0])),
    st.tuples(st.just("count"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["mute", "all-not-ready"]), st.just("")),
)
zones = st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=len(NAMES), max_size=len(NAMES))


def play(cluster: Cluster, zone_of: list[str], event: tuple[str, object]) -> None:
    kind, about = event
    name = str(about)
    if kind == "wait":
        cluster.now += float(name)
    elif kind == "count":
        cluster.count = int(name)
    elif kind == "mute":
        cluster.mute = not cluster.mute
    elif kind == "all-not-ready":
        cluster.nodes = {uid: replace(node, ready=False) for uid, node in cluster.nodes.items()}
    elif kind == "join":
        cluster.nodes.setdefault(name, candidate(name, zone_of[int(name[1:])]))
    elif kind == "silent":
        cluster.silent ^= {name}
    elif kind == "gone":
        cluster.nodes.pop(name, None)
    elif name in cluster.nodes:
        node = cluster.nodes[name]
        changed = (
            replace(node, ready=not node.ready)
            if kind == "ready"
            else replace(node, leaving=not node.leaving)
        )
        cluster.nodes[name] = changed


@settings(max_examples=250, deadline=None)
@given(zone_of=zones, story=st.lists(events, min_size=5, max_size=60), count=st.integers(1, 4))
def test_no_story_costs_a_reflector_too_early_and_all_of_them_settle(
    zone_of: list[str], story: list[tuple[str, object]], count: int
) -> None:
    cluster = Cluster(count)
    for name in NAMES[:5]:
        play(cluster, zone_of, ("join", name))
    for event in story:
        play(cluster, zone_of, event)
        cluster.vote()
    cluster.mute = False
    cluster.silent.clear()
    cluster.nodes = {uid: replace(node, ready=True, leaving=False) for uid, node in cluster.nodes.items()}
    settle(cluster)
    reflectors = cluster.standing.reflectors
    assert len(reflectors) == min(cluster.count, len(cluster.nodes))
    assert all(one.phase is Phase.ACTIVE for one in reflectors)
    loads = Counter(cluster.nodes[one.uid].zone for one in reflectors)
    shunned = cluster.standing.shunned
    taken = {one.uid for one in reflectors}
    free = {node.zone for uid, node in cluster.nodes.items() if uid not in taken and uid not in shunned}
    assert all(max(loads.values()) - loads[zone] <= 1 for zone in free), "a zone is crowded"


def settle(cluster: Cluster) -> None:
    """Vote whenever the election asks for it, until it asks no more."""
    for _ in range(100):
        plan = cluster.vote()
        if plan.wake is None and not plan.steps:
            cluster.now += 700.0
            later = cluster.vote()
            if not later.steps and later.wake is None:
                return
        cluster.now = plan.wake if plan.wake is not None else cluster.now + 1.0
    raise AssertionError("it never settles")
