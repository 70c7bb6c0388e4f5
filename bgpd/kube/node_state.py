"""BGPNodeState: what an agent says of its node, seldom enough that the API server does not notice.

An agent fills `NodeFacts` whenever it likes; `StateSchedule` decides, without a clock or a socket, when they
are written, and `node_state_writer.py` writes them.  What counts as a change:

- at once: a condition, a session that comes or goes, whether it brings any path, the node's own identity and
  prefixes;
- in its turn: the counts when they differ by more than a twentieth, other refusals, drift, a session that
  came back meanwhile, a first reason why one is down;
- within twice `REFRESH` seconds: anything else that differs (the last digit of a count, or which state a
  session is in that tries again and again to come up: without end, and on every node when a router is gone).

**Load.**  Every write waits for the node's own share of a window (from the hash of its name), so that what
all nodes see at the same time is not written at the same time.  Windows grow with the cluster: N nodes write
at most once each in a window of max(1, N / 200) seconds, and a node that changes all the time is left with
one write in max(10, N / 100) seconds.  With 5,000 nodes that is at most 200 writes/s for the 25 s in which a
lost reflector is reported, at most 100 writes/s if every node changes all the time, and none while nothing
changes.  With up to 200 nodes, a session that goes down is written in at most a second.

This module must never say anything that the agent did not say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from bgpd.kube.conditions import Say, bounded, condition_json, moment_json
from bgpd.kube.custom_state import (
    LONGEST_RULE,
    MOST_REFUSALS,
    MOST_SESSIONS,
    Drift,
    RefusedPath,
    RouteCounts,
    SessionState,
)
from bgpd.kube.custom_values import Condition
from bgpd.kube.token_bucket import TokenBucket
from routes.prefix import Address, Family, Prefix, format_address, format_router_id

MOST_CONDITIONS = 16
MOST_ADDRESSES = 16
MOST_PREFIXES = 8
LONGEST_VERSION = 64

ESTABLISHED = "Established"

URGENT_PER_SECOND = 200
"""Of all nodes together."""
STEADY_PER_SECOND = 100
INTERVAL = 30.0
"""Seconds between two writes of one node, where nothing is urgent."""
REFRESH = 600.0
BURST = 3
"""Urgent writes of one node, before they are rationed."""
CREDIT = 10.0
"""Seconds after which a node has one more."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before a failed write is tried again, doubling."""


NO_ROUTES = RouteCounts()
NO_DRIFT = Drift()


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What an agent says of itself; all of it plain values."""

    router_id: int
    asn: int
    version: str = ""
    addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[Prefix, ...] = ()
    sessions: tuple[SessionState, ...] = ()
    routes: RouteCounts = NO_ROUTES
    refusals: tuple[RefusedPath, ...] = ()
    drift: Drift = NO_DRIFT
    conditions: tuple[Say, ...] = ()

    @property
    def urgent(self) -> object:
        """What others wait for, as a value to compare."""
        sessions = {each.peer: (each.asn, _is_up(each), each.received > 0) for each in self.sessions}
        conditions = [(each.type, each.status, each.reason) for each in self.conditions]
        return (
            self.router_id, self.asn, self.version, self.addresses, self.pod_cidrs, sessions, conditions,
        )  # fmt: skip


def differ(old: NodeFacts, new: NodeFacts) -> bool:
    """Whether a reader would call it a change: not the last digits of a count."""
    if old.urgent != new.urgent or set(old.refusals) != set(new.refusals):
        return True
    said = [(each.type, each.message) for each in old.conditions]
    if said != [(each.type, each.message) for each in new.conditions]:
        return True
    before = {each.peer: each for each in old.sessions}
    if any(_session_differs(before[each.peer], each) for each in new.sessions):
        return True
    return any(_apart(a, b) for a, b in zip(_counts(old), _counts(new), strict=True))


def _is_up(session: SessionState) -> bool:
    return session.state == ESTABLISHED


def _session_differs(old: SessionState, new: SessionState) -> bool:
    """Of two that are both up, or both down."""
    if not _is_up(new):
        return bool(new.reason) and not old.reason
    return (
        (old.since, old.families) != (new.since, new.families)
        or _apart(old.received, new.received)
        or _apart(old.advertised, new.advertised)
    )


def _counts(facts: NodeFacts) -> tuple[int, ...]:
    routes, drift = facts.routes, facts.drift
    return (
        routes.received, routes.accepted, routes.refused, routes.installed, routes.failed, routes.held,
        drift.repaired, drift.foreign,
    )  # fmt: skip


def _apart(old: int, new: int) -> bool:
    """Whether two counts differ by more than a twentieth, or one of them is zero."""
    return abs(old - new) * 20 > max(old, new) or (old == 0) != (new == 0)


def status_body(facts: NodeFacts, conditions: tuple[Condition, ...]) -> dict[str, object]:
    """`status` as the API has it: every field, so that a merge patch leaves nothing of before.

    Where there are too many sessions, as in a large mesh, those that are down come first.
    """
    routes, drift = facts.routes, facts.drift
    shown = sorted(facts.sessions, key=lambda each: (_is_up(each), each.peer))
    return {
        "routerID": format_router_id(facts.router_id),
        "asn": facts.asn,
        "version": facts.version[:LONGEST_VERSION],
        "addresses": [format_address(each) for each in facts.addresses[:MOST_ADDRESSES]],
        "podCIDRs": [str(each) for each in facts.pod_cidrs[:MOST_PREFIXES]],
        "sessions": [_session_body(each) for each in shown[:MOST_SESSIONS]],
        "routes": {
            "received": routes.received,
            "accepted": routes.accepted,
            "refused": routes.refused,
            "installed": routes.installed,
            "failed": routes.failed,
            "held": routes.held,
        },
        "refusals": [_refusal_body(each) for each in facts.refusals[:MOST_REFUSALS]],
        "drift": {"repaired": drift.repaired, "foreign": drift.foreign},
        "conditions": [condition_json(each) for each in conditions[:MOST_CONDITIONS]],
    }


def _session_body(session: SessionState) -> dict[str, object]:
    body: dict[str, object] = {
        "peer": session.peer,
        "asn": session.asn,
        "state": session.state,
        "families": ["IPv4" if family is Family.IPV4 else "IPv6" for family in session.families],
        "received": session.received,
        "advertised": session.advertised,
    }
    if session.reason:  # kube-apiserver 1.20 takes an empty string in a custom resource for null
        body["reason"] = bounded(session.reason)
    if session.since is not None:
        body["since"] = moment_json(session.since)
    return body


def _refusal_body(refusal: RefusedPath) -> dict[str, object]:
    return {
        "peer": refusal.peer,
        "rule": refusal.rule[:LONGEST_RULE],
        "prefix": str(refusal.prefix),
        "text": bounded(refusal.text),
    }


def object_body(node: str, uid: str) -> Mapping[str, object]:
    """The object itself; it goes when its Node goes."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
    return {
        "apiVersion": "podbgp.dev/v1alpha1",
        "kind": "BGPNodeState",
        "metadata": {"name": node, "ownerReferences": [owner]},
    }


