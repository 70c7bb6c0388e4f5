"""One speaker in one cell: the phases in order, with wall time, processor time and memory of each run.

Owns: the order of the phases, their time limits, and what counts as too slow: ten times the fastest's time,
or the command line's limit.  A phase that does not end in time, or loses sessions, ends the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.agent.topology import Topology
from bench.reflector.generator import Generator, Phase, generator
from bench.reflector.processes import Running, running
from bench.reflector.programs import Programs
from bench.reflector.speakers import Speaker, Start

TOO_SLOW = 10.0
SHORTEST_LIMIT = 3.0
"""Seconds that every speaker has, however fast the fastest is."""
CHURN_SECONDS = 40.0
JOINS = 5
PERCENT = 10
BURSTS = 5
"""In a turn, where they are short: one alone tells as much of the machine's moment as of the speaker."""
SHORT_BURST = 0.5
"""Seconds."""
SETTLE = ("settle", 0.3, 10)
CONNECT, ANNOUNCE, COLD, CHURN, BURST, LOSE, JOIN = (
    "connect",
    "announce",
    "cold",
    "churn",
    "burst",
    "lose",
    "join",
)


class Cell(NamedTuple):
    """N clients, K prefixes each."""

    clients: int
    each: int

    def __str__(self) -> str:
        return f"{self.clients}x{self.each}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A phase and what the speaker's processes spent on it."""

    phase: Phase
    cpu: float


@dataclass(slots=True)
class Run:
    """What was measured between a speaker's start and its end."""

    figures: dict[str, list[Figure]] = field(default_factory=dict)
    """By phase; most happen once."""
    peak: float = 0.0
    """MB, after the last phase."""


@dataclass(slots=True)
class Outcome:
    """All runs of one speaker in one cell."""

    runs: list[Run] = field(default_factory=list)
    stopped: dict[str, str] = field(default_factory=dict)
    """The phases that were ended, and why: `> 10 x`, `> 120 s`, or what was lost."""

    def figures(self, phase: str) -> list[Figure]:
        return [figure for run in self.runs for figure in run.figures.get(phase, ())]


@dataclass(slots=True)
class Limits:
    """How long a phase of a cell may take: known better with each speaker that was measured."""

    longest: float
    fastest: dict[str, float] = field(default_factory=dict)

    def seconds(self, phase: str) -> float:
        if phase not in self.fastest:
            return self.longest
        return min(self.longest, max(SHORTEST_LIMIT, TOO_SLOW * self.fastest[phase]))

    def text(self, phase: str) -> str:
        seconds = self.seconds(phase)
        ten_times = phase in self.fastest and seconds >= TOO_SLOW * self.fastest[phase]
        return f"> {TOO_SLOW:.0f} x" if ten_times else f"> {seconds:.0f} s"

    def learn(self, figure: Figure) -> None:
        phase = figure.phase
        self.fastest[phase.phase] = min(phase.seconds, self.fastest.get(phase.phase, phase.seconds))


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how to measure."""

    net: Topology
    programs: Programs
    rounds: int
    """Of single changes."""


class PhaseEndedError(Exception):
    """A phase that was not completed; the speaker's run is over."""


@dataclass(slots=True)
class Attempt:
    """A started speaker with its clients."""

    state: Running
    clients: Generator
    run: Run
    outcome: Outcome
    limits: Limits

    def phase(self, name: str, *words: float) -> float:
        """Run a phase within its limit and note its figures; the seconds that it took."""
        limit = CHURN_SECONDS if name == CHURN else self.limits.seconds(name)
        used = self.state.cpu()
        phase = self.clients.phase(name, *words, limit)
        self.state.check()
        figure = Figure(phase, self.state.cpu() - used)
        self.run.peak = self.state.peak()
        if not phase.ok or phase.lost:
            text = f"lost {phase.lost} sessions" if phase.lost else self.limits.text(name)
            self.outcome.stopped[name] = text
            raise PhaseEndedError(f"{name}: {text}, {phase.up} established, {phase.missing} missing")
        self.run.figures.setdefault(name, []).append(figure)
        return phase.seconds

    def settle(self) -> None:
        self.clients.phase(*SETTLE)


@contextmanager
def started(
    bench: Bench, speaker: Speaker, cell: Cell, outcome: Outcome, limits: Limits
) -> Iterator[Attempt]:
    """A fresh speaker, listening, and clients that are not connected yet."""
    run = Run()
    outcome.runs.append(run)
    with TemporaryDirectory(prefix="bch-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)  # some speakers run as a user of their own
        argv = speaker.command(Start(folder, bench.programs, cell.clients))
        with running(argv, speaker.environment, bench.net, folder / "speaker.log") as state:
            state.wait_until_it_listens()
            log = folder / "generator.log"
            program = bench.programs.loadgen
            with generator(bench.net, program, cell.clients, cell.each, speaker.window, log) as clients:
                yield Attempt(state, clients, run, outcome, limits)
                state.check()


def all_phases(bench: Bench, speaker: Speaker, cell: Cell, outcome: Outcome, limits: Limits) -> None:
    """Everything that happens to a reflector that runs."""
    with started(bench, speaker, cell, outcome, limits) as attempt:
        attempt.phase(CONNECT)
        attempt.phase(ANNOUNCE)
        attempt.settle()
        attempt.phase(JOIN, JOINS)
        attempt.settle()
        attempt.phase(CHURN, bench.rounds)
        attempt.settle()
        for _ in range(BURSTS):
            took = attempt.phase(BURST, PERCENT)
            attempt.settle()
            if took >= SHORT_BURST:
                break
        attempt.phase(LOSE, PERCENT)


def cold_start(bench: Bench, speaker: Speaker, cell: Cell, outcome: Outcome, limits: Limits) -> None:
    """All clients at once, as after the reflector's restart."""
    with started(bench, speaker, cell, outcome, limits) as attempt:
        attempt.phase(COLD)


def measure(bench: Bench, speaker: Speaker, cell: Cell, outcome: Outcome, limits: Limits) -> None:
    """One turn of a speaker: all of it, into `outcome`."""
    try:
        all_phases(bench, speaker, cell, outcome, limits)
    except PhaseEndedError:
        if ANNOUNCE in outcome.stopped or CONNECT in outcome.stopped:
            return
    with suppress(PhaseEndedError):  # what ended it is noted in the outcome
        cold_start(bench, speaker, cell, outcome, limits)


SHORT = 2.0
"""Seconds of convergence up to which a speaker has several turns."""


def has_another_turn(outcome: Outcome) -> bool:
    """Whether nothing was too slow so far, and it takes little time."""
    figures = [*outcome.figures(ANNOUNCE), *outcome.figures(COLD)]
    return bool(figures) and not outcome.stopped and all(figure.phase.seconds < SHORT for figure in figures)
