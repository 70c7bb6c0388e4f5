"""When the garbage collector runs.

Tables of routes are long-lived and free of cycles, and a full collection over 20,000 of them takes
17-24 ms: longer than a single change may take from the wire to the kernel.  So full collections never
start by themselves; once a large change has settled, one runs and what survived is frozen, so that the
young collections have little to look at.  Cycles of the rest (gRPC calls, exceptions) are found by the
young generations and by the same idle collection.
"""

from __future__ import annotations

import gc

_YOUNG = 20_000
"""Allocations between young collections: few enough to be short, many enough to be rare in a bulk load."""
_NEVER = 1_000_000_000
_PATIENCE = 64


class GcPolicy:
    """Call `settled` when the daemon has been idle for a while; it collects only if that pays."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, 20, _NEVER)
        self._size = 0
        self._calls = 0

    def settled(self, table_size: int) -> bool:
        """Collect when the table changed by an eighth since the last time, or at each 64th call.

        Returns whether it ran.
        """
        self._calls += 1
        if abs(table_size - self._size) * 8 <= self._size and self._calls < _PATIENCE:
            return False
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._size, self._calls = table_size, 0
        return True
