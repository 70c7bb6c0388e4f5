"""NodeService: what a daemon does for its Kubernetes Node, and why (protos/node.proto).

A daemon without Kubernetes is asked all the same, by people who look for the reason of something: it answers
with a sentence that says where its intent comes from.
"""

# ruff: noqa: N802 -- the names of the methods are those in the .proto file

from __future__ import annotations

import grpc

from api import requests
from api.call import Bounds, CallError, Pace, Writer, answering
from api.convert_node import node_to_message, service_path_to_message, verdict_to_message
from api.daemon_view import DaemonView, ServicesView
from api.page import Page
from api.v1 import node_pb2 as pb
from api.v1.node_pb2_grpc import NodeServiceServicer
from routes.node_view import IntentSource, ServiceVerdict
from routes.own_path import OwnPath
from routes.prefix import Prefix

StatusContext = grpc.aio.ServicerContext[pb.GetNodeStatusRequest, pb.GetNodeStatusResponse]
ListContext = grpc.aio.ServicerContext[pb.ListServicesRequest, pb.ListServicesResponse]
PathsContext = grpc.aio.ServicerContext[pb.ListServicePathsRequest, pb.ListServicePathsResponse]


class NodeService(NodeServiceServicer):
    """The service; one instance for each server."""

    def __init__(self, view: DaemonView, pace: Pace, bounds: Bounds) -> None:
        self._view = view
        self._pace = pace
        self._bounds = bounds

    async def GetNodeStatus(
        self, _request: pb.GetNodeStatusRequest, _context: StatusContext
    ) -> pb.GetNodeStatusResponse:
        """Tell how the node is."""
        return node_to_message(self._view.node())

    async def ListServices(  # type: ignore[override]  # writes to the context, to notice who does not read
        self, request: pb.ListServicesRequest, context: ListContext
    ) -> None:
        """Stream verdicts in chunks."""
        async with answering(context, "ListServices"):
            services = self._services()
            query = requests.service_query(request.filter, request.page_token)
            writer = Writer(context, self._bounds.stall_time)
            page = Page(request.page_size)
            if note := services.note():
                await writer.send(pb.ListServicesResponse(note=note))
            verdicts = page.cut(services.verdicts(query), _service_of)
            async for chunk in self._pace.chunks(verdicts, verdict_to_message):
                await writer.send(pb.ListServicesResponse(verdicts=chunk))
            if page.next_token:
                await writer.send(pb.ListServicesResponse(next_page_token=page.next_token))

    async def ListServicePaths(  # type: ignore[override]  # as above
        self, request: pb.ListServicePathsRequest, context: PathsContext
    ) -> None:
        """Stream what is announced in chunks."""
        async with answering(context, "ListServicePaths"):
            services = self._services()
            token = request.page_token
            after = requests.prefix_or_address("page_token", token) if token else None
            writer = Writer(context, self._bounds.stall_time)
            page = Page(request.page_size)
            paths = page.cut(services.paths(after), _nlri_of)
            async for chunk in self._pace.chunks(paths, service_path_to_message):
                await writer.send(pb.ListServicePathsResponse(paths=chunk))
            if page.next_token:
                await writer.send(pb.ListServicePathsResponse(next_page_token=page.next_token))

    def _services(self) -> ServicesView:
        services = self._view.services()
        if services is not None:
            return services
        node = self._view.node()
        if node.source is IntentSource.FILE:
            text = (
                f"this {node.role} takes its intent from {node.config_path}, not from Kubernetes, so it "
                "knows no Services: podbgp routes --peer local shows what it announces"
            )
        else:
            text = f"a {node.role} announces no Services: ask the agent of a node"
        raise CallError(grpc.StatusCode.FAILED_PRECONDITION, text)


def _service_of(verdict: ServiceVerdict) -> str:
    return f"{verdict.namespace}/{verdict.name}"


def _nlri_of(path: OwnPath) -> Prefix:
    return path.nlri
