"""The kernel side of an agent, on a fake kernel that refuses, forgets, and is changed by others."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest
from structlog.testing import capture_logs

from bgpd import fib_sync
from bgpd.config import FibConfig
from bgpd.fib_sync import BATCH, INLINE, FibSync
from bgpd.kernel.monitor import ForeignRoutesChanged, LinksChanged, Overrun
from bgpd.meters import Meters
from routes import fib as fib_module
from routes.fib import UNREACHABLE, Failure, Hop
from routes.loc_rib import Change
from routes.own_path import OwnPath
from routes.path import EMPTY_AS_PATH, LOCAL_PEER, Origin, Path, PathAttributes, PeerKind, PeerName, Source
from routes.policy import AllowEntry, ImportPolicy
from routes.prefix import Address, Family, Prefix, parse_address
from routes.rib import Rib
from tests.fakes.fake_kernel_port import ETH0, OURS, FakePort, connected, via
from tests.fakes.sessions import run, until

POD, POD6, OTHER = Prefix.parse("10.1.0.0/24"), Prefix.parse("fd01::/64"), Prefix.parse("10.2.0.0/24")
PEER = Source(PeerName("192.0.2.9"), PeerKind.IBGP, 65000, 9, parse_address("192.0.2.9"), ETH0)
SELF = Source(LOCAL_PEER, PeerKind.LOCAL, 65000, 1, Address(bytes(4)))
QUICK = 0.03


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come soon."""
    for module in (fib_sync, fib_module):
        monkeypatch.setattr(module, "FIRST_RETRY", QUICK)
        monkeypatch.setattr(module, "LAST_RETRY", 4 * QUICK)
    monkeypatch.setattr(fib_sync, "DEBOUNCE", 0.001)


def path(nlri: Prefix, next_hop: str, source: Source = PEER) -> Path:
    return Path(nlri, PathAttributes(Origin.IGP, EMPTY_AS_PATH, parse_address(next_hop)), source)


def selected(nlri: Prefix, *next_hops: str) -> Change:
    """The Loc-RIB's word that the prefix is reached over these; over none, that it is gone."""
    return Change(nlri, (), tuple(path(nlri, each) for each in next_hops))


@asynccontextmanager
async def node(
    port: FakePort | None = None, config: FibConfig | None = None, hold_until: float = 0.0
) -> AsyncIterator[tuple[FakePort, FibSync]]:
    port = port or FakePort()
    sync = FibSync(port, config or FibConfig(hold_time=QUICK), Meters())
    sync.start(asyncio.get_running_loop().time() + hold_until)
    try:
        yield port, sync
    finally:
        if not port.closed:
            await sync.stop(flush=False)


async def settled(sync: FibSync) -> None:
    await until(lambda: sync.idle)


# -- from the Loc-RIB into the kernel --


def test_a_change_is_in_the_kernel_in_the_next_turn() -> None:
    async def story() -> None:
        async with node() as (port, sync):
            sync.changed([selected(POD, "192.0.2.2"), selected(POD6, "fd00::2")], hold=False)
            await asyncio.sleep(0)
            assert port.learned.entries() == {POD: via("192.0.2.2"), POD6: via("fd00::2")}
            sync.changed([selected(POD, "192.0.2.3"), selected(POD6)], hold=False)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert port.learned.entries() == {POD: via("192.0.2.3")}

    run(story)


@pytest.mark.parametrize("count", [INLINE, INLINE + 1, BATCH + 1])
def test_any_number_of_changes_is_applied(count: int) -> None:
    """Few in the loop, more in the worker, many in several batches."""
    prefixes = [Prefix.parse(f"{ip_address(0x0B00_0000 + (at << 8))}/24") for at in range(count)]

    async def story() -> None:
        async with node() as (port, sync):
            sync.changed([selected(nlri, "192.0.2.2") for nlri in prefixes], hold=False)
            await settled(sync)
            assert port.learned.entries() == dict.fromkeys(prefixes, via("192.0.2.2"))
            assert max(delta.size for delta in port.applied) <= BATCH

    run(story)


