"""What a speaker's processes use: resident memory and processor time, from /proc."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from bench.agent.feeder import Feeder, Table, listen
from bench.agent.kernel import RouteCounter
from bench.agent.speakers import Speaker, running
from bench.agent.topology import FEEDER_ADDRESSES, Topology, within

_RSS = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK")


def resident(pids: list[int]) -> float:
    """VmRSS of all of them, in MB (10^6 bytes)."""
    found = (_RSS.search(Path(f"/proc/{pid}/status").read_text()) for pid in pids)
    return sum(int(match[1]) for match in found if match) * 1024 / 1e6


def cpu_seconds(pids: list[int]) -> float:
    """utime + stime of all of them, all threads included."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def idle_percent(net: Topology, speaker: type[Speaker], routes: int, seconds: float) -> float:
    """CPU of an idle speaker with four established peers (hold time 90 s, keepalives both ways), the first
    of which announced `routes` prefixes, in percent of one core."""
    table = Table(routes, "distinct")
    listeners = within(net.feeder, lambda: [listen(address) for address in FEEDER_ADDRESSES])
    feeders: list[Feeder] = []
    try:
        with RouteCounter(net) as counter, running(speaker, net, len(FEEDER_ADDRESSES)) as state:
            try:
                feeders.extend(Feeder(listener, state.check, hold_time=90) for listener in listeners)
                time.sleep(2)
                counter.rebase()
                feeders[0].send(table.encode())
                counter.wait_for(routes, 120)
                time.sleep(10)
                before = cpu_seconds(state.pids)
                time.sleep(seconds)
                used = cpu_seconds(state.pids) - before
                state.check()
                for feeder in feeders:
                    feeder.check()
            finally:
                for feeder in feeders:
                    feeder.close()
    finally:
        for listener in listeners:
            listener.close()
    return 100 * used / seconds
