"""What the API needs of the daemon: the only way from here into it.

The daemon implements this Protocol; nothing in `api` knows more of it.  Everything but `request_shutdown`
is synchronous and runs in the daemon's event loop, between two of its steps, so it sees a consistent state.
The API stops reading an iterator after a few milliseconds, lets the loop turn, and goes on: iterators must
survive any change of the tables in between (`api.select.select` does), and must not compute the whole
answer at their first step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from api.feed import Feed
from routes.node_view import NodeStatus, ServiceQuery, ServiceVerdict
from routes.own_path import OwnPath
from routes.path import PeerName
from routes.peer import PeerStatus
from routes.prefix import Prefix
from routes.view import (
    DaemonStatus,
    Explanation,
    FibView,
    Match,
    PathView,
    RouteQuery,
    ShutdownReport,
    Table,
)


class ServicesView(Protocol):
    """The Services of a cluster, as the agent of one node sees them; iterators as in `DaemonView`."""

    def note(self) -> str:
        """Why what is listed may not be all that the cluster has, in a sentence; empty when it is."""

    def verdicts(self, query: ServiceQuery) -> Iterator[ServiceVerdict | None]:
        """For each address, whether it is announced and why, in the order of namespaces and names.

        A query that names one Service has an answer also when there is none such.
        """

    def paths(self, after: Prefix | None) -> Iterator[OwnPath | None]:
        """What is announced for Services, in the order of `api.select.in_order`, from behind `after` on."""


class DaemonView(Protocol):
    """The daemon as the API sees it."""

    def paths(self, query: RouteQuery) -> Iterator[PathView | None]:
        """The paths that the query selects, of any table but the FIB.

        In the order of `api.select.in_order`, all paths of a prefix together.  None says: searched for a
        while without a find; the loop may turn.  With `Match.EXACT` it is called for each change that
        a watcher is told, and should be fast.
        """

    def fib(self, query: RouteQuery) -> Iterator[FibView | None]:
        """The kernel entries that the query selects, likewise."""

    def explain(self, target: Prefix, match: Match) -> Explanation:
        """Why `target` is reached as it is: itself (`EXACT`), or what covers it (`LONGEST`)."""

    def peers(self) -> Iterator[PeerStatus]:
        """Every configured peer, in the order of the configuration."""

    def peer(self, name: PeerName) -> PeerStatus | None:
        """One configured peer."""

    def status(self) -> DaemonStatus:
        """The daemon as a whole."""

    def node(self) -> NodeStatus:
        """Where the intent comes from, and how the daemon's Kubernetes Node is."""

    def services(self) -> ServicesView | None:
        """The cluster's Services; None where the daemon announces none."""

    def route_feed(self, table: Table) -> Feed[Prefix]:
        """Where changes of one table are published: always the same feed for a table."""

    def peer_feed(self) -> Feed[PeerName]:
        """Where changes of peers are published: session state, last error, prefix counts; not timers."""

    async def request_shutdown(self, flush: bool, message: str) -> ShutdownReport:
        """Leave for good: close all sessions with `message`, with `flush` remove our kernel entries.

        Returns when that is done; the process must outlive the answer by a moment (`ApiServer.stop` waits
        for it, and must not be awaited in here).  It goes on when the caller is cancelled.
        """
