"""What the kernel says: how many routes there are, which, and when one changed.

Owns: three ways to look, each without a library, so that all speakers are judged by the same code and
none of it is theirs.  Counting reads /proc/net/fib_triestat, which walks the trie under RCU and takes no
lock that a writer needs; a netlink monitor would cost the speaker a copy of each notification.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from bench.agent.feeder import Table
from bench.agent.topology import Topology, within

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEXTHOP, RTM_DELNEXTHOP, RTM_GETNEXTHOP = 104, 105, 106
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTMGRP_IPV4_ROUTE = 0x40
RTA_DST, RTA_GATEWAY, RTA_NH_ID = 1, 5, 30
NHA_ID, NHA_GATEWAY = 1, 6
SO_RCVBUFFORCE = 33
TABLE_MAIN = 254
_PREFIXES = re.compile(rb"^Main:.*?Prefixes:\s+(\d+)", re.MULTILINE | re.DOTALL)


class RouteCounter:
    """The number of prefixes in the speaker's main table."""

    def __init__(self, net: Topology) -> None:
        self._fd = within(net.daemon, lambda: os.open("/proc/thread-self/net/fib_triestat", os.O_RDONLY))
        self.base = 0

    def rebase(self) -> None:
        """Count from here: what the speaker has by itself is no part of the table."""
        self.base = self.read()

    def read(self) -> int:
        """The count now.  The cost is a few tens of nanoseconds for each prefix."""
        match = _PREFIXES.search(os.pread(self._fd, 4096, 0))
        return int(match[1]) if match else 0

    def wait_for(self, count: int, timeout: float) -> tuple[float, float]:
        """Wait until `count` prefixes came in; returns the moment, and by how much it may be late.

        A look costs the feeder's core time in proportion to the table, so there are few while the end is
        far away, and between the last ones the pause is as long as a look (at least half a millisecond).
        No pause is longer than a fiftieth of the time waited, since the rate may change on the way.
        """
        start = previous = time.perf_counter()
        while True:
            before = time.perf_counter()
            seen = self.read() - self.base
            after = time.perf_counter()
            if seen >= count:
                return after, after - previous
            if after > start + timeout:
                raise TimeoutError(f"{seen} of {count} prefixes after {timeout:.0f} s")
            previous = before
            remaining = (count - seen) * (after - start) / seen if seen else 0.0
            time.sleep(max(0.0005, after - before, min(remaining / 4, (after - start) / 50)))

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """One notification about an IPv4 route in the main table."""

    gone: bool
    prefix: bytes
    gateway: bytes
    """Empty when the notification names none (a next-hop object without compatible notifications)."""


class Monitor:
    """Route notifications of the speaker's namespace."""

    def __init__(self, net: Topology) -> None:
        self.sock = within(net.daemon, _netlink)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.sock.bind((0, RTMGRP_IPV4_ROUTE))

    def next_events(self, timeout: float) -> list[RouteEvent]:
        """Wait for the next notifications; TimeoutError when there are none."""
        self.sock.settimeout(timeout)
        return [
            RouteEvent(kind == RTM_DELROUTE, route.prefix, route.gateway)
            for kind, body in _messages(self.sock.recv(65536))
            if kind in (RTM_NEWROUTE, RTM_DELROUTE) and (route := _route(body)) is not None
        ]

    def drain(self) -> None:
        """Forget what is waiting."""
        self.sock.setblocking(False)
        try:
            while True:
                self.sock.recv(65536)
        except BlockingIOError:
            pass

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def verify(net: Topology, table: Table) -> None:
    """Check that the kernel has every prefix of the table, once, through the right gateway."""
    expected = {table.prefix(index): table.gateway(index) for index in range(table.count)}
    sock = within(net.daemon, _netlink)
    with sock:
        gateways = dict(_next_hops(sock))
        wrong: list[str] = []
        for route in _routes(sock):
            want = expected.pop(route.prefix, None) if route.length == 24 else None
            got = route.gateway or gateways.get(route.next_hop_id, b"")
            if route.prefix[0] in range(0x20, 0x24) and got != want:
                wrong.append(f"{socket.inet_ntoa(route.prefix)}/{route.length} via {got.hex(':')}")
    if expected or wrong:
        raise AssertionError(f"{len(expected)} prefixes are missing, {len(wrong)} are wrong: {wrong[:3]}")


