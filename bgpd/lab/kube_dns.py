"""A DNS server for the lab's pods: what a cluster's DNS is to the network, with a zone that it is given.

It answers A and AAAA questions (RFC 1035, RFC 3596) over UDP and TCP for the names in its arguments, NXDOMAIN
for all others, and knows nothing else: it shows that pods reach a DNS server at its Service's address.  It
runs from the standard library alone, like `kube_echo`, and whoever reaches it may send anything.

    python -m bgpd.lab.kube_dns NAME 53/UDP 53/TCP -- web.default.svc.cluster.local=10.96.7.1
"""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

HEADER = struct.Struct("!6H")
QUESTION_TAIL = struct.Struct("!2H")
ANSWER_HEAD = struct.Struct("!3HIH")
SAME_NAME = 0xC000 | HEADER.size
"""A pointer to the question's name."""
RESPONSE, OPCODE, AUTHORITATIVE, RECURSION_DESIRED = 0x8000, 0x7800, 0x0400, 0x0100
FORMAT_ERROR, NAME_ERROR, NOT_IMPLEMENTED = 1, 3, 4
TYPES = {1: 4, 28: 6}
"""A and AAAA, and the IP version that each asks for."""
INTERNET = 1
TTL = 5
MOST_LABEL = 63
MOST_QUERY = 512
MOST_CONNECTIONS = 64
IDLE_TIMEOUT = 10.0
LINGER = 2.0
"""Seconds from SIGTERM to the end."""

Zone = dict[str, list[IPv4Address | IPv6Address]]
_slots = threading.BoundedSemaphore(MOST_CONNECTIONS)


def read_zone(entries: list[str]) -> Zone:
    """The zone of entries such as `web=10.96.7.1`; several of one name are several addresses."""
    zone: Zone = {}
    for entry in entries:
        name, _, address = entry.partition("=")
        zone.setdefault(name.lower().rstrip("."), []).append(ip_address(address))
    return zone


def answer(query: bytes, zone: Zone) -> bytes | None:
    """The answer to a query; None for what is no query at all."""
    if len(query) < HEADER.size:
        return None
    number, flags, questions, *_ = HEADER.unpack_from(query)
    if flags & RESPONSE:
        return None
    flags = RESPONSE | AUTHORITATIVE | (flags & (OPCODE | RECURSION_DESIRED))
    if flags & OPCODE:
        return HEADER.pack(number, flags | NOT_IMPLEMENTED, 0, 0, 0, 0)
    name, end = _read_name(query, HEADER.size)
    if questions != 1 or name is None or end + QUESTION_TAIL.size > len(query):
        return HEADER.pack(number, flags | FORMAT_ERROR, 0, 0, 0, 0)
    kind, group = QUESTION_TAIL.unpack_from(query, end)
    question = query[HEADER.size : end + QUESTION_TAIL.size]
    if name not in zone:
        return HEADER.pack(number, flags | NAME_ERROR, 1, 0, 0, 0) + question
    found = [each.packed for each in zone[name] if group == INTERNET and each.version == TYPES.get(kind)]
    records = b"".join(
        ANSWER_HEAD.pack(SAME_NAME, kind, INTERNET, TTL, len(packed)) + packed for packed in found
    )
    return HEADER.pack(number, flags, 1, len(found), 0, 0) + question + records


def _read_name(query: bytes, at: int) -> tuple[str | None, int]:
    """The name that begins there, or None, and where it ends.  A question's is never compressed."""
    labels: list[str] = []
    while at < len(query):
        length = query[at]
        at += 1
        if length == 0:
            return ".".join(labels).lower(), at
        if length > MOST_LABEL or at + length > len(query):
            break
        labels.append(query[at : at + length].decode("ascii", "replace"))
        at += length
    return None, at


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
        while len(head := self.rfile.read(2)) == 2:
            (length,) = struct.unpack("!H", head)
            if length > MOST_QUERY or (reply := answer(self.rfile.read(length), self.server.zone)) is None:
                return
            self.wfile.write(struct.pack("!H", len(reply)) + reply)


class _StreamServer(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, zone: Zone, port: int) -> None:
        self.zone = zone
        super().__init__(("::", port), _Stream)


def _serve_datagrams(zone: Zone, port: int) -> None:
    families = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104 - the pod's own namespace
    for family, address in families:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        threading.Thread(target=_answer_datagrams, args=(zone, sock), daemon=True).start()


def _answer_datagrams(zone: Zone, sock: socket.socket) -> None:
    while True:
        with suppress(OSError):  # a client's port that is closed shows as an error of the next call
            query, client = sock.recvfrom(MOST_QUERY)
            if (reply := answer(query, zone)) is not None:
                sock.sendto(reply, client)


def main(words: list[str]) -> None:
    """Serve all ports, until told to end."""
    # Taken, not handled: in a busy pod a handler's signal was sometimes never noticed by the waiting thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    split = words.index("--") if "--" in words else len(words)
    zone = read_zone(words[split + 1 :])
    for entry in words[1:split]:
        port, _, protocol = entry.partition("/")
        if protocol == "UDP":
            _serve_datagrams(zone, int(port))
        else:
            threading.Thread(target=_StreamServer(zone, int(port)).serve_forever, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM})
    time.sleep(LINGER)
    os._exit(0)  # the threads still serve, and an interpreter that ends under them may hang


if __name__ == "__main__":
    main(sys.argv[1:])
