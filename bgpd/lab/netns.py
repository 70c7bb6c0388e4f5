"""Network namespaces: make, fill, enter and remove them.

Owns every touch of namespaces.  The root namespace gets nothing but the names under /run/netns: devices
are created inside namespaces and their ends go to other namespaces.  Sockets of a namespace are opened by
a short-lived thread that enters it (setns changes only the calling thread), and are then used from
anywhere.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import TypeVar

from bgpd.lab.command import TIMEOUT, LabError, find_tool, run

NETNS_FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")


def ip_tool() -> str:
    """The full path of iproute2's `ip`."""
    return find_tool("ip", "iproute2")


def in_namespace(namespace: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` inside a namespace; it execs, so the process is `argv` itself."""
    return [ip_tool(), "netns", "exec", namespace, *argv]


def run_in(namespace: str, argv: Sequence[str], *, text: str = "", timeout: float = TIMEOUT) -> str:
    """Run a tool in a namespace and return what it prints."""
    return run(in_namespace(namespace, argv), text=text, timeout=timeout)


def create(names: Iterable[str]) -> None:
    """Make namespaces, with their loopback up."""
    wanted = list(names)
    run([ip_tool(), "-batch", "-"], text="".join(f"netns add {name}\n" for name in wanted))
    for name in wanted:
        batch(name, ["link set lo up"])


def batch(namespace: str, lines: Iterable[str]) -> None:
    """Run `ip` commands inside a namespace, all in one process; the first that fails ends it."""
    run([ip_tool(), "-n", namespace, "-batch", "-"], text="".join(f"{line}\n" for line in lines))


def add_address(device: str, address: str, flags: str = "") -> str:
    """The `ip` command that gives a device an address that is usable at once."""
    nodad = "nodad" if ":" in address else ""  # else it is tentative for a moment, and no route may use it
    return f"address add {address} dev {device} {nodad} {flags}"


def set_sysctls(namespace: str, values: Mapping[str, str]) -> None:
    """Write kernel parameters of a namespace."""
    sysctl = find_tool("sysctl", "procps")
    run_in(namespace, [sysctl, "-q", "-w", *(f"{key}={value}" for key, value in values.items())])


def existing(prefix: str) -> list[str]:
    """The namespaces whose name begins with `prefix`."""
    if not NETNS_FOLDER.is_dir():
        return []
    return sorted(entry.name for entry in NETNS_FOLDER.iterdir() if entry.name.startswith(prefix))


def pids(namespace: str) -> list[int]:
    """The processes that run inside a namespace."""
    return [int(line) for line in run([ip_tool(), "netns", "pids", namespace]).split()]


def kill_all(names: Sequence[str], *, timeout: float = 60.0) -> None:
    """Kill every process that runs inside these namespaces, and wait until none is left.

    One that is inside the kernel dies only when its call returns, and all routing calls of a machine queue
    for one lock: on a busy one that can take a while.
    """
    end = time.monotonic() + timeout
    while alive := [pid for name in names for pid in pids(name)]:
        if time.monotonic() > end:
            raise LabError(f"processes {alive} in {', '.join(names)} can't be killed")
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def remove(names: Sequence[str]) -> None:
    """Kill what runs in these namespaces and delete them with everything in them."""
    present = [name for name in names if (NETNS_FOLDER / name).exists()]
    if not present:
        return
    kill_all(present)
    run([ip_tool(), "-batch", "-"], text="".join(f"netns del {name}\n" for name in present))


def call_in(namespace: str, function: Callable[[], Result]) -> Result:
    """Call `function` in a thread that has entered the namespace."""
    results: list[Result] = []
    errors: list[OSError] = []

    def enter_and_call() -> None:
        try:
            _enter(namespace)
            results.append(function())
        except OSError as error:
            errors.append(error)

    thread = Thread(target=enter_and_call, name=f"in-{namespace}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def open_socket(namespace: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that lives in the namespace."""
    return call_in(namespace, lambda: socket.socket(family, kind, protocol))


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came only with Python 3.12
    with (NETNS_FOLDER / namespace).open("rb") as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"namespace {namespace}: {os.strerror(number)}")
