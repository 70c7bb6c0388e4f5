"""The state machine, played: events go in, actions come out.  No sockets, no clock."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from random import Random

import pytest

from bgpd.bgp.actions import (
    Action,
    AttemptFailed,
    CloseConnection,
    Deliver,
    OpenConnection,
    SessionClosed,
    SessionOpened,
    Transmit,
)
from bgpd.bgp.fsm import COLLISION_WINDOW, OPEN_WAIT, Fsm, LocalState
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
from bgpd.bgp.negotiate import Endpoints
from bgpd.bgp.notifications import Cease, Code, cease, hard_reset
from bgpd.config import MaxPrefixes, PeerConfig, SpeakerConfig
from routes.path import PeerKind, PeerName
from routes.peer import Capabilities, GracefulRestart, SessionState
from routes.prefix import Address, Family, parse_address

US, PEER = parse_address("192.0.2.11"), parse_address("192.0.2.1")
ENDS = Endpoints(US, 40000, PEER, 179)
FROM_PEER = Endpoints(US, 179, PEER, 40001)
SPEAKER = SpeakerConfig(asn=65000, router_id=11, connect_retry=5.0, connect_retry_max=60.0)
CONFIG = PeerConfig(PeerName("192.0.2.1"), PEER, asn=65000, kind=PeerKind.IBGP)
BOTH = frozenset({Family.IPV4, Family.IPV6})
UPDATE = Update(None, (), ())
RESTART = GracefulRestart(120, families=((Family.IPV4, True), (Family.IPV6, False)))


def peer_open(
    bgp_id: int = 1, hold_time: int = 90, asn: int = 65000, restart: GracefulRestart | None = None
) -> Open:
    return Open(asn, hold_time, bgp_id, Capabilities(BOTH, asn, graceful_restart=restart))


class Play:
    """A machine and its time."""

    def __init__(self, config: PeerConfig = CONFIG, speaker: SpeakerConfig = SPEAKER) -> None:
        self.fsm = Fsm(config, speaker, LocalState(), Random(1))
        self.now = 1000.0

    def start(self) -> list[Action]:
        return self.fsm.start(self.now)

    def connect(self) -> int:
        """Start, and the TCP connection comes up."""
        (action,) = self.start()
        assert isinstance(action, OpenConnection)
        self.fsm.connected(action.connection, ENDS, self.now)
        return action.connection

    def accept(self) -> int:
        connection, actions = self.fsm.accepted(FROM_PEER, self.now)
        assert [type(a) for a in actions] == [Transmit]
        return connection

    def get(self, connection: int, *messages: Message) -> list[Action]:
        return self.fsm.received(connection, messages, self.now)

    def established(self, restart: GracefulRestart | None = None, **fields: int) -> int:
        connection = self.connect()
        self.get(connection, peer_open(restart=restart, **fields))
        *_, last = self.get(connection, Keepalive())
        assert isinstance(last, SessionOpened)
        return connection

    def state(self) -> SessionState:
        return self.fsm.state

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass, with the timer called at each deadline on the way."""
        end = self.now + seconds
        actions: list[Action] = []
        while (deadline := self.fsm.next_deadline()) <= end:
            self.now = max(self.now, deadline)
            actions += self.fsm.timer(self.now)
        self.now = end
        return actions


def closed(actions: list[Action]) -> SessionClosed:
    (found,) = (a for a in actions if isinstance(a, SessionClosed))
    return found


def failed(actions: list[Action]) -> AttemptFailed:
    (found,) = (a for a in actions if isinstance(a, AttemptFailed))
    return found


def sent(actions: list[Action]) -> list[Notification]:
    return [a.message for a in actions if isinstance(a, Transmit) and isinstance(a.message, Notification)]


# -- the straight way ---------------------------------------------------------------------------------


def test_a_session_goes_through_every_state() -> None:
    play = Play()
    assert play.state() is SessionState.IDLE
    (opening,) = play.start()
    assert play.state() is SessionState.CONNECT
    assert isinstance(opening, OpenConnection)
    (hello,) = play.fsm.connected(opening.connection, ENDS, play.now)
    assert isinstance(hello, Transmit)
    assert isinstance(hello.message, Open)
    assert play.state() is SessionState.OPEN_SENT
    assert play.get(opening.connection, peer_open()) == [Transmit(opening.connection, Keepalive())]
    assert play.state() is SessionState.OPEN_CONFIRM
    (up,) = play.get(opening.connection, Keepalive())
    assert isinstance(up, SessionOpened)
    assert (up.negotiated.peer_bgp_id, up.negotiated.families) == (1, BOTH)
    assert play.state() is SessionState.ESTABLISHED


