"""What is wrong with the cluster's Nodes, as far as only who knows all of them can see it.

Agents see their own Node, or check paths against it; two Nodes with one prefix, or one router ID, each look
right.  `NodeChecks` is told of every Node and BGPNodeState that changes, at a cost that does not grow with
the cluster, and answers with the problems by kind, and with those that are new.

What needs time to become right (a podCIDR for a new Node, its first BGPNodeState) is no problem before a
stated time.  Pure: the time comes as an argument.  It must never repair anything.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from bgpd.kube.custom_state import BgpNodeState
from bgpd.kube.identity import Claims, PrefixClaims, reflector_router_id_of, router_id_of
from bgpd.kube.objects import Node
from routes.prefix import Prefix, format_address, format_router_id

NO_PREFIX_AFTER = 30.0
"""Seconds that a new Node may be without podCIDRs."""
NO_STATE_AFTER = 180.0
"""Seconds that a Node may be without a BGPNodeState: its agent's image is pulled meanwhile."""
FOREIGN_AFTER = 60.0
"""Seconds that a BGPNodeState may say other than its Node: it is written seldom."""
MOST_NAMED = 5
"""In a summary."""


class Check(Enum):
    """Each kind of problem, with the reason of its event and condition."""

    DUPLICATE_PREFIX = "DuplicatePodCIDR"
    OUTSIDE = "PodCIDROutsideCluster"
    NO_PREFIX = "NoPodCIDR"
    DUPLICATE_ROUTER_ID = "DuplicateRouterID"
    NO_STATE = "NoNodeState"
    FOREIGN = "ForeignPrefix"
    INVALID = "InvalidField"


class News(NamedTuple):
    """A problem that a Node has since now, or (without text) has no longer."""

    check: Check
    node: Node
    text: str


