"""From samples to the figures that are reported and judged: medians, percentiles, the fastest rival.

Owns: the results of a run of the bench.  Pure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median

from bench.agent.latency import percentile
from bench.reflector.generator import Phase
from bench.reflector.measure import ANNOUNCE, CHURN, JOIN, Cell, Outcome
from bench.reflector.speakers import SPEAKERS


@dataclass(slots=True)
class Results:
    """Everything that one run of the bench measured."""

    environment: dict[str, str] = field(default_factory=dict)
    outcomes: dict[Cell, dict[str, Outcome]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def outcome(self, cell: Cell, speaker: str) -> Outcome:
        return self.outcomes.get(cell, {}).get(speaker, Outcome())

    def seconds(self, cell: Cell, speaker: str, phase: str) -> float | None:
        """The median wall time, None when it was not measured."""
        found = [figure.phase.seconds for figure in self.outcome(cell, speaker).figures(phase)]
        return median(found) if found else None

    def cpu(self, cell: Cell, speaker: str, phase: str) -> float | None:
        found = [figure.cpu for figure in self.outcome(cell, speaker).figures(phase)]
        return median(found) if found else None

    def peak(self, cell: Cell, speaker: str) -> float | None:
        """The largest of all its runs."""
        return max((run.peak for run in self.outcome(cell, speaker).runs), default=None)

    def bytes_each(self, cell: Cell, speaker: str) -> float | None:
        """Bytes that a client received in the full convergence."""
        found = [figure.phase.bytes for figure in self.outcome(cell, speaker).figures(ANNOUNCE)]
        return median(found) / cell.clients if found else None

    def change(self, cell: Cell, speaker: str, percent: float) -> float | None:
        """Seconds until all others know one change, withdrawals and announcements alike."""
        values = [
            value
            for figure in self.outcome(cell, speaker).figures(CHURN)
            for value in (*figure.phase.withdraw, *figure.phase.announce)
        ]
        return percentile(values, percent) if values else None

    def joined(self, cell: Cell, speaker: str) -> float | None:
        """Seconds from Established until a late joiner has everything."""
        values = [
            value for figure in self.outcome(cell, speaker).figures(JOIN) for value in figure.phase.joined
        ]
        return median(values) if values else None

    def rivals(self, cell: Cell) -> list[str]:
        return [name for name in self.outcomes.get(cell, {}) if SPEAKERS[name].rival]

    def phases(self, cell: Cell, speaker: str) -> list[Phase]:
        runs = self.outcome(cell, speaker).runs
        return [figure.phase for run in runs for figures in run.figures.values() for figure in figures]


def as_json(results: Results) -> dict[str, object]:
    """The results as plain JSON values, every sample included."""
    return {
        "environment": results.environment,
        "cells": {
            str(cell): {
                name: {
                    "stopped": outcome.stopped,
                    "runs": [
                        {
                            "peak_mb": run.peak,
                            "phases": {
                                phase: [{"cpu": figure.cpu, **asdict(figure.phase)} for figure in figures]
                                for phase, figures in run.figures.items()
                            },
                        }
                        for run in outcome.runs
                    ],
                }
                for name, outcome in outcomes.items()
            }
            for cell, outcomes in results.outcomes.items()
        },
        "failures": results.failures,
    }
