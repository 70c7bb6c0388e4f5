"""Prefixes that more than one client announces: a pod network of two nodes, as a rule by mistake.

It may also be meant (anycast), so it is told and never refused.  A second client is one with another
originator: a path that comes back through another reflector has its ORIGINATOR_ID (RFC 4456 section 8), and
is the first one's.  The decision process offers each prefix that several peers hold when it decides on it,
which costs a few lookups for it and nothing for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

from routes.path import Path, PeerName, Source
from routes.prefix import Prefix


class Duplicate(NamedTuple):
    """A prefix with two of the clients that announce it."""

    nlri: Prefix
    first: PeerName
    second: PeerName


def _nothing(_: Duplicate) -> None:
    """Nobody asked to be told."""


class Duplicates:
    """What is announced twice now.  False when nothing is."""

    def __init__(
        self, is_client: Callable[[PeerName], bool], found: Callable[[Duplicate], None] = _nothing
    ) -> None:
        """`found` is told of each prefix once, until it is no duplicate any more."""
        self._is_client = is_client
        self._found = found
        self.now: dict[Prefix, tuple[Source, Source]] = {}
        """Two clients of each prefix.  Whoever decides takes out what one peer at most announces now."""
        self.total = 0
        """Times that a prefix became a duplicate."""

    def __len__(self) -> int:
        return len(self.now)

    def judge(self, nlri: Prefix, paths: Iterable[Path]) -> None:
        """These are all accepted paths of a prefix now."""
        pair = self._pair(paths)
        if pair is None:
            self.now.pop(nlri, None)
            return
        if nlri not in self.now:
            self.total += 1
            self._found(Duplicate(nlri, pair[0].peer, pair[1].peer))
        self.now[nlri] = pair

    def _pair(self, paths: Iterable[Path]) -> tuple[Source, Source] | None:
        """The first client, and the next one with another originator."""
        first: Source | None = None
        originator = 0
        for _, attributes, source, _ in paths:
            if not self._is_client(source.peer):
                continue
            mine = source.bgp_id if attributes.originator_id is None else attributes.originator_id
            if first is None:
                first, originator = source, mine
            elif mine != originator and source.peer != first.peer:
                return first, source
        return None

    def of(self, nlri: Prefix) -> Duplicate | None:
        """Who announces a prefix twice."""
        pair = self.now.get(nlri)
        return None if pair is None else Duplicate(nlri, pair[0].peer, pair[1].peer)

    def first(self, most: int) -> tuple[Duplicate, ...]:
        """Those that have been there longest."""
        return tuple(Duplicate(n, a.peer, b.peer) for n, (a, b) in islice(self.now.items(), most))
