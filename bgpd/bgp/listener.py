"""Accepts BGP connections and hands each to the session of the peer that it comes from.

Untrusted input meets us here first: a source that is not a configured peer is closed at once and counted,
a peer that connects too often is too, each turn of the loop accepts a bounded number, and running out of
file descriptors pauses accepting instead of spinning.  What waits for an OPEN is bounded by the number of
peers, because a session keeps one connection that its peer opened and has not yet completed.

MD5 keys (RFC 2385) stand on the listening sockets, one for each peer with a password, and follow the
configuration at run time.  TTL security (RFC 5082) is set on a connection when it is accepted, and on the
listener as well when all of its peers have it, so that the handshake is covered too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from bgpd.bgp import tcp
from bgpd.bgp.session import PeerSession
from bgpd.bgp.tcp import SocketAddress
from bgpd.config import Endpoint, PeerConfig
from bgpd.errors import ConfigError
from routes.path import PeerName
from routes.prefix import Address, Prefix, format_address, is_link_local

ACCEPTS_PER_TURN = 8
"""Each makes a session; 64 of them held changes up for tens of milliseconds."""
BURST = 16
"""Connections that a peer may open at once; after that, `RATE` a second."""
RATE = 1.0
FIRST_REFUSAL = 1.0
LONGEST_REFUSAL = 20.0
"""Seconds that a peer which connects too often is refused; they double each time that it goes right on."""
_PAUSE = 1.0
"""Seconds without accepting after the system refused a socket."""
_LOG_EVERY = 10.0

log = structlog.get_logger()


@dataclass(slots=True)
class ListenerCounters:
    """Connections since the start."""

    accepted: int = 0
    unknown_source: int = 0
    too_fast: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Known:
    """A peer that may connect, and how many connections it has to spare (a token bucket)."""

    session: PeerSession
    config: PeerConfig
    """As the sockets know it; the session's may be newer."""
    keyed: bool
    tokens: float = BURST
    filled_at: float = 0.0
    """Until then it is refused, when that is to come."""
    refusal: float = 0.0

    def take(self, now: float) -> bool:
        if now < self.filled_at:
            return False
        self.tokens = min(BURST, self.tokens + (now - self.filled_at) * RATE)
        self.filled_at = now
        if self.tokens == BURST:
            self.refusal = 0.0
        if self.tokens < 1:
            self.refusal = min(LONGEST_REFUSAL, 2 * self.refusal or FIRST_REFUSAL)
            self.tokens, self.filled_at = 1, now + self.refusal
            return False
        self.tokens -= 1
        return True


class Strangers(Protocol):
    """Who says whether a source without an entry may be a peer."""

    def admit(self, source: Address) -> PeerSession | None:
        """Its session, which has been added to the listener, or None."""


