"""The statuses that the controller writes: what each says and should say, and when that is worth a write.

Every agent watches the custom resources, so that a write of one of them costs as many messages as there are
nodes.  What somebody acts on (a condition that turns, a reflector, a generation) is written at once; counts
and the texts of conditions wait until `UNHURRIED` seconds have passed since the last write.  Nothing is
written where nothing differs, and only the fields that differ.

Pure: it puts writes into a queue that somebody else works off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bgpd.kube.conditions import Say, condition_json, merged
from bgpd.kube.custom_values import Condition
from bgpd.kube.write_queue import Write, WriteQueue

UNHURRIED = 30.0
COUNTS = frozenset(("nodes", "services", "allocated"))
"""Fields that can wait."""

Fields = Mapping[str, object]
"""Of a status, as JSON."""


@dataclass(slots=True)
class _Sheet:
    uid: str
    generation: int
    fields: Fields
    conditions: tuple[Condition, ...]
    written: float = float("-inf")
    says: tuple[Say, ...] = ()
    wanted: Fields = field(default_factory=dict)
    due: float | None = None
    """When what waits is written."""


class StatusDesk:
    """One sheet for each object, by its path."""

    def __init__(self, queue: WriteQueue) -> None:
        self._queue = queue
        self._sheets: dict[str, _Sheet] = {}

    def seen(
        self, path: str, uid: str, generation: int, fields: Fields, conditions: Iterable[Condition]
    ) -> None:
        """What the object says now."""
        sheet = self._sheets.get(path)
        if sheet is None or sheet.uid != uid:
            self.gone(path)
            self._sheets[path] = _Sheet(uid, generation, fields, tuple(conditions))
            return
        sheet.generation, sheet.fields, sheet.conditions = generation, fields, tuple(conditions)

    def gone(self, path: str) -> None:
        self._sheets.pop(path, None)
        self._queue.drop(path)

    def want(self, now: float, wall: datetime, path: str, says: Iterable[Say], fields: Fields) -> None:
        """What the object should say."""
        sheet = self._sheets.get(path)
        if sheet is not None:
            sheet.says, sheet.wanted = tuple(says), fields
            self._settle(now, wall, path, sheet)

    def wrote(self, now: float, wall: datetime, write: Write) -> None:
        """A write was performed: what it said is seen, until the watch says otherwise."""
        sheet = self._sheets.get(write.path)
        if sheet is None or sheet.uid != write.uid:
            return
        told = {key: value for key, value in write.status.items() if key != "conditions"}
        sheet.fields, sheet.written = {**sheet.fields, **told}, now
        if write.conditions is not None:
            sheet.conditions = write.conditions
        self._settle(now, wall, write.path, sheet)

    def pass_time(self, now: float, wall: datetime) -> None:
        """Write what has waited long enough."""
        for path, sheet in self._sheets.items():
            if sheet.due is not None and sheet.due <= now:
                self._settle(now, wall, path, sheet)

    def wait(self, now: float) -> float | None:
        """Seconds until then."""
        due = [sheet.due for sheet in self._sheets.values() if sheet.due is not None]
        return max(min(due) - now, 0.0) if due else None

    def _settle(self, now: float, wall: datetime, path: str, sheet: _Sheet) -> None:
        conditions = merged(sheet.conditions, sheet.says, wall, sheet.generation)
        wanted = {"observedGeneration": sheet.generation, **sheet.wanted}
        changed = {key: value for key, value in wanted.items() if sheet.fields.get(key) != value}
        others = conditions if conditions != sheet.conditions else None
        if others is not None:
            changed["conditions"] = [condition_json(each) for each in others]
        sheet.due = None
        if not changed:
            self._queue.drop(path)
            return
        hurried = bool(changed.keys() - COUNTS - {"conditions"})
        if not (hurried or _turned(sheet.conditions, conditions)) and now < sheet.written + UNHURRIED:
            sheet.due = sheet.written + UNHURRIED
            self._queue.drop(path)
            return
        self._queue.put(Write(path, sheet.uid, changed, conditions=others))


def _turned(old: tuple[Condition, ...], new: tuple[Condition, ...]) -> bool:
    """Whether a condition says something else, and not only in other words."""
    return [(each.type, each.status, each.reason) for each in old] != [
        (each.type, each.status, each.reason) for each in new
    ]
