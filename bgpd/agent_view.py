"""The agent as the API and the metrics see it: reads of the one writer's state, and its change feeds.

Every method runs in the event loop between two of its steps.  Nothing here changes a table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain

from api.feed import Feed
from api.select import select
from bgpd.announce import OwnPrefixes
from bgpd.daemon import Daemon
from bgpd.fib_sync import FibSync
from routes import explain as explaining
from routes.fib import Fib
from routes.fib_entry import FibEntry
from routes.loc_rib import Change
from routes.path import PeerName
from routes.peer import PeerStatus
from routes.prefix import Family, Prefix
from routes.view import (
    Convergence,
    DaemonStatus,
    Explanation,
    FibCount,
    FibView,
    HostWarning,
    Match,
    NextHopView,
    PathView,
    RouteQuery,
    ShutdownReport,
    Table,
    TableCount,
)

Shutdown = Callable[[bool, str], Coroutine[None, None, ShutdownReport]]


@dataclass(slots=True)
class Facts:
    """What only the agent's life cycle knows."""

    started: float
    """Seconds since the epoch."""
    warnings: tuple[HostWarning, ...] = ()
    config_error: str = ""
    converged_at: float = 0.0
    """Seconds since the epoch; 0 until the initial convergence is complete."""
    held_until: float = 0.0