def test_a_passive_peer_is_waited_for() -> None:
    play = Play(replace(CONFIG, passive=True))
    assert play.start() == []
    assert (play.fsm.state, play.fsm.next_deadline()) == (SessionState.ACTIVE, inf)
    connection = play.accept()
    *_, up = play.get(connection, peer_open(), Keepalive())
    assert isinstance(up, SessionOpened)


def test_a_peer_that_is_shut_down_stays_idle_and_refuses() -> None:
    play = Play(replace(CONFIG, shutdown=True))
    assert play.start() == []
    connection, actions = play.fsm.accepted(FROM_PEER, play.now)
    refusal = Transmit(connection, cease(Cease.CONNECTION_REJECTED))
    assert actions == [refusal, CloseConnection(connection)]
    assert play.fsm.state is SessionState.IDLE


def test_updates_are_delivered_in_order_with_what_ends_the_session_after_them() -> None:
    play = Play()
    c = play.established()
    end = EndOfRib(Family.IPV4)
    actions = play.get(
        c, UPDATE, Keepalive(), end, RouteRefresh(Family.IPV6), cease(Cease.ADMIN_RESET), UPDATE
    )
    assert actions[:2] == [Deliver([UPDATE]), Deliver([end, RouteRefresh(Family.IPV6)])]
    assert closed(actions).sent is False
    assert len(actions) == 4


# -- what may not come --------------------------------------------------------------------------------

STATES = ("sent", "confirm", "established")


def in_state(name: str) -> tuple[Play, int]:
    play = Play()
    if name == "established":
        return play, play.established()
    c = play.connect()
    if name == "confirm":
        play.get(c, peer_open())
    return play, c


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("sent", Keepalive()),
        ("sent", UPDATE),
        ("sent", RouteRefresh(Family.IPV4)),
        ("confirm", peer_open()),
        ("confirm", UPDATE),
        ("confirm", EndOfRib(Family.IPV4)),
        ("established", peer_open()),
    ],
)
def test_an_unexpected_message_is_an_fsm_error_that_names_the_state(state: str, message: Message) -> None:
    play, c = in_state(state)
    actions = play.get(c, message)
    assert sent(actions) == [Notification(Code.FSM, STATES.index(state) + 1)]
    assert play.fsm.state is SessionState.IDLE


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Notification(Code.UPDATE, 1), "the peer sent UPDATE Message Error/Malformed Attribute List (3/1)"),
        (Malformed(Notification(Code.HEADER, 2), "length 5000"), "length 5000"),
        (None, "the peer closed the connection"),
    ],
)
def test_every_state_ends_by_notification_malformed_bytes_or_loss(
    state: str, message: Message | None, says: str
) -> None:
    play, c = in_state(state)
    actions = play.get(c, message) if message else play.fsm.failed(c, says, play.now)
    end = closed(actions) if state == "established" else failed(actions)
    assert end.text == says
    assert sent(actions) == ([message.notification] if isinstance(message, Malformed) else [])
    assert CloseConnection(c) in actions
    assert play.fsm.connections == {}


@pytest.mark.parametrize(
    ("theirs", "code", "says"),
    [
        (peer_open(asn=65001), (2, 2), "expected AS 65000, got 65001"),
        (peer_open(bgp_id=0), (2, 3), "BGP identifier is 0.0.0.0"),
        (peer_open(bgp_id=11), (2, 3), "the peer has our own BGP identifier 0.0.0.11"),
        (peer_open(hold_time=2), (2, 6), "hold time 2"),
    ],
)
def test_a_bad_open_is_refused_with_both_values(theirs: Open, code: tuple[int, int], says: str) -> None:
    play, c = in_state("sent")
    actions = play.get(c, theirs)
    (notification,) = sent(actions)
    assert (notification.code, notification.subcode) == code
    assert says in failed(actions).text


def test_no_common_family_is_an_unsupported_capability() -> None:
    play = Play(replace(CONFIG, families=(Family.IPV6,)))
    c = play.connect()
    actions = play.get(c, Open(65000, 90, 1, Capabilities()))
    assert sent(actions) == [Notification(2, 7, bytes((1, 4, 0, 2, 0, 1)))]
    assert failed(actions).text == "no address family in common: we want ipv6, the peer offers ipv4"


