"""How a node leaves traffic: announced as going, then services withdrawn, then pods, each when it is safe.

Owns the phases.  While a node is cordoned all it announces carries GRACEFUL_SHUTDOWN (RFC 8326) and a low
local preference: whoever has another path takes it before this one goes, and whoever has none keeps this
one.  The pods' paths stay as long as a pod is here, because nobody else has them; service paths, which
others have too, go first.

Pure: facts in, plan out, so that an uncordoned node, or a pod that a DaemonSet puts on a drained one,
needs no undoing.
"""

from __future__ import annotations

from typing import NamedTuple

SHUTDOWN_TIME = 5.0
"""Seconds that paths are announced as going before they go: time to converge everywhere."""


class DrainFacts(NamedTuple):
    """What matters of this node's Node object and pods."""

    exists: bool
    """The Node object is there; an API server that does not answer says nothing, and it counts as there."""
    deleting: bool
    """It has a deletion timestamp."""
    unschedulable: bool
    leaving_for: float
    """Seconds for which it has been unschedulable or deleted."""
    pods: int
    """Pods bound to this node that have an address of the pod network or will get one, and have not ended."""
    local_endpoints: int
    """Endpoints on this node of the services that it announces."""


class DrainPlan(NamedTuple):
    """What to announce, and how."""

    graceful_shutdown: bool
    announce_services: bool
    announce_pods: bool
    reason: str


IN_SERVICE = DrainPlan(False, True, True, "the node is in service")


def plan(facts: DrainFacts) -> DrainPlan:
    """What this node announces now."""
    if not facts.exists:
        return DrainPlan(True, False, False, "the Node was deleted: everything is withdrawn")
    if not (facts.unschedulable or facts.deleting):
        return IN_SERVICE
    what = "being deleted" if facts.deleting else "cordoned"
    if facts.leaving_for < SHUTDOWN_TIME:
        left = f"paths are announced as going for {SHUTDOWN_TIME:g} s first"
        return DrainPlan(True, True, True, f"the node is {what}: {left}")
    services = facts.local_endpoints > 0
    if facts.pods:
        pods = f"{facts.pods} {'pod is' if facts.pods == 1 else 'pods are'} still here"
        ends = _count(facts.local_endpoints) if services else "services are withdrawn"
        return DrainPlan(True, services, True, f"the node is {what}: {pods}, {ends}")
    return DrainPlan(
        True, services, False, f"the node is {what} and no pod is left: its prefixes are withdrawn"
    )


def _count(endpoints: int) -> str:
    return f"{endpoints} service {'endpoint' if endpoints == 1 else 'endpoints'} among them"
