"""All Nodes, for a process that has to know them: who may announce which pod prefix, kept up to date.

One Node's change costs as much as one Node, in a cluster of any size; only other pod ranges begin anew.

A cluster without any Node is none: whoever asks runs on one.  So a list without Nodes is an API server that
lost its data, and what was known stays until it knows Nodes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from bgpd.kube import resources
from bgpd.kube.following import Following
from bgpd.kube.intent import Intent
from bgpd.kube.objects import Node
from bgpd.kube.watch import Batch
from routes.node_prefixes import KnownNode, NodePrefixes
from routes.prefix import Prefix


def keep_addresses(before: Node | None, now: Node) -> Node:
    """A Node that has lost its addresses keeps the last ones: its pods are still there."""
    if now.addresses or before is None or not before.addresses:
        return now
    text = "status.addresses is empty: the last ones stay in use"
    return replace(now, addresses=before.addresses, problems=(*now.problems, text))


class KnownNodes:
    """The table of all Nodes, and what follows from it for other peers' paths."""

    def __init__(self, following: Following, changed: Callable[[], None]) -> None:
        self._following = following
        self._changed = changed
        self.table = following.follow(resources.NODES, self._take, keep_addresses)
        self.prefixes = NodePrefixes(())
        self.ranges: tuple[Prefix, ...] = ()
        self._doubted = False
        self.on_touched: Callable[[Iterable[Prefix]], None] = lambda _: None
        """Called with the prefixes that may be judged differently now."""

    @property
    def doubt(self) -> str:
        """Why the Nodes that are known are not to be believed; empty when they are."""
        return "there is no Node any more: what was last known stays in use" if self._doubted else ""

    def drop(self) -> None:
        """Follow them no more."""
        self._following.drop(self.table)

    def set_ranges(self, ranges: tuple[Prefix, ...]) -> bool:
        """Judge what lies in these pod ranges; whether `prefixes` is another object now."""
        if ranges == self.ranges:
            return False
        self.ranges = ranges
        self.prefixes = NodePrefixes(ranges, map(_facts, self.table.values.values()))
        return True

    def told(self, intent: Intent, ranges: tuple[Prefix, ...]) -> Intent:
        """The same intent, with who may announce what in these pod ranges."""
        self.set_ranges(ranges)
        return replace(intent, pod_ranges=ranges, nodes=self.prefixes.nodes)

    def _take(self, batch: Batch[Node]) -> None:
        if not self.table.values:
            self._doubted = self._doubted or bool(batch.deleted)
        elif self._doubted:
            self._doubted = False
            self.prefixes = NodePrefixes(self.ranges, map(_facts, self.table.values.values()))
        else:
            self._judge(batch)
        self._changed()

    def _judge(self, batch: Batch[Node]) -> None:
        touched: set[Prefix] = set()
        for node in batch.deleted:
            touched |= self.prefixes.remove(node.name)
        for node in batch.changed:
            touched |= self.prefixes.set(_facts(node))
        if touched:
            self.on_touched(touched)


def _facts(node: Node) -> KnownNode:
    return KnownNode(node.name, node.pod_cidrs, frozenset(node.addresses))
