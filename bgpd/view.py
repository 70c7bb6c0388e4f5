"""What every role shows to the API and the metrics: reads of the one writer's state, and its change feeds.

Every method runs in the event loop between two of its steps.  Nothing here changes a table.  A role adds
what is its own: an agent its kernel entries, a reflector what it passed on to whom.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Protocol

from api.daemon_view import ServicesView
from api.feed import Feed
from api.select import select
from bgpd.daemon import Daemon, PeerState
from bgpd.version import version
from routes import explain as explaining
from routes.loc_rib import Change
from routes.node_view import ClusterKnown, NodeHost, NodeStatus
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
    IntentStatus,
    Match,
    PathView,
    RouteQuery,
    ShutdownReport,
    Table,
    TableCount,
)

Shutdown = Callable[[bool, str], Coroutine[None, None, ShutdownReport]]


class Follows(Protocol):
    """What a daemon shows of the cluster that it takes its intent from."""

    def cluster_known(self) -> ClusterKnown:
        """What is known of the cluster, and not taken of it."""

    def node_host(self) -> NodeHost | None:
        """What is done for the node beside routing; None where that is not this daemon's business."""

    def services_shown(self) -> ServicesView | None:
        """The Services; None where this daemon announces none."""


@dataclass(slots=True)
class Facts:
    """What only the role's life cycle knows."""

    started: float
    """Seconds since the epoch."""
    warnings: tuple[HostWarning, ...] = ()
    config_error: str = ""
    converged_at: float = 0.0
    """Seconds since the epoch; 0 until the initial convergence is complete."""
    held_until: float = 0.0
    intent: Callable[[], IntentStatus | None] = lambda: None
    """Asked whenever somebody looks, of what no configuration file said."""
    follows: Follows | None = None
    """None: the configuration file is all of the intent."""


