"""What was measured, and against what it is held.  Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a report."""

    text: str
    value: float
    unit: str
    target: float | None = None
    """At most that; None: only shown."""
    remark: str = ""

    @property
    def met(self) -> bool:
        return self.target is None or self.value <= self.target

    def cells(self) -> list[str]:
        target = "" if self.target is None else f"at most {self.target:g}"
        verdict = "" if self.target is None else "met" if self.met else "**missed**"
        return [self.text, f"{self.value:,.4g}", self.unit, target, verdict, self.remark]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figures_table(figures: Sequence[Figure]) -> str:
    head = ("what", "figure", "unit", "target", "", "remark")
    return table(head, [figure.cells() for figure in figures])


def times(text: str, seconds: Sequence[float], target: float | None) -> list[Figure]:
    """Median against its target, and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    remark = f"{len(ordered)} changes, least {ordered[0] * 1e3:.1f}"
    p99 = ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]
    return [
        Figure(f"{text}, median", statistics.median(ordered) * 1e3, "ms", target, remark),
        Figure(f"{text}, 99 %", p99 * 1e3, "ms"),
    ]
