"""The RIB as network stories; tests/property/test_rib.py covers what nobody thought of."""

from __future__ import annotations

import pytest

from routes.adj_rib_in import MAX_DROPPED_SHOWN, LimitKind
from routes.loc_rib import Change
from routes.own_path import OwnPath
from routes.path import (
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
from routes.policy import AllowEntry, ImportPolicy, MaxPrefixes, PeerImport
from routes.prefix import Address, Family, Prefix, parse_address
from routes.rib import MAX_REFUSED_SHOWN, Rib

POD = Prefix.parse("10.244.2.0/24")
OTHER = Prefix.parse("10.244.3.0/24")
POD6 = Prefix.parse("fd00:10:244:2::/64")
OWN = Prefix.parse("10.244.1.0/24")
FOREIGN = Prefix.parse("192.0.2.0/24")
ALLOW = (
    AllowEntry(Prefix.parse("10.244.0.0/16"), 16, 32),
    AllowEntry(Prefix.parse("fd00:10:244::/48"), 48, 128),
)
A = Source(PeerName("192.0.2.1"), PeerKind.IBGP, 65000, 1, parse_address("192.0.2.1"))
B = Source(PeerName("192.0.2.2"), PeerKind.IBGP, 65000, 2, parse_address("192.0.2.2"))
TOR = Source(PeerName("192.0.2.3"), PeerKind.EBGP, 64512, 3, parse_address("192.0.2.3"))
VIA_A = PathAttributes(Origin.IGP, AsPath.of(()), A.address)
VIA_B = PathAttributes(Origin.IGP, AsPath.of(()), B.address)
VIA_TOR = PathAttributes(
    Origin.IGP, AsPath.of((AsSegment(SegmentKind.SEQUENCE, (64512,)),)), TOR.address, local_pref=900
)
BOTH = frozenset(Family)


def policy(*allow: AllowEntry, **options: PeerImport) -> ImportPolicy:
    peers = {A.peer: options["a"]} if options else None
    return ImportPolicy(asn=65000, router_id=99, allow=allow or ALLOW, peers=peers)


def rib(*sources: Source, multipath: int = 1, limits: MaxPrefixes | None = None) -> Rib:
    made = Rib(policy(a=PeerImport(max_prefixes=limits)), multipath)
    for source in sources:
        made.session_up(source, BOTH)
    return made


def announce(made: Rib, source: Source, attributes: PathAttributes, *nlris: Prefix, path_id: int = 0) -> None:
    made.update(source, path_id, attributes, nlris, ())


def selection(made: Rib) -> dict[Prefix, list[Address]]:
    """What changed, as next hops."""
    return {
        change.nlri: [path.attributes.next_hop for path in change.after] for change in made.take_changes()
    }


def test_a_path_comes_and_goes() -> None:
    made, path = rib(A), Path(POD, VIA_A, A)
    announce(made, A, VIA_A, POD)
    assert made.take_changes() == [Change(POD, (), (path,))]
    assert made.take_changes() == []
    made.update(A, 0, None, (), (POD,))
    assert made.take_changes() == [Change(POD, (path,), ())]
    assert made.loc_rib(Family.IPV4).holders == {}


def test_the_same_again_is_no_change_and_another_attribute_is_one() -> None:
    made = rib(A)
    announce(made, A, VIA_A, POD)
    made.take_changes()
    announce(made, A, VIA_A._replace(), POD)
    assert made.take_changes() == []
    announce(made, A, VIA_A._replace(communities=(5,)), POD)
    assert [change.after[0].attributes.communities for change in made.take_changes()] == [(5,)]


def test_one_decision_for_a_prefix_that_was_touched_often() -> None:
    made = rib(A, B)
    announce(made, A, VIA_A, POD, OTHER)
    made.update(A, 0, None, (), (POD,))
    announce(made, B, VIA_B, POD)
    made.update(A, 0, None, (), (OTHER,))
    assert selection(made) == {POD: [B.address]}


def test_a_refused_path_replaces_the_peers_earlier_one() -> None:
    made = rib(A, B)
    announce(made, A, VIA_A, POD)
    announce(made, B, VIA_B, POD)
    assert selection(made) == {POD: [A.address]}
    announce(made, A, VIA_A._replace(originator_id=99), POD)
    assert selection(made) == {POD: [B.address]}
    assert made.counts(A.peer, Family.IPV4)[:2] == (1, 0)


def test_local_pref_of_another_as_counts_for_nothing() -> None:
    made = rib(A, TOR)
    announce(made, TOR, VIA_TOR, POD)
    announce(made, A, VIA_A._replace(local_pref=200), POD)
    assert selection(made) == {POD: [A.address]}


def test_equal_paths_forward_together() -> None:
    made = rib(A, B, multipath=2)
    announce(made, A, VIA_A, POD)
    announce(made, B, VIA_B, POD)
    assert selection(made) == {POD: [A.address, B.address]}
    made.set_multipath(1)
    assert selection(made) == {POD: [A.address]}


def test_add_path_gives_one_peer_several_paths() -> None:
    made = rib(A, multipath=4)
    announce(made, A, VIA_A, POD, path_id=1)
    announce(made, A, VIA_B, POD, path_id=2)
    assert selection(made) == {POD: [A.address, B.address]}
    made.update(A, 1, None, (), (POD,))
    assert selection(made) == {POD: [B.address]}
    made.update(A, 2, None, (), (POD,))
    assert selection(made) == {POD: []}
    assert len(made.table(A.peer, Family.IPV4) or ()) == 0


def test_our_own_prefix_wins_and_what_lies_inside_is_refused() -> None:
    made = rib(A)
    inside = Prefix.parse("10.244.1.7/32")
    announce(made, A, VIA_A, OWN, inside)
    made.take_changes()
    made.originate([OwnPath(OWN)])
    changes = {change.nlri: change.after for change in made.take_changes()}
    assert changes[OWN][0].source.kind is PeerKind.LOCAL
    assert changes[inside] == ()
    made.originate([])
    assert selection(made) == {OWN: [A.address], inside: [A.address]}


def test_a_new_policy_judges_what_was_received() -> None:
    made = rib(A)
    announce(made, A, VIA_A, POD, FOREIGN)
    assert selection(made) == {POD: [A.address]}
    made.set_policy(policy(AllowEntry(FOREIGN, 24, 24)))
    assert selection(made) == {POD: [], FOREIGN: [A.address]}


def test_own_prefixes_outlive_a_new_policy() -> None:
    made = rib()
    made.originate([OwnPath(OWN)])
    made.set_policy(policy())
    assert made.originated == (OwnPath(OWN),)
    assert made.policy.own_prefixes == (OWN,)


def test_next_hops_that_resolve_differently() -> None:
    made = rib(A, B)
    cost: dict[Address, int | None] = {A.address: 0, B.address: 0}
    made.set_resolver(lambda path: cost[path.attributes.next_hop])
    announce(made, A, VIA_A, POD)
    announce(made, B, VIA_B, POD, OTHER)
    assert selection(made) == {POD: [A.address], OTHER: [B.address]}
    cost[A.address] = None
    made.next_hops_changed({A.address})
    assert selection(made) == {POD: [B.address]}
    cost[B.address] = 5
    made.next_hops_changed({B.address})
    same = made.take_changes()
    assert {change.nlri for change in same} == {POD, OTHER}
    assert all(change.before == change.after for change in same)


def test_losing_a_session_takes_its_paths() -> None:
    made = rib(A, B)
    announce(made, A, VIA_A, POD, OTHER)
    announce(made, B, VIA_B, POD)
    made.take_changes()
    made.session_down(A.peer)
    assert selection(made) == {POD: [B.address], OTHER: []}


def test_graceful_restart_keeps_forwarding_and_sweeps_what_did_not_come_again() -> None:
    made = rib(A)
    announce(made, A, VIA_A, POD, OTHER)
    announce(made, A, VIA_A._replace(next_hop=parse_address("fd00::1")), POD6)
    made.take_changes()
    made.session_down(A.peer, {Family.IPV4})
    assert selection(made) == {POD6: []}
    assert made.counts(A.peer, Family.IPV4).stale == 2
    made.session_up(A, BOTH, {Family.IPV4})
    announce(made, A, VIA_A, POD)
    assert made.end_of_rib(A, Family.IPV4) == 1
    assert made.end_of_rib_received(A.peer) == {Family.IPV4}
    assert made.take_changes() == []
    assert made.sweep_stale(A.peer, Family.IPV4) == 1
    assert selection(made) == {OTHER: []}


def test_without_the_f_bit_stale_paths_go_at_once() -> None:
    made = rib(A)
    announce(made, A, VIA_A, POD)
    made.session_down(A.peer, BOTH)
    made.session_up(A, BOTH, ())
    assert made.counts(A.peer, Family.IPV4).received == 0


def test_a_family_that_is_not_negotiated_again_goes_at_once() -> None:
    made = rib(A)
    announce(made, A, VIA_A, POD)
    made.session_down(A.peer, BOTH)
    made.session_up(A, {Family.IPV6}, BOTH)
    announce(made, A, VIA_A, POD)
    assert made.counts(A.peer, Family.IPV4).received == 0
    assert made.take_changes() == []


def test_a_second_restart_drops_what_the_first_left_stale() -> None:
    made = rib(A)
    announce(made, A, VIA_A, POD, OTHER)
    made.session_down(A.peer, BOTH)
    made.session_up(A, BOTH, BOTH)
    announce(made, A, VIA_A, POD)
    made.session_down(A.peer, BOTH)
    assert selection(made) == {POD: [A.address]}


def test_enhanced_route_refresh_marks_and_sweeps() -> None:
    made = rib(A)
    announce(made, A, VIA_A, POD, OTHER)
    made.mark_stale(A.peer, Family.IPV4)
    announce(made, A, VIA_A, OTHER)
    assert made.sweep_stale(A.peer, Family.IPV4) == 1
    assert selection(made) == {OTHER: [A.address]}


def test_a_forgotten_peer_leaves_nothing() -> None:
    made = rib(A)
    announce(made, A, VIA_A, POD)
    made.session_down(A.peer, BOTH)
    made.forget(A.peer)
    made.forget(B.peer)
    assert made.take_changes() == []
    assert made.peers() == ()


def test_an_update_without_a_session_is_our_mistake() -> None:
    made = rib(A)
    made.session_down(A.peer)
    with pytest.raises(ValueError, match="no session"):
        announce(made, A, VIA_A, POD)


def nlris(count: int) -> list[Prefix]:
    return [Prefix(Address(bytes((10, 244, number, 0))), 24) for number in range(count)]


@pytest.mark.parametrize(("action", "received"), [("reset", 12), ("warn", 12), ("drop", 10)])
@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_limit_warns_and_then_acts(action: str, received: int, one_by_one: bool) -> None:
    made = rib(A, limits=MaxPrefixes(10, 80, action))
    kinds = []
    for group in [[nlri] for nlri in nlris(12)] if one_by_one else [nlris(9), nlris(12)]:
        announce(made, A, VIA_A, *group)
        kinds += [event.kind for event in made.take_limit_events()]
    assert kinds == [LimitKind.WARN, LimitKind.EXCEEDED]
    assert made.counts(A.peer, Family.IPV4).received == received


def test_a_limit_that_is_crossed_again_and_again_speaks_once() -> None:
    made = rib(A, limits=MaxPrefixes(10, 80, "warn"))
    for _ in range(20):
        announce(made, A, VIA_A, *nlris(9))
        made.update(A, 0, None, (), nlris(9)[8:])
    assert [event.kind for event in made.take_limit_events()] == [LimitKind.WARN]


def test_room_again_after_dropping_is_told() -> None:
    made = rib(A, limits=MaxPrefixes(10, 80, "drop"))
    announce(made, A, VIA_A, *nlris(12))
    made.take_limit_events()
    made.update(A, 0, None, (), nlris(5))
    assert [event.kind for event in made.take_limit_events()] == [LimitKind.CLEARED]


def test_a_limit_lifted_while_paths_are_dropped_is_told() -> None:
    made = rib(A, limits=MaxPrefixes(10, 80, "drop"))
    announce(made, A, VIA_A, *nlris(12))
    made.take_limit_events()
    made.set_policy(policy())
    assert [event.kind for event in made.take_limit_events()] == [LimitKind.CLEARED]


def test_what_a_peer_can_make_us_remember_is_bounded() -> None:
    made = rib(A, limits=MaxPrefixes(1, 80, "drop"))
    many = [Prefix(Address(bytes((10, 244, n >> 8, n & 255))), 32) for n in range(MAX_DROPPED_SHOWN + 99)]
    announce(made, A, VIA_A, *many)
    table = made.table(A.peer, Family.IPV4)
    assert table is not None
    assert (len(table), len(table.dropped)) == (1, MAX_DROPPED_SHOWN)


def test_refusals_are_counted_and_the_first_are_shown() -> None:
    made = rib(A)
    announce(made, A, VIA_A, *[Prefix(Address(bytes((172, 16, n, 0))), 24) for n in range(200)])
    refusals = made.take_refusals()
    assert (refusals.total, len(refusals.first)) == (200, MAX_REFUSED_SHOWN)
    path, verdict = refusals.first[0]
    assert (str(path.nlri), verdict.rule) == ("172.16.0.0/24", "not-allowed")
    assert made.take_refusals() == (0, ())
