"""One configured peer: its state machine, its one or two TCP connections, its timer.

The edge around `fsm.py`: turns sockets, the clock and the loop into events, and does the actions that
come back.  Decides nothing about BGP.  Callbacks only, no task: an idle session costs one wake-up for each
KEEPALIVE sent or received.  A message that arrives moves a deadline and never touches the loop's timers:
the one timer of a session fires at the earliest time it was armed for, and looks again.

Everything runs on the loop that the session was made on.  The handler may call any method from a callback.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random as random_module
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Protocol

import structlog

from bgpd.bgp import codec, tcp
from bgpd.bgp.actions import (
    Action,
    AttemptFailed,
    CloseConnection,
    Deliver,
    OpenConnection,
    RoutingMessage,
    SessionClosed,
    SessionOpened,
    Transmit,
)
from bgpd.bgp.fsm import Fsm, LocalState
from bgpd.bgp.message import EndOfRib, Keepalive, Notification, Open, RouteRefresh, Update
from bgpd.bgp.notifications import Cease, Code, cease, describe
from bgpd.bgp.tcp import SocketAddress
from bgpd.bgp.transport import Feed, Transport
from bgpd.config import PeerConfig, SpeakerConfig
from bgpd.errors import PeerError
from routes.path import PeerName, Source
from routes.peer import Counters, LastError, Negotiated, PeerStatus, SessionState
from routes.prefix import Address

__all__ = ["LocalState", "PeerSession", "RoutingMessage", "SessionClosed", "SessionHandler", "needs_reset"]

OUTPUT_LIMIT = 16 << 20
"""Bytes that may wait for a peer; more resets it (Cease/Out of Resources)."""
_FAILURES_REMEMBERED = 16
"""Distinct failures that are logged once between two sessions; a peer chooses some of the words."""

log = structlog.get_logger()

_LIVE_FIELDS = (
    "name",
    "description",
    "max_prefixes",
    "allowas_in",
    "shutdown",
    "passive",
    "import_policies",
    "export_policies",
)
"""What may change while the session stays up; any other field is in the OPEN or in the socket."""


def needs_reset(old: PeerConfig, new: PeerConfig) -> bool:
    """Whether a session made with `old` must be made anew for `new`."""
    return replace(old, **{name: getattr(new, name) for name in _LIVE_FIELDS}) != new


def no_interface(_address: Address) -> int:
    """For `PeerSession.interface_of`: the interface of a local address is not known."""
    return 0


_ROUTING = frozenset((Update, EndOfRib, RouteRefresh))
"""The kinds of a `RoutingMessage`."""


class SessionHandler(Protocol):
    """The daemon's side of its sessions."""

    def session_established(self, session: PeerSession) -> None: ...
    def messages_received(self, session: PeerSession, messages: list[RoutingMessage]) -> None: ...
    def session_closed(self, session: PeerSession, closed: SessionClosed) -> None:
        """`session.negotiated` and `session.source` still tell of the session that was."""


