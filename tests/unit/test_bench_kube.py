"""The Kubernetes bench runs, at a size at which it is over in seconds, and judges as its targets are written.

No speed is asserted here.
"""

from __future__ import annotations

import os
import struct

import pytest

from bench.agent.feeder import UPDATE, message
from bench.kube import load, run, services
from bench.kube.figures import Figure, figures_table, times
from bench.kube.run import Report, Sizes, measure
from bench.kube.wire import changes, update

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces")
SMALL = Sizes(nodes=30, runs=1, changes=4, services=40, each=2, idle=0.5)


@pytest.mark.parametrize(("value", "met", "shown"), [(3.0, True, "met"), (3.01, False, "**missed**")])
def test_a_figure_is_held_against_its_target(value: float, met: bool, shown: str) -> None:
    report = Report({}, {"Nodes": [Figure("list", value, "s", 3.0), Figure("shown", 9e9, "s")]}, [])
    assert report.met is met
    assert shown in figures_table(report.figures["Nodes"])


def test_the_median_is_judged_and_the_worst_is_shown() -> None:
    median, worst = times("change", [0.001] * 60 + [0.2] * 40, 50.0)
    assert (median.value, median.met, worst.value, worst.target) == (1.0, True, 200.0, None)


def test_an_update_is_read_as_it_was_written() -> None:
    body = update("203.0.113.0/25", "192.0.2.1")[19:]
    assert list(changes(body)) == [("203.0.113.0/25", True)]
    withdrawn = b"\x18\xcb\x00\x71\x20\xcb\x00\x71\x07"
    both = struct.pack("!H", len(withdrawn)) + withdrawn + body[2:]
    assert message(UPDATE, both)[19:] == both
    assert list(changes(both)) == [
        ("203.0.113.0/24", False),
        ("203.0.113.7/32", False),
        ("203.0.113.0/25", True),
    ]


@needs_root
def test_every_part_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real daemons, the stand-in API server, and peers that see what was announced."""
    monkeypatch.setattr(load, "STARTED", 1.0)
    monkeypatch.setattr(services, "IDLE", 0.2)
    monkeypatch.setattr(run, "TOPOLOGIES", {"mesh": 30})
    report = measure(SMALL, ("nodes", "services", "load"))
    texts = " ".join(figure.text for found in report.figures.values() for figure in found)
    for part in (
        "reflector, a Node created",
        "controller",
        "agent, its own Node given",
        "a Service is deleted",
    ):
        assert part in texts
    assert all(
        each.start.requests.get("watch nodes") == 1 + (each.topology == "mesh") for each in report.loads
    )
    assert "# Kubernetes" in report.markdown()
