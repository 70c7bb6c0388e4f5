"""Watching a whole lab while something is done to it: who pinged whom in vain, and which routes changed.

Owns the recorders of one moment: `ping` in the pods and `ip monitor route` on the nodes.  It judges
nothing; the demonstration and the tests do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from types import TracebackType
from typing import NamedTuple, Self

from bgpd.lab.plan import Node, Pod
from bgpd.lab.probe import Lost, Pinger, RouteEvent, RouteMonitor
from bgpd.lab.topology import Topology

_numbers = count()


class Ping(NamedTuple):
    """A pod that pings another, in one family."""

    source: Pod
    target: Pod
    version: int

    def __str__(self) -> str:
        return f"{self.source.name} to {self.target.name}, IPv{self.version}"


def pings_between(nodes: Sequence[Node]) -> list[Ping]:
    """Between all pods on different ones of these nodes, in both directions and all families."""
    return [
        Ping(source, target, address.version)
        for near in nodes
        for far in nodes
        if near is not far
        for source in near.pods
        for target in far.pods
        for address in target.addresses
    ]


class Witness:
    """Pings every 10 ms, and records every change of the nodes' routes, from `__enter__` to `stop`."""

    def __init__(self, topology: Topology, pings: Iterable[Ping] | None = None) -> None:
        folder = topology.workspace.folder
        self._pingers = {
            ping: Pinger(
                str(ping),
                ping.source.namespace,
                next(address for address in ping.target.addresses if address.version == ping.version),
                folder / f"ping-{next(_numbers)}.log",
            )
            for ping in (pings_between(topology.plan.nodes) if pings is None else pings)
        }
        self._monitors = {
            node.name: RouteMonitor(node.namespace, folder / f"monitor-{next(_numbers)}.log")
            for node in topology.plan.nodes
        }
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as started:
            for recorder in (*self._monitors.values(), *self._pingers.values()):
                started.enter_context(recorder)
            self._stack = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def changes(self) -> dict[str, list[RouteEvent]]:
        """What changed by now, by node."""
        return {name: monitor.events() for name, monitor in self._monitors.items()}

    def stop(self) -> Seen:
        """End, and say what was seen."""
        reports = {ping: pinger.stop() for ping, pinger in self._pingers.items()}
        return Seen(
            lost={ping: report.lost for ping, report in reports.items() if report.lost},
            fewest=min((report.answered for report in reports.values()), default=0),
            answered=sum(report.answered for report in reports.values()),
            changes={name: monitor.stop() for name, monitor in self._monitors.items()},
        )


class Seen(NamedTuple):
    """What a witness saw."""

    lost: Mapping[Ping, tuple[Lost, ...]]
    """Only pings that lost something."""
    fewest: int
    """Answers to the ping that had the fewest."""
    answered: int
    """Answers to all of them."""
    changes: Mapping[str, list[RouteEvent]]

    @property
    def deleted(self) -> list[str]:
        """Every deletion on any node."""
        return [
            f"{name}: {event.text}"
            for name, events in self.changes.items()
            for event in events
            if event.deleted
        ]
