"""The gRPC server in the daemon's event loop: services, health, reflection, and the bounds of it all.

It owns the socket and the services, and nothing of the daemon.  Every resource that a client can hold is
bounded here: connections by keepalive, calls, streams and watches by number, requests by size.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from api.call import DEFAULT_BOUNDS, Bounds, Pace, Watches
from api.control_service import ControlService
from api.daemon_view import DaemonView
from api.listen import ListenError, parse_api_address, prepare_socket
from api.node_service import NodeService
from api.peer_service import PeerService
from api.route_service import RouteService
from api.v1 import control_pb2, node_pb2, peer_pb2, route_pb2
from api.v1.control_pb2_grpc import add_ControlServiceServicer_to_server
from api.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from api.v1.peer_pb2_grpc import add_PeerServiceServicer_to_server
from api.v1.route_pb2_grpc import add_RouteServiceServicer_to_server

MAX_CALLS = 256
"""Calls at a time; watches have a bound of their own."""
MAX_CONNECTIONS = 200
MAX_STREAMS = 100
"""Of them, on one connection."""
MAX_REQUEST = 16 * 1024
"""Bytes; the largest request that makes sense has a few hundred."""
MAX_RESPONSE = 16 * 1024 * 1024
"""Bytes; a chunk of 500 ordinary paths has 60 KB."""
STOP_TIME = 2.0
"""Seconds for calls to end when the server stops."""

SERVICES = (
    route_pb2.DESCRIPTOR.services_by_name["RouteService"].full_name,
    peer_pb2.DESCRIPTOR.services_by_name["PeerService"].full_name,
    control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name,
    node_pb2.DESCRIPTOR.services_by_name["NodeService"].full_name,
)
OVERALL = ""
"""The health service's name for the server as a whole."""
CONVERGED = "podbgp.v1.converged"
"""In the health service: serving once the first convergence is complete (a readiness probe asks for it)."""

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST),
    ("grpc.max_send_message_length", MAX_RESPONSE),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", 5_000),  # who connects and says nothing holds no connection
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not a second server on it
    ("grpc.keepalive_time_ms", 60_000),  # a client that vanished is noticed
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # and one that pings faster is dropped
    ("grpc.http2.max_ping_strikes", 2),
)

Status = health_pb2.HealthCheckResponse


class ApiServer:
    """The API, served on `listen` from `start` to `stop`."""

    def __init__(self, view: DaemonView, listen: str, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        try:
            self._address = parse_api_address(listen)
        except ValueError as error:
            raise ListenError(str(error)) from None
        self._view = view
        self._bounds = bounds
        self._watches = Watches(bounds.watches)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the stubs
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Begin to serve; raises `ListenError` with a sentence for the operator."""
        server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        self._add_services(server)
        self._listen(server)
        await server.start()
        self._server = server
        for name in (OVERALL, *SERVICES):
            await self._health.set(name, Status.SERVING)
        await self._health.set(CONVERGED, Status.NOT_SERVING)

    def _add_services(self, server: grpc.aio.Server) -> None:
        pace, view = Pace(), self._view
        routes = RouteService(view, pace, self._watches, self._bounds)
        peers = PeerService(view, pace, self._watches, self._bounds)
        add_RouteServiceServicer_to_server(routes, server)
        add_PeerServiceServicer_to_server(peers, server)
        add_ControlServiceServicer_to_server(ControlService(view, bool(self._address.path)), server)
        add_NodeServiceServicer_to_server(NodeService(view, pace, self._bounds), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)

    def _listen(self, server: grpc.aio.Server) -> None:
        address = self._address
        if address.path:
            prepare_socket(address.path)
        umask = os.umask(0o117)  # the socket is born with mode 0660: no moment in which others can connect
        try:
            server.add_insecure_port(address.bind_target)
        except RuntimeError:  # gRPC keeps the reason to itself (its own log has it)
            raise ListenError(f"the API can't listen on {address}: it is taken or not permitted") from None
        finally:
            os.umask(umask)

    async def set_converged(self, converged: bool) -> None:
        """Say whether the first convergence is complete, for readiness probes."""
        await self._health.set(CONVERGED, Status.SERVING if converged else Status.NOT_SERVING)

    async def stop(self) -> None:
        """End all watches with a reason, let other calls finish for a moment, and close the socket."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self._watches.close()
        with suppress(TimeoutError):  # a watcher that is stuck must not hold up the end
            async with asyncio.timeout(STOP_TIME):
                await self._health.enter_graceful_shutdown()
                await self._watches.ended()  # a reason that gRPC's own goodbye overtakes may be lost
        await server.stop(STOP_TIME)
