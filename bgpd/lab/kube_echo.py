"""What runs in the lab's pods: a server that answers with its own name and the address that it sees.

One process serves TCP and UDP ports.  On TCP it speaks HTTP to whoever does, and otherwise answers line by
line; on UDP it answers each datagram.  Every answer is one line of JSON with the pod's name, the client's
address, and over HTTP the address that a proxy says the client has.  So a test can tell which pod answered,
and whether an address was translated on the way.

It runs from the standard library alone, so that a hundred pods start at once: nothing of this project may be
imported here.  Whoever reaches the pod may send anything: lines, connections and waits are bounded.

Told to end (SIGTERM) it goes on for a while, as servers behind a Service must: nodes go on sending to it
until they have heard that it is going.

    python -m bgpd.lab.kube_echo NAME 8080/TCP 5353/UDP
"""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress

MOST_LINE = 4096
MOST_HEADERS = 100
MOST_CONNECTIONS = 256
IDLE_TIMEOUT = 60.0
LINGER = 2.0
"""Seconds from SIGTERM to the end."""
METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ")
_slots = threading.BoundedSemaphore(MOST_CONNECTIONS)


def answer(name: str, client: tuple[str, int], port: int, forwarded_for: str = "") -> bytes:
    """One line of JSON."""
    said: dict[str, str | int] = {"pod": name, "client": client[0].removeprefix("::ffff:"), "port": port}
    if forwarded_for:
        said["forwarded_for"] = forwarded_for
    return json.dumps(said).encode() + b"\n"


class _Stream(socketserver.StreamRequestHandler):
    timeout = IDLE_TIMEOUT
    server: _StreamServer

    def handle(self) -> None:
        if not _slots.acquire(blocking=False):
            return
        try:
            with suppress(OSError):  # the client went away
                self._serve()
        finally:
            _slots.release()

    def _serve(self) -> None:
        port = self.server.server_address[1]
        while line := self.rfile.readline(MOST_LINE):
            if line.startswith(METHODS):
                self._serve_http(line, port)
                return
            self.wfile.write(answer(self.server.name, self.client_address, port))

    def _serve_http(self, line: bytes, port: int) -> None:
        forwarded_for = ""
        for _ in range(MOST_HEADERS):
            header = self.rfile.readline(MOST_LINE)
            if header in (b"\r\n", b"\n", b""):
                break
            name, _, value = header.partition(b":")
            if name.lower() == b"x-forwarded-for":
                forwarded_for = value.strip().decode("ascii", "replace")
        reply = answer(self.server.name, self.client_address, port, forwarded_for)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(reply)}\r\n"
        body = b"" if line.startswith(b"HEAD ") else reply
        self.wfile.write(f"{head}Connection: close\r\n\r\n".encode() + body)


class _StreamServer(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        super().__init__(("::", port), _Stream)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def serve_datagrams(name: str, port: int) -> None:
    """Answer each datagram, over either family."""
    families = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104 - the pod's own namespace
    for family, address in families:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        threading.Thread(target=_answer_datagrams, args=(name, port, sock), daemon=True).start()


def _answer_datagrams(name: str, port: int, sock: socket.socket) -> None:
    while True:
        with suppress(OSError):  # a client's port that is closed shows as an error of the next call
            _, client = sock.recvfrom(MOST_LINE)
            sock.sendto(answer(name, client, port), client)


def main(name: str, ports: list[str]) -> None:
    """Serve all ports, until told to end."""
    # Taken, not handled: in a busy pod a handler's signal was sometimes never noticed by the waiting thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for entry in ports:
        port, _, protocol = entry.partition("/")
        if protocol == "UDP":
            serve_datagrams(name, int(port))
            continue
        server = _StreamServer(name, int(port))
        threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM})
    time.sleep(LINGER)
    os._exit(0)  # the threads still serve, and an interpreter that ends under them may hang


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
