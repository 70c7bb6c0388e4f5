"""The single writer, told as network stories: real sessions with speakers on the loopback, a recorded FIB."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import structlog
from structlog.testing import capture_logs

from bgpd import daemon as daemon_module
from bgpd.announce import OwnPrefixes
from bgpd.bgp import codec
from bgpd.bgp.actions import SessionClosed
from bgpd.bgp.message import EndOfRib, RefreshKind, RouteRefresh, Update
from bgpd.bgp.notifications import Cease, cease
from bgpd.bgp.session import LocalState, PeerSession
from bgpd.config import Config, FibConfig, MaxPrefixes, PeerConfig, SpeakerConfig
from bgpd.daemon import Daemon
from bgpd.log import Logger
from bgpd.throttle import Throttle
from routes.convergence import InitialConvergence
from routes.loc_rib import Change
from routes.own_next_hop import ConfiguredNextHops
from routes.own_path import OwnPath
from routes.path import EMPTY_AS_PATH, Origin, PathAttributes, PeerKind, PeerName
from routes.peer import FamilyCounts, SessionState
from routes.policy import AllowEntry, ImportPolicy, PeerImport
from routes.prefix import Address, Family, Prefix, parse_address
from routes.rib import Rib
from tests.fakes.sessions import Speaker, closing, run, until

OWN, POD, OTHER = (Prefix.parse(text) for text in ("10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"))
LEAKED = Prefix.parse("192.168.0.0/16")
ALLOW = AllowEntry(Prefix.parse("10.244.0.0/16"), 16, 32)
ASN = 65000
SPEAKER = SpeakerConfig(ASN, 1, connect_retry=0.05, connect_retry_max=0.1)
CONFIG = Config("agent.toml", SPEAKER, fib=FibConfig(deferral_time=0.3))
QUICK = 0.05


@pytest.fixture(autouse=True)
def logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Log as the daemon does, and no line less because of the test before."""
    structlog.configure(wrapper_class=Logger)
    monkeypatch.setattr(daemon_module, "repeated", Throttle(structlog.get_logger()))
    yield
    structlog.reset_defaults()


class RecordedFib:
    """A `ChangeSink` that remembers what is wanted, and what was held."""

    def __init__(self) -> None:
        self.wanted: dict[Prefix, list[str]] = {}
        self.held: list[Prefix] = []
        self.turns = 0

    def changed(self, changes: Sequence[Change], *, hold: bool) -> None:
        self.turns += 1
        for nlri, _, after in changes:
            self.wanted.pop(nlri, None)
            if after and after[0].source.kind is not PeerKind.LOCAL:
                self.wanted[nlri] = [str(path.source.peer) for path in after]
            elif hold:
                self.held.append(nlri)


class Nowhere:
    """A node without addresses that anybody asks for."""

    def interface_of(self, address: Address) -> int:
        return 0 if address else 1

    def addresses_on(self, ifindex: int) -> tuple[Address, ...]:
        return () if ifindex else (Address(bytes(4)),)


@dataclass
class Network:
    """An agent at 127.0.0.1 without its kernel, and its peers."""

    daemon: Daemon
    fib: RecordedFib
    us: Speaker
    speakers: dict[PeerName, Speaker]
    convergence: InitialConvergence
    sessions: dict[PeerName, PeerSession] = field(default_factory=dict)

    def name(self, number: int) -> PeerName:
        return list(self.speakers)[number]

    def config(self, number: int, **fields: object) -> PeerConfig:
        speaker = self.speakers[self.name(number)]
        peer = PeerConfig(
            self.name(number),
            parse_address(speaker.address),
            ASN,
            PeerKind.IBGP,
            port=speaker.port,
            source_address=parse_address(self.us.address),
        )
        return replace(peer, **fields)  # type: ignore[arg-type]  # named by the caller

    def listens(self, number: int, **fields: object) -> PeerSession:
        """The peer waits for us."""
        speaker = self.speakers[self.name(number)]
        session = speaker.peer_with(self.us, passive=True, **fields)
        session.start()
        self.sessions[self.name(number)] = session
        return session

    async def up(self, number: int, **fields: object) -> PeerSession:
        """The session with a peer, when it is established."""
        session = self.listens(number, **fields)
        if self.name(number) not in self.daemon.peers:
            self.daemon.add_peer(self.config(number))
        await self.established(number)
        return session

    async def established(self, number: int) -> None:
        state = self.daemon.peers[self.name(number)]
        session = self.sessions[self.name(number)]
        await until(lambda: state.negotiated is not None and session.state is SessionState.ESTABLISHED)

    def stale(self, number: int) -> int:
        return self.daemon.rib.counts(self.name(number), Family.IPV4).stale

    def __contains__(self, nlri: Prefix) -> bool:
        return nlri in self.fib.wanted


