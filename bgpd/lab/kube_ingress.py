"""An HTTP proxy for the lab's pods: what an Ingress controller is to the network.

Each connection is one request, which goes to the next of its backends (usually a Service's address) with the
client's address in `X-Forwarded-For`; what comes back is carried on as it is.  It shows that a proxy behind a
LoadBalancer reaches Services, and what becomes of the client's address.  It runs from the standard library
alone, like `kube_echo`, and whoever reaches it may send anything: heads, waits and connections are bounded.

    python -m bgpd.lab.kube_ingress NAME 8080/TCP -- 10.96.7.1:80
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress

MOST_HEAD = 1 << 14
CHUNK = 1 << 16
MOST_CONNECTIONS = 128
TIMEOUT = 10.0
LINGER = 2.0
"""Seconds from SIGTERM to the end."""
END_OF_HEAD = b"\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
OWN_HEADERS = (b"x-forwarded-for:", b"connection:")
_slots = threading.BoundedSemaphore(MOST_CONNECTIONS)

Backend = tuple[str, int]


def forwarded(head: bytes, client: str) -> bytes | None:
    """A request's head as the backend gets it; None when it is none.  Nobody else says who the client is."""
    first, *headers = head.removesuffix(END_OF_HEAD).split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or not words[0].isalpha() or not words[2].startswith(b"HTTP/1."):
        return None
    kept = [line for line in headers if not line.lower().startswith(OWN_HEADERS)]
    own = [b"X-Forwarded-For: " + client.encode(), b"Connection: close"]
    return b"\r\n".join([first, *kept, *own]) + END_OF_HEAD


def read_backend(text: str) -> Backend:
    """`10.96.7.1:80`, or `[fd00::1]:80`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        if not _slots.acquire(blocking=False):
            return
        try:
            with suppress(OSError):  # the client went away
                self.request.settimeout(TIMEOUT)
                self._serve(self.request)
        finally:
            _slots.release()

    def _serve(self, client: socket.socket) -> None:
        data = b""
        while END_OF_HEAD not in data:
            more = client.recv(CHUNK)
            if not more or len(data) > MOST_HEAD:
                return
            data += more
        head, body = data.split(END_OF_HEAD, 1)
        request = forwarded(head + END_OF_HEAD, self.client_address[0].removeprefix("::ffff:"))
        if request is None:
            client.sendall(BAD_REQUEST)
            return
        try:
            backend = socket.create_connection(next(self.server.backends), TIMEOUT)
        except OSError:
            client.sendall(BAD_GATEWAY)
            return
        with backend:
            backend.sendall(request + body)
            threading.Thread(target=_carry, args=(client, backend), daemon=True).start()
            _carry(backend, client)


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)


class _Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, backends: list[Backend]) -> None:
        self.backends = itertools.cycle(backends)
        super().__init__(("::", port), _Handler)


def main(words: list[str]) -> None:
    """Serve all ports, until told to end."""
    # Taken, not handled: in a busy pod a handler's signal was sometimes never noticed by the waiting thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    split = words.index("--")
    backends = [read_backend(text) for text in words[split + 1 :]]
    for entry in words[1:split]:
        port = int(entry.partition("/")[0])
        threading.Thread(target=_Server(port, backends).serve_forever, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM})
    time.sleep(LINGER)
    os._exit(0)  # the threads still serve, and an interpreter that ends under them may hang


if __name__ == "__main__":
    main(sys.argv[1:])