class PrefixUnion(Collection[Prefix]):
    """The prefixes of several collections, each once; `in` costs one lookup for each of them."""

    def __init__(self, *parts: Collection[Prefix]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(set().union(*self._parts))

    def __iter__(self) -> Iterator[Prefix]:
        return iter(dict.fromkeys(chain(*self._parts)))

    def __contains__(self, nlri: object) -> bool:
        return any(nlri in part for part in self._parts)


class RoleView(ABC):
    """Implements `api.daemon_view.DaemonView`, which is what the metrics read too."""

    role: ClassVar[str]

    def __init__(self, daemon: Daemon, facts: Facts, shutdown: Shutdown) -> None:
        self._daemon = daemon
        self._facts = facts
        self._shutdown = shutdown
        self._route_feeds: dict[Table, Feed[Prefix]] = {table: Feed() for table in Table}
        # Asked for every change, mostly in vain; a member of an Enum is hashed in Python.
        self._selected_feed = self._route_feeds[Table.LOC_RIB]
        self._received_feeds = self._route_feeds[Table.ADJ_IN_PRE], self._route_feeds[Table.ADJ_IN_POST]
        self._told_feed = self._route_feeds[Table.ADJ_OUT]
        self._peer_feed: Feed[PeerName] = Feed()

    # -- what a role adds -------------------------------------------------------------------------

    @abstractmethod
    def told(self, nlri: Prefix, peer: PeerName | None) -> Sequence[PathView]:
        """What a peer, or everybody, is told of a prefix (Adj-RIB-Out)."""

    @abstractmethod
    def fib(self, query: RouteQuery) -> Iterator[FibView | None]:
        """The kernel entries: wanted, present, or both."""

    @abstractmethod
    def explain(self, target: Prefix, match: Match) -> Explanation:
        """Why `target` is reached as it is."""

    @abstractmethod
    def fib_counts(self) -> Iterable[FibCount]:
        """How many kernel entries of each family there are."""

    # -- routes -----------------------------------------------------------------------------------

    def paths(self, query: RouteQuery) -> Iterator[PathView | None]:
        """The paths of any table but the FIB, in order."""
        rib, table, peer = self._daemon.rib, query.table, query.peer
        if table is Table.ADJ_OUT:
            return select(query, self.known_out(), lambda nlri: self.told(nlri, peer))
        known = explaining.known_prefixes(rib, table, peer)
        return select(query, known, lambda nlri: explaining.paths_of(rib, nlri, table, peer))

    def known_out(self) -> Collection[Prefix]:
        """What anybody may be told."""
        return explaining.known_prefixes(self._daemon.rib, Table.LOC_RIB)

    # -- peers and the whole ----------------------------------------------------------------------

    def peers(self) -> Iterator[PeerStatus]:
        """Every peer, one after the other: each is asked only when the reader wants it."""
        return map(self.peer_status, list(self._daemon.peers.values()))

    def peer_status(self, state: PeerState) -> PeerStatus:
        """One peer at this moment."""
        return self._daemon.peer_status(state)

    def range_of(self, name: PeerName) -> str | None:
        """The range of clients that a peer came from; empty for an entry of its own, None when it is gone."""
        state = self._daemon.peers.get(name)
        return None if state is None else state.config.range

    def peer(self, name: PeerName) -> PeerStatus | None:
        """One configured peer."""
        state = self._daemon.peers.get(name)
        return None if state is None else self.peer_status(state)

    def status(self, *, received: bool = True) -> DaemonStatus:
        """The daemon as a whole; `received`: with the Adj-RIBs-In, whose counts take time with many peers."""
        daemon, facts, config = self._daemon, self._facts, self._daemon.config
        peers = daemon.peers.values()
        intent = facts.intent()
        return DaemonStatus(
            version=version(),
            role=self.role,
            asn=config.speaker.asn,
            router_id=config.speaker.router_id,
            started=facts.started,
            convergence=Convergence(
                complete=bool(facts.converged_at),
                at=facts.converged_at,
                waiting_for=daemon.convergence.waiting_for,
                held_until=facts.held_until,
            ),
            peers=len(peers),
            peers_established=sum(state.negotiated is not None for state in peers),
            tables=tuple(self._table_counts(received=received)),
            fib=tuple(self.fib_counts()),
            warnings=facts.warnings if intent is None else (*intent.warnings, *facts.warnings),
            config_path=config.path,
            config_error=facts.config_error,
            intent=intent,
        )

    def node(self) -> NodeStatus:
        """Where the intent comes from, and how the daemon's Kubernetes Node is."""
        path, follows = self._daemon.config.path, self._facts.follows
        if follows is None:
            return NodeStatus(self.role, path)
        return NodeStatus(self.role, path, follows.cluster_known(), follows.node_host())

    def services(self) -> ServicesView | None:
        """The cluster's Services; None where the daemon announces none."""
        return None if self._facts.follows is None else self._facts.follows.services_shown()

    def _table_counts(self, *, received: bool) -> Iterator[TableCount]:
        rib = self._daemon.rib
        for family in Family:
            if received:
                announced, accepted = rib.totals(family)
                yield TableCount(Table.ADJ_IN_PRE, family, announced, announced)
                yield TableCount(Table.ADJ_IN_POST, family, accepted, accepted)
            selected = rib.loc_rib(family).selected
            yield TableCount(Table.LOC_RIB, family, len(selected), sum(map(len, selected.values())))

    # -- feeds ------------------------------------------------------------------------------------

    def route_feed(self, table: Table) -> Feed[Prefix]:
        """Where changes of one table are published."""
        return self._route_feeds[table]

    def peer_feed(self) -> Feed[PeerName]:
        """Where changes of peers are published."""
        return self._peer_feed

    def changed(self, changes: Sequence[Change]) -> None:
        """The Loc-RIB changed."""
        if self._selected_feed:
            self._selected_feed.publish(nlri for nlri, _, _ in changes)

    def received(self, prefixes: Callable[[], Iterable[Prefix]]) -> None:
        """An Adj-RIB-In changed for these prefixes; they are computed only if somebody watches."""
        for feed in self._received_feeds:
            if feed:
                feed.publish(prefixes())

    def advertised(self, prefixes: Iterable[Prefix]) -> None:
        """An Adj-RIB-Out changed for these prefixes."""
        self._told_feed.publish(prefixes)

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
