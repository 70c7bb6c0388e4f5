"""The kernel boundary against a real kernel, in a namespace of each test's own.

The thread that runs a test enters the namespace: sockets and the `ip` commands of a test are then in it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from bgpd.kernel.monitor import (
    AddressesChanged,
    EntryChanged,
    ForeignRoutesChanged,
    KernelEvent,
    LinksChanged,
    Monitor,
    Overrun,
)
from bgpd.kernel.netlink import Kernel
from bgpd.kernel.next_hop_objects import FIRST_ID
from bgpd.kernel.route_reader import InUse, ObjectMap, Ownership
from bgpd.lab import netns
from routes.fib import UNREACHABLE, Applied, Delta, Fib, FibEntry, Hop
from routes.next_hop import Resolver
from routes.prefix import Address, Prefix, parse_address

OURS, METRIC, LAST_RESORT = 179, 20, 4278198272
SETUP = """
ip link add d0 type veth peer name d0p
ip link set d0 up
ip link set d0p up
ip address add 10.0.0.1/16 dev d0
ip address add fd00::1/64 dev d0 nodad
"""


def sh(script: str, *, check: bool = True) -> str:
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


def enter(namespace: Path) -> None:
    with namespace.open("rb") as handle:
        assert ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000) == 0


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    name = f"krn-{uuid.uuid4().hex[:8]}"
    root = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        netns.create([name])
        enter(netns.NETNS_FOLDER / name)
        sh(SETUP)
        yield
    finally:
        enter(Path(f"/proc/self/fd/{root}"))
        os.close(root)
        netns.remove([name])


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(254, OURS, (METRIC, LAST_RESORT)) as opened:
        yield opened


@pytest.fixture
def monitor(kernel: Kernel) -> Iterator[Monitor]:
    kernel.snapshot()
    with kernel.monitor() as opened:
        yield opened


def link(name: str = "d0") -> int:
    return socket.if_nametoindex(name)


def hop(gateway: str | None, *, onlink: bool = False, name: str = "d0") -> Hop:
    return Hop(parse_address(gateway) if gateway else None, link(name), onlink)


def via(*gateways: str, source: str | None = None) -> FibEntry:
    return FibEntry.of(map(hop, gateways), parse_address(source) if source else None)


def create(*items: tuple[str, FibEntry], metric: int = METRIC) -> Delta:
    return Delta(metric, [(Prefix.parse(text), entry) for text, entry in items], [], [])


def replace(*items: tuple[str, FibEntry]) -> Delta:
    return Delta(METRIC, [], [(Prefix.parse(text), entry) for text, entry in items], [])


def remove(*texts: str) -> Delta:
    return Delta(METRIC, [], [], [(Prefix.parse(text), UNREACHABLE) for text in texts])


def do(kernel: Kernel, delta: Delta) -> Applied:
    applied = kernel.apply(delta)
    assert not applied.failed, applied.failed
    return applied


def routes(*options: str) -> str:
    return sh(f"ip {' '.join(options)} route show; ip -6 {' '.join(options)} route show")


# Entries, there and back


def every_shape() -> list[tuple[str, FibEntry]]:
    return [
        ("10.1.0.0/24", via("10.0.0.2")),
        ("10.1.1.0/24", via("10.0.0.2", "10.0.0.3", source="10.0.0.1")),
        ("10.1.2.0/24", via("fe80::5")),
        ("10.1.3.0/24", via("fe80::5", "10.0.0.7")),
        ("10.1.4.0/24", FibEntry.of([hop("172.16.0.1", onlink=True)])),
        ("10.1.5.0/24", FibEntry.of([hop("172.16.0.1", onlink=True), hop("10.0.0.7")])),
        ("10.1.6.0/24", FibEntry.of([hop(None)])),
        ("10.1.7.1/32", UNREACHABLE),
        ("0.0.0.0/0", via("10.0.0.2", source="10.0.0.1")),
        ("fd01::/64", via("fd00::5")),
        ("fd02::/64", via("fd00::5", "fe80::7")),
        ("fd03::/64", via("fd00::5", source="fd00::1")),
        ("fd04::/64", FibEntry.of([hop("fd09::5", onlink=True)])),
        ("fd05::/64", via(*(f"fd00::{number:x}" for number in range(16, 32)))),
        ("fd06::1/128", UNREACHABLE),
        ("::/0", via("fe80::7")),
    ]


def test_every_shape_comes_back_as_it_was_written(kernel: Kernel) -> None:
    do(kernel, create(*every_shape()))
    assert kernel.snapshot().entries == {
        METRIC: {Prefix.parse(text): entry for text, entry in every_shape()},
        LAST_RESORT: {},
    }


def test_any_shape_replaces_any_other(kernel: Kernel) -> None:
    """One prefix goes through all shapes of its family, and back."""
    for text, family in (("10.9.0.0/16", ("10.", "0.")), ("fd99::/64", ("fd", "::"))):
        shapes = [entry for nlri, entry in every_shape() if nlri.startswith(family)]
        do(kernel, create((text, shapes[0])))
        for entry in [*shapes, *reversed(shapes)]:
            do(kernel, replace((text, entry)))
            assert kernel.snapshot().entries[METRIC] == {Prefix.parse(text): entry}
        do(kernel, remove(text))


@pytest.mark.parametrize("table", [100, 1000])
def test_entries_in_another_table_resolve_in_main(table: int) -> None:
    with Kernel(table, OURS, (METRIC,)) as kernel:
        assert kernel.snapshot().entries == {METRIC: {}}, "a table that nobody made yet is empty"
        do(kernel, create(("10.1.0.0/24", via("10.0.0.2")), ("fd01::/64", via("fd00::5"))))
        snapshot = kernel.snapshot()
        assert len(snapshot.entries[METRIC]) == 2
        assert "10.1.0.0/24 via 10.0.0.2" in sh(f"ip route show table {table}")
        assert {route.prefix for route in snapshot.routes} >= {Prefix.parse("10.0.0.0/16")}


def test_a_failure_names_its_prefix_and_the_kernels_reason(kernel: Kernel) -> None:
    """Every seventh of 5,000 is refused, in several chunks, and no other."""
    good, bad = via("10.0.0.2"), via("172.16.0.1")
    items = [(f"10.{100 + at // 256}.{at % 256}.0/24", bad if at % 7 == 0 else good) for at in range(5000)]
    applied = kernel.apply(create(*items))
    refused = {Prefix.parse(text) for text, entry in items if entry is bad}
    assert applied.failed.keys() == refused
    assert {failure.code for failure in applied.failed.values()} == {errno.ENETUNREACH}
    assert applied.failed[min(refused)].text == "Nexthop has invalid gateway (ENETUNREACH)"
    assert kernel.snapshot().entries[METRIC].keys() == {Prefix.parse(text) for text, _ in items} - refused


def test_all_messages_of_a_chunk_can_fail(kernel: Kernel) -> None:
    """Their errors wait on the socket until the last was run, and none may be dropped."""
    items = [(f"10.{100 + at // 256}.{at % 256}.0/24", via("172.16.0.1")) for at in range(2000)]
    assert len(kernel.apply(create(*items)).failed) == 2000


def test_removing_and_replacing_what_is_gone_is_told(kernel: Kernel) -> None:
    delta = Delta(
        METRIC,
        [],
        [(Prefix.parse("10.1.0.0/24"), via("10.0.0.2")), (Prefix.parse("fd01::/64"), via("fd00::5"))],
        [(Prefix.parse("10.2.0.0/24"), UNREACHABLE), (Prefix.parse("fd02::/64"), UNREACHABLE)],
    )
    codes = [failure.code for failure in kernel.apply(delta).failed.values()]
    assert codes == [errno.ENOENT, errno.ENOENT, errno.ESRCH, errno.ESRCH]
    assert kernel.snapshot().entries[METRIC] == {}


# Routes of others

FOREIGN = """
ip route add 10.1.0.0/24 via 10.0.0.9 proto {protocol} metric {metric}
ip -6 route add fd01::/64 via fd00::9 proto {protocol} metric {metric}
"""


@pytest.mark.parametrize("protocol", [186, 4, 2])
def test_a_foreign_route_in_our_place_is_never_overwritten(kernel: Kernel, protocol: int) -> None:
    sh(FOREIGN.format(protocol=protocol, metric=METRIC))
    before = routes()
    applied = kernel.apply(create(("10.1.0.0/24", via("10.0.0.2")), ("fd01::/64", via("fd00::2", "fd00::3"))))
    assert {failure.code for failure in applied.failed.values()} == {errno.EEXIST}
    assert set(applied.found.values()) == {(None, protocol)}
    assert len(applied.found) == 2
    kernel.apply(remove("10.1.0.0/24", "fd01::/64"))
    assert routes() == before


def test_a_foreign_route_with_another_metric_survives_everything(kernel: Kernel) -> None:
    sh(FOREIGN.format(protocol=186, metric=50))
    sh(FOREIGN.format(protocol=OURS, metric=51))
    sh("ip route add 10.1.0.0/24 via 10.0.0.9 tos 0x10 proto 179 metric 20")
    before = routes()
    do(kernel, create(("10.1.0.0/24", via("10.0.0.2")), ("fd01::/64", via("fd00::2", "fd00::3"))))
    do(kernel, replace(("10.1.0.0/24", via("10.0.0.3")), ("fd01::/64", via("fd00::3"))))
    assert len(kernel.snapshot().entries[METRIC]) == 2
    do(kernel, remove("fd01::/64"))
    assert kernel.flush() == (1, 0, ())
    assert routes() == before


def test_what_exists_and_is_ours_is_found(kernel: Kernel) -> None:
    delta = create(("10.1.0.0/24", via("10.0.0.2")), ("fd01::/64", via("fd00::2", "fd00::3")))
    do(kernel, delta)
    assert {nlri: found.entry for nlri, found in kernel.apply(delta).found.items()} == dict(delta.create)


def test_a_foreign_route_beside_ours_is_seen(kernel: Kernel) -> None:
    do(kernel, create(("10.1.0.0/24", via("10.0.0.2"))))
    sh("ip route append 10.1.0.0/24 via 10.0.0.9 proto 186 metric 20")
    nlri = Prefix.parse("10.1.0.0/24")
    assert kernel.apply(Delta(METRIC, [], [], [], (nlri,))).found == {nlri: (via("10.0.0.2"), 186)}


@pytest.mark.parametrize("connected_first", [True, False])
def test_unreachable_never_beats_a_connected_route(kernel: Kernel, connected_first: bool) -> None:
    bridge = "ip address add 10.50.0.1/24 dev d0p; ip address add fd50::1/64 dev d0p nodad"
    if connected_first:
        sh(bridge)
    do(kernel, create(("10.50.0.0/24", UNREACHABLE), ("fd50::/64", UNREACHABLE), metric=LAST_RESORT))
    if not connected_first:
        assert "No route to host" in sh("ip route get 10.50.0.7 2>&1 || true")
        sh(bridge)
    assert "dev d0p" in sh("ip route get 10.50.0.7")
    assert "dev d0p" in sh("ip -6 route get fd50::7")
    assert len(kernel.snapshot().entries[LAST_RESORT]) == 2


def test_flush_removes_all_that_is_ours_and_nothing_else() -> None:
    before = routes()
    with Kernel(254, OURS, (METRIC, LAST_RESORT), object_threshold=1) as kernel:
        do(kernel, create(*every_shape()))
        do(kernel, create(("10.50.0.0/24", UNREACHABLE), metric=LAST_RESORT))
        sh("ip nexthop add id 7 via 10.0.0.9 dev d0 proto 186")
        assert str(FIRST_ID) in sh("ip nexthop show")
        assert kernel.flush() == (len(every_shape()) + 1, 0, ())
    assert routes() == before
    assert sh("ip nexthop show").startswith("id 7 via 10.0.0.9 dev d0")
    assert sh("ip nexthop show").count("id ") == 1


# What others change


def changes(events: Iterable[KernelEvent]) -> dict[str, tuple[int, FibEntry | None]]:
    return {
        str(event.nlri): (event.protocol, event.entry) for event in events if isinstance(event, EntryChanged)
    }


def test_our_own_changes_are_hidden_and_those_of_others_reported(kernel: Kernel, monitor: Monitor) -> None:
    do(kernel, create(("10.1.0.0/24", via("10.0.0.2")), ("10.2.0.0/24", via("10.0.0.2"))))
    do(kernel, create(("fd01::/64", via("fd00::2")), ("fd02::/64", via("fd00::2"))))
    do(kernel, remove("10.2.0.0/24", "fd02::/64"))
    assert monitor.read() == []
    sh(
        """
        ip route replace 10.1.0.0/24 via 10.0.0.9 proto 179 metric 20
        ip -6 route del fd01::/64 proto 179
        ip route add 10.3.0.0/24 via 10.0.0.9 proto 186 metric 20
        """
    )
    assert changes(monitor.read()) == {
        "10.1.0.0/24": (OURS, via("10.0.0.9")),
        "fd01::/64": (OURS, None),
        "10.3.0.0/24": (186, via("10.0.0.9")),
    }


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ip link add d1 type veth peer name d1p", {LinksChanged()}),
        ("ip address add 10.7.0.1/32 dev lo", {AddressesChanged()}),
        ("ip address add fd07::1/128 dev lo nodad", {AddressesChanged(), ForeignRoutesChanged()}),
        ("ip route add 9.9.9.0/24 via 10.0.0.9", {ForeignRoutesChanged()}),
        ("ip route add 9.9.9.0/24 via 10.0.0.9 table 100", set()),
        ("ip neighbour add 10.0.0.9 lladdr 02:00:00:00:00:01 dev d0", set()),
    ],
)
def test_surroundings_are_reported(monitor: Monitor, command: str, expected: set[KernelEvent]) -> None:
    sh(command)
    events = set(monitor.read())
    while events != expected and select.select([monitor], [], [], 2)[0]:  # an IPv6 address takes a moment
        events.update(monitor.read())
    assert events == expected


def test_surroundings_are_reported_once_for_many_changes(monitor: Monitor) -> None:
    sh("".join(f"ip route add 9.9.{at}.0/24 via 10.0.0.9\n" for at in range(9)))
    routes = [event for event in monitor.read() if event != AddressesChanged()]  # DAD may end just now
    assert routes == [ForeignRoutesChanged()]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("ip link set d0 down; ip link set d0 up", "went down"),
        ("ip address del 10.0.0.1/16 dev d0; ip address add 10.0.0.1/16 dev d0", "lost an address"),
        ("ip link del d0", "went down"),
    ],
)
def test_what_takes_entries_in_silence_asks_for_a_dump(
    kernel: Kernel, monitor: Monitor, command: str, reason: str
) -> None:
    """Also when all looks as before by the time that somebody reads."""
    do(kernel, create(("10.1.0.0/24", via("10.0.0.2"))))
    sh(command)
    events = monitor.read()
    assert not changes(events)
    assert any(isinstance(event, Overrun) and reason in event.reason for event in events)
    assert kernel.snapshot().entries[METRIC] == {}


def test_links_that_nothing_uses_may_come_and_go(kernel: Kernel, monitor: Monitor) -> None:
    do(kernel, create(("10.1.0.0/24", via("10.0.0.2"))))
    sh("ip link add d1 type veth peer name d1p; ip link set d1 up; ip link del d1")
    assert set(monitor.read()) <= {LinksChanged(), AddressesChanged(), ForeignRoutesChanged()}


def test_an_overrun_is_survived_and_told(kernel: Kernel, monitor: Monitor) -> None:
    with socket.socket(fileno=os.dup(monitor.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    batch = "".join(f"route add 10.200.{at}.0/24 via 10.0.0.9 proto 179 metric 20\n" for at in range(200))
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    events = monitor.read()
    assert any(isinstance(event, Overrun) for event in events)
    assert len(changes(events)) < 200
    assert monitor.read() == []
    sh("ip route del 10.200.0.0/24")
    assert "10.200.0.0/24" in changes(monitor.read())
    assert len(kernel.snapshot().entries[METRIC]) == 199


# The pure core on the real kernel


def settle(fib: Fib, kernel: Kernel, monitor: Monitor, now: float = 0.0) -> None:
    for _ in range(5):
        for event in monitor.read():
            if isinstance(event, EntryChanged):
                fib.observed(event.nlri, event.entry, event.protocol, event.gone)
            elif isinstance(event, Overrun):
                fib.resynced(kernel.snapshot().entries[METRIC])
        delta = fib.delta(now)
        if delta.size:
            fib.applied(kernel.apply(delta), now)


def wanted() -> dict[Prefix, FibEntry | None]:
    return {Prefix.parse(text): entry for text, entry in every_shape()}


def test_foreign_edits_are_repaired(kernel: Kernel, monitor: Monitor) -> None:
    fib = Fib(METRIC, OURS)
    fib.want_many(wanted())
    settle(fib, kernel, monitor)
    sh(
        """
        ip route del 10.1.0.0/24
        ip route replace 10.1.1.0/24 via 10.0.0.9 proto 179 metric 20 mtu 1400
        ip route replace 10.1.2.0/24 via inet6 fe80::5 dev d0 proto 179 metric 20 mtu 1400
        ip route replace blackhole 10.1.7.1/32 proto 179 metric 20
        ip route add 10.77.0.0/24 via 10.0.0.9 proto 179 metric 20
        ip -6 route del fd01::/64
        ip -6 route del fd02::/64 via fd00::5
        ip -6 route append fd03::/64 via fd00::9 proto 179 metric 20
        ip -6 route replace fd05::/64 via fd00::9 proto 179 metric 20
        """
    )
    settle(fib, kernel, monitor)
    assert kernel.snapshot().entries[METRIC] == wanted()


def test_a_foreign_route_put_over_ours_stays_and_is_named(kernel: Kernel, monitor: Monitor) -> None:
    fib = Fib(METRIC, OURS)
    fib.want_many(wanted())
    settle(fib, kernel, monitor)
    sh("ip route replace 10.1.0.0/24 via 10.0.0.9 proto 186 metric 20")
    settle(fib, kernel, monitor)
    state = fib.state(Prefix.parse("10.1.0.0/24"))
    assert state.actual is None
    assert "protocol 186" in state.reason
    assert "10.1.0.0/24 via 10.0.0.9 dev d0 proto bgp metric 20" in routes()
    sh("ip route del 10.1.0.0/24 proto 186")
    settle(fib, kernel, monitor)
    assert kernel.snapshot().entries[METRIC] == wanted()


@pytest.mark.parametrize("threshold", [2000, 1])
def test_a_restart_adopts_without_a_single_notification(threshold: int) -> None:
    with Kernel(254, OURS, (METRIC, LAST_RESORT), threshold) as first:
        do(first, create(*every_shape()))
    nobody = Ownership(254, OURS, frozenset((METRIC,)))
    with (
        Monitor(nobody, ObjectMap({}, set()), InUse(set(), set()), 0) as everything,
        Kernel(254, OURS, (METRIC, LAST_RESORT), threshold) as second,
        second.monitor() as monitor,
    ):
        fib = Fib(METRIC, OURS)
        fib.adopt(second.snapshot().entries[METRIC], 100.0)
        fib.want_many(wanted())
        settle(fib, second, monitor)
        fib.release_adopted(0.0)
        settle(fib, second, monitor, 200.0)
        assert all(fib.state(nlri).installed for nlri in wanted())
        assert second.sweep() == 0
        assert everything.read() == []


def test_next_hops_resolve_in_what_a_snapshot_says(kernel: Kernel) -> None:
    sh("ip route add 198.51.100.0/24 via 10.0.0.9; ip link add d1 type veth peer name d1p")
    do(kernel, create(("203.0.113.0/24", via("10.0.0.2"))))
    snapshot = kernel.snapshot()
    assert kernel.surroundings() == snapshot[1:]
    node = Resolver(snapshot.links, snapshot.addresses, snapshot.routes)
    assert node.resolve(parse_address("10.0.0.7"), None, 0).hop == (hop("10.0.0.7"),)
    assert node.resolve(parse_address("198.51.100.7"), None, 0).hop == (hop("10.0.0.9"),)
    assert node.resolve(parse_address("fd00::7"), None, 0).hop == (hop("fd00::7"),)
    assert node.resolve(parse_address("203.0.113.7"), None, 0).reason == "no route leads to 203.0.113.7"
    assert "address of this node" in node.resolve(parse_address("10.0.0.1"), None, 0).reason
    assert node.resolve(parse_address("fe80::7"), None, link("d1")).reason == "link d1 is down"


# Next-hop objects


def many(count: int, first: int = 0) -> list[tuple[str, FibEntry]]:
    return [
        (f"10.{100 + at // 256}.{at % 256}.0/24", via(f"10.0.{1 + at // 250}.{1 + at % 250}"))
        for at in range(first, first + count)
    ]


@pytest.fixture
def small() -> Iterator[Kernel]:
    """A kernel object that uses next-hop objects from the eleventh gateway on."""
    with Kernel(254, OURS, (METRIC,), object_threshold=10) as opened:
        opened.snapshot()
        yield opened


def objects() -> int:
    return sh("ip nexthop show").count("proto 179")


@pytest.mark.parametrize("compatible", [0, 1])
def test_many_gateways_get_objects_that_nobody_sees(small: Kernel, compatible: int) -> None:
    sh(f"sysctl -qw net.ipv4.nexthop_compat_mode={compatible}")
    do(small, create(*many(10)))
    assert objects() == 0
    do(small, create(*many(40, 10)))
    do(small, create(("fd01::/64", via("fd00::5")), ("10.1.0.0/24", via("10.0.0.2", "10.0.0.3"))))
    assert objects() == 40
    assert sh("ip route show").count("nhid") == 40
    expected = dict(create(*many(50), ("fd01::/64", via("fd00::5"))).create)
    expected[Prefix.parse("10.1.0.0/24")] = via("10.0.0.2", "10.0.0.3")
    assert small.snapshot().entries[METRIC] == expected


def test_objects_are_adopted_and_swept_when_nothing_uses_them(small: Kernel) -> None:
    do(small, create(*many(20)))
    with Kernel(254, OURS, (METRIC,), object_threshold=10) as second:
        second.snapshot()
        do(second, create(("10.1.0.0/24", many(20)[0][1])))
        assert objects() == 20
        sh(f"ip route add 9.9.9.0/24 nhid {FIRST_ID + 5} proto 186")
        do(second, remove(*(text for text, _ in many(20))))
        assert second.sweep() == 18
    assert objects() == 2
    assert "9.9.9.0/24" in routes()


def test_ids_that_others_have_are_left_alone(small: Kernel) -> None:
    sh(f"ip nexthop add id {FIRST_ID} via 10.0.0.9 dev d0 proto 186")
    sh(f"ip nexthop add id {FIRST_ID + 3} via 10.0.0.9 dev d0 proto 186")
    do(small, create(*many(20)))
    assert objects() == 20
    assert small.snapshot().entries[METRIC] == dict(create(*many(20)).create)
    assert sh("ip nexthop show").count("via 10.0.0.9 ") == 2


def test_a_foreign_object_under_our_entry_is_an_edit(small: Kernel) -> None:
    do(small, create(("10.1.0.0/24", via("10.0.0.9"))))
    sh("ip nexthop add id 7 via 10.0.0.9 dev d0; ip route replace 10.1.0.0/24 nhid 7 proto 179 metric 20")
    nlri = Prefix.parse("10.1.0.0/24")
    assert small.snapshot().entries[METRIC][nlri] != via("10.0.0.9")
    do(small, replace(("10.1.0.0/24", via("10.0.0.9"))))
    assert small.snapshot().entries[METRIC] == {nlri: via("10.0.0.9")}


def test_objects_that_went_are_made_again_when_they_are_needed(small: Kernel) -> None:
    do(small, create(*many(20)))
    sh("ip nexthop flush")
    assert small.apply(create(*many(30))).failed == {}
    assert small.snapshot().entries[METRIC] == dict(create(*many(30)).create)


def test_losing_the_carrier_takes_objects_and_entries_and_is_noticed(small: Kernel) -> None:
    with small.monitor() as monitor:
        do(small, create(*many(20)))
        fib = Fib(METRIC, OURS)
        fib.adopt(small.snapshot().entries[METRIC], 0.0)
        fib.want_many(dict(create(*many(20)).create))
        sh("ip link set d0p down")
        sh("for _ in $(seq 50); do ip nexthop show | grep -q . || break; sleep 0.1; done")
        assert "nhid" not in routes()
        sh("ip link set d0p up")
        sh("for _ in $(seq 50); do ip link show d0 | grep -q LOWER_UP && break; sleep 0.1; done")
        settle(fib, small, monitor)
        assert small.snapshot().entries[METRIC] == fib.desired
        assert len(fib.desired) == 20


def test_a_thousand_distinct_gateways_survive_a_sweep(small: Kernel) -> None:
    do(small, create(*many(1500)))
    assert objects() == 1500
    assert small.sweep() == 0
    do(small, replace(*((text, via("10.0.0.2")) for text, _ in many(1500))))
    assert small.sweep() == 1500
    assert small.snapshot().entries[METRIC] == {
        Prefix.parse(text): FibEntry.of([Hop(Address(bytes((10, 0, 0, 2))), link())])
        for text, _ in many(1500)
    }
