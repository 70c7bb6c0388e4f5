"""A reflector's outgoing side on virtual time: real update groups, logs, transports and codec; no socket.

Peers read as much as the test says, cut anywhere, parse it with the real decoder, and believe it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from random import Random
from socket import socket
from typing import cast
from unittest.mock import patch

from bgpd.bgp.codec import Decoder
from bgpd.bgp.message import EndOfRib, Keepalive, Notification, RefreshKind, RouteRefresh, Update
from bgpd.bgp.session import PeerSession
from bgpd.bgp.transport import Feed, Transport
from bgpd.config import Config, ImportConfig, PeerConfig, ReflectorConfig, SpeakerConfig
from bgpd.reflector import Outbox
from routes.path import PathAttributes, PeerKind, PeerName, Source
from routes.peer import Negotiated
from routes.policy import ImportPolicy, PeerImport
from routes.prefix import Family, Prefix
from routes.reflection import Role
from routes.rib import Rib
from tests.fakes.reflection_model import ALLOW, ASN, CLUSTER_ID, ROUTER_ID


class VirtualLoop:
    """As much of an event loop as transports and update groups use.  Its clock moves when it is read."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = 0.0
        self.ready: deque[Callable[[], object]] = deque()
        self.writers: dict[int, Callable[[], object]] = {}

    def time(self) -> float:
        self._now += self._random.random() * 0.004
        return self._now

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self.ready.append(partial(callback, *arguments))

    def call_later(self, _delay: float, _callback: Callable[..., object], *_: object) -> None:
        """Nothing here waits for so long."""

    def add_reader(self, fd: int, callback: Callable[[], object], *_: object) -> None:
        """Nothing is read here."""

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        self.writers[fd] = callback

    def remove_writer(self, fd: int) -> None:
        self.writers.pop(fd, None)

    def remove_reader(self, fd: int) -> None:
        """Nothing is read here."""

    def run(self, callbacks: int) -> None:
        """Run so many callbacks, if there are."""
        while self.ready and callbacks:
            self.ready.popleft()()
            callbacks -= 1


class Pipe:
    """A socket whose buffer holds `size` bytes until its peer reads them."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size
        self.held = b""

    def fileno(self) -> int:
        return self._fd

    def send(self, data: bytes) -> int:
        taken = bytes(data[: self.size - len(self.held)])
        if not taken:
            raise BlockingIOError
        self.held += taken
        return len(taken)

    def recv(self, _size: int) -> bytes:
        raise BlockingIOError

    def shutdown(self, _how: int) -> None: ...

    def sendmsg(self, buffers: Iterable[bytes]) -> int:
        return self.send(b"".join(buffers))

    def close(self) -> None:
        self._fd = -1


class Heard:
    """What a peer makes of the bytes that it is sent; `negotiated` is from its side."""

    def __init__(self, negotiated: Negotiated) -> None:
        self.decoder = Decoder()
        self.decoder.negotiated = self.negotiated = negotiated
        self.table: dict[tuple[Prefix, int], PathAttributes] = {}
        self.stale: dict[Family, set[tuple[Prefix, int]]] = {}
        self.end_of_rib: list[Family] = []
        self.updates = 0
        self.keepalives = 0
        self.notification: Notification | None = None

    def feed(self, data: bytes) -> None:
        for message in self.decoder.feed(data):
            match message:
                case Update():
                    self._updated(message)
                case EndOfRib():
                    self.end_of_rib.append(message.family)
                case RouteRefresh():
                    self._marked(message)
                case Notification():
                    self.notification = message
                case Keepalive():
                    self.keepalives += 1
                case _:
                    raise AssertionError(message)

    def _updated(self, update: Update) -> None:
        assert not update.error
        self.updates += 1
        for nlri in update.withdrawn:
            self.table.pop((nlri, update.path_id), None)
        if update.attributes is not None:
            for nlri in update.announced:
                self.table[nlri, update.path_id] = update.attributes
                self.stale.get(nlri.family, set()).discard((nlri, update.path_id))

    def _marked(self, refresh: RouteRefresh) -> None:
        if refresh.kind == RefreshKind.BEGIN:
            self.stale[refresh.family] = {key for key in self.table if key[0].family is refresh.family}
        else:
            assert refresh.kind == RefreshKind.END
            for key in self.stale.pop(refresh.family):
                self.table.pop(key, None)


class Peer:
    """One peer of the reflector, as the reflector's session and as the speaker at the other end."""

    def __init__(
        self, name: str, role: Role, loop: VirtualLoop, negotiated: Negotiated, add_paths: int = 0
    ) -> None:
        self.role = role
        self.negotiated = negotiated
        self.families = negotiated.families
        self.add_paths = add_paths
        self.config = PeerConfig(
            name=PeerName(name),
            address=negotiated.peer_address,
            asn=negotiated.peer_asn,
            kind=negotiated.kind,
            client=role is Role.CLIENT,
            add_paths=add_paths,
        )
        self.source = Source(
            self.config.name,
            negotiated.kind,
            negotiated.peer_asn,
            negotiated.peer_bgp_id,
            negotiated.peer_address,
        )
        self.up = False
        self.resets: list[Notification] = []
        self._loop = loop
        self._down: Callable[[Peer], None] = lambda _: None

    def connect(self, fd: int, size: int, down: Callable[[Peer], None]) -> None:
        """A new session: nothing is known."""
        self.up, self._down = True, down
        self.pipe = Pipe(fd, size)
        loop = cast("asyncio.AbstractEventLoop", self._loop)
        self.transport = Transport(cast("socket", self.pipe), self, loop)
        sent = self.negotiated.add_path_send
        self.heard = Heard(replace(self.negotiated, add_path_receive=sent, add_path_send=frozenset()))

    # -- as the reflector's session (`bgpd.bgp.update_groups.Client`) -----------------------------

    @property
    def name(self) -> PeerName:
        return self.config.name

    def send(self, data: bytes) -> None:
        self.transport.send(data)

    def attach(self, feed: Feed) -> Transport:
        self.transport.feed = feed
        return self.transport

    def reset(self, notification: Notification) -> None:
        self.resets.append(notification)
        self._down(self)

    # -- as the transport's owner -----------------------------------------------------------------

    def transport_connected(self, transport: Transport) -> None: ...
    def transport_received(self, transport: Transport, data: bytes) -> None: ...
    def transport_wrote(self, transport: Transport, size: int) -> None: ...
    def transport_closed(self, transport: Transport) -> None: ...

    def transport_lost(self, transport: Transport, text: str) -> None:  # noqa: ARG002  the owner's part
        raise AssertionError(text)

    # -- as the other end -------------------------------------------------------------------------

    def read(self, size: int) -> int:
        """Take up to `size` bytes that have come; how many that were."""
        data, self.pipe.held = self.pipe.held[:size], self.pipe.held[size:]
        self.heard.feed(data)
        writer = self._loop.writers.get(self.pipe.fileno())
        if data and writer:
            writer()
        return len(data)


