"""The targets of the reflector beside what was measured; nowhere else are they written as numbers.

Owns: each target's bound and what it is compared with.  A target is judged only when both sides were
measured in this run; a rival that was stopped is slower than every one that was not, so it sets no bound.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from bench.reflector.figures import Results
from bench.reflector.measure import ANNOUNCE, BURST, COLD, CONNECT, Cell
from bench.reflector.speakers import FLOOR, OURS

LARGEST = Cell(5_000, 1)
MEMORY = {Cell(2_000, 1): 150.0, LARGEST: 300.0}
PACKED = (Cell(100, 100), Cell(50, 2_000))
HALVED = (Cell(500, 1), Cell(1_000, 1), Cell(2_000, 1))
OVER_FLOOR = 4.0
LARGEST_SECONDS = 6.0
GROWTH_PER_DOUBLING = 1.2
JOINER_SECONDS = 0.020
WITHIN = 1.1
PACKED_CPU = 1.5

Value = Callable[[str], float | None]


class Target(NamedTuple):
    """A target beside its figure."""

    text: str
    figure: str
    met: bool


def targets(results: Results) -> list[Target]:
    """Every target that this run has the figures for."""
    found = [
        target
        for cell in results.outcomes
        if results.phases(cell, OURS)
        for target in (*_convergence(results, cell), *_changes(results, cell), *_limits(results, cell))
    ]
    return [*found, *_growth(results)]


def _convergence(results: Results, cell: Cell) -> Iterator[Target]:
    def wall(name: str) -> float | None:
        return results.seconds(cell, name, ANNOUNCE)

    def cpu(name: str) -> float | None:
        return results.cpu(cell, name, ANNOUNCE)

    if cell in HALVED:
        yield from _against_rivals(results, cell, "full convergence, wall", wall, 0.5)
        yield from _against_rivals(results, cell, "full convergence, CPU", cpu, 0.5)
        yield from _against_rivals(
            results, cell, "cold start", lambda name: results.seconds(cell, name, COLD), 1.0
        )
    elif cell == LARGEST:
        yield from _against_rivals(results, cell, "full convergence, wall", wall, 0.2)
        yield from _against_rivals(
            results, cell, "sessions established", lambda name: results.seconds(cell, name, CONNECT), 1.0
        )
    elif cell in PACKED:
        yield from _against_rivals(results, cell, "full convergence, wall", wall, 1.0)
        yield from _against_rivals(results, cell, "full convergence, CPU", cpu, PACKED_CPU)
    elif cell.each == 1:
        yield from _against_rivals(results, cell, "full convergence, wall", wall, WITHIN)
    ours, floor = wall(OURS), wall(FLOOR)
    if cell == Cell(2_000, 1) and ours is not None and floor is not None:
        text = f"{cell}: full convergence at most {OVER_FLOOR:.0f} times the floor"
        yield Target(text, f"{ours / floor:.2f} times {floor:.3f} s", ours <= OVER_FLOOR * floor)


def _changes(results: Results, cell: Cell) -> Iterator[Target]:
    for percent in (50, 99):
        yield from _against_rivals(
            results, cell, f"one change, p{percent}", partial(_change, results, cell, percent), WITHIN
        )
    yield from _against_rivals(
        results, cell, "10 % of the clients at once", lambda name: results.seconds(cell, name, BURST), 0.5
    )


def _change(results: Results, cell: Cell, percent: float, name: str) -> float | None:
    return results.change(cell, name, percent)


def _limits(results: Results, cell: Cell) -> Iterator[Target]:
    wall, peak, joined = (
        results.seconds(cell, OURS, ANNOUNCE), results.peak(cell, OURS), results.joined(cell, OURS)
    )  # fmt: skip
    if cell == LARGEST and wall is not None:
        text = f"{cell}: full convergence at most {LARGEST_SECONDS:.0f} s"
        yield Target(text, f"{wall:.2f} s", wall <= LARGEST_SECONDS)
    if cell in MEMORY and peak is not None:
        yield Target(f"{cell}: at most {MEMORY[cell]:.0f} MB", f"{peak:.0f} MB", peak <= MEMORY[cell])
    if cell == Cell(2_000, 1) and joined is not None:
        text = f"{cell}: a late joiner has everything within {JOINER_SECONDS * 1e3:.0f} ms"
        yield Target(text, f"{joined * 1e3:.1f} ms", joined <= JOINER_SECONDS)
    wrong: dict[str, int] = {}
    for phase in results.phases(cell, OURS):
        for name, count in (*phase.faults().items(), ("own paths", phase.own)):
            if count:
                wrong[name] = wrong.get(name, 0) + count
    for name, why in results.outcome(cell, OURS).stopped.items():
        wrong[f"{name} {why}"] = 1
    yield Target(f"{cell}: every delivery right, no session lost", str(wrong or "all"), not wrong)


def _growth(results: Results) -> Iterator[Target]:
    cells = [Cell(clients, 1) for clients in (1_000, 2_000, 5_000)]
    for small, large in pairwise(cells):
        costs = []
        for cell in (small, large):
            wall, size = results.seconds(cell, OURS, ANNOUNCE), results.bytes_each(cell, OURS)
            if wall is not None and size is not None:
                costs.append(wall / (size * cell.clients))
        if len(costs) == len((small, large)):
            bound = GROWTH_PER_DOUBLING ** math.log2(large.clients / small.clients)
            text = f"{small} to {large}: time per byte at most {bound:.2f} times"
            yield Target(text, f"{costs[1] / costs[0]:.2f} times", costs[1] <= bound * costs[0])


def _against_rivals(results: Results, cell: Cell, what: str, value: Value, most: float) -> Iterator[Target]:
    ours = value(OURS)
    measured = [(theirs, name) for name in results.rivals(cell) if (theirs := value(name)) is not None]
    if ours is None or not measured:
        return
    theirs, name = min(measured)
    figure = f"{ours * 1e3:.1f} ms against {theirs * 1e3:.1f} ms of {name}: {ours / theirs:.2f} times"
    yield Target(f"{cell}: {what} at most {most:g} times the fastest", figure, ours <= most * theirs)