def test_a_refused_capability_is_left_out_of_the_next_open() -> None:
    play, c = in_state("sent")
    play.get(c, Notification(2, 7))
    (again,) = play.wait(6)
    assert isinstance(again, OpenConnection)
    (hello,) = play.fsm.connected(again.connection, ENDS, play.now)
    assert isinstance(hello, Transmit)
    assert isinstance(hello.message, Open)
    assert hello.message.capabilities == Capabilities(BOTH, 65000)


# -- timers -------------------------------------------------------------------------------------------


def test_the_hold_timer_ends_a_silent_session() -> None:
    play = Play()
    c = play.established(hold_time=30)
    play.wait(29)
    play.get(c, UPDATE)
    actions = play.wait(29.9)
    assert {a.message for a in actions if isinstance(a, Transmit)} == {Keepalive()}
    actions = play.wait(0.2)
    assert sent(actions) == [Notification(Code.HOLD_TIMER)]
    assert "nothing was heard" in closed(actions).text


def test_an_incomplete_message_does_not_feed_the_hold_timer() -> None:
    play = Play()
    c = play.established(hold_time=30)
    play.wait(29)
    play.get(c)
    assert closed(play.wait(1.1))


def test_keepalives_go_out_at_a_third_of_the_hold_time_with_jitter() -> None:
    play = Play()
    c = play.established(hold_time=30)
    times = []
    for _ in range(40):
        deadline = play.fsm.next_deadline()
        times.append(deadline - play.now)
        assert play.wait(deadline - play.now) == [Transmit(c, Keepalive())]
        play.get(c, Keepalive())
    assert min(times) >= 7.5
    assert max(times) <= 10
    assert len(set(times)) > 30


def test_hold_time_zero_runs_no_timer_at_all() -> None:
    play = Play()
    play.established(hold_time=0)
    assert play.fsm.next_deadline() == inf


def test_the_wait_for_an_open_ends() -> None:
    play, _ = in_state("sent")
    assert play.wait(OPEN_WAIT - 1) == []
    actions = play.wait(2)
    assert sent(actions) == [Notification(Code.HOLD_TIMER)]


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("", "no answer from port 179"),
        ("x", "no answer from port 179: the peer may not have the same password"),
    ],
)
def test_an_attempt_without_answer_ends_and_is_made_again(password: str, says: str) -> None:
    play = Play(replace(CONFIG, password=password))
    play.start()
    actions = play.wait(5)
    assert failed(actions).text == says
    assert isinstance(actions[-1], OpenConnection)


def test_attempts_back_off_up_to_the_maximum() -> None:
    play = Play()
    (action,) = play.start()
    gaps = []
    for _ in range(8):
        assert isinstance(action, OpenConnection)
        play.fsm.failed(action.connection, "Connection refused", play.now)
        gaps.append(play.fsm.next_deadline() - play.now)
        (action,) = play.wait(gaps[-1])
    for gap, nominal in zip(gaps, (5, 10, 20, 40, 60, 60, 60, 60), strict=True):
        assert 0.75 * nominal <= gap <= nominal


def test_a_protocol_error_idles_for_a_growing_time_and_refuses_meanwhile() -> None:
    play = Play()
    c = play.connect()
    idle = []
    for _ in range(4):
        play.get(c, peer_open(asn=1))
        assert play.fsm.state is SessionState.IDLE
        _, actions = play.fsm.accepted(FROM_PEER, play.now)
        assert sent(actions) == [cease(Cease.CONNECTION_REJECTED)]
        idle.append(play.fsm.next_deadline() - play.now)
        (action,) = play.wait(idle[-1])
        assert isinstance(action, OpenConnection)
        c = action.connection
        play.fsm.connected(c, ENDS, play.now)
    assert idle[0] <= 5
    assert idle[3] >= 30


def test_only_a_session_that_lasted_ends_the_row_of_failures() -> None:
    play = Play()
    c = play.established()
    play.fsm.failed(c, "lost", play.now)
    assert play.fsm.failures == 1
    (action,) = play.wait(5)
    assert isinstance(action, OpenConnection)
    play.fsm.connected(action.connection, ENDS, play.now)
    play.get(action.connection, peer_open(), Keepalive())
    play.wait(61)
    play.fsm.failed(action.connection, "lost", play.now)
    assert play.fsm.failures == 1
    assert play.fsm.next_deadline() - play.now <= 5


