"""Peer to kernel: from the first byte of a table to its last entry in the kernel.

Owns: one run of one speaker, and one run of the feeder into a sink.  The feeder's buffer is encoded before
the clock starts; the entries are counted by looking, not by listening, and checked after the clock stopped.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from dataclasses import dataclass

from bench.agent.feeder import Feeder, Table, listen
from bench.agent.kernel import RouteCounter, verify
from bench.agent.memory import cpu_seconds, resident
from bench.agent.speakers import ROOT, Speaker, running
from bench.agent.topology import FEEDER_ADDRESSES, Topology, within

SETTLE = 2.0
"""Seconds between the session's establishment and the first byte: start-up work is not measured."""
TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One run."""

    seconds: float
    late: float
    """By how much `seconds` may be too large: the time between the last two looks at the kernel."""
    sent: float
    """When the feeder had written its last byte."""
    cpu: float
    """CPU seconds of all the speaker's processes, from the first byte on."""
    memory: float
    """MB resident, two seconds after the last entry."""


def converge(net: Topology, speaker: type[Speaker], table: Table) -> Sample:
    """Measure one run, and check every prefix and gateway afterwards."""
    stream = table.encode()
    listener = within(net.feeder, lambda: listen(FEEDER_ADDRESSES[0]))
    with listener, RouteCounter(net) as counter, running(speaker, net) as state:
        feeder = Feeder(listener, state.check)
        try:
            time.sleep(SETTLE)
            state.check()
            counter.rebase()
            gc.collect()
            gc.disable()
            used = cpu_seconds(state.pids)
            start = time.perf_counter()
            feeder.send(stream)
            sent = time.perf_counter()
            end, late = counter.wait_for(table.count, TIMEOUT)
            used = cpu_seconds(state.pids) - used
            gc.enable()
            time.sleep(2)
            memory = resident(state.pids)
            state.check()
            feeder.check()
            verify(net, table)
        finally:
            gc.enable()
            feeder.close()
    return Sample(end - start, late, sent - start, used, memory)


def sink_seconds(net: Topology, table: Table) -> float:
    """The same bytes into a process that only reads, in a speaker's place and on its core."""
    stream = table.encode()
    listener = within(net.feeder, lambda: listen(FEEDER_ADDRESSES[0]))
    argv = [sys.executable, "-m", "bench.agent.sink", FEEDER_ADDRESSES[0], str(len(stream))]
    with listener, subprocess.Popen(net.command(argv), cwd=ROOT) as sink:
        listener.settimeout(20)
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(20)
            time.sleep(0.2)
            start = time.perf_counter()
            sock.sendall(stream)
            sock.recv(1)
            seconds = time.perf_counter() - start
        sink.wait(20)
    return seconds
