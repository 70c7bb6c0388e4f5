"""The resources that one process follows, as tables in its event loop.

Each table is fed by a watch in a thread of its own (`watch.py`) and holds what is known, by UID.  Tables come
and go with what has to be known: whoever must not know all Nodes never asks for them.  How old the news are,
and what is wrong with them, is one answer for all tables together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, NamedTuple, Protocol, TypeVar

from bgpd.kube.client import KubeClient
from bgpd.kube.heap import keep_large_blocks_apart
from bgpd.kube.watch import Batch, Pace, Resource, Watch, on_loop


class Named(Protocol):
    """What every object has."""

    @property
    def uid(self) -> str: ...
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)
Settle = Callable[[T | None, T], T]
"""What to take an object for, given what was known of it."""

STALE_AFTER = 10.0
"""Seconds without news, and with an error, after which what is known is called stale: a watch that was cut
and is there again a moment later is nobody's business."""


class Table(Generic[T]):
    """What is known of one resource."""

    def __init__(self, changed: Callable[[Batch[T]], None], settle: Settle[T] | None = None) -> None:
        self.values: dict[str, T] = {}
        """By UID."""
        self.synced = False
        self.begun = time.monotonic()
        self.dropped = False
        self._changed = changed
        self._settle = settle

    def take(self, batch: Batch[T]) -> None:
        """Apply what a watch says, and pass it on."""
        if self.dropped:  # it was on its way when the table was dropped
            return
        if self._settle is not None:
            settle = self._settle
            batch = replace(batch, changed=tuple(settle(self.values.get(v.uid), v) for v in batch.changed))
        for value in batch.deleted:
            self.values.pop(value.uid, None)
        for value in batch.changed:
            self.values[value.uid] = value
        self.synced = self.synced or batch.synced
        self._changed(batch)

    def named(self, name: str) -> T | None:
        """The object of a name, for tables of a few objects."""
        return next((value for value in self.values.values() if value.name == name), None)

    def in_order(self) -> list[T]:
        """Sorted by name."""
        return sorted(self.values.values(), key=lambda value: value.name)


class News(NamedTuple):
    """How current what is known is."""

    synced: bool
    """Everything was heard of at least once."""
    age: float
    """Seconds since the resource that was heard from least recently was heard from; 0 while all is well."""
    error: str
    """What is wrong with it, in a sentence; empty when nothing is."""
    malformed: tuple[tuple[str, str], ...]
    """Objects that can't be read, each with the reason."""

    @property
    def stale(self) -> bool:
        """Whether what is known may be old."""
        return bool(self.error) and self.age >= STALE_AFTER


class Following:
    """The watches of one process."""

    def __init__(self, client: KubeClient, loop: asyncio.AbstractEventLoop, pace: Pace | None = None) -> None:
        keep_large_blocks_apart()
        self.client = client
        self._loop = loop
        self._pace = pace
        self._watches: dict[int, tuple[Table[Named], Watch[Named]]] = {}

    def follow(
        self, resource: Resource[T], changed: Callable[[Batch[T]], None], settle: Settle[T] | None = None
    ) -> Table[T]:
        """Begin to follow a resource; `changed` is called in the event loop."""
        table = Table(changed, settle)
        watch = Watch(self.client, resource, on_loop(self._loop, table.take), self._pace)
        self._watches[id(table)] = (table, watch)  # type: ignore[assignment]  # of any kind of object
        watch.start()
        return table

    def drop(self, table: Table[T]) -> None:
        """Stop following; the table keeps what it holds."""
        table.dropped = True
        _, watch = self._watches.pop(id(table))
        self._loop.run_in_executor(None, watch.stop)

    def news(self) -> News:
        """How current all tables together are."""
        now = time.monotonic()
        worst, error = 0.0, ""
        malformed: list[tuple[str, str]] = []
        synced = True
        for table, watch in self._watches.values():
            status = watch.status()
            malformed += status.malformed
            synced = synced and table.synced
            if status.error:
                age = now - (status.last_heard or table.begun)
                if not error or age > worst:
                    worst, error = age, status.error
        return News(synced, worst, error, tuple(malformed))

    def close(self) -> None:
        """End every watch, without waiting for the threads."""
        for _, watch in self._watches.values():
            watch.stop(wait=0.0)
        self._watches.clear()
        self.client.close()
