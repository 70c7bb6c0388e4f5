"""Starting and ending a node's pods: their network namespaces, their wiring, their programs.

The part of a kubelet and its container runtime that makes a pod real.  A pod is a network namespace that the
CNI plugins have wired, and one process in it.  Owns the namespaces whose names begin with the node's prefix;
a pod that an earlier process of this node started is taken over as it is.  Runs in the node's network
namespace and in the machine's own mount namespace: names under /run/netns must be seen by everybody.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bgpd.lab import netns
from bgpd.lab.command import LabError
from bgpd.lab.kube_cni import CniRuntime, Sandbox
from bgpd.lab.kube_pods import PROGRAMS, LabPod
from bgpd.lab.plan import Address
from bgpd.lab.process import Process
from bgpd.lab.topology import QUIET_IPV6

READY_LINE = "ready\n"
READY_TIMEOUT = 15.0


@dataclass
class RunningPod:
    """A pod of this node that has its network."""

    pod: LabPod
    sandbox: Sandbox
    addresses: tuple[Address, ...]
    reported: bool = False
    """The API server has heard that it runs."""
    deadline: float | None = None
    """Set when it was told to end: the moment when it is killed."""


class Sandboxes:
    """The pods of one node that are running."""

    def __init__(self, prefix: str, runtime: CniRuntime, folder: Path) -> None:
        self._prefix = prefix
        self._runtime = runtime
        self._folder = folder
        self.running: dict[str, RunningPod] = {}

    def start(self, pod: LabPod) -> RunningPod:
        """Give a pod its network and start its program; LabError, and nothing is left, when that fails."""
        sandbox = pod.sandbox(self._prefix)
        found = self._take_over(pod, sandbox)
        if found is None:
            self._clear(sandbox)
            netns.create([sandbox.netns])
            try:
                netns.set_sysctls(sandbox.netns, QUIET_IPV6)
                found = RunningPod(pod, sandbox, self._runtime.add(sandbox))
                self._start_program(found)
            except LabError:
                self._clear(sandbox)
                raise
        self.running[pod.uid] = found
        return found

    def tell_to_end(self, uid: str, grace: float) -> None:
        """Send its program SIGTERM, once; from when its grace is over, it is among `over`."""
        found = self.running[uid]
        end = time.monotonic() + grace
        if found.deadline is None:
            for pid in netns.pids(found.sandbox.netns):
                _signal(pid, signal.SIGTERM)
        found.deadline = end if found.deadline is None else min(found.deadline, end)

    def over(self) -> list[RunningPod]:
        """Those that were told to end and have, or whose time is over: drop them."""
        return [each for each in self.running.values() if each.deadline is not None and _is_over(each)]

    def drop(self, uid: str) -> None:
        """Kill a pod and remove every trace of it; LabError, and it stays here, when that fails."""
        self._clear(self.running[uid].sandbox)
        del self.running[uid]

    def vanished(self, present: Iterable[str]) -> list[str]:
        """Those that run although their objects are gone: somebody deleted them by force."""
        return sorted(set(self.running) - set(present))

    def _take_over(self, pod: LabPod, sandbox: Sandbox) -> RunningPod | None:
        addresses = self._runtime.addresses(sandbox)
        if not addresses or not netns.existing(sandbox.netns) or not netns.pids(sandbox.netns):
            return None
        return RunningPod(pod, sandbox, addresses)

    def _clear(self, sandbox: Sandbox) -> None:
        """The programs end first, so that no packet leaves a pod that is half unwired."""
        if netns.existing(sandbox.netns):
            netns.kill_all([sandbox.netns])
        self._runtime.delete(sandbox)
        netns.remove([sandbox.netns])

    def _start_program(self, found: RunningPod) -> None:
        """Start it, and return when it says that it serves."""
        pod = found.pod
        program = PROGRAMS[pod.image]
        argv = [sys.executable, "-I", "-S", str(program), *pod.command_line]
        log = self._folder / f"{pod.name}-{pod.uid[:4]}.log"
        process = Process(f"pod {pod.name}", found.sandbox.netns, argv, log)
        process.start()
        end = time.monotonic() + READY_TIMEOUT
        while READY_LINE not in process.tail():
            process.must_run()
            if time.monotonic() > end:
                raise LabError(f"pod {pod.name} serves nothing after {READY_TIMEOUT:g} s:\n{process.tail()}")
            time.sleep(0.01)


def _is_over(found: RunningPod) -> bool:
    late = found.deadline is not None and time.monotonic() >= found.deadline
    return late or not netns.pids(found.sandbox.netns)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
