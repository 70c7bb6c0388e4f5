"""What one watched resource holds, and the difference that its listener has not heard yet.  Pure.

Objects are kept by UID: an object that was deleted and created again under its name is two objects, also when
all else is equal.  Differences are taken against what was delivered, not event by event: a heartbeat is none,
a change that was undone before anyone heard of it is none, and what waits is bounded by the number of objects
however many events come.  Must never take a value from a malformed object: the last good one stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST_MALFORMED = 16
"""How many malformed objects are named; the rest is counted."""


@dataclass(frozen=True)
class Batch(Generic[T]):
    """What changed.  Take `deleted` first: one of `changed` may have the name of one of these.

    `synced`: with this batch the listener has heard of every object, at least once.
    `emptied`: no event said that `deleted` are gone; a whole list held nothing at all.
    """

    changed: tuple[T, ...] = ()
    deleted: tuple[T, ...] = ()
    synced: bool = True
    emptied: bool = False


@dataclass(frozen=True)
class Identity:
    uid: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class _Nothing:
    pass


_NOTHING: Final = _Nothing()


class Known(Generic[T]):
    """The objects of one resource."""

    def __init__(self) -> None:
        self._values: dict[str, T] = {}
        self._uids: dict[tuple[str, str], str] = {}
        self._names: dict[str, tuple[str, str]] = {}
        self._heard: dict[str, T | _Nothing] = {}  # of those that may differ: what the listener knows
        self._malformed: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._values)

    @property
    def malformed(self) -> tuple[tuple[str, str], ...]:
        """(name, problem) of the objects whose last good value, if any, is still in use."""
        first = list(self._malformed.values())[:MOST_MALFORMED]
        more = len(self._malformed) - len(first)
        return (*first, ("...", f"{more} more")) if more else tuple(first)

    def put(self, who: Identity, value: T) -> None:
        self._supersede(who)
        self._malformed.pop(who.uid, None)
        before = self._values.get(who.uid, _NOTHING)
        if before is not _NOTHING and before == value:
            return
        self._heard.setdefault(who.uid, before)
        self._values[who.uid] = value

    def put_malformed(self, who: Identity, problem: str) -> None:
        self._supersede(who)
        self._malformed[who.uid] = (str(who), problem)

    def remove(self, uid: str) -> None:
        self._malformed.pop(uid, None)
        name = self._names.pop(uid, None)
        if name is not None and self._uids.get(name) == uid:
            del self._uids[name]
        if uid in self._values:
            self._heard.setdefault(uid, self._values.pop(uid))

    def keep_only(self, uids: set[str]) -> None:
        """After a whole list: what is not in it is gone."""
        for uid in [known for known in self._names if known not in uids]:
            self.remove(uid)

    def _supersede(self, who: Identity) -> None:
        """Two objects never have one name at a time: whoever had it before is gone, heard or not."""
        name = (who.namespace, who.name)
        before = self._uids.get(name)
        if before is not None and before != who.uid:
            self.remove(before)
        self._uids[name] = who.uid
        self._names[who.uid] = name

    def batches(self, most: int) -> Iterator[Batch[T]]:
        """What the listener has not heard, deletions first, in batches of at most `most` objects."""
        changed: list[T] = []
        deleted: list[T] = []
        for uid, heard in self._heard.items():
            value = self._values.get(uid, _NOTHING)
            if not isinstance(value, _Nothing):
                if isinstance(heard, _Nothing) or value != heard:
                    changed.append(value)
            elif not isinstance(heard, _Nothing):
                deleted.append(heard)
        self._heard.clear()
        for start in range(0, len(deleted), most):
            yield Batch((), tuple(deleted[start : start + most]), synced=False)
        for start in range(0, len(changed), most):
            yield Batch(tuple(changed[start : start + most]), (), synced=False)
