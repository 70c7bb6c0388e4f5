"""Sessions over real sockets on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import wraps

import pytest
from structlog.testing import capture_logs

from bgpd.bgp import codec
from bgpd.bgp.message import EndOfRib, Notification, Open, RouteRefresh, Update
from bgpd.bgp.notifications import Cease, Code, cease
from bgpd.bgp.session import OUTPUT_LIMIT, PeerSession, needs_reset
from bgpd.bgp.transport import READ_LARGEST
from routes.path import AsPath, AsSegment, Origin, PathAttributes, PeerKind, SegmentKind
from routes.peer import Capabilities, SessionState
from routes.prefix import Family, Prefix, parse_address
from tests.fakes.sessions import Speaker, run, until

Test = Callable[[], Coroutine[object, object, None]]


def on_loop(test: Test) -> Callable[[], None]:
    @wraps(test)
    def wrapper() -> None:
        run(test)

    return wrapper


@asynccontextmanager
async def pair(a: Speaker | None = None, b: Speaker | None = None, **fields: object) -> AsyncIterator[Pair]:
    both = Pair(a or Speaker("127.0.0.11"), b or Speaker("127.0.0.12"), fields)
    try:
        yield both
    finally:
        await both.a.close()
        await both.b.close()


class Pair:
    """Two speakers with a session each; not started."""

    def __init__(self, a: Speaker, b: Speaker, fields: dict[str, object]) -> None:
        self.a, self.b = a, b
        self.ours: PeerSession = a.peer_with(b, **fields)
        self.theirs: PeerSession = b.peer_with(a, **fields)

    def established(self) -> bool:
        return {self.ours.state, self.theirs.state} == {SessionState.ESTABLISHED}

    async def up(self) -> None:
        self.ours.start()
        self.theirs.start()
        await until(self.established)


def updates(count: int, session: PeerSession) -> list[bytes]:
    assert session.negotiated is not None
    as_path = AsPath.of((AsSegment(SegmentKind.SEQUENCE, (65001,)),))
    attributes = PathAttributes(Origin.IGP, as_path, parse_address("192.0.2.1"), local_pref=100)
    made = []
    for n in range(count):
        nlri = Prefix.parse(f"10.{n >> 8 & 255}.{n & 255}.0/24")
        made += codec.encode_updates(attributes._replace(med=n), [nlri], [], session.negotiated)
    return made


@on_loop
async def test_both_connect_at_once_and_one_session_comes_up() -> None:
    async with pair() as p:
        await p.up()
        await asyncio.sleep(0.1)
        assert (p.a.recorder.up, p.b.recorder.up) == (1, 1)
        assert p.a.recorder.closed == []
        assert p.ours.negotiated is not None
        assert p.ours.negotiated.families == {Family.IPV4, Family.IPV6}
        assert p.ours.source is not None
        assert p.ours.source.address == parse_address("127.0.0.12")


@pytest.mark.parametrize("addresses", [("127.0.0.11", "127.0.0.12"), ("::1", "::1")])
@pytest.mark.parametrize("asn", [65000, 4200000001])
def test_ebgp_and_ibgp_over_both_families(addresses: tuple[str, str], asn: int) -> None:
    async def test() -> None:
        async with pair(Speaker(addresses[0], router_id=7), Speaker(addresses[1], asn=asn)) as p:
            await p.up()
            assert p.theirs.negotiated is not None
            assert p.theirs.negotiated.kind is (PeerKind.IBGP if asn == 65000 else PeerKind.EBGP)

    run(test)


@on_loop
async def test_messages_arrive_in_order_whatever_the_pieces() -> None:
    async with pair() as p:
        await p.up()
        assert p.ours.negotiated is not None
        p.ours.send(b"".join(updates(500, p.ours)), 500)
        for message in updates(100, p.ours):
            p.ours.send(message)
        p.ours.send(codec.encode_end_of_rib(Family.IPV4, p.ours.negotiated))
        p.ours.send(codec.encode_route_refresh(RouteRefresh(Family.IPV6)))
        await until(lambda: len(p.b.recorder.messages) == 602)
        meds = [m.attributes.med for m in p.b.recorder.messages if isinstance(m, Update) and m.attributes]
        assert meds == [*range(500), *range(100)]
        assert p.b.recorder.messages[-2:] == [EndOfRib(Family.IPV4), RouteRefresh(Family.IPV6)]
        assert p.theirs.counters.updates_in == 600
        assert p.ours.counters.messages_out >= 604


class RawPeer:
    """The peer of a session, by hand: a socket that speaks when told."""

    def __init__(self, speaker: Speaker, address: str = "127.0.0.12") -> None:
        self.loop = asyncio.get_running_loop()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.socket.setblocking(False)
        self.socket.bind((address, 0))
        self.speaker = speaker

    async def connect(self) -> None:
        await self.loop.sock_connect(self.socket, (self.speaker.address, self.speaker.port))

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.socket, data)

    async def read_all(self) -> bytes:
        """Until the other side closes."""
        pieces = []
        while data := await asyncio.wait_for(self.loop.sock_recv(self.socket, 1 << 20), 5):
            pieces.append(data)
        return b"".join(pieces)

    async def establish(self, hold_time: int = 90) -> None:
        await self.connect()
        hello = Open(65000, hold_time, 12, Capabilities(frozenset({Family.IPV4}), 65000))
        for byte in codec.encode_open(hello) + codec.encode_keepalive():
            await self.send(bytes((byte,)))


@asynccontextmanager
async def raw_peer() -> AsyncIterator[tuple[Speaker, PeerSession, RawPeer]]:
    speaker, other = Speaker("127.0.0.11"), Speaker("127.0.0.12")
    session = speaker.peer_with(other, passive=True)
    session.start()
    peer = RawPeer(speaker)
    try:
        yield speaker, session, peer
    finally:
        peer.socket.close()
        await speaker.close()
        await other.close()


@on_loop
async def test_input_byte_by_byte_is_a_session() -> None:
    async with raw_peer() as (_, session, peer):
        await peer.establish()
        await until(lambda: session.state is SessionState.ESTABLISHED)


@on_loop
async def test_a_peer_that_reads_slowly_is_bounded_and_reset() -> None:
    async with raw_peer() as (speaker, session, peer):
        await peer.establish()
        await until(lambda: session.state is SessionState.ESTABLISHED)
        block = b"".join(updates(4000, session))
        while session.pending_output + len(block) <= OUTPUT_LIMIT:
            session.send(block, 4000)
            await asyncio.sleep(0)
        assert speaker.recorder.closed == []
        session.send(block, 4000)
        assert speaker.recorder.closed == []
        await until(lambda: speaker.recorder.closed != [])
        assert speaker.recorder.closed[0].notification == cease(Cease.OUT_OF_RESOURCES)
        assert session.pending_output == 0


@on_loop
async def test_a_notification_goes_out_after_the_message_that_was_begun_and_nothing_else() -> None:
    async with raw_peer() as (_, session, peer):
        await peer.establish()
        await until(lambda: session.state is SessionState.ESTABLISHED)
        block = b"".join(updates(4000, session))
        for _ in range(40):
            session.send(block, 4000)
        await until(lambda: 0 < session.pending_output < 40 * len(block))
        await asyncio.sleep(0.05)
        session.reset(cease(Cease.ADMIN_RESET, "enough"))
        stream = await peer.read_all()
        kinds, position = [], 0
        while position < len(stream):
            kinds.append(stream[position + 18])
            position += int.from_bytes(stream[position + 16 : position + 18], "big")
        assert position == len(stream)
        assert kinds[:2] == [1, 4]
        assert set(kinds[2:-1]) == {2}
        assert len(kinds) < 160000
        assert stream.endswith(codec.encode_notification(cease(Cease.ADMIN_RESET, "enough")))


@on_loop
async def test_drained_output_is_told() -> None:
    async with raw_peer() as (_, session, peer):
        await peer.establish()
        await until(lambda: session.state is SessionState.ESTABLISHED)
        drained: list[int] = []
        session.on_drained = lambda: drained.append(session.pending_output)
        block = b"".join(updates(4000, session))
        for _ in range(40):
            session.send(block, 4000)
        await asyncio.sleep(0.05)
        assert drained == []
        while not drained:
            await peer.loop.sock_recv(peer.socket, 1 << 20)
        assert drained == [0]


@on_loop
async def test_a_full_table_of_one_peer_does_not_starve_the_loop() -> None:
    async with pair() as p:
        await p.up()
        block = b"".join(updates(2000, p.ours))
        for _ in range(8):
            p.ours.send(block, 2000)
        most = READ_LARGEST // (len(block) // 2000) + 1
        while (taken := len(p.b.recorder.messages)) < 16000:
            await asyncio.sleep(0)
            assert len(p.b.recorder.messages) - taken <= most < 16000 / 3, "others have their turn between"
        assert p.b.recorder.batches >= 8


@on_loop
async def test_stop_tells_the_peer_why_in_the_operators_words() -> None:
    async with pair(graceful_restart=False) as p:
        await p.up()
        await p.ours.stop(cease(Cease.ADMIN_SHUTDOWN, "new kernel\n"))
        await until(lambda: p.b.recorder.closed != [])
        (closed,) = p.b.recorder.closed
        assert closed.text == 'the peer sent Cease/Administrative Shutdown (6/2): "new kernel"'
        assert (closed.sent, closed.graceful) == (False, False)
        assert p.ours.status(0).admin_down
        error = p.theirs.status(0).last_error
        assert error is not None
        assert (error.code, error.subcode, error.sent) == (6, 2, False)


@on_loop
async def test_leaving_quietly_keeps_our_paths_with_the_peer() -> None:
    async with pair() as p:
        await p.up()
        await p.ours.close_quietly()
        await until(lambda: p.b.recorder.closed != [])
        (closed,) = p.b.recorder.closed
        assert (closed.text, closed.notification, closed.graceful) == (
            "the peer closed the connection",
            None,
            True,
        )


@on_loop
async def test_a_peer_that_comes_back_after_a_restart_replaces_its_session() -> None:
    async with pair() as p:
        await p.up()
        p.ours._fsm.established_at -= 60  # noqa: SLF001 - as if it were up for a while
        reborn = Speaker("127.0.0.12")
        again = reborn.peer_with(p.a, port=p.a.port)
        again.start()
        await until(lambda: p.a.recorder.up == 2)
        (closed,) = p.a.recorder.closed
        assert "has restarted" in closed.text
        assert closed.graceful
        await reborn.close()


@on_loop
async def test_a_wrong_as_number_is_said_on_both_sides_and_logged_once() -> None:
    with capture_logs() as logs:
        async with pair(b=Speaker("127.0.0.12", asn=65001)) as p:
            # Only one side connects: of two connections at once, either may be told first.
            p.ours.reconfigure(replace(p.ours.config, asn=65002, kind=PeerKind.EBGP, passive=True))
            p.ours.start()
            p.theirs.start()
            await until(lambda: p.ours.last_error is not None and p.theirs.last_error is not None)
            assert p.ours.last_error is not None
            assert p.ours.last_error.text == "expected AS 65002, got 65001"
            await asyncio.sleep(1.5)
            assert p.ours.last_error.code == Code.OPEN
    lines = [
        entry
        for entry in logs
        if entry["event"] == "connection failed" and entry.get("reason") == "expected AS 65002, got 65001"
    ]
    assert len([entry for entry in lines if entry["log_level"] == "info"]) == 1
    assert lines[0]["sent"] == "OPEN Message Error/Bad Peer AS (2/2)"


@on_loop
async def test_a_refused_connection_is_an_error_and_is_tried_again() -> None:
    speaker, other = Speaker("127.0.0.11"), Speaker("127.0.0.12")
    other.listener.close()
    session = speaker.peer_with(other)
    session.start()
    await until(lambda: session.last_error is not None)
    assert session.last_error is not None
    assert session.last_error.text == f"cannot connect to port {other.port}: Connection refused"
    await until(lambda: session.status(1000.0).state is SessionState.ACTIVE)  # not just trying again
    status = session.status(1000.0)
    assert 0 < status.next_connect <= 0.4
    await speaker.close()


@on_loop
async def test_a_source_address_that_is_not_ours_is_an_error_with_its_reason() -> None:
    speaker, other = Speaker("127.0.0.11"), Speaker("127.0.0.12")
    session = speaker.peer_with(other, source_address=parse_address("192.0.2.77"))
    session.start()
    assert session.last_error is not None
    assert session.last_error.text == "cannot connect: Cannot assign requested address"
    await speaker.close()
    await other.close()


@pytest.mark.parametrize(
    ("passwords", "comes_up"),
    [(("secret", "secret"), True), (("secret", "other"), False), (("secret", ""), False)],
)
def test_md5_passwords(passwords: tuple[str, str], comes_up: bool) -> None:
    async def test() -> None:
        async with pair() as p:
            for session, speaker, password in zip((p.ours, p.theirs), (p.a, p.b), passwords, strict=True):
                session.reconfigure(replace(session.config, password=password))
                speaker.listener.add(session)
                session.start()
            if comes_up:
                await until(p.established)
                return
            await until(lambda: p.ours.last_error is not None)
            assert p.ours.last_error is not None
            assert p.ours.last_error.text.endswith("the peer may not have the same password")
            assert not p.established()
            # The operator mends it at run time.
            p.theirs.reconfigure(replace(p.theirs.config, password=passwords[0]))
            p.b.listener.add(p.theirs)
            await until(p.established)

    run(test)


@on_loop
async def test_md5_over_ipv6() -> None:
    async with pair(Speaker("::1", router_id=7), Speaker("::1"), password="v6") as p:
        await p.up()


@on_loop
async def test_a_silent_peer_is_lost_by_the_hold_timer() -> None:
    async with raw_peer() as (speaker, session, peer):
        await peer.establish(hold_time=3)
        await until(lambda: session.state is SessionState.ESTABLISHED)
        began = asyncio.get_running_loop().time()
        await until(lambda: speaker.recorder.closed != [])
        assert 2.9 < asyncio.get_running_loop().time() - began < 3.5
        assert speaker.recorder.closed[0].notification == Notification(Code.HOLD_TIMER)


@on_loop
async def test_keepalives_that_wait_in_the_socket_count_after_a_stall() -> None:
    async with raw_peer() as (speaker, session, peer):
        await peer.establish(hold_time=3)
        await until(lambda: session.state is SessionState.ESTABLISHED)
        await peer.send(codec.encode_keepalive())
        (connection,) = session._fsm.connections.values()  # noqa: SLF001 - stands for a stalled process
        connection.deadline = asyncio.get_running_loop().time() - 1
        session._on_timer()  # noqa: SLF001 - as the loop would, before it looks at sockets
        assert session.state is SessionState.ESTABLISHED
        assert speaker.recorder.closed == []


@pytest.mark.parametrize(
    ("fields", "resets"),
    [
        ({"description": "x"}, False),
        ({"allowas_in": 2}, False),
        ({"max_prefixes": None}, False),
        ({"passive": True}, False),
        ({"hold_time": 30}, True),
        ({"families": (Family.IPV4,)}, True),
        ({"password": "x"}, True),
        ({"ttl_security": 1}, True),
        ({"add_path": True}, True),
        ({"source_address": None}, True),
    ],
)
def test_what_a_changed_configuration_resets(fields: dict[str, object], resets: bool) -> None:
    async def test() -> None:
        async with pair() as p:
            await p.up()
            new = replace(p.ours.config, **fields)  # type: ignore[arg-type] # a table of fields
            assert needs_reset(p.ours.config, new) is resets
            p.ours.reconfigure(new)
            assert len(p.a.recorder.closed) == resets
            if resets:
                assert p.a.recorder.closed[0].notification == cease(Cease.CONFIG_CHANGE)

    run(test)


@on_loop
async def test_shutdown_in_the_configuration_goes_down_and_up() -> None:
    async with pair() as p:
        await p.up()
        p.ours.reconfigure(replace(p.ours.config, shutdown=True))
        assert p.a.recorder.closed[0].notification == cease(Cease.ADMIN_SHUTDOWN)
        assert (p.ours.state, p.ours.status(0).admin_down) == (SessionState.IDLE, True)
        p.ours.reconfigure(replace(p.ours.config, shutdown=False))
        await until(p.established)


@on_loop
async def test_the_status_shows_timers_ends_and_times() -> None:
    async with pair() as p:
        await p.up()
        await asyncio.sleep(0.05)
        status = p.ours.status(1000.0)
        assert (status.state, status.hold_time, status.keepalive_time) == (SessionState.ESTABLISHED, 90, 30)
        assert 89 < status.hold_remaining <= 90
        assert 995 < status.since < 1000
        assert status.local_address == parse_address("127.0.0.11")
        assert {status.local_port, status.peer_port} & {p.a.port, p.b.port}
        assert status.bgp_id == p.b.config.router_id
        assert status.negotiated is p.ours.negotiated
        assert status.next_connect == 0


@on_loop
async def test_an_idle_session_leaves_the_loop_asleep() -> None:
    async with pair() as p:
        await p.up()
        await asyncio.sleep(0.5)
        for session in (p.ours, p.theirs):
            (wire,) = session._wires.values()  # noqa: SLF001 - what wakes up is what is tested
            assert session._timer is not None  # noqa: SLF001
            assert session._timer.when() - asyncio.get_running_loop().time() > 20  # noqa: SLF001
            assert (wire.transport.pending, wire.transport.blocked) == (0, False)
