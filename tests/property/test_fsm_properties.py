"""Whatever comes, in whatever order: the machine never raises, and two sessions are never Established."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bgpd.bgp.actions import (
    Action,
    CloseConnection,
    Deliver,
    OpenConnection,
    SessionClosed,
    SessionOpened,
    Transmit,
)
from bgpd.bgp.fsm import Fsm, LocalState
from bgpd.bgp.message import EndOfRib, Keepalive, Malformed, Message, Notification, Open, Update
from bgpd.bgp.negotiate import Endpoints
from bgpd.bgp.notifications import Cease, cease
from bgpd.config import PeerConfig, SpeakerConfig
from routes.path import PeerKind, PeerName
from routes.peer import Capabilities, GracefulRestart, SessionState
from routes.prefix import Address, Family

US, PEER = Address(b"\x0a\0\0\x0b"), Address(b"\x0a\0\0\x01")
SPEAKER = SpeakerConfig(asn=65000, router_id=11)
CONFIG = PeerConfig(PeerName("10.0.0.1"), PEER, asn=65000, kind=PeerKind.IBGP)
RESTART = GracefulRestart(120, notification=True, families=((Family.IPV4, True),))


def an_open(asn: int, hold_time: int, bgp_id: int, restart: GracefulRestart | None) -> Open:
    return Open(asn, hold_time, bgp_id, Capabilities(graceful_restart=restart))


opens = st.builds(
    an_open,
    st.sampled_from([65000, 65000, 65000, 1]),
    st.sampled_from([0, 1, 3, 90]),
    st.sampled_from([1, 11, 99]),
    st.sampled_from([None, RESTART]),
)
notifications = st.builds(
    Notification, st.integers(0, 9), st.integers(0, 11), st.binary(max_size=4)
) | st.sampled_from([cease(Cease.COLLISION), cease(Cease.ADMIN_RESET)])
messages: st.SearchStrategy[Message] = st.one_of(
    opens,
    st.just(Keepalive()),
    st.just(Keepalive()),
    st.just(Update(None, (), ())),
    st.just(EndOfRib(Family.IPV4)),
    notifications,
    st.just(Malformed(Notification(1, 1), "no marker")),
)
which = st.integers(0, 3)
events = st.one_of(
    st.tuples(st.just("start")),
    st.tuples(st.just("stop"), st.none() | notifications),
    st.tuples(st.just("reset"), notifications),
    st.tuples(st.just("accept")),
    st.tuples(st.just("connected"), which),
    st.tuples(st.just("failed"), which),
    st.tuples(st.just("output"), which, st.booleans()),
    st.tuples(st.just("received"), which, st.lists(messages, max_size=3)),
    st.tuples(st.just("received"), which, st.lists(messages, max_size=3)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 3.0, 5.0, 30.0, 100.0, 1000.0])),
)


class Outside:
    """Checks that actions make sense in the order in which they come."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.session: int | None = None

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case OpenConnection(connection):
                    assert connection not in self.open
                    self.open.add(connection)
                case Transmit(connection, _):
                    assert connection in self.open
                case CloseConnection(connection):
                    self.open.remove(connection)
                case SessionOpened(connection, _):
                    assert self.session is None
                    assert connection in self.open
                    self.session = connection
                case SessionClosed():
                    assert self.session is not None
                    assert self.session not in self.open
                    self.session = None
                case Deliver():
                    assert self.session is not None
                case _:
                    pass


def apply(fsm: Fsm, outside: Outside, event: tuple[object, ...], now: float) -> list[Action]:
    ends = Endpoints(US, 1, PEER, 2)
    ids = list(fsm.connections) or [0]
    match event:
        case ("start",):
            return fsm.start(now)
        case ("stop", None | Notification() as notification):
            return fsm.stop(notification, now)
        case ("reset", Notification() as notification):
            return fsm.reset(notification, now)
        case ("accept",):
            connection, actions = fsm.accepted(ends, now)
            outside.open.add(connection)
            return actions
        case ("connected", int(n)):
            return fsm.connected(ids[n % len(ids)], ends, now)
        case ("failed", int(n)):
            return fsm.failed(ids[n % len(ids)], "lost", now)
        case ("output", int(n), bool(blocked)):
            fsm.output(ids[n % len(ids)], blocked, now)
        case ("received", int(n), list(got)):
            return fsm.received(ids[n % len(ids)], got, now)
    return []