def test_what_changes_while_the_worker_is_busy_is_applied_after() -> None:
    prefixes = [Prefix.parse(f"11.{at}.0.0/16") for at in range(INLINE + 1)]

    async def story() -> None:
        async with node() as (port, sync):
            sync.changed([selected(nlri, "192.0.2.2") for nlri in prefixes], hold=False)
            await asyncio.sleep(0)
            sync.changed([selected(nlri, "192.0.2.3") for nlri in prefixes[1:]], hold=False)
            sync.changed([selected(prefixes[0])], hold=False)
            await settled(sync)
            assert port.learned.entries() == dict.fromkeys(prefixes[1:], via("192.0.2.3"))

    run(story)


@pytest.mark.parametrize(
    ("config", "next_hops", "entry"),
    [
        (FibConfig(), ("192.0.2.3", "192.0.2.2"), via("192.0.2.2", "192.0.2.3")),
        (FibConfig(multipath=1), ("192.0.2.3", "192.0.2.2"), via("192.0.2.3")),
        (FibConfig(), ("203.0.113.1", "192.0.2.2"), via("192.0.2.2")),
        (FibConfig(), ("203.0.113.1",), None),
        (FibConfig(), ("203.0.113.1", "203.0.113.2"), None),
        (
            FibConfig(preferred_source_ipv4=parse_address("192.0.2.1")),
            ("192.0.2.2",),
            via("192.0.2.2", source="192.0.2.1"),
        ),
        (FibConfig(preferred_source_ipv6=parse_address("fd00::1")), ("192.0.2.2",), via("192.0.2.2")),
    ],
)
def test_selected_paths_make_an_entry(config: FibConfig, next_hops: tuple[str, ...], entry: object) -> None:
    async def story() -> None:
        async with node(config=config) as (port, sync):
            sync.changed([selected(POD, *next_hops)], hold=False)
            await settled(sync)
            assert port.learned.entries().get(POD) == entry

    run(story)


def test_why_a_next_hop_can_not_be_used() -> None:
    async def story() -> None:
        async with node() as (_, sync):
            away, near = path(POD, "203.0.113.1"), path(POD, "192.0.2.2")
            assert (sync.cost(away), sync.cost(near)) == (None, 0)
            assert sync.why_unresolved(away) == "no route leads to 203.0.113.1"
            assert sync.why_unresolved(near) == ""

    run(story)


def test_own_prefixes_are_unreachable_and_never_learned() -> None:
    async def story() -> None:
        async with node() as (port, sync):
            sync.originate(map(OwnPath, [POD, POD6]))
            sync.changed([Change(POD, (), (path(POD, "0.0.0.0", SELF),))], hold=False)
            await settled(sync)
            assert port.own.entries() == {POD: UNREACHABLE, POD6: UNREACHABLE}
            assert port.learned.entries() == {}
            sync.originate(map(OwnPath, [POD6]))
            await settled(sync)
            assert port.own.entries() == {POD6: UNREACHABLE}

    run(story)


def test_a_service_address_has_no_entry_and_others_paths_to_it_are_not_installed() -> None:
    """`unreachable` would break this host's own connect() to the service: our own path wins, and is none."""

    async def story() -> None:
        async with node() as (port, sync):
            rib = Rib(ImportPolicy(asn=65000, router_id=9, allow=[AllowEntry(OTHER, 0, 32)]))
            rib.set_resolver(sync.cost)
            theirs = path(OTHER, "192.0.2.2")
            rib.session_up(theirs.source, [OTHER.family])
            rib.update(theirs.source, 0, theirs.attributes, (OTHER,), ())
            own = [OwnPath(OTHER, unreachable=False)]
            for paths, installed in (([], {OTHER}), (own, set()), ([], {OTHER})):
                rib.originate(paths)
                sync.originate(paths)
                sync.changed(rib.take_changes(), hold=False)
                await settled(sync)
                assert port.own.entries() == {}
                assert set(port.learned.entries()) == installed
            assert rib.take_refusals().total == 0

    run(story)


