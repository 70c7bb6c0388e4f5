"""A daemon that runs in a namespace as a child of the lab, its output in a file.

Owns start and stop.  Each daemon has a session of its own, so that Ctrl-C reaches the lab alone, which
then ends them in order.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bgpd.lab.command import LabError
from bgpd.lab.netns import in_namespace

STOP_TIMEOUT = 60.0
"""Generous: on a busy machine a process can wait long for the kernel's routing lock, even to die."""
START_TIMEOUT = 30.0
TAIL = 2000


class Process:
    """One daemon: `start`, then `kill` or `terminate`, as often as wanted."""

    def __init__(self, name: str, namespace: str, argv: Sequence[str], log: Path) -> None:
        self.name = name
        self.namespace = namespace
        self.argv = list(argv)
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output is added to the log file."""
        if self.running:
            raise LabError(f"{self.name} is already running")
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - a fixed daemon with arguments that the lab made
                in_namespace(self.namespace, self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise LabError(f"{self.name} was never started")
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._child.poll() if self._child else None

    def kill(self) -> None:
        """`kill -9`: it gets no chance to clean up."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(STOP_TIMEOUT)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Its exit code, once it has ended by itself; LabError (and a kill) when it does not in time."""
        if self._child is None:
            return 0
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise LabError(f"{self.name} did not end within {timeout:g} s") from error

    def terminate(self, timeout: float = STOP_TIMEOUT) -> int:
        """SIGTERM, and its exit code."""
        if self._child is not None:
            self._child.terminate()
        return self.wait(timeout)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self._child is not None:
            self._child.send_signal(number)

    def must_run(self) -> None:
        """LabError, with the end of its log, when it is not running."""
        if not self.running:
            raise LabError(f"{self.name} ended with code {self.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-TAIL:] if self.log.exists() else ""


def wait_for_socket(process: Process, path: Path, timeout: float = START_TIMEOUT) -> None:
    """Return when a daemon accepts connections on its Unix socket; LabError when it ends or is too slow."""
    end = time.monotonic() + timeout
    while not _accepts(path):
        process.must_run()
        if time.monotonic() > end:
            raise LabError(f"{process.name} is not ready after {timeout:g} s:\n{process.tail()}")
        time.sleep(0.02)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
