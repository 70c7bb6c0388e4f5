"""Bulk install into the kernel, against `ip -batch` on the same machine in the same run.

    sudo .venv/bin/python -m bench.install [--runs 5] [--routes 20000]

Everything happens in a network namespace that is made for it and removed again.  `podbgp` is one
`Kernel.apply` of a delta that is ready; `ip -batch` reads a file that is ready.  What each took is wall
time; `python` is the CPU time of `apply` outside of `send`, which is where the kernel works.  Garbage is
collected as in the agent.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bgpd.gc_policy import GcPolicy
from bgpd.kernel.netlink import Kernel
from bgpd.lab import netns
from routes.fib import Delta, FibEntry, Hop
from routes.prefix import Address, Prefix, format_address

METRIC, PROTOCOL = 20, 179
CLONE_NEWNET = 0x40000000
SINGLE = 1_000
"""Applies of one route each, with the table full."""

Items = list[tuple[Prefix, FibEntry]]


@contextmanager
def own_namespace() -> Iterator[None]:
    """A namespace with one link, entered by this thread."""
    name = f"krn-bench-{os.getpid()}"
    root = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        netns.create([name])
        _enter(netns.NETNS_FOLDER / name)
        netns.batch(
            name,
            [
                "link add d0 type veth peer name d0p",
                "link set d0 up",
                "link set d0p up",
                "address add 10.0.0.1/8 dev d0",
                "address add fd00::1/64 dev d0 nodad",
            ],
        )
        yield
    finally:
        _enter(Path(f"/proc/self/fd/{root}"))
        os.close(root)
        netns.remove([name])


def _enter(namespace: Path) -> None:
    with namespace.open("rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"can't enter {namespace}")


def make_routes(size: int, count: int, gateways: int) -> Items:
    """Prefixes, each by the next of the gateways."""
    ifindex = socket.if_nametoindex("d0")
    if size == 4:
        nexthop = [Address((0x0A00_0100 + at).to_bytes(4, "big")) for at in range(gateways)]
        prefixes = [Prefix(Address((0x1400_0000 + (at << 8)).to_bytes(4, "big")), 24) for at in range(count)]
    else:
        net = 0xFD00 << 112
        nexthop = [Address((net + 0x100 + at).to_bytes(16, "big")) for at in range(gateways)]
        prefixes = [
            Prefix(Address(((0xFD01 << 112) + (at << 64)).to_bytes(16, "big")), 64) for at in range(count)
        ]
    shapes = [FibEntry.of([Hop(gateway, ifindex)]) for gateway in nexthop]
    return [(prefix, shapes[at % gateways]) for at, prefix in enumerate(prefixes)]


class Timing(NamedTuple):
    """Seconds of one install: by the clock, and of our own CPU time."""

    wall: float
    python: float = 0.0


class TimedSocket:
    """Stands before the kernel's socket and adds up what `send` takes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.spent = 0.0

    def send(self, data: bytes) -> int:
        start = time.thread_time()
        sent = self._sock.send(data)
        self.spent += time.thread_time() - start
        return sent

    def recv(self, size: int) -> bytes:
        return self._sock.recv(size)


def time_sends(kernel: Kernel) -> TimedSocket:
    commands = kernel._socket  # noqa: SLF001  # measured from outside: the product has no probe for it
    timed = TimedSocket(commands._socket)  # noqa: SLF001  # as above
    commands._socket = timed  # type: ignore[assignment]  # noqa: SLF001  # as above
    return timed


def install_by_us(items: Items) -> Timing:
    with Kernel(254, PROTOCOL, (METRIC,)) as kernel:
        kernel.snapshot()
        timed = time_sends(kernel)
        start, cpu = time.perf_counter(), time.thread_time()
        applied = kernel.apply(Delta(METRIC, items, [], []))
        wall, cpu = time.perf_counter() - start, time.thread_time() - cpu
        if applied.failed:
            raise SystemExit(
                f"the kernel refused {len(applied.failed)}: {next(iter(applied.failed.items()))}"
            )
        return Timing(wall, cpu - timed.spent)


def install_by_ip(items: Items) -> Timing:
    with tempfile.NamedTemporaryFile("w", suffix=".batch") as file:
        for (address, length), entry in items:
            gateway = entry.hops[0].gateway
            assert gateway is not None
            file.write(
                f"route add {format_address(address)}/{length} via {format_address(gateway)} dev d0"
                f" proto {PROTOCOL} metric {METRIC}\n"
            )
        file.flush()
        start = time.perf_counter()
        subprocess.run([netns.ip_tool(), "-batch", file.name], check=True)
        return Timing(time.perf_counter() - start)


def clear() -> None:
    with Kernel(254, PROTOCOL, (METRIC,)) as kernel:
        if kernel.flush().left:
            raise SystemExit("entries are left")


def measure(install: Callable[[Items], Timing], items: Items, runs: int) -> list[Timing]:
    timings = []
    for _ in range(runs):
        gc.collect()
        gc.freeze()  # as the agent does with what has settled
        timings.append(install(items))
        clear()
    return timings


def show(label: str, count: int, timings: list[Timing]) -> None:
    wall = statistics.median(timing.wall for timing in timings)
    python = statistics.median(timing.python for timing in timings)
    inside = f"{python / count * 1e6:6.2f}" if python else "     -"
    print(f"{label:34} {count:7} {wall:8.3f} s {count / wall:9,.0f}/s {inside} us python/route")


def measure_reading(items: Items, runs: int) -> None:
    """A snapshot, a restart's adoption, and applies of one route, with all these in the kernel."""
    install_by_us(items)
    dumps = []
    with Kernel(254, PROTOCOL, (METRIC,)) as kernel:
        for _ in range(runs):
            start = time.perf_counter()
            found = kernel.snapshot().entries[METRIC]
            dumps.append(time.perf_counter() - start)
        assert found == dict(items)
        singles = []
        nlri, entry = items[0]
        for at in range(SINGLE):
            other = items[(at + 1) % len(items)][1] if at % 2 == 0 else entry
            start = time.perf_counter()
            kernel.apply(Delta(METRIC, [], [(nlri, other)], []))
            singles.append(time.perf_counter() - start)
    singles.sort()
    print(f"{'snapshot':34} {len(items):7} {statistics.median(dumps):8.3f} s")
    print(
        f"{'one replace':34} {SINGLE:7} p50 {singles[SINGLE // 2] * 1e6:.0f} us,"
        f" p99 {singles[SINGLE * 99 // 100] * 1e6:.0f} us"
    )
    clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--routes", type=int, default=20_000)
    options = parser.parse_args()
    runs, count = options.runs, options.routes
    GcPolicy()
    with own_namespace():
        for size, family in ((4, "IPv4"), (16, "IPv6")):
            items = make_routes(size, count, 64)
            show(f"{family}, 64 gateways, podbgp", count, measure(install_by_us, items, runs))
            show(f"{family}, 64 gateways, ip -batch", count, measure(install_by_ip, items, runs))
            items = make_routes(size, count, count)
            show(f"{family}, distinct gateways, podbgp", count, measure(install_by_us, items, runs))
            if size == 16:  # inline IPv4 takes the kernel about 8 s at 20,000, whoever asks
                show(f"{family}, distinct gateways, ip -batch", count, measure(install_by_ip, items, runs))
        items = make_routes(4, 5 * count, 64)
        show("IPv4, 64 gateways, podbgp", 5 * count, measure(install_by_us, items, runs))
        measure_reading(items, runs)
        measure_reading(make_routes(4, count, count), runs)
        measure_reading(make_routes(16, count, count), runs)


if __name__ == "__main__":
    main()
