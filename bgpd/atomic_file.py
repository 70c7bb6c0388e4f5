"""Replacing a small file so that a reader, or a crash, finds the old one or the new one and never half."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write `content` to `path`, making its folder where needed; raises OSError and then changes nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as handle:
        os.fchmod(descriptor, mode)  # the file may be left over from a process that was killed
        handle.write(content)
        handle.flush()
        os.fsync(descriptor)
    os.replace(new, path)  # noqa: PTH105  the call whose atomicity is the point