class NodeChecks:
    """All Nodes, what their agents say, and what is wrong."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        """By name."""
        self.states: dict[str, BgpNodeState] = {}
        self.problems: dict[Check, dict[str, str]] = {check: {} for check in Check}
        self._ranges: tuple[Prefix, ...] = ()
        self._prefixes = PrefixClaims()
        self._router_ids = Claims[int]()
        self._reflectors: frozenset[str] = frozenset()
        self._first_seen: dict[str, float] = {}
        self._foreign_since: dict[str, float] = {}
        self._later: list[tuple[float, str]] = []
        self._news: list[News] = []

    # -- what changes -----------------------------------------------------------------------------

    def node_changed(self, now: float, node: Node) -> None:
        before = self.nodes.get(node.name)
        self.nodes[node.name] = node
        if before is None or before.uid != node.uid:
            self._first_seen[node.name] = now
            self._look_at(now + NO_PREFIX_AFTER, node.name)
            self._look_at(now + NO_STATE_AFTER, node.name)
        touched = self._prefixes.claim(node.name, node.pod_cidrs)
        touched |= self._router_ids.claim(node.name, [router_id_of(node)])
        self._check_all(now, touched)

    def node_deleted(self, now: float, node: Node) -> None:
        known = self.nodes.get(node.name)
        if known is None or known.uid != node.uid:
            return
        for check in Check:
            self._set(check, known, "")
        del self.nodes[node.name]
        self._first_seen.pop(node.name, None)
        self._foreign_since.pop(node.name, None)
        touched = self._prefixes.claim(node.name, ()) | self._router_ids.claim(node.name, ())
        self._check_all(now, touched)

    def state_changed(self, now: float, state: BgpNodeState) -> None:
        self.states[state.name] = state
        self._check_all(now, [state.name])

    def state_deleted(self, now: float, state: BgpNodeState) -> None:
        known = self.states.get(state.name)
        if known is not None and known.uid == state.uid:
            del self.states[state.name]
            self._check_all(now, [state.name])

    def ranges_replaced(self, now: float, ranges: tuple[Prefix, ...]) -> None:
        """The cluster's pod ranges."""
        if ranges != self._ranges:
            self._ranges = ranges
            self._check_all(now, list(self.nodes))

    def reflectors_replaced(self, now: float, uids: Iterable[str]) -> None:
        """Who else has a router ID: the reflectors beside agents, by their Node's UID."""
        new = frozenset(uids)
        touched: set[str] = set()
        for uid in self._reflectors - new:
            touched |= self._router_ids.claim(f"the reflector of UID {uid}", ())
        for uid in new - self._reflectors:
            touched |= self._router_ids.claim(f"the reflector of UID {uid}", [reflector_router_id_of(uid)])
        self._reflectors = new
        self._check_all(now, touched)

    def wait(self, now: float) -> float | None:
        """Seconds until `pass_time` has something to do."""
        return max(self._later[0][0] - now, 0.0) if self._later else None

    def pass_time(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, name = heapq.heappop(self._later)
            self._check_all(now, [name])

    def take_news(self) -> list[News]:
        """What is new since this was asked last."""
        news, self._news = self._news, []
        return news

    def summary(self, check: Check) -> str:
        """The problems of one kind in a sentence; empty where there is none."""
        return summary(self.problems[check])

    # -- the checks -------------------------------------------------------------------------------

    def _check_all(self, now: float, names: Iterable[str]) -> None:
        for name in names:
            node = self.nodes.get(name)
            if node is None:  # gone, or a reflector
                continue
            for check, text in self._findings(now, node):
                self._set(check, node, text)

    def _findings(self, now: float, node: Node) -> Iterator[tuple[Check, str]]:
        age = now - self._first_seen[node.name]
        duplicates = self._prefixes.conflicts(node.name)
        yield (
            Check.DUPLICATE_PREFIX,
            "; ".join(
                f"{mine} is also a podCIDR of {other}"
                if mine == theirs
                else f"{mine} overlaps {theirs}, a podCIDR of {other}"
                for mine, other, theirs in duplicates[:MOST_NAMED]
            ),
        )
        outside = [str(each) for each in node.pod_cidrs if not self._in_ranges(each)]
        yield Check.OUTSIDE, f"not in the BGPCluster's podCIDRs: {', '.join(outside)}" if outside else ""
        missing = not node.pod_cidrs and not node.deleting and age >= NO_PREFIX_AFTER
        yield (
            Check.NO_PREFIX,
            (
                "spec.podCIDRs is empty: start kube-controller-manager with --allocate-node-cidrs"
                if missing
                else ""
            ),
        )
        twins = self._router_ids.conflicts(node.name)
        yield (
            Check.DUPLICATE_ROUTER_ID,
            "; ".join(
                f"router ID {format_router_id(value)} is also that of {other}"
                for value, other in twins[:MOST_NAMED]
            ),
        )
        silent = node.name not in self.states and not node.deleting and age >= NO_STATE_AFTER
        yield Check.NO_STATE, "no BGPNodeState: does the podbgp agent run there?" if silent else ""
        yield Check.FOREIGN, self._foreign(now, node)
        yield Check.INVALID, "; ".join(node.problems[:MOST_NAMED])

    def _in_ranges(self, nlri: Prefix) -> bool:
        return not self._ranges or any(whole.contains(nlri) for whole in self._ranges)

    def _foreign(self, now: float, node: Node) -> str:
        """Whether the agent advertises what is not its Node's."""
        state = self.states.get(node.name)
        text = "" if state is None else _mismatch(node, state)
        if not text:
            self._foreign_since.pop(node.name, None)
            return ""
        since = self._foreign_since.get(node.name)
        if since is None:
            since = self._foreign_since[node.name] = now
            self._look_at(now + FOREIGN_AFTER, node.name)
        return text if now - since >= FOREIGN_AFTER else ""

    def _look_at(self, when: float, name: str) -> None:
        heapq.heappush(self._later, (when, name))

    def _set(self, check: Check, node: Node, text: str) -> None:
        problems = self.problems[check]
        if problems.get(node.name, "") == text:
            return
        if text:
            problems[node.name] = text
        else:
            del problems[node.name]
        self._news.append(News(check, node, text))


def _mismatch(node: Node, state: BgpNodeState) -> str:
    prefixes = [str(each) for each in state.pod_cidrs if each not in node.pod_cidrs]
    if prefixes:
        return f"its agent says that it advertises {', '.join(prefixes)}, which is not in spec.podCIDRs"
    addresses = [format_address(each) for each in state.addresses if each not in node.addresses]
    if addresses:
        return f"its agent says that it has the address {', '.join(addresses)}, which the Node has not"
    return ""


def summary(problems: Mapping[str, str]) -> str:
    """`3 Nodes: a: text; b: text; c: text`, the first few by name."""
    if not problems:
        return ""
    named = heapq.nsmallest(MOST_NAMED, problems)
    more = f"; and {len(problems) - len(named)} more" if len(problems) > len(named) else ""
    count = f"{len(problems)} Node{'s' if len(problems) > 1 else ''}"
    return f"{count}: " + "; ".join(f"{name}: {problems[name]}" for name in named) + more
