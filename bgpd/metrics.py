"""Prometheus metrics, read from the daemon's state at the moment of a scrape.

Nothing here runs between scrapes: state comes from the same view that the API shows, and what no state
tells from `bgpd/meters.py`.  Names and labels are an interface (docs/operations.md lists them), and a label
never has values that a peer can choose.

A scrape of a reflector reads thousands of peers, so it is made in slices of a few milliseconds, and leaves
the event loop to others in between.  Clients of a range are counted together: a series for each would make a
hundred thousand of them.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from bgpd.meters import Histogram, Meters
from bgpd.metrics_peers import ClientTotals, PeerSeries
from routes.path import PeerName
from routes.peer import PeerStatus
from routes.view import DaemonStatus, FibCount, IntentStatus, TableCount

SLICE = 0.003
"""Seconds of reading peers before the event loop turns."""

Exposition = Generator[None, None, bytes]
"""Yields between slices, and returns the text."""


class MetricsSource(Protocol):
    """What is read of the daemon; `bgpd.view.RoleView` has it all."""

    def peers(self) -> Iterable[PeerStatus]:
        """Every peer; each is asked for its state only when it is reached."""

    def range_of(self, name: PeerName) -> str | None:
        """The range of clients that a peer came from; empty for an entry of its own, None when it is gone."""

    def status(self, *, received: bool) -> DaemonStatus:
        """The daemon as a whole; without `received`, without the counts of the Adj-RIBs-In."""


class Metrics:
    """Everything that Prometheus is told.  What clients that are gone had counted stays counted."""

    def __init__(
        self, source: MetricsSource, meters: Meters, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._source = source
        self._clock = clock
        self._clients = ClientTotals()
        self._collector = _DaemonCollector(source, meters)
        self._daemon = CollectorRegistry()  # the library's global one has metrics of others
        self._daemon.register(self._collector)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def exposition(self) -> Exposition:
        """All metrics in Prometheus' text format."""
        series = PeerSeries()
        clients = self._clients.begin()
        until = self._clock() + SLICE
        for peer in self._source.peers():
            clients_of = self._source.range_of(peer.name)
            if clients_of:
                clients.add(clients_of, peer)
            elif clients_of is not None:
                series.add(peer)
            if clients_of is not None:
                series.count(peer)
            if self._clock() >= until:
                yield
                until = self._clock() + SLICE
        yield
        peers = series.text() + clients.text()
        yield
        self._collector.received = series.received()
        daemon = generate_latest(self._daemon)
        yield
        return daemon + peers.encode() + generate_latest(self._process)


def whole(exposition: Exposition) -> bytes:
    """The text of an exposition, at once."""
    while True:
        try:
            next(exposition)
        except StopIteration as end:
            text: bytes = end.value
            return text


class _DaemonCollector(Collector):
    """Turns the state of the daemon as a whole into metric families."""

    def __init__(self, source: MetricsSource, meters: Meters) -> None:
        self._source = source
        self._meters = meters
        self.received: tuple[TableCount, ...] = ()
        """The Adj-RIBs-In, as the peers of this scrape have them."""

    def collect(self) -> Iterator[Metric]:
        status = self._source.status(received=False)
        yield from _daemon(status)
        if status.intent is not None:
            yield from _intent(status.intent)
        yield from _tables((*self.received, *status.tables))
        yield _fib(status.fib)
        yield from _work(self._meters)


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family


def _daemon(status: DaemonStatus) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        "podbgp_build_info", "Always 1; the labels say what runs.", labels=["version", "role", "python"]
    )
    build.add_metric([status.version, status.role, platform.python_version()], 1)
    yield build
    convergence = status.convergence
    yield _gauge(
        "podbgp_initial_convergence_complete",
        "Whether the tables of all peers were received since the start.",
        convergence.complete,
    )
    yield _gauge(
        "podbgp_initial_convergence_waiting_peers",
        "Peers whose End-of-RIB is still awaited.",
        len(convergence.waiting_for),
    )
    yield _gauge(
        "podbgp_config_last_reload_failed",
        "Whether the newest file was refused and an older one is in use.",
        bool(status.config_error),
    )
    yield _gauge(
        "podbgp_host_warnings",
        "Settings of this host that stand in the way of routed pods; the log and the API name them.",
        len(status.warnings) - (0 if status.intent is None else len(status.intent.warnings)),
    )
    yield _gauge(
        "podbgp_duplicate_prefixes",
        "Prefixes that more than one client of a reflector announces; the log and the API name them.",
        status.duplicates,
    )


def _intent(intent: IntentStatus) -> Iterator[Metric]:
    yield _gauge(
        "podbgp_kubernetes_stale_seconds",
        "Seconds since the API server was heard from; 0 while all is well.",
        intent.stale,
    )
    yield _gauge(
        "podbgp_kubernetes_objects_malformed",
        "Objects of the cluster that can't be read; their last good state stays in use.",
        intent.malformed,
    )
    yield _gauge(
        "podbgp_kubernetes_intent_problems",
        "What of the cluster's objects is not taken as written; the log and the API name it.",
        intent.problems,
    )
    if intent.ready is not None:
        yield _gauge("podbgp_node_ready", "Whether the node's network is ready for pods.", intent.ready)


def _tables(tables: Iterable[TableCount]) -> Iterator[Metric]:
    place = ["table", "family"]
    prefixes = GaugeMetricFamily("podbgp_rib_prefixes", "Prefixes in each table.", labels=place)
    paths = GaugeMetricFamily("podbgp_rib_paths", "Paths in each table.", labels=place)
    for table in tables:
        prefixes.add_metric([table.table.value, str(table.family)], table.prefixes)
        paths.add_metric([table.table.value, str(table.family)], table.paths)
    yield from (prefixes, paths)


def _fib(counts: Iterable[FibCount]) -> Metric:
    fib = GaugeMetricFamily(
        "podbgp_fib_entries",
        "Kernel entries of ours: wanted, installed as wanted, failed, held.",
        labels=["family", "state"],
    )
    for count in counts:
        family = str(count.family)
        fib.add_metric([family, "wanted"], count.wanted)
        fib.add_metric([family, "installed"], count.installed)
        fib.add_metric([family, "failed"], count.failed)
        fib.add_metric([family, "held"], count.held)
    return fib


def _work(meters: Meters) -> Iterator[Metric]:
    operations = CounterMetricFamily(
        "podbgp_kernel_operations",
        "Kernel entries created, replaced and removed; result is ok or the error's name.",
        labels=["operation", "result"],
    )
    _add_all(operations, meters.kernel_operations.items())
    resyncs = CounterMetricFamily(
        "podbgp_kernel_resyncs", "Times that all kernel entries were read again.", labels=["reason"]
    )
    _add_all(resyncs, (((reason,), count) for reason, count in meters.kernel_resyncs.items()))
    reloads = CounterMetricFamily(
        "podbgp_config_reloads", "Configurations read while running.", labels=["result"]
    )
    _add_all(reloads, (((result,), count) for result, count in meters.reloads.items()))
    yield from (operations, resyncs, reloads)
    yield _histogram(
        "podbgp_convergence_seconds",
        "From an UPDATE's arrival to the kernel's acknowledgement, for each prefix.",
        meters.convergence,
    )
    yield _histogram("podbgp_event_loop_lag_seconds", "How late the event loop ran a timer.", meters.loop_lag)


def _add_all(family: CounterMetricFamily, counts: Iterable[tuple[Sequence[str], int]]) -> None:
    for labels, count in sorted(counts):
        family.add_metric(labels, count)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text)
    family.add_metric([], histogram.buckets(), histogram.sum)
    return family
