"""A speaker under measurement: its processes, the processor time and the memory of all of them.

Owns: starting it on the reflector's core and side, and ending it with everything that it started.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.agent.topology import Topology, run

ROOT = Path(__file__).parents[2]
FILES = 20_000
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)
_LISTENS = re.compile(r"^\s*\d+: [0-9A-F]{8}:00B3 00000000:0000 0A ", re.MULTILINE)
_SERVES = re.compile(r"^\s*\d+: [0-9A-F]{8}:00B3 ", re.MULTILINE)
_LINGER = 65.0
"""Seconds that a killed speaker's connections may take to go; some speakers can't listen beside them."""
_NANOSECONDS = 1e9


class Running:
    """A started speaker."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def pids(self) -> list[int]:
        """Its process and all descendants."""
        parents: dict[int, list[int]] = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            try:
                pid, parent = (
                    int(folder.name),
                    int((folder / "stat").read_text().rpartition(")")[2].split()[1]),
                )
            except OSError:
                continue  # it has ended meanwhile
            parents.setdefault(parent, []).append(pid)
        found = [self._process.pid]
        for pid in found:
            found.extend(parents.get(pid, []))
        return found

    def cpu(self) -> float:
        """Seconds of processor time of all threads; the scheduler's own count, since a tick is 10 ms."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                total += int(task.read_text().split()[0])
        return total / _NANOSECONDS

    def peak(self) -> float:
        """The sum of their peaks of resident memory, in MB (10^6 bytes)."""
        found = (_PEAK.search(Path(f"/proc/{pid}/status").read_text()) for pid in self.pids())
        return sum(int(match[1]) for match in found if match) * 1024 / 1e6

    def check(self) -> None:
        """RuntimeError with the end of its log when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._process.args!r} ended: {self.tail()}")

    def tail(self) -> str:
        """The end of what it logged."""
        return self._log.read_text(errors="replace")[-2000:]

    def wait_until_it_listens(self, seconds: float = 30.0) -> None:
        """Wait for a socket that listens on port 179 in its namespace."""
        deadline = time.monotonic() + seconds
        while not _LISTENS.search(self._table()):
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._process.args!r} does not listen: {self.tail()}")
            time.sleep(0.02)

    def _table(self) -> str:
        try:
            return Path(f"/proc/{self._process.pid}/net/tcp").read_text()
        except OSError:
            return ""


def _wait_until_the_port_is_free(net: Topology) -> None:
    deadline = time.monotonic() + _LINGER
    while _SERVES.search(run("ip", "netns", "exec", net.daemon, "cat", "/proc/net/tcp")):
        if time.monotonic() > deadline:
            break  # the speaker says it better
        time.sleep(0.1)


@contextmanager
def running(argv: list[str], environment: dict[str, str], net: Topology, log: Path) -> Iterator[Running]:
    """Start a speaker, and end it with all that it started whatever happens."""
    _wait_until_the_port_is_free(net)
    command = ["prlimit", f"--nofile={FILES}:{FILES}", *net.command(argv)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    state = Running(process, log)
    try:
        yield state
    finally:
        for pid in state.pids():  # children too: a daemon may have put them into groups of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
