"""What this speaker itself originates: a prefix, and the attributes that it is announced with.

Two kinds differ in what the host does with them.  A pod prefix is this node's alone: the kernel has an
`unreachable` entry for what no pod takes, and what others announce inside it is refused.  A service address
(`unreachable=False`) may be announced by many nodes: it gets no kernel entry, because the route is looked up
before the address is translated and `unreachable` would break this host's own connect(); and others' paths
to it are paths like any other, over which our own wins.

This module must never know a peer: what one is told of it is `adj_rib_out.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from routes.path import EMPTY_AS_PATH, Origin, PathAttributes
from routes.prefix import Address, Family, Prefix

UNSPECIFIED = {Family.IPV4: Address(bytes(4)), Family.IPV6: Address(bytes(16))}
"""The next hop of what we originate, until a session gives it one."""


class OwnPath(NamedTuple):
    """One prefix that this speaker announces as its own."""

    nlri: Prefix
    unreachable: bool = True
    """The prefix is ours alone: an `unreachable` kernel entry, and nobody else's paths inside it."""
    communities: tuple[int, ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    local_pref: int | None = None
    """Told to iBGP peers; None is told as 100."""
    med: int | None = None

    @property
    def attributes(self) -> PathAttributes:
        """As in the Loc-RIB; the next hop is each session's."""
        return PathAttributes(
            Origin.IGP,
            EMPTY_AS_PATH,
            UNSPECIFIED[self.nlri.family],
            med=self.med,
            local_pref=self.local_pref,
            communities=self.communities,
            large_communities=self.large_communities,
        )


class Difference(NamedTuple):
    """What another set of own paths changes."""

    changed: list[OwnPath]
    """New ones, and those with other attributes."""
    gone: list[OwnPath]


class OwnPaths:
    """What is originated, by prefix.

    Another set that differs in a few of thousands costs little: what is alike in both is found without
    looking at a single prefix.
    """

    def __init__(self) -> None:
        self.by_prefix: dict[Prefix, OwnPath] = {}
        self._sequence: tuple[OwnPath, ...] = ()
        """As they were given; a prefix that comes twice has the last one's attributes."""

    def replace(self, paths: Iterable[OwnPath]) -> Difference:
        """Have exactly these from now on."""
        before, after = self._sequence, tuple(paths)
        known = self.by_prefix
        left, came = _unlike(before, after)
        old = {path.nlri: path for path in left}
        new = {path.nlri: path for path in came}
        if len(known) != len(before) or any(nlri in known and nlri not in old for nlri in new):
            old, new = dict(known), {path.nlri: path for path in after}  # one comes twice: look at them all
        changed = [path for nlri, path in new.items() if known.get(nlri) != path]
        gone = [path for nlri, path in old.items() if nlri not in new]
        for path in gone:
            del known[path.nlri]
        known.update(new)
        self._sequence = after
        return Difference(changed, gone)


_NEAR = 8
"""How far is looked for where two sequences go on alike."""
_MOST_PLACES = 16


def _unlike(before: Sequence[OwnPath], after: Sequence[OwnPath]) -> tuple[list[OwnPath], list[OwnPath]]:
    """What is left out of one and what came into the other, in a few places; otherwise the rest of both."""
    left: list[OwnPath] = []
    came: list[OwnPath] = []
    for _ in range(_MOST_PLACES):
        same = _alike(before, after)
        before, after = before[same:], after[same:]
        skip, more = _where_alike_again(before, after)
        left += before[:skip]
        came += after[:more]
        before, after = before[skip:], after[more:]
        if not before or not after or not (skip or more):
            break
    return [*left, *before], [*came, *after]


def _where_alike_again(before: Sequence[OwnPath], after: Sequence[OwnPath]) -> tuple[int, int]:
    """How many of each to leave out; (0, 0) where nothing near is alike."""
    for far in range(1, _NEAR):
        for skip, more in ((far, 0), (0, far), (far, far)):
            if skip < len(before) and more < len(after) and before[skip] is after[more]:
                return skip, more
    return 0, 0


def _alike(one: Sequence[OwnPath], other: Sequence[OwnPath]) -> int:
    """How many are the same at the beginning of both; slices are compared as fast as memory is read."""
    low, high = 0, min(len(one), len(other))
    size = high
    while low < high:
        if one[low : low + size] == other[low : low + size]:
            low += size
            size = high - low
        else:
            high = low + size - 1
            size = (high - low + 1) // 2
        size = max(size, 1)
    return low
