"""Lists of prefixes that this speaker announces as its own: an agent's pods, a reflector's aggregates.

Each says something that the others don't, and they are such that another speaker accepts them.
"""

from __future__ import annotations

from collections.abc import Mapping

from bgpd import config_values as values
from bgpd.config_table import Table
from routes.own_path import OwnPath
from routes.policy import MARTIANS
from routes.prefix import Prefix

MOST_COMMUNITIES = 64
"""Of one path: so it fits a message whatever else it has."""
_BIGGEST = 4294967295
_KEYS = ("prefix", "unreachable", "communities", "local_pref", "med")


def read_own_prefixes(table: Table, key: str, default_route: str) -> tuple[Prefix, ...]:
    """The list under `key`; `default_route` says why a default route can't be in it."""
    good = table.many(key, lambda value: OwnPath(_own_prefix(value, default_route)))
    return tuple(own.nlri for own in _distinct(table, key, good))


def read_own_paths(table: Table, key: str, default_route: str) -> tuple[OwnPath, ...]:
    """The same for prefixes that may have attributes: each is a string or a table."""
    return _distinct(table, key, table.many(key, lambda value: _own_path(value, default_route)))


def _own_prefix(value: object, default_route: str) -> Prefix:
    own = values.prefix(value)
    if own.length == 0:
        raise values.UnfitError(f"is a default route: {default_route}")
    if any(martian.contains(own) or own.contains(martian) for martian in MARTIANS):
        raise values.UnfitError(
            "is a range that no speaker accepts (this host, loopback, link-local, multicast, reserved)"
        )
    return own


def _own_path(value: object, default_route: str) -> OwnPath:
    if not isinstance(value, dict):
        return OwnPath(_own_prefix(value, default_route))
    if "prefix" not in value or not value.keys() <= set(_KEYS):
        raise values.UnfitError(
            f"must have the key prefix, and may have {', '.join(_KEYS[1:])}, and no others"
        )
    given: Mapping[str, object] = value
    number = values.integer(0, _BIGGEST)
    found = values.part("communities", given.get("communities", []), values.communities(MOST_COMMUNITIES))
    return OwnPath(
        nlri=values.part("prefix", given["prefix"], lambda inner: _own_prefix(inner, default_route)),
        unreachable=values.part("unreachable", given.get("unreachable", True), values.boolean),
        communities=values.standard(found),
        large_communities=values.large(found),
        local_pref=values.part("local_pref", given["local_pref"], number) if "local_pref" in given else None,
        med=values.part("med", given["med"], number) if "med" in given else None,
    )


def _distinct(table: Table, key: str, good: list[tuple[int, OwnPath]]) -> tuple[OwnPath, ...]:
    """What lies inside another must have attributes of its own, otherwise it says nothing."""
    around: list[tuple[int, OwnPath]] = []
    for at, own in sorted(good, key=_by_range):
        around = [each for each in around if each[1].nlri.contains(own.nlri)]
        for other_at, other in around:
            if own.nlri == other.nlri or own._replace(nlri=other.nlri) == other:
                how = "is the same as" if own.nlri == other.nlri else "lies inside"
                table.wrong(key, f"{how} {key}[{other_at}], {other.nlri}", at)
                break
        around.append((at, own))
    return tuple(own for _, own in good)


def _by_range(item: tuple[int, OwnPath]) -> tuple[int, Prefix]:
    """Family by family, so that what lies inside a prefix comes right after it."""
    return len(item[1].nlri.address), item[1].nlri
