"""What a change among 10,000 Services with 50,000 endpoints costs the agent of a node, end to end.

Owns the scenario: the agent is a process of its own, and what is counted is all of its processor time for a
change (watch, tables, announcement, UPDATE, packet filter), less what it uses when nothing
happens.  `bench/kube_services.py` measures the pure part of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.kube import objects
from bench.kube.figures import Figure, times
from bench.kube.site import Site
from bench.kube.wire import Speaker
from bench.reflector.processes import Running

CPU_TARGET = 5.0
"""Milliseconds of CPU for one change."""
PEER = objects.node_address(1)
OTHERS = 500
"""Nodes that the endpoints are on; this one is Node 0 and has none."""
PAUSE = 0.02
IDLE = 4.0
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICES = "/api/v1/namespaces/default/services"

Change = tuple[Callable[[], object], str, bool]
"""What to do, and what the peer hears of it: a prefix, empty for nothing, and whether it is announced."""


def serving(site: Site, count: int, each: int, changes: int) -> list[Figure]:
    """All of it; needs the stand-in."""
    assert site.stand_in is not None
    site.define("reflector")
    site.populate(1)
    site.create(objects.pool())
    site.create(objects.advertisement())
    site.reflected_by(PEER)
    site.stand_in.ask(services=count, each=each, over=OTHERS)
    with site.daemon("agent", "--node", objects.node_name(0)) as daemon:
        begun = site.first_request(daemon)
        with Speaker.accept(PEER) as sink:
            sink.announce(())
            expected = {_address(number) for number in range(0, count, 2)}
            took = sink.wait_for_all(expected, announced=True) - begun
            used = daemon.cpu()
            text = f"agent, {count:,} Services with {count * each:,} endpoints"
            figures = [
                Figure(f"{text}: first request to all announced", took, "s", remark=f"{used:.2f} s of CPU")
            ]
            time.sleep(IDLE)
            idle = _idle(daemon)
            figures.append(Figure("agent, idle", idle * 100, "% of a core"))
            for what, made in _kinds(site, count, each, changes).items():
                figures += _measured(daemon, sink, what, list(made), idle)
            return [*figures, Figure(f"{text}: peak memory", daemon.peak(), "MB", remark="VmHWM")]


def _idle(daemon: Running) -> float:
    """Processor time for each second in which nothing happens."""
    before = daemon.cpu()
    time.sleep(IDLE)
    return (daemon.cpu() - before) / IDLE


def _ended(daemon: Running) -> float:
    """Processor time of children that have ended: nft(8), which writes the packet filter now and then."""
    fields = Path(f"/proc/{daemon.pids()[0]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _measured(daemon: Running, sink: Speaker, what: str, made: list[Change], idle: float) -> list[Figure]:
    begun, before, children = time.monotonic(), daemon.cpu(), _ended(daemon)
    took = []
    for change, prefix, announced in made:
        start = time.perf_counter()
        change()
        if prefix:
            took.append(sink.wait_for(prefix, announced=announced) - start)
        time.sleep(PAUSE)
    time.sleep(1.0)
    used = daemon.cpu() - before - idle * (time.monotonic() - begun)
    ended = (_ended(daemon) - children) / len(made) * 1e3
    remark = f"{len(made)} changes, {1 / PAUSE:.0f} a second at most; nft(8) beside that: {ended:.1f} ms"
    figures = [Figure(f"{what}: CPU of one", used / len(made) * 1e3, "ms", CPU_TARGET, remark)]
    return figures + (times(f"{what}, to the UPDATE", took, None) if took else [])


def _kinds(site: Site, count: int, each: int, changes: int) -> dict[str, Iterator[Change]]:
    numbers = [turn * 37 % (count // 2) * 2 for turn in range(changes)]
    return {
        "an endpoint elsewhere changes": (_place(site, number, each, 0, "") for number in numbers),
        "the endpoint of a Local Service comes or goes": _local(site, numbers, each),
        "a Service turns Local or back": _policies(site, numbers),
        "a Service is deleted, created, given its address": _existence(site, numbers),
    }  # fmt: skip


def _place(site: Site, number: int, each: int, here: int, prefix: str) -> Change:
    """The endpoints of a Service are elsewhere, `here` of them on this node."""
    placed = [0 if k < here else 1 + (number * 7 + k * 11) % (OTHERS - 1) for k in range(each)]
    patch = {"endpoints": objects.endpoint_slice(number, placed)["endpoints"]}
    return partial(site.client.patch, f"{SLICES}/s{number}-x", patch), prefix, bool(here)


def _local(site: Site, numbers: list[int], each: int) -> Iterator[Change]:
    for number in numbers:
        local = number + 1
        yield _place(site, local, each, 1, _address(local))
        yield _place(site, local, each, 0, _address(local))


def _policies(site: Site, numbers: list[int]) -> Iterator[Change]:
    for number in numbers:
        for policy in ("Local", "Cluster"):
            change = partial(
                site.client.patch, f"{SERVICES}/s{number}", {"spec": {"externalTrafficPolicy": policy}}
            )
            yield change, _address(number), policy == "Cluster"


def _existence(site: Site, numbers: list[int]) -> Iterator[Change]:
    """The status, which has the address, comes later, as from the controller."""
    for number in numbers:
        service = objects.service(number)
        status = {"status": service["status"]}
        path = f"{SERVICES}/s{number}"
        yield partial(site.client.delete, path), _address(number), False
        yield partial(site.client.create, SERVICES, service), "", False
        yield partial(site.client.patch, path, status, subresource="status"), _address(number), True


def _address(number: int) -> str:
    return f"{objects.ingress(number)}/32"
