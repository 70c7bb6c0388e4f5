"""The feeder: a BGP speaker that does as little as one can, so that it is never what is measured.

Owns: the table that is announced (each path with attributes of its own, one prefix an UPDATE, encoded
before the clock starts) and the session that carries it.  Independent of the product's code on purpose:
a bench that shared its codec would share its mistakes.  RFC 4271 section 4; RFC 4456 for the two
attributes of a reflected path, since that is what a node in a pod network hears.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.agent.topology import ASN

Shape = Literal["64", "distinct"]
"""How many next hops the table has: 64 in all, or one for each prefix."""

MARKER = b"\xff" * 16
OPEN, UPDATE, NOTIFICATION, KEEPALIVE = 1, 2, 3, 4
FIRST_PREFIX = 0x20000000  # 32.0.0.0, in steps of a /24
FIRST_NEXT_HOP = 0x0A010000  # 10.1.0.0, inside the link's 10.0.0.0/12
SHARED_NEXT_HOPS = 64
CLUSTER_ID = 0x0A000001
ESTABLISH_TIMEOUT = 60.0


def message(kind: int, body: bytes) -> bytes:
    """One BGP message with its header."""
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


END_OF_RIB = message(UPDATE, bytes(4))


@dataclass(frozen=True, slots=True)
class Table:
    """The announced table: prefix `i` is 32.0.0.0/24 plus `i` times a /24."""

    count: int
    shape: Shape

    def prefix(self, index: int) -> bytes:
        """The network address of a prefix, packed."""
        return (FIRST_PREFIX + (index << 8)).to_bytes(4, "big")

    def gateway(self, index: int, turn: int = 0) -> bytes:
        """Its next hop, packed; another `turn` gives another next hop that the table uses as well."""
        many = SHARED_NEXT_HOPS if self.shape == "64" else self.count
        return (FIRST_NEXT_HOP + 1 + (index + turn) % many).to_bytes(4, "big")

    def update(self, index: int, turn: int = 0) -> bytes:
        """The UPDATE that announces it: no two paths of a table have equal attributes."""
        attributes = (
            b"\x40\x01\x01\x00"  # ORIGIN igp
            b"\x40\x02\x00"  # AS_PATH, empty: iBGP
            + b"\x40\x03\x04" + self.gateway(index, turn)
            + b"\x80\x04\x04" + index.to_bytes(4, "big")  # MULTI_EXIT_DISC
            + b"\x40\x05\x04\x00\x00\x00\x64"  # LOCAL_PREF 100
            + b"\xc0\x08\x04" + struct.pack("!HH", ASN, (index + turn) & 0x7FFF)  # COMMUNITIES
            + b"\x80\x09\x04" + (FIRST_NEXT_HOP + 1 + index).to_bytes(4, "big")  # ORIGINATOR_ID
            + b"\x80\x0a\x04" + CLUSTER_ID.to_bytes(4, "big")
        )  # fmt: skip
        body = b"\x00\x00" + struct.pack("!H", len(attributes)) + attributes
        return message(UPDATE, body + b"\x18" + self.prefix(index)[:3])

    def withdrawal(self, index: int) -> bytes:
        """The UPDATE that withdraws it."""
        return message(UPDATE, b"\x00\x04\x18" + self.prefix(index)[:3] + b"\x00\x00")

    def encode(self) -> bytes:
        """The whole table and its End-of-RIB, as one buffer."""
        return b"".join([*(self.update(index) for index in range(self.count)), END_OF_RIB])


def open_message(router_id: bytes, hold_time: int) -> bytes:
    """OPEN with the capabilities that every speaker here has: IPv4 unicast, route refresh, 4-octet AS."""
    capabilities = b"\x01\x04\x00\x01\x00\x01" + b"\x02\x00" + b"\x41\x04" + struct.pack("!I", ASN)
    parameters = b"\x02" + bytes([len(capabilities)]) + capabilities
    head = struct.pack("!BHH4sB", 4, ASN, hold_time, router_id, len(parameters))
    return message(OPEN, head + parameters)


def listen(address: str) -> socket.socket:
    """A listener on the BGP port: every speaker here connects, as an agent does."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, 179))
    listener.listen(8)
    return listener


class Feeder:
    """One established session.  What the speaker sends is read and dropped by a thread, but a NOTIFICATION
    is kept and raised at the next use."""

    def __init__(self, listener: socket.socket, alive: Callable[[], None], hold_time: int = 0) -> None:
        """Wait for the speaker's connection; `alive` raises when there is none to wait for."""
        self._lock = threading.Lock()
        self._error = ""
        self._closing = threading.Event()
        self.sock, self._pending = _establish(listener, alive, hold_time)
        self.sock.settimeout(None)
        self._threads = [threading.Thread(target=self._drain, daemon=True)]
        if hold_time:
            self._threads.append(
                threading.Thread(target=self._keep_alive, args=(hold_time / 3,), daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def send(self, data: bytes) -> None:
        """Send whole messages; fails when the speaker has ended the session."""
        self.check()
        with self._lock:
            self.sock.sendall(data)

    def check(self) -> None:
        """Fail when the speaker has ended the session."""
        if self._error:
            raise ConnectionError(self._error)

    def _drain(self) -> None:
        try:
            while True:
                kind, body, self._pending = _receive(self.sock, self._pending)
                if kind == NOTIFICATION:
                    raise ConnectionError(f"NOTIFICATION {body[0]}/{body[1]} {body[2:]!r}")
        except OSError as caught:
            if not self._closing.is_set():
                self._error = f"the speaker ended the session: {caught}"

    def _keep_alive(self, interval: float) -> None:
        while not self._closing.wait(interval):
            with contextlib.suppress(OSError), self._lock:
                self.sock.sendall(message(KEEPALIVE, b""))

    def close(self) -> None:
        """Leave without a word, as a crashed peer would."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self.sock.close()


def _establish(
    listener: socket.socket, alive: Callable[[], None], hold_time: int
) -> tuple[socket.socket, bytes]:
    """Accept until a connection reaches Established; returns it and what was read beyond the handshake."""
    deadline = time.monotonic() + ESTABLISH_TIMEOUT
    error: OSError = TimeoutError("no connection")
    listener.settimeout(1.0)
    while time.monotonic() < deadline:
        alive()
        with contextlib.suppress(TimeoutError):
            sock, _ = listener.accept()
            try:
                return sock, _handshake(sock, hold_time)
            except OSError as caught:  # the next attempt may do better: say so only if none does
                error = caught
                sock.close()
    raise TimeoutError(f"no session was established: {error}")


def _handshake(sock: socket.socket, hold_time: int) -> bytes:
    sock.settimeout(10.0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    router_id = socket.inet_aton(sock.getsockname()[0])
    sock.sendall(open_message(router_id, hold_time))
    pending = b""
    for expected in (OPEN, KEEPALIVE):
        kind, body, pending = _receive(sock, pending)
        if kind != expected:
            raise ConnectionError(f"message of type {kind} instead of {expected}: {body.hex()}")
        if kind == OPEN:
            sock.sendall(message(KEEPALIVE, b""))
    return pending


def _receive(sock: socket.socket, pending: bytes) -> tuple[int, bytes, bytes]:
    """The next message as (type, body, what was read beyond it)."""
    while len(pending) < 19 or len(pending) < int.from_bytes(pending[16:18], "big"):
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("closed by the other side")
        pending += data
    length = int.from_bytes(pending[16:18], "big")
    return pending[18], pending[19:length], pending[length:]