def test_blocked_output_ends_the_session_after_the_send_hold_time() -> None:
    play = Play()
    c = play.established()

    def hear(seconds: float) -> list[Action]:
        actions = []
        for _ in range(int(seconds) // 60):
            actions += play.wait(60)
            actions += play.get(c, Keepalive())
        return [a for a in actions if not (isinstance(a, Transmit) and isinstance(a.message, Keepalive))]

    play.fsm.output(c, True, play.now)
    assert hear(420) == []
    play.fsm.output(c, True, play.now)
    assert hear(420) == []
    play.fsm.output(c, False, play.now)
    assert hear(600) == []
    play.fsm.output(c, True, play.now)
    actions = hear(480)
    assert sent(actions) == [Notification(Code.SEND_HOLD_TIMER)]
    assert closed(actions).notification == Notification(Code.SEND_HOLD_TIMER)


# -- collisions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("incoming_first", [True, False])
@pytest.mark.parametrize(("peer_id", "incoming_stays"), [(1, False), (99, True)])
def test_a_collision_keeps_the_connection_of_the_higher_identifier(
    incoming_first: bool, peer_id: int, incoming_stays: bool
) -> None:
    play = Play()
    ours = play.connect()
    theirs = play.accept()
    first, second = (theirs, ours) if incoming_first else (ours, theirs)
    play.get(first, peer_open(bgp_id=peer_id))
    actions = play.get(second, peer_open(bgp_id=peer_id))
    stays, goes = (theirs, ours) if incoming_stays else (ours, theirs)
    assert sent(actions) == [cease(Cease.COLLISION)]
    assert CloseConnection(goes) in actions
    assert not any(isinstance(a, AttemptFailed) for a in actions)
    *_, up = play.get(stays, Keepalive())
    assert isinstance(up, SessionOpened)
    assert list(play.fsm.connections) == [stays]


def test_an_attempt_is_given_up_when_the_peers_connection_is_ahead() -> None:
    play = Play()
    (opening,) = play.start()
    assert isinstance(opening, OpenConnection)
    theirs = play.accept()
    assert CloseConnection(opening.connection) in play.get(theirs, peer_open())


@pytest.mark.parametrize("peer_lets_go_of_ours", [True, False])
def test_a_collision_that_ends_after_established_is_left_to_the_peer(peer_lets_go_of_ours: bool) -> None:
    play = Play()
    ours = play.connect()
    theirs = play.accept()
    play.get(ours, peer_open(), Keepalive())
    assert play.get(theirs, peer_open(), Keepalive()) == []
    if peer_lets_go_of_ours:
        actions = play.get(ours, cease(Cease.COLLISION))
        assert isinstance(actions[-1], SessionOpened)
        assert list(play.fsm.connections) == [theirs]
    else:
        actions = play.wait(COLLISION_WINDOW)
        assert actions == [Transmit(theirs, cease(Cease.COLLISION)), CloseConnection(theirs)]
        assert play.fsm.state is SessionState.ESTABLISHED


def test_a_second_connection_of_the_peer_replaces_its_first() -> None:
    play = Play(replace(CONFIG, passive=True))
    play.start()
    first = play.accept()
    second, actions = play.fsm.accepted(FROM_PEER, play.now)
    assert actions[:2] == [Transmit(first, cease(Cease.COLLISION)), CloseConnection(first)]
    assert list(play.fsm.connections) == [second]


def test_a_connection_while_established_is_refused_without_graceful_restart() -> None:
    play = Play()
    play.established()
    play.wait(30)
    _, actions = play.fsm.accepted(FROM_PEER, play.now)
    assert sent(actions) == [cease(Cease.COLLISION)]
    assert play.fsm.state is SessionState.ESTABLISHED


# -- graceful restart ---------------------------------------------------------------------------------


def test_a_peer_that_restarted_replaces_its_session_without_a_notification() -> None:
    play = Play()
    old = play.established(RESTART)
    play.wait(30)
    new = play.accept()
    assert play.fsm.state is SessionState.ESTABLISHED
    actions = play.get(new, peer_open(restart=RESTART), Keepalive())
    assert closed(actions).graceful
    assert sent(actions) == []
    assert CloseConnection(old) in actions
    assert isinstance(actions[-1], SessionOpened)


def test_a_mute_connection_does_not_disturb_an_established_session() -> None:
    play = Play()
    c = play.established(RESTART)
    play.wait(30)
    mute = play.accept()
    actions = play.wait(20)
    assert CloseConnection(mute) in actions
    assert list(play.fsm.connections) == [c]


N_BIT = replace(RESTART, notification=True)


@pytest.mark.parametrize(
    ("restart", "end", "graceful"),
    [
        (None, None, False),
        (RESTART, None, True),
        (GracefulRestart(120), None, False),
        (RESTART, cease(Cease.ADMIN_RESET), False),
        (N_BIT, cease(Cease.ADMIN_RESET), True),
        (N_BIT, Notification(Code.HOLD_TIMER), True),
        (N_BIT, hard_reset(cease(Cease.ADMIN_SHUTDOWN)), False),
    ],
)
def test_what_keeps_the_peers_paths(
    restart: GracefulRestart | None, end: Notification | None, graceful: bool
) -> None:
    play = Play()
    c = play.established(restart)
    actions = play.get(c, end) if end else play.fsm.failed(c, "lost", play.now)
    assert closed(actions).graceful is graceful


@pytest.mark.parametrize(("restart", "wrapped"), [(RESTART, False), (N_BIT, True)])
def test_a_shutdown_is_a_hard_reset_for_a_peer_that_would_keep_our_paths(
    restart: GracefulRestart, wrapped: bool
) -> None:
    play = Play()
    play.established(restart)
    shutdown = cease(Cease.ADMIN_SHUTDOWN, "new kernel")
    actions = play.fsm.stop(shutdown, play.now)
    assert sent(actions) == [hard_reset(shutdown) if wrapped else shutdown]
    assert closed(actions).graceful is False
    assert (play.fsm.state, play.fsm.next_deadline()) == (SessionState.IDLE, inf)


@pytest.mark.parametrize(("restart", "quiet"), [(None, False), (GracefulRestart(120), True), (RESTART, True)])
def test_leaving_for_a_restart_is_silent_where_the_peer_keeps_our_paths(
    restart: GracefulRestart | None, quiet: bool
) -> None:
    play = Play()
    play.established(restart)
    actions = play.fsm.stop_quietly(cease(Cease.ADMIN_SHUTDOWN), play.now)
    assert sent(actions) == ([] if quiet else [cease(Cease.ADMIN_SHUTDOWN)])


def test_our_open_says_what_of_our_forwarding_was_kept() -> None:
    play = Play()
    play.fsm.local = LocalState(restarting=True, forwarding=frozenset({Family.IPV6}))
    c = play.connect()
    ours = play.fsm.connections[c].ours
    assert ours is not None
    expected = ((Family.IPV4, False), (Family.IPV6, True))
    assert ours.capabilities.graceful_restart == GracefulRestart(120, True, True, expected)


# -- the operator -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notification", "state", "least", "most"),
    [
        (cease(Cease.ADMIN_RESET), SessionState.ACTIVE, 0, 1),
        (cease(Cease.CONFIG_CHANGE), SessionState.ACTIVE, 0, 1),
        (cease(Cease.OUT_OF_RESOURCES), SessionState.ACTIVE, 3, 5),
        (Notification(Code.UPDATE, 1), SessionState.IDLE, 3, 5),
        (cease(Cease.MAX_PREFIXES), SessionState.IDLE, 300, 300),
    ],
)
def test_a_reset_comes_back_after_its_due_time(
    notification: Notification, state: SessionState, least: float, most: float
) -> None:
    play = Play(replace(CONFIG, max_prefixes=MaxPrefixes(10, idle_time=300)))
    play.established()
    actions = play.fsm.reset(notification, play.now)
    assert sent(actions) == [notification]
    assert play.fsm.state is state
    assert least <= play.fsm.next_deadline() - play.now <= most
    assert isinstance(play.wait(most)[0], OpenConnection)


