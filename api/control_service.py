"""ControlService: the daemon's status, and its end (protos/control.proto).

Whoever can write to the socket may end the daemon, so that is offered on a Unix socket alone, where file
permissions say who that is.
"""

# ruff: noqa: N802 -- the names of the methods are those in the .proto file

from __future__ import annotations

import grpc
import structlog

from api import requests
from api.call import CallError, answering
from api.convert_peer import shutdown_to_message, status_to_message
from api.daemon_view import DaemonView
from api.v1 import control_pb2 as pb
from api.v1.control_pb2_grpc import ControlServiceServicer

StatusContext = grpc.aio.ServicerContext[pb.GetStatusRequest, pb.GetStatusResponse]
ShutdownContext = grpc.aio.ServicerContext[pb.ShutdownRequest, pb.ShutdownResponse]

log = structlog.get_logger()


class ControlService(ControlServiceServicer):
    """The service; one instance for each server."""

    def __init__(self, view: DaemonView, allow_shutdown: bool) -> None:
        self._view = view
        self._allow_shutdown = allow_shutdown

    async def GetStatus(self, _request: pb.GetStatusRequest, _context: StatusContext) -> pb.GetStatusResponse:
        """Tell how the daemon is."""
        return status_to_message(self._view.status())

    async def Shutdown(self, request: pb.ShutdownRequest, context: ShutdownContext) -> pb.ShutdownResponse:
        """Leave for good; answered when all is done, just before the daemon ends."""
        async with answering(context, "Shutdown"):
            if not self._allow_shutdown:
                text = "shutdown is only served on a Unix socket, and this daemon's API listens on TCP"
                raise CallError(grpc.StatusCode.PERMISSION_DENIED, text)
            message = requests.shutdown_message(request.message)
            log.info("shutdown requested", client=context.peer(), flush=request.flush, message=message)
            return shutdown_to_message(await self._view.request_shutdown(request.flush, message))
        return pb.ShutdownResponse()  # never sent: `answering` ended the call
