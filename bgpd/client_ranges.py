"""Clients without an entry of their own: who may connect from a range, and the peers made for them.

A stranger's connection comes to `admit`, which makes a peer for it or says no; the number of peers of a
range is bounded.  A client that is gone, and of which nothing is kept, is let go of after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

import structlog

from bgpd.bgp.listener import Listener
from bgpd.bgp.session import PeerSession
from bgpd.config import ClientRange, PeerConfig, SpeakerConfig
from bgpd.daemon import PeerState
from routes.path import PeerKind, PeerName
from routes.policy import PeerImport
from routes.prefix import Address, format_address

log = structlog.get_logger()

LINGER = 30.0
"""Seconds that a client without a session is remembered: longer than it may be refused for its haste."""


class Peers(Protocol):
    """The part of the daemon that is needed here."""

    peers: dict[PeerName, PeerState]
    listener: Listener

    def add_peer(self, config: PeerConfig, *, keyed: bool = True) -> PeerState: ...
    def remove_peer(self, name: PeerName) -> None: ...
    def has_stale(self, name: PeerName) -> bool: ...


class ClientRanges:
    """The ranges of a reflector, and the clients that came from them."""

    def __init__(
        self,
        ranges: Sequence[ClientRange],
        speaker: SpeakerConfig,
        daemon: Peers,
        imports: dict[PeerName, PeerImport],
    ) -> None:
        """`imports` gains the import options of each client before its session begins."""
        self._speaker = speaker
        self._daemon = daemon
        self._imports = imports
        self._loop = asyncio.get_running_loop()
        self._clients: dict[PeerName, ClientRange] = {}
        self._count: dict[ClientRange, int] = {}
        self._down_since: dict[PeerName, tuple[float, int]] = {}
        """Since when a client has had no session, and how many it had lost by then."""
        self.ranges: tuple[ClientRange, ...] = ()
        self.configure(ranges)

    def configure(self, ranges: Iterable[ClientRange]) -> None:
        """Take these ranges; clients of one that is gone or changed have to come again."""
        self.ranges = tuple(sorted(ranges, key=lambda each: -each.range.length))
        self._daemon.listener.set_range_keys({c.range: c.password for c in self.ranges if c.password})
        for name, clients in list(self._clients.items()):
            if clients not in self.ranges:
                self._remove(name)

    def find(self, source: Address) -> ClientRange | None:
        """The range of an address, the most specific one."""
        return next((each for each in self.ranges if each.range.covers(source)), None)

    def admit(self, source: Address) -> PeerSession | None:
        """A session for a stranger, or None: it is in no range, or the range is full."""
        clients = self.find(source)
        if clients is None:
            return None
        if self._count.get(clients, 0) >= clients.max_sessions:
            log.warning("a range of clients is full", range=str(clients.range), limit=clients.max_sessions)
            return None
        name = PeerName(format_address(source))
        self._clients[name] = clients
        self._count[clients] = self._count.get(clients, 0) + 1
        internal = clients.asn == self._speaker.asn
        self._imports[name] = PeerImport(
            max_prefixes=clients.max_prefixes, allow=clients.allow, trusted=internal
        )
        # The range's key is on the listener already, and the kernel takes a thousand of them at most.
        return self._daemon.add_peer(self._config(name, source, clients), keyed=False).session

    def _config(self, name: PeerName, source: Address, clients: ClientRange) -> PeerConfig:
        internal = clients.asn == self._speaker.asn
        return PeerConfig(
            name=name,
            address=source,
            asn=clients.asn,
            kind=PeerKind.IBGP if internal else PeerKind.EBGP,
            password=clients.password,
            ttl_security=clients.ttl_security,
            passive=True,
            hold_time=clients.hold_time,
            families=clients.families,
            max_prefixes=clients.max_prefixes,
            client=internal,
            add_paths=clients.add_paths,
            export=clients.export,
            description=f"client of {clients.range}",
            range=str(clients.range),
        )

    def alive(self) -> list[PeerName]:
        """The clients whose session is up, or whose paths are kept for their return."""
        return [name for name in self._clients if self._is_alive(name)]

    def _is_alive(self, name: PeerName) -> bool:
        state = self._daemon.peers.get(name)
        return state is not None and (state.negotiated is not None or self._daemon.has_stale(name))

    def let_go(self) -> None:
        """Forget clients that have had no session for a while, and of which nothing is kept."""
        now = self._loop.time()
        for name in list(self._clients):
            if self._is_alive(name):
                self._down_since.pop(name, None)
                continue
            state = self._daemon.peers.get(name)
            lost = state.session.counters.flaps if state is not None else 0
            since, before = self._down_since.setdefault(name, (now, lost))
            if lost != before:  # it was here in between: a new burst is not its due
                self._down_since[name] = (now, lost)
            elif now - since >= LINGER:
                self._remove(name)

    def _remove(self, name: PeerName) -> None:
        clients = self._clients.pop(name)
        self._down_since.pop(name, None)
        self._count[clients] -= 1
        if not self._count[clients]:
            del self._count[clients]
        if name in self._daemon.peers:
            self._daemon.remove_peer(name)
        self._imports.pop(name, None)
