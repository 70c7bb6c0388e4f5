"""Watching a network while something is done to it: was a packet lost, was a route deleted?

Owns the two recorders of the end-to-end tests.  Both are tools that are not ours, running in a namespace
(`ping` and `ip monitor`), so that a busy test can't delay them, and what they print is read afterwards.
"""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bgpd.lab import netns
from bgpd.lab.command import LabError, find_tool
from bgpd.lab.plan import Address
from bgpd.lab.process import Process

INTERVAL = 0.01
READY_TIMEOUT = 20.0
SEQUENCES = 1 << 16
MARKER = "198.18.255.255"
"""A route to this address (RFC 2544), in a table that nobody uses, shows that a monitor is listening."""
MARKER_ROUTE = f"blackhole {MARKER}/32 table 9179"

_REPLY = re.compile(r"^\[(\d+\.\d+)\] \d+ bytes from .*icmp_seq=(\d+)")
_WAITING = re.compile(r"^\[(\d+\.\d+)\] no answer yet for icmp_seq=(\d+)")
_SUMMARY = re.compile(r"^(\d+) packets transmitted", re.MULTILINE)
_EVENT = re.compile(r"^\[([^\]]+)\] (Deleted )?(.*)$")


@dataclass(frozen=True, slots=True)
class Lost:
    """A probe that was never answered."""

    sequence: int
    at: float
    """When it was sent: seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class PingReport:
    """What became of a run of probes."""

    sent: int
    answered: int
    lost: tuple[Lost, ...]
    """All but the very last probe, whose answer nobody waited for."""

    def lost_between(self, start: float, end: float) -> tuple[Lost, ...]:
        """Those that were sent between two moments."""
        return tuple(lost for lost in self.lost if start <= lost.at <= end)


class _Recorder:
    """A tool that records until it is stopped; as a context, it is ended at the latest when that is left."""

    process: Process

    def start(self) -> None:
        """Begin, and return when it really records."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()


class Pinger(_Recorder):
    """Pings an address every 10 ms, from `start` to `stop`."""

    def __init__(
        self, name: str, namespace: str, target: Address, log: Path, interval: float = INTERVAL
    ) -> None:
        self.interval = interval
        ping = find_tool("ping", "iputils-ping")
        argv = [ping, "-n", "-O", "-D", "-i", str(interval), str(target)]
        self.process = Process(f"ping {name}", namespace, argv, log)

    def start(self) -> None:
        """Begin, and return when the first answer has come."""
        self.process.start()
        end = time.monotonic() + READY_TIMEOUT
        while " bytes from " not in self.process.tail():
            self.process.must_run()
            if time.monotonic() > end:
                self.process.kill()
                raise LabError(f"{self.process.name}: no answer within {READY_TIMEOUT:g} s")
            time.sleep(0.01)

    def stop(self) -> PingReport:
        """End, and say what was lost."""
        self.process.signal(signal.SIGINT)
        self.process.wait()
        return read_ping(self.process.log.read_text(), self.interval)


def read_ping(output: str, interval: float) -> PingReport:
    """What `ping -O -D` printed.

    Each probe that was not answered when the next one was sent has a line of its own then; the answer may
    still have come later.  The numbers are 16 bits wide on the wire and here counted on.
    """
    answered: set[int] = set()
    waiting: dict[int, float] = {}
    last = 0
    for line in output.splitlines():
        reply, waited = _REPLY.match(line), _WAITING.match(line)
        found = reply or waited
        if not found:
            continue
        last = _unwrap(int(found[2]), last)
        if reply:
            answered.add(last)
        else:
            waiting[last] = float(found[1]) - interval
    summary = _SUMMARY.search(output)
    if summary is None:
        raise LabError(f"ping did not end as it should:\n{output[-500:]}")
    sent = int(summary[1])
    lost = [Lost(sequence, at) for sequence, at in waiting.items() if sequence not in answered]
    return PingReport(sent, len(answered), tuple(lost))


def _unwrap(sequence: int, last: int) -> int:
    """The number that goes on from `last` and has these lower 16 bits."""
    number = last - last % SEQUENCES + sequence
    if number < last - SEQUENCES // 2:
        return number + SEQUENCES
    return number - SEQUENCES if number > last + SEQUENCES // 2 else number


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """One notification of the kernel."""

    at: str
    """Local time."""
    deleted: bool
    text: str
    """The route as `ip` shows it, in one line."""


class RouteMonitor(_Recorder):
    """Records every change of a namespace's routes, from `start` to `stop`."""

    def __init__(self, namespace: str, log: Path) -> None:
        self.namespace = namespace
        argv = [netns.ip_tool(), "-ts", "monitor", "route"]
        self.process = Process(f"monitor of {namespace}", namespace, argv, log)

    def start(self) -> None:
        """Begin, and return when changes are really recorded."""
        self.process.start()
        end = time.monotonic() + READY_TIMEOUT
        while MARKER not in self.process.tail():
            self.process.must_run()
            if time.monotonic() > end:
                self.process.kill()
                raise LabError(f"{self.process.name} records nothing")
            netns.batch(self.namespace, [f"route add {MARKER_ROUTE}", f"route del {MARKER_ROUTE}"])
            time.sleep(0.02)

    def events(self) -> list[RouteEvent]:
        """What was recorded so far."""
        return read_events(self.process.log.read_text())

    def stop(self) -> list[RouteEvent]:
        """End, and return what was recorded; LabError when the kernel had to drop some of it."""
        self.process.must_run()  # `ip monitor` ends itself when its buffer overruns
        self.process.kill()
        return self.events()


def read_events(output: str) -> list[RouteEvent]:
    """What `ip -ts monitor route` printed; next hops of one route follow it in indented lines."""
    events: list[RouteEvent] = []
    for line in output.splitlines():
        if found := _EVENT.match(line):
            events.append(RouteEvent(found[1], bool(found[2]), found[3].strip()))
        elif line.strip() and events:
            head = events.pop()
            events.append(RouteEvent(head.at, head.deleted, f"{head.text} {line.strip()}"))
    return [event for event in events if MARKER not in event.text]
