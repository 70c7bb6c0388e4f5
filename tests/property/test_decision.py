"""The decision depends on the set of paths alone, accounts for each of them, and has one fast equal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from routes.decision import Lost, decide, hop_key, select
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
from routes.prefix import Prefix, parse_address

unhurried = settings(deadline=None)  # a busy machine is no fault of the code
NLRI = Prefix.parse("10.244.2.0/24")
HOPS = [parse_address(text) for text in ("192.0.2.1", "192.0.2.2", "fe80::1", "fd00::1")]
COSTS: list[int | None] = [None, 0, 0, 10]

attributes = st.builds(
    PathAttributes,
    origin=st.sampled_from([Origin.IGP, Origin.IGP, Origin.INCOMPLETE]),
    as_path=st.sampled_from([(1,), (2,), (1, 3), (2, 3)]).map(
        lambda asns: AsPath.of((AsSegment(SegmentKind.SEQUENCE, asns),))
    ),
    next_hop=st.sampled_from(HOPS),
    link_local=st.sampled_from([None, None, HOPS[2]]),
    med=st.sampled_from([None, 0, 1, 2]),
    local_pref=st.sampled_from([None, 100, 100, 200]),
    originator_id=st.sampled_from([None, None, 1, 2]),
    cluster_list=st.sampled_from([(), (9,)]),
)
sources = st.builds(
    Source,
    peer=st.integers(1, 4).map(lambda n: PeerName(f"192.0.2.{n}")),
    kind=st.sampled_from([PeerKind.IBGP, PeerKind.EBGP]),
    asn=st.just(1),
    bgp_id=st.integers(1, 2),
    address=st.sampled_from(HOPS),
    ifindex=st.integers(0, 1),
)
path_lists = st.lists(
    st.builds(Path, st.just(NLRI), attributes, sources, st.integers(0, 2)),
    max_size=7,
    unique_by=lambda path: (path.source.peer, path.path_id),
)
cost_tables = st.permutations(COSTS).map(lambda costs: dict(zip(HOPS, costs, strict=True)))
limits = st.sampled_from([1, 2, 3, 16])


@unhurried
@given(st.data(), path_lists, cost_tables, limits)
def test_the_order_of_arrival_does_not_matter(
    data: st.DataObject, paths: list[Path], costs: dict[bytes, int | None], limit: int
) -> None:
    shuffled = data.draw(st.permutations(paths))
    one = decide(paths, lambda path: costs[path.attributes.next_hop], limit)
    other = decide(shuffled, lambda path: costs[path.attributes.next_hop], limit)
    assert one.selected == other.selected
    assert set(one.lost) == set(other.lost)


@unhurried
@given(path_lists, cost_tables, limits)
def test_every_path_is_selected_or_lost_once(
    paths: list[Path], costs: dict[bytes, int | None], limit: int
) -> None:
    decision = decide(paths, lambda path: costs[path.attributes.next_hop], limit)
    accounted = [*decision.selected, *(path for path, _ in decision.lost)]
    assert sorted(map(id, accounted)) == sorted(map(id, paths))
    resolved = [path for path in paths if costs[path.attributes.next_hop] is not None]
    assert bool(decision.selected) == bool(resolved)
    unresolved = {id(path) for path, reason in decision.lost if reason is Lost.UNRESOLVED}
    assert unresolved == {id(path) for path in paths if costs[path.attributes.next_hop] is None}


@unhurried
@given(path_lists, cost_tables, limits)
def test_what_forwards_together_is_equal(
    paths: list[Path], costs: dict[bytes, int | None], limit: int
) -> None:
    selected = decide(paths, lambda path: costs[path.attributes.next_hop], limit).selected
    assert len(selected) <= limit
    assert len({path.source.kind for path in selected}) <= 1
    assert len({path.attributes.as_path.length for path in selected}) <= 1
    assert len({hop_key(path) for path in selected}) == len(selected)


@unhurried
@given(path_lists, cost_tables, limits)
def test_a_loser_that_shadowed_nobody_can_be_taken_away(
    paths: list[Path], costs: dict[bytes, int | None], limit: int
) -> None:
    """After the MED step that is not so: a path that removed another by MED may lose to a third."""
    decision = decide(paths, lambda path: costs[path.attributes.next_hop], limit)
    reasons = {reason for _, reason in decision.lost}
    before_med = {Lost.UNRESOLVED, Lost.LOCAL_PREF, Lost.AS_PATH, Lost.ORIGIN}
    for loser, reason in decision.lost:
        if reason in before_med or Lost.MED not in reasons:
            left = [path for path in paths if path is not loser]
            again = decide(left, lambda path: costs[path.attributes.next_hop], limit)
            assert again.selected == decision.selected


@unhurried
@given(path_lists, cost_tables, limits, st.booleans())
def test_the_fast_selection_equals_the_decision(
    paths: list[Path], costs: dict[bytes, int | None], limit: int, local: bool
) -> None:
    if local:
        own = Source(PeerName("local"), PeerKind.LOCAL, 1, 1, HOPS[0])
        paths = [*paths, Path(NLRI, PathAttributes(Origin.IGP, AsPath.of(()), HOPS[0]), own, 99)]
    decision = decide(paths, lambda path: costs[path.attributes.next_hop], limit)
    assert select(paths, lambda path: costs[path.attributes.next_hop], limit) == decision.selected
    if local:
        assert [path.source.peer for path in decision.selected] == ["local"]