# -- across a restart --


def test_what_is_found_is_adopted_and_what_nobody_wants_goes_when_it_is_released() -> None:
    async def story() -> None:
        port = FakePort()
        port.learned.put(POD, OURS, via("192.0.2.2"))
        port.learned.put(OTHER, OURS, via("192.0.2.2"))
        async with node(port, hold_until=60) as (_, sync):
            sync.changed([selected(POD, "192.0.2.2")], hold=False)
            await settled(sync)
            assert port.applied == []
            assert sync.learned.held == 1
            sync.release_held(asyncio.get_running_loop().time() + QUICK)
            await until(lambda: port.learned.entries() == {POD: via("192.0.2.2")})

    run(story)


def test_the_families_of_the_entries_that_were_found_are_told() -> None:
    async def story() -> None:
        port = FakePort()
        port.learned.put(POD6, OURS, via("fd00::2"))
        port.own.put(POD, OURS, UNREACHABLE)
        sync = FibSync(port, FibConfig(), Meters())
        assert sync.start(0.0) == frozenset({Family.IPV6})
        await settled(sync)
        assert port.own.entries() == {}, "nobody advertises it any more"
        await sync.stop(flush=False)
        assert port.closed
        assert port.events.closed

    run(story)


def test_what_is_withdrawn_after_a_peers_restart_stays_for_the_hold_time() -> None:
    async def story() -> None:
        async with node(config=FibConfig(hold_time=5 * QUICK)) as (port, sync):
            loop = asyncio.get_running_loop()
            sync.changed([selected(POD, "192.0.2.2")], hold=False)
            await settled(sync)
            withdrawn_at = loop.time()
            sync.changed([selected(POD)], hold=True)
            await settled(sync)
            assert (sync.learned.state(POD).held, sync.learned.state(POD).reason) == (True, "kept as stale")
            await until(lambda: port.learned.entries() == {})
            assert loop.time() - withdrawn_at >= 5 * QUICK

    run(story)


@pytest.mark.parametrize("flush", [True, False])
def test_the_end_changes_nothing_but_what_it_is_told(flush: bool) -> None:
    async def story() -> None:
        async with node() as (port, sync):
            sync.changed([selected(POD, "192.0.2.2")], hold=False)
            await settled(sync)
            sync.freeze()
            sync.changed([selected(POD)], hold=False)
            await asyncio.sleep(QUICK)
            assert port.learned.entries() == {POD: via("192.0.2.2")}
            flushed = await sync.stop(flush=flush)
            assert (flushed is not None and flushed.removed == 1) is flush
            assert port.closed

    run(story)


# -- faults --


def test_what_the_kernel_refuses_is_told_counted_and_tried_again() -> None:
    async def story() -> None:
        async with node() as (port, sync):
            port.learned.refusals[POD] = Failure(errno.ENETUNREACH, "Nexthop has invalid gateway")
            with capture_logs() as logs:
                sync.changed([selected(POD, "192.0.2.2"), selected(OTHER, "192.0.2.2")], hold=False)
                await settled(sync)
            assert port.learned.entries() == {OTHER: via("192.0.2.2")}
            assert sync.learned.state(POD).reason == "Nexthop has invalid gateway"
            assert sync.error == "", "the kernel as a whole is well"
            (line,) = [line for line in logs if line["log_level"] == "warning"]
            assert (line["event"], line["first"], line["reason"]) == (
                "kernel refused entries",
                "10.1.0.0/24",
                "Nexthop has invalid gateway",
            )
            tries = len(port.applied)
            await until(lambda: len(port.applied) >= tries + 2)
            port.learned.refusals.clear()
            await until(lambda: POD in port.learned.entries())
            assert sync.learned.state(POD).installed
            meters = sync._meters.kernel_operations  # noqa: SLF001  what the metrics read
            assert meters["create", "ok"] == 2
            assert meters["create", "ENETUNREACH"] >= 3

    run(story)


