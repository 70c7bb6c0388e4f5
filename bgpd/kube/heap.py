"""Memory that goes back to the kernel: pages of a list are megabytes, and gone as soon as they are read.

glibc begins with a mapping of its own for each block above 128 KB.  Once the first of them is freed, it takes
blocks of that size from the heap of whichever thread asks, between small objects that stay: with 5,000 Nodes
10 MB are never given back.  A threshold that is set (mallopt(3)) stays where it is.
"""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 17
"""glibc's own first value: a page of a list is above it, what a BGP session reads is below."""


def keep_large_blocks_apart() -> bool:
    """Do so in this process; False where the C library has no such setting (musl)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE))
