"""`podbgpd lab --compare overlay`: the same pods over plain routes and over VXLAN, side by side.

Owns the order of the comparison.  Two nodes with a pod each and the agents' routes as always; an overlay
beside them; then runs that alternate between the two ways, under each set of offloads, so that a busy
moment of the machine falls on both.  What really crosses the wire is looked at before anything is measured.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import click
from rich.console import Console

from bgpd.lab import prove, signals
from bgpd.lab.capture import Capture, Ping
from bgpd.lab.command import LabError, find_tool
from bgpd.lab.compare_ends import Ends, Measured, Schedule, busy_seconds
from bgpd.lab.compare_overlay import Offloads, Overlay, Way
from bgpd.lab.compare_report import Compared, Seen, offload_lines, table_lines, to_json
from bgpd.lab.converge import wait_converged
from bgpd.lab.plan import Fabric, Plan, make_plan
from bgpd.lab.present import Presenter
from bgpd.lab.topology import Topology
from bgpd.lab.workspace import Workspace, claim

PARTS = 4
"""Of a run: round trips, one connection, several, datagrams."""
PROOF_TIME = 5.0
STILL = 0.5
"""Seconds in which other work is looked for."""
NOTICEABLE = 0.2
SHORTEST, LONGEST = 1.0, 3_600.0


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What `podbgpd lab --compare overlay` was asked for."""

    duration: float = 24.0
    """Seconds of traffic in all."""
    runs: int = 5
    streams: int = 4
    timeout: float = 60.0
    """Seconds in which all routes must have been learned."""
    output: str = "text"

    def schedule(self) -> Schedule:
        """How long each part takes; LabError when that is out of bounds."""
        if not SHORTEST <= self.duration <= LONGEST:
            limits = f"{SHORTEST:g} to {LONGEST:g}"
            raise LabError(f"a comparison takes {limits} s of traffic, not {self.duration:g}")
        return Schedule(self.duration / (self.runs * PARTS * len(Way) * len(Offloads)), self.streams)


def run_compare(options: CompareOptions, presenter: Presenter | None = None) -> int:
    """Compare, and print what was found; the exit code.  With JSON, progress goes to standard error."""
    json_only = options.output == "json"
    out = presenter or Presenter(Console(stderr=True, highlight=False, soft_wrap=True) if json_only else None)
    try:
        with signals.raised():
            compared = _run(options, out)
    except LabError as error:
        out.failure(str(error))
        return 1
    except signals.Interrupted as interrupt:
        out.failure(str(interrupt))
        return 128 + interrupt.number
    if json_only:
        click.echo(json.dumps(to_json(compared), indent=2, ensure_ascii=False))
        return 0
    _show(compared, out)
    return 0


def _run(options: CompareOptions, out: Presenter) -> Compared:
    schedule = options.schedule()
    for tool, package in (("ip", "iproute2"), ("sysctl", "procps")):
        find_tool(tool, package)
    with ExitStack() as cleanup:
        with signals.held():
            workspace = claim()
            cleanup.callback(_leave, workspace)
        plan = make_plan(workspace.namespace, fabric=Fabric.MESH, nodes=2, pods_per_node=1, dual_stack=False)
        topology = Topology(plan, workspace)
        cleanup.callback(topology.stop)
        return _compare(topology, options, schedule, out)


def _leave(workspace: Workspace) -> None:
    signals.ignore()
    workspace.remove()


def _compare(topology: Topology, options: CompareOptions, schedule: Schedule, out: Presenter) -> Compared:
    plan = topology.plan
    out.title(topology.workspace.name, plan)
    out.step("Building two nodes, their routes through the agents, and a VXLAN beside them")
    topology.build()
    topology.start_agents()
    wait_converged(topology, options.timeout)
    overlay = Overlay(plan)
    overlay.build()
    out.step("What crosses the wire")
    seen = {way: _look(plan, overlay, way, out) for way in Way}
    total = options.runs * len(Offloads) * len(Way)
    out.step(
        f"Measuring: {options.runs} runs that alternate, {total * PARTS} parts of {schedule.seconds:.2f} s"
    )
    other_work = _other_work()
    if other_work > NOTICEABLE:
        out.say(
            f"other work keeps {other_work:.1f} processors busy: figures are worse, and CPU counts it too"
        )
    measured: dict[Offloads, dict[Way, list[Measured]]] = {
        each: {way: [] for way in Way} for each in Offloads
    }
    states: dict[Offloads, dict[str, list[str]]] = {}
    server, caller = plan.nodes[1].pods[0], plan.nodes[0].pods[0]
    with Ends(caller, server, topology.workspace.folder) as ends, out.progress("measured") as count:
        for done, (offloads, way) in enumerate(_order(options.runs)):
            count(done, total)
            if overlay.offload(offloads):
                states[offloads] = overlay.offloads()
            overlay.take(way)
            topology.must_run()
            measured[offloads][way].append(ends.measure(schedule))
        count(total, total)
    processors = os.cpu_count() or 1
    return Compared(schedule, options.runs, processors, other_work, overlay.mtu, seen, states, measured)


def _other_work() -> float:
    """Processors that are busy while nothing is measured."""
    busy, started = busy_seconds(), time.monotonic()
    time.sleep(STILL)
    return (busy_seconds() - busy) / (time.monotonic() - started)


def _order(runs: int) -> Iterator[tuple[Offloads, Way]]:
    """Everything once a run; the way that was last is first in the next, so that neither is favoured."""
    for run in range(runs):
        for number, offloads in enumerate(Offloads):
            ways = list(Way)
            for way in ways if (run + number) % 2 == 0 else reversed(ways):
                yield offloads, way


def _look(plan: Plan, overlay: Overlay, way: Way, out: Presenter) -> Seen:
    """Ping between the pods and read the wire; LabError when it shows anything but this way."""
    overlay.take(way)
    pods = prove.pod_hosts(plan)
    asked = prove.probes(pods, pods)
    with Capture(plan.fabric_namespaces) as fabric:
        answers = prove.ping(asked, PROOF_TIME, fabric.drain)
        time.sleep(0.05)
        fabric.drain()
    unanswered = [answer.probe.source.name for answer in answers if not answer.reached]
    if unanswered:
        raise LabError(f"{way}: pings of {', '.join(unanswered)} were not answered within {PROOF_TIME:g} s")
    sources = {probe.source.name: probe.source.addresses[0] for probe in asked}
    plain = sum(Ping(sources[probe.source.name], probe.address) in fabric.pings for probe in asked)
    seen = Seen(plain, sum(fabric.tunnels.values()))
    good = (
        (seen.plain == len(asked) and not seen.tunnelled)
        if way is Way.NATIVE
        else (not seen.plain and seen.tunnelled >= len(asked))
    )
    text = f"{seen.plain} of {len(asked)} pings as plain IP, {seen.tunnelled} VXLAN packets"
    out.verdict(way, good, text)
    if not good:
        raise LabError(f"packets do not take the way {way}: {text}")
    return seen


def _show(compared: Compared, out: Presenter) -> None:
    for offloads in compared.measured:
        out.step(f"Offloads: {offloads}")
        for line in offload_lines(compared.offloads[offloads]):
            out.say(line)
        for line in table_lines(compared, offloads):
            out.say(line)
    out.done(
        f"medians of {compared.runs} runs on {compared.processors} processors that all parts share: "
        "compare columns, not machines"
    )
