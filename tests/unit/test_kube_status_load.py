"""BGPCluster.status goes to every agent: it is written seldom while a cluster grows, and while Nodes flap.

Pure: the controller's state with a clock of its own, and an API server that takes every write at once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from bgpd.kube.controller_state import ControllerState
from bgpd.kube.custom_book import Watched
from bgpd.kube.custom_state import BgpNodeState
from bgpd.kube.custom_values import Topology
from bgpd.kube.objects import Node
from bgpd.kube.resources import CLUSTERS
from bgpd.kube.review import Reviewed
from bgpd.kube.status_desk import UNHURRIED
from bgpd.kube.watch import Batch
from bgpd.kube.write_queue import Write
from routes.prefix import Address, Prefix
from tests.unit.test_kube_intent import cluster

WALL = datetime(2026, 1, 1, tzinfo=UTC)
PATH = f"{CLUSTERS.path}/default"
STEP = 0.5
NODES = 600
FIRST = 8
"""Writes for what somebody waits for: the first reflectors, and conditions that turn."""


class Growing:
    """A controller that leads a cluster from its first Node on."""

    def __init__(self) -> None:
        self.state = ControllerState("podbgp-system", lambda: 0.0)
        self.now = 0.0
        self.writes: list[float] = []
        whole = cluster(Topology.REFLECTOR)
        self.state.take_clusters(0.0, Batch((Reviewed("default", whole.uid, 1, whole),)))
        for table in Watched:
            if table not in (Watched.CLUSTERS, Watched.NODES, Watched.NODE_STATES):
                self.state._heard(table, Batch())  # noqa: SLF001  nothing is there of the others
        self.state.take_nodes(0.0, Batch())
        self.state.take_states(0.0, Batch())
        self.state.lead(0.0)

    def pass_time(self, seconds: float = STEP) -> None:
        self.now += seconds
        self.state.reconcile(self.now, WALL)
        while isinstance(write := self.state.queue.next(self.now), Write):
            if write.path == PATH:
                self.writes.append(self.now)
            self.state.wrote(self.now, WALL, write)

    def node(self, node: Node) -> None:
        self.state.take_nodes(self.now, Batch((node,)))

    def report(self, node: Node) -> None:
        told = BgpNodeState(node.name, node.uid, 0, pod_cidrs=node.pod_cidrs, addresses=node.addresses)
        self.state.take_states(self.now, Batch((told,)))


def a_node(number: int) -> Node:
    low, high = number & 255, number >> 8
    prefixes = (Prefix(Address(bytes((10, 244 + high, low, 0))), 24),)
    address = Address(bytes((192, 0, high, low)))
    return Node(f"n{number}", f"u{number}", {}, prefixes, (address,), ready=True, created=float(number))


def test_a_cluster_that_grows_and_flaps_writes_its_status_seldom() -> None:
    """A Node comes at each step, gets its prefix, then reports; later every fifth one is lost and back."""
    world = Growing()
    for number in range(NODES):
        world.node(replace(a_node(number), pod_cidrs=(), ready=False))
        if number >= 1:
            world.node(a_node(number - 1))
        if number >= 10:
            world.report(a_node(number - 10))
        world.pass_time()
    for number in range(NODES):
        world.node(replace(a_node(number), ready=number % 5 != 0))
        world.node(a_node(max(number - 4, 0)))
        world.pass_time()
    assert len(world.writes) <= world.now / UNHURRIED + FIRST
