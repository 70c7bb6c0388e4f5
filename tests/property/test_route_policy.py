"""Compiled policies, on which the hot path relies, equal the naive ones for any path."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from routes.path import EMPTY_AS_PATH, AsPath, AsSegment, Origin, PathAttributes, SegmentKind
from routes.prefix import Address, Prefix, parse_address
from routes.route_policy import (
    Action,
    AsPathMatch,
    Outcome,
    PrefixRange,
    RouteMatch,
    RoutePolicy,
    RouteRule,
    RouteSet,
    compile_policies,
    judge,
    prefix_test,
)

NUMBERS = st.integers(1, 4)


def some(values: st.SearchStrategy[int], most: int = 2) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(values, max_size=most, unique=True).map(tuple)


def large(values: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    return tuple((each, each, each) for each in values)


def cut(size: int, value: int, length: int) -> Prefix:
    host = size * 8 - length
    return Prefix(Address((value >> host << host).to_bytes(size, "big")), length)


def prefixes(size: int) -> st.SearchStrategy[Prefix]:
    """Few enough to meet each other."""
    value = st.integers(0, 3).map(lambda bits: bits << (size * 8 - 2) | bits << (size * 8 - 9))
    return st.builds(cut, st.just(size), value, st.integers(0, 10))


def range_of(size: int) -> st.SearchStrategy[PrefixRange]:
    return st.builds(PrefixRange, prefixes(size), st.integers(0, 10), st.integers(0, 12))


any_prefix = st.one_of(prefixes(4), prefixes(16))
any_range = st.one_of(range_of(4), range_of(16))
as_paths = st.one_of(
    st.just(EMPTY_AS_PATH),
    st.lists(
        st.builds(AsSegment, st.sampled_from([SegmentKind.SET, SegmentKind.SEQUENCE]), some(NUMBERS)),
        min_size=1,
        max_size=2,
    ).map(lambda segments: AsPath.of(tuple(segments))),
)
attributes = st.builds(
    PathAttributes,
    origin=st.just(Origin.IGP),
    as_path=as_paths,
    next_hop=st.just(parse_address("192.0.2.1")),
    med=st.sampled_from([None, 0, 1]),
    local_pref=st.sampled_from([None, 0, 1]),
    communities=some(NUMBERS),
    large_communities=some(NUMBERS).map(large),
)
matches = st.builds(
    RouteMatch,
    prefixes=st.lists(any_range, max_size=3).map(tuple),
    as_path=st.builds(
        AsPathMatch,
        some(NUMBERS),
        some(NUMBERS, 1),
        some(NUMBERS, 1),
        st.sampled_from([None, None, 1, 2]),
        st.sampled_from([None, None, 1, 2]),
    ),
    communities=some(NUMBERS, 1),
    large_communities=some(NUMBERS, 1).map(large),
)
changes = st.builds(
    RouteSet,
    local_pref=st.sampled_from([None, 0, 7]),
    med=st.sampled_from([None, 0, 7]),
    prepend=st.sampled_from([None, 1]),
    add_communities=some(NUMBERS),
    remove_communities=some(NUMBERS),
    add_large_communities=some(NUMBERS, 1).map(large),
)
rules = st.builds(RouteRule, st.sampled_from("rst"), st.sampled_from(Action), matches, changes)
policies = st.lists(
    st.builds(
        RoutePolicy,
        st.sampled_from("abc"),
        st.lists(rules, max_size=4).map(tuple),
        st.sampled_from([Action.ACCEPT, Action.REJECT]),
    ),
    max_size=3,
)


@settings(max_examples=400, deadline=None)
@given(policies, st.lists(attributes, min_size=1, max_size=3), st.data())
def test_a_compiled_policy_equals_the_naive_one(
    chosen: list[RoutePolicy], known: list[PathAttributes], data: st.DataObject
) -> None:
    def itself(told: Outcome) -> Outcome:
        return told

    compiled = compile_policies(chosen, itself)
    for nlri, path in data.draw(st.lists(st.tuples(any_prefix, st.sampled_from(known)), max_size=12)):
        assert compiled(nlri, path) == judge(chosen, nlri, path)


@settings(max_examples=300, deadline=None)
@given(st.lists(any_range, max_size=6), any_prefix)
def test_a_compiled_prefix_condition_equals_the_naive_one(ranges: list[PrefixRange], nlri: Prefix) -> None:
    assert prefix_test(ranges)(nlri) == any(each.holds(nlri) for each in ranges)
