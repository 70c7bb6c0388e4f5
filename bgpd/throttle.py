"""Logging what a peer can repeat as often as it likes, at a rate that we choose.

Each kind of event (its key: the peer and what happened) may be logged a few times in an interval; the
rest is counted, and the count is part of the next line that is let through, or of a line of its own when
the key has been quiet for an interval and `flush` is called.  Neither the table of keys nor the rate of
all keys together grows with what arrives: who connects from many addresses must not win either.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol


class Log(Protocol):
    """The part of a logger that is needed."""

    def log(self, level: str, event: str, /, **keys: object) -> None: ...


@dataclass(slots=True)
class _Window:
    """One interval of one key."""

    start: float
    logged: int = 0
    suppressed: int = 0
    level: str = ""
    event: str = ""


class Throttle:
    """`burst` lines for each key and interval, `burst * 10` for all keys, `most_keys` remembered."""

    def __init__(
        self,
        log: Log,
        *,
        interval: float = 10.0,
        burst: int = 3,
        most_keys: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._interval = interval
        self._burst = burst
        self._most_keys = most_keys
        self._clock = clock
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()
        self._all = _Window(clock())

    def __len__(self) -> int:
        return len(self._windows)

    def info(self, key: Hashable, event: str, **keys: object) -> None:
        self.log("info", key, event, **keys)

    def warning(self, key: Hashable, event: str, **keys: object) -> None:
        self.log("warning", key, event, **keys)

    def log(self, level: str, key: Hashable, event: str, **keys: object) -> None:
        """Log `event`, or count it.  Two events with one `key` share their allowance."""
        now = self._clock()
        window = self._window(key, now)
        if now - self._all.start >= self._interval:
            self._all = _Window(now, suppressed=self._all.suppressed)
        if window.logged >= self._burst or self._all.logged >= self._burst * 10:
            window.suppressed += 1
            window.level, window.event = level, event
            return
        window.logged += 1
        self._all.logged += 1
        if window.suppressed:
            keys["suppressed"] = window.suppressed
            window.suppressed = 0
        if self._all.suppressed:
            keys["suppressed_elsewhere"] = self._all.suppressed
            self._all.suppressed = 0
        self._log.log(level, event, **keys)

    def flush(self) -> None:
        """Say what was suppressed of keys that have been quiet since, and forget them."""
        now = self._clock()
        told = 0
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now - window.start < self._interval:
                return
            del self._windows[key]
            if not window.suppressed:
                continue
            told += 1
            if told > self._burst:
                self._all.suppressed += window.suppressed
            else:
                self._log.log(window.level, window.event, about=key, suppressed=window.suppressed)

    def _window(self, key: Hashable, now: float) -> _Window:
        window = self._windows.get(key)
        if window is None or now - window.start >= self._interval:
            window = _Window(now, suppressed=window.suppressed if window else 0)
            self._windows[key] = window
            self._windows.move_to_end(key)
            if len(self._windows) > self._most_keys:
                _, oldest = self._windows.popitem(last=False)
                self._all.suppressed += oldest.suppressed
        return window
