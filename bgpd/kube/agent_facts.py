"""What an agent says of its node in BGPNodeState: plain reads of the one writer's state, nothing decided."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain, islice

from bgpd.agent import Agent
from bgpd.kube.conditions import Say
from bgpd.kube.custom_state import MOST_REFUSALS, Drift, RefusedPath, RouteCounts, SessionState
from bgpd.kube.following import News
from bgpd.kube.host import Host
from bgpd.kube.intent import Problem
from bgpd.kube.node_state import NodeFacts
from bgpd.kube.objects import Node
from bgpd.node.drain import DrainPlan
from bgpd.version import version
from routes.peer import PeerStatus
from routes.prefix import Family


def node_facts(
    agent: Agent, node: Node, host: Host, news: News, problems: Iterable[Problem], drain: DrainPlan
) -> NodeFacts:
    """The node as it is now."""
    config = agent.config
    return NodeFacts(
        router_id=config.speaker.router_id,
        asn=config.speaker.asn,
        version=version(),
        addresses=node.addresses,
        pod_cidrs=tuple(path.nlri for path in config.agent.advertise),
        sessions=tuple(_session(status) for status in agent.view.peers()),
        routes=_counts(agent),
        refusals=tuple(islice(_refusals(agent), MOST_REFUSALS)),
        drift=Drift(agent.fib.mended, len(agent.fib.learned.blocked())),
        conditions=_conditions(host, news, tuple(problems), drain),
    )


def _session(status: PeerStatus) -> SessionState:
    return SessionState(
        peer=status.name,
        asn=status.asn,
        state=status.state.value,
        since=datetime.fromtimestamp(int(status.since), UTC),
        families=tuple(sorted(status.negotiated.families)) if status.negotiated else (),
        received=sum(counts.received for _, counts in status.families),
        advertised=sum(counts.advertised for _, counts in status.families),
        reason="" if status.negotiated or status.last_error is None else status.last_error.text,
    )


def _counts(agent: Agent) -> RouteCounts:
    rib, fib = agent.daemon.rib, tuple(agent.view.fib_counts())
    totals = [rib.totals(family) for family in Family]
    received, accepted = (sum(each) for each in zip(*totals, strict=True))
    return RouteCounts(
        received=received,
        accepted=accepted,
        refused=received - accepted,
        installed=sum(each.installed for each in fib),
        failed=sum(each.failed for each in fib),
        held=sum(each.held for each in fib),
    )


def _refusals(agent: Agent) -> Iterable[RefusedPath]:
    rib = agent.daemon.rib
    for family in Family:
        for table in rib.refusing(family):
            for path in islice(
                chain(table.plain.refused.values(), table.added.refused.values()), MOST_REFUSALS
            ):
                verdict = rib.policy.judge(path.source, path.attributes, path.nlri)
                yield RefusedPath(path.source.peer, verdict.rule, path.nlri, verdict.text)


def _conditions(host: Host, news: News, problems: tuple[Problem, ...], drain: DrainPlan) -> tuple[Say, ...]:
    ready = host.readiness
    trouble = host.trouble()
    conditions = [
        Say("Ready", ready.ready, "InStep" if ready.ready else "NotYet", "; ".join(ready.reasons)),
        Say("APIServerReachable", not news.stale, *(("Stale", news.error) if news.stale else ("Heard", ""))),
        Say("HostSetUp", not trouble, "Done" if not trouble else "Refused", "; ".join(trouble)),
        Say(
            "IntentTaken",
            not problems,
            "AsWritten" if not problems else problems[0].reason,
            "; ".join(f"{each.kind} {each.name}: {each.text}" for each in problems),
        ),
        Say(
            "Draining",
            drain.graceful_shutdown,
            "Leaving" if drain.graceful_shutdown else "InService",
            drain.reason,
        ),
    ]
    return tuple(conditions)
