"""RouteService: lists, watches and explains routes (protos/route.proto).

Reads the daemon through `DaemonView` and never changes it.  A watch tells the present state of whatever
changed, not a history: see `api/feed.py`.
"""

# ruff: noqa: N802 -- the names of the methods are those in the .proto file

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import grpc

from api import requests
from api.call import CHUNK, Bounds, Pace, Watches, Writer, answering, invalid
from api.convert import change_to_message, explanation_to_message, fib_to_message, path_to_message
from api.daemon_view import DaemonView
from api.feed import Subscription
from api.page import Page
from api.v1 import route_pb2 as pb
from api.v1.route_pb2_grpc import RouteServiceServicer
from routes.prefix import Prefix
from routes.view import FibView, Match, PathView, RouteChange, RouteQuery, Table

Item = TypeVar("Item")

ListContext = grpc.aio.ServicerContext[pb.ListRoutesRequest, pb.ListRoutesResponse]
WatchContext = grpc.aio.ServicerContext[pb.WatchRoutesRequest, pb.WatchRoutesResponse]
ExplainContext = grpc.aio.ServicerContext[pb.ExplainRouteRequest, pb.ExplainRouteResponse]


class RouteService(RouteServiceServicer):
    """The service; one instance for each server."""

    def __init__(self, view: DaemonView, pace: Pace, watches: Watches, bounds: Bounds) -> None:
        self._view = view
        self._pace = pace
        self._watches = watches
        self._bounds = bounds

    async def ListRoutes(  # type: ignore[override]  # writes to the context, to notice who does not read
        self, request: pb.ListRoutesRequest, context: ListContext
    ) -> None:
        """Stream routes in chunks."""
        async with answering(context, "ListRoutes"):
            query = requests.route_query(request.filter, request.page_token, self._view)
            writer = Writer(context, self._bounds.stall_time)
            page = Page(request.page_size)
            if query.table is Table.FIB:
                entries = page.cut(self._view.fib(query), _fib_nlri)
                async for fib_chunk in self._pace.chunks(entries, fib_to_message):
                    await writer.send(pb.ListRoutesResponse(fib_entries=fib_chunk))
            else:
                paths = page.cut(self._view.paths(query), _path_nlri)
                async for chunk in self._pace.chunks(paths, path_to_message):
                    await writer.send(pb.ListRoutesResponse(paths=chunk))
            if page.next_token:
                await writer.send(pb.ListRoutesResponse(next_page_token=page.next_token))

    async def WatchRoutes(  # type: ignore[override]  # as above
        self, request: pb.WatchRoutesRequest, context: WatchContext
    ) -> None:
        """Stream a snapshot, a mark, and then changes."""
        async with self._watches.answering(context, "WatchRoutes"):
            query = requests.route_query(request.filter, "", self._view)
            if query.match is Match.LONGEST:
                raise invalid("filter.match", "MATCH_LONGEST can't be watched; MATCH_SHORTER can")
            # Subscribed before the snapshot: what changes meanwhile is told again, so nothing is missed.
            feed = self._view.route_feed(query.table)
            with feed.subscribe(self._bounds.pending) as changes, self._watches.admit(changes):
                await self._watch(query, changes, Writer(context, self._bounds.stall_time))

    async def _watch(
        self,
        query: RouteQuery,
        changes: Subscription[Prefix],
        writer: Writer[pb.WatchRoutesRequest, pb.WatchRoutesResponse],
    ) -> None:
        watched = Watched(self._view, query)
        async for chunk in self._pace.chunks(watched.snapshot(), change_to_message):
            changes.check()
            await writer.send(pb.WatchRoutesResponse(changes=chunk))
        await writer.send(pb.WatchRoutesResponse(end_of_snapshot=True))
        while True:
            keys = await changes.take(CHUNK)
            async for chunk in self._pace.chunks(watched.states(keys), change_to_message):
                await writer.send(pb.WatchRoutesResponse(changes=chunk))

    async def ExplainRoute(
        self, request: pb.ExplainRouteRequest, context: ExplainContext
    ) -> pb.ExplainRouteResponse:
        """Tell why a destination is reached as it is."""
        async with answering(context, "ExplainRoute"):
            target, match = requests.explain_target(request.target)
            return explanation_to_message(self._view.explain(target, match))
        return pb.ExplainRouteResponse()  # never sent: `answering` ended the call


def _path_nlri(view: PathView) -> Prefix:
    return view.path.nlri


def _fib_nlri(view: FibView) -> Prefix:
    return view.nlri


class Watched:
    """What one watcher sees: the state of each prefix, as it is when it is asked for."""

    def __init__(self, view: DaemonView, query: RouteQuery) -> None:
        self._view = view
        self._query = query
        # With a peer in the query most changes of the table are none of this watcher's: it hears that
        # a prefix is gone only if it was shown before.
        self._shown: set[Prefix] | None = None if query.peer is None else set()

    def snapshot(self) -> Iterator[RouteChange | None]:
        """Every prefix that the query selects."""
        if self._query.table is Table.FIB:
            for nlri, entries in by_prefix(self._view.fib(self._query), _fib_nlri):
                yield None if nlri is None else self._noted(RouteChange(nlri, fib=entries))
        else:
            for nlri, paths in by_prefix(self._view.paths(self._query), _path_nlri):
                yield None if nlri is None else self._noted(RouteChange(nlri, paths=paths))

    def states(self, keys: Iterable[Prefix]) -> Iterator[RouteChange | None]:
        """The state of those changed prefixes that the query selects."""
        for nlri in filter(self._query.matches, keys):
            query = RouteQuery(self._query.table, self._query.peer, None, nlri)
            if query.table is Table.FIB:
                fib = tuple(entry for entry in self._view.fib(query) if entry is not None)
                yield self._noted(RouteChange(nlri, fib=fib))
            else:
                paths = tuple(path for path in self._view.paths(query) if path is not None)
                yield self._noted(RouteChange(nlri, paths=paths))

    def _noted(self, change: RouteChange) -> RouteChange | None:
        """The change, or None when it is no news to this watcher."""
        if self._shown is None:
            return change
        if change.paths:
            self._shown.add(change.nlri)
            return change
        if change.nlri not in self._shown:
            return None
        self._shown.remove(change.nlri)
        return change


def by_prefix(
    items: Iterator[Item | None], nlri_of: Callable[[Item], Prefix]
) -> Iterator[tuple[Prefix | None, tuple[Item, ...]]]:
    """Adjacent items of one prefix together; `(None, ())` where a pause is offered."""
    last: Prefix | None = None
    group: list[Item] = []
    for item in items:
        if item is None:
            yield None, ()
            continue
        nlri = nlri_of(item)
        if group and nlri != last:
            yield last, tuple(group)
            group.clear()
        last = nlri
        group.append(item)
    if group:
        yield last, tuple(group)
