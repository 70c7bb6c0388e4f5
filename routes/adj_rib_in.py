"""Adj-RIB-In: what one peer told us in one family, before and after import policy (RFC 4271 section 1.1).

A path is stored once where policy leaves it as it is, which is nearly always: `accepted` is the table
after policy, and `refused` and `rewritten` hold, as received, only what policy refused or changed.  Paths
with an ADD-PATH identifier (RFC 7911) are keyed by prefix and identifier in a second set of tables, found
by prefix through `ids`: peers number their paths as they like, so a table for each identifier would make
a prefix cost as much as there are identifiers.

Stale marks serve graceful restart (RFC 4724 section 4.2) and enhanced route refresh (RFC 7313).  This
module must never judge a path or choose one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

from routes.path import Path, PeerName
from routes.policy import MaxPrefixes
from routes.prefix import Family, Prefix

K = TypeVar("K", Prefix, tuple[Prefix, int])

MAX_DROPPED_SHOWN = 1000
"""How many paths over the limit are remembered, to be shown with their reason."""


class LimitKind(Enum):
    """Which line a peer's number of prefixes crossed."""

    WARN = "warn"
    """Over `warn_percent` of the limit."""
    EXCEEDED = "exceeded"
    """Over the limit: act as configured."""
    CLEARED = "cleared"
    """Well below the limit again; with `drop`, a route refresh brings back what was dropped."""


class LimitEvent(NamedTuple):
    """A peer's number of prefixes crossed a line; the caller warns, drops or resets."""

    peer: PeerName
    family: Family
    kind: LimitKind
    prefixes: int
    limits: MaxPrefixes


class Received(NamedTuple):
    """A path as received, and after import policy; `accepted` is None when it was refused."""

    path: Path
    accepted: Path | None
    stale: bool


@dataclass(slots=True)
class Paths(Generic[K]):
    """The tables of one family, keyed by prefix, or with ADD-PATH by prefix and identifier.

    A key is in `accepted` or in `refused`, never in both; `rewritten` has only keys of `accepted`.
    """

    accepted: dict[K, Path]
    """After policy."""
    refused: dict[K, Path]
    """As received, for what policy refused."""
    rewritten: dict[K, Path]
    """As received, for what policy accepted with other attributes."""
    stale: dict[K, None]

    @classmethod
    def empty(cls) -> Paths[K]:
        return cls({}, {}, {}, {})

    def __len__(self) -> int:
        return len(self.accepted) + len(self.refused)

    def __contains__(self, key: object) -> bool:
        return key in self.accepted or key in self.refused

    def put(self, key: K, received: Path, accepted: Path | None) -> None:
        """Store a path in place of the key's earlier one."""
        self.stale.pop(key, None)
        self.place(key, received, accepted)

    def place(self, key: K, received: Path, accepted: Path | None) -> None:
        """Store the outcome of policy, and leave the stale mark as it is."""
        if accepted is None:
            self.accepted.pop(key, None)
            self.rewritten.pop(key, None)
            self.refused[key] = received
            return
        self.refused.pop(key, None)
        self.accepted[key] = accepted
        if accepted is received:
            self.rewritten.pop(key, None)
        else:
            self.rewritten[key] = received

    def remove(self, key: K) -> bool:
        """Forget the key; whether it was known."""
        self.stale.pop(key, None)
        self.rewritten.pop(key, None)
        known = self.accepted.pop(key, None) is not None
        return self.refused.pop(key, None) is not None or known

    def __iter__(self) -> Iterator[K]:
        return chain(self.accepted, self.refused)

    def mark_stale(self) -> None:
        self.stale = dict.fromkeys(self)

    def get(self, key: K) -> Received | None:
        """The path of the key, as received and after policy."""
        accepted = self.accepted.get(key)
        received = self.refused.get(key) if accepted is None else self.rewritten.get(key, accepted)
        return None if received is None else Received(received, accepted, key in self.stale)