@given(st.lists(events, max_size=60), st.booleans(), st.integers())
def test_random_events_never_raise_and_never_leave_two_sessions(
    script: list[tuple[object, ...]], passive: bool, seed: int
) -> None:
    fsm = Fsm(replace(CONFIG, passive=passive), SPEAKER, LocalState(), Random(seed))
    outside = Outside()
    now = 0.0
    for event in script:
        if event[0] == "wait":
            now += float(str(event[1]))
            outside.do(fsm.timer(now))
        outside.do(apply(fsm, outside, event, now))
        established = [c for c in fsm.connections.values() if c.state is SessionState.ESTABLISHED]
        assert len(established) <= 1
        assert outside.session == (established[0].id if established else None)
        assert outside.open == set(fsm.connections)
        assert len(fsm.connections) <= 3
        assert fsm.connections == {} or fsm.running
        if fsm.running and not passive:
            assert fsm.connections or fsm.next_deadline() <= now + 60, "nothing will ever happen again"


class Pipe:
    """A TCP connection between two machines: ordered, each direction with its own delay."""

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}
        self.queue: dict[int, list[Message | None]] = {0: [], 1: []}


class Network:
    """Two speakers that both connect, on virtual time, with deliveries in an order that a seed chooses."""

    def __init__(self, seed: int, ids: tuple[int, int], restart: bool) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.pipes: list[Pipe] = []
        self.sessions = [0, 0]
        self.fsms = []
        for me in (0, 1):
            speaker = replace(SPEAKER, router_id=ids[me], graceful_restart=restart)
            self.fsms.append(Fsm(CONFIG, speaker, LocalState(), Random(seed + me)))

    def do(self, me: int, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case OpenConnection(connection):
                    pipe = Pipe()
                    pipe.ids[me] = connection
                    self.pipes.append(pipe)
                case Transmit(connection, message):
                    self.pipe(me, connection).queue[1 - me].append(message)
                case CloseConnection(connection):
                    pipe = self.pipe(me, connection)
                    pipe.queue[1 - me].append(None)
                    del pipe.ids[me]
                    pipe.queue[me].clear()
                    if len(pipe.ids) == 0 and pipe in self.pipes and not pipe.queue[1 - me][:-1]:
                        self.pipes.remove(pipe)
                case SessionOpened():
                    self.sessions[me] += 1
                case _:
                    pass

    def pipe(self, me: int, connection: int) -> Pipe:
        return next(p for p in self.pipes if p.ids.get(me) == connection)

    def step(self) -> bool:
        """Let one thing happen; False when nothing is under way."""
        choices: list[tuple[str, Pipe, int]] = []
        for pipe in self.pipes:
            if len(pipe.ids) == 1 and not any(pipe.queue.values()):
                (caller,) = pipe.ids
                if self.fsms[caller].connections[pipe.ids[caller]].state is SessionState.CONNECT:
                    choices.append(("connect", pipe, caller))
            choices += [("deliver", pipe, to) for to in (0, 1) if pipe.queue[to] and to in pipe.ids]
        if not choices:
            return False
        what, pipe, who = self.random.choice(choices)
        self.now += self.random.random() / 1000
        if what == "connect":
            self.connect(pipe, who)
        else:
            message = pipe.queue[who].pop(0)
            fsm, connection = self.fsms[who], pipe.ids[who]
            if message is None:
                self.do(who, fsm.failed(connection, "closed", self.now))
            else:
                self.do(who, fsm.received(connection, [message], self.now))
        return True

    def connect(self, pipe: Pipe, caller: int) -> None:
        ends = Endpoints(US, 1, PEER, 2)
        called = 1 - caller
        connection, actions = self.fsms[called].accepted(ends, self.now)
        pipe.ids[called] = connection
        self.do(caller, self.fsms[caller].connected(pipe.ids[caller], ends, self.now))
        self.do(called, actions)

    def run(self, until: float) -> None:
        while self.now < until:
            if self.step():
                continue
            deadlines = [fsm.next_deadline() for fsm in self.fsms]
            self.now = min(until, max(self.now, min(deadlines)))
            for me in (0, 1):
                if deadlines[me] <= self.now:
                    self.do(me, self.fsms[me].timer(self.now))


@given(st.integers(0, 1 << 30), st.permutations([1, 2]), st.booleans())
def test_two_speakers_that_connect_at_once_agree_on_one_connection(
    seed: int, ids: list[int], restart: bool
) -> None:
    network = Network(seed, (ids[0], ids[1]), restart)
    for me in (0, 1):
        network.do(me, network.fsms[me].start(0.0))
    network.run(20.0)
    ours, theirs = (fsm.established for fsm in network.fsms)
    assert ours is not None
    assert theirs is not None
    pipe = network.pipe(0, ours.id)
    assert pipe.ids[1] == theirs.id
    assert all(len(fsm.connections) == 1 for fsm in network.fsms)
    assert max(network.sessions) <= 2