class PeerSession:
    """See the module's text.  Nothing happens before `start`."""

    def __init__(
        self,
        config: PeerConfig,
        speaker: SpeakerConfig,
        handler: SessionHandler,
        local: LocalState,
        *,
        interface_of: Callable[[Address], int] = no_interface,
        random: random_module.Random | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._handler = handler
        self._fsm = Fsm(config, speaker, local, random or random_module.Random())  # noqa: S311 - jitter only
        self._interface_of = interface_of
        self._wires: dict[int, _Wire] = {}
        self._closing: set[_Wire] = set()
        self._all_closed: asyncio.Future[None] | None = None
        self._established: _Wire | None = None
        self._actions: deque[Action] = deque()
        self._acting = False
        self._started = False
        self._timer: asyncio.TimerHandle | None = None
        self._state = SessionState.IDLE
        self._state_since = self._loop.time()
        self._logged_failures: set[str] = set()
        self._overflowed = False
        self.counters = Counters()
        self.last_error: LastError | None = None
        self.negotiated: Negotiated | None = None
        """What the Established session agreed on; None without one."""
        self.source: Source | None = None
        """The source of the paths of the Established session; None without one."""
        self.on_drained: Callable[[], None] | None = None
        """Called when output that the kernel had refused is out: there is room again."""

    # -- for the daemon ---------------------------------------------------------------------------

    @property
    def config(self) -> PeerConfig:
        return self._fsm.config

    @property
    def name(self) -> PeerName:
        return self._fsm.config.name

    @property
    def state(self) -> SessionState:
        return self._fsm.state

    @property
    def pending_output(self) -> int:
        """Bytes sent that wait for the kernel to take them."""
        return self._established.transport.pending if self._established else 0

    @property
    def blocked(self) -> bool:
        """Whether the kernel takes no more output now; what is attached goes on by itself then."""
        return self._established is not None and self._established.transport.blocked

    def attach(self, feed: Feed) -> Transport | None:
        """Send what `feed` has, behind what `send` queues, for as long as this session is up.

        The answer is what to call when there is something in the feed; None without a session.
        """
        if self._established is None:
            return None
        self._established.transport.feed = feed
        return self._established.transport

    def start(self) -> None:
        """Connect, or wait for the peer; with `shutdown` configured, stay down."""
        self._started = True
        self._act(self._fsm.start(self._now()))

    async def stop(self, notification: Notification | None) -> None:
        """Go down and stay down.  None says nothing to the peer, so that graceful restart keeps our paths."""
        self._started = False
        self._act(self._fsm.stop(notification, self._now()))
        await self._closed()

    async def close_quietly(self, otherwise: Notification | None = None) -> None:
        """Go down for our own restart: a NOTIFICATION only to a peer that drops our paths anyway."""
        self._started = False
        self._act(self._fsm.stop_quietly(otherwise or cease(Cease.ADMIN_SHUTDOWN), self._now()))
        await self._closed()

    def reset(self, notification: Notification) -> None:
        """End the session with this NOTIFICATION, and begin again after the delay that is its due."""
        self._act(self._fsm.reset(notification, self._now()))

    def reconfigure(self, config: PeerConfig) -> None:
        """Take a changed configuration; the session ends only if it must."""
        old, self._fsm.config = self._fsm.config, config
        now = self._now()
        if config.shutdown:
            self._act(self._fsm.stop(cease(Cease.ADMIN_SHUTDOWN), now))
        elif not self._fsm.running:
            self._act(self._fsm.start(now) if self._started else [])
        elif needs_reset(old, config) or (old.passive != config.passive and self._established is None):
            self._act(self._fsm.reset(cease(Cease.CONFIG_CHANGE), now))

    def send(self, data: bytes, messages: int = 1) -> None:
        """Send whole UPDATE or ROUTE-REFRESH messages; ignored unless Established."""
        wire = self._established
        if wire is None or self._overflowed:
            return
        if wire.transport.pending + len(data) > OUTPUT_LIMIT:
            # Not from here: the caller may be in the middle of walking its sessions.
            self._overflowed = True
            self._loop.call_soon(self.reset, cease(Cease.OUT_OF_RESOURCES))
            return
        self.counters.messages_out += messages
        self.counters.updates_out += messages
        wire.transport.send(data)

    def remember_malformed(self, error: str) -> None:
        """Show what is wrong with an UPDATE that does not end the session (RFC 7606)."""
        self._remember(f"malformed UPDATE: {error}", None, None)

    def accept(self, sock: socket.socket, address: SocketAddress) -> None:
        """Take over a connection that the peer opened to the listener."""
        try:
            tcp.prepare_accepted(sock, self.config)
            ends = tcp.endpoints(sock)
            ends = ends._replace(ifindex=ends.ifindex or self._interface_of(ends.local_address))
        except PeerError as error:
            sock.close()
            self._attempt_failed(AttemptFailed(str(error), None, None))
            return
        except OSError as error:
            log.debug(
                "connection lost before it was taken", peer=self.name, source=address[0], error=str(error)
            )
            sock.close()
            return
        connection, actions = self._fsm.accepted(ends, self._now())
        wire = self._wire(connection, sock)
        wire.connected = True
        wire.transport.adopt()
        self._act(actions)

    def status(self, now: float) -> PeerStatus:
        """What the API shows; `now` in seconds since the epoch.  Counts of prefixes are the daemon's."""
        clock, fsm = self._now(), self._fsm
        shown = next((c for c in fsm.connections.values() if c.state is fsm.state), None)
        ends = shown.ends if shown else None
        negotiated = shown.negotiated if shown else None
        hold = negotiated.hold_time if negotiated else 0
        retry = min(fsm.retry_at, fsm.idle_until)
        return PeerStatus(
            name=self.name,
            kind=self.config.kind,
            asn=self.config.asn,
            local_asn=fsm.speaker.asn,
            state=fsm.state,
            admin_down=self.config.shutdown or not fsm.running,
            local_address=ends.local_address if ends else self.config.source_address,
            peer_address=self.config.address,
            local_port=ends.local_port if ends else 0,
            peer_port=ends.peer_port if ends else self.config.port,
            bgp_id=negotiated.peer_bgp_id if negotiated else 0,
            hold_time=hold,
            keepalive_time=hold / 3,
            hold_remaining=max(0.0, shown.deadline - clock) if shown and hold else 0,
            since=now - (clock - self._state_since),
            next_connect=max(0.0, retry - clock) if retry != inf else 0,
            negotiated=self.negotiated,
            last_error=self.last_error,
            counters=self._counted(),
            passive=self.config.passive,
            description=self.config.description,
        )

    def _counted(self) -> Counters:
        """The counters, with what is still counted by the open connections."""
        counters = replace(self.counters)
        for wire in self._wires.values():
            wire.add_counts(counters)
        return counters

    # -- events -----------------------------------------------------------------------------------

    def wire_connected(self, wire: _Wire) -> None:
        try:
            ends = tcp.endpoints(wire.transport.socket)
        except OSError as error:
            self.wire_lost(wire, f"connection lost: {error.strerror}")
            return
        ends = ends._replace(ifindex=ends.ifindex or self._interface_of(ends.local_address))
        self._act(self._fsm.connected(wire.connection, ends, self._now()))

    def wire_received(self, wire: _Wire, data: bytes) -> None:
        self.counters.bytes_in += len(data)
        messages = wire.decoder.feed(data)
        if not messages:
            return
        self.counters.messages_in += len(messages)
        routing = not self._acting and _ROUTING.issuperset(map(type, messages))
        if routing and self._fsm.heard(wire.connection, self._now()):
            # As `_act` does, for nearly all that comes: it changes no state, and brings no deadline nearer.
            self._acting = True
            try:
                self._deliver(messages)  # type: ignore[arg-type]  # none is of another type
            finally:
                self._acting = False
            if self._actions:
                self._act([])
            return
        actions = self._fsm.received(wire.connection, messages, self._now())
        if actions:
            self._act(actions)

    def wire_lost(self, wire: _Wire, text: str) -> None:
        if not wire.connected:
            hint = self._fsm.password_hint() if text == os.strerror(errno.ETIMEDOUT) else ""
            text = f"cannot connect to port {self.config.port}: {text}{hint}"
        self._act(self._fsm.failed(wire.connection, text, self._now()))

    def wire_wrote(self, wire: _Wire, size: int) -> None:
        blocked = wire.transport.blocked
        if blocked or not size:
            self._fsm.output(wire.connection, blocked, self._now())
            self._arm()
            if not blocked and self.on_drained is not None:
                self.on_drained()

    def wire_closed(self, wire: _Wire) -> None:
        self._closing.discard(wire)
        if not self._closing and self._all_closed is not None:
            self._all_closed.set_result(None)
            self._all_closed = None

    def _on_timer(self) -> None:
        now = self._now()
        if self._timer is not None:
            # The loop fires up to its clock's resolution early.
            now = max(now, self._timer.when())
        self._timer = None
        for connection in list(self._fsm.connections.values()):
            wire = self._wires.get(connection.id)
            if connection.deadline <= now and wire is not None and wire.connected:
                # If this process was held up, the peer's KEEPALIVE may be waiting in the socket.
                wire.transport.read_ready()
        self._act(self._fsm.timer(now))

    # -- actions ----------------------------------------------------------------------------------

    def _act(self, actions: list[Action]) -> None:
        """Do actions in order; those of events that they cause come after."""
        self._actions.extend(actions)
        if self._acting:
            return
        self._acting = True
        try:
            while self._actions:
                self._do(self._actions.popleft())
        finally:
            self._acting = False
        self._note_state()
        self._arm()

    def _deliver(self, messages: list[RoutingMessage]) -> None:
        self.counters.updates_in += list(map(type, messages)).count(Update)
        self._handler.messages_received(self, messages)

    def _do(self, action: Action) -> None:
        match action:
            case Transmit(connection, message):
                self._transmit(self._wires[connection], message)
            case OpenConnection(connection):
                self._connect(connection)
            case Deliver(messages):
                self._deliver(messages)
            case CloseConnection(connection):
                self._close(connection)
            case SessionOpened(connection, negotiated):
                self._opened(self._wires[connection], negotiated)
            case SessionClosed():
                self._session_closed(action)
            case AttemptFailed():
                self._attempt_failed(action)

    def _transmit(self, wire: _Wire, message: Open | Keepalive | Notification) -> None:
        self.counters.messages_out += 1
        match message:
            case Notification():
                wire.last = codec.encode_notification(message)
            case Open():
                wire.transport.send(codec.encode_open(message))
            case Keepalive():
                if self.negotiated is None:
                    self._prepare_decoder(wire)
                wire.transport.send(codec.encode_keepalive())

    def _prepare_decoder(self, wire: _Wire) -> None:
        """The first KEEPALIVE accepts the peer's OPEN; what follows it is read by what was agreed."""
        connection = self._fsm.connections.get(wire.connection)
        if connection is not None and connection.negotiated is not None:
            wire.decoder.negotiated = connection.negotiated

    def _connect(self, connection: int) -> None:
        try:
            sock = tcp.connecting_socket(self.config)
        except OSError as error:
            text = f"cannot connect: {error.strerror or error}"
            self._act(self._fsm.failed(connection, text, self._now()))
            return
        wire = self._wire(connection, sock)
        try:
            failure = wire.transport.connect(tcp.peer_address(self.config))
        except OSError as error:
            failure = error.strerror or str(error)
        if failure:
            self.wire_lost(wire, failure)

    def _wire(self, connection: int, sock: socket.socket) -> _Wire:
        wire = self._wires[connection] = _Wire(self, connection, sock, self._loop)
        return wire

    def _close(self, connection: int) -> None:
        wire = self._wires.pop(connection, None)
        if wire is not None:
            wire.add_counts(self.counters)
            self._closing.add(wire)
            wire.transport.close(wire.last)

    def _opened(self, wire: _Wire, negotiated: Negotiated) -> None:
        self._established = wire
        self._overflowed = False
        self.negotiated = negotiated
        self.source = Source(
            peer=self.name,
            kind=negotiated.kind,
            asn=negotiated.peer_asn,
            bgp_id=negotiated.peer_bgp_id,
            address=negotiated.peer_address,
            ifindex=negotiated.ifindex,
        )
        self._logged_failures.clear()
        families = [str(family) for family in sorted(negotiated.families)]
        log.info("session up", peer=self.name, hold_time=negotiated.hold_time, families=families)
        self._handler.session_established(self)

    def _session_closed(self, closed: SessionClosed) -> None:
        self.counters.flaps += 1
        self._established = None
        self._remember(closed.text, closed.notification, closed.sent)
        log.info("session down", peer=self.name, reason=closed.text, graceful=closed.graceful)
        self._handler.session_closed(self, closed)
        self.negotiated = None
        self.source = None

    def _attempt_failed(self, failed: AttemptFailed) -> None:
        rejected = failed.notification == cease(Cease.CONNECTION_REJECTED) and not failed.sent
        if not (rejected and self.last_error is not None and self.last_error.code == Code.OPEN):
            # A peer that idles after a bad OPEN rejects us: what it, or we, said of the OPEN is the reason.
            self._remember(failed.text, failed.notification, failed.sent)
        known = failed.text in self._logged_failures or len(self._logged_failures) >= _FAILURES_REMEMBERED
        level = log.debug if known else log.info
        if not known:
            self._logged_failures.add(failed.text)
        sent = {"sent": describe(failed.notification)} if failed.sent and failed.notification else {}
        level("connection failed", peer=self.name, reason=failed.text, **sent)

    def _remember(self, text: str, notification: Notification | None, sent: bool | None) -> None:
        code, subcode = (notification.code, notification.subcode) if notification else (0, 0)
        self.last_error = LastError(text, time.time(), sent, code, subcode)

    # -- time -------------------------------------------------------------------------------------

    def _note_state(self) -> None:
        state = self._fsm.state
        if state is not self._state:
            self._state = state
            self._state_since = self._now()

    def _arm(self) -> None:
        """Have `_on_timer` called by the next deadline; an earlier call is harmless, so moves are free."""
        deadline = self._fsm.next_deadline()
        if self._timer is not None:
            if self._timer.when() <= deadline < inf:
                return
            self._timer.cancel()
            self._timer = None
        if deadline < inf:
            self._timer = self._loop.call_at(deadline, self._on_timer)

    async def _closed(self) -> None:
        """Wait until no socket lingers; the linger time bounds it."""
        if self._closing:
            self._all_closed = self._all_closed or self._loop.create_future()
            await asyncio.shield(self._all_closed)


class _Wire:
    """One connection's transport and decoder; tells its session what happens."""

    __slots__ = ("connected", "connection", "decoder", "last", "session", "transport")

    def __init__(
        self, session: PeerSession, connection: int, sock: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.session = session
        self.connection = connection
        self.connected = False
        self.last = b""
        """The NOTIFICATION that goes out on close."""
        self.decoder = codec.Decoder()
        self.transport = Transport(sock, self, loop)

    def add_counts(self, counters: Counters) -> None:
        """Add what this connection's transport counts itself."""
        feed = self.transport.feed
        messages = feed.messages if feed is not None else 0
        counters.bytes_out += self.transport.bytes_out
        counters.messages_out += messages
        counters.updates_out += messages

    def transport_connected(self, _transport: Transport) -> None:
        self.connected = True
        self.session.wire_connected(self)

    def transport_received(self, _transport: Transport, data: bytes) -> None:
        self.session.wire_received(self, data)

    def transport_lost(self, _transport: Transport, text: str) -> None:
        self.session.wire_lost(self, text)

    def transport_wrote(self, _transport: Transport, size: int) -> None:
        self.session.wire_wrote(self, size)

    def transport_closed(self, _transport: Transport) -> None:
        self.session.wire_closed(self)
