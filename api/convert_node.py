"""Between core values and API messages: a Kubernetes Node as its daemon sees it, and its Services.

A part of `convert.py`, under the same rule: every pair is a round trip, proved by a property test.
"""

from __future__ import annotations

from api.convert import (
    address_from_text,
    address_to_text,
    prefix_from_text,
    prefix_to_text,
)
from api.v1 import node_pb2 as pb
from api.v1 import path_pb2
from routes.node_view import (
    ApiServerNews,
    ClusterKnown,
    IntentProblem,
    IntentSource,
    NodeDrain,
    NodeHost,
    NodeReadiness,
    NodeReflector,
    NodeStatus,
    ServiceVerdict,
    UnreadableObject,
)
from routes.own_path import OwnPath

SOURCE_TO = {
    IntentSource.FILE: pb.INTENT_SOURCE_FILE,
    IntentSource.KUBERNETES: pb.INTENT_SOURCE_KUBERNETES,
}


def cluster_to_message(value: ClusterKnown) -> pb.ClusterKnown:
    """What is known of the cluster."""
    return pb.ClusterKnown(
        node=value.node,
        api_server=pb.ApiServerNews(**value.api_server._asdict()),
        waits=value.waits,
        problems=[pb.IntentProblem(**each._asdict()) for each in value.problems],
        problem_count=value.problem_count,
        unreadable=[pb.UnreadableObject(**each._asdict()) for each in value.unreadable],
        unreadable_count=value.unreadable_count,
    )


def cluster_from_message(message: pb.ClusterKnown) -> ClusterKnown:
    """What is known of the cluster."""
    news = message.api_server
    return ClusterKnown(
        node=message.node,
        api_server=ApiServerNews(news.synced, news.stale, news.age, news.error),
        waits=message.waits,
        problems=tuple(IntentProblem(p.kind, p.name, p.reason, p.text) for p in message.problems),
        problem_count=message.problem_count,
        unreadable=tuple(UnreadableObject(u.name, u.text) for u in message.unreadable),
        unreadable_count=message.unreadable_count,
    )


def host_to_message(value: NodeHost) -> pb.NodeHost:
    """What an agent does for its node."""
    return pb.NodeHost(
        readiness=pb.NodeReadiness(**value.readiness._asdict()),
        drain=pb.NodeDrain(**value.drain._asdict()),
        cni_written=value.cni_written,
        cni_file=value.cni_file,
        trouble=value.trouble,
        reflector=pb.NodeReflector(**value.reflector._asdict()),
    )


def host_from_message(message: pb.NodeHost) -> NodeHost:
    """What an agent does for its node."""
    readiness, drain, reflector = message.readiness, message.drain, message.reflector
    return NodeHost(
        readiness=NodeReadiness(readiness.can_forward, readiness.ready, tuple(readiness.reasons)),
        drain=NodeDrain(drain.graceful_shutdown, drain.announce_services, drain.announce_pods, drain.reason),
        cni_written=message.cni_written,
        cni_file=message.cni_file,
        reflector=NodeReflector(reflector.wanted, reflector.running),
        trouble=tuple(message.trouble),
    )


def node_to_message(value: NodeStatus) -> pb.GetNodeStatusResponse:
    """The node as its daemon sees it."""
    return pb.GetNodeStatusResponse(
        source=SOURCE_TO[value.source],
        role=value.role,
        config_path=value.config_path,
        cluster=None if value.cluster is None else cluster_to_message(value.cluster),
        host=None if value.host is None else host_to_message(value.host),
    )


def node_from_message(message: pb.GetNodeStatusResponse) -> NodeStatus:
    """The node as its daemon sees it."""
    return NodeStatus(
        role=message.role,
        config_path=message.config_path,
        cluster=cluster_from_message(message.cluster) if message.HasField("cluster") else None,
        host=host_from_message(message.host) if message.HasField("host") else None,
    )


def verdict_to_message(value: ServiceVerdict) -> pb.ServiceVerdict:
    """Why an address is announced, or is not."""
    return pb.ServiceVerdict(
        namespace=value.namespace,
        name=value.name,
        address=address_to_text(value.address),
        kind=value.kind,
        announced=value.announced,
        rule=value.rule,
        prefixes=map(prefix_to_text, value.prefixes),
        text=value.text,
    )


def verdict_from_message(message: pb.ServiceVerdict) -> ServiceVerdict:
    """Why an address is announced, or is not."""
    return ServiceVerdict(
        namespace=message.namespace,
        name=message.name,
        address=address_from_text(message.address),
        kind=message.kind,
        announced=message.announced,
        rule=message.rule,
        prefixes=tuple(map(prefix_from_text, message.prefixes)),
        text=message.text,
    )


def service_path_to_message(value: OwnPath) -> pb.ServicePath:
    """A prefix that is announced for Services."""
    return pb.ServicePath(
        nlri=prefix_to_text(value.nlri),
        communities=value.communities,
        large_communities=[
            path_pb2.LargeCommunity(global_administrator=first, local_data_1=second, local_data_2=third)
            for first, second, third in value.large_communities
        ],
        local_pref=value.local_pref,
        med=value.med,
    )


def service_path_from_message(message: pb.ServicePath) -> OwnPath:
    """A prefix that is announced for Services: no other host entry goes with it."""
    return OwnPath(
        prefix_from_text(message.nlri),
        unreachable=False,
        communities=tuple(message.communities),
        large_communities=tuple(
            (each.global_administrator, each.local_data_1, each.local_data_2)
            for each in message.large_communities
        ),
        local_pref=message.local_pref if message.HasField("local_pref") else None,
        med=message.med if message.HasField("med") else None,
    )
