"""Prometheus metrics, read from the daemon's state at the moment of a scrape.

Nothing here runs between scrapes: the daemon answers one `Reading`, and `bgpd/meters.py` has what it
counted.  Names and labels are an interface (docs/operations.md lists them): a label never has values that
a peer can choose.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

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
from routes.prefix import Family


class FibCounts(NamedTuple):
    """Kernel entries of ours in one family."""

    wanted: int = 0
    """What routing asks for, `unreachable` included."""
    installed: int = 0
    """Of these, in the kernel as asked for."""
    held: int = 0
    """In the kernel although nothing asks for them now (graceful restart)."""
    blocked: int = 0
    """Asked for, and kept out by a foreign entry or by the kernel's refusal."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a scrape shows, at one moment."""

    peers: Sequence[PeerStatus] = ()
    loc_rib: Mapping[Family, int] = field(default_factory=dict)
    """Prefixes with a best path."""
    unresolved: Mapping[Family, int] = field(default_factory=dict)
    """Prefixes of the Loc-RIB without a next hop that the kernel can use."""
    fib: Mapping[Family, FibCounts] = field(default_factory=dict)
    host_warnings: Sequence[str] = ()
    """The subject of each (`net.ipv4.ip_forward`)."""


class MetricsSource(Protocol):
    """What the daemon implements to be measured."""

    def reading(self) -> Reading:
        """The state now."""

    def unhealthy(self) -> str:
        """Why this daemon can't do its work, in a sentence; empty when it can."""


class DaemonCollector(Collector):
    """Turns a reading into metric families."""

    def __init__(self, source: MetricsSource, meters: Meters, version: str) -> None:
        self._source = source
        self._meters = meters
        self._version = version

    def collect(self) -> Iterator[Metric]:
        reading = self._source.reading()
        build = GaugeMetricFamily(
            "podbgp_build_info", "Always 1; the labels say what runs.", labels=["version", "python"]
        )
        build.add_metric([self._version, platform.python_version()], 1)
        yield build
        yield from _sessions(reading.peers)
        yield from _peer_counters(reading.peers)
        yield _peer_prefixes(reading.peers)
        yield from _tables(reading)
        yield from _work(self._meters)


def registry_of(source: MetricsSource, meters: Meters, version: str) -> CollectorRegistry:
    """A registry of its own: the library's global one has metrics of others."""
    registry = CollectorRegistry()
    registry.register(DaemonCollector(source, meters, version))
    ProcessCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(registry)


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


def _tables(reading: Reading) -> Iterator[Metric]:
    loc_rib = GaugeMetricFamily(
        "podbgp_loc_rib_prefixes", "Prefixes that have a best path.", labels=["family"]
    )
    unresolved = GaugeMetricFamily(
        "podbgp_unresolved_prefixes", "Prefixes without a usable next hop.", labels=["family"]
    )
    fib = GaugeMetricFamily(
        "podbgp_fib_entries",
        "Kernel entries of ours: wanted, installed as wanted, held, blocked.",
        labels=["family", "state"],
    )
    for family, value in reading.loc_rib.items():
        loc_rib.add_metric([str(family)], value)
    for family, value in reading.unresolved.items():
        unresolved.add_metric([str(family)], value)
    for family, counts in reading.fib.items():
        for state, value in counts._asdict().items():
            fib.add_metric([str(family), state], value)
    warnings = GaugeMetricFamily(
        "podbgp_host_warnings",
        "Settings of this host that stand in the way of routed pods.",
        labels=["subject"],
    )
    for subject in sorted(set(reading.host_warnings)):
        warnings.add_metric([subject], reading.host_warnings.count(subject))
    yield from (loc_rib, unresolved, fib, warnings)


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
    failed = GaugeMetricFamily(
        "podbgp_config_last_reload_failed", "Whether the last file was refused and the old one is in use."
    )
    failed.add_metric([], meters.last_reload_failed)
    yield from (operations, resyncs, reloads, failed)
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