def test_stop_ends_both_connections_of_a_collision() -> None:
    play = Play()
    ours = play.connect()
    theirs = play.accept()
    play.get(ours, peer_open(), Keepalive())
    play.get(theirs, peer_open(), Keepalive())
    actions = play.fsm.stop(cease(Cease.PEER_DECONFIGURED), play.now)
    assert {a.connection for a in actions if isinstance(a, CloseConnection)} == {ours, theirs}
    assert not any(isinstance(a, SessionOpened) for a in actions)


def test_events_of_a_forgotten_connection_change_nothing() -> None:
    play = Play()
    c = play.established()
    play.fsm.stop(None, play.now)
    assert play.get(c, Keepalive(), UPDATE) == []
    assert play.fsm.failed(c, "late", play.now) == []
    assert play.fsm.connected(c, ENDS, play.now) == []


def test_ends_of_the_connection_reach_what_was_negotiated() -> None:
    play = Play()
    c = play.connect()
    play.fsm.connections[c].ends = ENDS._replace(ifindex=7, local_address=Address(b"\x0a\0\0\1"))
    (_, up) = play.get(c, peer_open(), Keepalive())
    assert isinstance(up, SessionOpened)
    assert (up.negotiated.ifindex, up.negotiated.local_address) == (7, b"\x0a\0\0\1")
