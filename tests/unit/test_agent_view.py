"""What an agent shows of itself: tables, kernel entries with their reasons, counts, and change feeds."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from api.feed import FeedClosedError
from bgpd.agent_view import AgentView
from bgpd.announce import OwnPrefixes
from bgpd.bgp.message import Update
from bgpd.config import Config, FibConfig, PeerConfig, SpeakerConfig
from bgpd.daemon import Daemon
from bgpd.fib_sync import FibSync
from bgpd.kernel.monitor import Overrun
from bgpd.meters import Meters
from bgpd.view import Facts
from routes.convergence import InitialConvergence
from routes.fib import Failure
from routes.own_next_hop import ConfiguredNextHops
from routes.own_path import OwnPath
from routes.path import EMPTY_AS_PATH, Origin, PathAttributes, PeerKind, PeerName, Source
from routes.peer import Negotiated
from routes.policy import AllowEntry, ImportPolicy
from routes.prefix import Family, Prefix, parse_address
from routes.rib import Rib
from routes.view import FibCount, Gate, HostWarning, Match, RouteQuery, ShutdownReport, Table
from tests.fakes.fake_kernel_port import ETH0, LAST_RESORT, METRIC, OURS, FakePort, via
from tests.fakes.sessions import run, until

OWN, POD, FAR = (Prefix.parse(text) for text in ("10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"))
POD6, LEAKED = Prefix.parse("fd00:10:244:2::/64"), Prefix.parse("192.168.0.0/16")
ALLOW = [AllowEntry(Prefix.parse("10.244.0.0/16"), 16, 32), AllowEntry(Prefix.parse("fd00::/16"), 16, 128)]
TOR = PeerName("192.0.2.2")
SOURCE = Source(TOR, PeerKind.IBGP, 65000, 2, parse_address("192.0.2.2"), ETH0)
SESSION = Negotiated(
    PeerKind.IBGP,
    65000,
    65000,
    2,
    parse_address("192.0.2.1"),
    parse_address("192.0.2.2"),
    ETH0,
    90,
    frozenset(Family),
)
CONFIG = Config("/etc/podbgp/agent.toml", SpeakerConfig(65000, 1), fib=FibConfig(hold_time=60))


class Peer:
    """A session that was established."""

    name = TOR
    negotiated: Negotiated | None = SESSION

    def send(self, data: bytes) -> None:
        assert data


class Agent(NamedTuple):
    """The parts of an agent, without sessions."""

    view: AgentView
    daemon: Daemon
    fib: FibSync
    port: FakePort
    out: OwnPrefixes
    facts: Facts

    async def hears(self, next_hop: str, *prefixes: Prefix) -> None:
        """The peer announces prefixes; they are in the kernel after."""
        attributes = PathAttributes(Origin.IGP, EMPTY_AS_PATH, parse_address(next_hop), local_pref=100)
        self.daemon.rib.updates(SOURCE, [Update(attributes, prefixes, ())])
        await self.settles()

    async def settles(self) -> None:
        self.daemon.plan_flush()
        await asyncio.sleep(0)
        await until(lambda: self.fib.idle)

    def entry(self, nlri: Prefix) -> tuple[bool, bool, str]:
        """Installed, held, and why not."""
        entry = self.view.fib_of(nlri)[0]
        return entry.installed, entry.held, entry.reason


@asynccontextmanager
async def agent(port: FakePort | None = None) -> AsyncIterator[Agent]:
    port = port or FakePort()
    async with asyncio.TaskGroup() as tasks:
        loop = asyncio.get_running_loop()
        fib = FibSync(port, CONFIG.fib, Meters())
        out = OwnPrefixes(fib, ConfiguredNextHops())
        rib = Rib(ImportPolicy(asn=65000, router_id=1, allow=ALLOW, own_paths=[OwnPath(OWN)]))
        convergence = InitialConvergence([TOR], loop.time(), 60.0, 180.0)
        daemon = Daemon(CONFIG, rib, fib, out, fib.interface_of, convergence, tasks)
        facts = Facts(started=1_700_000_000.0)

        async def shutdown(flush: bool, message: str) -> ShutdownReport:
            return ShutdownReport(len(message), int(flush), 0)

        view = AgentView(daemon, fib, out, facts, shutdown)
        fib.on_changed, fib.watched = view.fib_changed, view.fib_watched
        daemon.watchers, out.on_advertised = view, view.advertised
        fib.start(loop.time() + 60)
        rib.set_resolver(fib.cost, fib.why_unresolved)
        fib.originate([OwnPath(OWN)])
        out.originate([OwnPath(OWN)])
        rib.session_up(SOURCE, frozenset(Family), frozenset())
        yield Agent(view, daemon, fib, port, out, facts)
        await fib.stop(flush=False)


def listed(view: AgentView, table: Table, **query: object) -> list[str]:
    """The prefixes of a listing, in its order."""
    asked = RouteQuery(table, **query)  # type: ignore[arg-type]  # named by the caller
    rows = view.fib(asked) if table is Table.FIB else view.paths(asked)
    return [str(row.nlri if table is Table.FIB else row.path.nlri) for row in rows if row is not None]  # type: ignore[union-attr]  # as the table says


# -- tables --


def test_each_table_lists_what_is_its() -> None:
    async def story() -> None:
        async with agent() as a:
            a.out.session_up(Peer(), SESSION)
            await a.hears("192.0.2.2", POD, LEAKED)
            await a.hears("203.0.113.1", FAR)
            assert listed(a.view, Table.ADJ_IN_PRE) == ["10.244.2.0/24", "10.244.3.0/24", "192.168.0.0/16"]
            assert listed(a.view, Table.ADJ_IN_POST) == ["10.244.2.0/24", "10.244.3.0/24"]
            assert listed(a.view, Table.LOC_RIB) == ["10.244.1.0/24", "10.244.2.0/24"]
            assert listed(a.view, Table.ADJ_OUT) == ["10.244.1.0/24"]
            assert listed(a.view, Table.FIB) == ["10.244.1.0/24", "10.244.2.0/24"]
            assert listed(a.view, Table.FIB, family=Family.IPV6) == []
            covering = {"prefix": Prefix.parse("10.244.2.7/32"), "match": Match.SHORTER}
            assert listed(a.view, Table.LOC_RIB, **covering) == ["10.244.2.0/24"]
            assert listed(a.view, Table.ADJ_OUT, peer=PeerName("192.0.2.3")) == []

    run(story)


def test_an_entry_is_shown_with_the_links_name_and_both_metrics() -> None:
    async def story() -> None:
        async with agent() as a:
            await a.hears("192.0.2.2", POD)
            (entry,) = a.view.fib_of(POD)
            assert [(hop.interface, hop.ifindex) for hop in entry.next_hops] == [("eth0", ETH0)]
            assert (entry.metric, entry.installed, entry.reason) == (METRIC, True, "")
            (own,) = a.view.fib_of(OWN)
            assert (own.metric, own.next_hops) == (LAST_RESORT, ())
            assert a.view.fib_of(FAR) == []

    run(story)


@pytest.mark.parametrize("kind", ["foreign", "refused", "held", "adopted", "unresolved"])
def test_why_an_entry_is_not_in_the_kernel_or_still_is(kind: str) -> None:
    async def story() -> None:
        port = FakePort()
        if kind == "foreign":
            port.learned.put(POD, 4, via("192.0.2.66"))
        elif kind == "refused":
            port.learned.refusals[POD] = Failure(errno.ENETUNREACH, "Nexthop has invalid gateway")
        elif kind == "adopted":
            port.learned.put(POD, OURS, via("192.0.2.66"))
        async with agent(port) as a:
            if kind == "adopted":
                await a.settles()
                assert a.entry(POD) == (True, True, "kept until the peers have sent their tables")
                return
            await a.hears("203.0.113.1" if kind == "unresolved" else "192.0.2.2", POD)
            if kind == "unresolved":
                assert a.view.fib_of(POD) == []
                (path,) = a.view.explain(POD, Match.EXACT).paths
                assert "no route leads to 203.0.113.1" in path.reason
                assert a.view.explain(POD, Match.EXACT).failed is Gate.NEXT_HOP
            elif kind == "held":
                a.daemon.rib.mark_stale(TOR, Family.IPV4)
                a.daemon.rib.sweep_stale(TOR, Family.IPV4)
                a.daemon.flush(hold=True)
                await a.settles()
                assert a.entry(POD) == (True, True, "kept as stale")
            else:
                installed, held, reason = a.entry(POD)
                assert (installed, held) == (False, False)
                assert {"foreign": "4 (static)", "refused": "Nexthop has invalid gateway"}[kind] in reason
                explanation = a.view.explain(POD, Match.EXACT)
                assert explanation.failed is Gate.KERNEL
                assert reason in explanation.text

    run(story)


# -- the whole --


def test_the_status_counts_what_there_is() -> None:
    async def story() -> None:
        port = FakePort()
        port.learned.put(FAR, OURS, via("192.0.2.66"))
        port.learned.refusals[POD6] = Failure(errno.EINVAL, "Invalid argument")
        async with agent(port) as a:
            await a.hears("192.0.2.2", POD, LEAKED)
            await a.hears("fd00::2", POD6)
            status = a.view.status()
            assert status.fib == (FibCount(Family.IPV4, 2, 2, 0, 1), FibCount(Family.IPV6, 1, 0, 1, 0))
            counts = {(count.table, count.family): count.prefixes for count in status.tables}
            assert counts[Table.ADJ_IN_PRE, Family.IPV4] == 2
            assert counts[Table.ADJ_IN_POST, Family.IPV4] == 1
            assert counts[Table.LOC_RIB, Family.IPV4] == 2
            assert (status.role, status.asn, status.router_id) == ("agent", 65000, 1)
            assert (status.config_path, status.config_error) == (CONFIG.path, "")
            assert (status.peers, status.peers_established) == (0, 0)
            assert (status.convergence.complete, status.convergence.waiting_for) == (False, (TOR,))

    run(story)


def test_a_kernel_that_can_not_be_changed_is_the_first_warning() -> None:
    async def story() -> None:
        async with agent() as a:
            await a.settles()
            a.facts.warnings = (HostWarning("net.ipv4.ip_forward", "0", "sysctl -w net.ipv4.ip_forward=1"),)
            assert len(a.view.status().warnings) == 1
            a.port.faults["snapshot"] = 1
            with capture_logs():
                a.port.events.put(Overrun("notifications were lost"))
                await until(lambda: a.fib.error != "")
            first, _ = a.view.status().warnings
            assert first.value == "netlink snapshot: No buffer space available"

    run(story)


def test_nothing_is_said_to_be_held_once_it_is_gone() -> None:
    async def story() -> None:
        port = FakePort()
        port.learned.put(FAR, OURS, via("192.0.2.66"))
        async with agent(port) as a:
            await a.settles()
            a.facts.held_until = 1_700_000_060.0
            assert a.view.status().convergence.held_until == 1_700_000_060.0
            a.fib.release_held(asyncio.get_running_loop().time())
            await until(lambda: port.learned.entries() == {})
            assert a.view.status().convergence.held_until == 0.0

    run(story)


def test_peers_are_shown_with_what_they_sent_and_were_told() -> None:
    async def story() -> None:
        async with agent() as a:
            peer = PeerConfig(TOR, SOURCE.address, 65000, PeerKind.IBGP, shutdown=True)
            a.daemon.add_peer(peer)
            a.out.session_up(Peer(), SESSION)
            await a.hears("192.0.2.2", POD, LEAKED)
            (status,) = a.view.peers()
            one = a.view.peer(TOR)
            assert one is not None
            assert (one.name, one.families) == (status.name, status.families)
            (ipv4, counts), _ = status.families
            assert (ipv4, counts.received, counts.accepted, counts.advertised) == (Family.IPV4, 2, 1, 1)
            assert status.admin_down
            assert a.view.peer(PeerName("192.0.2.99")) is None
            assert a.view.status().peers == 1
            await a.daemon.peers[TOR].session.stop(None)

    run(story)


def test_leaving_is_passed_on() -> None:
    async def story() -> None:
        async with agent() as a:
            assert await a.view.request_shutdown(flush=True, message="bye") == ShutdownReport(3, 1, 0)

    run(story)


# -- feeds --


def test_watchers_of_each_table_hear_of_its_changes() -> None:
    async def story() -> None:
        async with agent() as a:
            await a.settles()
            with (
                a.view.route_feed(Table.LOC_RIB).subscribe(10) as chosen,
                a.view.route_feed(Table.FIB).subscribe(10) as kernel,
                a.view.route_feed(Table.ADJ_OUT).subscribe(10) as out,
                a.view.route_feed(Table.ADJ_IN_PRE).subscribe(10) as heard,
                a.view.peer_feed().subscribe(10) as peers,
            ):
                await a.hears("192.0.2.2", POD)
                assert await chosen.take(10) == [POD]
                assert await kernel.take(10) == [POD]
                a.port.others_put(POD, OURS, via("192.0.2.66"))
                assert await kernel.take(10) == [POD]
                a.out.session_up(Peer(), SESSION)
                assert await out.take(10) == [OWN]
                a.view.received(lambda: [LEAKED])
                assert await heard.take(10) == [LEAKED]
                a.view.peer_changed(TOR)
                assert await peers.take(10) == [TOR]

    run(story)


def test_nothing_is_computed_for_tables_that_nobody_watches() -> None:
    async def story() -> None:
        async with agent() as a:
            asked = 0

            def prefixes() -> list[Prefix]:
                nonlocal asked
                asked += 1
                return [POD]

            a.view.received(prefixes)
            assert (asked, a.view.fib_watched()) == (0, False)
            with a.view.route_feed(Table.FIB).subscribe(1):
                assert a.view.fib_watched()

    run(story)


def test_the_end_of_the_agent_ends_every_watch() -> None:
    async def story() -> None:
        async with agent() as a:
            with (
                a.view.route_feed(Table.FIB).subscribe(1) as routes,
                a.view.peer_feed().subscribe(1) as peers,
            ):
                a.view.close()
                for watch in (routes, peers):
                    with pytest.raises(FeedClosedError):
                        watch.check()

    run(story)
