"""A daemon that follows Kubernetes may have to begin again in place, in the same process and container.

The kernel keeps its routes, and peers with graceful restart keep our paths: nothing is lost by it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Again:
    """Whether the process is to begin again when it has stopped."""

    def __init__(self) -> None:
        self.reason = ""

    def ask(self, reason: str) -> None:
        """Begin again after the stop, for this reason."""
        self.reason = reason


def run_and_again(run: Callable[[Again], int]) -> int:
    """Run until the stop; the exit code, unless the process is to begin again."""
    again = Again()
    code = run(again)
    if code == 0 and again.reason:
        log.info("beginning again in place", reason=again.reason)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606  the command line that we were started with
    return code
