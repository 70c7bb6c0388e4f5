"""Ending calls that hang, from another thread: at shutdown nobody waits for a watch's timeout.

urllib3 can interrupt a response that has begun, not a request whose answer has not.  So its connections make
their sockets known here.  Must never touch a connection otherwise: its own thread cleans up after it.
"""

from __future__ import annotations

import socket
import threading
from typing import cast

from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool


class Sockets:
    """The open connections of one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.ended = False

    def add(self, sock: socket.socket) -> None:
        with self._lock:
            self._open = {known for known in self._open if known.fileno() >= 0}
            self._open.add(sock)
        if self.ended:
            self.end()

    def end(self) -> None:
        self.ended = True
        with self._lock:
            for sock in self._open:
                try:
                    # Not SSLSocket.shutdown: it drops the TLS state under the thread that reads.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    continue  # closed meanwhile
            self._open.clear()


def tracked(kind: type[HTTPConnectionPool], sockets: Sockets) -> type[HTTPConnectionPool]:
    """The same pool, with connections that make their sockets known."""
    connection = cast("type[HTTPConnection]", kind.ConnectionCls)

    class Tracked(connection):  # type: ignore[misc, valid-type]  # which class it is depends on scheme and proxy
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    return cast(
        "type[HTTPConnectionPool]", type(f"Tracked{kind.__name__}", (kind,), {"ConnectionCls": Tracked})
    )
