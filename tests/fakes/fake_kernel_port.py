"""A FAKE `bgpd.kernel.netlink.Kernel` for tests of what stands on it: `FakeKernel`s, one for each metric.

It adds what a node has beside its routes, a monitor that is a pipe, and faults of the boundary itself:
calls that raise `KernelError` as they do when a socket fails, and notifications that get lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from bgpd.errors import KernelError
from bgpd.kernel.monitor import EntryChanged, KernelEvent, Monitor
from bgpd.kernel.netlink import Flushed, KernelSnapshot, Surroundings
from routes.fib import Applied, Delta, FibEntry, Hop
from routes.next_hop import ForeignRoute, InterfaceAddress, Link, RouteKind
from routes.prefix import Prefix, parse_address
from tests.fakes.fake_kernel import FakeKernel

METRIC, LAST_RESORT = 20, 4278198272
OURS = 179
ETH0 = 2

Answer = TypeVar("Answer")


class FakeMonitor(Monitor):
    """Events that a test puts in come out in the loop."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        self._events: list[KernelEvent] = []
        self.closed = False

    def put(self, event: KernelEvent) -> None:
        self._events.append(event)
        os.write(self._write_end, b"!")

    def fileno(self) -> int:
        return self._read_end

    def read(self) -> list[KernelEvent]:
        os.read(self._read_end, 4096)
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._read_end)
            os.close(self._write_end)


class FakePort:
    """A node with 192.0.2.1/24 and fd00::1/64 on eth0; `bgpd.fib_sync.KernelPort`."""

    def __init__(self) -> None:
        self.learned, self.own = FakeKernel(OURS), FakeKernel(OURS)
        self.links = [Link(ETH0, "eth0", up=True, lower_up=True)]
        self.addresses = [
            InterfaceAddress(ETH0, parse_address("192.0.2.1"), 24),
            InterfaceAddress(ETH0, parse_address("fd00::1"), 64),
        ]
        self.routes = [connected("192.0.2.0/24"), connected("fd00::/64")]
        self.events = FakeMonitor()
        self.applied: list[Delta] = []
        self.faults: dict[str, int] = {}
        """How many of the next calls raise, by the name of the method."""
        self.closed = False

    def apply(self, delta: Delta) -> Applied:
        self.applied.append(delta)
        return self._answer("apply", lambda: self._of(delta.metric).apply(delta))

    def snapshot(self) -> KernelSnapshot:
        entries = {METRIC: self.learned.entries(), LAST_RESORT: self.own.entries()}
        return self._answer("snapshot", lambda: KernelSnapshot(entries, *self._surroundings()))

    def surroundings(self) -> Surroundings:
        return self._answer("surroundings", self._surroundings)

    def flush(self) -> Flushed:
        total = len(self.learned.entries()) + len(self.own.entries())
        return self._answer("flush", lambda: Flushed(total, 0, ()))

    def monitor(self) -> FakeMonitor:
        return self.events

    def close(self) -> None:
        self.closed = True

    def _of(self, metric: int) -> FakeKernel:
        return self.learned if metric == METRIC else self.own

    def _surroundings(self) -> Surroundings:
        return Surroundings(tuple(self.links), tuple(self.addresses), tuple(self.routes))

    def _answer(self, method: str, answer: Callable[[], Answer]) -> Answer:
        left = self.faults.get(method, 0)
        if left:
            self.faults[method] = left - 1
            raise KernelError(f"netlink {method}: No buffer space available")
        return answer()

    # What others do

    def others_put(self, nlri: Prefix, protocol: int, entry: FibEntry) -> None:
        """`ip route replace`, with its notification."""
        self.learned.put(nlri, protocol, entry)
        self.events.put(EntryChanged(nlri, METRIC, entry, protocol, None))

    def others_delete(self, nlri: Prefix) -> None:
        """`ip route del`, with its notification."""
        route = self.learned.routes[nlri]
        self.learned.delete(nlri)
        self.events.put(EntryChanged(nlri, METRIC, None, route.protocol, route.entry))


def connected(prefix: str) -> ForeignRoute:
    return ForeignRoute(Prefix.parse(prefix), 0, 2, RouteKind.UNICAST, (Hop(None, ETH0),))


def via(*gateways: str, source: str | None = None) -> FibEntry:
    """The entry that leads over these."""
    hops = [Hop(parse_address(gateway), ETH0) for gateway in gateways]
    return FibEntry.of(hops, parse_address(source) if source else None)
