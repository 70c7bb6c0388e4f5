"""Prometheus metrics, read from the daemon's state at the moment of a scrape.

Nothing here runs between scrapes: state comes from the same view that the API shows, and what no state
tells from `bgpd/meters.py`.  Names and labels are an interface (docs/operations.md lists them), and a label
never has values that a peer can choose.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
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
from routes.peer import PeerStatus, SessionState
from routes.view import DaemonStatus


class MetricsSource(Protocol):
    """What is read of the daemon; `api.daemon_view.DaemonView` has it all."""

    def peers(self) -> Iterable[PeerStatus]:
        """Every configured peer."""

    def status(self) -> DaemonStatus:
        """The daemon as a whole."""


class DaemonCollector(Collector):
    """Turns the state of now into metric families."""

    def __init__(self, source: MetricsSource, meters: Meters) -> None:
        self._source = source
        self._meters = meters

    def collect(self) -> Iterator[Metric]:
        peers = tuple(self._source.peers())
        status = self._source.status()
        yield from _daemon(status)
        yield from _sessions(peers)
        yield from _peer_counters(peers)
        yield _peer_prefixes(peers)
        yield from _tables(status)
        yield from _work(self._meters)


def registry_of(source: MetricsSource, meters: Meters) -> CollectorRegistry:
    """A registry of its own: the library's global one has metrics of others."""
    registry = CollectorRegistry()
    registry.register(DaemonCollector(source, meters))
    ProcessCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(registry)


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
        len(status.warnings),
    )


def _sessions(peers: Sequence[PeerStatus]) -> Iterator[Metric]:
    states = GaugeMetricFamily("podbgp_sessions", "Configured peers by session state.", labels=["state"])
    for state in SessionState:
        states.add_metric([state.value], sum(peer.state is state for peer in peers))
    yield states
    up = GaugeMetricFamily("podbgp_peer_up", "Whether the session is established.", labels=["peer"])
    since = GaugeMetricFamily(
        "podbgp_peer_state_since_timestamp_seconds",
        "When the session entered its present state.",
        labels=["peer"],
    )
    info = GaugeMetricFamily(
        "podbgp_peer_info", "Always 1; what is configured of the peer.", labels=["peer", "kind", "asn"]
    )
    for peer in peers:
        up.add_metric([peer.name], peer.state is SessionState.ESTABLISHED)
        since.add_metric([peer.name], peer.since)
        info.add_metric([peer.name, peer.kind.value, str(peer.asn)], 1)
    yield from (up, since, info)


def _peer_counters(peers: Sequence[PeerStatus]) -> Iterator[Metric]:
    way = ["peer", "direction"]
    messages = CounterMetricFamily("podbgp_peer_messages", "BGP messages.", labels=way)
    updates = CounterMetricFamily("podbgp_peer_updates", "UPDATE messages.", labels=way)
    data = CounterMetricFamily("podbgp_peer_bytes", "Bytes of BGP messages.", labels=way)
    flaps = CounterMetricFamily("podbgp_peer_flaps", "Established sessions that were lost.", labels=["peer"])
    for peer in peers:
        count = peer.counters
        messages.add_metric([peer.name, "in"], count.messages_in)
        messages.add_metric([peer.name, "out"], count.messages_out)
        updates.add_metric([peer.name, "in"], count.updates_in)
        updates.add_metric([peer.name, "out"], count.updates_out)
        data.add_metric([peer.name, "in"], count.bytes_in)
        data.add_metric([peer.name, "out"], count.bytes_out)
        flaps.add_metric([peer.name], count.flaps)
    yield from (messages, updates, data, flaps)


def _peer_prefixes(peers: Sequence[PeerStatus]) -> Metric:
    prefixes = GaugeMetricFamily(
        "podbgp_peer_prefixes",
        "Prefixes of a peer: received, accepted by import policy, advertised to it, stale.",
        labels=["peer", "family", "state"],
    )
    for peer in peers:
        for family, counts in peer.families:
            for state, value in counts._asdict().items():
                prefixes.add_metric([peer.name, str(family), state], value)
    return prefixes


def _tables(status: DaemonStatus) -> Iterator[Metric]:
    place = ["table", "family"]
    prefixes = GaugeMetricFamily("podbgp_rib_prefixes", "Prefixes in each table.", labels=place)
    paths = GaugeMetricFamily("podbgp_rib_paths", "Paths in each table.", labels=place)
    for table in status.tables:
        prefixes.add_metric([table.table.value, str(table.family)], table.prefixes)
        paths.add_metric([table.table.value, str(table.family)], table.paths)
    fib = GaugeMetricFamily(
        "podbgp_fib_entries",
        "Kernel entries of ours: wanted, installed as wanted, failed, held.",
        labels=["family", "state"],
    )
    for count in status.fib:
        family = str(count.family)
        fib.add_metric([family, "wanted"], count.wanted)
        fib.add_metric([family, "installed"], count.installed)
        fib.add_metric([family, "failed"], count.failed)
        fib.add_metric([family, "held"], count.held)
    yield from (prefixes, paths, fib)


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
