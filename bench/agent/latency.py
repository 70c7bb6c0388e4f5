"""One change: from the sending of an UPDATE to the kernel's notification about its prefix.

Owns: one run of one speaker that holds a full table.  Changes come one at a time, each after the last was
seen and a short random pause, so that a speaker's batching can't hide its waiting.
"""

from __future__ import annotations

import gc
import random
import time

from bench.agent.convergence import SETTLE, TIMEOUT
from bench.agent.feeder import Feeder, Table, listen
from bench.agent.kernel import Monitor, RouteCounter, verify
from bench.agent.speakers import Speaker, running
from bench.agent.topology import FEEDER_ADDRESSES, Topology, within

KINDS = ("change", "withdraw", "announce")
"""A new next hop, a withdrawal, the old path again: in this order for each picked prefix."""


Latencies = dict[str, list[float]]
"""Milliseconds of each change, by kind."""


def percentile(values: list[float], percent: float) -> float:
    """Nearest rank: the smallest value that at least `percent` of them don't exceed."""
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(0, int(rank) - 1)]


def single_changes(
    net: Topology, speaker: type[Speaker], table: Table, changes: int, seed: int = 1
) -> Latencies:
    """Measure `changes` changes (rounded up to whole cycles of the three kinds) with the table installed."""
    picks = random.Random(seed)
    listener = within(net.feeder, lambda: listen(FEEDER_ADDRESSES[0]))
    with listener, RouteCounter(net) as counter, running(speaker, net) as state, Monitor(net) as monitor:
        feeder = Feeder(listener, state.check)
        try:
            time.sleep(SETTLE)
            counter.rebase()
            feeder.send(table.encode())
            counter.wait_for(table.count, TIMEOUT)
            time.sleep(3)
            verify(net, table)
            monitor.drain()
            found: Latencies = {kind: [] for kind in KINDS}
            gc.collect()
            gc.disable()
            for _ in range(-(-changes // len(KINDS))):
                index = picks.randrange(table.count)
                for kind in KINDS:
                    time.sleep(picks.uniform(0.001, 0.006))
                    found[kind].append(_one(feeder, monitor, table, index, kind))
            state.check()
            verify(net, table)
        finally:
            gc.enable()
            feeder.close()
    return found


def _one(feeder: Feeder, monitor: Monitor, table: Table, index: int, kind: str) -> float:
    """Send one change and wait until the kernel tells of it; milliseconds."""
    turn = 1 if kind == "change" else 0
    data = table.withdrawal(index) if kind == "withdraw" else table.update(index, turn)
    prefix, gateway = table.prefix(index), table.gateway(index, turn)
    start = time.perf_counter()
    feeder.send(data)
    while True:
        events = monitor.next_events(10.0)
        seen = time.perf_counter()
        for event in events:
            if event.prefix != prefix or event.gone != (kind == "withdraw"):
                continue
            if event.gone or event.gateway in (gateway, b""):
                return 1000 * (seen - start)
