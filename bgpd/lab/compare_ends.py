"""The two ends of the traffic: a process in each of two pods, and one measurement after the other.

Owns the processes (`compare_traffic.py`), the time limit of each answer, and what one measurement is.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bgpd.lab import netns
from bgpd.lab.command import LabError
from bgpd.lab.plan import Pod

START_TIMEOUT = 30.0
ANSWER_TIMEOUT = 15.0
"""Seconds beyond those that the traffic itself takes."""
MOST_BYTES = 1 << 16
GIGABYTE = 1e9
TICKS = os.sysconf("SC_CLK_TCK")


class Measured(NamedTuple):
    """One run of everything over one way."""

    rtt_median: float
    """Microseconds."""
    rtt_p99: float
    tcp_one: float
    """Gigabits of payload a second, over one connection."""
    tcp_many: float
    """The same over several connections."""
    udp_small: float
    """Thousands of datagrams a second of 64 bytes that arrived."""
    cpu: float
    """Seconds of all processors for a gigabyte over one connection."""


class Schedule(NamedTuple):
    """How long and how wide."""

    seconds: float
    """Of each of the four parts of a run."""
    streams: int


class _End:
    """A process in a pod that answers line by line."""

    def __init__(self, role: str, pod: Pod, address: str, log: Path) -> None:
        self._name = f"{role} in {pod.name}"
        self._log = log
        argv = [sys.executable, "-m", "bgpd.lab.compare_traffic", role, address]
        with log.open("ab") as errors:
            self._child = subprocess.Popen(  # noqa: S603 - our own module, with arguments that the lab made
                netns.in_namespace(pod.namespace, argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def ask(self, part: str, schedule: Schedule, streams: int) -> None:
        command = {"do": part, "seconds": schedule.seconds, "streams": streams}
        self._write(json.dumps(command).encode() + b"\n")

    def answer(self, timeout: float) -> dict[str, float]:
        """The next line, as numbers; LabError when none comes in time, or it tells of an error."""
        stdout = self._child.stdout
        ready = stdout is not None and select.select([stdout], [], [], timeout)[0]
        line = stdout.readline(MOST_BYTES) if stdout is not None and ready else b""
        if not line:
            said = self._log.read_text(errors="replace")[-500:] if self._log.exists() else ""
            raise LabError(f"{self._name}: no answer within {timeout:g} s {said}")
        value: object = json.loads(line)
        if not isinstance(value, dict) or "error" in value:
            raise LabError(f"{self._name}: {value['error'] if isinstance(value, dict) else value}")
        return value

    def _write(self, data: bytes) -> None:
        if self._child.stdin is None:
            raise LabError(f"{self._name} has no input")
        try:
            self._child.stdin.write(data)
            self._child.stdin.flush()
        except OSError as error:
            raise LabError(f"{self._name} ended: {error.strerror}") from error

    def end(self) -> None:
        self._child.kill()
        self._child.wait(ANSWER_TIMEOUT)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


class Ends:
    """Both processes, from `with` until its end."""

    def __init__(self, caller: Pod, server: Pod, folder: Path) -> None:
        self._pods = (caller, server)
        self._folder = folder
        self._started: list[_End] = []

    def __enter__(self) -> Self:
        caller, server = self._pods
        address = str(server.addresses[0])
        self._started.append(_End("serve", server, address, self._folder / "serve.log"))
        self._started.append(_End("call", caller, address, self._folder / "call.log"))
        try:
            for end in self._started:
                end.answer(START_TIMEOUT)
        except LabError:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for end in self._started:
            end.end()
        self._started.clear()

    def measure(self, schedule: Schedule) -> Measured:
        """One run: round trips, one connection, several, small datagrams."""
        _, caller = self._started
        caller.ask("rtt", schedule, 1)
        rtt = caller.answer(schedule.seconds + ANSWER_TIMEOUT)
        before = busy_seconds()
        one = self._transfer("tcp", schedule, 1)
        cpu = busy_seconds() - before
        many = self._transfer("tcp", schedule, schedule.streams)
        udp = self._transfer("udp", schedule, 1)
        return Measured(
            rtt["median"],
            rtt["p99"],
            _rate(one, "bytes") * 8 / GIGABYTE,
            _rate(many, "bytes") * 8 / GIGABYTE,
            _rate(udp, "packets") / 1e3,
            cpu / max(one["bytes"] / GIGABYTE, 1e-9),
        )

    def _transfer(self, part: str, schedule: Schedule, streams: int) -> Mapping[str, float]:
        """What arrived."""
        server, caller = self._started
        server.ask(part, schedule, streams)
        caller.ask(part, schedule, streams)
        caller.answer(schedule.seconds + ANSWER_TIMEOUT)
        return server.answer(schedule.seconds + ANSWER_TIMEOUT)


def _rate(arrived: Mapping[str, float], what: str) -> float:
    return arrived[what] / max(arrived["seconds"], 1e-9)


def busy_seconds() -> float:
    """Seconds that the processors were not idle, all together, since the machine started (proc(5))."""
    words = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq = map(int, words[:7])
    return (user + nice + system + irq + softirq) / TICKS
