"""A client that opens a new TCP connection every few milliseconds, and remembers what became of each.

Owns the record for the promise that no new connection is lost while a service's endpoint moves.  Each
connection asks one question of the lab's pods (`kube_echo`) and ends.  All of it runs in one thread, inside
the client's namespace; connections are bounded by the time that each may take.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from bgpd.lab import netns
from bgpd.lab.command import LabError
from bgpd.lab.plan import Address

INTERVAL = 0.02
PATIENCE = 5.0
"""Seconds for one connection: time for two repeated SYNs."""
SLOW = 0.8
"""Seconds: a connection that took longer had to repeat its SYN, for a packet was dropped."""
MOST_ANSWER = 4096
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


class _Answer(msgspec.Struct):
    pod: str


class Target(NamedTuple):
    """Where to connect to."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Dialled:
    """One connection."""

    target: str
    at: float
    """When it was begun: seconds since the epoch."""
    spent: float
    pod: str
    """Which answered; empty when none did."""
    error: str = ""
    opened: bool = False
    """Its handshake was complete."""


class Dialer:
    """Connects to each target every 20 ms, while it is entered."""

    def __init__(self, namespace: str, targets: Mapping[str, Target], interval: float = INTERVAL) -> None:
        self._namespace = namespace
        self._targets = dict(targets)
        self._interval = interval
        self._stop = Event()
        self._done: list[Dialled] = []
        self._errors: list[OSError] = []
        self._selector = selectors.DefaultSelector()
        self._thread = Thread(target=self._run, name="dialer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._selector.close()

    def stop(self) -> list[Dialled]:
        """End when those that are open have ended; what became of all."""
        self._stop.set()
        self._thread.join()
        if self._errors:
            raise LabError(f"the client in {self._namespace} could not connect: {self._errors[0]}")
        return self._done

    def _run(self) -> None:
        try:
            netns.call_in(self._namespace, self._loop)
        except OSError as error:
            self._errors.append(error)

    def _loop(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set() or self._selector.get_map():
            if not self._stop.is_set() and time.monotonic() >= due:
                for name, target in self._targets.items():
                    _Connection(name, target, self._selector, self._done)
                due = max(due + self._interval, time.monotonic())
            for key, _ in self._selector.select(max(0.0, min(due - time.monotonic(), self._interval))):
                key.data.ready()
            for key in list(self._selector.get_map().values()):
                key.data.look_at_the_clock()


class _Connection:
    """One of them, from its first packet to its record."""

    def __init__(
        self, name: str, target: Target, selector: selectors.BaseSelector, done: list[Dialled]
    ) -> None:
        self._name = name
        self._selector = selector
        self._done = done
        self._at, self._begun = time.time(), time.monotonic()
        self._asked = False
        self._sock = socket.socket(FAMILY[target.address.version], socket.SOCK_STREAM)
        self._sock.setblocking(False)
        selector.register(self._sock, selectors.EVENT_WRITE, self)
        try:
            self._sock.connect((str(target.address), target.port))
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error=str(error))

    def ready(self) -> None:
        """It is connected, or answered, or failed."""
        try:
            if self._asked:
                answer = self._sock.recv(MOST_ANSWER)
                self._end(pod=msgspec.json.decode(answer, type=_Answer).pod)
            else:
                self._sock.sendall(b"who are you?\n")
                self._asked = True
                self._selector.modify(self._sock, selectors.EVENT_READ, self)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error=str(error))
        except msgspec.MsgspecError:
            self._end(error="closed without an answer")

    def look_at_the_clock(self) -> None:
        """Give up when it takes too long."""
        if time.monotonic() - self._begun > PATIENCE:
            self._end(error=f"no answer within {PATIENCE:g} s")

    def _end(self, pod: str = "", error: str = "") -> None:
        self._selector.unregister(self._sock)
        self._sock.close()
        spent = time.monotonic() - self._begun
        self._done.append(Dialled(self._name, self._at, spent, pod, error, self._asked))
