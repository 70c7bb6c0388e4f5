"""What a peer is told, by the kind of its session."""

from __future__ import annotations

import pytest

from routes.adj_rib_out import ORIGINATED, Target, export, judge_export, prepended
from routes.own_next_hop import OwnNextHop
from routes.path import (
    EMPTY_AS_PATH,
    AsPath,
    AsSegment,
    Origin,
    Path,
    PathAttributes,
    PeerKind,
    PeerName,
    SegmentKind,
    Source,
)
from routes.peer import Negotiated
from routes.prefix import Family, Prefix, parse_address

OWN = Prefix.parse("10.244.1.0/24")
OWN6 = Prefix.parse("fd00:10:244:1::/64")
NODE = parse_address("192.0.2.11")
PEER = PeerName("192.0.2.1")
LOCAL = Source(PeerName("local"), PeerKind.LOCAL, 65000, 99, NODE)
LEARNED = Source(PEER, PeerKind.IBGP, 65000, 1, parse_address("192.0.2.1"))


def session(kind: PeerKind) -> Negotiated:
    return Negotiated(kind, 65001, 64512, 1, NODE, LEARNED.address, 0, 90, frozenset({Family.IPV4}))


def sequence(*asns: int) -> AsSegment:
    return AsSegment(SegmentKind.SEQUENCE, asns)


def test_ibgp_gets_local_pref_and_no_as() -> None:
    told = export(session(PeerKind.IBGP), OwnNextHop(NODE))
    assert told == PathAttributes(Origin.IGP, EMPTY_AS_PATH, NODE, local_pref=100)


def test_ebgp_gets_our_as_and_no_local_pref() -> None:
    inside = ORIGINATED._replace(local_pref=200, originator_id=5, cluster_list=(6,))
    told = export(session(PeerKind.EBGP), OwnNextHop(NODE), inside)
    assert told == PathAttributes(Origin.IGP, AsPath.of((sequence(65001),)), NODE)


def test_the_link_local_half_goes_along() -> None:
    link_local = parse_address("fe80::1")
    told = export(session(PeerKind.IBGP), OwnNextHop(parse_address("fd00::1"), link_local))
    assert told.link_local == link_local


def test_without_a_next_hop_nothing_can_be_told() -> None:
    with pytest.raises(ValueError, match="no address of that family"):
        export(session(PeerKind.IBGP), OwnNextHop(None, reason="no address of that family"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [sequence(7)]),
        ([sequence(1, 2)], [sequence(7, 1, 2)]),
        ([AsSegment(SegmentKind.SET, (1, 2))], [sequence(7), AsSegment(SegmentKind.SET, (1, 2))]),
        ([sequence(*range(255))], [sequence(7), sequence(*range(255))]),
    ],
)
def test_prepending(before: list[AsSegment], after: list[AsSegment]) -> None:
    assert prepended(AsPath.of(tuple(before)), 7) == AsPath.of(tuple(after))


@pytest.mark.parametrize(
    ("nlri", "source", "next_hop", "rule", "word"),
    [
        (OWN, LOCAL, OwnNextHop(NODE), "own", "our own"),
        (Prefix.parse("10.244.2.0/24"), LEARNED, OwnNextHop(NODE), "not-own", "10.244.2.0/24"),
        (OWN6, LOCAL, OwnNextHop(NODE), "not-negotiated", "ipv6"),
        (OWN, LOCAL, OwnNextHop(None, reason="the link has no ipv4 address"), "no-next-hop", "the link"),
        (OWN, LOCAL, None, "no-next-hop", "ipv4"),
    ],
)
def test_the_rule_for_an_export(
    nlri: Prefix, source: Source, next_hop: OwnNextHop | None, rule: str, word: str
) -> None:
    next_hops = {} if next_hop is None else {Family.IPV4: next_hop}
    verdict = judge_export(Path(nlri, ORIGINATED, source), Target(PEER, session(PeerKind.IBGP), next_hops))
    assert verdict.rule == rule
    assert verdict.accepted == (rule == "own")
    assert word in verdict.text
