"""Answers what a person asks of the tables: which paths are there, and why not.

Reasons are not stored: import policy and the decision are pure, so they are asked again for the one prefix
that somebody looks at.  `paths_of` shows one prefix in one table; together with `known_prefixes` a listing
of any size goes prefix by prefix, in steps as small as its reader likes, and stays right while the tables
change in between.  `explain` names the first gate that a prefix fails, from intent to kernel.

This module must never change a table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain

from routes.adj_rib_in import AdjRibIn, Received
from routes.adj_rib_out import Target, judge_export
from routes.decision import LOST_TEXT, Lost
from routes.path import LOCAL_PEER, Path, PeerKind, PeerName
from routes.policy import Rule
from routes.prefix import Family, Prefix, format_address
from routes.rib import Rib
from routes.view import Explanation, FibView, Gate, Match, NextHopView, PathView, Table

FibLookup = Callable[[Prefix], Sequence[FibView]]
"""The kernel entries of a prefix, wanted or present; the best first."""

MAX_REASONS = 3
"""How many paths a sentence names."""
MAX_EXPLAINED = 200
"""How many paths of one prefix an explanation has: thousands of nodes may announce one service address."""


class _Union(Collection[Prefix]):
    """The prefixes of several tables, each once, in no order."""

    def __init__(self, *tables: Collection[Prefix]) -> None:
        self._tables = tables

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Prefix]:
        return iter(dict.fromkeys(chain.from_iterable(self._tables)))

    def __contains__(self, nlri: object) -> bool:
        return any(nlri in table for table in self._tables)


def known_prefixes(rib: Rib, table: Table, peer: PeerName | None = None) -> Collection[Prefix]:
    """The prefixes that `table` has, as a view of it; its `in` costs a few lookups."""
    if table is Table.LOC_RIB and peer is None:
        return _Union(*(rib.loc_rib(family).selected for family in Family))
    if table is Table.ADJ_OUT:
        return _Union(*(each.plain.accepted for each in rib.tables(LOCAL_PEER)))
    if table in {Table.ADJ_IN_PRE, Table.ADJ_IN_POST} and peer is None:
        parts: list[Collection[Prefix]] = [rib.loc_rib(family).holders for family in Family]
        refusing = chain.from_iterable(map(rib.refusing, Family))
        tables: Iterable[AdjRibIn] = refusing if table is Table.ADJ_IN_PRE else ()
    else:
        parts, tables = [], rib.tables(peer)
    for each in tables:
        parts += (each.plain.accepted, each.ids)
        if table is Table.ADJ_IN_PRE:
            parts += (each.plain.refused, each.dropped)
    return _Union(*parts)


def paths_of(
    rib: Rib, nlri: Prefix, table: Table, peer: PeerName | None = None, targets: Sequence[Target] = ()
) -> list[PathView]:
    """The paths of exactly one prefix in one table: the selected ones first, the refused ones last.

    `peer` is the one that they were received from, or in `ADJ_OUT`, whose `targets` are needed, the one
    that they are announced to, or not, with the reason.  Local paths are no peer's, so they are in no
    Adj-RIB-In.
    """
    if table is Table.ADJ_OUT:
        return _told(rib, nlri, peer, targets)
    refused = table is Table.ADJ_IN_PRE
    views = _Asked(rib, nlri).views(peer, as_received=refused, refused=refused)
    if table is Table.LOC_RIB:
        return [view for view in views if view.best or view.multipath]
    views = [view for view in views if view.path.source.peer is not LOCAL_PEER]
    return [view for view in views if view.accepted] if table is Table.ADJ_IN_POST else views


def _told(rib: Rib, nlri: Prefix, peer: PeerName | None, targets: Sequence[Target]) -> list[PathView]:
    views: list[PathView] = []
    for path in rib.selected(nlri)[:1]:
        for target in targets:
            if peer in (None, target.peer):
                verdict = judge_export(path, target)
                if verdict.accepted:
                    told = path._replace(attributes=verdict.attributes)
                    views.append(
                        PathView(told, verdict.attributes, True, verdict.rule, best=True, to=target.peer)
                    )
                elif peer is not None and path.source.kind is PeerKind.LOCAL:
                    views.append(
                        PathView(
                            path, path.attributes, False, verdict.rule, reason=verdict.text, to=target.peer
                        )
                    )
    return views


def _holding(rib: Rib, nlri: Prefix, *, refused: bool) -> list[AdjRibIn]:
    """The tables with a path to a prefix, found without asking each of thousands of peers.

    With `refused` also those that have only refused ones.
    """
    holders = list(rib.loc_rib(nlri.family).holders.get(nlri, ()))
    if refused:
        known = set(map(id, holders))
        holders += [each for each in rib.refusing(nlri.family) if id(each) not in known and each.knows(nlri)]
    return holders


class _Asked:
    """One prefix, with its decision made once."""

    def __init__(self, rib: Rib, nlri: Prefix) -> None:
        self._rib = rib
        self._nlri = nlri
        decision = rib.decision(nlri)
        self._best = decision.best
        self._selected = {_identity(path): at for at, path in enumerate(decision.selected)}
        self._lost: dict[tuple[PeerName, int], Lost] = {
            _identity(path): reason for path, reason in decision.lost
        }

    def views(
        self, peer: PeerName | None, *, as_received: bool, refused: bool = True, most: int | None = None
    ) -> list[PathView]:
        """Every path of the prefix, refused ones included unless they are not asked for; the first `most`."""
        ranked: list[tuple[int, Received | PathView]] = []
        if peer is None:
            tables: Iterable[AdjRibIn] = _holding(self._rib, self._nlri, refused=refused)
        else:
            tables = self._rib.tables(peer, self._nlri.family)
        last = len(self._selected)
        for table in tables:
            for each in table.received(self._nlri):
                rank = last + 1 if each.accepted is None else self._selected.get(_identity(each.path), last)
                ranked.append((rank, each))
            ranked += [(last + 2, view) for view in self._over_limit(table)]
        ranked.sort(key=lambda pair: pair[0])
        return [
            each if isinstance(each, PathView) else self._view(*each, as_received=as_received)
            for _, each in ranked[:most]
        ]

    def _view(self, path: Path, accepted: Path | None, stale: bool, *, as_received: bool) -> PathView:
        verdict = self._rib.policy.judge(path.source, path.attributes, path.nlri)
        if accepted is None:
            return PathView(path, path.attributes, False, verdict.rule, reason=verdict.text, stale=stale)
        shown = path if as_received else accepted
        lost = self._lost.get(_identity(path))
        at = self._selected.get(_identity(path))
        return PathView(
            shown,
            shown.attributes,
            True,
            verdict.rule,
            best=at == 0,
            multipath=at is not None and at > 0,
            lost_at="" if lost is None else lost.value,
            reason="" if lost is None else self._sentence(lost, accepted),
            stale=stale,
        )

    def _sentence(self, lost: Lost, path: Path) -> str:
        """Why a path lost; the winner is named where the step compares with all that were left."""
        text = LOST_TEXT[lost]
        if lost is Lost.UNRESOLVED:
            why = self._rib.why_unresolved(path)
            text = f"its next hop {format_address(path.attributes.next_hop)} can't be resolved"
            return f"{text}: {why}" if why else text
        if self._best is None or lost in {Lost.MED, Lost.NOT_LOCAL}:
            return text
        return f"{text} (best: {self._best.source.peer})"

    def _over_limit(self, table: AdjRibIn) -> Iterator[PathView]:
        path = table.dropped.get(self._nlri)
        if path is not None:
            limit = "" if table.limits is None else f" of {table.limits.limit}"
            text = f"{table.peer} announces more prefixes than its limit{limit}"
            yield PathView(path, path.attributes, False, Rule.MAX_PREFIXES, reason=text)


def _identity(path: Path) -> tuple[PeerName, int]:
    return path.source.peer, path.path_id


def explain(
    rib: Rib, target: Prefix, match: Match, fib_of: FibLookup, targets: Sequence[Target] = ()
) -> Explanation:
    """Why `target` is reached as it is: itself (`EXACT`), or what covers it (`LONGEST`)."""
    nlri = _answering(rib, target, match)
    if nlri is None:
        text = f"nobody announces {target}" + ("" if match is Match.EXACT else " or what covers it")
        return Explanation(target, None, Gate.ANNOUNCED, text, fib=tuple(fib_of(target)))
    paths = tuple(_Asked(rib, nlri).views(None, as_received=False, most=MAX_EXPLAINED))
    fib = tuple(fib_of(nlri))
    failed, text = _first_gate(nlri, paths, fib)
    told = _told(rib, nlri, None, targets)
    longer: list[PathView] = []
    if match is Match.LONGEST:
        for each in target.covering():
            if each.length > nlri.length and _is_known(rib, each):
                longer += _Asked(rib, each).views(None, as_received=False, most=MAX_EXPLAINED - len(longer))
    advertised_to = tuple(view.to for view in told if view.to is not None)
    return Explanation(target, nlri, failed, text, paths, fib, advertised_to, tuple(longer))


def _answering(rib: Rib, target: Prefix, match: Match) -> Prefix | None:
    """The prefix that decides about `target`."""
    if match is Match.EXACT:
        return target if _is_known(rib, target) else None
    covering = list(target.covering())
    selected = (nlri for nlri in covering if rib.selected(nlri))
    return next(selected, None) or next((nlri for nlri in covering if _is_known(rib, nlri)), None)


def _is_known(rib: Rib, nlri: Prefix) -> bool:
    if nlri in rib.loc_rib(nlri.family).holders:
        return True
    return any(table.knows(nlri) for table in rib.refusing(nlri.family))


def _first_gate(nlri: Prefix, paths: Sequence[PathView], fib: Sequence[FibView]) -> tuple[Gate | None, str]:
    held = next((entry for entry in fib if entry.installed and entry.held), None)
    kept = "; the kernel keeps the entry of an earlier path a while longer" if held else ""
    accepted = [view for view in paths if view.accepted]
    if not accepted:
        return Gate.IMPORT, f"import refuses every path to {nlri}: {_reasons(paths)}{kept}"
    best = next((view for view in accepted if view.best), None)
    if best is None:
        if all(view.lost_at == Lost.UNRESOLVED.value for view in accepted):
            return Gate.NEXT_HOP, f"no path to {nlri} is usable: {_reasons(accepted)}{kept}"
        return Gate.SELECTED, f"no path to {nlri} is selected: {_reasons(accepted)}{kept}"
    entry = next((entry for entry in fib if entry.installed and not entry.held), None)
    if not fib and best.path.source.kind is PeerKind.LOCAL:
        return None, f"{nlri} is our own: announced, and without a kernel entry, as a service's address"
    if entry is None:
        why = next((entry.reason for entry in fib if entry.reason), "no entry has been asked for yet")
        return Gate.KERNEL, f"{nlri} is selected, but not in the kernel: {why}"
    if best.path.source.kind is PeerKind.LOCAL:
        return None, f"{nlri} is our own: unreachable, but for what a more specific route takes"
    hops = ", ".join(_hop(hop) for hop in entry.next_hops)
    return None, f"packets for {nlri} go to {hops}, as {best.path.source.peer} announces"


def _reasons(paths: Sequence[PathView]) -> str:
    shown = "; ".join(f"{view.path.source.peer}: {view.reason}" for view in paths[:MAX_REASONS])
    more = len(paths) - MAX_REASONS
    return f"{shown}; and {more} more" if more > 0 else shown


def _hop(hop: NextHopView) -> str:
    gateway = "" if hop.gateway is None else f"{format_address(hop.gateway)} "
    return f"{gateway}on {hop.interface}"
