"""Traffic between two pods, as an application makes it: a process in each pod, told what to do line by line.

Owns sockets in one pod.  `call` makes traffic, `serve` takes it and counts, so a figure is what arrived and
not what was sent.  Data is copied to and from the kernel as usual; buffers are large, so that Python costs
little beside the kernel's work.  A process reads commands (JSON) from standard input, writes one line of
numbers for each, and ends when standard input does: none can outlive the lab.

Imports nothing but the standard library and `icmp.py`: it must start quickly.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from threading import Thread

from bgpd.lab.icmp import ECHO_REPLY, echo_request, parse_echo

PORT = 5201
BUFFER = 256 << 10
SMALL = bytes(64)
PATIENCE = 5.0
"""Seconds that any single wait may take."""
QUIET = 0.1
"""Seconds without a datagram that end a count."""
MOST_PROBES = 200_000

Figures = dict[str, float]


class Caller:
    """Makes traffic toward one address."""

    def __init__(self, address: str) -> None:
        self.target = (address, PORT)

    def rtt(self, seconds: float, streams: int) -> Figures:
        """Ping, one after the other: microseconds."""
        del streams
        identifier = os.getpid() & 0xFFFF
        spent: list[float] = []
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.settimeout(PATIENCE)
            raw.connect(self.target)
            end = time.perf_counter() + seconds
            while time.perf_counter() < end and len(spent) < MOST_PROBES:
                sequence = len(spent) & 0xFFFF
                request = echo_request(4, identifier, sequence)
                started = time.perf_counter()
                raw.send(request)
                while parse_echo(4, raw.recv(256)) != (ECHO_REPLY[4], identifier, sequence):
                    if time.perf_counter() - started > PATIENCE:
                        raise TimeoutError("a ping was not answered")
                spent.append((time.perf_counter() - started) * 1e6)
        spent.sort()
        return {
            "median": spent[len(spent) // 2],
            "p99": spent[len(spent) * 99 // 100],
            "probes": len(spent),
        }

    def tcp(self, seconds: float, streams: int) -> Figures:
        """Send as much as goes, over so many connections."""
        end = time.monotonic() + seconds
        _all_of([lambda: self._stream(end)] * streams)
        return {}

    def _stream(self, end: float) -> None:
        data = bytes(BUFFER)
        with socket.create_connection(self.target, timeout=PATIENCE) as connection:
            while time.monotonic() < end:
                connection.send(data)

    def udp(self, seconds: float, streams: int) -> Figures:
        """Send as many small datagrams as go."""
        del streams
        sent, end = 0, time.monotonic() + seconds
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(PATIENCE)
            sender.connect(self.target)
            send = sender.send
            while time.monotonic() < end:
                for _ in range(64):
                    send(SMALL)
                sent += 64
        return {"packets": sent}


class Server:
    """Takes traffic at one address and counts it."""

    def __init__(self, address: str) -> None:
        self._listener = socket.create_server((address, PORT), backlog=64)
        self._listener.settimeout(PATIENCE)
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind((address, PORT))
        self._datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

    def tcp(self, seconds: float, streams: int) -> Figures:
        """Read so many connections to their ends: bytes, and seconds from the first connection on."""
        del seconds
        connections = [self._listener.accept()[0] for _ in range(streams)]
        started = time.monotonic()
        totals = [0] * streams

        def read(number: int, connection: socket.socket) -> None:
            buffer = bytearray(BUFFER)
            with connection:
                connection.settimeout(PATIENCE)
                while count := connection.recv_into(buffer):
                    totals[number] += count

        def reader(number: int, connection: socket.socket) -> Callable[[], None]:
            return lambda: read(number, connection)

        _all_of([reader(number, connection) for number, connection in enumerate(connections)])
        return {"bytes": sum(totals), "seconds": time.monotonic() - started}

    def udp(self, seconds: float, streams: int) -> Figures:
        """Count datagrams from the first until a pause: packets, and seconds."""
        del streams
        receive, buffer = self._datagrams.recv_into, bytearray(2048)
        self._datagrams.settimeout(PATIENCE)
        receive(buffer)
        count, first = 1, time.monotonic()
        last, end = first, first + 2 * seconds + QUIET
        self._datagrams.settimeout(QUIET)
        while last < end:
            try:
                receive(buffer)
            except TimeoutError:
                break
            count += 1
            last = time.monotonic()
        return {"packets": count, "seconds": last - first}


def _all_of(calls: list[Callable[[], None]]) -> None:
    """Run them at once; the first error is raised when all have ended."""
    errors: list[OSError] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except OSError as error:
            errors.append(error)

    threads = [Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _settle(role: str) -> None:
    """Stay on one processor, the ends on different ones: where they meet would decide the figures."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[0] if role == "call" else allowed[-1]})


def main(role: str, address: str) -> None:
    """Do what standard input says, line by line."""
    _settle(role)
    end = Server(address) if role == "serve" else Caller(address)
    print(json.dumps({"ready": 1}), flush=True)  # noqa: T201  the answer, on a pipe
    for line in sys.stdin:
        command = json.loads(line)
        try:
            figures = getattr(end, command["do"])(command["seconds"], command["streams"])
        except OSError as error:
            figures = {"error": f"{command['do']}: {error}"}
        print(json.dumps(figures), flush=True)  # noqa: T201  the answer, on a pipe


if __name__ == "__main__":
    main(*sys.argv[1:])
