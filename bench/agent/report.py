"""What the figures mean: medians, ratios, the targets and whether they are met, and the Markdown of it.

Owns: the targets (and nowhere else are they written as numbers) and the layout of the report.  Pure: it
is given measured values and returns text and values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from bench.agent.convergence import Sample
from bench.agent.feeder import Shape
from bench.agent.latency import Latencies, percentile

OURS = "podbgp"
SPEED_64_OVER_BIRD = 1.5
SPEED_DISTINCT = 10.0
GROWTH = 6.0
P99_MS = 10.0
MEMORY_MB = {5_000: 90.0, 20_000: 130.0}
IDLE_PERCENT = 0.5


class Cell(NamedTuple):
    """One table of prefixes."""

    shape: Shape
    prefixes: int

    def __str__(self) -> str:
        return f"{self.prefixes:,} prefixes, {'64 next hops' if self.shape == '64' else 'a next hop each'}"


@dataclass(slots=True)
class Results:
    """Everything that one run of the bench measured."""

    environment: dict[str, str] = field(default_factory=dict)
    sink: dict[Cell, list[float]] = field(default_factory=dict)
    convergence: dict[Cell, dict[str, list[Sample]]] = field(default_factory=dict)
    latency: dict[Cell, dict[str, Latencies]] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def seconds(self, cell: Cell, speaker: str) -> float | None:
        """The median, or None when it was not measured."""
        samples = self.convergence.get(cell, {}).get(speaker, [])
        return median(sample.seconds for sample in samples) if samples else None


class Target(NamedTuple):
    """A target beside its figure."""

    text: str
    figure: str
    met: bool


def targets(results: Results) -> list[Target]:
    """Every target that this run has the figures for."""
    return [
        *_speed_targets(results),
        *_growth_targets(results),
        *_latency_targets(results),
        *_memory_targets(results),
        *_idle_targets(results),
    ]


def _speed_targets(results: Results) -> list[Target]:
    found = []
    limits: list[tuple[Shape, str, float, str]] = [
        ("64", "bird", 1 / SPEED_64_OVER_BIRD, f"at most {SPEED_64_OVER_BIRD} times BIRD"),
        ("64", "frr", 1.0, "faster than FRR"),
        ("distinct", "bird", SPEED_DISTINCT, f"at least {SPEED_DISTINCT:.0f} times faster than BIRD"),
        ("distinct", "frr", SPEED_DISTINCT, f"at least {SPEED_DISTINCT:.0f} times faster than FRR"),
    ]
    for shape, rival, least, text in limits:
        cell = Cell(shape, 20_000)
        ours, theirs = results.seconds(cell, OURS), results.seconds(cell, rival)
        if ours is not None and theirs is not None:
            figure = f"{ours:.3f} s against {theirs:.3f} s: {theirs / ours:.2f} times as fast"
            found.append(Target(f"{cell}: {text}", figure, theirs / ours >= least))
    return found


def _growth_targets(results: Results) -> list[Target]:
    found = []
    shapes: tuple[Shape, ...] = ("64", "distinct")
    for shape in shapes:
        cell = Cell(shape, 100_000)
        small, large = results.seconds(Cell(shape, 20_000), OURS), results.seconds(cell, OURS)
        if small is not None and large is not None:
            text = f"{cell}: at most {GROWTH:.0f} times the time of 20,000"
            figure = f"{large:.3f} s against {small:.3f} s: {large / small:.2f} times"
            found.append(Target(text, figure, large <= GROWTH * small))
    return found


def _latency_targets(results: Results) -> list[Target]:
    found = []
    for cell, speakers in results.latency.items():
        if OURS in speakers:
            values = [value for kind in speakers[OURS].values() for value in kind]
            p99 = percentile(values, 99)
            text = f"one change, {cell}: p99 at most {P99_MS:.0f} ms"
            found.append(Target(text, f"{p99:.2f} ms over {len(values):,} changes", p99 <= P99_MS))
    return found


def _memory_targets(results: Results) -> list[Target]:
    found = []
    for cell, speakers in results.convergence.items():
        limit = MEMORY_MB.get(cell.prefixes)
        if limit is not None and speakers.get(OURS):
            figure = median(sample.memory for sample in speakers[OURS])
            text = f"resident memory, {cell}: at most {limit:.0f} MB"
            found.append(Target(text, f"{figure:.0f} MB", figure <= limit))
    return found


def _idle_targets(results: Results) -> list[Target]:
    if OURS not in results.idle:
        return []
    figure = results.idle[OURS]
    text = f"idle CPU with four peers: at most {IDLE_PERCENT} % of a core"
    return [Target(text, f"{figure:.2f} %", figure <= IDLE_PERCENT)]


def markdown(results: Results) -> str:
    """The whole report."""
    parts = ["# Node agents, peer to kernel", ""]
    parts += [f"- {name}: {value}" for name, value in results.environment.items()]
    for section in (_convergence_table, _latency_table, _idle_table, _target_table):
        rows = section(results)
        if rows:
            parts += ["", *rows]
    if results.failures:
        parts += ["", "## Failed runs", "", *(f"- {failure}" for failure in results.failures)]
    return "\n".join(parts) + "\n"


def _convergence_table(results: Results) -> list[str]:
    if not results.convergence:
        return []
    rows = [
        "## First byte to last kernel entry",
        "",
        "Seconds are medians. CPU seconds, MB resident; `feeder`: the same bytes into a sink.",
        "",
        "| table | speaker | runs | seconds | range | late by at most | CPU | MB | time of ours / theirs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell, speakers in results.convergence.items():
        sink = results.sink.get(cell, [])
        if sink:
            rows.append(f"| {cell} | feeder | {len(sink)} | {median(sink):.4f} | | | | | |")
        for speaker, samples in speakers.items():
            if samples:
                rows.append(f"| {cell} | {speaker} | {_sample_cells(results, cell, speaker, samples)} |")
    return rows


def _sample_cells(results: Results, cell: Cell, speaker: str, samples: list[Sample]) -> str:
    seconds = [sample.seconds for sample in samples]
    ours, theirs = results.seconds(cell, OURS), median(seconds)
    cells = [
        str(len(samples)),
        f"{theirs:.3f}",
        f"{min(seconds):.3f}-{max(seconds):.3f}",
        f"{max(sample.late for sample in samples):.3f}",
        f"{median(sample.cpu for sample in samples):.2f}",
        f"{median(sample.memory for sample in samples):.0f}",
        f"{ours / theirs:.3f}" if ours is not None and speaker != OURS else "",
    ]
    return " | ".join(cells)


def _latency_table(results: Results) -> list[str]:
    if not results.latency:
        return []
    rows = [
        "## One change, UPDATE to kernel notification",
        "",
        "| table | speaker | kind | changes | p50 ms | p99 ms | max ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell, speakers in results.latency.items():
        for speaker, kinds in speakers.items():
            every = [value for values in kinds.values() for value in values]
            for kind, values in [*kinds.items(), ("all", every)]:
                rows.append(
                    f"| {cell} | {speaker} | {kind} | {len(values):,} | "
                    f"{percentile(values, 50):.2f} | {percentile(values, 99):.2f} | {max(values):.2f} |"
                )
    return rows


def _idle_table(results: Results) -> list[str]:
    if not results.idle:
        return []
    rows = ["## Idle, four established peers, 5,000 routes", "", "| speaker | % of a core |", "|---|---|"]
    return rows + [f"| {speaker} | {percent:.2f} |" for speaker, percent in results.idle.items()]


def _target_table(results: Results) -> list[str]:
    found = targets(results)
    if not found:
        return []
    rows = ["## Targets", "", "| target | figure | |", "|---|---|---|"]
    return rows + [f"| {row.text} | {row.figure} | {'met' if row.met else '**missed**'} |" for row in found]


def as_json(results: Results) -> dict[str, object]:
    """The results as plain JSON values, every sample included."""
    return {
        "environment": results.environment,
        "sink_seconds": {_key(cell): values for cell, values in results.sink.items()},
        "convergence": {
            _key(cell): {
                speaker: [{name: getattr(sample, name) for name in Sample.__slots__} for sample in samples]
                for speaker, samples in speakers.items()
            }
            for cell, speakers in results.convergence.items()
        },
        "latency_ms": {_key(cell): speakers for cell, speakers in results.latency.items()},
        "idle_percent": results.idle,
        "targets": [target._asdict() for target in targets(results)],
        "failures": results.failures,
    }


def _key(cell: Cell) -> str:
    return f"{cell.shape}-{cell.prefixes}"
