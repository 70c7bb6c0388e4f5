"""Lists of prefixes that this speaker announces as its own: an agent's pods, a reflector's aggregates.

They are disjoint, so that each says something, and such that another speaker accepts them.
"""

from __future__ import annotations

from bgpd import config_values as values
from bgpd.config_table import Table
from routes.policy import MARTIANS
from routes.prefix import Prefix


def read_own_prefixes(table: Table, key: str, default_route: str) -> tuple[Prefix, ...]:
    """The list under `key`; `default_route` says why a default route can't be in it."""

    def parse(value: object) -> Prefix:
        own = values.prefix(value)
        if own.length == 0:
            raise values.UnfitError(f"is a default route: {default_route}")
        if any(martian.contains(own) or own.contains(martian) for martian in MARTIANS):
            raise values.UnfitError(
                "is a range that no speaker accepts (this host, loopback, link-local, multicast, reserved)"
            )
        return own

    good = table.many(key, parse)
    widest: tuple[int, Prefix] | None = None
    for at, own in sorted(good, key=_by_range):
        if widest is not None and widest[1].contains(own):
            how = "is the same as" if own == widest[1] else "lies inside"
            table.wrong(key, f"{how} {key}[{widest[0]}], {widest[1]}", at)
        else:
            widest = at, own
    return tuple(own for _, own in good)


def _by_range(item: tuple[int, Prefix]) -> tuple[int, Prefix]:
    """Family by family, so that what lies inside a prefix comes right after it."""
    return len(item[1].address), item[1]
