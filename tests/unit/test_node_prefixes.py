"""Whose a pod prefix is: what a node may announce, and what happens when nodes come, change and go."""

from __future__ import annotations

import time

import pytest

from routes.node_prefixes import KnownNode, NodePrefixes
from routes.prefix import Address, Prefix, parse_address

PODS = (Prefix.parse("10.244.0.0/16"), Prefix.parse("fd00:10:244::/48"))
ONE, ONE6, TWO = parse_address("192.0.2.1"), parse_address("2001:db8::1"), parse_address("192.0.2.2")


def node(name: str, prefixes: str, *addresses: Address) -> KnownNode:
    return KnownNode(name, tuple(map(Prefix.parse, prefixes.split())), frozenset(addresses))


A = node("a", "10.244.1.0/24 fd00:10:244:1::/64", ONE, ONE6)
B = node("b", "10.244.2.0/24", TWO)


@pytest.mark.parametrize(
    ("nlri", "next_hop", "refused"),
    [
        ("10.244.1.0/24", ONE, ""),
        ("10.244.1.0/24", ONE6, ""),
        ("fd00:10:244:1::/64", ONE6, ""),
        ("10.244.1.7/32", ONE, ""),
        ("10.244.1.0/24", TWO, "belongs to node a, which does not have the next hop 192.0.2.2"),
        ("10.244.1.7/32", TWO, "10.244.1.7/32 belongs to node a"),
        ("10.244.3.0/24", ONE, "lies in the pod ranges and belongs to no node"),
        ("10.244.0.0/22", ONE, "belongs to no node"),
        ("10.244.0.0/16", ONE, "belongs to no node"),
        ("10.0.0.0/8", ONE, ""),
        ("203.0.113.7/32", TWO, ""),
        ("0.0.0.0/0", TWO, ""),
    ],
)
def test_only_a_node_announces_its_prefix_and_from_its_address(
    nlri: str, next_hop: Address, refused: str
) -> None:
    text = NodePrefixes(PODS, [A, B]).why_refused(Prefix.parse(nlri), next_hop)
    assert refused in text
    assert bool(text) == bool(refused)


def test_a_prefix_of_two_nodes_is_nobodys_until_one_gives_it_up() -> None:
    nodes = NodePrefixes(PODS, [A])
    pod = A.prefixes[0]
    twin = node("twin", "10.244.1.0/24", TWO)
    assert nodes.set(twin) == {pod}
    assert nodes.why_refused(pod, ONE) == "10.244.1.0/24 belongs to more than one node: a, twin"
    assert nodes.why_refused(pod, TWO)
    assert nodes.remove("twin") == {pod}
    assert nodes.why_refused(pod, ONE) == ""


def test_a_prefix_inside_another_nodes_is_nobodys_and_the_other_ones_stays() -> None:
    nodes = NodePrefixes(PODS, [A, B, node("thief", "10.244.1.128/25", TWO)])
    assert "a, thief" in nodes.why_refused(Prefix.parse("10.244.1.128/25"), TWO)
    assert nodes.why_refused(A.prefixes[0], ONE) == ""


def test_a_node_with_a_whole_pod_range_takes_nobody_off_the_network() -> None:
    nodes = NodePrefixes(PODS, [A, B])
    assert PODS[0] in nodes.set(node("greedy", "10.244.0.0/16", TWO))
    assert (nodes.why_refused(A.prefixes[0], ONE), nodes.why_refused(B.prefixes[0], TWO)) == ("", "")
    text = nodes.why_refused(PODS[0], TWO)
    assert text.endswith("belongs to no node (greedy has a podCIDR around those of many nodes)")
    # Which of two is right can't be known: as soon as it has one inside alone, that is a conflict.
    assert PODS[0] in nodes.remove("b")
    assert "a, greedy" in nodes.why_refused(A.prefixes[0], ONE)
    nodes.remove("greedy")
    assert nodes.why_refused(A.prefixes[0], ONE) == ""


@pytest.mark.parametrize(
    ("new", "touched"),
    [
        (A, ""),
        (node("a", "fd00:10:244:1::/64 10.244.1.0/24", ONE6, ONE), ""),
        (node("a", "10.244.1.0/24 fd00:10:244:1::/64", TWO), "10.244.1.0/24 fd00:10:244:1::/64"),
        (node("a", "10.244.9.0/24 fd00:10:244:1::/64", ONE, ONE6), "10.244.1.0/24 10.244.9.0/24"),
        (node("c", "10.244.3.0/24", ONE), "10.244.3.0/24"),
        (node("c", "", ONE), ""),
    ],
)
def test_a_change_names_the_prefixes_that_it_touches(new: KnownNode, touched: str) -> None:
    assert NodePrefixes(PODS, [A]).set(new) == set(map(Prefix.parse, touched.split()))


def test_a_node_that_is_gone_leaves_its_prefix_to_nobody() -> None:
    nodes = NodePrefixes(PODS, [A, B])
    assert nodes.remove("b") == set(B.prefixes)
    assert nodes.remove("b") == frozenset()
    assert nodes.why_refused(B.prefixes[0], TWO)
    kept = [Prefix.parse(text) for text in ("10.244.2.0/24", "10.244.1.9/32", "203.0.113.0/24")]
    assert nodes.orphans(kept) == [B.prefixes[0]]


def test_nodes_with_prefixes_of_several_lengths_are_known_as_fast() -> None:
    lengths = (24, 25, 26, 27)
    many = [
        node(f"n{n}", f"10.{n >> 8}.{n & 255}.0/{lengths[n % 4]}", Address(n.to_bytes(4, "big")))
        for n in range(5000)
    ]
    began = time.process_time()
    nodes = NodePrefixes([Prefix.parse("10.0.0.0/8")], many)
    assert time.process_time() - began < 0.5
    assert nodes.why_refused(many[77].prefixes[0], *many[77].addresses) == ""


def test_one_change_among_thousands_costs_no_more_than_among_a_few() -> None:
    many = [node(f"n{n}", f"10.{n >> 8}.{n & 255}.0/24", Address(n.to_bytes(4, "big"))) for n in range(5000)]
    nodes = NodePrefixes([Prefix.parse("10.0.0.0/8")], many)
    moved = many[77]._replace(addresses=frozenset((TWO,)))

    def fastest(rounds: int) -> float:
        best = 1.0
        for turn in range(rounds):
            began = time.perf_counter()
            nodes.set(moved if turn % 2 else many[77])
            nodes.why_refused(many[77].prefixes[0], TWO)
            best = min(best, time.perf_counter() - began)
        return best

    assert fastest(200) < 0.0005
