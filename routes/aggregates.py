"""Aggregates towards another AS: one prefix in place of those inside it (RFC 4271 section 9.2.2.2).

An aggregate is announced while it stands for at least one prefix.  What it stands for has different next
hops, so the section has it name an interface of the aggregating speaker: whoever exports it must set the
next hop.  The AS numbers of the prefixes' own paths are left out, never put into an AS_SET (RFC 9774), and
ATOMIC_AGGREGATE says so; with it no communities are carried over (RFC 1997).

Pure, and as much work for a change with a hundred thousand prefixes as with one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from routes.path import EMPTY_AS_PATH, Aggregator, Origin, PathAttributes
from routes.prefix import Address, Prefix

_NO_NEXT_HOP = Address(bytes(4))


class _Inside:
    """What one aggregate stands for."""

    __slots__ = ("counts", "origins")

    def __init__(self) -> None:
        self.origins: dict[Prefix, Origin] = {}
        self.counts = [0, 0, 0]
        """Prefixes by ORIGIN, so that the worst is known without a walk."""

    def note(self, nlri: Prefix, origin: Origin | None) -> None:
        before = self.origins.pop(nlri, None)
        if before is not None:
            self.counts[before] -= 1
        if origin is not None:
            self.origins[nlri] = origin
            self.counts[origin] += 1


class Aggregates:
    """Disjoint aggregates, and the prefixes inside them that could be announced."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._inside = {prefix: _Inside() for prefix in sorted(prefixes)}
        self._sorted = list(self._inside)

    def of(self, nlri: Prefix) -> Prefix | None:
        """The aggregate that a prefix lies in, or is."""
        # With the longest length in the key, an aggregate at the same address sorts before what it contains.
        at = bisect_right(self._sorted, Prefix(nlri.address, 128))
        found = self._sorted[at - 1] if at else None
        return found if found is not None and found.contains(nlri) else None

    def note(self, aggregate: Prefix, nlri: Prefix, origin: Origin | None) -> None:
        """A prefix inside `aggregate` could be announced, with this ORIGIN; None: it could not."""
        self._inside[aggregate].note(nlri, origin)

    def announced(self) -> list[Prefix]:
        """The aggregates that stand for something."""
        return [aggregate for aggregate, inside in self._inside.items() if inside.origins]

    def attributes(self, aggregate: Prefix, asn: int, bgp_id: int) -> PathAttributes | None:
        """What the aggregate is announced with, but for the next hop; None while it stands for nothing."""
        inside = self._inside.get(aggregate)
        if inside is None or not inside.origins:
            return None
        worst = max(origin for origin in Origin if inside.counts[origin])
        return PathAttributes(
            worst, EMPTY_AS_PATH, _NO_NEXT_HOP, atomic_aggregate=True, aggregator=Aggregator(asn, bgp_id)
        )
