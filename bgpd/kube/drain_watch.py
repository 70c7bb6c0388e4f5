"""Whether this node is being emptied, and what is still on it: the facts of `bgpd/node/drain.py`.

Pods are followed only while the node leaves.  What is not known yet counts as a pod that is here: nothing is
withdrawn by guess.
"""

from __future__ import annotations

from collections.abc import Callable

from bgpd.kube import resources
from bgpd.kube.following import Following, Table
from bgpd.kube.objects import Node, Pod
from bgpd.node.drain import IN_SERVICE, DrainFacts, DrainPlan, plan


class DrainWatch:
    """One node's way out, and back."""

    def __init__(self, following: Following, name: str, changed: Callable[[], None]) -> None:
        self._following = following
        self._name = name
        self._changed = changed
        self._pods: Table[Pod] | None = None
        self._leaving_since: float | None = None
        self.plan: DrainPlan = IN_SERVICE

    def look(self, node: Node | None, now: float, local_endpoints: Callable[[], int]) -> DrainPlan:
        """What the node announces `now` (seconds of any clock); endpoints are counted only if need be."""
        leaving = node is None or node.unschedulable or node.deleting
        if not leaving:
            self._leaving_since = None
            if self._pods is not None:
                self._following.drop(self._pods)
                self._pods = None
            self.plan = IN_SERVICE
            return self.plan
        if self._leaving_since is None:
            self._leaving_since = now
            self._pods = self._following.follow(resources.pods_on(self._name), lambda _: self._changed())
        self.plan = plan(
            DrainFacts(
                exists=node is not None,
                deleting=node is not None and node.deleting,
                unschedulable=node is not None and node.unschedulable,
                leaving_for=0.0 if self._leaving_since is None else now - self._leaving_since,
                pods=self._count(),
                local_endpoints=local_endpoints(),
            )
        )
        return self.plan

    def _count(self) -> int:
        if self._pods is None:
            return 0
        if not self._pods.synced:
            return 1
        return sum(not pod.host_network and not pod.over for pod in self._pods.values.values())