def share_of(name: str) -> float:
    """A node's place in every window, from 0 to 1."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / (1 << 32)


class StateSchedule:
    """When what is known is written.  Times are seconds of the caller's clock."""

    def __init__(self, node: str) -> None:
        self._share = share_of(node)
        self._nodes = 0
        self._facts: NodeFacts | None = None
        self._written: NodeFacts | None = None
        self._written_at = float("-inf")
        self._urgent_since: float | None = None
        self._steady_since: float | None = None
        self._other_since: float | None = None
        self._bucket = TokenBucket(BURST, 1 / CREDIT)
        self._not_before = float("-inf")
        self._failures = 0

    def cluster_has(self, nodes: int) -> None:
        """How many nodes write, as BGPCluster.status says."""
        self._nodes = nodes
        self._bucket.rate = 1 / max(CREDIT, nodes / STEADY_PER_SECOND)

    @property
    def window(self) -> float:
        """Seconds over which urgent writes of all nodes are spread."""
        return max(1.0, self._nodes / URGENT_PER_SECOND)

    @property
    def interval(self) -> float:
        return max(INTERVAL, self._nodes / STEADY_PER_SECOND)

    def offer(self, now: float, facts: NodeFacts) -> None:
        """What is so now."""
        self._facts = facts
        before = self._written
        urgent = before is None or before.urgent != facts.urgent
        steady = before is None or differ(before, facts)
        self._urgent_since = _since(self._urgent_since, now, urgent)
        self._steady_since = _since(self._steady_since, now, steady)
        self._other_since = _since(self._other_since, now, before != facts)

    def next(self, now: float) -> NodeFacts | float | None:
        """What to write now, or in how many seconds to ask again, or None: nothing to write."""
        facts = self._facts
        if facts is None or self._other_since is None:
            return None
        wait = max(self._due(now), self._not_before) - now
        if wait > 0:
            return wait
        return facts

    def _due(self, now: float) -> float:
        due = now if self._other_since is None else self._other_since + REFRESH * self._share
        due = max(due, self._written_at + REFRESH)
        if self._steady_since is not None:
            turn = self._steady_since + self._share * self.interval
            due = min(due, max(turn, self._written_at + self.interval))
        if self._urgent_since is not None:
            turn = self._urgent_since + self._share * self.window
            credit = now + self._bucket.wait(now)
            due = min(due, max(turn, self._written_at + self.window, credit))
        return due

    def wrote(self, now: float, facts: NodeFacts) -> None:
        """The API server has it."""
        if self._written is None or self._written.urgent != facts.urgent:
            self._bucket.spend(now)
        self._written, self._written_at, self._failures = facts, now, 0
        if self._facts is not None:
            self.offer(now, self._facts)

    def failed(self, now: float, retry_after: float | None, jitter: float) -> None:
        """The write did not succeed: wait, longer each time; `jitter` from 0 to 1."""
        wait = min(FIRST_WAIT * 2.0 ** min(self._failures, 10), LONGEST_WAIT)
        self._failures += 1
        self._not_before = now + max(wait * (0.5 + 0.5 * jitter), min(retry_after or 0.0, LONGEST_WAIT))

    def forget(self, now: float) -> None:
        """What was written is gone: another object, or none."""
        self._written, self._written_at = None, float("-inf")
        if self._facts is not None:
            self.offer(now, self._facts)


def _since(before: float | None, now: float, holds: bool) -> float | None:
    """Since when something holds without a break."""
    if not holds:
        return None
    return now if before is None else before
