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
from bgpd.kube.errors import KubeError
from bgpd.kube.heap import keep_large_blocks_apart
from bgpd.kube.resources import is_empty
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

ASK_FIRST = 0.5
ASK_LATEST = 10.0
"""Seconds until the API server is asked whether it has its data, doubling."""
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
        self.doubted: dict[str, T] = {}
        """What an empty list would have deleted, by UID: still in `values`, until the list is believed."""
        self.relisting = False
        """A list is on its way that decides about what is in doubt."""
        self._changed = changed
        self._settle = settle

    def take(self, batch: Batch[T]) -> None:
        """Apply what a watch says, and pass it on."""
        if self.dropped:  # it was on its way when the table was dropped
            return
        if self._settle is not None:
            settle = self._settle
            batch = replace(batch, changed=tuple(settle(self.values.get(v.uid), v) for v in batch.changed))
        if batch.emptied and batch.deleted:
            self.doubted.update({value.uid: value for value in batch.deleted})
            batch = replace(batch, deleted=())
        for value in batch.deleted:
            self.values.pop(value.uid, None)
        for value in batch.changed:
            self.values[value.uid] = value
            self.doubted.pop(value.uid, None)
        if self.relisting and batch.synced:
            self.relisting = False
            gone = tuple(self.doubted.values())
            self.doubted.clear()
            batch = replace(batch, deleted=(*batch.deleted, *gone))
            for value in gone:
                self.values.pop(value.uid, None)
        self.synced = self.synced or batch.synced
        self._changed(batch)

    def believe(self) -> None:
        """The API server has its data: what an empty list did not name is gone."""
        gone = tuple(self.doubted.values())
        self.doubted.clear()
        if gone:
            self.take(Batch(deleted=gone))

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

    def __init__(
        self,
        client: KubeClient,
        loop: asyncio.AbstractEventLoop,
        pace: Pace | None = None,
        *,
        witness: Callable[[KubeClient], bool] = lambda _: True,
    ) -> None:
        """`witness` asks the API server, in a thread, whether it has what it must have: a list that holds
        nothing any more is believed only then.  A proxy, or an API server that lost its data, has nothing of
        anything, and must not end sessions."""
        keep_large_blocks_apart()
        self.client = client
        self._loop = loop
        self._pace = pace
        self._witness = witness
        self._ask_after = ASK_FIRST
        self._asking = False
        self._resources: dict[int, Resource[Named]] = {}
        self._watches: dict[int, tuple[Table[Named], Watch[Named]]] = {}

    def follow(
        self, resource: Resource[T], changed: Callable[[Batch[T]], None], settle: Settle[T] | None = None
    ) -> Table[T]:
        """Begin to follow a resource; `changed` is called in the event loop."""
        table = Table(changed, settle)
        self._watch(table, resource)
        return table

    def _watch(self, table: Table[T], resource: Resource[T]) -> None:
        """Feed a table, from a list that is asked for now."""

        def take(batch: Batch[T]) -> None:
            if self._watches.get(id(table), (None, None))[1] is not watch:
                return  # it was on its way when another one began
            table.take(batch)
            if table.doubted and not table.relisting:
                self._ask_later()

        watch = Watch(self.client, resource, on_loop(self._loop, take), self._pace)
        self._watches[id(table)] = (table, watch)  # type: ignore[assignment]  # of any kind of object
        self._resources[id(table)] = resource  # type: ignore[assignment]
        watch.start()

    def drop(self, table: Table[T]) -> None:
        """Stop following; the table keeps what it holds."""
        table.dropped = True
        _, watch = self._watches.pop(id(table))
        del self._resources[id(table)]
        self._loop.run_in_executor(None, watch.stop)

    # -- lists that hold nothing any more ---------------------------------------------------------

    def _ask_later(self) -> None:
        if not self._asking and self._watches:
            self._asking = True
            self._loop.call_later(self._ask_after, self._ask)

    def _ask(self) -> None:
        if self._watches:  # else it was closed
            doubted = [key for key, (table, _) in self._watches.items() if table.doubted]
            asking = [(key, self._resources[key]) for key in doubted]
            asked = self._loop.run_in_executor(None, self._empty_of, asking)
            asked.add_done_callback(lambda future: self._heard(future.result()))

    def _empty_of(self, asking: list[tuple[int, Resource[Named]]]) -> dict[int, bool]:
        """Which tables the API server has nothing for; none where it has lost its data, or is away."""
        try:
            if not self._witness(self.client):
                return {}
            return {key: is_empty(self.client, resource) for key, resource in asking}
        except KubeError:
            return {}

    def _heard(self, empty: dict[int, bool]) -> None:
        """Believe lists that are empty indeed, list again what is not, and ask again where that is open."""
        self._asking = False
        self._ask_after = ASK_FIRST if empty else min(self._ask_after * 2, ASK_LATEST)
        for key, is_so in empty.items():
            if key not in self._watches:
                continue
            table, watch = self._watches[key]
            if is_so:
                table.believe()
            else:
                self._loop.run_in_executor(None, watch.stop)
                table.relisting = True
                self._watch(table, self._resources[key])
        if any(table.doubted and not table.relisting for table, _ in self._watches.values()):
            self._ask_later()

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