class Network:
    """A reflector without sockets, and its peers."""

    def __init__(self, peers: Iterable[Peer], loop: VirtualLoop, random: Random) -> None:
        self.peers = {peer.name: peer for peer in peers}
        self.loop = loop
        self.random = random
        configs = tuple(peer.config for peer in self.peers.values())
        self.config = Config(
            "reflector.toml",
            SpeakerConfig(ASN, ROUTER_ID),
            peers=configs,
            imports=ImportConfig(ALLOW),
            reflector=ReflectorConfig(CLUSTER_ID),
        )
        policy = ImportPolicy(
            asn=ASN,
            router_id=ROUTER_ID,
            cluster_id=CLUSTER_ID,
            allow=ALLOW,
            peers={each.name: PeerImport(trusted=each.kind is PeerKind.IBGP) for each in configs},
        )
        self.rib = Rib(policy, max(1, *(each.add_paths for each in configs)))
        with patch("asyncio.get_running_loop", return_value=loop):
            self.out = Outbox(self.config, self.rib, self._write)
        self.completed = False
        self._sockets = 0
        self._pipes: dict[int, Pipe] = {}

    def _write(self, fd: int, data: bytes) -> int:
        """To the descriptor of a socket that is open: who writes to another hits whoever has it now."""
        assert self._pipes[fd].fileno() == fd
        return self._pipes[fd].send(data)

    def join(self, peer: Peer) -> None:
        """A session comes up, with a socket buffer of some size."""
        self._sockets += 1
        peer.connect(self._sockets, self.random.choice((60, 300, 1500, 100_000)), self.leave)
        self._pipes[self._sockets] = peer.pipe
        self.rib.session_up(peer.source, peer.negotiated.families)
        self.out.session_up(cast("PeerSession", peer), peer.negotiated)

    def leave(self, peer: Peer) -> None:
        """The session is lost."""
        if peer.up:
            peer.up = False
            self.out.session_down(peer.name)
            peer.transport.close()
            self.rib.session_down(peer.name)

    def flush(self) -> None:
        """What changed goes into the logs."""
        changes = self.rib.take_changes()
        if changes:
            self.out.groups.changed(changes)

    def complete(self) -> None:
        """The initial convergence is complete."""
        self.completed = True
        self.out.groups.complete()

    def settle(self) -> None:
        """Everything is passed on, and everybody reads all of it."""
        for _ in range(10_000):
            self.flush()
            self.loop.run(10_000)
            self.flush()  # a session may have been reset
            read = sum([peer.read(1 << 20) for peer in self.peers.values() if peer.up])
            if not read and not self.loop.ready:
                return
        raise AssertionError("peers that read everything never have it")
