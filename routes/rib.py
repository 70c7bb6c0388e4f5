"""The routing information base: facts about peers in, changes of the selection out (RFC 4271 section 9).

`Rib` is the only door to Adj-RIB-In and Loc-RIB.  Each fact is applied at once and marks what it touched;
`take_changes` then decides once for each touched prefix, however often it was touched.  A path that policy
refuses still replaces the peer's earlier one.  Timers are the caller's: it says when a session is up or
down, which families are kept as stale (RFC 4724), and when to sweep them.

`updates` is the hot path: one UPDATE for each prefix, tens of thousands in a row.  Its inner loop writes
the common case out; every other case goes through `_store`, and a property test against a naive model
holds both to the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple, Protocol

from routes.adj_rib_in import AdjRibIn, LimitEvent
from routes.decision import Cost, Decision
from routes.duplicates import Duplicates
from routes.loc_rib import Change, LocRib
from routes.own_path import OwnPath, OwnPaths
from routes.path import (
    LOCAL_PEER,
    Path,
    PathAttributes,
    PeerKind,
    PeerName,
    Source,
)
from routes.peer import FamilyCounts
from routes.policy import ImportPolicy, Verdict, compile_attributes
from routes.prefix import ADDRESS_SIZE, Address, Family, Prefix
from routes.stored import stored_inside

_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long, and this runs for each prefix

MANY = 8
"""Prefixes of one UPDATE from which on it pays to treat them together."""
MAX_REFUSED_SHOWN = 50
"""How many refusals are kept between two calls of `take_refusals`; the rest are only counted."""


class UpdateLike(Protocol):
    """What the RIB reads of an UPDATE: all of one family and one path ID."""

    @property
    def attributes(self) -> PathAttributes | None: ...
    @property
    def announced(self) -> tuple[Prefix, ...]: ...
    @property
    def withdrawn(self) -> tuple[Prefix, ...]: ...
    @property
    def path_id(self) -> int: ...


class Refusals(NamedTuple):
    """Paths that import refused since they were last asked for."""

    total: int
    first: tuple[tuple[Path, Verdict], ...]
    """The first of them, as received, with their verdicts."""


class _PeerIn:
    """One peer: its session, if it is up, and its tables by address size."""

    __slots__ = ("admit", "admits", "end_of_rib", "rest", "source", "tables", "up")

    def __init__(self, policy: ImportPolicy, source: Source) -> None:
        self.judge_by(policy, source)
        self.up = True
        self.tables: dict[int, AdjRibIn] = {}
        self.end_of_rib: set[Family] = set()

    def judge_by(self, policy: ImportPolicy, source: Source) -> None:
        """Take the rules for this session: their halves for attributes and for prefixes, and the rest."""
        self.source = source
        self.rest = policy.rest(source)
        self.admit = compile_attributes(policy, source)
        self.admits = policy.admits(source.peer)


def _paths(announced: Sequence[Prefix], attributes: PathAttributes, source: Source) -> Iterable[Path]:
    """The paths of one UPDATE without identifiers."""
    return map(_new, repeat(Path), zip(announced, repeat(attributes), repeat(source), repeat(0)))


def _reachable(_: Path) -> int | None:
    return 0


class Rib:
    """Adj-RIB-In of every peer, and Loc-RIB."""

    def __init__(self, policy: ImportPolicy, multipath: int = 1) -> None:
        self.policy = policy
        self._peers: dict[PeerName, _PeerIn] = {}
        self._cost: Cost = _reachable
        self._why_unresolved: Callable[[Path], str] = lambda _: ""
        self._loc = {ADDRESS_SIZE[family]: LocRib(family, multipath, self._cost) for family in Family}
        self._limit_events: list[LimitEvent] = []
        self._refused_total = 0
        self._refused_first: list[tuple[Path, Verdict]] = []
        self._local = {ADDRESS_SIZE[family]: AdjRibIn(LOCAL_PEER, family) for family in Family}
        self._originated = OwnPaths()
        self.originate(policy.own_paths)

    # --- what this speaker itself has ---

    @property
    def originated(self) -> tuple[OwnPath, ...]:
        """Our own paths."""
        return tuple(self._originated.by_prefix.values())

    def originate(self, paths: Iterable[OwnPath]) -> None:
        """Set our own paths: they win over all others, and nobody else's inside a prefix that is ours alone
        is accepted."""
        known = self._originated.by_prefix
        changed, gone = self._originated.replace(paths)
        if not changed and not gone:
            return
        source = Source(LOCAL_PEER, PeerKind.LOCAL, self.policy.asn, self.policy.router_id, Address(bytes(4)))
        for own in gone:
            self._remove(self._local[len(own.nlri.address)], own.nlri, 0)
        for own in changed:
            path = Path(own.nlri, own.attributes, source)
            self._put(self._local[len(own.nlri.address)], path, path)
        alone = frozenset(self.policy.own_prefixes)
        if any(path.unreachable is not (path.nlri in alone) for path in changed) or any(
            path.nlri in alone for path in gone
        ):
            self.policy = self.policy.with_own_paths(known.values())
            self._judge_again(prefix_half_only=True)

    def set_policy(self, policy: ImportPolicy) -> None:
        """Replace the rules and judge everything again, from the paths as they were received.

        Own paths stay those of `originate`, whatever the policy says.
        """
        self.policy = policy.with_own_paths(self._originated.by_prefix.values())
        for peer in self._peers.values():
            for table in peer.tables.values():
                self._note_limit(table.set_limits(policy.options(table.peer).max_prefixes))
        self._judge_again()

    def rejudge(self, prefixes: Iterable[Prefix]) -> None:
        """Facts changed that verdicts on these prefixes depend on, and on what lies inside them: judge the
        stored paths of those again, and no others."""
        wanted = frozenset(prefixes)
        for size, loc_rib in self._loc.items():
            around = {nlri for nlri in wanted if len(nlri.address) == size}
            if not around:
                continue
            for nlri, tables in stored_inside(around, loc_rib.holders, self.refusing(loc_rib.family)).items():
                for name, table in tables.items():
                    peer = self._peers.get(name)
                    if peer is not None:
                        self._judge_prefix_again(peer, table, nlri)

    def set_resolver(self, cost: Cost, why: Callable[[Path], str] | None = None) -> None:
        """Set the interior cost of next hops, and what says in a sentence why one can't be resolved."""
        self._cost = cost
        self._why_unresolved = why or (lambda _: "")
        for loc_rib in self._loc.values():
            loc_rib.cost = cost
        self.next_hops_changed(None)

    def set_multipath(self, multipath: int) -> None:
        """Set the most paths that forward together."""
        if all(loc_rib.multipath == multipath for loc_rib in self._loc.values()):
            return
        for loc_rib in self._loc.values():
            loc_rib.multipath = multipath
        self.next_hops_changed(None)

    def watch_duplicates(self, duplicates: Duplicates) -> None:
        """Have `duplicates` judge every prefix that several peers hold, from now on."""
        for loc_rib in self._loc.values():
            loc_rib.duplicates = duplicates

    def next_hops_changed(self, next_hops: Collection[Address] | None) -> None:
        """The answer of the resolver changed for these next hops (None: for any)."""
        for size, loc_rib in self._loc.items():
            tables = (peer.tables[size] for peer in self._peers.values() if size in peer.tables)
            loc_rib.renew(next_hops, tables)

    # --- sessions ---

    def session_up(
        self, source: Source, families: Iterable[Family], forwarding: Collection[Family] = ()
    ) -> None:
        """A session is established.

        Stale paths stay only in the families of `forwarding`: those negotiated again whose F bit the
        peer's new OPEN has set (RFC 4724 section 4.2).
        """
        peer = self._peers.get(source.peer)
        if peer is not None and peer.up:
            self.session_down(source.peer)
        if peer is None:
            peer = self._peers[source.peer] = _PeerIn(self.policy, source)
        else:
            peer.judge_by(self.policy, source)
        peer.up = True
        peer.end_of_rib.clear()
        limits = self.policy.options(source.peer).max_prefixes
        before, peer.tables = peer.tables, {}
        for family in families:
            size = ADDRESS_SIZE[family]
            kept = before.pop(size, None) if family in forwarding else None
            peer.tables[size] = AdjRibIn(source.peer, family, limits) if kept is None else kept
        for table in before.values():
            self._sweep(table)

    def session_down(self, name: PeerName, graceful: Collection[Family] = ()) -> None:
        """A session is lost; the paths of the `graceful` families stay as stale, all others go.

        What was stale already goes too: the peer restarted twice without announcing it (RFC 4724
        section 4.2).
        """
        peer = self._peers.get(name)
        if peer is None or not peer.up:
            return
        peer.up = False
        for table in peer.tables.values():
            self._sweep(table)
            table.dropped.clear()
            table.mark_stale()
            if table.family not in graceful:
                self._sweep(table)

    def mark_stale(self, name: PeerName, family: Family) -> None:
        """The peer begins to send everything again (RFC 7313, BoRR): `sweep_stale` ends it."""
        table = self.table(name, family)
        if table is not None:
            table.mark_stale()

    def end_of_rib(self, source: Source, family: Family) -> int:
        """The peer has sent its whole table; how many stale paths are left for the caller to sweep."""
        peer = self._peers.get(source.peer)
        table = self.table(source.peer, family)
        if peer is None or table is None:
            return 0
        peer.end_of_rib.add(family)
        return table.stale

    def end_of_rib_received(self, name: PeerName) -> frozenset[Family]:
        """The families whose End-of-RIB came in the present session."""
        peer = self._peers.get(name)
        return frozenset(peer.end_of_rib) if peer else frozenset()

    def sweep_stale(self, name: PeerName, family: Family) -> int:
        """Remove what the peer has not announced again; how many paths that were."""
        table = self.table(name, family)
        return 0 if table is None else self._sweep(table)

    def forget(self, name: PeerName) -> None:
        """The peer is configured no more."""
        self.session_down(name)
        peer = self._peers.pop(name, None)
        for table in peer.tables.values() if peer else ():
            self._sweep(table)

    # --- UPDATEs ---

    def update(
        self,
        source: Source,
        path_id: int,
        attributes: PathAttributes | None,
        announced: Sequence[Prefix],
        withdrawn: Sequence[Prefix],
    ) -> None:
        """Apply one UPDATE, all of one family."""
        peer = self._established(source)
        if withdrawn:
            self._withdraw(peer, path_id, withdrawn)
        if announced and attributes is not None:
            self._announce(peer, path_id, attributes, announced)

    def updates(self, source: Source, updates: Iterable[UpdateLike]) -> bool:
        """Apply UPDATEs in order; whether there are refusals or limit events to be taken."""
        peer = self._established(source)
        for update in updates:
            withdrawn, attributes = update.withdrawn, update.attributes
            if withdrawn:
                self._withdraw(peer, update.path_id, withdrawn)
            if attributes is not None:
                announced = update.announced
                if announced:
                    self._announce(peer, update.path_id, attributes, announced)
        return bool(self._refused_total or self._limit_events)

    def _established(self, source: Source) -> _PeerIn:
        peer = self._peers.get(source.peer)
        if peer is None or not peer.up:
            raise ValueError(f"an UPDATE of {source.peer}, which has no session")
        return peer

    def _announce(
        self, peer: _PeerIn, path_id: int, attributes: PathAttributes, announced: Sequence[Prefix]
    ) -> None:
        size = len(announced[0][0])
        table = peer.tables.get(size)
        if table is None:
            return  # a family that was not negotiated: the codec's to refuse, and nothing to store it in
        admitted = peer.admit(attributes)
        plain, limits = table.plain, table.limits
        near = limits and (table.dropped or len(table) + len(announced) > limits.limit)
        if path_id or admitted is not attributes or near or peer.rest:
            self._store(peer, table, path_id, attributes, admitted, announced)
            return
        admits, source = peer.admits[size], peer.source
        accepted, refused, rewritten, stale = plain.accepted, plain.refused, plain.rewritten, plain.stale
        loc_rib, alone = self._loc[size], table.alone
        holders, pending = loc_rib.holders, loc_rib.pending
        if len(announced) >= MANY and not (refused or rewritten or stale) and all(map(admits, announced)):
            paths = dict(zip(announced, _paths(announced, attributes, source), strict=True))
            if loc_rib.hold(paths, table):
                if limits:
                    self._check_limit(table)
                return
        for nlri in announced:
            if not admits(nlri):
                self._store(peer, table, 0, attributes, admitted, (nlri,))
                continue
            if refused:
                refused.pop(nlri, None)
            if rewritten:
                rewritten.pop(nlri, None)
            if stale:
                stale.pop(nlri, None)
            accepted[nlri] = _new(Path, (nlri, attributes, source, 0))
            held = holders.setdefault(nlri, alone)
            if held is not alone and table not in held:
                holders[nlri] = held + alone
            pending[nlri] = None
        if limits:
            self._check_limit(table)

    def _store(
        self,
        peer: _PeerIn,
        table: AdjRibIn,
        path_id: int,
        attributes: PathAttributes,
        admitted: PathAttributes | None,
        announced: Sequence[Prefix],
    ) -> None:
        """Store paths one by one, whatever policy and limit make of them."""
        admits, rest, source = peer.admits[len(announced[0].address)], peer.rest, peer.source
        drops = table.limits is not None and table.limits.action == "drop"
        for nlri in announced:
            received = Path(nlri, attributes, source, path_id)
            accepted = None
            if drops and not table.has_room(nlri, path_id):
                self._drop(table, received)
                continue
            told = admitted
            if told is not None:
                told = (rest(nlri, attributes) if rest else told) if admits(nlri) else None
            if told is not None:
                accepted = received if told is attributes else Path(nlri, told, source, path_id)
            else:
                self._note_refusal(received)
            self._put(table, received, accepted)
        self._check_limit(table)

    def _withdraw(self, peer: _PeerIn, path_id: int, withdrawn: Sequence[Prefix]) -> None:
        table = peer.tables.get(len(withdrawn[0].address))
        if table is None:
            return
        if path_id or not self._loc[len(withdrawn[0].address)].release(withdrawn, table):
            for nlri in withdrawn:
                self._remove(table, nlri, path_id)
        if table.limits:
            self._check_limit(table)

    # --- one path ---

    def _put(self, table: AdjRibIn, received: Path, accepted: Path | None) -> None:
        table.put(received, accepted)
        self._touched(table, received.nlri)

    def _remove(self, table: AdjRibIn, nlri: Prefix, path_id: int) -> None:
        if table.remove(nlri, path_id):
            self._touched(table, nlri)

    def _touched(self, table: AdjRibIn, nlri: Prefix) -> None:
        holds = nlri in table.plain.accepted or bool(table.ids and table.candidates(nlri))
        self._loc[len(nlri.address)].touch(nlri, table, holds=holds)

    def _sweep(self, table: AdjRibIn) -> int:
        stale = table.stale_paths()
        for nlri, path_id in stale:
            self._remove(table, nlri, path_id)
        self._check_limit(table)
        return len(stale)

    def _drop(self, table: AdjRibIn, path: Path) -> None:
        table.drop(path)
        self._note_limit(table.crossed(refused=True))

    def _check_limit(self, table: AdjRibIn) -> None:
        self._note_limit(table.crossed())

    def _note_limit(self, event: LimitEvent | None) -> None:
        if event is not None:
            self._limit_events.append(event)

    def _note_refusal(self, path: Path) -> None:
        self._refused_total += 1
        if len(self._refused_first) < MAX_REFUSED_SHOWN:
            verdict = self.policy.judge(path.source, path.attributes, path.nlri)
            self._refused_first.append((path, verdict))

    def _judge_again(self, *, prefix_half_only: bool = False) -> None:
        """Judge again what is stored; when only own prefixes changed, only where that makes a difference."""
        for peer in self._peers.values():
            before = peer.admits
            peer.judge_by(self.policy, peer.source)
            for size, table in peer.tables.items():
                admitted, now = before[size], peer.admits[size]
                for nlri in dict.fromkeys(nlri for nlri, _ in table.known()):
                    if not prefix_half_only or admitted(nlri) != now(nlri):
                        self._judge_prefix_again(peer, table, nlri)

    def _judge_prefix_again(self, peer: _PeerIn, table: AdjRibIn, nlri: Prefix) -> None:
        admitted, rest = peer.admits[len(nlri.address)](nlri), peer.rest
        for path, before, _ in table.received(nlri):
            attributes = peer.admit(path.attributes) if admitted else None
            if rest and attributes is not None:
                attributes = rest(nlri, path.attributes)
            accepted = None if attributes is None else self._with(path, attributes)
            if accepted != before:
                table.place(path, accepted)
                self._touched(table, nlri)

    @staticmethod
    def _with(path: Path, attributes: PathAttributes) -> Path:
        return path if attributes is path.attributes else path._replace(attributes=attributes)

    # --- what the outside world must do now ---

    def take_changes(self) -> list[Change]:
        """Run the decision once for each touched prefix; what changed since the last call, by family."""
        changes: list[Change] = []
        for loc_rib in self._loc.values():
            if loc_rib.pending:
                changes += loc_rib.take_changes()
        return changes

    def take_limit_events(self) -> list[LimitEvent]:
        """Lines that a peer's number of prefixes crossed since the last call."""
        events, self._limit_events = self._limit_events, []
        return events

    def take_refusals(self) -> Refusals:
        """What import refused since the last call: the first few, and how many in all."""
        refusals = Refusals(self._refused_total, tuple(self._refused_first))
        self._refused_total, self._refused_first = 0, []
        return refusals

    # --- reading ---

    def peers(self) -> tuple[PeerName, ...]:
        """Every peer that has a session or stale paths."""
        return tuple(self._peers)

    def loc_rib(self, family: Family) -> LocRib:
        """The selection of a family; only to be read."""
        return self._loc[ADDRESS_SIZE[family]]

    def table(self, name: PeerName, family: Family) -> AdjRibIn | None:
        """What a peer told us in a family; only to be read.  `LOCAL_PEER` is what we originate."""
        if name == LOCAL_PEER:
            return self._local[ADDRESS_SIZE[family]]
        peer = self._peers.get(name)
        return None if peer is None else peer.tables.get(ADDRESS_SIZE[family])

    def tables(self, name: PeerName | None = None, family: Family | None = None) -> Iterator[AdjRibIn]:
        """The tables of one peer or all (ours first), and one family or both."""
        names = (LOCAL_PEER, *self._peers) if name is None else (name,)
        for each in names:
            for wanted in Family if family is None else (family,):
                table = self.table(each, wanted)
                if table is not None:
                    yield table

    def counts(self, name: PeerName, family: Family) -> FamilyCounts:
        """Paths of a peer in one family; `advertised` is for the export side to fill in."""
        table = self.table(name, family)
        if table is None:
            return FamilyCounts(0, 0, 0, 0)
        return FamilyCounts(len(table), table.accepted, 0, table.stale)

    def totals(self, family: Family) -> tuple[int, int]:
        """How many paths all peers have announced, and how many of them policy accepts.

        In one loop without calls: with 5,000 peers this is asked while they are served.
        """
        size, received, accepted = ADDRESS_SIZE[family], 0, 0
        for peer in self._peers.values():
            table = peer.tables.get(size)
            if table is not None:
                plain, added = table.plain, table.added
                fine = len(plain.accepted) + len(added.accepted)
                accepted += fine
                received += fine + len(plain.refused) + len(added.refused)
        return received, accepted

    def refusing(self, family: Family) -> list[AdjRibIn]:
        """The tables with paths that policy or a limit refused, ours never being one.

        In one loop without calls, as `totals`: few peers have such, and all are asked.
        """
        size, found = ADDRESS_SIZE[family], []
        for peer in self._peers.values():
            table = peer.tables.get(size)
            if table is not None and (table.plain.refused or table.added.refused or table.dropped):
                found.append(table)
        return found

    def decision(self, nlri: Prefix) -> Decision:
        """The decision on a prefix with its reasons, made again now."""
        return self._loc[len(nlri.address)].decision(nlri)

    def selected(self, nlri: Prefix) -> tuple[Path, ...]:
        """`(best, *others of equal cost)` of exactly this prefix."""
        return self._loc[len(nlri.address)].selected.get(nlri, ())

    def why_unresolved(self, path: Path) -> str:
        """Why the next hop can't be resolved, in a sentence; empty when the resolver did not say."""
        return self._why_unresolved(path)
