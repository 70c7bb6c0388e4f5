"""What the end-to-end tests stand on: a whole pod network with real agents, as `podbgpd lab` builds it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import pytest

from bgpd.lab.converge import wait_converged
from bgpd.lab.plan import Fabric, make_plan
from bgpd.lab.topology import Topology
from bgpd.lab.workspace import claim
from tests.e2e.kube_stories import Cluster, cluster

CONVERGED_WITHIN = 60.0


class MakeLab(Protocol):
    """Builds a lab; with `agents`, it returns when every route is in the kernels."""

    def __call__(
        self, fabric: Fabric = Fabric.MESH, *, nodes: int = 2, pods_per_node: int = 1, agents: bool = True
    ) -> Topology: ...


@pytest.fixture
def make_lab() -> Iterator[MakeLab]:
    """Labs of this test's own, which are gone after it; a test that fails shows the agents' logs."""
    with labs() as make:
        yield make


@pytest.fixture(scope="module")
def make_shared_lab() -> Iterator[MakeLab]:
    """Labs that all stories of a module share; each story leaves them as it found them."""
    with labs() as make:
        yield make


@pytest.fixture(scope="module")
def mesh() -> Iterator[Cluster]:
    """A Kubernetes cluster that all stories of a module share; each leaves it as it found it."""
    with cluster("mesh") as built:
        yield built


@pytest.fixture(scope="module")
def reflected() -> Iterator[Cluster]:
    """The same with reflectors."""
    with cluster("reflector") as built:
        yield built


@contextmanager
def labs() -> Iterator[MakeLab]:
    """What makes labs; all of them are removed at the end."""
    with ExitStack() as stack:

        def make(
            fabric: Fabric = Fabric.MESH, *, nodes: int = 2, pods_per_node: int = 1, agents: bool = True
        ) -> Topology:
            workspace = claim("e2e")
            stack.callback(workspace.remove)
            plan = make_plan(workspace.namespace, fabric=fabric, nodes=nodes, pods_per_node=pods_per_node)
            topology = Topology(plan, workspace)
            stack.callback(topology.stop)
            stack.callback(_show_logs, topology)
            topology.build()
            topology.start_routers()
            if agents:
                topology.start_agents()
                wait_converged(topology, CONVERGED_WITHIN)
            return topology

        yield make


def _show_logs(topology: Topology) -> None:
    for name, agent in topology.agents.items():
        sys.stderr.write(f"--- the end of the log of {name}'s agent\n{agent.process.tail()}\n")
