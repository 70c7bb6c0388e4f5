"""The bench of the node agent, in one command: `python -m bench.agent.run --all` (or `--quick`).

Owns: what is run, in which order, and where it is written (bench/results/agent.md and agent.json).  Runs of
different speakers alternate, so that a slow minute of the machine hits all of them.  Exit code 1: a target
was missed or a run failed.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bench.agent.convergence import Sample, converge, sink_seconds
from bench.agent.feeder import Table
from bench.agent.latency import single_changes
from bench.agent.memory import idle_percent
from bench.agent.report import OURS, Cell, Results, as_json, markdown, targets
from bench.agent.speakers import SPEAKERS, Speaker
from bench.agent.topology import Cores, Topology, default_cores, topology

RESULTS = Path(__file__).parents[1] / "results"
CELLS = (
    Cell("64", 5_000), Cell("64", 20_000), Cell("64", 100_000),
    Cell("distinct", 5_000), Cell("distinct", 20_000), Cell("distinct", 100_000),
)  # fmt: skip
OURS_ALONE = (Cell("distinct", 100_000),)
"""Where the kernel's quadratic time for inline next hops would cost a rival ten minutes a run."""
PARTS = ("convergence", "latency", "idle")
IDLE_ROUTES = 5_000
FEWER = {"frr": 300}
"""FRR takes some 60 ms a change: fewer of them say the same."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    parts: tuple[str, ...]
    speakers: tuple[type[Speaker], ...]
    cells: tuple[Cell, ...]
    latency_cells: tuple[Cell, ...]
    runs: int
    changes: int
    idle_seconds: float


def parse(arguments: Sequence[str]) -> tuple[Plan, Cores, Path]:
    """The plan, the cores and the folder of the results that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.agent.run", description="Bench of the node agent.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--all", action="store_true", help="every table and every part (the default)")
    size.add_argument("--quick", action="store_true", help="5,000 prefixes, two runs, 300 changes")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; can be repeated")
    parser.add_argument("--speaker", choices=list(SPEAKERS), action="append", help="only this speaker")
    parser.add_argument("--cell", action="append", metavar="SHAPE-COUNT", help="only this table: 64-20000")
    parser.add_argument("--runs", type=int, help="runs for each speaker and table (5)")
    parser.add_argument("--changes", type=int, help="single changes for each speaker (1500; FRR 300)")
    parser.add_argument("--unpinned", action="store_true", help="let the speakers use every core")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    chosen = parser.parse_args(arguments)
    cells = tuple(cell for cell in CELLS if cell.prefixes == 5_000 or not chosen.quick)
    latency = tuple(cell for cell in CELLS if cell.prefixes == (5_000 if chosen.quick else 20_000))
    if chosen.cell:
        cells = latency = tuple(_cell(parser, text) for text in chosen.cell)
    plan = Plan(
        parts=tuple(chosen.only or PARTS),
        speakers=tuple(SPEAKERS[name] for name in chosen.speaker or SPEAKERS),
        cells=cells,
        latency_cells=latency,
        runs=chosen.runs or (2 if chosen.quick else 5),
        changes=chosen.changes or (300 if chosen.quick else 1_500),
        idle_seconds=20 if chosen.quick else 60,
    )
    cores = default_cores()
    return plan, Cores(cores.feeder, None if chosen.unpinned else cores.daemon), chosen.output


def _cell(parser: argparse.ArgumentParser, text: str) -> Cell:
    shape, _, count = text.partition("-")
    if shape not in ("64", "distinct") or not count.isdecimal():
        parser.error(f"--cell {text}: valid are 64-COUNT and distinct-COUNT")
    return Cell("64" if shape == "64" else "distinct", int(count))


def environment(plan: Plan, cores: Cores) -> dict[str, str]:
    """What the figures depend on."""
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    model = models[0] if models else platform.machine()
    daemon = "every core" if cores.daemon is None else f"core {cores.daemon}, threads included"
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": f"{os.cpu_count()} x {model}, Linux {platform.release()}",
        "Python": platform.python_version(),
        "load before": load,
        "cores": f"feeder on core {cores.feeder}, speaker on {daemon}",
        "versions": "; ".join(f"{speaker.name}: {speaker.version()}" for speaker in plan.speakers),
        "settings": "bench/agent/: podbgp.toml, bird.conf, frr-bgpd.conf, frr-zebra.conf; iBGP, one session",
    }


def measure_convergence(net: Topology, plan: Plan, results: Results) -> None:
    """Every table; the speakers alternate."""
    for cell in plan.cells:
        table = Table(cell.prefixes, cell.shape)
        results.sink[cell] = [sink_seconds(net, table) for _ in range(plan.runs)]
        found: dict[str, list[Sample]] = {speaker.name: [] for speaker in _speakers(plan, cell)}
        results.convergence[cell] = found
        for number in range(plan.runs):
            for speaker in _speakers(plan, cell):
                with attempt(results, f"{speaker.name}, {cell}, run {number + 1}"):
                    sample = converge(net, speaker, table)
                    found[speaker.name].append(sample)
                    progress(f"{speaker.name} {cell.shape}-{cell.prefixes}: {sample.seconds:.3f} s")


def measure_latency(net: Topology, plan: Plan, results: Results) -> None:
    """Single changes with each of the tables installed."""
    for cell in plan.latency_cells:
        found = results.latency.setdefault(cell, {})
        for speaker in _speakers(plan, cell):
            changes = min(plan.changes, FEWER.get(speaker.name, plan.changes))
            with attempt(results, f"{speaker.name}, {cell}, single changes"):
                found[speaker.name] = single_changes(net, speaker, Table(cell.prefixes, cell.shape), changes)
                progress(f"{speaker.name} {cell.shape}-{cell.prefixes}: single changes done")


def measure_idle(net: Topology, plan: Plan, results: Results) -> None:
    """CPU of speakers that have nothing to do."""
    for speaker in plan.speakers:
        with attempt(results, f"{speaker.name}, idle"):
            results.idle[speaker.name] = idle_percent(net, speaker, IDLE_ROUTES, plan.idle_seconds)
            progress(f"{speaker.name} idle: {results.idle[speaker.name]:.2f} %")


def _speakers(plan: Plan, cell: Cell) -> list[type[Speaker]]:
    return [speaker for speaker in plan.speakers if speaker.name == OURS or cell not in OURS_ALONE]


@contextmanager
def attempt(results: Results, what: str) -> Iterator[None]:
    """Note a failed run, with its reason, and go on: the report names it and the exit code is 1."""
    try:
        yield
    except (OSError, RuntimeError, AssertionError) as error:
        results.failures.append(f"{what}: {error}")
        progress(f"FAILED {what}: {error}")


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


MEASURES: dict[str, Callable[[Topology, Plan, Results], None]] = {
    "convergence": measure_convergence,
    "latency": measure_latency,
    "idle": measure_idle,
}


def main(arguments: Sequence[str]) -> int:
    plan, cores, output = parse(arguments)
    signal.signal(signal.SIGTERM, _stop)
    os.sched_setaffinity(0, {cores.feeder})
    results = Results(environment(plan, cores))
    with topology(cores) as net:
        for part in plan.parts:
            MEASURES[part](net, plan, results)
    report = markdown(results)
    output.mkdir(parents=True, exist_ok=True)
    (output / "agent.md").write_text(report)
    (output / "agent.json").write_text(json.dumps(as_json(results), indent=1) + "\n")
    print(report)
    return 1 if results.failures or not all(target.met for target in targets(results)) else 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
