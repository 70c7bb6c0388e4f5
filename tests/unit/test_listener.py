"""The listener against what strangers and impatient peers do, and the options of its sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from bgpd.bgp import listener as listener_module
from bgpd.bgp import tcp
from bgpd.bgp.listener import BURST, Listener
from bgpd.config import Endpoint, PeerConfig
from bgpd.errors import ConfigError
from routes.path import PeerKind, PeerName
from routes.peer import SessionState
from routes.prefix import Address, parse_address
from tests.fakes.sessions import Speaker, closing, run, until

EBGP = PeerConfig(PeerName("127.0.0.1"), parse_address("127.0.0.1"), asn=65001, kind=PeerKind.EBGP)
IBGP = replace(EBGP, asn=65000, kind=PeerKind.IBGP)


def call(speaker: Speaker, source: str) -> socket.socket:
    """A connection to a speaker, from anywhere on the loopback."""
    sock = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
    sock.bind((source, 0))
    sock.connect((speaker.address, speaker.port))
    sock.setblocking(False)
    return sock


async def closed_by_peer(sock: socket.socket) -> bool:
    loop = asyncio.get_running_loop()
    try:
        while await asyncio.wait_for(loop.sock_recv(sock, 4096), 2):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def test_strangers_are_closed_at_once_and_logged_rarely() -> None:
    async def test() -> None:
        speaker, other = Speaker("127.0.0.11"), Speaker("127.0.0.12")
        async with closing(speaker, other):
            speaker.peer_with(other, passive=True).start()
            with capture_logs() as logs:
                for _ in range(20):
                    stranger = call(speaker, "127.0.0.66")
                    assert await closed_by_peer(stranger)
                    stranger.close()
            assert speaker.listener.counters.unknown_source == 20
            lines = [entry for entry in logs if entry["log_level"] == "warning"]
            assert [entry["source"] for entry in lines] == ["127.0.0.66"]

    run(test)


def test_a_peer_that_connects_without_end_holds_one_connection_and_is_slowed_down() -> None:
    async def test() -> None:
        speaker, other = Speaker("127.0.0.11"), Speaker("127.0.0.12")
        async with closing(speaker, other):
            session = speaker.peer_with(other, passive=True)
            session.start()
            calls = [call(speaker, "127.0.0.12") for _ in range(BURST + 10)]
            await until(lambda: speaker.listener.counters.too_fast == 10)
            assert speaker.listener.counters.accepted == BURST
            assert session.state is SessionState.OPEN_SENT
            assert len(session._fsm.connections) == 1  # noqa: SLF001 - the bound under test
            for sock in calls:
                sock.close()

    run(test)


def test_a_removed_peer_is_a_stranger() -> None:
    async def test() -> None:
        speaker, other = Speaker("127.0.0.11"), Speaker("127.0.0.12")
        async with closing(speaker, other):
            session = speaker.peer_with(other, passive=True)
            session.start()
            speaker.listener.remove(session.name)
            with call(speaker, "127.0.0.12") as sock:
                assert await closed_by_peer(sock)
            assert speaker.listener.counters.unknown_source == 1

    run(test)


def test_running_out_of_descriptors_pauses_accepting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(listener_module, "_PAUSE", 0.05)
        speaker, other = Speaker("127.0.0.11"), Speaker("127.0.0.12")
        async with closing(speaker, other):
            session = speaker.peer_with(other, passive=True)
            session.start()
            real = speaker.listener._sockets  # noqa: SLF001 - to make accept fail as the kernel would
            calls = 0

            class Full:
                def accept(self) -> tuple[socket.socket, tuple[str, int]]:
                    nonlocal calls
                    calls += 1
                    raise OSError(24, "Too many open files")

            speaker.listener._accept_ready(Full())  # type: ignore[arg-type]  # noqa: SLF001
            assert speaker.listener.counters.failed == 1
            with call(speaker, "127.0.0.12") as sock:
                await asyncio.sleep(0.02)
                assert session.state is SessionState.ACTIVE
                await until(lambda: session.state is SessionState.OPEN_SENT)
                assert sock.fileno() >= 0
            assert (calls, len(real)) == (1, 1)

    run(test)


def test_an_address_that_is_not_ours_is_the_operators_mistake() -> None:
    async def test() -> None:
        endpoints = [Endpoint(parse_address("127.0.0.13"), 0), Endpoint(parse_address("192.0.2.77"), 1790)]
        with pytest.raises(ConfigError, match=r"192\.0\.2\.77 port 1790: Cannot assign requested address"):
            Listener(endpoints).start()

    run(test)


@pytest.mark.parametrize(
    ("ours", "theirs", "comes_up"),
    [((1, 1), (1, 1), True), ((1, 1), (0, 0), False), ((0, 0), (1, 1), False), ((254, 254), (0, 0), True)],
)
@pytest.mark.parametrize("addresses", [("127.0.0.11", "127.0.0.12"), ("::1", "::1")])
def test_ttl_security(
    ours: tuple[int, int], theirs: tuple[int, int], comes_up: bool, addresses: tuple[str, str]
) -> None:
    async def test() -> None:
        a, b = Speaker(addresses[0], router_id=7), Speaker(addresses[1])
        async with closing(a, b):
            mine = a.peer_with(b, ttl_security=ours[0])
            other = b.peer_with(a, ttl_security=theirs[0])
            mine.start()
            other.start()
            if comes_up:
                await until(lambda: {mine.state, other.state} == {SessionState.ESTABLISHED})
            else:
                await asyncio.sleep(0.5)
                assert a.recorder.up == b.recorder.up == 0

    run(test)


@pytest.mark.parametrize("addresses", [("127.0.0.11", "127.0.0.12"), ("::1", "::1")])
def test_a_handshake_from_too_far_away_is_refused_although_the_listener_lets_it_in(
    addresses: tuple[str, str],
) -> None:
    async def test() -> None:
        a, b = Speaker(addresses[0], router_id=7), Speaker(addresses[1])
        async with closing(a, b):
            guarded = a.peer_with(b, ttl_security=1, passive=True)
            far_away = parse_address("::9" if ":" in b.address else "127.0.0.99")
            a.peer_with(b, name=PeerName("far away"), address=far_away)
            guarded.start()
            b.peer_with(a).start()
            await until(lambda: guarded.last_error is not None)
            assert guarded.last_error is not None
            expected = "TTL security: a connection came with TTL 64, and 255 is the least"
            assert guarded.last_error.text == expected
            assert b.recorder.up == 0

    run(test)


@pytest.mark.parametrize(
    ("config", "ttl"),
    [
        (EBGP, 1),
        (replace(EBGP, multihop=5), 5),
        (replace(EBGP, ttl_security=1), 255),
        (IBGP, 64),
        (replace(IBGP, address=parse_address("::1")), 64),
    ],
)
def test_the_ttl_of_outgoing_packets(config: PeerConfig, ttl: int) -> None:
    with tcp.connecting_socket(config) as sock:
        if len(config.address) == 4:
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == ttl
        else:
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == ttl
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert not sock.get_inheritable()


def test_the_listener_demands_a_ttl_only_while_all_of_its_peers_have_one() -> None:
    async def test() -> None:
        speaker, other, third = (Speaker(f"127.0.0.{n}") for n in (11, 12, 13))
        async with closing(speaker, other, third):
            ((_, sock),) = speaker.listener._sockets  # noqa: SLF001 - the option is what is tested

            def least() -> int:
                return sock.getsockopt(socket.IPPROTO_IP, tcp.IP_MINTTL)

            speaker.peer_with(other, ttl_security=2)
            assert least() == 254
            session = speaker.peer_with(third)
            assert least() == 0
            speaker.listener.remove(session.name)
            assert least() == 254

    run(test)


def test_a_key_that_the_kernel_refused_lets_nothing_unsigned_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        speaker, other = Speaker("127.0.0.11"), Speaker("127.0.0.12")
        async with closing(speaker, other):
            real = tcp.set_md5

            def refuse(_sock: socket.socket, _peer: Address, _password: str) -> None:
                raise OSError(12, "Cannot allocate memory")

            monkeypatch.setattr(tcp, "set_md5", refuse)
            with capture_logs() as logs:
                session = speaker.peer_with(other, passive=True, password="secret")
            assert logs[0]["advice"] == "raise net.core.optmem_max"
            monkeypatch.setattr(tcp, "set_md5", real)
            session.start()
            unsigned = other.peer_with(speaker)
            unsigned.start()
            await until(lambda: speaker.listener.counters.accepted > 0)
            await asyncio.sleep(0.3)
            assert speaker.recorder.up == 0
            assert session.counters.messages_in == 0

    run(test)


def test_a_password_that_is_too_long_is_said_so() -> None:
    with pytest.raises(OSError, match="at most 80 bytes, this has 81"):
        tcp.connecting_socket(replace(IBGP, password="x" * 81))


def test_a_mapped_address_is_its_ipv4_address() -> None:
    assert tcp.accepted_from(("::ffff:192.0.2.1", 179, 0, 0)) == (parse_address("192.0.2.1"), 0)
    assert tcp.accepted_from(("fe80::1%lan0", 179, 0, 7)) == (parse_address("fe80::1"), 7)
    assert tcp.accepted_from(("192.0.2.1", 179)) == (Address(struct.pack("!I", 0xC0000201)), 0)
