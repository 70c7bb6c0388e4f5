"""The JSON documents of `podbgp node` and `podbgp service`, under the rules of `document.py`."""

from __future__ import annotations

from api.convert import address_to_text, prefix_to_text
from api.document import Document
from api.text import community, large_community
from routes.node_view import ClusterKnown, NodeHost, NodeStatus, ServiceVerdict
from routes.own_path import OwnPath


def node_document(value: NodeStatus) -> Document:
    """The node as its daemon sees it."""
    return {
        "source": value.source.value,
        "role": value.role,
        "config_path": value.config_path or None,
        "cluster": None if value.cluster is None else _cluster(value.cluster),
        "host": None if value.host is None else _host(value.host),
    }


def _cluster(value: ClusterKnown) -> Document:
    return {
        "node": value.node,
        "api_server": value.api_server._asdict() | {"error": value.api_server.error or None},
        "waits": value.waits or None,
        "problems": [each._asdict() for each in value.problems],
        "problem_count": value.problem_count,
        "unreadable": [each._asdict() for each in value.unreadable],
        "unreadable_count": value.unreadable_count,
    }


def _host(value: NodeHost) -> Document:
    return {
        "readiness": value.readiness._asdict() | {"reasons": list(value.readiness.reasons)},
        "drain": value.drain._asdict(),
        "cni_written": value.cni_written,
        "cni_file": value.cni_file,
        "reflector": value.reflector._asdict(),
        "trouble": list(value.trouble),
    }


def verdict_document(value: ServiceVerdict) -> Document:
    """Why an address of a Service is announced, or is not."""
    return {
        "namespace": value.namespace,
        "name": value.name,
        "address": None if value.address is None else address_to_text(value.address),
        "kind": value.kind or None,
        "announced": value.announced,
        "rule": value.rule,
        "prefixes": [prefix_to_text(prefix) for prefix in value.prefixes],
        "text": value.text,
    }


def service_path_document(value: OwnPath) -> Document:
    """A prefix that is announced for Services."""
    return {
        "prefix": prefix_to_text(value.nlri),
        "communities": [community(c) for c in value.communities],
        "large_communities": [large_community(c) for c in value.large_communities],
        "local_pref": value.local_pref,
        "med": value.med,
    }
