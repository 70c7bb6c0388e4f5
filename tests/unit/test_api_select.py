"""`select` gives what a plain filter and sort give, in small steps, while the table changes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import select as module
from api.select import PAUSE_AFTER, RUN, select
from routes.prefix import Address, Family, Prefix
from routes.view import Match, RouteQuery, Table


def network(prefix: Prefix) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network((prefix.address, prefix.length))


@st.composite
def crowded_prefixes(draw: st.DrawFn) -> Prefix:
    """Few distinct bits, so that prefixes often cover each other."""
    size = draw(st.sampled_from([4, 16]))
    length = draw(st.integers(0, 8))
    byte = draw(st.sampled_from([0b1010_0000, 0b1011_0000, 0b1111_1111, 0])) >> (8 - length) << (8 - length)
    return Prefix(Address(bytes([byte]) + bytes(size - 1)), length)


QUERIES = st.builds(
    RouteQuery,
    table=st.just(Table.LOC_RIB),
    family=st.none() | st.sampled_from(Family),
    prefix=st.none() | crowded_prefixes(),
    match=st.sampled_from(Match),
    after=st.none() | crowded_prefixes(),
)


def reference(query: RouteQuery, known: set[Prefix]) -> list[Prefix]:
    def order(nlri: Prefix) -> tuple[int, Address, int]:
        return nlri.family, nlri.address, nlri.length

    def related(nlri: Prefix) -> bool:
        if query.prefix is None:
            return True
        if nlri.family is not query.prefix.family:
            return False
        inner, outer = network(nlri), network(query.prefix)
        return {
            Match.EXACT: inner == outer,
            Match.LONGER: inner.subnet_of(outer),  # type: ignore[arg-type]  # both of one family
            Match.SHORTER: outer.subnet_of(inner),  # type: ignore[arg-type]  # as above
            Match.LONGEST: outer.subnet_of(inner),  # type: ignore[arg-type]  # as above
        }[query.match]

    found = [
        nlri
        for nlri in sorted(known, key=order)
        if related(nlri)
        and query.family in (None, nlri.family)
        and (query.after is None or order(nlri) > order(query.after))
    ]
    return found[-1:] if query.prefix is not None and query.match is Match.LONGEST else found


@settings(max_examples=300, deadline=None)
@given(query=QUERIES, known=st.sets(crowded_prefixes(), max_size=12), run=st.integers(1, 4))
def test_selecting_equals_filtering_and_sorting(query: RouteQuery, known: set[Prefix], run: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RUN", run)
        found = [
            nlri for nlri in select(query, dict.fromkeys(known), lambda nlri: [nlri]) if nlri is not None
        ]
    assert found == reference(query, known)


def many(count: int) -> dict[Prefix, None]:
    return {Prefix(Address(number.to_bytes(4, "big")), 32): None for number in range(count, 0, -1)}


def test_a_table_that_changes_between_two_steps_does_no_harm() -> None:
    table = many(3 * RUN)
    gone, added = next(reversed(table)), Prefix.parse("1.1.1.1/32")
    items = select(RouteQuery(Table.LOC_RIB), table, lambda nlri: [nlri] if nlri in table else [])
    assert next(items) is None, "the first step examines one run"
    del table[gone]
    table[added] = None
    found = [nlri for nlri in items if nlri is not None]
    assert found == sorted(set(many(3 * RUN)) - {gone})


def test_a_search_without_finds_offers_pauses() -> None:
    nothing: Iterator[Prefix | None] = select(RouteQuery(Table.LOC_RIB), many(2 * RUN), lambda _: ())
    assert list(nothing) == [None] * (2 * 2 + 2 * RUN // PAUSE_AFTER)
