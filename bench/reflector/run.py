"""The bench of the route reflector, in one command: `python -m bench.reflector.run --all` (or `--quick`).

Owns: what is run, in which order, and where it is written (bench/results/reflector.md and reflector.json).
The speakers of a cell run one after the other on the same core, the fast ones first, because ten times the
fastest's time is the limit of the others.  Exit code 1: a target was missed or a speaker failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from bench.agent.topology import Cores, default_cores
from bench.reflector import trixie
from bench.reflector.figures import Results, as_json
from bench.reflector.measure import ANNOUNCE, Bench, Cell, Limits, Outcome, has_another_turn, measure
from bench.reflector.network import network
from bench.reflector.programs import compile_into
from bench.reflector.report import markdown, settings
from bench.reflector.speakers import FLOOR, SPEAKERS, Speaker
from bench.reflector.targets import targets

RESULTS = Path(__file__).parents[1] / "results"
CELLS = (
    *(Cell(clients, 1) for clients in (100, 500, 1_000, 2_000, 5_000)), Cell(100, 100), Cell(50, 2_000),
)  # fmt: skip
QUICK = (Cell(100, 1), Cell(500, 1), Cell(100, 100))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    speakers: tuple[Speaker, ...]
    cells: tuple[Cell, ...]
    runs: int
    rounds: int
    longest: float


def parse(arguments: Sequence[str]) -> tuple[Plan, Path]:
    """The plan and the folder of the results that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.reflector.run", description="Bench of the route reflector."
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--all", action="store_true", help="every cell (the default)")
    size.add_argument("--quick", action="store_true", help="the small cells, one run, 20 rounds of changes")
    parser.add_argument(
        "--speaker", choices=list(SPEAKERS), action="append", help="only this one; can be repeated"
    )
    parser.add_argument("--cell", action="append", metavar="NxK", help="only this cell; can be repeated")
    parser.add_argument("--runs", type=int, help="turns of each speaker where they are short (3)")
    parser.add_argument("--rounds", type=int, help="rounds of single changes in each turn (70)")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that no phase may exceed (120)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    chosen = parser.parse_args(arguments)
    cells = tuple(_cell(parser, text) for text in chosen.cell or ()) or (QUICK if chosen.quick else CELLS)
    plan = Plan(
        speakers=tuple(speaker for name, speaker in SPEAKERS.items() if name in (chosen.speaker or SPEAKERS)),
        cells=cells,
        runs=chosen.runs or (1 if chosen.quick else 3),
        rounds=chosen.rounds or (20 if chosen.quick else 70),
        longest=chosen.limit,
    )
    return plan, chosen.output


def _cell(parser: argparse.ArgumentParser, text: str) -> Cell:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match or int(match[1]) > 60_000 or int(match[1]) * int(match[2]) > 1_000_000:
        parser.error(f"--cell {text}: write CLIENTSxPREFIXES, as in 500x1, up to a million prefixes in all")
    return Cell(int(match[1]), int(match[2]))


def present(plan: Plan, results: Results) -> dict[str, str]:
    """The speakers that are there, with their versions; the others are noted."""
    found = {}
    for speaker in plan.speakers:
        try:
            found[speaker.name] = speaker.version()
        except (OSError, RuntimeError) as error:
            results.failures.append(f"{speaker.name} is not measured: {error}")
            progress(results.failures[-1])
    return found


def environment(plan: Plan, cores: Cores, versions: dict[str, str]) -> dict[str, str]:
    """What the figures depend on."""
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    model = models[0] if models else platform.machine()
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": f"{os.cpu_count()} x {model}, Linux {platform.release()}",
        "Python": platform.python_version(),
        "load before": load,
        "cores": f"clients on core {cores.feeder}, reflector on core {cores.daemon}",
        "versions": "; ".join(f"{name}: {version}" for name, version in versions.items() if name != FLOOR),
        "settings": settings(list(versions)),
        "rounds": f"{plan.rounds} of single changes (a withdrawal and an announcement) in each turn, fewer "
        f"where slow; medians of up to {plan.runs} turns, in which the speakers alternate, where these are "
        f"short; no phase longer than {plan.longest:.0f} s",
    }


def measure_cell(bench: Bench, plan: Plan, cell: Cell, names: list[str], results: Results) -> None:
    """All speakers in one cell, in turns: the machine's slow moments come to each of them alike."""
    limits = Limits(plan.longest)
    for turn in range(plan.runs):
        for name in names:
            outcome = results.outcomes.setdefault(cell, {}).setdefault(name, Outcome())
            if turn and not has_another_turn(outcome):
                continue
            try:
                measure(bench, SPEAKERS[name], cell, outcome, limits)
            except (OSError, RuntimeError) as error:
                results.failures.append(f"{name}, {cell}: {error}")
                progress(results.failures[-1])
            if name != FLOOR:
                for run in outcome.runs:
                    for figure in chain.from_iterable(run.figures.values()):
                        limits.learn(figure)
            seconds = results.seconds(cell, name, ANNOUNCE)
            shown = "-" if seconds is None else f"{seconds:.3f} s"
            progress(f"{cell} {name}, turn {turn + 1}: {shown} {outcome.stopped or ''}")


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write(results: Results, output: Path) -> str:
    """Write the results so far; a long run that is stopped leaves what it has."""
    report = markdown(results)
    output.mkdir(parents=True, exist_ok=True)
    (output / "reflector.md").write_text(report)
    (output / "reflector.json").write_text(json.dumps(as_json(results), indent=1) + "\n")
    return report


def main(arguments: Sequence[str]) -> int:
    plan, output = parse(arguments)
    signal.signal(signal.SIGTERM, _stop)
    cores = default_cores()
    os.sched_setaffinity(0, {cores.feeder})
    trixie.make()
    results = Results()
    versions = present(plan, results)
    results.environment = environment(plan, cores, versions)
    report = ""
    with TemporaryDirectory(prefix="bch-") as folder, network(cores) as net:
        Path(folder).chmod(0o755)
        bench = Bench(net, compile_into(Path(folder)), plan.rounds)
        for cell in plan.cells:
            measure_cell(bench, plan, cell, list(versions), results)
            report = write(results, output)
    print(report)
    return 1 if results.failures or not all(target.met for target in targets(results)) else 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
