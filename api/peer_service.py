"""PeerService: lists and watches peers (protos/peer.proto).

A watch tells the present state of each peer whose session changed; timers and counters alone are no news.
While a reflector converges, thousands of peers change all the time: a watch then tells of each at most
`PAUSE` seconds after the last time.
"""

# ruff: noqa: N802 -- the names of the methods are those in the .proto file

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import grpc

from api import requests
from api.call import Bounds, Pace, Watches, Writer, answering
from api.convert_peer import peer_to_message
from api.daemon_view import DaemonView
from api.v1 import peer_pb2 as pb
from api.v1.peer_pb2_grpc import PeerServiceServicer
from routes.path import PeerName
from routes.peer import PeerStatus

PEERS = 50
"""In one message: a peer with its capabilities is as large as ten routes."""
PAUSE = 0.1
"""Seconds that changes of peers are collected for, so that one that changes all the time is told rarely."""

ListContext = grpc.aio.ServicerContext[pb.ListPeersRequest, pb.ListPeersResponse]
WatchContext = grpc.aio.ServicerContext[pb.WatchPeersRequest, pb.WatchPeersResponse]


class PeerService(PeerServiceServicer):
    """The service; one instance for each server."""

    def __init__(self, view: DaemonView, pace: Pace, watches: Watches, bounds: Bounds) -> None:
        self._view = view
        self._pace = pace
        self._watches = watches
        self._bounds = bounds

    async def ListPeers(  # type: ignore[override]  # writes to the context, to notice who does not read
        self, request: pb.ListPeersRequest, context: ListContext
    ) -> None:
        """Stream peers in chunks."""
        async with answering(context, "ListPeers"):
            name = requests.known_peer("name", request.name, self._view) if request.name else None
            writer = Writer(context, self._bounds.stall_time)
            async for chunk in self._pace.chunks(self._peers(name), peer_to_message, PEERS):
                await writer.send(pb.ListPeersResponse(peers=chunk))

    async def WatchPeers(  # type: ignore[override]  # as above
        self, request: pb.WatchPeersRequest, context: WatchContext
    ) -> None:
        """Stream a snapshot, a mark, and then changes."""
        async with self._watches.answering(context, "WatchPeers"):
            name = requests.known_peer("name", request.name, self._view) if request.name else None
            feed = self._view.peer_feed()
            writer = Writer(context, self._bounds.stall_time)
            with feed.subscribe(self._bounds.pending) as changes, self._watches.admit(changes):
                async for chunk in self._pace.chunks(self._peers(name), peer_to_message, PEERS):
                    changes.check()
                    await writer.send(pb.WatchPeersResponse(peers=chunk))
                await writer.send(pb.WatchPeersResponse(end_of_snapshot=True))
                while True:
                    await self._tell(await changes.take(self._bounds.pending), name, writer)
                    await asyncio.sleep(PAUSE)

    async def _tell(
        self,
        changed: list[PeerName],
        name: PeerName | None,
        writer: Writer[pb.WatchPeersRequest, pb.WatchPeersResponse],
    ) -> None:
        names = [peer for peer in changed if name in (None, peer)]
        removed: list[PeerName] = []
        async for chunk in self._pace.chunks(self._states(names, removed), peer_to_message, PEERS):
            await writer.send(pb.WatchPeersResponse(peers=chunk))
        if removed:
            await writer.send(pb.WatchPeersResponse(removed=removed))

    def _peers(self, name: PeerName | None) -> Iterator[PeerStatus | None]:
        return self._view.peers() if name is None else iter([self._view.peer(name)])

    def _states(self, names: Iterable[PeerName], removed: list[PeerName]) -> Iterator[PeerStatus | None]:
        for name in names:
            status = self._view.peer(name)
            if status is None:
                removed.append(name)
            yield status
