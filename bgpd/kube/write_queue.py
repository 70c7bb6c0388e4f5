"""What is to be written to the API server, one write an object, at a rate that it does not notice.

A newer write for an object replaces one that waits; one that failed waits longer each time; while the API
server refuses everybody, nobody is sent.  Pure: time comes as an argument, and whoever owns the queue
performs the writes.  Its size is bounded by `most`: what does not fit is refused, and wanted again when its
object is looked at next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bgpd.kube.custom_values import Condition
from bgpd.kube.errors import KubeError, Unavailable
from bgpd.kube.token_bucket import TokenBucket

BURST, RATE = 50, 25.0
"""Writes at once, and in a second."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
LONGEST_PAUSE = 5.0
"""Between two attempts at an API server that is away: it must be caught up with seconds after its return."""
MOST = 50_000


@dataclass(frozen=True, slots=True)
class Write:
    """A change of one object's status."""

    path: str
    """Of the object, which is also its key."""
    uid: str
    status: Mapping[str, object]
    """Of a merge patch: fields that are to change."""
    still: Callable[[bytes], bool] | None = None
    """Asked with the object as it is now: whether the write is right still."""
    conditions: tuple[Condition, ...] | None = None
    """What `status` says of conditions, if anything, as values."""


@dataclass(slots=True)
class _Entry:
    write: Write | None
    ready: float
    failures: int = 0
    under_way: bool = False
    dropped: bool = False
    """While it was under way: it is not tried again."""


class WriteQueue:
    """First come, first served, within what each object's failures and the budget allow."""

    def __init__(
        self, jitter: Callable[[], float], *, burst: int = BURST, rate: float = RATE, most: int = MOST
    ):
        self._jitter = jitter
        self._bucket = TokenBucket(burst, rate)
        self._most = most
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._paused_until = float("-inf")
        self._pauses = 0
        """Of the API server, since it last took a write."""
        self._under_way = 0
        self.refused = 0

    def __len__(self) -> int:
        return sum(entry.write is not None for entry in self._entries.values())

    def put(self, write: Write) -> bool:
        """Have it written; False where the queue is full."""
        entry = self._entries.get(write.path)
        if entry is not None:
            entry.write, entry.dropped = write, False
            return True
        if len(self._entries) >= self._most:
            self.refused += 1
            return False
        self._entries[write.path] = _Entry(write, float("-inf"))
        return True

    def drop(self, path: str) -> None:
        """Nothing needs to be written there."""
        entry = self._entries.get(path)
        if entry is None:
            return
        entry.write, entry.dropped = None, True
        if not entry.under_way:
            del self._entries[path]

    def clear(self) -> None:
        """Nothing at all: somebody else writes now."""
        for path in list(self._entries):
            self.drop(path)

    def next(self, now: float) -> Write | float | None:
        """What to write now, in how many seconds to ask again, or None: when something was put or done."""
        if now < self._paused_until:
            return self._paused_until - now
        if self._pauses and self._under_way:
            return None  # one of them tries whether the API server is back
        soonest: float | None = None
        for entry in self._entries.values():
            if entry.write is None or entry.under_way:
                continue
            if entry.ready > now:
                soonest = entry.ready if soonest is None else min(soonest, entry.ready)
                continue
            if not self._bucket.take(now):
                return self._bucket.wait(now)
            write, entry.write, entry.under_way = entry.write, None, True
            self._under_way += 1
            return write
        return None if soonest is None else soonest - now

    def done(self, path: str) -> None:
        """The write that was given out for this object was performed, or is not needed."""
        self._pauses = 0
        self._under_way -= 1
        entry = self._entries[path]
        entry.under_way, entry.failures = False, 0
        if entry.write is None:
            del self._entries[path]

    def failed(self, now: float, write: Write, error: KubeError) -> None:
        """It was not: again later, unless something newer waits."""
        entry = self._entries[write.path]
        entry.under_way = False
        self._under_way -= 1
        entry.write = entry.write or (None if entry.dropped else write)
        if entry.write is None:
            del self._entries[write.path]
        away = isinstance(error, Unavailable)
        longest = LONGEST_PAUSE if away else LONGEST_WAIT
        told = min(error.retry_after or 0.0, LONGEST_WAIT)
        entry.ready = now + max(self._wait(entry.failures, longest), told)
        entry.failures += 1
        if away and now >= self._paused_until:  # else it was sent before the pause began, and is no news
            self._paused_until = now + max(self._wait(self._pauses, longest), told)
            self._pauses += 1

    def _wait(self, failures: int, longest: float) -> float:
        wait = min(FIRST_WAIT * 2.0 ** min(failures, 10), longest)
        return wait * (0.5 + 0.5 * self._jitter())
