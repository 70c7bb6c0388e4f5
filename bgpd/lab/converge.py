"""Waiting until the agents have done their work, as the kernels show it.

Owns the question "is every route there?", asked of the kernels alone, so that an agent's own word counts
for nothing.
"""

from __future__ import annotations

import time
from typing import Protocol

from bgpd.lab.command import LabError
from bgpd.lab.kernel_routes import missing_routes
from bgpd.lab.plan import Network
from bgpd.lab.topology import Topology

POLL = 0.05


class Count(Protocol):
    """Takes how much is done, whenever it was looked at."""

    def __call__(self, done: int, total: int) -> None: ...


def silent(done: int, total: int) -> None:
    """Shows no progress."""
    del done, total


def wait_converged(topology: Topology, timeout: float, count: Count = silent) -> float:
    """Return when every node's kernel has every route, with the seconds that it took.

    LabError, with what is missing and the end of an agent's log, when an agent ends or time is up.
    """
    plan = topology.plan
    total = sum(len(plan.learned(node)) for node in plan.nodes)
    started = time.monotonic()
    while True:
        topology.must_run()
        looked = time.monotonic()
        missing = {node.name: missing_routes(plan, node) for node in plan.nodes}
        left = sum(map(len, missing.values()))
        count(total - left, total)
        spent = time.monotonic() - started
        if not left:
            return spent
        if spent > timeout:
            raise LabError(_late(topology, missing, timeout))
        time.sleep(max(POLL, time.monotonic() - looked))  # large tables: leave time to those who fill them


def _late(topology: Topology, missing: dict[str, list[Network]], timeout: float) -> str:
    name, networks = next((name, networks) for name, networks in missing.items() if networks)
    wanted = ", ".join(map(str, networks[:5])) + (" ..." if len(networks) > 5 else "")
    return (
        f"after {timeout:g} s the kernel of {name} still lacks {wanted}; the end of its agent's log:\n"
        f"{topology.agents[name].process.tail()}"
    )
