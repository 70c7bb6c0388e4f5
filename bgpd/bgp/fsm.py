"""The state machine of one configured peer (RFC 4271 section 8), without sockets, clocks or randomness.

Events go in as method calls with the time; what the outside must do comes back as a list of actions.
A peer has one machine and, while two connections collide (section 6.8), two `Connection`s in it.  At
most one of them is Established, whatever happens, in whatever order.

Timers are deadlines kept here.  The transport asks for `next_deadline()` and calls `timer()`; a deadline
that moved later needs no call at all, which keeps a KEEPALIVE or UPDATE free of timer work.

Also RFC 4724 section 4.2 (a peer that reconnects has restarted), RFC 6608, RFC 8538, RFC 9687.  Of the
optional parts of section 8: automatic start, passive start, and the damping of oscillations, as a delay
that doubles with each failure; after a protocol error the peer is in Idle for it, and refuses connections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import ClassVar

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
from bgpd.bgp.connection import Connection, End, collision, for_peer, graceful, refuse, stopped
from bgpd.bgp.message import (
    EndOfRib,
    Keepalive,
    Malformed,
    Message,
    Notification,
    Open,
    RouteRefresh,
    Update,
)
from bgpd.bgp.negotiate import (
    Endpoints,
    agree,
    keeps_paths,
    offer,
    refused,
    we_are_dominant,
)
from bgpd.bgp.notifications import (
    Cease,
    Code,
    OpenError,
    describe,
)
from bgpd.config import PeerConfig, SpeakerConfig
from routes.peer import SessionState
from routes.prefix import Family

OPEN_WAIT = 60.0
"""Seconds to wait for an OPEN.  RFC 4271 section 8.2.2 suggests four minutes, which is long to wait for the
first sign of a peer that TTL security keeps mute."""
CONNECT_WAIT = 15.0
"""The longest that one attempt to connect may take: TCP has sent its SYN four times by then."""
COLLISION_WINDOW = 3.0
"""Seconds after Established in which another connection is taken for a collision, not for a restart."""
RESTART_WAIT = 10.0
"""Seconds to wait for the OPEN of a connection that comes while another is Established."""
SEND_HOLD_LEAST = 480.0
"""RFC 9687 section 3.1: the send hold time is the greater of this and twice the hold time."""

_PROTOCOL_ERRORS = frozenset({Code.HEADER, Code.OPEN, Code.UPDATE, Code.FSM, Code.REFRESH})
_CONFIGURED = frozenset({Cease.ADMIN_RESET, Cease.CONFIG_CHANGE})

IDLE, CONNECT, ACTIVE = SessionState.IDLE, SessionState.CONNECT, SessionState.ACTIVE
OPEN_SENT, OPEN_CONFIRM = SessionState.OPEN_SENT, SessionState.OPEN_CONFIRM
ESTABLISHED = SessionState.ESTABLISHED


@dataclass(slots=True)
class LocalState:
    """What each OPEN says of this speaker's own restart (RFC 4724 section 3); the daemon changes it."""

    restarting: bool = False
    forwarding: frozenset[Family] = frozenset()


