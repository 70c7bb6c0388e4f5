"""The agent of a node whose intent comes from Kubernetes.

Wiring only: in a mesh it follows all Nodes, otherwise its own Node and a few small objects, so that a large
cluster's agents cost the API server no more than what concerns them.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from bgpd import process
from bgpd.agent import Agent
from bgpd.config import Config, FibConfig
from bgpd.kernel.netlink import Kernel
from bgpd.kube.custom_values import BgpCluster, Topology
from bgpd.kube.follower import Follower
from bgpd.kube.intent import Gateway, Intent, agent_intent
from bgpd.kube.known_nodes import KnownNodes
from bgpd.kube.options import KubeOptions
from bgpd.kube.restart import Again, run_and_again
from routes.next_hop import Resolver
from routes.prefix import Family


def run(options: KubeOptions) -> int:
    """Run an agent until it is told to stop; the exit code."""

    def once(again: Again) -> int:
        async def start(tasks: asyncio.TaskGroup) -> Agent:
            return await KubeAgent(options, again, tasks).start()

        return process.run_until_stopped(start)

    return run_and_again(once)


class KubeAgent(Follower[Agent]):
    """One agent and what it follows."""

    file_name = "agent-intent.json"

    def __init__(self, options: KubeOptions, again: Again, tasks: asyncio.TaskGroup) -> None:
        self.nodes: KnownNodes | None = None
        """In a mesh alone."""
        self._gateways = gateways_of(read_surroundings(options.host.fib))
        super().__init__(options, again, tasks)

    def follow(self, cluster: BgpCluster) -> None:
        """Only a mesh needs all Nodes."""
        mesh = cluster.topology is Topology.MESH
        if mesh and self.nodes is None:
            self.nodes = KnownNodes(self.following, self.changed)
        elif not mesh and self.nodes is not None:
            self.nodes.drop()
            self.nodes = None

    @property
    def synced(self) -> bool:
        return self.tables.synced and (self.nodes is None or self.nodes.table.synced)

    def intent(self) -> Intent | None:
        nodes = () if self.nodes is None else self.nodes.table.in_order()
        facts = self.tables.facts(self._gateways, nodes)
        return None if facts is None else agent_intent(facts)

    def without_node(self, config: Config) -> Config:
        return replace(config, agent=replace(config.agent, advertise=()))

    def make(self, config: Config) -> Agent:
        return Agent(config, self.tasks)

    def looked(self, role: Agent) -> None:
        """In a mesh, other nodes' paths have to be theirs."""
        cluster = self.tables.cluster
        if self.nodes is None or cluster is None:
            role.verify_against(None)
            return
        self.nodes.on_touched = role.rejudge
        self.nodes.set_ranges(cluster.pod_cidrs)
        role.verify_against(self.nodes.prefixes)


# -- the host -----------------------------------------------------------------------------------------


def read_surroundings(fib: FibConfig) -> Resolver:
    """The links, addresses and foreign routes of this host."""
    with Kernel(fib.table, fib.protocol, (fib.metric, fib.unreachable_metric)) as kernel:
        found = kernel.surroundings()
    return Resolver(found.links, found.addresses, found.routes)


def gateways_of(resolver: Resolver) -> dict[Family, Gateway]:
    """The host's default gateways."""
    found: dict[Family, Gateway] = {}
    for family, size in ((Family.IPV4, 4), (Family.IPV6, 16)):
        hop = resolver.default_gateway(size)
        if hop is not None and hop.gateway is not None:
            found[family] = Gateway(hop.gateway, resolver.links[hop.ifindex].name)
    return found
