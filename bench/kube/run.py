"""The Kubernetes benchmarks: what a large cluster costs its reflector, controller, agents and API server.

    python -m bench.kube.run [--real] [--only nodes|services|load] [--quick] [--output FOLDER]

Prints Markdown, and writes it to bench/results/kube.md and the figures to kube.json (with --real: kube-real).
Exit code 1: a target was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench.kube import load, nodes, services
from bench.kube.figures import Figure, figures_table
from bench.kube.load import Load
from bench.kube.site import Site, measured
from bgpd.version import version

RESULTS = Path(__file__).parents[1] / "results"
PARTS = ("nodes", "services", "load")
TOPOLOGIES = {"mesh": load.MESH, "reflector": 0, "fabric": 0}
"""The Nodes of each; 0: as many as elsewhere."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the cluster is, and how often it is measured."""

    nodes: int = 5_000
    runs: int = 5
    changes: int = 100
    services: int = 10_000
    each: int = 5
    """Endpoints of a Service."""
    idle: float = 60.0
    """Seconds."""


QUICK = Sizes(nodes=1_000, runs=2, changes=20, services=1_000, idle=10.0)


@dataclass(slots=True)
class Report:
    """What is printed."""

    environment: dict[str, str]
    figures: dict[str, list[Figure]]
    loads: list[Load]

    @property
    def met(self) -> bool:
        return all(figure.met for found in self.figures.values() for figure in found)

    def markdown(self) -> str:
        parts = ["# Kubernetes: a large cluster", ""]
        parts += [f"- {name}: {value}" for name, value in self.environment.items()]
        for name, found in self.figures.items():
            parts += ["", f"## {name}", "", figures_table(found)]
        if self.loads:
            parts += ["", "## What one agent asks of the API server", "", load.loads_table(self.loads)]
            parts += ["", "## What all agents would ask (computed)", "", load.sums_table(self.loads)]
        return "\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--real", action="store_true", help="the real kube-apiserver (`make kube`): Nodes only"
    )
    parser.add_argument("--quick", action="store_true", help="a small cluster: no targets are said to be met")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else Sizes()
    if given.nodes:
        sizes = Sizes(**{**asdict(sizes), "nodes": given.nodes})
    parts = ("nodes",) if given.real else tuple(given.only or PARTS)
    report = measure(sizes, parts, real=given.real)
    print(report.markdown())
    if not given.quick:
        name = "kube-real" if given.real else "kube"
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / f"{name}.md").write_text(report.markdown())
        found = {part: [asdict(figure) for figure in figures] for part, figures in report.figures.items()}
        loads = [asdict(each) for each in report.loads]
        (given.output / f"{name}.json").write_text(json.dumps({"figures": found, "loads": loads}, indent=1))
    return int(not report.met)


def measure(sizes: Sizes, parts: tuple[str, ...], *, real: bool = False) -> Report:
    """Measure these parts, each with an API server of its own."""
    report = Report(_environment(sizes), {}, [])

    def on_nodes(site: Site) -> list[Figure]:
        report.environment["API server"] = site.description
        found = nodes.watching(site, sizes.nodes, sizes.runs, sizes.changes)
        return found + nodes.own_node(site, sizes.changes)

    def on_services(site: Site) -> list[Figure]:
        return services.serving(site, sizes.services, sizes.each, sizes.changes)

    if "nodes" in parts:
        report.figures["Nodes"] = measured(real, on_nodes)
    if "services" in parts:
        report.figures["Services"] = measured(real, on_services)
    if "load" in parts:
        report.loads = [_load(topology, count, sizes) for topology, count in TOPOLOGIES.items()]
    report.environment["load after"] = _load_average()
    return report


def _load(topology: str, count: int, sizes: Sizes) -> Load:
    many = count or sizes.nodes
    work = partial(
        load.topology_load, topology=topology, nodes=min(many, sizes.nodes), agents=many, seconds=sizes.idle
    )
    return measured(False, work)


def _environment(sizes: Sizes) -> dict[str, str]:
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": f"{os.cpu_count()} cores, Linux {platform.release()}",
        "Python": platform.python_version(),
        "podbgp": version(),
        "load before": _load_average(),
        "sizes": ", ".join(f"{name} {value:g}" for name, value in asdict(sizes).items()),
        "settings": "host.toml: API at a Unix socket; BGPCluster: deferralTime 5, connectRetry 1",
    }


def _load_average() -> str:
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
