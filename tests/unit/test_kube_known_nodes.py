"""All Nodes, and what a list without any of them is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from bgpd.kube.following import Following, Settle, Table
from bgpd.kube.known_nodes import KnownNodes
from bgpd.kube.objects import Node
from bgpd.kube.watch import Batch, Resource
from routes.prefix import Prefix, parse_address
from tests.unit.test_kube_intent import PODS, node


class FollowingByHand:
    """Hands out tables that a test feeds."""

    def follow(
        self, _: Resource[Node], changed: Callable[[Batch[Node]], None], settle: Settle[Node]
    ) -> Table[Node]:
        return Table(changed, settle)


def known(*nodes: Node) -> KnownNodes:
    found = KnownNodes(cast("Following", FollowingByHand()), lambda: None)
    found.set_ranges(PODS)
    found.table.take(Batch(changed=nodes))
    return found


FIRST = node(1).pod_cidrs[0]
ADDRESS = parse_address("192.0.2.1")


def test_a_prefix_is_its_node_s_until_the_node_is_gone() -> None:
    nodes = known(node(1), node(2))
    touched: set[Prefix] = set()
    nodes.on_touched = touched.update
    assert nodes.prefixes.why_refused(FIRST, ADDRESS) == ""
    nodes.table.take(Batch(deleted=(node(1),)))
    assert "no node" in nodes.prefixes.why_refused(FIRST, ADDRESS)
    assert touched == set(node(1).pod_cidrs)


def test_a_list_without_any_node_is_not_believed() -> None:
    nodes = known(node(1), node(2))
    nodes.table.take(Batch(deleted=(node(1), node(2))))
    assert nodes.prefixes.why_refused(FIRST, ADDRESS) == ""
    assert "no Node any more" in nodes.doubt


def test_when_nodes_are_known_again_they_are_believed_and_those_that_are_gone_are_gone() -> None:
    nodes = known(node(1), node(2))
    nodes.table.take(Batch(deleted=(node(1), node(2))))
    nodes.table.take(Batch(changed=(node(2),)))
    assert nodes.doubt == ""
    assert "no node" in nodes.prefixes.why_refused(FIRST, ADDRESS)
    assert nodes.prefixes.why_refused(node(2).pod_cidrs[0], parse_address("192.0.2.2")) == ""
