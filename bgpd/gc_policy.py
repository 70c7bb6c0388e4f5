"""When the garbage collector runs.

Tables of routes are long-lived and free of cycles, and a full collection over 20,000 of them takes
75-120 ms: longer than a single change may take from the wire to the kernel.  So nothing looks at them
twice.  Young collections are rare in a bulk load, and find the cycles of the rest (gRPC calls,
exceptions); once a large change has settled, everything is frozen, which takes no time at all.  What was
frozen with a cycle that died later, a closed session perhaps, waits for a full collection, once in an
hour without work.
"""

from __future__ import annotations

import gc

_YOUNG = 20_000
"""Allocations between young collections, which then take 5 ms at most (100,000 took 25)."""
_NEVER = 1_000_000_000
_FULL = 1_200
"""Calls of `settled`, about three seconds apart."""


class GcPolicy:
    """Call `settled` when the daemon has been idle for a while."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, 100, _NEVER)
        self._size = 0
        self._calls = 0

    def settled(self, table_size: int) -> None:
        """Collect what is young; freeze all that is left if the table changed by an eighth."""
        self._calls += 1
        if self._calls >= _FULL:
            self._calls = 0
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            return
        gc.collect(0)
        if abs(table_size - self._size) * 8 > self._size:
            gc.freeze()
            self._size = table_size
