"""The Markdown of the reflector's bench.

Owns: the layout, a table for each cell and one of the targets.  Pure.
"""

from __future__ import annotations

from bench.reflector.figures import Results
from bench.reflector.measure import ANNOUNCE, BURST, CHURN, COLD, CONNECT, JOIN, LOSE, Cell
from bench.reflector.speakers import FLOOR, SPEAKERS
from bench.reflector.targets import targets

COLUMNS = (
    "speaker", "runs", "established s", "full convergence s", "CPU s", "x fastest rival", "cold start s",
    "one change p50 ms", "p99 ms", "10 % at once ms", "10 % lost and back ms", "late joiner ms", "peak MB",
    "KB a client", "remarks",
)  # fmt: skip


def markdown(results: Results) -> str:
    """The whole report."""
    parts = ["# Route reflectors, side by side", ""]
    parts += [f"- {name}: {value}" for name, value in results.environment.items()]
    for cell in results.outcomes:
        parts += ["", *_cell_table(results, cell)]
    parts += _target_table(results)
    if results.failures:
        parts += ["", "## What did not work", "", *(f"- {failure}" for failure in results.failures)]
    return "\n".join(parts) + "\n"


def _cell_table(results: Results, cell: Cell) -> list[str]:
    return [
        f"## {cell.clients:,} clients, {cell.each:,} prefixes each",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(_row(results, cell, name))} |" for name in results.outcomes[cell]),
    ]


def _row(results: Results, cell: Cell, name: str) -> list[str]:
    outcome = results.outcome(cell, name)

    def stopped(phase: str) -> str:
        return outcome.stopped.get(phase, "")

    def seconds(phase: str) -> str:
        value = results.seconds(cell, name, phase)
        return stopped(phase) or (f"{value:.3f}" if value is not None else "")

    def milliseconds(phase: str, value: float | None) -> str:
        return stopped(phase) or (f"{value * 1e3:.1f}" if value is not None else "")

    cpu, peak, size = (
        results.cpu(cell, name, ANNOUNCE), results.peak(cell, name), results.bytes_each(cell, name)
    )  # fmt: skip
    return [
        name,
        str(len(outcome.figures(ANNOUNCE))),
        seconds(CONNECT),
        seconds(ANNOUNCE),
        f"{cpu:.3f}" if cpu is not None else "",
        _ratio(results, cell, name),
        seconds(COLD),
        milliseconds(CHURN, results.change(cell, name, 50)),
        milliseconds(CHURN, results.change(cell, name, 99)),
        milliseconds(BURST, results.seconds(cell, name, BURST)),
        milliseconds(LOSE, results.seconds(cell, name, LOSE)),
        milliseconds(JOIN, results.joined(cell, name)),
        f"{peak:.0f}" if peak else "",
        f"{size / 1e3:.0f}" if size is not None else "",
        _remarks(results, cell, name),
    ]


def _ratio(results: Results, cell: Cell, name: str) -> str:
    mine = results.seconds(cell, name, ANNOUNCE)
    measured = [results.seconds(cell, rival, ANNOUNCE) for rival in results.rivals(cell)]
    fastest = min((value for value in measured if value is not None), default=None)
    return f"{mine / fastest:.2f}" if mine is not None and fastest else ""


def _remarks(results: Results, cell: Cell, name: str) -> str:
    """What a reader should know about how it did what it did."""
    counts: dict[str, int] = {}
    for phase in results.phases(cell, name):
        seen = {
            "own paths sent back": phase.own,
            "duplicates": phase.duplicates,
            "connections tried again": phase.retries,
        }
        for what, count in (*seen.items(), *phase.faults().items()):
            if count:
                counts[what] = counts.get(what, 0) + count
    changes = sum(len(figure.phase.withdraw) * 2 for figure in results.outcome(cell, name).figures(CHURN))
    remarks = [f"{changes} changes"] if changes else []
    return ", ".join([*remarks, *(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())])


def _target_table(results: Results) -> list[str]:
    found = targets(results)
    if not found:
        return []
    rows = ["", "## Targets", "", "| target | figure | |", "|---|---|---|"]
    return rows + [f"| {row.text} | {row.figure} | {'met' if row.met else '**missed**'} |" for row in found]


def settings(names: list[str]) -> str:
    """Every speaker with its settings."""
    return "; ".join(f"{name}: {SPEAKERS[name].settings}" for name in names if name != FLOOR)
