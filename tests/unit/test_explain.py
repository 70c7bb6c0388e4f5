"""What a person is shown of a prefix, table by table, and the first gate that it fails."""

from __future__ import annotations

import pytest

from routes.adj_rib_out import Target
from routes.explain import explain, known_prefixes, paths_of
from routes.own_next_hop import OwnNextHop
from routes.own_path import OwnPath
from routes.path import (
    EMPTY_AS_PATH,
    LOCAL_PEER,
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
from routes.policy import AllowEntry, ImportPolicy, MaxPrefixes, PeerImport
from routes.prefix import Address, Family, Prefix, host_prefix, parse_address
from routes.rib import Rib
from routes.route_policy import Action, RoutePolicy, RouteRule
from routes.view import FibView, Gate, Match, NextHopView, PathView, Table

POD = Prefix.parse("10.244.2.0/24")
OWN = Prefix.parse("10.244.1.0/24")
LEAK = Prefix.parse("0.0.0.0/0")
NODE = parse_address("192.0.2.11")
A = Source(PeerName("192.0.2.1"), PeerKind.IBGP, 65000, 1, parse_address("192.0.2.1"))
B = Source(PeerName("192.0.2.2"), PeerKind.IBGP, 65000, 2, parse_address("192.0.2.2"))
TOR = Source(PeerName("192.0.2.3"), PeerKind.EBGP, 64512, 3, parse_address("192.0.2.3"))
VIA_A = PathAttributes(Origin.IGP, EMPTY_AS_PATH, A.address)
VIA_TOR = PathAttributes(
    Origin.IGP, AsPath.of((AsSegment(SegmentKind.SEQUENCE, (64512,)),)), TOR.address, local_pref=900
)
INSTALLED = FibView(POD, (NextHopView(A.address, 2, "eth0"),), 20, installed=True)


def rib(multipath: int = 1) -> Rib:
    policy = ImportPolicy(
        asn=65000,
        router_id=99,
        allow=[AllowEntry(Prefix.parse("10.244.0.0/16"), 16, 32)],
        own_paths=[OwnPath(OWN)],
        peers={B.peer: PeerImport(max_prefixes=MaxPrefixes(1, action="drop"))},
    )
    made = Rib(policy, multipath)
    for source in (A, B, TOR):
        made.session_up(source, Family)
    return made


def announce(made: Rib, source: Source, attributes: PathAttributes, *nlris: Prefix) -> None:
    made.update(source, 0, attributes, nlris, ())
    made.take_changes()


def target(kind: PeerKind, next_hop: OwnNextHop) -> Target:
    session = Negotiated(kind, 65000, 65000, 1, NODE, A.address, 0, 90, frozenset({Family.IPV4}))
    return Target(A.peer, session, {Family.IPV4: next_hop})


def brief(views: list[PathView]) -> list[tuple[str, str, str]]:
    """Peer, rule, and what the decision made of the path."""
    state = {(True, False): "best", (False, True): "multipath"}
    return [
        (view.path.source.peer, view.rule, state.get((view.best, view.multipath), view.lost_at))
        for view in views
    ]


def test_the_same_prefix_in_each_table() -> None:
    made = rib()
    announce(made, TOR, VIA_TOR, POD)
    announce(made, A, VIA_A._replace(local_pref=200), POD)
    announce(made, B, VIA_A._replace(originator_id=99), POD)
    allowed = "allow 10.244.0.0/16"
    accepted = [(A.peer, allowed, "best"), (TOR.peer, allowed, "local-pref")]
    assert brief(paths_of(made, POD, Table.ADJ_IN_PRE)) == [*accepted, (B.peer, "originator-loop", "")]
    assert brief(paths_of(made, POD, Table.ADJ_IN_POST)) == accepted
    assert brief(paths_of(made, POD, Table.LOC_RIB)) == accepted[:1]
    assert brief(paths_of(made, POD, Table.LOC_RIB, TOR.peer)) == []
    assert brief(paths_of(made, POD, Table.ADJ_IN_PRE, TOR.peer)) == accepted[1:]


def test_before_and_after_policy() -> None:
    made = rib()
    announce(made, TOR, VIA_TOR, POD)
    (before,), (after,) = (paths_of(made, POD, table) for table in (Table.ADJ_IN_PRE, Table.ADJ_IN_POST))
    assert (before.attributes.local_pref, after.attributes.local_pref) == (900, None)
    assert after.path.attributes is after.attributes


def test_paths_of_equal_cost() -> None:
    made = rib(multipath=2)
    announce(made, A, VIA_A, POD)
    announce(made, B, VIA_A._replace(next_hop=B.address), POD)
    assert [view.multipath for view in paths_of(made, POD, Table.LOC_RIB)] == [False, True]


def test_a_loser_and_a_refused_path_say_why() -> None:
    made = rib()
    announce(made, A, VIA_A._replace(local_pref=200), POD)
    announce(made, TOR, VIA_TOR, POD, LEAK)
    loser = paths_of(made, POD, Table.ADJ_IN_POST, TOR.peer)[0]
    assert loser.reason == "another path has a higher local preference (best: 192.0.2.1)"
    leaked = paths_of(made, LEAK, Table.ADJ_IN_PRE)[0]
    assert (leaked.rule, leaked.accepted) == ("default-not-allowed", False)
    assert leaked.reason == "a default route is accepted only where 0.0.0.0/0 is listed"


def test_stale_paths_are_marked() -> None:
    made = rib()
    announce(made, A, VIA_A, POD)
    made.session_down(A.peer, frozenset(Family))
    assert [view.stale for view in paths_of(made, POD, Table.LOC_RIB)] == [True]


def test_own_prefixes_are_in_loc_rib_and_in_no_peers_table() -> None:
    made = rib()
    made.take_changes()
    assert brief(paths_of(made, OWN, Table.LOC_RIB)) == [(LOCAL_PEER, "originated", "best")]
    assert paths_of(made, OWN, Table.ADJ_IN_POST) == []


def test_over_the_limit_is_shown_as_refused() -> None:
    made = rib()
    announce(made, B, VIA_A, POD, Prefix.parse("10.244.3.0/24"))
    (view,) = paths_of(made, Prefix.parse("10.244.3.0/24"), Table.ADJ_IN_PRE)
    assert (view.rule, view.reason) == (
        "max-prefixes",
        "192.0.2.2 announces more prefixes than its limit of 1",
    )


@pytest.mark.parametrize(
    ("table", "peer", "known"),
    [
        (Table.ADJ_IN_PRE, None, {POD, LEAK, OWN}),
        (Table.ADJ_IN_PRE, A.peer, {POD}),
        (Table.ADJ_IN_PRE, TOR.peer, {LEAK}),
        (Table.ADJ_IN_POST, TOR.peer, set()),
        (Table.ADJ_IN_POST, A.peer, {POD}),
        (Table.LOC_RIB, None, {POD, OWN}),
        (Table.ADJ_OUT, None, {OWN}),
    ],
)
def test_the_known_prefixes_of_a_table(table: Table, peer: PeerName | None, known: set[Prefix]) -> None:
    made = rib()
    announce(made, A, VIA_A, POD)
    announce(made, TOR, VIA_TOR, LEAK)
    found = known_prefixes(made, table, peer)
    assert set(found) == known
    assert len(found) == len(known)
    assert all(nlri in found for nlri in known)
    assert Prefix.parse("192.0.2.0/24") not in found


def test_a_listing_survives_changes_between_its_steps() -> None:
    made = rib()
    announce(made, A, VIA_A, *[Prefix(Address(bytes((10, 244, n, 0))), 24) for n in range(2, 50)])
    steps = iter([nlri for nlri in known_prefixes(made, Table.ADJ_IN_POST) if nlri != OWN])
    shown = [paths_of(made, next(steps), Table.ADJ_IN_POST)]
    made.session_down(A.peer)
    made.take_changes()
    shown += [paths_of(made, nlri, Table.ADJ_IN_POST) for nlri in steps]
    assert [len(views) for views in shown] == [1] + [0] * 47


def test_what_a_peer_was_told() -> None:
    made = rib()
    made.take_changes()
    (view,) = paths_of(made, OWN, Table.ADJ_OUT, targets=[target(PeerKind.IBGP, OwnNextHop(NODE))])
    assert (view.to, view.attributes.next_hop, view.attributes.local_pref) == (A.peer, NODE, 100)
    assert view.path == Path(OWN, view.attributes, view.path.source)
    untold = [target(PeerKind.IBGP, OwnNextHop(None, reason="none"))]
    assert paths_of(made, OWN, Table.ADJ_OUT, targets=untold) == []
    assert paths_of(made, OWN, Table.ADJ_OUT, B.peer, [target(PeerKind.IBGP, OwnNextHop(NODE))]) == []


@pytest.mark.parametrize(
    ("given", "fib", "failed", "word"),
    [
        (None, [], Gate.ANNOUNCED, "nobody announces 10.244.2.0/24"),
        (
            VIA_A._replace(originator_id=99),
            [],
            Gate.IMPORT,
            "192.0.2.1: the originator ID 0.0.0.99 is our own",
        ),
        (
            VIA_A._replace(next_hop=B.address),
            [],
            Gate.NEXT_HOP,
            "192.0.2.2 can't be resolved: no link has it",
        ),
        (VIA_A, [], Gate.KERNEL, "no entry has been asked for yet"),
        (
            VIA_A,
            [FibView(POD, (), 20, installed=False, reason="the kernel said: No route to host")],
            Gate.KERNEL,
            "No route to host",
        ),
        (
            VIA_A,
            [INSTALLED],
            None,
            "packets for 10.244.2.0/24 go to 192.0.2.1 on eth0, as 192.0.2.1 announces",
        ),
    ],
)
def test_the_first_gate(
    given: PathAttributes | None, fib: list[FibView], failed: Gate | None, word: str
) -> None:
    made = rib()
    made.set_resolver(
        lambda path: None if path.attributes.next_hop == B.address else 0, lambda _: "no link has it"
    )
    if given is not None:
        announce(made, A, given, POD)
    explanation = explain(made, POD, Match.EXACT, lambda _: fib)
    assert explanation.failed is failed
    assert word in explanation.text


def test_a_held_entry_is_told_beside_the_gate() -> None:
    made = rib()
    announce(made, A, VIA_A._replace(originator_id=99), POD)
    held = FibView(POD, INSTALLED.next_hops, 20, installed=True, held=True)
    explanation = explain(made, POD, Match.EXACT, lambda _: [held])
    assert explanation.failed is Gate.IMPORT
    assert "keeps the entry" in explanation.text


def test_our_own_prefix_is_announced_and_unreachable() -> None:
    made = rib()
    made.take_changes()
    entry = FibView(OWN, (), 4278198272, installed=True)
    told = [target(PeerKind.IBGP, OwnNextHop(NODE))]
    explanation = explain(made, OWN, Match.EXACT, lambda _: [entry], told)
    assert explanation.failed is None
    assert "our own" in explanation.text
    assert explanation.advertised_to == (A.peer,)


def test_an_address_is_answered_by_the_longest_selected_prefix() -> None:
    made = rib()
    announce(made, A, VIA_A, Prefix.parse("10.244.0.0/16"))
    announce(made, TOR, VIA_TOR._replace(next_hop=parse_address("127.0.0.1")), POD)
    explanation = explain(
        made, host_prefix(parse_address("10.244.2.9")), Match.LONGEST, lambda _: [INSTALLED]
    )
    assert explanation.nlri == Prefix.parse("10.244.0.0/16")
    assert brief(list(explanation.more_specific)) == [(TOR.peer, "martian-next-hop", "")]


def test_an_address_that_nothing_selected_covers() -> None:
    made = rib()
    announce(made, TOR, VIA_TOR, LEAK)
    address = host_prefix(parse_address("203.0.113.9"))
    explanation = explain(made, address, Match.LONGEST, lambda _: [])
    assert (explanation.nlri, explanation.failed) == (LEAK, Gate.IMPORT)
    nothing = explain(made, host_prefix(parse_address("fd00::1")), Match.LONGEST, lambda _: [])
    assert (nothing.nlri, nothing.failed) == (None, Gate.ANNOUNCED)


def test_a_peer_is_told_why_it_does_not_get_a_path() -> None:
    made = rib()
    made.take_changes()
    session = Negotiated(PeerKind.IBGP, 65000, 65000, 1, NODE, A.address, 0, 90, frozenset({Family.IPV4}))
    policies = (RoutePolicy("out", (RouteRule("none", Action.REJECT),)),)
    targets = [
        Target(A.peer, session, {Family.IPV4: OwnNextHop(NODE)}, policies),
        Target(B.peer, session, {Family.IPV4: OwnNextHop(NODE)}, draining=True),
    ]
    (told,) = paths_of(made, OWN, Table.ADJ_OUT, None, targets)
    assert (told.to, told.attributes.local_pref) == (B.peer, 0)
    (refused,) = paths_of(made, OWN, Table.ADJ_OUT, A.peer, targets)
    assert (refused.accepted, refused.rule) == (False, "policy out rule none")
    assert refused.reason == "policy out rule none rejects it"


def test_a_service_address_of_ours_needs_no_kernel_entry() -> None:
    made = rib()
    made.originate([OwnPath(OWN), OwnPath(POD, unreachable=False)])
    announce(made, A, VIA_A, POD)
    found = explain(made, POD, Match.EXACT, lambda _: ())
    assert found.failed is None
    assert "announced, and without a kernel entry" in found.text
    assert [(view.path.source.peer, view.lost_at) for view in found.paths] == [
        (LOCAL_PEER, ""),
        (A.peer, "not-local"),
    ]
