"""Reading a file of the operator's without trusting its kind or size.

The daemon reads its configuration again while it forwards packets: a FIFO that nobody writes to, or a
device, must not stop its event loop, and a wrong path must not fill its memory.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple


class Content(NamedTuple):
    """What a file holds, and its permission bits."""

    data: bytes
    mode: int


def read_regular(path: str | os.PathLike[str], limit: int) -> Content:
    """The content of a regular file of at most `limit` bytes; OSError, with its reason, for another."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        data = b""
        while more := os.read(descriptor, limit + 1 - len(data)):
            data += more
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit} bytes")
    return Content(data, stat.S_IMODE(found.st_mode))