class _Union(Collection[Prefix]):
    """The prefixes of several mappings, each once."""

    def __init__(self, *parts: Collection[Prefix]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(set().union(*self._parts))

    def __iter__(self) -> Iterator[Prefix]:
        return iter(dict.fromkeys(chain(*self._parts)))

    def __contains__(self, nlri: object) -> bool:
        return any(nlri in part for part in self._parts)


class AgentView:
    """Implements `api.daemon_view.DaemonView`, which is what the metrics read too."""

    def __init__(
        self, daemon: Daemon, fib: FibSync, out: OwnPrefixes, facts: Facts, shutdown: Shutdown
    ) -> None:
        self._daemon = daemon
        self._fib = fib
        self._out = out
        self._facts = facts
        self._shutdown = shutdown
        self._route_feeds: dict[Table, Feed[Prefix]] = {table: Feed() for table in Table}
        self._peer_feed: Feed[PeerName] = Feed()

    # -- routes -----------------------------------------------------------------------------------

    def paths(self, query: RouteQuery) -> Iterator[PathView | None]:
        """The paths of any table but the FIB, in order."""
        rib, table, peer = self._daemon.rib, query.table, query.peer
        targets = self._out.targets() if table is Table.ADJ_OUT else ()
        known = explaining.known_prefixes(rib, table, peer)
        return select(query, known, lambda nlri: explaining.paths_of(rib, nlri, table, peer, targets))

    def fib(self, query: RouteQuery) -> Iterator[FibView | None]:
        """The kernel entries: wanted, present, or both."""
        learned, own = self._fib.learned, self._fib.own
        known = _Union(learned.desired, learned.actual, own.desired, own.actual)
        return select(query, known, self.fib_of)

    def fib_of(self, nlri: Prefix) -> Sequence[FibView]:
        """The entries of one prefix, the one that forwards first."""
        views = (self._fib_view(fib, nlri) for fib in (self._fib.learned, self._fib.own))
        return [view for view in views if view is not None]

    def _fib_view(self, fib: Fib, nlri: Prefix) -> FibView | None:
        state = fib.state(nlri)
        entry = state.wanted if state.wanted is not None else state.actual
        if entry is None:
            return None
        installed = state.installed or (state.held and state.actual is not None)
        return FibView(
            nlri,
            self._hops(entry),
            fib.metric,
            installed,
            held=state.held,
            reason=state.reason,
            preferred_source=entry.preferred_source,
        )

    def _hops(self, entry: FibEntry) -> tuple[NextHopView, ...]:
        links = self._fib.resolver.links
        return tuple(
            NextHopView(
                hop.gateway, hop.ifindex, links[hop.ifindex].name if hop.ifindex in links else "?", hop.onlink
            )
            for hop in entry.hops
        )

    def explain(self, target: Prefix, match: Match) -> Explanation:
        """Why `target` is reached as it is."""
        return explaining.explain(self._daemon.rib, target, match, self.fib_of, self._out.targets())

    # -- peers and the whole ----------------------------------------------------------------------

    def peers(self) -> Iterator[PeerStatus]:
        """Every configured peer."""
        return iter(self._daemon.peer_statuses())

    def peer(self, name: PeerName) -> PeerStatus | None:
        """One configured peer."""
        state = self._daemon.peers.get(name)
        return None if state is None else self._daemon.peer_status(state)

    def status(self) -> DaemonStatus:
        """The daemon as a whole."""
        daemon, facts, config = self._daemon, self._facts, self._daemon.config
        peers = daemon.peers.values()
        return DaemonStatus(
            version=version("podbgp"),
            role="agent",
            asn=config.speaker.asn,
            router_id=config.speaker.router_id,
            started=facts.started,
            convergence=Convergence(
                complete=bool(facts.converged_at),
                at=facts.converged_at,
                waiting_for=daemon.convergence.waiting_for,
                held_until=facts.held_until if self._fib.learned.held else 0.0,
            ),
            peers=len(peers),
            peers_established=sum(state.negotiated is not None for state in peers),
            tables=tuple(self._table_counts()),
            fib=tuple(self._fib_count(family) for family in Family),
            warnings=facts.warnings,
            config_path=config.path,
            config_error=facts.config_error or self._fib.error,
        )

    def _table_counts(self) -> Iterator[TableCount]:
        rib = self._daemon.rib
        for family in Family:
            counts = [rib.counts(name, family) for name in rib.peers()]
            selected = rib.loc_rib(family).selected
            received = sum(count.received for count in counts)
            accepted = sum(count.accepted for count in counts)
            yield TableCount(Table.ADJ_IN_PRE, family, received, received)
            yield TableCount(Table.ADJ_IN_POST, family, accepted, accepted)
            yield TableCount(Table.LOC_RIB, family, len(selected), sum(map(len, selected.values())))

    def _fib_count(self, family: Family) -> FibCount:
        size = 4 if family is Family.IPV4 else 16
        wanted = installed = failed = held = 0
        for fib in (self._fib.learned, self._fib.own):
            actual = fib.actual
            for nlri, entry in fib.desired.items():
                if len(nlri[0]) == size:
                    wanted += 1
                    installed += actual.get(nlri) == entry
            failed += sum(len(nlri[0]) == size for nlri in fib.blocked())
            held += sum(len(nlri[0]) == size for nlri in fib.held_prefixes())
        return FibCount(family, wanted, installed, failed, held)

    def unhealthy(self) -> str:
        """Why the agent can't do its work, in a sentence; empty when it can."""
        return self._fib.error

    # -- feeds ------------------------------------------------------------------------------------

    def route_feed(self, table: Table) -> Feed[Prefix]:
        """Where changes of one table are published."""
        return self._route_feeds[table]

    def peer_feed(self) -> Feed[PeerName]:
        """Where changes of peers are published."""
        return self._peer_feed

    def changed(self, changes: Sequence[Change]) -> None:
        """The Loc-RIB changed."""
        feed = self._route_feeds[Table.LOC_RIB]
        if feed:
            feed.publish(nlri for nlri, _, _ in changes)

    def received(self, prefixes: Callable[[], Iterable[Prefix]]) -> None:
        """An Adj-RIB-In changed for these prefixes; they are computed only if somebody watches."""
        for table in (Table.ADJ_IN_PRE, Table.ADJ_IN_POST):
            feed = self._route_feeds[table]
            if feed:
                feed.publish(prefixes())

    def advertised(self, prefixes: Iterable[Prefix]) -> None:
        """An Adj-RIB-Out changed for these prefixes."""
        self._route_feeds[Table.ADJ_OUT].publish(prefixes)

    def fib_changed(self, prefixes: Iterable[Prefix]) -> None:
        """The kernel entry of these prefixes may be another now."""
        self._route_feeds[Table.FIB].publish(prefixes)

    def fib_watched(self) -> bool:
        """Whether anybody watches the FIB."""
        return bool(self._route_feeds[Table.FIB])

    def peer_changed(self, name: PeerName) -> None:
        """A peer's session, error or prefix counts changed."""
        self._peer_feed.publish((name,))

    def close(self) -> None:
        """End every watch: the daemon is ending."""
        for feed in self._route_feeds.values():
            feed.close()
        self._peer_feed.close()

    # -- leaving ----------------------------------------------------------------------------------

    async def request_shutdown(self, flush: bool, message: str) -> ShutdownReport:
        """Leave for good."""
        return await self._shutdown(flush, message)
