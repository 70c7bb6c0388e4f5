"""Many light nodes in one process: speakers that announce their pods to reflectors, and forward nothing.

    python -m bgpd.lab.light_nodes COUNT ASN REFLECTOR... [--ipv4-only]

Each has an address, a router ID, a pod prefix and a session of its own with every reflector, so that to a
reflector they are nodes like any other.  What they are told they read and drop: there is no RIB and no
kernel table behind them.  One loop over one epoll serves all sessions; connections are opened a bounded
number at a time.  RFC 4271 as far as a client needs it, and RFC 4724 without state of forwarding (they have
none), for the End-of-RIB that a restarted reflector waits for.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import resource
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from bgpd.bgp.codec import encode_end_of_rib, encode_keepalive, encode_open, encode_updates
from bgpd.bgp.message import Open
from bgpd.lab.light_plan import LightNode, light_nodes
from routes.path import EMPTY_AS_PATH, Origin, PathAttributes, PeerKind
from routes.peer import Capabilities, GracefulRestart, Negotiated
from routes.prefix import Address, Family, Prefix

PORT = 179
HOLD_TIME = 90
KEEPALIVE = encode_keepalive()
HEADER = 19
OPEN_TYPE, KEEPALIVE_TYPE = 1, 4
LARGEST = 4096
"""Bytes of a message; what follows the last one before Established may be a whole table."""
CONNECTING = 128
"""Sessions that may be on their way to Established at a time."""
CONNECT_TIMEOUT = 10.0
RETRY = (0.5, 1.5)
"""Seconds, drawn at random, before a lost session is tried again."""
TICK = 0.25
REPORT_EVERY = 1.0
SPARE_FILES = 64


@dataclass(frozen=True, slots=True)
class Script:
    """All that a light node ever says, encoded once: to every reflector the same."""

    opening: bytes
    table: bytes
    """Its announcements and an End-of-RIB for each family."""


def script(node: LightNode, asn: int) -> Script:
    """What `node` says."""
    families = frozenset((Family.IPV4, Family.IPV6)[: len(node.pod_networks)])
    address = Address(node.address.packed)
    capabilities = Capabilities(families, asn, graceful_restart=GracefulRestart(0))
    opening = encode_open(Open(asn, HOLD_TIME, int.from_bytes(address), capabilities))
    negotiated = Negotiated(PeerKind.IBGP, asn, asn, 0, address, address, 0, HOLD_TIME, families)
    table = bytearray()
    for next_hop, network in zip(node.next_hops, node.pod_networks, strict=True):
        attributes = PathAttributes(Origin.IGP, EMPTY_AS_PATH, Address(next_hop.packed), local_pref=100)
        table += b"".join(encode_updates(attributes, [Prefix.parse(str(network))], [], negotiated))
    for family in sorted(families):
        table += encode_end_of_rib(family, negotiated)
    return Script(opening, bytes(table))


class Session:
    """One session of one light node; at any moment it has a socket, or is waiting to try again."""

    __slots__ = ("heard", "inbox", "node", "opened", "reflector", "script", "sock", "up")

    def __init__(self, node: LightNode, reflector: str, says: Script) -> None:
        self.node = node
        self.reflector = reflector
        self.script = says
        self.sock: socket.socket | None = None
        self.inbox = bytearray()
        self.opened = False
        """Whether the reflector's OPEN has come."""
        self.up = False
        self.heard = 0.0
        """When it last said something, or the attempt began."""

    def connect(self, now: float) -> socket.socket:
        """Begin; OSError when it fails at once."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((str(self.node.address), 0))
            sock.connect((self.reflector, PORT))
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            raise
        self.sock, self.heard, self.opened, self.up = sock, now, False, False
        self.inbox.clear()
        return sock

    def send(self, data: bytes) -> None:
        """All of it or OSError: it is little, and a reflector that does not read it is lost anyway."""
        if self.sock is None or self.sock.send(data) != len(data):
            raise ConnectionError("the reflector does not read")

    def take(self, data: memoryview) -> None:
        """What came; ConnectionError when the session is over."""
        self.inbox += data
        while len(self.inbox) >= HEADER and not self.up:
            size, kind = int.from_bytes(self.inbox[16:18]), self.inbox[18]
            if not HEADER <= size <= LARGEST:
                raise ConnectionError("no BGP message")
            if len(self.inbox) < size:
                return
            del self.inbox[:size]
            self._take_message(kind)

    def _take_message(self, kind: int) -> None:
        if kind == OPEN_TYPE and not self.opened:
            self.opened = True
            self.send(KEEPALIVE)
        elif kind == KEEPALIVE_TYPE and self.opened:
            self.send(self.script.table)
            self.up = True
            self.inbox.clear()
        else:
            raise ConnectionError(f"unexpected message of type {kind}")

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock, self.up = None, False


class Nodes:
    """The loop around all sessions."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        self._to_connect = deque(sessions)
        self.total = len(self._to_connect)
        self.up = 0
        self._epoll = select.epoll()
        self._by_file: dict[int, Session] = {}
        self._connecting = 0
        self._retries: list[tuple[float, int, Session]] = []
        self._keepalives: deque[tuple[float, Session, socket.socket]] = deque()
        """In the order in which they are due: all wait equally long."""
        self._tick = 0.0
        self._drawn = 0
        self._buffer = bytearray(1 << 18)

    def turn(self) -> None:
        """Serve whatever is ready, for at most a moment."""
        now = time.monotonic()
        self._begin_some(now)
        for number, events in self._epoll.poll(0.02 if self._to_connect else TICK, 512):
            session = self._by_file.get(number)
            if session is None:
                continue
            try:
                self._serve(session, events, now)
            except OSError:
                self._lost(session, now)
        self._keep_alive(now)

    def _begin_some(self, now: float) -> None:
        while self._retries and self._retries[0][0] <= now:
            self._to_connect.append(heapq.heappop(self._retries)[2])
        while self._to_connect and self._connecting < CONNECTING:
            session = self._to_connect.popleft()
            try:
                sock = session.connect(now)
            except OSError:
                self._retry(session, now)
                continue
            self._connecting += 1
            self._by_file[sock.fileno()] = session
            self._epoll.register(sock, select.EPOLLOUT)

    def _serve(self, session: Session, events: int, now: float) -> None:
        sock = session.sock
        if sock is None:
            return
        if events & select.EPOLLOUT:
            if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "connect")
            session.send(session.script.opening)
            self._epoll.modify(sock, select.EPOLLIN)
            return
        size = sock.recv_into(self._buffer)
        if not size:
            raise ConnectionError("closed")
        session.heard = now
        if session.up:
            return
        session.take(memoryview(self._buffer)[:size])
        if session.up:
            self._connecting -= 1
            self.up += 1
            self._keepalives.append((now + HOLD_TIME / 3, session, sock))

    def _lost(self, session: Session, now: float) -> None:
        if session.sock is None:
            return
        if session.up:
            self.up -= 1
        else:
            self._connecting -= 1
        del self._by_file[session.sock.fileno()]
        session.close()
        self._retry(session, now)

    def _retry(self, session: Session, now: float) -> None:
        self._drawn += 1
        pause = random.uniform(*RETRY)  # noqa: S311  spreads attempts; nothing is secret
        heapq.heappush(self._retries, (now + pause, self._drawn, session))

    def _keep_alive(self, now: float) -> None:
        while self._keepalives and self._keepalives[0][0] <= now:
            _, session, sock = self._keepalives.popleft()
            if session.sock is not sock:
                continue  # a later connection has an entry of its own
            try:
                session.send(KEEPALIVE)
            except OSError:
                self._lost(session, now)
                continue
            self._keepalives.append((now + HOLD_TIME / 3, session, sock))
        if now >= self._tick:
            self._tick = now + REPORT_EVERY
            for session in list(self._by_file.values()):
                if now - session.heard > (HOLD_TIME if session.up else CONNECT_TIMEOUT):
                    self._lost(session, now)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until killed; a line for each change of how many sessions are up."""
    parser = argparse.ArgumentParser(prog="python -m bgpd.lab.light_nodes", description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("asn", type=int)
    parser.add_argument("reflectors", nargs="+", type=lambda text: str(ip_address(text)))
    parser.add_argument("--ipv4-only", action="store_true")
    asked = parser.parse_args(arguments)
    nodes = light_nodes(asked.count, 1 if asked.ipv4_only else 2)
    wanted = len(nodes) * len(asked.reflectors) + SPARE_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    says = {node: script(node, asked.asn) for node in nodes}
    loop = Nodes(Session(node, address, says[node]) for node in nodes for address in asked.reflectors)
    _say(f"{len(nodes)} light nodes in one process, without kernel routes", loop)
    known, next_report = -1, 0.0
    while True:
        loop.turn()
        if loop.up != known and time.monotonic() >= next_report:
            known, next_report = loop.up, time.monotonic() + REPORT_EVERY
            _say("sessions", loop)


def _say(event: str, loop: Nodes) -> None:
    sys.stdout.write(json.dumps({"event": event, "up": loop.up, "of": loop.total}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
