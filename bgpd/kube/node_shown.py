"""What a daemon that follows Kubernetes shows of its Node through the API: plain copies, nothing decided.

`shown.py` says the same in the few warnings of `podbgp status` and the metrics; this is all of it, for
`podbgp node`.  Lists are bounded: a broken template can spoil thousands of objects.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from bgpd.kube.following import News
from bgpd.kube.intent import Problem
from bgpd.node.drain import DrainPlan
from routes.node_view import (
    ApiServerNews,
    ClusterKnown,
    IntentProblem,
    NodeDrain,
    NodeHost,
    NodeReadiness,
    NodeReflector,
    UnreadableObject,
)

if TYPE_CHECKING:  # a reflector, which sets up no host, need not load what that takes
    from bgpd.kube.host import Host

MOST_SHOWN = 100


def cluster_known(node: str, news: News, problems: Collection[Problem], waits: str) -> ClusterKnown:
    """What is known of the cluster, and what is not taken of it."""
    return ClusterKnown(
        node=node,
        api_server=ApiServerNews(news.synced, news.stale, round(news.age, 1), news.error),
        waits=waits,
        problems=tuple(IntentProblem(*each) for each in sorted(problems)[:MOST_SHOWN]),
        problem_count=len(problems),
        unreadable=tuple(UnreadableObject(*each) for each in news.malformed[:MOST_SHOWN]),
        unreadable_count=len(news.malformed),
    )


def node_host(host: Host, drain: DrainPlan, reflector: NodeReflector) -> NodeHost:
    """What the agent does for its node beside routing."""
    readiness = host.readiness
    return NodeHost(
        readiness=NodeReadiness(readiness.can_forward, readiness.ready, readiness.reasons),
        drain=NodeDrain(*drain),
        cni_written=host.wired,
        cni_file=host.cni_file,
        reflector=reflector,
        trouble=tuple(host.trouble()),
    )