@asynccontextmanager
async def network(
    peers: int = 1, config: Config = CONFIG, found: frozenset[Family] = frozenset(), **imports: object
) -> AsyncIterator[Network]:
    us = Speaker("127.0.0.1")
    speakers = {PeerName(f"127.0.0.{at}"): Speaker(f"127.0.0.{at}") for at in range(2, 2 + peers)}
    async with closing(us, *speakers.values()), asyncio.TaskGroup() as tasks:
        peer_import = PeerImport(**imports)  # type: ignore[arg-type]  # named by the caller
        policy = ImportPolicy(
            asn=ASN,
            router_id=1,
            allow=[ALLOW],
            own_paths=[OwnPath(OWN)],
            peers=dict.fromkeys(speakers, peer_import),
        )
        loop, fib = asyncio.get_running_loop(), RecordedFib()
        convergence = InitialConvergence(speakers, loop.time(), 10.0, 180.0)
        out = OwnPrefixes(
            Nowhere(), ConfiguredNextHops(parse_address("192.0.2.1"), parse_address("2001:db8::1"))
        )
        out.originate([OwnPath(OWN)])
        rib = Rib(policy)
        daemon = Daemon(config, rib, fib, out, lambda _: 0, convergence, tasks)
        daemon.found = found
        yield Network(daemon, fib, us, speakers, convergence)
        for state in daemon.peers.values():
            state.cancel_stale_timer()
            await state.session.stop(None)


def announce(session: PeerSession, *prefixes: Prefix, next_hop: str = "192.0.2.2") -> None:
    assert session.negotiated is not None
    attributes = PathAttributes(Origin.IGP, EMPTY_AS_PATH, parse_address(next_hop), local_pref=100)
    for message in codec.encode_updates(attributes, prefixes, (), session.negotiated):
        session.send(message)


def withdraw(session: PeerSession, *prefixes: Prefix) -> None:
    assert session.negotiated is not None
    for message in codec.encode_updates(None, (), prefixes, session.negotiated):
        session.send(message)


def end_of_rib(session: PeerSession, *families: Family) -> None:
    assert session.negotiated is not None
    for family in families or Family:
        session.send(codec.encode_end_of_rib(family, session.negotiated))


def refresh(session: PeerSession, kind: int) -> None:
    session.send(codec.encode_route_refresh(RouteRefresh(Family.IPV4, kind)))


# -- what peers say --


def test_what_peers_announce_and_withdraw_is_wanted_in_the_kernel() -> None:
    async def story() -> None:
        async with network(2) as net:
            first, second = await net.up(0), await net.up(1)
            announce(first, POD, OTHER)
            await until(lambda: POD in net and OTHER in net)
            announce(second, POD)
            withdraw(first, POD, OTHER)
            await until(lambda: OTHER not in net)
            await until(lambda: net.fib.wanted == {POD: ["127.0.0.3"]})

    run(story)


def test_what_came_in_one_read_is_one_change_for_the_kernel() -> None:
    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            prefixes = [Prefix.parse(f"10.244.{at}.0/24") for at in range(2, 200)]
            turns = net.fib.turns
            announce(session, *prefixes)
            await until(lambda: len(net.fib.wanted) == len(prefixes))
            assert net.fib.turns == turns + 1

    run(story)