def flush(net: Topology) -> None:
    """Remove what a speaker left: routes, then next-hop objects.

    In this order and one by one, because both a link that goes down with its objects and the removal of
    an object that a route uses walk the whole table for each object: 105 s for 100,000.
    """
    sock = within(net.daemon, _netlink)
    with sock:
        header = struct.pack("=BBBBBBBBI", socket.AF_INET, 24, 0, 0, TABLE_MAIN, 0, 255, 0, 0)
        routes = [route.prefix for route in _routes(sock) if route.length == 24]
        _send_all(sock, RTM_DELROUTE, [header + struct.pack("=HH4s", 8, RTA_DST, each) for each in routes])
        objects = [number for number, _ in _next_hops(sock)]
        _send_all(sock, RTM_DELNEXTHOP, [bytes(8) + struct.pack("=HHI", 8, NHA_ID, each) for each in objects])
        left = sum(route.length == 24 for route in _routes(sock)) + sum(1 for _ in _next_hops(sock))
    if left:
        raise RuntimeError(f"{left} routes and next-hop objects could not be removed")


def _send_all(sock: socket.socket, kind: int, bodies: list[bytes]) -> None:
    """Send one command for each body; each batch ends with an acknowledgement, failures are seen later."""
    for start in range(0, len(bodies), 500):
        batch = bodies[start : start + 500]
        last = len(batch) - 1
        sock.send(
            b"".join(
                struct.pack("=IHHII", 16 + len(body), kind, 0x5 if at == last else 0x1, at + 1, 0) + body
                for at, body in enumerate(batch)
            )
        )
        while not any(seq == last + 1 for seq in _sequence_numbers(sock.recv(65536))):
            pass


def _sequence_numbers(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        yield struct.unpack_from("=I", data, at + 8)[0]
        at += (struct.unpack_from("=I", data, at)[0] + 3) & ~3


@dataclass(frozen=True, slots=True)
class _Route:
    length: int
    prefix: bytes
    gateway: bytes
    next_hop_id: int


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        yield kind, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while at < len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        found[kind & 0x3FFF] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _route(body: bytes) -> _Route | None:
    """An IPv4 unicast route of the main table, or None."""
    if body[0] != socket.AF_INET or body[4] != TABLE_MAIN:
        return None
    found = _attributes(body, 12)
    number = int.from_bytes(found.get(RTA_NH_ID, b""), "little")
    return _Route(body[1], found.get(RTA_DST, bytes(4)), found.get(RTA_GATEWAY, b""), number)


def _dump(sock: socket.socket, kind: int, header: bytes) -> Iterator[tuple[int, bytes]]:
    # NLM_F_REQUEST | NLM_F_DUMP
    sock.send(struct.pack("=IHHII", 16 + len(header), kind, 0x301, 1, 0) + header)
    while True:
        for answer, body in _messages(sock.recv(1 << 20)):
            if answer == NLMSG_DONE:
                return
            if answer == NLMSG_ERROR:
                raise OSError(-struct.unpack_from("=i", body)[0], "netlink dump")
            yield answer, body


def _routes(sock: socket.socket) -> Iterator[_Route]:
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0)
    for kind, body in _dump(sock, RTM_GETROUTE, header):
        if kind == RTM_NEWROUTE and (route := _route(body)) is not None:
            yield route


def _next_hops(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    for kind, body in _dump(sock, RTM_GETNEXTHOP, bytes(8)):
        if kind == RTM_NEWNEXTHOP:
            found = _attributes(body, 8)
            yield int.from_bytes(found.get(NHA_ID, b""), "little"), found.get(NHA_GATEWAY, b"")
