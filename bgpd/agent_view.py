"""The agent as the API and the metrics see it: the tables, and beside them the kernel's entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from api.select import select
from bgpd.announce import OwnPrefixes
from bgpd.daemon import Daemon
from bgpd.fib_sync import FibSync
from bgpd.view import Facts, PrefixUnion, RoleView, Shutdown
from routes import explain as explaining
from routes.fib import Fib
from routes.fib_entry import FibEntry
from routes.path import PeerName
from routes.prefix import ADDRESS_SIZE, Family, Prefix
from routes.view import (
    DaemonStatus,
    Explanation,
    FibCount,
    FibView,
    HostWarning,
    Match,
    NextHopView,
    PathView,
    RouteQuery,
    Table,
)

DRAINING = HostWarning(
    "this node is being drained",
    "its paths are announced as the last choice (RFC 8326)",
    "set drain = false in [agent] and reload, to take it back",
)


class AgentView(RoleView):
    """What an agent shows."""

    role: ClassVar[str] = "agent"

    def __init__(
        self, daemon: Daemon, fib: FibSync, out: OwnPrefixes, facts: Facts, shutdown: Shutdown
    ) -> None:
        super().__init__(daemon, facts, shutdown)
        self._fib = fib
        self._out = out

    def told(self, nlri: Prefix, peer: PeerName | None) -> Sequence[PathView]:
        """Our own prefixes, as each peer is told them."""
        return explaining.paths_of(self._daemon.rib, nlri, Table.ADJ_OUT, peer, self._out.targets())

    def fib(self, query: RouteQuery) -> Iterator[FibView | None]:
        """The kernel entries: wanted, present, or both."""
        learned, own = self._fib.learned, self._fib.own
        known = PrefixUnion(learned.desired, learned.actual, own.desired, own.actual)
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

    def status(self, *, received: bool = True) -> DaemonStatus:
        """The daemon as a whole."""
        status = super().status(received=received)
        if not self._fib.learned.held:
            status = replace(status, convergence=status.convergence._replace(held_until=0.0))
        first: list[HostWarning] = []
        if self._fib.error:
            first.append(HostWarning("the kernel's routes can't be changed", self._fib.error, ""))
        if self._out.draining:
            first.append(DRAINING)
        return replace(status, warnings=(*first, *status.warnings)) if first else status

    def fib_counts(self) -> Iterable[FibCount]:
        """How many kernel entries of each family there are."""
        return [self._fib_count(family) for family in Family]

    def _fib_count(self, family: Family) -> FibCount:
        size = ADDRESS_SIZE[family]
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
