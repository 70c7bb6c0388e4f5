"""A daemon for the API's tests: tables that a test fills, feeds that it publishes to, no BGP."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from api.call import DEFAULT_BOUNDS, Bounds
from api.feed import Feed
from api.select import select
from api.server import ApiServer
from routes.node_view import NodeStatus, ServiceQuery, ServiceVerdict
from routes.own_path import OwnPath
from routes.path import (
    AsPath,
    AsSegment,
    Origin,
    PathAttributes,
    PeerKind,
    PeerName,
    SegmentKind,
    Source,
)
from routes.path import Path as BgpPath
from routes.peer import Counters, FamilyCounts, LastError, PeerStatus, SessionState
from routes.prefix import Family, Prefix, parse_address, parse_router_id
from routes.view import (
    Convergence,
    DaemonStatus,
    Explanation,
    FibCount,
    FibView,
    Gate,
    HostWarning,
    Match,
    NextHopView,
    PathView,
    RouteQuery,
    ShutdownReport,
    Table,
    TableCount,
)


def source(peer: str, asn: int = 65001) -> Source:
    address = parse_address(peer)
    return Source(PeerName(peer), PeerKind.EBGP, asn, parse_router_id("192.0.2.1"), address)


def path_view(
    nlri: str, peer: str = "192.0.2.1", *, best: bool = True, reason: str = "", med: int | None = None
) -> PathView:
    attributes = PathAttributes(
        Origin.IGP,
        AsPath.of((AsSegment(SegmentKind.SEQUENCE, (65001, 65010)),)),
        parse_address(peer),
        med=med,
        local_pref=100,
        communities=(65001 << 16 | 7,),
    )
    path = BgpPath(Prefix.parse(nlri), attributes, source(peer))
    accepted = best or not reason.startswith("refused")
    return PathView(path, attributes, accepted, "allow 10.244.0.0/16", best=best, reason=reason)


def fib_view(nlri: str, gateway: str | None = "192.0.2.1", reason: str = "") -> FibView:
    hops = () if gateway is None else (NextHopView(parse_address(gateway), 2, "eth0"),)
    return FibView(Prefix.parse(nlri), hops, 20, installed=not reason, reason=reason)


def peer_status(name: str, state: SessionState = SessionState.ESTABLISHED, **more: object) -> PeerStatus:
    up = state is SessionState.ESTABLISHED
    fields: dict[str, object] = {
        "name": PeerName(name),
        "kind": PeerKind.EBGP,
        "asn": 65001,
        "local_asn": 65000,
        "state": state,
        "peer_address": parse_address(name.partition("%")[0]),
        "bgp_id": parse_router_id("192.0.2.1") if up else 0,
        "hold_time": 90,
        "since": 1_700_000_000.0,
        "counters": Counters(messages_in=12, messages_out=34, flaps=1),
        "families": ((Family.IPV4, FamilyCounts(5, 4, 1)),) if up else (),
        "last_error": None if up else LastError("connection refused", 1_700_000_000.0, None),
    }
    return PeerStatus(**(fields | more))  # type: ignore[arg-type]  # a test's own fields


def verdict(
    service: str, address: str, *prefixes: str, kind: str = "LoadBalancerIP", rule: str = "NoEndpoint"
) -> ServiceVerdict:
    """Of an address that is announced as these prefixes, or without any is not, by that rule."""
    namespace, _, name = service.partition("/")
    announced = bool(prefixes)
    text = f"{kind} {address} is {'announced' if announced else 'not announced: no endpoint is ready'}"
    rule = "Announced" if announced else rule
    ways = tuple(map(Prefix.parse, prefixes))
    return ServiceVerdict(namespace, name, parse_address(address), kind, announced, rule, ways, text)


class FakeServices:
    """Implements `api.daemon_view.ServicesView` over lists."""

    def __init__(
        self, verdicts: Sequence[ServiceVerdict], paths: Sequence[OwnPath] = (), note: str = ""
    ) -> None:
        self._verdicts = verdicts
        self._paths = paths
        self._note = note

    def note(self) -> str:
        return self._note

    def verdicts(self, query: ServiceQuery) -> Iterator[ServiceVerdict | None]:
        yield None
        yield from (each for each in self._verdicts if query.matches((each.namespace, each.name)))

    def paths(self, after: Prefix | None) -> Iterator[OwnPath | None]:
        query = RouteQuery(Table.LOC_RIB, after=after)
        yield from (path for path in self._paths if query.matches(path.nlri))


class FakeDaemonView:
    """Implements `api.daemon_view.DaemonView` over dictionaries."""

    def __init__(self) -> None:
        self.tables: dict[Table, dict[Prefix, list[PathView]]] = {table: {} for table in Table}
        self.entries: dict[Prefix, list[FibView]] = {}
        self.peer_statuses: dict[PeerName, PeerStatus] = {}
        self.route_feeds: dict[Table, Feed[Prefix]] = {table: Feed() for table in Table}
        self.peer_changes: Feed[PeerName] = Feed()
        self.shutdowns: list[tuple[bool, str]] = []
        self.node_status = NodeStatus("agent", "/etc/podbgp/agent.toml")
        self.cluster_services: FakeServices | None = None

    def put(self, table: Table, *views: PathView) -> None:
        """Add paths, as a start or as a change."""
        for view in views:
            self.tables[table].setdefault(view.path.nlri, []).append(view)
        self.route_feeds[table].publish(view.path.nlri for view in views)

    def drop(self, table: Table, nlri: str) -> None:
        del self.tables[table][Prefix.parse(nlri)]
        self.route_feeds[table].publish([Prefix.parse(nlri)])

    def install(self, *views: FibView) -> None:
        for view in views:
            self.entries.setdefault(view.nlri, []).append(view)
        self.route_feeds[Table.FIB].publish(view.nlri for view in views)

    def set_peer(self, status: PeerStatus) -> None:
        self.peer_statuses[status.name] = status
        self.peer_changes.publish([status.name])

    def remove_peer(self, name: str) -> None:
        del self.peer_statuses[PeerName(name)]
        self.peer_changes.publish([PeerName(name)])

    def paths(self, query: RouteQuery) -> Iterator[PathView | None]:
        table = self.tables[query.table]

        def wanted(nlri: Prefix) -> list[PathView]:
            views = table.get(nlri, [])
            if query.peer is None:
                return views
            if query.table is Table.ADJ_OUT:
                return [view for view in views if view.to == query.peer]
            return [view for view in views if view.path.source.peer == query.peer]

        return select(query, table, wanted)

    def fib(self, query: RouteQuery) -> Iterator[FibView | None]:
        return select(query, self.entries, lambda nlri: self.entries.get(nlri, []))

    def explain(self, target: Prefix, match: Match) -> Explanation:
        query = RouteQuery(Table.ADJ_IN_PRE, prefix=target, match=match)
        paths = tuple(view for view in self.paths(query) if view is not None)
        if not paths:
            return Explanation(target, None, Gate.ANNOUNCED, f"No peer announces {target}.")
        nlri = paths[0].path.nlri
        fib = tuple(self.entries.get(nlri, []))
        if not any(view.accepted for view in paths):
            return Explanation(target, nlri, Gate.IMPORT, "Import policy refuses every path.", paths)
        failed = None if fib and fib[0].installed else Gate.KERNEL
        text = f"{nlri} is in the kernel." if failed is None else "The kernel does not have it."
        return Explanation(target, nlri, failed, text, paths, fib, (PeerName("192.0.2.2"),))

    def peers(self) -> Iterator[PeerStatus]:
        return iter(list(self.peer_statuses.values()))

    def peer(self, name: PeerName) -> PeerStatus | None:
        return self.peer_statuses.get(name)

    def status(self) -> DaemonStatus:
        return DaemonStatus(
            version="0.1.0",
            role="agent",
            asn=65000,
            router_id=parse_router_id("192.0.2.11"),
            started=1_700_000_000.0,
            convergence=Convergence(False, waiting_for=(PeerName("192.0.2.2"),)),
            peers=len(self.peer_statuses),
            peers_established=1,
            tables=(TableCount(Table.LOC_RIB, Family.IPV4, len(self.tables[Table.LOC_RIB]), 3),),
            fib=(FibCount(Family.IPV4, 3, 2, 1, 0),),
            warnings=(
                HostWarning(
                    "forwarding is off", "net.ipv4.ip_forward = 0", "sysctl -w net.ipv4.ip_forward=1"
                ),
            ),
            config_path="/etc/podbgp/agent.toml",
        )

    def node(self) -> NodeStatus:
        return self.node_status

    def services(self) -> FakeServices | None:
        return self.cluster_services

    def route_feed(self, table: Table) -> Feed[Prefix]:
        return self.route_feeds[table]

    def peer_feed(self) -> Feed[PeerName]:
        return self.peer_changes

    async def request_shutdown(self, flush: bool, message: str) -> ShutdownReport:
        self.shutdowns.append((flush, message))
        return ShutdownReport(2, 3 if flush else 0, 0 if flush else 3)


class ServedView:
    """A `FakeDaemonView` behind a real server, whose loop runs in a thread of its own."""

    def __init__(self, view: FakeDaemonView, api: str, loop: asyncio.AbstractEventLoop, server: ApiServer):
        self.view = view
        self.api = api
        self.server = server
        self._loop = loop

    def run(self, change: Callable[[], None]) -> None:
        """Change the view where the daemon would: in the server's loop."""

        async def once() -> None:
            change()

        self.await_in_loop(once())

    def await_in_loop(self, coroutine: Coroutine[object, object, None]) -> None:
        """Wait for something that the daemon would await."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def stop(self) -> None:
        """Stop the server and keep the loop."""
        self.await_in_loop(self.server.stop())


@contextmanager
def served(
    view: FakeDaemonView, bounds: Bounds = DEFAULT_BOUNDS, listen: str | None = None
) -> Iterator[ServedView]:
    """Serve `view` on a Unix socket in a folder of its own."""
    with TemporaryDirectory(prefix=f"podbgp-api-{os.getpid()}-") as folder:
        api = listen or f"unix://{Path(folder)}/run/api.sock"
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="fake daemon")
        thread.start()
        try:
            server = asyncio.run_coroutine_threadsafe(_started(view, api, bounds), loop).result(10)
            try:
                yield ServedView(view, api, loop, server)
            finally:
                asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


async def _started(view: FakeDaemonView, api: str, bounds: Bounds) -> ApiServer:
    server = ApiServer(view, api, bounds)
    await server.start()
    return server
