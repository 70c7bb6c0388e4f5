"""What watching all Nodes costs: reflector and controller from their first request on, and one change.

Owns the scenario.  A change is timed from the moment before the request that makes it until the UPDATE has
been read at another client: the API server's own work is in it, so that the daemon's part is less.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

from bench.kube import objects
from bench.kube.figures import Figure, times
from bench.kube.site import CLUSTER, NODES, Site, seen
from bench.kube.wire import Speaker
from bench.reflector.processes import Running
from bgpd.kube.errors import NotFound

LIST_TARGET = 3.0
"""Seconds."""
MEMORY_TARGET = 120.0
"""MB."""
CHANGE_TARGET = 50.0
"""Milliseconds, median."""
PAUSE = 0.01
"""Seconds between changes."""
REFLECTOR = objects.node_address(0)


def watching(site: Site, count: int, runs: int, changes: int) -> list[Figure]:
    """All of it, at `count` Nodes."""
    site.define("reflector")
    size = site.populate(count)
    figures = [Figure(f"{count:,} Nodes as JSON", size / 1e6, "MB")]
    figures += _reflector(site, count, runs, changes)
    return figures + _controller(site, count, runs)


def _reflector(site: Site, count: int, runs: int, changes: int) -> list[Figure]:
    took, cpus, peaks = [], [], []
    figures: list[Figure] = []
    for turn in range(runs):
        with site.daemon("reflector", "--node", objects.node_name(0)) as daemon:
            begun = site.first_request(daemon)
            before = daemon.cpu()
            took.append(site.listens(daemon) - begun)
            cpus.append(daemon.cpu() - before)
            peaks.append(daemon.peak())
            if turn == runs - 1:
                figures = _reflected(site, daemon, count, changes)
    text = f"reflector, {count:,} Nodes: first request to intent taken"
    return [*_first_list(text, took, cpus, peaks), *figures]


def _first_list(text: str, took: list[float], cpus: list[float], peaks: list[float]) -> list[Figure]:
    spread = f"{len(took)} runs, {min(took):.2f} to {max(took):.2f}; {min(cpus):.2f} s of CPU"
    return [
        Figure(text, statistics.median(took), "s", LIST_TARGET, spread),
        Figure(f"{text}, peak memory", max(peaks), "MB", MEMORY_TARGET, "VmHWM"),
    ]


def _reflected(site: Site, daemon: Running, count: int, changes: int) -> list[Figure]:
    """Two clients, one of which announces the prefixes of every Node."""
    with (
        Speaker.connect(objects.node_address(1), REFLECTOR) as source,
        Speaker.connect(objects.node_address(2), REFLECTOR) as sink,
    ):
        source.announce((objects.pod_cidr(n), objects.node_address(n)) for n in range(3, count))
        sink.wait_for(objects.pod_cidr(count - 1), announced=True)
        numbers = [3 + turn * 37 % (count - 3) for turn in range(changes)]
        figures = _changes(site, sink, numbers, "reflector, a Node", "at another client")
        figures.append(
            Figure("reflector, peak memory after that", daemon.peak(), "MB", MEMORY_TARGET, "VmHWM")
        )
        if site.stand_in is not None:
            before = daemon.cpu()
            site.stand_in.ask(beats=count)
            time.sleep(2.0)
            used = (daemon.cpu() - before) / count
            figures.append(Figure("reflector, a Node's heartbeat", used * 1e6, "us of CPU"))
        return figures


def _changes(site: Site, sink: Speaker, numbers: Iterable[int], who: str, where: str) -> list[Figure]:
    """Delete these Nodes one by one, and create each again; every second one gets its podCIDRs later."""
    found: dict[str, list[float]] = {"deleted": [], "created": [], "given podCIDRs": []}
    for turn, number in enumerate(numbers):
        cidr, path = objects.pod_cidr(number), f"{NODES}/{objects.node_name(number)}"
        found["deleted"].append(_timed(partial(site.client.delete, path), sink, cidr, announced=False))
        change: Callable[[], object] = partial(site.create, objects.node(number))
        if turn % 2:
            site.create(objects.node(number, prefixes=False))
            change = partial(site.client.patch, path, {"spec": objects.pod_cidrs(number)})
        what = "given podCIDRs" if turn % 2 else "created"
        found[what].append(_timed(change, sink, cidr, announced=True))
    rows = (
        times(f"{who} {what}, to the UPDATE {where}", took, CHANGE_TARGET) for what, took in found.items()
    )
    return [figure for row in rows for figure in row]


def _timed(change: Callable[[], object], sink: Speaker, prefix: str, *, announced: bool) -> float:
    begun = time.perf_counter()
    change()
    when = sink.wait_for(prefix, announced=announced)
    time.sleep(PAUSE)
    return when - begun


def _controller(site: Site, count: int, runs: int) -> list[Figure]:
    took, cpus, peaks = [], [], []
    for _ in range(runs):
        site.client.patch(CLUSTER, {"status": {"nodes": 0}}, subresource="status")
        _forget_lease(site)
        with site.daemon("controller") as daemon:
            begun = site.first_request(daemon)
            before = daemon.cpu()
            done = seen(daemon, lambda: nodes_in_status(site) == count, 0.02)
            took.append(done - begun)
            cpus.append(daemon.cpu() - before)
            peaks.append(daemon.peak())
    text = f"controller, {count:,} Nodes: first request to the status written"
    return _first_list(text, took, cpus, peaks)


def nodes_in_status(site: Site) -> int:
    """What the controller wrote."""
    status = json.loads(site.client.get(CLUSTER)).get("status", {})
    return int(status.get("nodes", 0))


def _forget_lease(site: Site) -> None:
    """The controller before was killed; else its successor would wait for its Lease to expire."""
    path = "/apis/coordination.k8s.io/v1/namespaces/podbgp-system/leases/podbgp-controller"
    try:
        site.client.delete(path)
    except NotFound:
        return


def own_node(site: Site, changes: int) -> list[Figure]:
    """The agent's side: its own Node is deleted and created again, seen by its reflector."""
    peer, name = objects.node_address(1), objects.node_name(0)
    site.reflected_by(peer)
    with site.daemon("agent", "--node", name) as daemon, Speaker.accept(peer) as sink:
        sink.announce(())
        sink.wait_for(objects.pod_cidr(0), announced=True)
        figures = _changes(site, sink, [0] * changes, "agent, its own Node", "at its peer")
        return [*figures, Figure("agent, peak memory", daemon.peak(), "MB", remark="VmHWM")]