class Listener:
    """Listens on the speaker's endpoints; `add` the sessions that may be reached there."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        self._loop = asyncio.get_running_loop()
        self._sockets: list[tuple[Endpoint, socket.socket]] = []
        self._peers: dict[PeerName, _Known] = {}
        self._by_source: dict[tuple[Address, str], _Known] = {}
        self._next_log = 0.0
        self._not_logged = 0
        self._resume: asyncio.TimerHandle | None = None
        self.counters = ListenerCounters()
        self.strangers: Strangers | None = None
        self._range_keys: dict[Prefix, str] = {}

    def start(self) -> None:
        """Bind and listen; ConfigError, with nothing left open, if an endpoint can't be had."""
        for endpoint in self._endpoints:
            try:
                sock = tcp.listening_socket(endpoint)
            except OSError as error:
                self.close()
                where = f"{format_address(endpoint.address)} port {endpoint.port}"
                raise ConfigError(f"speaker.listen: cannot listen on {where}: {error.strerror}") from error
            self._sockets.append((endpoint, sock))
            for known in self._peers.values():
                self._set_key(sock, known, known.config.password)
            for prefix, password in self._range_keys.items():
                self._set_range_key(sock, prefix, password)
        self._guard_ttl()
        self._accept_again()

    def close(self) -> None:
        """Stop listening.  Sessions are not touched."""
        if self._resume is not None:
            self._resume.cancel()
        for _, sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports in use, in the order of the endpoints (0 in an endpoint lets the kernel choose)."""
        return tuple(sock.getsockname()[1] for _, sock in self._sockets)

    def add(self, session: PeerSession) -> None:
        """Let this session's peer connect; again after its configuration changed."""
        self.remove(session.name)
        config = session.config
        known = _Known(session, config, keyed=not config.range)
        self._peers[session.name] = known
        self._by_source[_source_of(config)] = known
        for _, sock in self._sockets:
            self._set_key(sock, known, config.password)
        if known.keyed:
            self._guard_ttl()

    def remove(self, name: PeerName) -> None:
        """Let this peer connect no more."""
        known = self._peers.pop(name, None)
        if known is None:
            return
        self._by_source.pop(_source_of(known.config), None)
        for _, sock in self._sockets:
            self._set_key(sock, known, "")
        if known.keyed:
            self._guard_ttl()

    def set_range_keys(self, keys: dict[Prefix, str]) -> None:
        """The passwords of ranges of strangers; one key serves a whole range."""
        before, self._range_keys = self._range_keys, dict(keys)
        gone = dict.fromkeys(before.keys() - keys.keys(), "")
        for prefix, password in {**gone, **keys}.items():
            for _, sock in self._sockets:
                self._set_range_key(sock, prefix, password)

    def _set_range_key(self, sock: socket.socket, prefix: Prefix, password: str) -> None:
        if (sock.family == socket.AF_INET) != (len(prefix.address) == 4):
            return
        try:
            tcp.set_md5(sock, prefix.address, password, prefix.length)
        except OSError as error:
            log.warning(
                "the kernel refused the TCP MD5 key of a range, so its clients can't connect to us",
                range=str(prefix),
                error=error.strerror or str(error),
            )

    def _set_key(self, sock: socket.socket, known: _Known, password: str) -> None:
        config = known.config
        same_family = (sock.family == socket.AF_INET) == (len(config.address) == 4)
        if not same_family or not config.password or not known.keyed:
            return
        try:
            tcp.set_md5(sock, config.address, password)
        except OSError as error:
            # The peer's signed SYN is dropped now, and an unsigned connection ends at `prepare_accepted`.
            log.warning(
                "the kernel refused a peer's TCP MD5 key on the listener, so this peer can't connect to us",
                peer=config.name,
                error=error.strerror or str(error),
                advice="raise net.core.optmem_max",
            )

    def _guard_ttl(self) -> None:
        """The least TTL that any peer of a listener may have; 0 as soon as one has no TTL security."""
        for endpoint, sock in self._sockets:
            size = len(endpoint.address)
            configs = [k.config for k in self._peers.values() if len(k.config.address) == size]
            guarded = bool(configs) and self.strangers is None and all(c.ttl_security for c in configs)
            least = min((tcp.least_ttl(c) for c in configs), default=0) if guarded else 0
            tcp.set_least_ttl(sock, endpoint.address, least)

    # -- accepting --------------------------------------------------------------------------------

    def _accept_again(self) -> None:
        self._resume = None
        for _, sock in self._sockets:
            self._loop.add_reader(sock, self._accept_ready, sock)

    def _accept_ready(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue
            except OSError as error:
                self._pause(error)
                return
            self._take(sock, address)

    def _take(self, sock: socket.socket, address: SocketAddress) -> None:
        source, zone = tcp.accepted_from(address)
        known = self._find(source, zone) or self._admitted(source)
        if known is None:
            self.counters.unknown_source += 1
            sock.close()
            self._log_refused("refused a connection from an address that is no configured peer", address[0])
        elif not known.take(self._loop.time()):
            self.counters.too_fast += 1
            sock.close()
            self._log_refused("refused a connection from a peer that connects too often", address[0])
        else:
            self.counters.accepted += 1
            known.session.accept(sock, address)

    def _find(self, source: Address, zone: int) -> _Known | None:
        if not is_link_local(source):
            return self._by_source.get((source, ""))
        try:
            return self._by_source.get((source, socket.if_indextoname(zone)))
        except OSError:
            return None

    def _admitted(self, source: Address) -> _Known | None:
        """A stranger that is a peer from now on."""
        if self.strangers is None or is_link_local(source):
            return None
        session = self.strangers.admit(source)
        return None if session is None else self._peers.get(session.name)

    def _pause(self, error: OSError) -> None:
        self.counters.failed += 1
        log.warning("cannot accept connections for a moment", error=error.strerror)
        for _, sock in self._sockets:
            self._loop.remove_reader(sock)
        if self._resume is None:
            self._resume = self._loop.call_later(_PAUSE, self._accept_again)

    def _log_refused(self, text: str, source: str) -> None:
        now = self._loop.time()
        if now < self._next_log:
            self._not_logged += 1
            return
        log.warning(text, source=source, not_logged_before=self._not_logged)
        self._next_log = now + _LOG_EVERY
        self._not_logged = 0


def _source_of(config: PeerConfig) -> tuple[Address, str]:
    return config.address, config.interface if is_link_local(config.address) else ""