class AdjRibIn:
    """What one peer told us in one family.

    `alone` is the one-tuple of this table, shared by all prefixes that nobody else announces.
    """

    __slots__ = ("_level", "added", "alone", "dropped", "family", "ids", "limits", "peer", "plain")

    def __init__(self, peer: PeerName, family: Family, limits: MaxPrefixes | None = None) -> None:
        self.peer = peer
        self.family = family
        self.limits = limits
        self.plain: Paths[Prefix] = Paths.empty()
        """Paths without an identifier (0)."""
        self.added: Paths[tuple[Prefix, int]] = Paths.empty()
        """Paths with an ADD-PATH identifier."""
        self.ids: dict[Prefix, dict[int, None]] = {}
        """The identifiers of each prefix in `added`."""
        self.dropped: dict[Prefix, Path] = {}
        """Some of the paths that are over the limit, one a prefix: shown, and never a candidate."""
        self.alone: tuple[AdjRibIn] = (self,)
        self._level = LimitKind.CLEARED

    def __len__(self) -> int:
        return len(self.plain) + len(self.added)

    @property
    def accepted(self) -> int:
        """Paths that policy accepts."""
        return len(self.plain.accepted) + len(self.added.accepted)

    @property
    def stale(self) -> int:
        """Paths that the peer has not announced again since they were marked."""
        return len(self.plain.stale) + len(self.added.stale)

    def put(self, received: Path, accepted: Path | None) -> None:
        """Store a path in place of the earlier one with its prefix and identifier."""
        nlri, path_id = received.nlri, received.path_id
        self._forget_dropped(nlri, path_id)
        if path_id:
            self.added.put((nlri, path_id), received, accepted)
            self.ids.setdefault(nlri, {})[path_id] = None
        else:
            self.plain.put(nlri, received, accepted)

    def place(self, received: Path, accepted: Path | None) -> None:
        """Store policy's new outcome for a path that is here already."""
        if received.path_id:
            self.added.place((received.nlri, received.path_id), received, accepted)
        else:
            self.plain.place(received.nlri, received, accepted)

    def remove(self, nlri: Prefix, path_id: int) -> bool:
        """Forget a path; whether it was known."""
        self._forget_dropped(nlri, path_id)
        if not path_id:
            return self.plain.remove(nlri)
        ids = self.ids.get(nlri)
        if ids is None or path_id not in ids:
            return False
        del ids[path_id]
        if not ids:
            del self.ids[nlri]
        return self.added.remove((nlri, path_id))

    def drop(self, path: Path) -> None:
        """Remember a path that is over the limit, as long as there is room."""
        if len(self.dropped) < MAX_DROPPED_SHOWN:
            self.dropped[path.nlri] = path

    def _forget_dropped(self, nlri: Prefix, path_id: int) -> None:
        dropped = self.dropped.get(nlri)
        if dropped is not None and dropped.path_id == path_id:
            del self.dropped[nlri]

    def has_room(self, nlri: Prefix, path_id: int) -> bool:
        """Whether one more path, or this one's replacement, stays within the limit."""
        if self.limits is None or len(self) < self.limits.limit:
            return True
        return (nlri, path_id) in self.added if path_id else nlri in self.plain

    def candidates(self, nlri: Prefix) -> list[Path]:
        """The accepted paths of a prefix."""
        found = [self.plain.accepted.get(nlri)]
        if self.ids:
            found += [self.added.accepted.get((nlri, path_id)) for path_id in self.ids.get(nlri, ())]
        return [path for path in found if path is not None]

    def received(self, nlri: Prefix) -> list[Received]:
        """Every path of a prefix, refused ones included."""
        found = [self.plain.get(nlri)]
        if self.ids:
            found += [self.added.get((nlri, path_id)) for path_id in self.ids.get(nlri, ())]
        return [each for each in found if each is not None]

    def knows(self, nlri: Prefix) -> bool:
        """Whether the peer announces the prefix, accepted or not."""
        return nlri in self.plain or nlri in self.ids or nlri in self.dropped

    def known(self) -> list[tuple[Prefix, int]]:
        """All prefixes and identifiers at this moment."""
        return [(nlri, 0) for nlri in self.plain] + list(self.added)

    def stale_paths(self) -> list[tuple[Prefix, int]]:
        """What is marked as stale at this moment."""
        return [(nlri, 0) for nlri in self.plain.stale] + list(self.added.stale)

    def mark_stale(self) -> None:
        """Mark everything; an announcement takes the mark away."""
        self.plain.mark_stale()
        self.added.mark_stale()

    def accepted_paths(self) -> Iterator[Path]:
        return chain(self.plain.accepted.values(), self.added.accepted.values())

    def set_limits(self, limits: MaxPrefixes | None) -> LimitEvent | None:
        """Set another limit; an event when what was dropped may come now."""
        before, self.limits = self.limits, limits
        if limits is None and before is not None and self._level is LimitKind.EXCEEDED:
            self._level = LimitKind.CLEARED
            return LimitEvent(self.peer, self.family, self._level, len(self), before)
        return self.crossed()

    def crossed(self, *, refused: bool = False) -> LimitEvent | None:
        """The line that the number of paths crossed since the last call, if any.

        `refused` says that a path was dropped for the limit.  A line counts as crossed again only after
        the number fell a tenth below it, so that a peer can't make one event of each UPDATE.
        """
        limits = self.limits
        if limits is None:
            return None
        count = len(self)
        warn_at = limits.limit * limits.warn_percent // 100
        level = self._level
        if count > limits.limit or refused:
            level = LimitKind.EXCEEDED
        elif level is LimitKind.EXCEEDED:
            level = LimitKind.CLEARED if count * 10 <= limits.limit * 9 else level
        elif count > warn_at:
            level = LimitKind.WARN
        elif count * 10 <= warn_at * 9:
            level = LimitKind.CLEARED
        if level is self._level:
            return None
        silent = self._level is LimitKind.WARN and level is LimitKind.CLEARED
        self._level = level
        return None if silent else LimitEvent(self.peer, self.family, level, count, limits)
