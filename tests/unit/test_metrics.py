"""What Prometheus gets, and that its listener can not be used against the daemon."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bgpd.config import Endpoint
from bgpd.kube.controller_metrics import ControllerMetrics, Counts, Glance
from bgpd.kube.controller_state import ControllerState
from bgpd.kube.following import News
from bgpd.meters import Histogram, Meters, measure_loop_lag
from bgpd.metrics import SLICE, Metrics, whole
from bgpd.metrics_server import LONGEST_REQUEST, MOST_CONNECTIONS, MetricsServer
from routes.path import PeerKind, PeerName
from routes.peer import Counters, FamilyCounts, PeerStatus, SessionState
from routes.prefix import Family, parse_address
from routes.view import (
    Convergence,
    DaemonStatus,
    FibCount,
    HostWarning,
    IntentStatus,
    Table,
    TableCount,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
UP = PeerStatus(
    name=PeerName("192.0.2.1"),
    kind=PeerKind.EBGP,
    asn=64512,
    local_asn=65000,
    state=SessionState.ESTABLISHED,
    since=1000.5,
    counters=Counters(10, 11, 7, 8, 700, 800, flaps=2),
    families=((Family.IPV4, FamilyCounts(received=5, accepted=4, advertised=3, stale=1)),),
)
DOWN = PeerStatus(PeerName("fe80::1%eth0"), PeerKind.IBGP, 65000, 65000, SessionState.ACTIVE)
CLIENT = replace(UP, name=PeerName("10.0.0.1"), kind=PeerKind.IBGP, asn=65000)
AWAY = HostWarning("the Kubernetes API server", "not heard from for 38 s", "")
STATUS = DaemonStatus(
    version="1.2.3",
    role="agent",
    asn=65000,
    router_id=1,
    started=1.0,
    convergence=Convergence(complete=False, waiting_for=(PeerName("192.0.2.1"),)),
    tables=(TableCount(Table.LOC_RIB, Family.IPV4, prefixes=4, paths=9),),
    fib=(FibCount(Family.IPV4, wanted=4, installed=3, failed=1, held=2),),
    warnings=(AWAY, HostWarning("net.ipv4.ip_forward", "0", "sysctl -w net.ipv4.ip_forward=1")),
    intent=IntentStatus(stale=37.5, malformed=1, problems=2, ready=False, warnings=(AWAY,)),
    config_error="agent.toml:3: ...",
)
NOTHING = DaemonStatus("1.2.3", "agent", 65000, 1, 1.0, Convergence(complete=True))


class Daemon:
    """A daemon that stands still."""

    def __init__(
        self, status: DaemonStatus = STATUS, peers: tuple[PeerStatus, ...] = (UP, DOWN, CLIENT)
    ) -> None:
        self._status = status
        self._peers = peers

    def peers(self) -> Iterable[PeerStatus]:
        return self._peers

    def now_has(self, peers: Iterable[PeerStatus]) -> None:
        self._peers = tuple(peers)

    def range_of(self, name: PeerName) -> str:
        """Addresses in 10.0.0.0/8 are clients without an entry."""
        return "10.0.0.0/8" if name.startswith("10.") else ""

    def status(self, *, received: bool) -> DaemonStatus:
        assert not received, "thousands of tables are counted with the peers instead"
        return self._status


def worked() -> Meters:
    """Meters of a daemon that has done something of each kind."""
    meters = Meters()
    meters.kernel_done("create", 20)
    meters.kernel_failed("create", 17, 3)
    meters.kernel_failed("remove", 9999)
    meters.kernel_resyncs["overrun"] += 1
    meters.reloaded(ok=True)
    meters.reloaded(ok=False)
    meters.convergence.observe(0.004, times=19)
    meters.convergence.observe(60)
    meters.loop_lag.observe(0.0001)
    return meters


def scraped(daemon: Daemon, meters: Meters) -> dict[str, float]:
    """Samples by name and labels, as `name{a=x,b=y}`."""
    return samples_of(whole(Metrics(daemon, meters).exposition()).decode())


def samples_of(text: str) -> dict[str, float]:
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        ("podbgp_sessions{state=Established}", 2),
        ("podbgp_sessions{state=Active}", 1),
        ("podbgp_sessions{state=Idle}", 0),
        ("podbgp_peer_up{peer=192.0.2.1}", 1),
        ("podbgp_peer_up{peer=fe80::1%eth0}", 0),
        ("podbgp_peer_info{asn=64512,kind=ebgp,peer=192.0.2.1}", 1),
        ("podbgp_peer_state_since_timestamp_seconds{peer=192.0.2.1}", 1000.5),
        ("podbgp_peer_messages_total{direction=in,peer=192.0.2.1}", 10),
        ("podbgp_peer_updates_total{direction=out,peer=192.0.2.1}", 8),
        ("podbgp_peer_bytes_total{direction=in,peer=192.0.2.1}", 700),
        ("podbgp_peer_flaps_total{peer=192.0.2.1}", 2),
        ("podbgp_peer_prefixes{family=ipv4,peer=192.0.2.1,state=accepted}", 4),
        ("podbgp_peer_prefixes{family=ipv4,peer=192.0.2.1,state=stale}", 1),
        ("podbgp_clients{range=10.0.0.0/8,state=Established}", 1),
        ("podbgp_clients{range=10.0.0.0/8,state=Idle}", 0),
        ("podbgp_clients_messages_total{direction=in,range=10.0.0.0/8}", 10),
        ("podbgp_clients_updates_total{direction=out,range=10.0.0.0/8}", 8),
        ("podbgp_clients_bytes_total{direction=out,range=10.0.0.0/8}", 800),
        ("podbgp_clients_flaps_total{range=10.0.0.0/8}", 2),
        ("podbgp_clients_prefixes{family=ipv4,range=10.0.0.0/8,state=advertised}", 3),
        ("podbgp_rib_prefixes{family=ipv4,table=loc-rib}", 4),
        ("podbgp_rib_paths{family=ipv4,table=loc-rib}", 9),
        ("podbgp_rib_prefixes{family=ipv4,table=adj-in-pre}", 10),
        ("podbgp_rib_prefixes{family=ipv4,table=adj-in-post}", 8),
        ("podbgp_rib_paths{family=ipv6,table=adj-in-post}", 0),
        ("podbgp_initial_convergence_complete", 0),
        ("podbgp_initial_convergence_waiting_peers", 1),
        ("podbgp_fib_entries{family=ipv4,state=installed}", 3),
        ("podbgp_fib_entries{family=ipv4,state=failed}", 1),
        ("podbgp_kernel_operations_total{operation=create,result=ok}", 20),
        ("podbgp_kernel_operations_total{operation=create,result=EEXIST}", 3),
        ("podbgp_kernel_operations_total{operation=remove,result=9999}", 1),
        ("podbgp_kernel_resyncs_total{reason=overrun}", 1),
        ("podbgp_config_reloads_total{result=failed}", 1),
        ("podbgp_config_last_reload_failed", 1),
        ("podbgp_convergence_seconds_count", 20),
        ("podbgp_convergence_seconds_bucket{le=0.002}", 0),
        ("podbgp_convergence_seconds_bucket{le=0.005}", 19),
        ("podbgp_convergence_seconds_bucket{le=10.0}", 19),
        ("podbgp_convergence_seconds_bucket{le=+Inf}", 20),
        ("podbgp_event_loop_lag_seconds_count", 1),
        ("podbgp_host_warnings", 1),
    ],
)
def test_a_scrape_shows(sample: str, value: float) -> None:
    assert scraped(Daemon(), worked())[sample] == value


def test_a_daemon_that_has_done_nothing_yet_can_be_scraped() -> None:
    samples = scraped(Daemon(NOTHING, ()), Meters())
    assert any(
        name.startswith("podbgp_build_info{") and "role=agent,version=1.2.3" in name for name in samples
    )
    assert samples["podbgp_config_last_reload_failed"] == 0


def client(number: int, counters: Counters) -> PeerStatus:
    return replace(CLIENT, name=PeerName(f"10.0.0.{number}"), counters=counters)


def test_clients_of_a_range_have_no_series_of_their_own() -> None:
    many = tuple(client(number, Counters()) for number in range(200))
    samples = scraped(Daemon(STATUS, (UP, *many)), Meters())
    assert not any("10.0.0.1" in name for name in samples)
    assert samples["podbgp_clients{range=10.0.0.0/8,state=Established}"] == 200
    assert samples["podbgp_peer_up{peer=192.0.2.1}"] == 1


def test_what_clients_counted_never_falls() -> None:
    """A sum that falls looks like a restart of the daemon, and makes a huge rate."""
    daemon = Daemon(STATUS, (client(1, Counters(messages_in=100)), client(2, Counters(messages_in=10))))
    metrics = Metrics(daemon, Meters())
    seen = []
    for peers in (
        daemon.peers(),
        (client(2, Counters(messages_in=11)),),  # the first one is gone
        (client(1, Counters(messages_in=3)), client(2, Counters(messages_in=11))),  # it is back, from 0
        (client(1, Counters(messages_in=2)),),  # gone and back between two scrapes
        (),
    ):
        daemon.now_has(peers)
        samples = samples_of(whole(metrics.exposition()).decode())
        seen.append(samples["podbgp_clients_messages_total{direction=in,range=10.0.0.0/8}"])
    assert seen == [110, 111, 114, 116, 116]


def test_a_name_can_not_break_the_format() -> None:
    odd = replace(UP, name=PeerName('fe80::1%a"b\\c'))
    assert scraped(Daemon(STATUS, (odd,)), Meters())['podbgp_peer_up{peer=fe80::1%a"b\\c}'] == 1


def test_a_scrape_of_many_peers_lets_others_run_in_between() -> None:
    asked = []

    class Busy(Daemon):
        def peers(self) -> Iterator[PeerStatus]:
            for number in range(100):
                asked.append(number)
                yield client(number, Counters())

    ticks = count(0)
    scrape = Metrics(Busy(), Meters(), clock=lambda: next(ticks) * SLICE / 10).exposition()
    slices = []
    for _ in range(3):
        next(scrape)
        slices.append(len(asked))
    assert slices == [10, 20, 30]


def test_those_who_ask_meanwhile_share_one_rendering() -> None:
    started = []

    def rendering() -> Generator[None, None, bytes]:
        started.append(1)
        for _ in range(50):
            yield
        return b"all"

    async def run() -> None:
        server = MetricsServer(rendering, str)
        await server.start(Endpoint(parse_address("127.0.0.1"), 0))
        ask = b"GET /metrics HTTP/1.1\r\n\r\n"
        answers = await asyncio.gather(*(exchange(server.port, ask) for _ in range(5)))
        again = await exchange(server.port, ask)
        await server.close()
        assert [*answers, again] == [(200, b"all")] * 6

    asyncio.run(run())
    assert len(started) < 6


def test_the_documentation_lists_every_metric_and_no_other() -> None:
    samples = {
        re.sub(r"\{.*", "", name) for name in scraped(Daemon(), worked()) if name.startswith("podbgp_")
    }
    exported = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in samples}
    assert not any(name.startswith("podbgp_controller_") for name in exported)
    documented = set(re.findall(r"^\| `(podbgp_\w+)`", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == exported | controller_metrics()


def controller_metrics() -> set[str]:
    """The names that the controller exports, of families without a sample as well."""
    state = ControllerState("podbgp-system", Random(1).random)
    glance = Glance(state, Counts(), News(True, 0.0, "", ()), leads=True, events_dropped=0)
    text = whole(ControllerMetrics(lambda: glance).exposition()).decode()
    return set(re.findall(r"^# TYPE (podbgp_\w+) ", text, re.MULTILINE))


def test_a_value_on_a_bound_counts_as_within() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(1.0)
    assert histogram.buckets() == [("1.0", 1), ("2.0", 1), ("+Inf", 1)]


def test_a_held_up_event_loop_is_seen() -> None:
    lag = Histogram((0.04,))

    async def busy() -> None:
        measuring = asyncio.ensure_future(measure_loop_lag(lag, interval=0.01))
        await asyncio.sleep(0.005)
        time.sleep(0.08)  # noqa: ASYNC251  the fault to be seen
        await asyncio.sleep(0.005)
        measuring.cancel()

    asyncio.run(busy())
    assert lag.sum >= 0.05


def served(
    test: Callable[[int], Awaitable[None]], unhealthy: str = "", unready: str = "", timeout: float = 5.0
) -> None:
    """Run `test` against a listener on a free loopback port."""
    metrics = Metrics(Daemon(), worked())

    async def run() -> None:
        server = MetricsServer(
            metrics.exposition, lambda: unhealthy, unready=lambda: unready, timeout=timeout
        )
        await server.start(Endpoint(parse_address("127.0.0.1"), 0))
        try:
            async with asyncio.timeout(20):
                await test(server.port)
        finally:
            await server.close()

    asyncio.run(run())


async def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Send `request`; the status (0: none) and the body until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /metrics?debug=1 HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET /readyz HTTP/1.1\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (LONGEST_REQUEST + 1), 431),
    ],
)
def test_only_three_things_can_be_asked(request_bytes: bytes, status: int) -> None:
    async def ask(port: int) -> None:
        assert (await exchange(port, request_bytes))[0] == status

    served(ask)


def test_metrics_arrive_whole() -> None:
    async def ask(port: int) -> None:
        _, body = await exchange(port, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert b'podbgp_peer_up{peer="192.0.2.1"} 1\n' in body
        assert b"process_resident_memory_bytes" in body

    served(ask)


HEALTHZ, READYZ = b"GET /healthz HTTP/1.1\r\n\r\n", b"GET /readyz HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("unhealthy", "unready", "alive", "ready"),
    [
        ("", "", (200, b"ok\n"), (200, b"ok\n")),
        ("", "waits", (200, b"ok, but not ready: waits\n"), (503, b"waits\n")),
        ("no kernel", "", (503, b"no kernel\n"), (503, b"no kernel\n")),
        ("no kernel", "waits", (503, b"no kernel\n"), (503, b"no kernel\n")),
    ],
)
def test_probes_are_told_why(
    unhealthy: str, unready: str, alive: tuple[int, bytes], ready: tuple[int, bytes]
) -> None:
    async def ask(port: int) -> None:
        assert (await exchange(port, HEALTHZ), await exchange(port, READYZ)) == (alive, ready)

    served(ask, unhealthy=unhealthy, unready=unready)


def test_a_listener_is_handed_over_between_two_requests() -> None:
    def slowly(text: bytes) -> Generator[None, None, bytes]:
        for _ in range(20):
            yield
        return text

    async def run() -> None:
        server = MetricsServer(lambda: slowly(b"waiting"), str, unready=lambda: "waits")
        await server.start(Endpoint(parse_address("127.0.0.1"), 0))
        ask = b"GET /metrics HTTP/1.1\r\n\r\n"
        assert await exchange(server.port, READYZ) == (503, b"waits\n")
        first = asyncio.ensure_future(exchange(server.port, ask))
        await asyncio.sleep(0)
        server.answer_with(lambda: slowly(b"running"), str, str)
        assert (await first)[0] == 200
        assert await exchange(server.port, ask) == (200, b"running")
        assert await exchange(server.port, READYZ) == (200, b"ok\n")
        await server.close()

    asyncio.run(run())


def test_who_says_nothing_is_dropped() -> None:
    async def ask(port: int) -> None:
        assert await exchange(port, b"GET /met") == (0, b"")

    served(ask, timeout=0.1)


def test_many_connections_do_not_keep_others_out_for_ever() -> None:
    async def ask(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CONNECTIONS)]
        assert (await exchange(port, b"GET /healthz HTTP/1.1\r\n\r\n"))[0] == 0
        for _, writer in silent:
            writer.close()
        await asyncio.gather(*(reader.read() for reader, _ in silent))
        assert (await exchange(port, b"GET /healthz HTTP/1.1\r\n\r\n"))[0] == 200

    served(ask)


def test_close_ends_open_connections() -> None:
    async def run() -> None:
        server = MetricsServer(Metrics(Daemon(), Meters()).exposition, str)
        await server.start(Endpoint(parse_address("127.0.0.1"), 0))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.sleep(0.05)
        await server.close()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    asyncio.run(run())