def test_what_several_peers_said_at_once_is_one_change_for_the_kernel() -> None:
    async def story() -> None:
        async with network(3) as net:
            sessions = [await net.up(number) for number in range(3)]
            turns = net.fib.turns
            for at, session in enumerate(sessions):
                announce(session, Prefix.parse(f"10.244.{at + 2}.0/24"))
            await until(lambda: len(net.fib.wanted) == len(sessions))
            assert net.fib.turns == turns + 1

    run(story)


def test_other_input_that_waits_holds_no_change_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of connections, say, of which only a few are accepted a turn."""
    monkeypatch.setattr(OwnPrefixes, "patience", 60.0)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        async with network() as net:
            session = await net.up(0)
            with ours, theirs:
                loop.add_reader(ours, lambda: None)
                theirs.send(b"never read")
                announce(session, POD)
                await until(lambda: POD in net)
                loop.remove_reader(ours)

    run(story)


def test_a_peer_is_told_our_prefixes_and_end_of_rib_and_again_when_it_asks() -> None:
    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            heard = net.speakers[net.name(0)].recorder.messages
            await until(lambda: len([m for m in heard if isinstance(m, EndOfRib)]) == 2)
            assert [m.announced for m in heard if isinstance(m, Update)] == [(OWN,)]
            heard.clear()
            refresh(session, RefreshKind.REQUEST)
            await until(lambda: len(heard) == 3)
            assert [type(m) for m in heard] == [RouteRefresh, Update, RouteRefresh]

    run(story)


def test_what_is_refused_is_logged_with_its_rule_and_counted() -> None:
    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            with capture_logs() as logs:
                announce(session, LEAKED, POD)
                await until(lambda: POD in net)
            assert LEAKED not in net
            (line,) = [line for line in logs if line["event"] == "path refused"]
            assert (line["peer"], line["prefix"], line["rule"]) == (net.name(0), str(LEAKED), "not-allowed")
            (status,) = net.daemon.peer_statuses()
            counts = dict(status.families)
            assert counts[Family.IPV4] == FamilyCounts(received=2, accepted=1, advertised=1)

    run(story)


def test_a_malformed_update_is_logged_and_withdraws() -> None:
    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            announce(session, POD)
            await until(lambda: POD in net)
            with capture_logs() as logs:
                # ORIGIN 9 (RFC 7606 section 7.1), and no other attribute but what must be there
                attributes = bytes.fromhex("400101094002004003 04c0000202 400504 00000064".replace(" ", ""))
                body = bytes(2) + len(attributes).to_bytes(2, "big") + attributes + bytes([24, 10, 244, 2])
                session.send(b"\xff" * 16 + (19 + len(body)).to_bytes(2, "big") + b"\x02" + body)
                await until(lambda: POD not in net)
            assert any(line["event"] == "malformed UPDATE" and "ORIGIN" in line["error"] for line in logs)
            assert session.state is SessionState.ESTABLISHED

    run(story)


# -- graceful restart, as helper --


def test_a_peer_that_restarts_keeps_its_paths_until_end_of_rib() -> None:
    """What it does not announce again leaves the RIB then, and the kernel a stated time later."""

    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            announce(session, POD, OTHER)
            await until(lambda: OTHER in net)
            await session.close_quietly()
            await until(lambda: net.stale(0) == 2)
            assert {POD, OTHER} <= net.fib.wanted.keys()
            net.speakers[net.name(0)].local = LocalState(True, frozenset(Family))
            again = await net.up(0)
            assert net.stale(0) == 2
            announce(again, POD)
            end_of_rib(again)
            await until(lambda: OTHER not in net)
            assert POD in net
            assert net.fib.held == [OTHER]

    run(story)


def test_after_end_of_rib_nothing_is_said_of_a_missing_one() -> None:
    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            announce(session, POD)
            await until(lambda: POD in net)
            await session.close_quietly()
            await until(lambda: net.stale(0) == 1)
            net.speakers[net.name(0)].local = LocalState(True, frozenset(Family))
            again = await net.up(0)
            announce(again, POD)
            end_of_rib(again)
            await until(lambda: net.stale(0) == 0)
            with capture_logs() as logs:
                await asyncio.sleep(CONFIG.fib.deferral_time + QUICK)
            assert [line for line in logs if line["event"] == "stale paths removed"] == []

    run(story)


def test_a_peer_that_comes_back_and_says_no_end_of_rib_loses_its_old_paths_in_time() -> None:
    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            announce(session, POD)
            await until(lambda: POD in net)
            await session.close_quietly()
            await until(lambda: net.stale(0) == 1)
            net.speakers[net.name(0)].local = LocalState(True, frozenset(Family))
            await net.up(0)
            with capture_logs() as logs:
                await until(lambda: POD not in net)
            (line,) = [line for line in logs if line["event"] == "stale paths removed"]
            assert line["reason"] == "the peer sent no End-of-RIB in time"

    run(story)


def test_a_peer_that_does_not_come_back_loses_its_paths_after_its_restart_time() -> None:
    async def story() -> None:
        async with network() as net:
            speaker = net.speakers[net.name(0)]
            speaker.config = replace(speaker.config, restart_time=1)
            session = await net.up(0)
            announce(session, POD)
            await until(lambda: POD in net)
            await session.close_quietly()
            await until(lambda: net.stale(0) == 1)
            await until(lambda: POD not in net)
            assert net.fib.held == []

    run(story)


@pytest.mark.parametrize("forwarding", [frozenset[Family](), frozenset({Family.IPV6})])
def test_a_peer_that_lost_its_forwarding_state_loses_its_paths_at_once(forwarding: frozenset[Family]) -> None:
    """RFC 4724 section 4.2: without the F bit for a family, its stale paths go when the session is back."""

    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            announce(session, POD)
            await until(lambda: POD in net)
            await session.close_quietly()
            await until(lambda: net.stale(0) == 1)
            net.speakers[net.name(0)].local = LocalState(True, forwarding)
            await net.up(0)
            await until(lambda: POD not in net)

    run(story)


@pytest.mark.parametrize("way", ["a NOTIFICATION", "no graceful restart"])
def test_a_peer_that_says_goodbye_loses_its_paths_at_once(way: str) -> None:
    async def story() -> None:
        async with network() as net:
            session = await net.up(0, graceful_restart=way == "a NOTIFICATION")
            announce(session, POD)
            await until(lambda: POD in net)
            await session.stop(cease(Cease.ADMIN_SHUTDOWN) if way == "a NOTIFICATION" else None)
            await until(lambda: POD not in net)
            assert net.stale(0) == 0

    run(story)


def test_a_refresh_with_marks_removes_what_was_not_said_again() -> None:
    """RFC 7313."""

    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            announce(session, POD, OTHER)
            await until(lambda: OTHER in net)
            refresh(session, RefreshKind.BEGIN)
            announce(session, POD)
            await until(lambda: net.stale(0) == 1)
            assert OTHER in net
            refresh(session, RefreshKind.END)
            await until(lambda: OTHER not in net)
            assert POD in net

    run(story)


# -- our own restart --


@pytest.mark.parametrize("found", [frozenset(), frozenset({Family.IPV4})])
def test_peers_learn_what_of_our_forwarding_outlived_us(found: frozenset[Family]) -> None:
    async def story() -> None:
        async with network(found=found) as net:
            session = await net.up(0)
            assert session.negotiated is not None
            restart = session.negotiated.graceful_restart
            assert restart is not None
            assert restart.restarting is bool(found)
            assert {family for family in Family if restart.forwarding(family)} == found
            await session.close_quietly()
            again = await net.up(0)
            assert again.negotiated is not None
            restart = again.negotiated.graceful_restart
            assert restart is not None
            assert not restart.restarting
            assert all(map(restart.forwarding, Family))

    run(story)


def test_the_initial_convergence_ends_with_the_last_end_of_rib() -> None:
    async def story() -> None:
        async with network(3) as net:
            looks = 0

            def look() -> None:
                nonlocal looks
                looks += 1

            net.daemon.on_convergence = look
            first, second = await net.up(0), await net.up(1)
            assert len(net.convergence.waiting_for) == 3
            end_of_rib(first)
            end_of_rib(second, Family.IPV4)
            await until(lambda: len(net.convergence.waiting_for) == 2)
            end_of_rib(second, Family.IPV6)
            await until(lambda: net.convergence.waiting_for == (net.name(2),))
            await net.up(2, graceful_restart=False)
            await until(lambda: net.convergence.waiting_for == ())
            assert looks >= 6

    run(story)


# -- the operator --


def test_a_removed_peer_is_told_and_forgotten_and_nobody_waits_for_it() -> None:
    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            announce(session, POD)
            await until(lambda: POD in net)
            old = net.daemon.peers[net.name(0)].session
            net.daemon.remove_peer(net.name(0))
            await until(lambda: POD not in net and session.last_error is not None)
            assert session.last_error is not None
            assert "Peer De-configured" in session.last_error.text
            assert (net.daemon.peers, net.convergence.waiting_for) == ({}, ())
            # what its session still says comes too late
            net.daemon.messages_received(old, [EndOfRib(Family.IPV4)])
            net.daemon.session_established(old)
            net.daemon.session_closed(old, SessionClosed("late", None, None, graceful=True))
            assert net.daemon.peers == {}

    run(story)


def test_a_peer_that_was_removed_and_added_again_is_a_new_one() -> None:
    async def story() -> None:
        async with network() as net:
            session = await net.up(0)
            announce(session, POD)
            await until(lambda: POD in net)
            net.daemon.remove_peer(net.name(0))
            net.daemon.add_peer(net.config(0))
            await until(lambda: POD not in net)
            await session.stop(None)
            announce(await net.up(0), OTHER)
            await until(lambda: net.fib.wanted.keys() == {OTHER})

    run(story)


@pytest.mark.parametrize(("change", "same"), [({"description": "tor"}, True), ({"hold_time": 30}, False)])
def test_a_changed_peer_keeps_its_session_where_it_can(change: dict[str, object], same: bool) -> None:
    async def story() -> None:
        async with network() as net:
            await net.up(0)
            recorder = net.speakers[net.name(0)].recorder
            net.daemon.change_peer(net.config(0, **change))
            await until(lambda: recorder.up == (1 if same else 2))
            await net.established(0)
            assert len(recorder.closed) == (0 if same else 1)
            (status,) = net.daemon.peer_statuses()
            assert (status.description, status.hold_time) == (
                change.get("description", ""),
                change.get("hold_time", 90),
            )

    run(story)


# -- limits --


@pytest.mark.parametrize(("action", "level", "event"), [
    ("warn", "warning", "prefixes near or over the limit"),
    ("drop", "warning", "prefixes over the limit are refused"),
    ("reset", "error", "prefixes over the limit: session reset"),
])  # fmt: skip
def test_too_many_prefixes(action: str, level: str, event: str) -> None:
    prefixes = [Prefix.parse(f"10.244.{at}.0/24") for at in range(2, 6)]

    async def story() -> None:
        limits = MaxPrefixes(3, warn_percent=100, action=action, idle_time=60)
        async with network(max_prefixes=limits) as net:
            net.daemon.add_peer(net.config(0, max_prefixes=limits))
            session = await net.up(0)
            with capture_logs() as logs:
                announce(session, *prefixes)
                await until(lambda: any(line["event"] == event for line in logs))
                await asyncio.sleep(QUICK)
            line = next(line for line in logs if line["event"] == event)
            assert (line["log_level"], line["peer"], line["limit"]) == (level, net.name(0), 3)
            assert len(net.fib.wanted) == {"warn": 4, "drop": 3, "reset": 0}[action]
            state = net.daemon.peers[net.name(0)]
            assert (state.negotiated is None) is (action == "reset")
            if action == "reset":
                assert session.last_error is not None
                assert "Maximum Number of Prefixes" in session.last_error.text

    run(story)
