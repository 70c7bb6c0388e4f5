"""What a daemon that follows Kubernetes shows of that in `podbgp status` and the metrics.  Pure.

An operator looks there first, so all that stands between the cluster's objects and what the daemon does is
there in words: news that stopped, objects that can't be taken, and what a node still waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bgpd.kube.following import News
from bgpd.kube.intent import Problem
from bgpd.node.drain import DrainPlan
from bgpd.node.readiness import Readiness
from routes.view import HostWarning, IntentStatus

MOST_SHOWN = 16
"""Of objects with problems: a broken template can spoil thousands."""


def intent_status(
    news: News,
    problems: Iterable[Problem],
    *,
    waits: str = "",
    readiness: Readiness | None = None,
    drain: DrainPlan | None = None,
    trouble: Sequence[str] = (),
) -> IntentStatus:
    """How things stand; `waits`: why changes are not taken now, `trouble`: what the host refused."""
    wrong = sorted(problems)
    warnings = [*_age(news, waits)]
    warnings += _some([HostWarning(f"{each.kind} {each.name}", each.text, "") for each in wrong])
    warnings += _some([HostWarning(name, f"can't be read: {text}", "") for name, text in news.malformed])
    if drain is not None and drain.graceful_shutdown:
        warnings.append(HostWarning("this node leaves", drain.reason, ""))
    if readiness is not None and readiness.reasons:
        subject = "this node is ready for pods, but" if readiness.ready else "this node is not ready for pods"
        warnings.append(HostWarning(subject, "; ".join(readiness.reasons), ""))
    warnings += [HostWarning("the host could not be set up", text, "") for text in trouble]
    return IntentStatus(
        stale=round(news.age, 1) if news.stale else 0.0,
        malformed=len(news.malformed),
        problems=len(wrong),
        ready=None if readiness is None else readiness.ready,
        warnings=tuple(warnings),
    )


def _age(news: News, waits: str) -> Iterator[HostWarning]:
    if news.stale:
        value = f"not heard from for {news.age:.0f} s, what is known stays in use: {news.error}"
        yield HostWarning("the Kubernetes API server", value, "kubectl get --raw /readyz")
    elif waits:
        yield HostWarning("changes of the cluster are not taken yet", waits, "")


def _some(warnings: list[HostWarning]) -> list[HostWarning]:
    more = len(warnings) - MOST_SHOWN
    if more <= 0:
        return warnings
    return [*warnings[:MOST_SHOWN], HostWarning("more objects", f"{more} like these", "")]
