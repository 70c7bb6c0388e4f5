"""The network that every speaker is measured in: two namespaces, one veth, one core for each side.

Owns: namespaces and addresses, and the placing of processes on cores.  Must never touch the root
namespace's routes or addresses.  The link is 10.0.0.0/12, wide enough for a next hop of its own for
each of 100,000 prefixes, so that no speaker has to resolve a next hop recursively.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

FEEDER_ADDRESSES = ("10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5")
"""The first feeds; the others are the further peers of the idle measurement."""
DAEMON_ADDRESS = "10.0.0.2"
LINK_LENGTH = 12
ASN = 65000
CLONE_NEWNET = 0x40000000

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core serves which side; `daemon` is None when the speaker may use every core."""

    feeder: int
    daemon: int | None


def default_cores() -> Cores:
    """The last core feeds, the first serves the speaker; they are one and the same on a single core."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(feeder=usable[-1], daemon=usable[0])


@dataclass(frozen=True, slots=True)
class Topology:
    """The two namespaces and the device on the speaker's side."""

    feeder: str
    daemon: str
    device: str
    cores: Cores

    def command(self, argv: list[str]) -> list[str]:
        """The command line that runs `argv` on the speaker's side, on the speaker's core."""
        pin = [] if self.cores.daemon is None else ["taskset", "-c", str(self.cores.daemon)]
        return [*pin, "ip", "netns", "exec", self.daemon, *argv]

    def renew(self) -> None:
        """Give the next speaker the link and the main table as if they were new."""
        run("ip", "-n", self.daemon, "link", "set", self.device, "down")
        run("ip", "-n", self.daemon, "route", "flush", "table", "main")
        run("ip", "-n", self.daemon, "neigh", "flush", "dev", self.device)
        run("ip", "-n", self.daemon, "link", "set", self.device, "up")


def run(*argv: str) -> str:
    """Run a command and return what it printed; its error text is in the exception."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@contextmanager
def topology(cores: Cores) -> Iterator[Topology]:
    """Build the namespaces, and remove them whatever happens."""
    mark = f"bch-agent-{os.getpid()}"
    net = Topology(f"{mark}-f", f"{mark}-d", "daemon0", cores)
    try:
        for name in (net.feeder, net.daemon):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", "feeder0", "netns", net.feeder, "type", "veth",
            "peer", "name", net.device, "netns", net.daemon)  # fmt: skip
        for address in FEEDER_ADDRESSES:
            run("ip", "-n", net.feeder, "addr", "add", f"{address}/{LINK_LENGTH}", "dev", "feeder0")
        run("ip", "-n", net.daemon, "addr", "add", f"{DAEMON_ADDRESS}/{LINK_LENGTH}", "dev", net.device)
        run("ip", "-n", net.feeder, "link", "set", "feeder0", "up")
        run("ip", "-n", net.daemon, "link", "set", net.device, "up")
        # Forwarding is on, as on every node and router; no speaker here changes it by itself.
        run("ip", "netns", "exec", net.daemon, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield net
    finally:
        for name in (net.feeder, net.daemon):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def within(namespace: str, make: Callable[[], T]) -> T:
    """Call `make` inside a namespace (of this thread alone); sockets made there stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(Path("/run/netns") / namespace, os.O_RDONLY)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            return make()
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns failed")