@dataclass(slots=True)
class Fsm:
    """The machine; see the module's text for its rules."""

    config: PeerConfig
    speaker: SpeakerConfig
    local: LocalState
    random: Random
    connections: dict[int, Connection] = field(default_factory=dict)
    running: bool = False
    failures: int = 0
    """In a row; a session that lasted `connect_retry_max` ends the row."""
    retry_at: float = inf
    idle_until: float = inf
    established_at: float = -inf
    _plain: bool = False
    _last_id: int = 0

    # -- what can be asked ------------------------------------------------------------------------

    @property
    def state(self) -> SessionState:
        states = [c.state for c in self.connections.values()]
        for state in (ESTABLISHED, OPEN_CONFIRM, OPEN_SENT, CONNECT):
            if state in states:
                return state
        return ACTIVE if self.running and self.idle_until == inf else IDLE

    @property
    def established(self) -> Connection | None:
        return next((c for c in self.connections.values() if c.state is ESTABLISHED), None)

    def next_deadline(self) -> float:
        """When `timer` must be called; `inf`: not before another event."""
        deadline = min(self.retry_at, self.idle_until)
        for c in self.connections.values():
            deadline = min(deadline, c.deadline, c.keepalive_at, c.send_hold_at)
        return deadline

    # -- events: the operator's -------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """ManualStart, with or without passive TCP establishment."""
        if self.running or self.config.shutdown:
            return []
        self.running = True
        self.failures = 0
        return self._begin(now)

    def stop(self, notification: Notification | None, now: float) -> list[Action]:
        """ManualStop.  None closes without a word, so that graceful restart keeps our paths."""
        self.running = False
        self.retry_at = self.idle_until = inf
        return self._end_all(stopped(notification), now)

    def stop_quietly(self, otherwise: Notification, now: float) -> list[Action]:
        """Stop; the NOTIFICATION is sent only where the peer would not keep our paths anyway.

        A peer that lists no family in its capability does not restart gracefully itself, but helps us: so do
        FRR and BIRD by default (RFC 4724 section 4.2).
        """
        c = self.established
        keeps = c is not None and c.negotiated is not None and c.negotiated.graceful_restart is not None
        return self.stop(None if keeps else otherwise, now)

    def reset(self, notification: Notification, now: float) -> list[Action]:
        """End what there is and begin again: at once for the operator's sake, else after the usual delay."""
        if not self.running:
            return []
        text = f"reset by us with {describe(notification)}"
        actions = self._end_all(End(text, notification, True, quiet=True), now)
        subcode = notification.subcode if notification.code == Code.CEASE else None
        if subcode in _CONFIGURED:
            self.failures = 0
            self._wait(now, min(1.0, self.speaker.connect_retry), idle=False)
        elif subcode == Cease.MAX_PREFIXES and self.config.max_prefixes is not None:
            self._wait(now, self.config.max_prefixes.idle_time, idle=True)
        else:
            self._fail(now, idle=notification.code in _PROTOCOL_ERRORS)
        return actions

    # -- events: TCP ------------------------------------------------------------------------------

    def connected(self, connection: int, ends: Endpoints, now: float) -> list[Action]:
        """TcpConnectionConfirmed: ours is open."""
        c = self.connections.get(connection)
        return self._send_open(c, ends, now) if c is not None and c.state is CONNECT else []

    def accepted(self, ends: Endpoints, now: float) -> tuple[int, list[Action]]:
        """TcpConnectionConfirmed: the peer's.  Gives the number that the connection has from here."""
        c = self._new(incoming=True, state=OPEN_SENT, deadline=now + OPEN_WAIT, now=now)
        actions: list[Action] = []
        if self.state is IDLE:
            return c.id, refuse(c, Cease.CONNECTION_REJECTED)
        old = self.established
        if old is not None:
            if old.negotiated is None or not keeps_paths(old.negotiated):
                return c.id, refuse(c, Cease.COLLISION)
            c.deadline = now + RESTART_WAIT
        for other in self._others(c, incoming=True):
            # A peer opens one connection at a time: it has given up the one before.
            if other is not old:
                actions += self._end(other, collision("the peer opened another connection"), now)
        self.connections[c.id] = c
        return c.id, actions + self._send_open(c, ends, now, c.deadline)

    def failed(self, connection: int, text: str, now: float) -> list[Action]:
        """TcpConnectionFails: an attempt came to nothing, or the peer closed."""
        c = self.connections.get(connection)
        return self._end(c, End(text), now) if c is not None else []

    def output(self, connection: int, blocked: bool, now: float) -> None:
        """The socket took bytes, or has just stopped to; runs the send hold timer (RFC 9687)."""
        c = self.connections.get(connection)
        if c is not None and c.negotiated is not None:
            hold = max(SEND_HOLD_LEAST, 2.0 * c.negotiated.hold_time)
            c.send_hold_at = now + hold if blocked else inf

    # -- events: messages and time ----------------------------------------------------------------

    def heard(self, connection: int, now: float) -> bool:
        """Restart the hold timer, if the session is up on this connection; whether it is.

        Then routing messages may be delivered as they are: `received` in short, for nearly all that comes.
        """
        c = self.connections.get(connection)
        if c is None or c.state is not ESTABLISHED:
            return False
        if c.negotiated is not None and c.negotiated.hold_time:
            c.deadline = now + c.negotiated.hold_time
        return True

    def received(self, connection: int, messages: Sequence[Message], now: float) -> list[Action]:
        """Messages of one connection, in order."""
        c = self.connections.get(connection)
        actions: list[Action] = []
        batch: list[RoutingMessage] = []
        for message in messages:
            if c is None or c.id not in self.connections:
                break
            if isinstance(message, (Update, EndOfRib, RouteRefresh)) and c.state is ESTABLISHED:
                batch.append(message)
            else:
                if batch:
                    actions.append(Deliver(batch))
                    batch = []
                actions += self._receive(c, message, now)
        if batch:
            actions.append(Deliver(batch))
        if messages:
            self.heard(connection, now)
        return actions

    def timer(self, now: float) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        for c in list(self.connections.values()):
            if c.id not in self.connections:
                continue
            if c.send_hold_at <= now:
                stuck = Notification(Code.SEND_HOLD_TIMER)
                actions += self._end(c, End("the peer took no data for the send hold time", stuck, True), now)
            elif c.deadline <= now:
                actions += self._end(c, self._expired(c), now)
            elif c.keepalive_at <= now:
                actions.append(self._keepalive(c, now))
        if self.idle_until <= now or self.retry_at <= now:
            actions += self._begin(now)
        return actions

    # -- messages, by state -----------------------------------------------------------------------

    def _receive(self, c: Connection, message: Message, now: float) -> list[Action]:
        if isinstance(message, Notification):
            return self._end(c, self._notified(message), now)
        if isinstance(message, Malformed):
            return self._end(c, End(message.text, message.notification, True), now)
        react = self._REACTIONS.get((c.state, type(message)))
        if react is not None:
            return react(self, c, message, now)
        # RFC 6608: the subcode names the state, the data the message type.
        subcode = {OPEN_SENT: 1, OPEN_CONFIRM: 2, ESTABLISHED: 3}.get(c.state, 0)
        name = type(message).__name__
        text = f"unexpected {name} in state {c.state.value}"
        return self._end(c, End(text, Notification(Code.FSM, subcode), True), now)

    def _opened(self, c: Connection, message: Message, now: float) -> list[Action]:
        """OPEN in OpenSent."""
        if not isinstance(message, Open) or c.ours is None or c.ends is None:
            return []
        refusal = refused(self.config, c.ours, message)
        if refusal is not None:
            return self._end(c, End(refusal.text, refusal.notification, True), now)
        c.negotiated = agree(self.config, c.ours, message, c.ends)
        c.state = OPEN_CONFIRM
        c.deadline = now + (c.negotiated.hold_time or OPEN_WAIT)
        old = self.established
        if old is None:
            actions = self._resolve_collision(c, now)
            return actions + self._confirm(c, now) if c.id in self.connections else actions
        if c.began <= self.established_at + COLLISION_WINDOW:
            # Both ends may be choosing right now; closing either could close both.  The peer decides.
            c.parked = True
            c.deadline = now + COLLISION_WINDOW
            return []
        actions = []
        for other in self._others(c):
            if other is not old:
                actions += self._end(other, collision("the peer opened another connection"), now)
        text = "the peer opened a new connection: it has restarted"
        return actions + self._end(old, End(text), now) + self._confirm(c, now)

    def _resolve_collision(self, c: Connection, now: float) -> list[Action]:
        """RFC 4271 section 6.8, on the OPEN of `c`: of two in OpenConfirm, the dominant side's stays."""
        actions: list[Action] = []
        for other in self._others(c):
            if other.state is CONNECT:
                actions += self._end(other, collision("the peer's connection is ahead", None), now)
            elif other.state is OPEN_CONFIRM and c.ours is not None and c.negotiated is not None:
                keep_incoming = not we_are_dominant(c.ours, c.negotiated)
                loser = other if c.incoming == keep_incoming else c
                actions += self._end(loser, collision("lost the collision of two connections"), now)
        return actions

    def _confirm(self, c: Connection, now: float) -> list[Action]:
        """Answer the peer's OPEN; Established at once if its KEEPALIVE is there already."""
        c.parked = False
        if c.negotiated is not None:
            c.deadline = now + (c.negotiated.hold_time or OPEN_WAIT)
        actions: list[Action] = [self._keepalive(c, now)]
        return actions + self._confirmed(c, Keepalive(), now) if c.heard else actions

    def _confirmed(self, c: Connection, _message: Message, now: float) -> list[Action]:
        """KEEPALIVE in OpenConfirm."""
        if c.parked or c.negotiated is None:
            c.heard = True
            return []
        c.state = ESTABLISHED
        c.deadline = now + c.negotiated.hold_time if c.negotiated.hold_time else inf
        self.established_at = now
        self.retry_at = inf
        actions: list[Action] = []
        for other in self._others(c):
            if other.state is CONNECT:
                actions += self._end(other, collision("the session is established", None), now)
            else:
                other.deadline = min(other.deadline, now + COLLISION_WINDOW)
        return [*actions, SessionOpened(c.id, c.negotiated)]

    def _heard(self, _c: Connection, _message: Message, _now: float) -> list[Action]:
        """KEEPALIVE in Established: `received` has moved the hold timer."""
        return []

    def _notified(self, notification: Notification) -> End:
        if notification.code == Code.OPEN and notification.subcode in (
            OpenError.OPTIONAL_PARAMETER,
            OpenError.CAPABILITY,
        ):
            self._plain = not self._plain
        text = f"the peer sent {describe(notification)}"
        code = (notification.code, notification.subcode)
        lost = code == (Code.CEASE, Cease.COLLISION) and len(self.connections) > 1
        return End(text, notification, False, quiet=lost)

    # -- parts ------------------------------------------------------------------------------------

    def _begin(self, now: float) -> list[Action]:
        """Leave Idle, and connect unless the peer is passive or a connection is far enough."""
        self.idle_until = self.retry_at = inf
        busy = any(not c.incoming or c.state is not OPEN_SENT for c in self.connections.values())
        if self.config.passive or busy:
            return []
        delay = self._delay()
        c = self._new(incoming=False, state=CONNECT, deadline=now + min(delay, CONNECT_WAIT), now=now)
        self.connections[c.id] = c
        self.retry_at = now + delay
        return [OpenConnection(c.id)]

    def _new(self, incoming: bool, state: SessionState, deadline: float, now: float) -> Connection:
        self._last_id += 1
        return Connection(self._last_id, incoming, now, state, deadline)

    def _send_open(
        self, c: Connection, ends: Endpoints, now: float, deadline: float | None = None
    ) -> list[Action]:
        c.ends = ends
        c.state = OPEN_SENT
        c.deadline = deadline or now + OPEN_WAIT
        c.ours = offer(
            self.config, self.speaker, self.local.restarting, self.local.forwarding, plain=self._plain
        )
        if not c.incoming:
            self.retry_at = inf
        return [Transmit(c.id, c.ours)]

    def _keepalive(self, c: Connection, now: float) -> Transmit:
        hold = c.negotiated.hold_time if c.negotiated is not None else 0
        c.keepalive_at = now + hold / 3 * self.random.uniform(0.75, 1.0) if hold else inf
        return Transmit(c.id, Keepalive())

    def _expired(self, c: Connection) -> End:
        if c.state is CONNECT:
            text = f"no answer from port {self.config.port}"
            return End(text + self.password_hint())
        if self.established is not None and self.established is not c:
            return collision("the session is established on another connection")
        what = "nothing was heard from the peer"
        if c.state is OPEN_SENT:
            hint = ": the peer may lack TTL security, or be further away" if self.config.ttl_security else ""
            what = f"no OPEN came{hint}"
        return End(f"hold timer expired: {what}", Notification(Code.HOLD_TIMER), True)

    def password_hint(self) -> str:
        """A wrong TCP MD5 key looks like a dead peer: say so where one is configured."""
        return ": the peer may not have the same password" if self.config.password else ""

    def _others(self, c: Connection, incoming: bool = False) -> list[Connection]:
        return [o for o in self.connections.values() if o is not c and (o.incoming or not incoming)]

    def _end_all(self, end: End, now: float) -> list[Action]:
        actions: list[Action] = []
        # The Established one last: with it gone, a parked connection would go on.
        for c in sorted(self.connections.values(), key=lambda c: c.state is ESTABLISHED):
            actions += self._end(c, end, now)
        return actions

    def _end(self, c: Connection, end: End, now: float) -> list[Action]:
        """Forget a connection, tell the peer and our side, and arrange what comes next."""
        del self.connections[c.id]
        actions: list[Action] = []
        if end.sent and end.notification is not None and c.state is not CONNECT:
            actions.append(Transmit(c.id, for_peer(end.notification, c)))
        actions.append(CloseConnection(c.id))
        was_established = c.state is ESTABLISHED
        c.state = IDLE
        if was_established and c.negotiated is not None:
            keep = graceful(c.negotiated, end)
            actions.append(SessionClosed(end.text, end.notification, end.sent, keep))
            if now - self.established_at >= self.speaker.connect_retry_max:
                self.failures = 0
        elif not end.quiet:
            actions.append(AttemptFailed(end.text, end.notification, end.sent))
        if was_established:
            for other in self._others(c):
                if other.parked:
                    return actions + self._confirm(other, now)
                if other.state is OPEN_SENT:
                    other.deadline = now + OPEN_WAIT
        if not end.quiet:
            self._after_failure(c, end, now)
        return actions

    def _after_failure(self, c: Connection, end: End, now: float) -> None:
        attempt_failed = not c.incoming and c.ours is None
        if not self.running or self.connections:
            if attempt_failed:
                self.failures += 1
            elif self.running and self.retry_at == inf and self.established is None:
                self._fail(now, idle=False)
            return
        if attempt_failed:
            # The connect retry timer has run since the attempt began.
            self.failures += 1
            self.retry_at = max(now, self.retry_at)
            return
        self._fail(now, idle=end.notification is not None and end.notification.code in _PROTOCOL_ERRORS)

    def _fail(self, now: float, idle: bool) -> None:
        delay = self._delay()
        self.failures += 1
        if idle or self.retry_at == inf:
            self._wait(now, delay, idle)

    def _wait(self, now: float, delay: float, idle: bool) -> None:
        self.idle_until, self.retry_at = (now + delay, inf) if idle else (inf, now + delay)
        if self.config.passive:
            self.retry_at = inf

    def _delay(self) -> float:
        """The connect retry time: doubles with each failure up to its maximum, with jitter."""
        doubled = self.speaker.connect_retry * 2.0 ** min(self.failures, 16)
        return min(doubled, self.speaker.connect_retry_max) * self.random.uniform(0.75, 1.0)

    _REACTIONS: ClassVar[dict[tuple[SessionState, type[Message]], _Reaction]] = {
        (OPEN_SENT, Open): _opened,
        (OPEN_CONFIRM, Keepalive): _confirmed,
        (ESTABLISHED, Keepalive): _heard,
    }
    """What a message means by state; what is neither here nor routing is an FSM error (RFC 6608)."""


_Reaction = Callable[[Fsm, Connection, Message, float], list[Action]]
