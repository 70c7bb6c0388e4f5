"""The controller's metrics, read from its state at the moment of a scrape; docs/operations.md lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bgpd.kube.controller_state import ControllerState
from bgpd.kube.custom_values import Phase
from bgpd.kube.following import News


@dataclass(slots=True)
class Counts:
    """What no state tells."""

    writes: Counter[str] = field(default_factory=Counter)
    """By result."""
    reconciles: int = 0
    events_lost: int = 0


@dataclass(frozen=True, slots=True)
class Glance:
    """What is read for one scrape."""

    state: ControllerState
    counts: Counts
    news: News
    leads: bool
    events_dropped: int


class ControllerMetrics(Collector):
    """Reads through `look`, which is called in the event loop."""

    def __init__(self, look: Callable[[], Glance]) -> None:
        self._look = look
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def exposition(self) -> Generator[None, None, bytes]:
        """All metrics in Prometheus' text format."""
        yield
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        glance = self._look()
        state, counts = glance.state, glance.counts
        yield _gauge("leads", "Whether this controller leads.", float(glance.leads))
        yield _gauge("nodes", "Nodes of the cluster.", len(state.checks.nodes))
        yield _gauge("services", "Services of the cluster.", len(state.services))
        yield _gauge("waiting_writes", "Objects whose status waits to be written.", len(state.queue))
        yield _gauge(
            "stale_seconds", "Age of what is known of the cluster; 0 while watches run.", glance.news.age
        )
        yield _gauge("malformed_objects", "Objects that can't be read.", len(glance.news.malformed))
        phases = Counter(each.phase for each in state.reflectors)
        reflectors = _labelled("reflectors", "Reflectors, by phase.", "phase")
        for phase in Phase:
            reflectors.add_metric([phase.value], phases[phase])
        yield reflectors
        problems = _labelled("node_problems", "Nodes with a problem, by reason.", "reason")
        for check, found in state.checks.problems.items():
            problems.add_metric([check.value], len(found))
        yield problems
        used = _labelled("pool_addresses_used", "Addresses of a BGPAddressPool in use.", "pool")
        total = _labelled("pool_addresses", "Addresses of a BGPAddressPool.", "pool")
        for name, (taken, whole) in state.balancers.usage().items():
            used.add_metric([name], taken)
            total.add_metric([name], whole)
        yield used
        yield total
        writes = CounterMetricFamily("podbgp_controller_writes", "Writes of statuses.", labels=["result"])
        for result, number in sorted(counts.writes.items()):
            writes.add_metric([result], number)
        yield writes
        yield _counter("reconciles", "Times that changes were looked at.", counts.reconciles)
        yield _counter(
            "events_lost", "Events that were not written.", counts.events_lost + glance.events_dropped
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"podbgp_controller_{name}", text, value=value)


def _labelled(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"podbgp_controller_{name}", text, labels=[label])


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"podbgp_controller_{name}", text, value=value)
