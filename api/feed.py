"""Tells watchers what changed, at a cost that the daemon can always afford.

A `Feed` carries keys (prefixes, peer names), never values: a watcher reads the present state of a key when
it gets to it.  So publishing is one dictionary update for each watcher and nothing without watchers, a key
that changes again while it waits is told once, and no watcher is ever told something outdated.  A feed
belongs to the event loop's thread.  What a watcher may leave waiting is bounded; beyond the bound it is too
slow, and is ended rather than misled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key")

SHUTTING_DOWN = "the daemon is shutting down"


class TooSlowError(Exception):
    """A watcher left more changes waiting than it may."""


class FeedClosedError(Exception):
    """The daemon is ending."""

    def __init__(self) -> None:
        super().__init__(SHUTTING_DOWN)


class Subscription(Generic[Key]):
    """What one watcher has not seen yet: keys, each once, in the order of their first change."""

    def __init__(self, max_pending: int) -> None:
        self._pending: dict[Key, None] = {}
        self._max_pending = max_pending
        self._end: TooSlowError | FeedClosedError | None = None
        self._wake = asyncio.Event()

    def add(self, keys: dict[Key, None]) -> None:
        """Note changed keys; past the bound, forget everything and remember only that."""
        if self._end is not None:
            return
        self._pending.update(keys)
        if len(self._pending) > self._max_pending:
            self._finish(TooSlowError(f"more than {self._max_pending} changes were waiting for this watcher"))
        self._wake.set()

    def close(self) -> None:
        """No more changes will come: the watcher learns it at its next look."""
        self._finish(FeedClosedError())

    def _finish(self, end: TooSlowError | FeedClosedError) -> None:
        self._end = self._end or end
        self._pending.clear()
        self._wake.set()

    def check(self) -> None:
        """Raise `TooSlowError` or `FeedClosedError` if the watch can't go on."""
        if self._end is not None:
            raise self._end

    async def take(self, most: int) -> list[Key]:
        """Wait for changes and take up to `most` keys; raises like `check`."""
        await self._wake.wait()
        self.check()
        keys = list(islice(self._pending, most))
        for key in keys:
            del self._pending[key]
        if not self._pending:
            self._wake.clear()
        return keys


class Feed(Generic[Key]):
    """Where the daemon publishes changed keys.  False when nobody watches."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription[Key]] = []

    def __bool__(self) -> bool:
        return bool(self._subscriptions)

    def publish(self, keys: Iterable[Key]) -> None:
        """These changed.  Call it after the state that watchers read has changed."""
        if self._subscriptions:
            changed = dict.fromkeys(keys)
            for subscription in self._subscriptions:
                subscription.add(changed)

    @contextmanager
    def subscribe(self, max_pending: int) -> Iterator[Subscription[Key]]:
        """Collect changes from now on, until the context is left."""
        subscription = Subscription[Key](max_pending)
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)

    def close(self) -> None:
        """End every watch."""
        for subscription in self._subscriptions:
            subscription.close()