def test_retries_become_rare() -> None:
    async def story() -> None:
        async with node() as (port, sync):
            port.learned.refusals[POD] = Failure(errno.EINVAL, "Invalid argument")
            sync.changed([selected(POD, "192.0.2.2")], hold=False)
            await asyncio.sleep(20 * QUICK)
            assert 3 <= len(port.applied) <= 9

    run(story)


@pytest.mark.parametrize("count", [1, INLINE + 1], ids=["in the loop", "in the worker"])
@pytest.mark.parametrize("faults", [1, 3])
def test_an_apply_that_fails_as_a_whole_is_made_up_for(count: int, faults: int) -> None:
    """What was done is unknown: everything is read again, and the rest is done."""
    prefixes = [Prefix.parse(f"11.{at}.0.0/16") for at in range(count)]

    async def story() -> None:
        async with node() as (port, sync):
            port.faults["apply"] = faults
            with capture_logs() as logs:
                sync.changed([selected(nlri, "192.0.2.2") for nlri in prefixes], hold=False)
                await until(lambda: sync.error != "")
                assert sync.error == "netlink apply: No buffer space available"
                assert sync.learned.state(prefixes[0]).reason == sync.error
                await until(lambda: len(port.learned.entries()) == count)
            await until(lambda: sync.error == "")
            assert {line["event"] for line in logs if line["log_level"] == "error"} == {
                "the kernel can't be changed"
            }
            assert all(sync.learned.state(nlri).installed for nlri in prefixes)

    run(story)


@pytest.mark.parametrize("method", ["snapshot", "surroundings"])
def test_a_read_that_fails_is_repeated(method: str) -> None:
    async def story() -> None:
        async with node() as (port, sync):
            sync.changed([selected(POD, "192.0.2.2")], hold=False)
            await settled(sync)
            port.faults[method] = 2
            if method == "snapshot":
                port.learned.lose(POD)
                port.events.put(Overrun("notifications were lost"))
            else:
                port.routes = port.routes[1:]
                port.events.put(ForeignRoutesChanged())
            await until(lambda: sync.error != "")
            assert sync.error == f"netlink {method}: No buffer space available"
            await until(lambda: sync.error == "")
            if method == "snapshot":
                await until(lambda: port.learned.entries() == {POD: via("192.0.2.2")})
            else:
                assert sync.cost(path(POD, "192.0.2.2")) is None

    run(story)


def test_a_monitor_that_lost_notifications_means_to_read_everything_again() -> None:
    """ENOBUFS: meanwhile one entry went, one was changed, and one came that nobody wants."""

    async def story() -> None:
        async with node() as (port, sync):
            wanted = {POD: via("192.0.2.2"), POD6: via("fd00::2")}
            sync.changed([selected(POD, "192.0.2.2"), selected(POD6, "fd00::2")], hold=False)
            await settled(sync)
            port.learned.lose(POD)
            port.learned.put(POD6, OURS, via("fd00::66"))
            port.learned.put(OTHER, OURS, via("192.0.2.66"))
            with capture_logs() as logs:
                port.events.put(Overrun("notifications were lost: No buffer space available"))
                await until(lambda: port.learned.entries() == wanted)
            assert any(line["event"].startswith("kernel entries may have changed unseen") for line in logs)
            assert sync._meters.kernel_resyncs["overrun"] == 1  # noqa: SLF001  what the metrics read

    run(story)


# -- what others do --


def test_an_entry_that_others_delete_or_change_is_mended() -> None:
    async def story() -> None:
        async with node() as (port, sync):
            sync.changed([selected(POD, "192.0.2.2"), selected(OTHER, "192.0.2.2")], hold=False)
            await settled(sync)
            watched: list[Prefix] = []
            sync.watched, sync.on_changed = (lambda: True), watched.extend
            port.others_delete(POD)
            port.others_put(OTHER, OURS, via("192.0.2.66"))
            await until(lambda: len(set(watched)) == 2)
            await until(lambda: port.learned.entries() == dict.fromkeys((POD, OTHER), via("192.0.2.2")))

    run(story)


