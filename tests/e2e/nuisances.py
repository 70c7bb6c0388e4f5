"""Clients that mean no good, in one thread: one never reads, one reads a byte a second, many say nothing at
all, and one is established and reset again ten times a second.

Their sockets are made in the clients' namespace; each has an address of its own.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

from bench.agent.topology import DAEMON_ADDRESS, within
from bgpd.bgp import codec
from bgpd.bgp.message import Open
from routes.peer import Capabilities
from routes.prefix import Family

ASN = 65000
NEVER, TRICKLE, RESETTING = "10.1.240.1", "10.1.240.2", "10.1.240.3"
HALF_OPEN = 500
RESETS_PER_SECOND = 10
ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset."""
ANSWER_WITHIN = 0.5


class Nuisances:
    """From `__enter__` to `__exit__`."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._sockets: list[socket.socket] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._annoy)
        self.established: list[float] = []
        """When the client that resets its sessions had one."""
        self.refused = 0

    def __enter__(self) -> Self:
        self._speak(self._connect(NEVER, 2304))
        self._trickle = self._connect(TRICKLE, 2304)
        self._speak(self._trickle)
        for number in range(HALF_OPEN):
            self._connect(f"10.1.{244 + number // 200}.{1 + number % 200}")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        for sock in self._sockets:
            sock.close()

    def _connect(self, address: str, receive_buffer: int = 0) -> socket.socket:
        sock = within(self._namespace, socket.socket)
        self._sockets.append(sock)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: the namespace takes the whole range as local
        sock.settimeout(ANSWER_WITHIN)
        sock.bind((address, 0))
        sock.connect((DAEMON_ADDRESS, 179))
        return sock

    @staticmethod
    def _speak(sock: socket.socket) -> None:
        """Establish the session without reading a byte of what it is told."""
        bgp_id = int.from_bytes(socket.inet_aton(sock.getsockname()[0]), "big")
        capabilities = Capabilities(frozenset({Family.IPV4}), ASN)
        sock.send(codec.encode_open(Open(ASN, 90, bgp_id, capabilities)))
        sock.recv(1, socket.MSG_PEEK)  # their OPEN is there, so that a KEEPALIVE may come
        sock.send(codec.encode_keepalive())

    def _annoy(self) -> None:
        next_byte = time.monotonic()
        while not self._done.wait(1 / RESETS_PER_SECOND):
            self._reset_one()
            if time.monotonic() >= next_byte:
                next_byte += 1
                self._trickle.recv(1)

    def _reset_one(self) -> None:
        sock = self._connect(RESETTING)
        self._sockets.remove(sock)
        with contextlib.closing(sock):
            try:
                self._speak(sock)
                answer = sock.recv(4096)
            except (ConnectionError, TimeoutError):
                answer = b""
            if answer:
                self.established.append(time.monotonic())
            else:
                self.refused += 1
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
