"""What the daemon counts as it works, for `bgpd/metrics.py` to show.

Only what no other state tells is counted: how long changes take to the kernel, what the kernel answered,
how late the event loop was.  All else is read from the state itself at the moment of a scrape.  Counting
costs one addition, and needs neither the metrics library nor a configured listener.
"""

from __future__ import annotations

import asyncio
import errno
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

CONVERGENCE_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
LAG_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)

OK = "ok"
"""The result of a kernel operation that succeeded; another one is the name of its errno."""


class Histogram:
    """Counts of observations by upper bound."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `times` observations of `value`: one call for a whole batch of changes."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    def buckets(self) -> list[tuple[str, int]]:
        """Upper bound as text, and the number of observations up to it; the last is `+Inf`."""
        buckets, below = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            below += count
            buckets.append((bound, below))
        return buckets


@dataclass(slots=True)
class Meters:
    """The daemon's counters.  It alone writes them, in its event loop."""

    convergence: Histogram = field(default_factory=lambda: Histogram(CONVERGENCE_BOUNDS))
    """Seconds from the arrival of an UPDATE to the kernel's acknowledgement, one for each prefix."""
    loop_lag: Histogram = field(default_factory=lambda: Histogram(LAG_BOUNDS))
    """Seconds that the event loop ran a timer too late."""
    kernel_operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By operation (`create`, `replace`, `remove`) and result."""
    kernel_resyncs: Counter[str] = field(default_factory=Counter)
    """Full dumps of the kernel's entries, by the reason for each (`start`, `overrun`, `links`, ...)."""
    reloads: Counter[str] = field(default_factory=Counter)
    """Configuration files read at SIGHUP, by result: `ok` or `failed`."""

    def kernel_done(self, operation: str, count: int = 1) -> None:
        self.kernel_operations[operation, OK] += count

    def kernel_failed(self, operation: str, error: int, count: int = 1) -> None:
        """`error` is the errno, positive."""
        self.kernel_operations[operation, errno.errorcode.get(error, str(error))] += count

    def reloaded(self, *, ok: bool) -> None:
        self.reloads["ok" if ok else "failed"] += 1


async def measure_loop_lag(lag: Histogram, interval: float = 1.0) -> None:
    """Observe, for as long as it runs, how much later than asked a sleep of `interval` ends."""
    while True:
        wake = time.monotonic() + interval
        await asyncio.sleep(interval)
        lag.observe(max(0.0, time.monotonic() - wake))
