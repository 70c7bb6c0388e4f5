"""What one agent asks of the API server, in each topology, and what 5,000 of them would ask.

Owns the scenario: one real agent, the stand-in API server, which counts.  Bytes are those of its answers and
events.  What 5,000 agents ask is computed, not measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.kube import objects
from bench.kube.figures import table
from bench.kube.site import Site
from bench.kube.wire import Speaker

MESH = 200
PEER = objects.node_address(1)
STARTED = 10.0
"""Seconds after which an agent has started."""
HEARTBEAT = 300.0
"""Seconds between two writes of a Node by its kubelet, which says what it has to say by its Lease."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The counters of the API server, or the difference of two."""

    requests: dict[str, int]
    sent: dict[str, int]
    watches: int

    def since(self, before: Asked) -> Asked:
        def less(now: dict[str, int], then: dict[str, int]) -> dict[str, int]:
            return {key: value - then.get(key, 0) for key, value in now.items() if value != then.get(key, 0)}

        return Asked(less(self.requests, before.requests), less(self.sent, before.sent), self.watches)

    @property
    def count(self) -> int:
        return sum(self.requests.values())

    @property
    def bytes(self) -> int:
        return sum(self.sent.values())

    @property
    def writes(self) -> int:
        """Of the BGPNodeState."""
        verbs = ("create", "patch", "update")
        return sum(self.requests.get(f"{verb} bgpnodestates", 0) for verb in verbs)


@dataclass(frozen=True, slots=True)
class Load:
    """One topology."""

    topology: str
    nodes: int
    agents: int
    """For how many the sum is."""
    start: Asked
    idle: Asked
    minutes: float
    heartbeats: Asked
    """One of each Node."""


def asked(site: Site) -> Asked:
    assert site.stand_in is not None
    found = site.stand_in.ask()
    requests, sent, watches = found["requests"], found["sent"], found["watches"]
    assert isinstance(requests, dict)
    assert isinstance(sent, dict)
    assert isinstance(watches, int)
    return Asked(requests, sent, watches)


def topology_load(site: Site, topology: str, nodes: int, agents: int, seconds: float) -> Load:
    """One agent from its start; needs the stand-in to itself."""
    assert site.stand_in is not None
    site.define(topology)
    site.populate(nodes)
    if topology == "reflector":
        site.reflected_by(PEER)
    elif topology == "fabric":
        site.create(objects.router(PEER))
    before = asked(site)
    with site.daemon("agent", "--node", objects.node_name(0)), _peer(topology) as peer:
        peer.announce(())
        time.sleep(STARTED)
        started = asked(site)
        time.sleep(seconds)
        idle = asked(site)
        site.stand_in.ask(beats=nodes)
        time.sleep(1.0)
        beaten = asked(site)
    start = started.since(before)
    return Load(
        topology, nodes, agents, start, idle.since(started), seconds / 60, beaten.since(idle)
    )  # fmt: skip


def _peer(topology: str) -> Speaker:
    """An agent of reflectors connects; the others listen, at every address that is local there."""
    return Speaker.accept(PEER) if topology == "reflector" else Speaker.connect(PEER, objects.node_address(0))


def loads_table(loads: list[Load]) -> str:
    """One agent, and the sum for all of a cluster."""
    head = (
        "topology", "Nodes", "requests at start", "KB at start", "open watches", "requests a minute, idle",
        "KB a minute, idle", "BGPNodeState writes: start", "idle, a minute", "bytes: a heartbeat of each",
    )  # fmt: skip
    rows = [
        [
            each.topology, f"{each.nodes:,}", str(each.start.count), f"{each.start.bytes / 1e3:,.1f}",
            str(each.idle.watches), f"{each.idle.count / each.minutes:.1f}",
            f"{each.idle.bytes / 1e3 / each.minutes:.2f}", str(each.start.writes),
            f"{each.idle.writes / each.minutes:.1f}", f"{each.heartbeats.sent.get('watch nodes', 0):,}",
        ] for each in loads
    ]  # fmt: skip
    return table(head, rows)


def sums_table(loads: list[Load]) -> str:
    head = (
        "topology", "agents", "requests at start", "MB at start", "open watches", "requests a second, idle",
        "KB a second, heartbeats included",
    )  # fmt: skip
    rows = []
    for each in loads:
        beats = each.heartbeats.sent.get("watch nodes", 0) / HEARTBEAT
        second = each.idle.bytes / each.minutes / 60 + beats
        rows.append([
            each.topology, f"{each.agents:,}", f"{each.start.count * each.agents:,}",
            f"{each.start.bytes * each.agents / 1e6:,.0f}", f"{each.idle.watches * each.agents:,}",
            f"{each.idle.count * each.agents / each.minutes / 60:,.1f}", f"{second * each.agents / 1e3:,.0f}",
        ])  # fmt: skip
    return table(head, rows)
