"""Events (events.k8s.io/v1): what `kubectl describe` shows of an object's past, said once and counted.

What repeats is one Event with a series, not many; what comes faster than the budgets is dropped and counted,
never queued without a bound, because an Event is a hint and no state: everything it says is a condition, too.
`EventBook` is pure and decides; whoever owns it performs the calls it asks for.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bgpd.kube.token_bucket import TokenBucket

CONTROLLER = "podbgp.dev/podbgp"
SERIES_TIME = 360.0
"""Seconds of silence after which the same thing is a new Event (client-go's figure)."""
SERIES_WRITE = 60.0
"""Seconds between two writes of one series."""
MOST_SERIES = 1024
MOST_WAITING = 256
OBJECT_BURST, OBJECT_RATE = 10, 1 / 30
"""New Events of one object: at once, and in a second."""
BURST, RATE = 50, 2.0
"""New Events of all objects."""
LONGEST_NOTE = 1024
"""In bytes: the API refuses longer ones."""
NO_NAMESPACE = "kube-system"
"""For events about objects without one: every version takes it there (`default` only since 1.21)."""


class Regarding(NamedTuple):
    """The object that an Event is about."""

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""


CRD_VERSION = "podbgp.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class EventWrite:
    """One call: POST where `create`, else a merge PATCH."""

    create: bool
    path: str
    body: Mapping[str, object]


@dataclass(slots=True)
class _Series:
    path: str
    last: float
    written: float
    count: int = 1
    told: int = 1
    wall: str = ""


class EventBook:
    """What one process says."""

    def __init__(self, instance: str) -> None:
        self._instance = instance[:128]
        self._series: OrderedDict[tuple[Regarding, str, str], _Series] = OrderedDict()
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._all = TokenBucket(BURST, RATE)
        self._waiting: deque[EventWrite] = deque()
        self.dropped = 0

    def say(
        self, now: float, wall: str, about: Regarding, reason: str, note: str, *, bad: bool = False
    ) -> None:
        """Something happened to an object; `wall` is the time of day as a MicroTime."""
        note = _cut(note)
        key = (about, reason, note)
        series = self._series.get(key)
        if series is not None and now - series.last < SERIES_TIME:
            series.count += 1
            series.last, series.wall = now, wall
            self._series.move_to_end(key)
            return
        if not self._may(about.uid, now) or len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        folder = f"/apis/events.k8s.io/v1/namespaces/{about.namespace or NO_NAMESPACE}/events"
        name = _name(about, reason, note, wall)
        self._waiting.append(
            EventWrite(
                True, folder, self._body(name, wall, about, reason, note, "Warning" if bad else "Normal")
            )
        )
        self._series[key] = _Series(f"{folder}/{name}", now, now)
        self._series.move_to_end(key)
        if len(self._series) > MOST_SERIES:
            self._series.popitem(last=False)

    def take(self, now: float) -> list[EventWrite]:
        """The calls that are due; each is given out once."""
        due = list(self._waiting)
        self._waiting.clear()
        for series in self._series.values():
            if series.count > series.told and now - series.written >= SERIES_WRITE:
                series.told, series.written = series.count, now
                body = {"series": {"count": series.count, "lastObservedTime": series.wall}}
                due.append(EventWrite(False, series.path, body))
        return due

    def _may(self, uid: str, now: float) -> bool:
        bucket = self._buckets.get(uid)
        if bucket is None:
            bucket = self._buckets[uid] = TokenBucket(OBJECT_BURST, OBJECT_RATE)
            if len(self._buckets) > MOST_SERIES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(uid)
        return bucket.take(now) and self._all.take(now)

    def _body(
        self, name: str, wall: str, about: Regarding, reason: str, note: str, kind: str
    ) -> Mapping[str, object]:
        regarding = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
        }
        if about.namespace:
            regarding["namespace"] = about.namespace
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about.namespace or NO_NAMESPACE},
            "eventTime": wall,
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": reason,
            "reason": reason,
            "regarding": regarding,
            "note": note,
            "type": kind,
        }


def _cut(note: str) -> str:
    encoded = note.encode()
    if len(encoded) <= LONGEST_NOTE:
        return note
    return f"{encoded[: LONGEST_NOTE - 4].decode(errors='ignore')} ..."


def _name(about: Regarding, reason: str, note: str, wall: str) -> str:
    """Unique, and no longer than a name may be."""
    digest = hashlib.sha256("\0".join((about.uid, reason, note, wall)).encode()).hexdigest()[:16]
    return f"{about.name[:200].rstrip('.-')}.{digest}"
