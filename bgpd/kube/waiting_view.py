"""What the API shows of a daemon that waits for its first intent: that it waits, for what, and no routes.

Whoever asks an agent why its node is not ready asks most often now, when there is no BGPCluster yet, or the
API server is away.  The role's own API takes the socket over when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from api.daemon_view import ServicesView
from api.feed import Feed
from bgpd.kube.waiting import Waiting
from bgpd.process import Leaving
from bgpd.view import Follows
from routes.node_view import NodeStatus
from routes.path import PeerName
from routes.peer import PeerStatus
from routes.prefix import Prefix
from routes.view import (
    DaemonStatus,
    Explanation,
    FibView,
    Gate,
    Match,
    PathView,
    RouteQuery,
    ShutdownReport,
    Table,
)

NOT_FLUSHED = "the daemon had not begun, so it removed nothing from the kernel: podbgpd flush does"


class WaitingView:
    """Implements `api.daemon_view.DaemonView` for a daemon without tables."""

    def __init__(
        self, source: Waiting, follows: Follows, why: Callable[[], str], leave: Callable[[Leaving], object]
    ) -> None:
        self._source = source
        self._follows = follows
        self._why = why
        self._leave = leave
        self._route_feeds: dict[Table, Feed[Prefix]] = {table: Feed() for table in Table}
        self._peer_feed: Feed[PeerName] = Feed()

    def paths(self, query: RouteQuery) -> Iterator[PathView | None]:  # noqa: ARG002  there are none
        return iter(())

    def fib(self, query: RouteQuery) -> Iterator[FibView | None]:  # noqa: ARG002  nothing is looked at yet
        return iter(())

    def explain(self, target: Prefix, match: Match) -> Explanation:  # noqa: ARG002  nothing covers it
        return Explanation(target, None, Gate.ANNOUNCED, f"The daemon has not begun: {self._why()}")

    def peers(self) -> Iterator[PeerStatus]:
        return iter(())

    def peer(self, name: PeerName) -> PeerStatus | None:  # noqa: ARG002  there is none
        return None

    def status(self) -> DaemonStatus:
        return self._source.status(received=False)

    def node(self) -> NodeStatus:
        return NodeStatus(self._source.role, "", self._follows.cluster_known(), self._follows.node_host())

    def services(self) -> ServicesView | None:
        return self._follows.services_shown()

    def route_feed(self, table: Table) -> Feed[Prefix]:
        return self._route_feeds[table]

    def peer_feed(self) -> Feed[PeerName]:
        return self._peer_feed

    async def request_shutdown(self, flush: bool, message: str) -> ShutdownReport:  # noqa: ARG002  to nobody
        self._leave(Leaving(None))
        return ShutdownReport(0, 0, 0, (NOT_FLUSHED,) if flush else ())
