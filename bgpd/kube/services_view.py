"""The Services of a cluster as the API shows them: verdicts and announced paths of this node, in order.

Reads in steps that are short however many Services there are: what an answer needs is computed when the
reader comes to it, and what changed meanwhile may or may not show.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from heapq import merge

from api.select import select
from bgpd.kube.service_endpoints import ServiceKey
from bgpd.kube.service_verdicts import Verdict
from bgpd.kube.services import ServiceAnnouncements
from routes.node_view import ServiceQuery, ServiceVerdict
from routes.own_path import OwnPath
from routes.prefix import Prefix
from routes.view import RouteQuery, Table

RUN = 2048
"""Services sorted in one step: about a millisecond."""


class ServicesShown:
    """Implements `api.daemon_view.ServicesView`."""

    def __init__(self, announcements: ServiceAnnouncements, note: Callable[[], str]) -> None:
        self._announcements = announcements
        self.note = note

    def verdicts(self, query: ServiceQuery) -> Iterator[ServiceVerdict | None]:
        """For each address, whether it is announced and why."""
        if query.namespace and query.name:
            key = (query.namespace, query.name)
            if query.matches(key):
                yield from self._explain(key)
            return
        for found in _in_order(self._announcements.services, query):
            if found is None:
                yield None
            elif found in self._announcements.services:  # else it was deleted meanwhile
                yield from self._explain(found)

    def _explain(self, key: ServiceKey) -> Iterator[ServiceVerdict]:
        return (_shown(key, verdict) for verdict in self._announcements.explain(key))

    def paths(self, after: Prefix | None) -> Iterator[OwnPath | None]:
        """What is announced."""
        announced = self._announcements.announced
        query = RouteQuery(Table.LOC_RIB, after=after)
        return select(query, announced.keys(), lambda nlri: [announced[nlri]] if nlri in announced else [])


def _shown(key: ServiceKey, verdict: Verdict) -> ServiceVerdict:
    namespace, name = key
    kind = "" if verdict.kind is None else verdict.kind.value
    return ServiceVerdict(
        namespace,
        name,
        verdict.address,
        kind,
        verdict.announced,
        verdict.rule.value,
        verdict.prefixes,
        verdict.text,
    )


def _in_order(known: Collection[ServiceKey], query: ServiceQuery) -> Iterator[ServiceKey | None]:
    """The Services that a query wants, by namespace and name.  None offers a pause."""
    snapshot = list(known)  # one C call, so that Services may come and go between the steps
    runs = []
    for start in range(0, len(snapshot), RUN):
        part = sorted(filter(query.matches, snapshot[start : start + RUN]))
        if part:
            runs.append(part)
        yield None
    yield from merge(*runs)
