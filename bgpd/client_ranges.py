"""Clients without an entry of their own: who may connect from a range, and the peers made for them.

A stranger's connection comes to `admit`, which makes a peer for it or says no; the number of peers of a
range is bounded, and where the members of a range are known, nobody else is admitted.  A client that is gone,
and of which nothing is kept, is let go of after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from bgpd.bgp.listener import Listener
from bgpd.bgp.session import PeerSession
from bgpd.config import ClientRange, PeerConfig, SpeakerConfig
from bgpd.daemon import PeerState
from routes.path import PeerKind, PeerName
from routes.policy import PeerImport
from routes.prefix import Address, Prefix, format_address
from routes.route_policy import Policies

log = structlog.get_logger()

LINGER = 30.0
"""Seconds that a client without a session is remembered: longer than it may be refused for its haste."""


class Peers(Protocol):
    """The part of the daemon that is needed here."""

    peers: dict[PeerName, PeerState]
    listener: Listener

    def add_peer(self, config: PeerConfig) -> PeerState: ...
    def remove_peer(self, name: PeerName) -> None: ...
    def change_peer(self, config: PeerConfig) -> None: ...
    def has_stale(self, name: PeerName) -> bool: ...


PolicyLookup = Callable[[Iterable[str]], Policies]
"""`Config.named_policies`."""


def without_policies(names: Iterable[str]) -> Policies:
    """For ranges that name none."""
    del names
    return ()


class ClientRanges:
    """The ranges of a reflector, and the clients that came from them."""

    def __init__(
        self,
        ranges: Sequence[ClientRange],
        speaker: SpeakerConfig,
        daemon: Peers,
        imports: dict[PeerName, PeerImport],
        policies: PolicyLookup = without_policies,
    ) -> None:
        """`imports` gains the import options of each client before its session begins."""
        self._speaker = speaker
        self._daemon = daemon
        self._imports = imports
        self._loop = asyncio.get_running_loop()
        self._clients: dict[PeerName, tuple[Prefix, Address]] = {}
        """The range and the address of each."""
        self._count: dict[Prefix, int] = {}
        self._down_since: dict[PeerName, tuple[float, int]] = {}
        """Since when a client has had no session, and how many it had lost by then."""
        self.ranges: tuple[ClientRange, ...] = ()
        self._by_prefix: dict[Prefix, ClientRange] = {}
        self._imported: dict[Prefix, PeerImport] = {}
        self.configure(ranges, policies)

    def configure(self, ranges: Iterable[ClientRange], policies: PolicyLookup = without_policies) -> None:
        """Take these ranges; only clients of one that is gone, or that are members no more, are closed.

        What else changes reaches the clients that are here, and resets a session where it must: their paths
        stay meanwhile, so that a new password takes nobody off the network.
        """
        before, imported = self._by_prefix, self._imported
        self.ranges = tuple(sorted(ranges, key=lambda each: -each.range.length))
        self._by_prefix = {each.range: each for each in self.ranges}
        self._imported = {each.range: self._import_of(each, policies) for each in self.ranges}
        self._daemon.listener.set_range_keys({c.range: c.password for c in self.ranges if c.password})
        for prefix, old in before.items():
            new = self._by_prefix.get(prefix)
            if new is None or new.asn != old.asn:
                self._remove_all(self._of_range(prefix))
                continue
            if new.members is not None:
                self._remove_all(self._strangers(old.members, new.members, prefix))
            if imported[prefix] != self._imported[prefix] or replace(old, members=new.members) != new:
                self._change(new)

    def _of_range(self, prefix: Prefix) -> list[PeerName]:
        return [name for name, (its_range, _) in self._clients.items() if its_range == prefix]

    def _strangers(
        self, before: frozenset[Address] | None, members: frozenset[Address], prefix: Prefix
    ) -> list[PeerName]:
        """The clients of a range that are members no more; the price is that of what changed."""
        if before is None:
            return [name for name in self._of_range(prefix) if self._clients[name][1] not in members]
        gone = (PeerName(format_address(address)) for address in before - members)
        return [name for name in gone if name in self._clients and self._clients[name][0] == prefix]

    def _remove_all(self, names: Iterable[PeerName]) -> None:
        for name in names:
            self._remove(name)

    def _change(self, clients: ClientRange) -> None:
        """Have the clients of a range do what it says now."""
        for name in self._of_range(clients.range):
            self._imports[name] = self._imported[clients.range]
            state = self._daemon.peers.get(name)
            config = self._config(name, self._clients[name][1], clients)
            if state is not None and state.config != config:
                self._daemon.change_peer(config)

    def _import_of(self, clients: ClientRange, policies: PolicyLookup) -> PeerImport:
        return PeerImport(
            max_prefixes=clients.max_prefixes,
            allow=clients.allow,
            trusted=clients.asn == self._speaker.asn,
            policies=policies(clients.import_policies),
        )

    def find(self, source: Address) -> ClientRange | None:
        """The range of an address, the most specific one."""
        return next((each for each in self.ranges if each.range.covers(source)), None)

    def admit(self, source: Address) -> PeerSession | None:
        """A session for a stranger, or None: it is in no range or no member of its range, or that is full."""
        clients = self.find(source)
        if clients is None or (clients.members is not None and source not in clients.members):
            return None
        prefix = clients.range
        if self._count.get(prefix, 0) >= clients.max_sessions:
            log.warning("a range of clients is full", range=str(prefix), limit=clients.max_sessions)
            return None
        name = PeerName(format_address(source))
        self._clients[name] = prefix, source
        self._count[prefix] = self._count.get(prefix, 0) + 1
        self._imports[name] = self._imported[prefix]
        return self._daemon.add_peer(self._config(name, source, clients)).session

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
            import_policies=clients.import_policies,
            export_policies=clients.export_policies,
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
        prefix, _ = self._clients.pop(name)
        self._down_since.pop(name, None)
        self._count[prefix] -= 1
        if not self._count[prefix]:
            del self._count[prefix]
        if name in self._daemon.peers:
            self._daemon.remove_peer(name)
        self._imports.pop(name, None)
