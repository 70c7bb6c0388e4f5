"""A way into the lab's API server from outside of its namespaces.

The API server listens in a namespace of its own, which the rest of the machine has no route to.  The lab and
the tests, and `kubectl` beside them, talk to a listener on the loopback address, on a port that the kernel
picks; each connection is carried on into the namespace as it is, TLS included.  Owns nothing else: it must
never look into what it carries, and it ends with the process that opened it.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from bgpd.lab import netns

CHUNK = 1 << 16
CONNECT_TIMEOUT = 5.0
MOST_CONNECTIONS = 128
"""At once; more are closed at once, as a full listener would."""


class Door:
    """A listener on the loopback address that leads to `host`:`port` in a namespace."""

    def __init__(self, namespace: str, host: str, port: int) -> None:
        self.namespace = namespace
        self._far = (host, port)
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    @property
    def address(self) -> tuple[str, int]:
        if self._listener is None:
            return "127.0.0.1", 0
        host, port = self._listener.getsockname()
        return str(host), int(port)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(self._listener,), name="door", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept()
            listener.close()
        with self._lock:
            for each in self._open:
                _shut(each, socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # the door is closed
            if len(self._open) >= 2 * MOST_CONNECTIONS:
                near.close()
                continue
            threading.Thread(target=self._carry, args=(near,), name="door-connection", daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        """One connection, both ways, until both are over."""
        with near:
            try:
                far = netns.open_socket(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
            except OSError:
                return  # the namespace is gone
            with far:
                far.settimeout(CONNECT_TIMEOUT)
                try:
                    far.connect(self._far)
                except OSError:
                    return  # the caller sees a closed connection, as without a server
                far.settimeout(None)
                for each in (near, far):  # requests are small: without this each waits 40 ms for an ACK
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open |= {near, far}
                back = threading.Thread(target=_pump, args=(far, near), name="door-answers", daemon=True)
                back.start()
                _pump(near, far)
                back.join()
                with self._lock:
                    self._open -= {near, far}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Carry on what comes, and then its end."""
    try:
        while data := source.recv(CHUNK):
            sink.sendall(data)
    except OSError:
        # One side was reset: the other must learn of it, and the opposite direction ends too.
        _shut(source, socket.SHUT_RDWR)
        _shut(sink, socket.SHUT_RDWR)
        return
    _shut(sink, socket.SHUT_WR)


def _shut(each: socket.socket, how: int) -> None:
    with suppress(OSError):
        each.shutdown(how)
