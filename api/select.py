"""Picks what a query asks for out of a table, in order, in steps that are short whatever the table's size.

The daemon builds its `paths` and `fib` iterators on `select`.  Sorting 100,000 prefixes at once would hold
the event loop for a tenth of a second, so runs of a few thousand are sorted one by one, with a pause after
each, and merged lazily.  The mapping may change between two steps: what is added or removed meanwhile may
or may not appear, and nothing appears twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import merge
from typing import TypeVar

from routes.prefix import ADDRESS_SIZE, Address, Prefix
from routes.view import Match, RouteQuery

Item = TypeVar("Item")

RUN = 2048
"""Prefixes examined, and sorted, in one step: about a millisecond."""
PAUSE_AFTER = 256
"""Prefixes without any item before a pause is offered."""


def select(
    query: RouteQuery, known: Collection[Prefix], items_of: Callable[[Prefix], Iterable[Item]]
) -> Iterator[Item | None]:
    """The items of every prefix in `known` that the query's family, prefix and `after` admit, in order.

    `items_of` returns the items of one prefix that the rest of the query (table, peer) admits, none when
    there are none (any more).  None in the result offers a pause to the event loop.
    """
    if query.prefix is not None and query.match is not Match.LONGER:
        yield from _along_one_branch(query, query.prefix, known, items_of)
        return
    idle = 0
    for nlri in in_order(query, known):
        if nlri is None:
            yield None
            continue
        idle += 1
        for item in items_of(nlri):
            idle = 0
            yield item
        if idle >= PAUSE_AFTER:
            idle = 0
            yield None


def _along_one_branch(
    query: RouteQuery,
    prefix: Prefix,
    known: Collection[Prefix],
    items_of: Callable[[Prefix], Iterable[Item]],
) -> Iterator[Item]:
    """`EXACT`, `SHORTER` and `LONGEST` look at one prefix for each length, and need no scan."""
    if query.match is Match.EXACT:
        candidates = [prefix]
    else:
        candidates = [truncated(prefix, length) for length in range(prefix.length + 1)]
    if query.match is Match.LONGEST:
        candidates.reverse()
    for nlri in candidates:
        if nlri not in known or not query.matches(nlri):
            continue
        items = list(items_of(nlri))
        yield from items
        if items and query.match is Match.LONGEST:
            return


def truncated(prefix: Prefix, length: int) -> Prefix:
    """The prefix of `length` bits that covers `prefix`."""
    size = len(prefix.address)
    shift = size * 8 - length
    number = int.from_bytes(prefix.address, "big") >> shift << shift
    return Prefix(Address(number.to_bytes(size, "big")), length)


def in_order(query: RouteQuery, known: Collection[Prefix]) -> Iterator[Prefix | None]:
    """The prefixes that `query` admits: IPv4 first, then by address and length.  None offers a pause."""
    everything = query.prefix is None and query.after is None
    snapshot = list(known)  # one C call, so that the table may change between the steps
    for family, size in ADDRESS_SIZE.items():
        if query.family not in (None, family):
            continue
        runs = []
        for start in range(0, len(snapshot), RUN):
            part = [nlri for nlri in snapshot[start : start + RUN] if len(nlri[0]) == size]
            if part and not everything:
                part = list(filter(query.matches, part))
            if part:
                part.sort()
                runs.append(part)
            yield None
        yield from merge(*runs)
