"""BGP speakers that only watch the clock: when which IPv4 prefix was announced or withdrawn.

Owns the sessions; it shares no code with podbgp (`bench/agent/feeder.py` says why).  RFC 4271 section 4.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Self

from bench.agent.feeder import (
    END_OF_RIB,
    KEEPALIVE,
    NOTIFICATION,
    OPEN,
    UPDATE,
    listen,
    message,
    open_message,
)

PATIENCE = 30.0
HOLD_TIME = 90


class Heard(NamedTuple):
    """One prefix in an UPDATE."""

    when: float
    """perf_counter of the read that completed the message."""
    prefix: str
    announced: bool


class Speaker:
    """One session over IPv4 unicast; a context manager that leaves without a word."""

    def __init__(self, sock: socket.socket, router_id: str) -> None:
        self.heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self.error = ""
        self._sock = sock
        self._closing = threading.Event()
        self._rest = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(PATIENCE)
        sock.sendall(open_message(socket.inet_aton(router_id), HOLD_TIME))
        for wanted in (OPEN, KEEPALIVE):
            kind, body = self._message()
            if kind != wanted:
                raise ConnectionError(f"message {kind} {body[:30].hex()} instead of {wanted}")
            if kind == OPEN:
                sock.sendall(message(KEEPALIVE, b""))
        sock.settimeout(None)
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._keep_alive)
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def connect(cls, source: str, address: str) -> Self:
        """From one of this namespace's addresses; tried again while nobody listens there yet."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return cls._over(socket.create_connection((address, 179), PATIENCE, (source, 0)), source)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    @classmethod
    def accept(cls, address: str) -> Self:
        """The first connection that comes; later ones are refused."""
        with listen(address) as listener:
            listener.settimeout(PATIENCE)
            return cls._over(listener.accept()[0], address)

    @classmethod
    def _over(cls, sock: socket.socket, router_id: str) -> Self:
        try:
            return cls(sock, router_id)
        except OSError:
            sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._sock.close()

    def announce(self, paths: Iterable[tuple[str, str]]) -> None:
        """Prefixes with their next hops, each in an UPDATE of its own, and End-of-RIB."""
        self._sock.sendall(b"".join(update(prefix, via) for prefix, via in paths) + END_OF_RIB)

    def wait_for(self, prefix: str, *, announced: bool) -> float:
        """When that was heard; what else was heard before is forgotten."""
        return self.wait_for_all({prefix}, announced=announced)

    def wait_for_all(self, prefixes: AbstractSet[str], *, announced: bool) -> float:
        """When the last of these was heard, in any order."""
        end = time.monotonic() + PATIENCE
        missing = set(prefixes)
        when = 0.0
        while missing:
            try:
                found = self.heard.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                why = self.error or "the session is up"
                some = ", ".join(sorted(missing)[:3])
                raise RuntimeError(f"{len(missing)} prefixes not heard in time ({some}); {why}") from None
            if found.announced is announced:
                missing.discard(found.prefix)
                when = found.when
        return when

    def _message(self) -> tuple[int, bytes]:
        while True:
            if len(self._rest) >= 19:
                length, kind = struct.unpack_from("!HB", self._rest, 16)
                if len(self._rest) >= length:
                    body, self._rest = self._rest[19:length], self._rest[length:]
                    return kind, body
            data = self._sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the daemon closed the connection")
            self._rest += data

    def _read(self) -> None:
        try:
            while True:
                kind, body = self._message()
                now = time.perf_counter()
                if kind == NOTIFICATION:
                    raise ConnectionError(f"NOTIFICATION {body[:30].hex()}")
                if kind == UPDATE:
                    for prefix, announced in changes(body):
                        self.heard.put(Heard(now, prefix, announced))
        except OSError as caught:
            self.error = str(caught)

    def _keep_alive(self) -> None:
        while not self._closing.wait(HOLD_TIME / 3):
            with contextlib.suppress(OSError):
                self._sock.sendall(message(KEEPALIVE, b""))


def update(prefix: str, via: str) -> bytes:
    """An iBGP UPDATE that announces one prefix."""
    attributes = (
        b"\x40\x01\x01\x00\x40\x02\x00"
        + b"\x40\x03\x04"
        + socket.inet_aton(via)
        + b"\x40\x05\x04\x00\x00\x00\x64"
    )
    address, _, length = prefix.partition("/")
    nlri = bytes([int(length)]) + socket.inet_aton(address)[: (int(length) + 7) // 8]
    return message(UPDATE, b"\x00\x00" + struct.pack("!H", len(attributes)) + attributes + nlri)


def changes(body: bytes) -> Iterator[tuple[str, bool]]:
    """What an UPDATE withdraws and announces."""
    withdrawn = int.from_bytes(body[:2], "big")
    attributes = int.from_bytes(body[2 + withdrawn : 4 + withdrawn], "big")
    for part, announced in ((body[2 : 2 + withdrawn], False), (body[4 + withdrawn + attributes :], True)):
        at = 0
        while at < len(part):
            size = (part[at] + 7) // 8
            packed = part[at + 1 : at + 1 + size] + bytes(4 - size)
            yield f"{socket.inet_ntoa(packed)}/{part[at]}", announced
            at += 1 + size
