"""Where a Service's packets can end, seen from one node: here, elsewhere, or nowhere.

A node needs four counts of each Service and family, not the endpoints: 50,000 of them cost no more than the
slices that they come in.  Usable is what kube-proxy would use (KEP-1669): endpoints that are ready, and, only
where none is, those that still serve while they terminate.

Pure, and incremental: a slice that changes is counted again, and no other.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from bgpd.kube.objects import EndpointSlice
from routes.prefix import Family

ServiceKey = tuple[str, str]
"""Namespace and name."""
SliceKey = tuple[str, str]


class Here(IntEnum):
    """What this node has of a Service's endpoints."""

    NOTHING = 0
    TERMINATING = 1
    """Some that still serve, and all of them are on their way out."""
    READY = 2


class Reach(NamedTuple):
    """What a Service's packets of one family can reach."""

    here: Here = Here.NOTHING
    anywhere: bool = False


NOWHERE = Reach()


class _Counts(NamedTuple):
    ready_here: int = 0
    leaving_here: int = 0
    ready: int = 0
    leaving: int = 0

    @property
    def reach(self) -> Reach:
        here = Here.READY if self.ready_here else Here.TERMINATING if self.leaving_here else Here.NOTHING
        return Reach(here, bool(self.ready or self.leaving))


_NONE = _Counts()


class EndpointsSeen:
    """The counts of every Service, kept up with the slices."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._slices: dict[SliceKey, tuple[ServiceKey, Family, _Counts]] = {}
        self._counts: dict[tuple[ServiceKey, Family], _Counts] = {}

    def reach(self, service: ServiceKey, family: Family) -> Reach:
        """What packets to this Service can reach."""
        return self._counts.get((service, family), _NONE).reach

    def here(self, service: ServiceKey) -> int:
        """How many usable endpoints of a Service this node has, of both families."""
        counts = (self._counts.get((service, family), _NONE) for family in Family)
        return sum(each.ready_here or each.leaving_here for each in counts)

    def changed(self, changed: EndpointSlice) -> tuple[ServiceKey, ...]:
        """A slice is new or another; answers the Services whose reach is another now."""
        key = (changed.namespace, changed.name)
        if not changed.service:
            return self.deleted(key)
        service = (changed.namespace, changed.service)
        return self._replace(key, (service, changed.family, self._count(changed)))

    def deleted(self, key: SliceKey) -> tuple[ServiceKey, ...]:
        """A slice is gone."""
        return self._replace(key, None)

    def _replace(
        self, key: SliceKey, now: tuple[ServiceKey, Family, _Counts] | None
    ) -> tuple[ServiceKey, ...]:
        before = self._slices.pop(key, None)
        if now is not None:
            self._slices[key] = now
        touched: dict[tuple[ServiceKey, Family], Reach] = {}
        for entry, sign in ((before, -1), (now, 1)):
            if entry is None:
                continue
            service, family, counts = entry
            total = self._counts.get((service, family), _NONE)
            touched.setdefault((service, family), total.reach)
            total = _Counts(*(have + sign * more for have, more in zip(total, counts, strict=True)))
            if total == _NONE:
                self._counts.pop((service, family), None)
            else:
                self._counts[service, family] = total
        changed = (each[0] for each, reach in touched.items() if self.reach(*each) != reach)
        return tuple(dict.fromkeys(changed))

    def _count(self, counted: EndpointSlice) -> _Counts:
        ready_here = leaving_here = ready = leaving = 0
        for endpoint in counted.endpoints:
            here = endpoint.node == self._node
            if endpoint.ready:
                ready += 1
                ready_here += here
            elif endpoint.serving and endpoint.terminating:
                leaving += 1
                leaving_here += here
        return _Counts(ready_here, leaving_here, ready, leaving)
