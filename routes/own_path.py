"""What this speaker itself originates: a prefix, and the attributes that it is announced with.

Two kinds differ in what the host does with them.  A pod prefix is this node's alone: the kernel has an
`unreachable` entry for what no pod takes, and what others announce inside it is refused.  A service address
(`unreachable=False`) may be announced by many nodes: it gets no kernel entry, because the route is looked up
before the address is translated and `unreachable` would break this host's own connect(); and others' paths
to it are paths like any other, over which our own wins.

This module must never know a peer: what one is told of it is `adj_rib_out.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    paths: dict[Prefix, OwnPath]
    """All of the new ones."""
    changed: list[OwnPath]
    """New ones, and those with other attributes."""
    gone: list[Prefix]


def own_difference(before: Mapping[Prefix, OwnPath], paths: Iterable[OwnPath]) -> Difference:
    """From what was originated to what is: quick where of thousands only one is another."""
    wanted = {path.nlri: path for path in paths}
    known = before.get
    others = [path for nlri, path in wanted.items() if known(nlri) is not path]
    changed = [path for path in others if known(path.nlri) != path]
    added = sum(path.nlri not in before for path in changed)
    gone = [] if len(wanted) == len(before) + added else [nlri for nlri in before if nlri not in wanted]
    return Difference(wanted, changed, gone)
