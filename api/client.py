"""A thin, typed, synchronous client: core values in, core values out.

The command line and the tests use it; so can any Python program on the node.  It holds one channel, and
turns what gRPC raises into `ClientError`s with a sentence.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import grpc

from api.convert import (
    change_from_message,
    explanation_from_message,
    fib_from_message,
    path_from_message,
    query_to_message,
)
from api.convert_node import node_from_message, service_path_from_message, verdict_from_message
from api.convert_peer import peer_from_message, shutdown_from_message, status_from_message
from api.feed import SHUTTING_DOWN
from api.listen import parse_api_address
from api.v1 import control_pb2, node_pb2, peer_pb2, route_pb2
from api.v1.control_pb2_grpc import ControlServiceStub
from api.v1.node_pb2_grpc import NodeServiceStub
from api.v1.peer_pb2_grpc import PeerServiceStub
from api.v1.route_pb2_grpc import RouteServiceStub
from routes.node_view import NodeStatus, ServiceVerdict
from routes.own_path import OwnPath
from routes.path import PeerName
from routes.peer import PeerStatus
from routes.view import (
    DaemonStatus,
    Explanation,
    FibView,
    PathView,
    RouteChange,
    RouteQuery,
    ShutdownReport,
    Table,
)

Response = TypeVar("Response")

MAX_RESPONSE = 16 * 1024 * 1024
CALL_TIME = 10.0
"""Seconds for a short call; listings and watches take as long as they take."""
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RESPONSE),
    ("grpc.enable_http_proxy", 0),  # the daemon is on this host or named by address; no proxy knows it
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),  # a daemon that hangs ends a watch, instead of an eternal silence
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.min_reconnect_backoff_ms", 5000),  # and so long may a TCP connection take
)


class ClientError(Exception):
    """The daemon refused or ended the call; the text is its own."""

    def __init__(self, text: str, code: grpc.StatusCode) -> None:
        super().__init__(text)
        self.code = code


class InvalidRequestError(ClientError):
    """The daemon says that what was asked for makes no sense."""


class UnreachableError(ClientError):
    """No daemon answers there, or it ended."""


class RoutesChanged(NamedTuple):
    """From a watch: new states of prefixes, or the end of the snapshot."""

    changes: tuple[RouteChange, ...]
    end_of_snapshot: bool


class PeersChanged(NamedTuple):
    """From a watch: new states of peers, peers that are gone, or the end of the snapshot."""

    peers: tuple[PeerStatus, ...]
    removed: tuple[PeerName, ...]
    end_of_snapshot: bool


class ServicePage(NamedTuple):
    """Verdicts about Services."""

    verdicts: list[ServiceVerdict]
    note: str
    """Why this may not be all that the cluster has; empty when it is."""
    next_token: str
    """Of the next page; empty at the end."""


class Client:
    """Talks to one daemon.  Use it as a context manager, or `close` it."""

    def __init__(self, api: str, call_time: float = CALL_TIME) -> None:
        """`api` as in `[api] listen`; ValueError if it can't be read."""
        self._address = parse_api_address(api)
        self._call_time = call_time
        self._channel = grpc.insecure_channel(self._address.grpc_target, OPTIONS)
        self._routes = RouteServiceStub(self._channel)
        self._peers = PeerServiceStub(self._channel)
        self._control = ControlServiceStub(self._channel)
        self._node = NodeServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; iterators that still run end with an error."""
        self._channel.close()

    def paths(self, query: RouteQuery) -> Iterator[PathView]:
        """All paths that the query selects (not of the FIB)."""
        for response in self._list(query, 0):
            yield from map(path_from_message, response.paths)

    def fib(self, query: RouteQuery | None = None) -> Iterator[FibView]:
        """The kernel entries that the query selects; all by default."""
        for response in self._list(query or RouteQuery(Table.FIB), 0):
            yield from map(fib_from_message, response.fib_entries)

    def page(
        self, query: RouteQuery, size: int, token: str = ""
    ) -> tuple[list[PathView], list[FibView], str]:
        """About `size` routes from where `token` says, and the token of the next page, empty at the end."""
        paths: list[PathView] = []
        entries: list[FibView] = []
        next_token = ""
        for response in self._list(query, size, token):
            paths.extend(map(path_from_message, response.paths))
            entries.extend(map(fib_from_message, response.fib_entries))
            next_token = response.next_page_token
        return paths, entries, next_token

    def _list(self, query: RouteQuery, size: int, token: str = "") -> Iterator[route_pb2.ListRoutesResponse]:
        request = route_pb2.ListRoutesRequest(
            filter=query_to_message(query), page_size=size, page_token=token
        )
        return self._stream(lambda: self._routes.ListRoutes(request))

    def watch_routes(self, query: RouteQuery) -> Generator[RoutesChanged, None, None]:
        """The snapshot, its end, and then changes until the daemon ends, or the iterator is closed."""
        request = route_pb2.WatchRoutesRequest(filter=query_to_message(query))
        for response in self._stream(lambda: self._routes.WatchRoutes(request)):
            yield RoutesChanged(tuple(map(change_from_message, response.changes)), response.end_of_snapshot)

    def explain(self, target: str) -> Explanation:
        """Why a prefix or an address is reached as it is."""
        request = route_pb2.ExplainRouteRequest(target=target)
        with self._sentences():
            return explanation_from_message(self._routes.ExplainRoute(request, timeout=self._call_time))

    def peers(self, name: str = "") -> list[PeerStatus]:
        """All peers, or one."""
        request = peer_pb2.ListPeersRequest(name=name)
        stream = self._stream(lambda: self._peers.ListPeers(request))
        return [peer_from_message(peer) for response in stream for peer in response.peers]

    def watch_peers(self, name: str = "") -> Generator[PeersChanged, None, None]:
        """The snapshot, its end, and then changes until the daemon ends, or the iterator is closed."""
        request = peer_pb2.WatchPeersRequest(name=name)
        for response in self._stream(lambda: self._peers.WatchPeers(request)):
            yield PeersChanged(
                tuple(map(peer_from_message, response.peers)),
                tuple(map(PeerName, response.removed)),
                response.end_of_snapshot,
            )

    def status(self) -> DaemonStatus:
        """The daemon as a whole."""
        with self._sentences():
            response = self._control.GetStatus(control_pb2.GetStatusRequest(), timeout=self._call_time)
        return status_from_message(response)

    def node(self) -> NodeStatus:
        """The daemon's Kubernetes Node, and where its intent comes from."""
        with self._sentences():
            response = self._node.GetNodeStatus(node_pb2.GetNodeStatusRequest(), timeout=self._call_time)
        return node_from_message(response)

    def services(self, namespace: str = "", name: str = "", size: int = 0, token: str = "") -> ServicePage:
        """Whether and why this node announces each address; `size` and `token` as in `page`."""
        wanted = node_pb2.ServiceFilter(namespace=namespace, name=name)
        request = node_pb2.ListServicesRequest(filter=wanted, page_size=size, page_token=token)
        verdicts: list[ServiceVerdict] = []
        note = next_token = ""
        for response in self._stream(lambda: self._node.ListServices(request)):
            verdicts.extend(map(verdict_from_message, response.verdicts))
            note, next_token = note or response.note, response.next_page_token
        return ServicePage(verdicts, note, next_token)

    def service_paths(self, size: int = 0, token: str = "") -> tuple[list[OwnPath], str]:
        """What this node announces for Services, and the token of the next page, empty at the end."""
        request = node_pb2.ListServicePathsRequest(page_size=size, page_token=token)
        paths: list[OwnPath] = []
        next_token = ""
        for response in self._stream(lambda: self._node.ListServicePaths(request)):
            paths.extend(map(service_path_from_message, response.paths))
            next_token = response.next_page_token
        return paths, next_token

    def shutdown(self, flush: bool = False, message: str = "") -> ShutdownReport:
        """End the daemon for good; returns when its sessions are closed."""
        request = control_pb2.ShutdownRequest(flush=flush, message=message)
        with self._sentences():
            # No timeout: removing a large table takes a while, and giving up would not stop it.
            return shutdown_from_message(self._control.Shutdown(request))

    def _stream(self, start: Callable[[], grpc.CallIterator[Response]]) -> Iterator[Response]:
        with self._sentences():
            call = start()
            try:
                yield from call
            finally:
                call.cancel()  # type: ignore[no-untyped-call]  # untyped in the stubs

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Let errors say what is wrong, in the daemon's words or ours."""
        try:
            yield
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call):
                raise
            code, details = error.code(), error.details() or ""
            raise self._error(code, details) from None

    def _error(self, code: grpc.StatusCode, details: str) -> ClientError:
        if code is grpc.StatusCode.UNAVAILABLE and details != SHUTTING_DOWN:
            if os.strerror(errno.EACCES) in details:
                hint = "permission denied; run this as root, or in the group that its socket belongs to"
            elif "connect" in details:
                hint = "is it running? (podbgpd agent --config FILE)"
            else:
                return UnreachableError(f"the connection to podbgpd at {self._address} was lost", code)
            return UnreachableError(f"cannot reach podbgpd at {self._address}: {hint}", code)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return UnreachableError(f"podbgpd at {self._address} did not answer in time", code)
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequestError(details, code)
        return ClientError(details or code.name, code)