def test_a_foreign_route_in_our_place_blocks_until_it_goes() -> None:
    async def story() -> None:
        async with node() as (port, sync):
            port.learned.put(POD, 186, via("192.0.2.66"))
            sync.changed([selected(POD, "192.0.2.2")], hold=False)
            await settled(sync)
            assert "186 (bgp)" in sync.learned.state(POD).reason
            await asyncio.sleep(5 * QUICK)
            assert port.learned.routes[POD].protocol == 186
            assert port.learned.taken_from_others == []
            port.others_delete(POD)
            await until(lambda: port.learned.entries() == {POD: via("192.0.2.2")})

    run(story)


def test_a_lost_link_is_told_before_anything_is_decided_and_read_for_what_went_in_silence() -> None:
    async def story() -> None:
        async with node() as (port, sync):
            told: list[set[Address] | None] = []
            sync.on_next_hops = told.append
            sync.changed([selected(POD, "192.0.2.2")], hold=False)
            await settled(sync)
            up = port.links
            port.links = [up[0]._replace(lower_up=False)]
            port.learned.lose(POD)
            port.events.put(LinksChanged())
            await until(lambda: told != [])
            assert told == [{parse_address("192.0.2.2")}]
            assert sync.cost(path(POD, "192.0.2.2")) is None
            assert sync.why_unresolved(path(POD, "192.0.2.2")) == "link eth0 has no carrier"
            port.links = up
            port.events.put(LinksChanged())
            await until(lambda: len(told) == 2)
            assert sync.cost(path(POD, "192.0.2.2")) == 0
            await until(lambda: POD in port.learned.entries())

    run(story)


def test_a_new_address_is_told_and_an_address_of_our_own_is_no_next_hop() -> None:
    async def story() -> None:
        async with node() as (port, sync):
            told: list[frozenset[Address]] = []
            sync.on_addresses = lambda: told.append(sync.own_addresses)
            new = port.addresses[0]._replace(address=parse_address("192.0.2.2"))
            assert sync.cost(path(POD, "192.0.2.2")) == 0
            port.addresses.append(new)
            port.events.put(LinksChanged())
            await until(lambda: told != [])
            assert parse_address("192.0.2.2") in told[0]
            assert sync.interface_of(parse_address("192.0.2.2")) == ETH0
            assert sync.interface_of(parse_address("192.0.2.77")) == 0
            assert parse_address("192.0.2.2") in sync.addresses_on(ETH0)
            assert sync.why_unresolved(path(POD, "192.0.2.2")) == "192.0.2.2 is an address of this node"

    run(story)


def test_a_changed_option_resolves_again() -> None:
    async def story() -> None:
        async with node() as (port, sync):
            port.routes.append(
                connected("0.0.0.0/0")._replace(hops=(Hop(parse_address("192.0.2.254"), ETH0),))
            )
            port.events.put(ForeignRoutesChanged())
            await until(lambda: "default route" in sync.why_unresolved(path(POD, "203.0.113.1")))
            sync.options_changed(replace(sync.config, resolve_via_default=True))
            await until(lambda: sync.cost(path(POD, "203.0.113.1")) is not None)

    run(story)


def test_what_the_entries_use_of_the_host_is_known_to_its_checks() -> None:
    async def story() -> None:
        async with node() as (_, sync):
            sync.originate(map(OwnPath, [OTHER]))
            sync.changed([selected(POD, "192.0.2.2", "192.0.2.3"), selected(POD6, "fd00::2")], hold=False)
            await settled(sync)
            usage = sync.usage()
            assert usage.families == {Family.IPV4, Family.IPV6}
            assert (usage.links, usage.multipath) == (("eth0",), 2)
            assert usage.next_hops == {Family.IPV4: 2, Family.IPV6: 1}

    run(story)
