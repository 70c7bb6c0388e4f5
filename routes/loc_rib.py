"""Loc-RIB of one family: what was chosen for each prefix, and the change set of each step.

It knows which peers hold an accepted path to a prefix (`holders`), so that a prefix costs as much as it
has candidates and not as much as there are peers.  What was touched is collected, and `take_changes` runs
the decision once for each touched prefix (RFC 4271 section 9.1).  A change is found by comparing whole
paths: the same next hop with another attribute is a change too.

This module must never look at what policy refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

from routes.adj_rib_in import AdjRibIn
from routes.decision import Cost, Decision, decide, select
from routes.duplicates import Duplicates
from routes.path import LOCAL_PEER, Path
from routes.prefix import Address, Family, Prefix

_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long, and this runs for each prefix


MANY = 8
"""Touched prefixes from which on it pays to look whether they can be treated together."""


class Change(NamedTuple):
    """The selection of one prefix before and after: `(best, *others of equal cost)`, or empty.

    Both are equal when the selected paths stayed and their next hops resolve differently now: look at
    the forwarding entry again.
    """

    nlri: Prefix
    before: tuple[Path, ...]
    after: tuple[Path, ...]


class LocRib:
    """The selection of one family, and what it is made from."""

    __slots__ = ("_renewed", "cost", "duplicates", "family", "holders", "multipath", "pending", "selected")

    def __init__(self, family: Family, multipath: int, cost: Cost) -> None:
        self.family = family
        self.multipath = multipath
        self.cost = cost
        self.selected: dict[Prefix, tuple[Path, ...]] = {}
        """`(best, *others)`; a prefix without a usable path is absent."""
        self.holders: dict[Prefix, tuple[AdjRibIn, ...]] = {}
        """The tables with an accepted path to each prefix."""
        self.duplicates: Duplicates | None = None
        """Offered the candidates of each prefix that several peers hold."""
        self.pending: dict[Prefix, Path | None] = {}
        """Touched since the last `take_changes`, in order; with the only candidate where it is known."""
        self._renewed: set[Prefix] = set()
        """Touched because a next hop resolves differently."""

    def touch(self, nlri: Prefix, table: AdjRibIn, *, holds: bool) -> None:
        """A path of `table` to `nlri` came, changed or went; `holds` says whether it has one now."""
        held = self.holders.get(nlri)
        if held is None:
            if not holds:
                return
            self.holders[nlri] = table.alone
        elif holds:
            if table not in held:
                self.holders[nlri] = held + table.alone
        elif held == table.alone:
            del self.holders[nlri]
        elif table in held:
            self.holders[nlri] = tuple(each for each in held if each is not table)
        else:
            return
        self.pending[nlri] = None

    def hold(self, paths: dict[Prefix, Path], table: AdjRibIn) -> bool:
        """Store accepted paths of a table in it, where nobody else has paths to their prefixes.

        Everything of an UPDATE at once: what it costs is a few lookups a prefix, and no step of ours.
        False: somebody has, and nothing was done.
        """
        held = list(map(self.holders.get, paths))
        alone = held.count(table.alone)
        if table.ids or alone + held.count(None) < len(held):
            return False
        if alone < len(held):
            self.holders.update(dict.fromkeys(paths, table.alone))
        table.plain.accepted.update(paths)
        self.pending.update(paths)
        return True

    def release(self, withdrawn: Sequence[Prefix], table: AdjRibIn) -> bool:
        """The same for withdrawals of paths that are in the table, accepted as they were received."""
        plain = table.plain
        if table.ids or table.dropped or plain.refused or plain.rewritten or plain.stale:
            return False
        gone = dict.fromkeys(withdrawn)
        held = list(map(self.holders.get, gone))
        if held.count(table.alone) < len(held):
            return False
        deque(map(plain.accepted.__delitem__, gone), 0)
        deque(map(self.holders.__delitem__, gone), 0)
        self.pending.update(gone)
        return True

    def candidates(self, nlri: Prefix) -> list[Path]:
        """Every accepted path to a prefix."""
        found: list[Path] = []
        for table in self.holders.get(nlri, ()):
            if table.ids:
                found += table.candidates(nlri)
            else:
                found.append(table.plain.accepted[nlri])
        return found

    def decision(self, nlri: Prefix) -> Decision:
        """The decision on a prefix with its reasons, made again now."""
        return decide(self.candidates(nlri), self.cost, self.multipath)

    def renew(self, next_hops: Collection[Address] | None, tables: Iterator[AdjRibIn]) -> None:
        """Decide again where a candidate uses one of these next hops, or everywhere."""
        if next_hops is None:
            touched = list(self.holders)
        else:
            touched = [
                path.nlri
                for table in tables
                for path in table.accepted_paths()
                if path.attributes.next_hop in next_hops or path.attributes.link_local in next_hops
            ]
        self.pending.update(dict.fromkeys(touched))
        self._renewed.update(touched)

    def take_changes(self) -> list[Change]:
        """Decide on each touched prefix; the changes of the selection, in the order of touching."""
        pending, self.pending = self.pending, {}
        renewed, self._renewed = self._renewed, set()
        selected, holders, cost, duplicates = self.selected, self.holders, self.cost, self.duplicates
        twice = {} if duplicates is None else duplicates.now
        if len(pending) >= MANY and not twice and not renewed:
            together = self._take_together(pending)
            if together is not None:
                return together
        changes: list[Change] = []
        for nlri, only in pending.items():
            before = selected.get(nlri, ())
            after: tuple[Path, ...] = ()
            if only is not None:
                if twice:
                    twice.pop(nlri, None)
                if cost(only) is not None:
                    selected[nlri] = after = (only,)
                elif before:
                    del selected[nlri]
                if after != before or (renewed and after and nlri in renewed):
                    changes.append(_new(Change, (nlri, before, after)))
                continue
            held = holders.get(nlri)
            if held is not None:
                first = held[0]
                if len(held) > 1 or first.ids:
                    candidates = self.candidates(nlri)
                    after = select(candidates, cost, self.multipath)
                    if duplicates is not None:
                        duplicates.judge(nlri, candidates)
                else:  # the only candidate wins if it resolves: no step can remove it
                    path = first.plain.accepted[nlri]
                    if first.peer is LOCAL_PEER or cost(path) is not None:
                        after = (path,)
            if twice and (held is None or len(held) == 1):
                twice.pop(nlri, None)
            if after:
                selected[nlri] = after
            elif before:
                del selected[nlri]
            if after != before or (after and nlri in renewed):
                changes.append(_new(Change, (nlri, before, after)))
        return changes

    def _take_together(self, pending: dict[Prefix, Path | None]) -> list[Change] | None:
        """The same where all have one usable candidate, or none has any: tables take all in a few calls."""
        paths = [path for path in pending.values() if path is not None]
        after: Iterable[tuple[Path, ...]]
        if not paths and self.holders.keys().isdisjoint(pending):
            before = list(map(self.selected.pop, pending, repeat(())))
            after = repeat(())
        elif len(paths) == len(pending) and None not in map(self.cost, paths):
            before = list(map(self.selected.get, pending, repeat(())))
            after = list(zip(paths))
            self.selected.update(zip(pending, after, strict=True))
        else:
            return None
        changes: list[Change] = list(
            map(_new, repeat(Change), zip(pending, before, after, strict=False))  # one may repeat for ever
        )
        some_same = any(before) if paths else not all(before)
        return [change for change in changes if change[1] != change[2]] if some_same else changes

    def covering(self, nlri: Prefix) -> Iterator[Prefix]:
        """Selected prefixes that contain `nlri`, itself included, longest first."""
        return (each for each in nlri.covering() if each in self.selected)
