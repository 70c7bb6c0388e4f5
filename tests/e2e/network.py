"""What the stories do to a running lab, and how they see what came of it.

Whatever happened to packets and routes is asked of `ping`, `ip monitor` and `ip route`, which are not
ours; only what the agent says of itself is asked of its API.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from itertools import pairwise

from api.client import Client, UnreachableError
from bgpd.lab import netns
from bgpd.lab.plan import Network, Node
from bgpd.lab.topology import Agent, Topology
from routes.path import PeerName
from routes.peer import PeerStatus
from routes.prefix import Prefix
from routes.view import DaemonStatus, FibView, RouteQuery, Table
from tests.interop.harness.speaker import wait_until

SECOND = 1.0
"""How long the agent may take to notice and mend what others did."""
PATIENCE = 20.0
"""How long what depends on sessions may take on a busy machine."""
PROMPT = 0.02
METRICS = {"20", "4278198272"}
"""Of ours: learned entries, and `unreachable`."""


def network_of(node: Node, version: int) -> Network:
    return next(network for network in node.pod_networks if network.version == version)


class Asked:
    """An agent's answers to its operator."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.api = f"unix://{agent.socket}"

    def status(self) -> DaemonStatus:
        with Client(self.api) as client:
            return client.status()

    def peers(self) -> dict[PeerName, PeerStatus]:
        with Client(self.api) as client:
            return {peer.name: peer for peer in client.peers()}

    def entries(self, nlri: str) -> list[FibView]:
        """The kernel entries of one prefix."""
        with Client(self.api) as client:
            return list(client.fib(RouteQuery(Table.FIB, prefix=Prefix.parse(nlri))))

    def entry(self, nlri: str) -> FibView:
        (entry,) = self.entries(nlri)
        return entry

    def reasons(self, nlri: str) -> dict[PeerName, str]:
        """By peer, why its path to a prefix is not used; empty where it is."""
        with Client(self.api) as client:
            return {path.path.source.peer: path.reason for path in client.explain(nlri).paths}

    def answers(self) -> bool:
        try:
            self.status()
        except UnreachableError:
            return False
        return True

    def converged(self) -> bool:
        """Whether every peer has said End-of-RIB since the start."""
        try:
            return self.status().convergence.complete
        except UnreachableError:
            return False

    def wait_converged(self) -> float:
        """When the initial convergence was complete: seconds since the epoch."""
        wait_until(self.converged, PATIENCE, self.agent.process.tail)
        return self.status().convergence.at

    def reload(self, config: str) -> None:
        """Have the agent read this configuration; returns when it has said what it makes of it."""
        said = len(self._verdicts())
        self.agent.config.write_text(config)
        self.agent.process.signal(signal.SIGHUP)
        eventually(lambda: len(self._verdicts()) > said, self.agent.process.tail)

    def _verdicts(self) -> list[dict[str, object]]:
        return self.log("configuration taken") + self.log("configuration not taken")

    def log(self, event: str) -> list[dict[str, object]]:
        """The lines of the agent's log whose event begins so."""
        text = self.agent.process.log.read_text() if self.agent.process.log.exists() else ""
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in lines if str(line["event"]).startswith(event)]


def eventually(
    good: Callable[[], bool], what: str | Callable[[], str] = "the condition", within: float = PATIENCE
) -> float:
    """Ask often, and return after how many seconds it was true."""
    started = time.monotonic()
    while not good():
        spent = time.monotonic() - started
        assert spent < within, f"not within {within:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(PROMPT)
    return time.monotonic() - started


def shown(namespace: str, *selector: str) -> list[str]:
    """The routes of both families, a line each, as `ip` prints them."""
    lines: list[str] = []
    for version in ("-4", "-6"):
        output = netns.run_in(namespace, [netns.ip_tool(), version, "-o", "route", "show", *selector])
        lines += [re.sub(r" +", " ", line.replace("\\", " ")).strip() for line in output.splitlines()]
    return lines


def _is_ours(line: str) -> bool:
    words = line.split()
    value = dict(pairwise(words)).get
    return value("proto") == "179" and value("metric") in METRICS and value("table") is None


def ours(namespace: str) -> list[str]:
    """What the agent put into a kernel."""
    return [line for line in shown(namespace) if _is_ours(line)]


def foreign(namespace: str) -> list[str]:
    """What anybody else put into any table of a kernel, and what the kernel did itself."""
    return [line for line in shown(namespace, "table", "all") if not _is_ours(line)]


def hold_for(topology: Topology, seconds: float) -> None:
    """Lower `fib.hold_time` of agents that are not started yet."""
    for agent in topology.agents.values():
        text = agent.config.read_text()
        agent.config.write_text(text.replace("[fib]\n", f"[fib]\nhold_time = {seconds:g}\n"))
