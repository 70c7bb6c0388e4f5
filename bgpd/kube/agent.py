"""The agent of a node whose intent comes from Kubernetes.

Wiring only: in a mesh it follows all Nodes, otherwise its own Node and a few small objects, so that a large
cluster's agents cost the API server no more than what concerns them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from bgpd import process
from bgpd.agent import Agent
from bgpd.config import Config
from bgpd.kube import reflector_metrics, resources
from bgpd.kube.agent_facts import node_facts
from bgpd.kube.custom_values import BgpCluster, ReflectorMode, Topology
from bgpd.kube.drain_watch import DrainWatch
from bgpd.kube.errors import KubeError
from bgpd.kube.follower import Follower
from bgpd.kube.gateways import gateways_of, read_surroundings
from bgpd.kube.host import Host, HostPlan
from bgpd.kube.intent import Intent, agent_intent, pool_prefixes
from bgpd.kube.known_nodes import KnownNodes
from bgpd.kube.local_services import LocalServices
from bgpd.kube.node_shown import node_host
from bgpd.kube.node_state_writer import NodeStateWriter
from bgpd.kube.objects import Node
from bgpd.kube.options import KubeOptions
from bgpd.kube.reflector_child import ReflectorChild
from bgpd.kube.reflector_metrics import ReflectorMetrics
from bgpd.kube.restart import Again, run_and_again
from bgpd.kube.services_view import ServicesShown
from bgpd.kube.shown import intent_status
from bgpd.metrics_server import Page
from bgpd.node.drain import IN_SERVICE, DrainPlan
from routes.node_view import NodeHost, NodeReflector
from routes.own_path import OwnPath
from routes.prefix import Address, Prefix
from routes.view import IntentStatus

LOOK_EVERY = 1.0
"""Seconds between two looks at what no event tells."""


def run(options: KubeOptions) -> int:
    """Run an agent until it is told to stop; the exit code."""

    def once(again: Again) -> int:
        async def start(tasks: asyncio.TaskGroup) -> Agent:
            return await KubeAgent(options, again, tasks).start()

        return process.run_until_stopped(start)

    return run_and_again(once)


class KubeAgent(Follower[Agent]):
    """One agent and what it follows."""

    role_name = "agent"
    file_name = "agent-intent.json"

    def __init__(self, options: KubeOptions, again: Again, tasks: asyncio.TaskGroup) -> None:
        self.nodes: KnownNodes | None = None
        """In a mesh alone."""
        self._gateways = gateways_of(read_surroundings(options.host.fib))
        super().__init__(options, again, tasks)
        self.services = LocalServices(self.following, options.node, self.changed)
        self.drain = DrainWatch(self.following, options.node, self.changed)
        self.host = Host(options, self.following.client.sibling())
        self.child = ReflectorChild(options)
        self.state = NodeStateWriter(self.following.client.sibling(), options.node, "")

    async def start(self) -> Agent:
        """Run the agent, and beside it what the node needs besides routes."""
        self.tasks.create_task(self._learn_version())
        role = await super().start()
        for work in (self.host.keep(self._wanted), self.child.keep(), self._look_now_and_then(role)):
            role.run_in_background(work)
        self.state.start()
        return role

    def stop(self) -> None:
        super().stop()
        if self.role is not None and self.role.leaves_for_good:
            self.child.leave()
        flush = self.role is not None and self.role.flushes
        if flush:
            self.forget()
        self.host.close(flush=flush)
        self.state.stop(wait=0.0)

    # -- following (bgpd.kube.follower) -----------------------------------------------------------

    def follow(self, cluster: BgpCluster) -> None:
        """Only a mesh needs all Nodes, and only who announces Services needs those."""
        mesh = cluster.topology is Topology.MESH
        if mesh and self.nodes is None:
            self.nodes = KnownNodes(self.following, self.changed)
        elif not mesh and self.nodes is not None:
            self.nodes.drop()
            self.nodes = None
        node = self.tables.node
        if node is not None:
            self.services.look(cluster, node)

    @property
    def synced(self) -> bool:
        return self.tables.synced and (self.nodes is None or self.nodes.table.synced)

    @property
    def complete(self) -> bool:
        return self.synced and self.services.synced

    def shown(self) -> IntentStatus:
        return intent_status(
            self.following.news(),
            self.problems,
            waits=self.waits,
            readiness=self.host.readiness,
            drain=self.drain.plan,
            trouble=self.host.trouble(),
        )

    def node_host(self) -> NodeHost:
        reflector = NodeReflector(self.child.wanted, self.child.running)
        return node_host(self.host, self.drain.plan, reflector)

    def services_shown(self) -> ServicesShown:
        return ServicesShown(self.services.announcements, lambda: self.services.note)

    def pages(self) -> Mapping[str, Page]:
        return {reflector_metrics.PATH: ReflectorMetrics(self.child, self.options.reflector_config)}

    def intent(self) -> Intent | None:
        nodes = () if self.nodes is None else self.nodes.table.in_order()
        announcements = self.services.announcements
        drain = self.drain.look(self.tables.node, self.loop.time(), announcements.local_endpoints)
        announcements.drain_replaced(going=drain.graceful_shutdown, withdrawn=not drain.announce_services)
        facts = self.tables.facts(self._gateways, nodes, self.services.pools, drain)
        if facts is None:
            return None
        elected = is_elected(facts.cluster, facts.node)
        intent = replace(agent_intent(facts), services=self._services(drain), reflects=elected)
        return intent if self.nodes is None else self.nodes.told(intent, facts.cluster.pod_cidrs)

    def _services(self, drain: DrainPlan) -> tuple[OwnPath, ...]:
        """What is announced of Services; while those can't be read, what was announced before."""
        if self.services.synced or self._last is None:
            return tuple(self.services.announcements.announced.values())
        return self._last.services if drain.announce_services else ()

    def doubt(self) -> str:
        return super().doubt() or ("" if self.nodes is None else self.nodes.doubt)

    def without_node(self, config: Config) -> Config:
        return replace(config, agent=replace(config.agent, advertise=()))

    def make(self, intent: Intent) -> Agent:
        agent = Agent(intent.config, self.tasks)
        agent.announce_services(intent.services)
        agent.verify_against(intent.node_prefixes())
        self.child.want(wanted=intent.reflects)
        return agent

    def looked(self, role: Agent, intent: Intent) -> None:
        """Take what no configuration holds: Services, whose paths have to be whose, and the reflector."""
        role.announce_services(intent.services)
        cluster = self.tables.cluster
        if self.nodes is None or cluster is None:
            role.verify_against(None)
        else:
            self.nodes.on_touched = role.rejudge
            self.nodes.set_ranges(cluster.pod_cidrs)
            role.verify_against(self.nodes.prefixes)
        self.child.want(wanted=intent.reflects)
        self.host.poke()

    def _wanted(self) -> tuple[Agent, HostPlan] | None:
        """What the host should be like; None while that is not known."""
        role, cluster, node = self.role, self.tables.cluster, self.tables.node
        if role is None or cluster is None or not self.synced:
            return None
        if node is None:
            gone = Node(self.options.node, "", deleting=True)
            return role, HostPlan(gone, cluster, (), leaving=True)
        return role, HostPlan(
            node=node,
            cluster=cluster,
            own=own_prefixes(
                tuple(path.nlri for path in role.config.agent.advertise),
                node,
                in_use=self.host.readiness.can_forward or not self.drain.plan.announce_pods,
            ),
            services=self.services.limits.guarded() if self.services.announcements.announced else (),
            local_ports=self.services.announcements.local_ports,
            neighbours=next_hops(role) if cluster.pods.masquerade else (),
            pools=pool_prefixes(self.services.pools),
        )

    async def _look_now_and_then(self, role: Agent) -> None:
        """See what no event tells: the time, the default gateways; and say how the node is."""
        while True:
            gateways = gateways_of(role.fib.resolver)
            if gateways != self._gateways or self.drain.plan is not IN_SERVICE:
                self._gateways = gateways
                self.changed()
            node = self.tables.node
            if node is not None:
                if self.tables.cluster is not None:  # the more nodes, the more patient each of them is
                    self.state.cluster_has(self.tables.cluster.status.nodes)
                self.state.node_is(node.uid)
                news = self.following.news()
                self.state.offer(node_facts(role, node, self.host, news, self.problems, self.drain.plan))
            await asyncio.sleep(LOOK_EVERY)

    async def _learn_version(self) -> None:
        """Ask once which EndpointSlices the API server has; while it is away, the watches say so."""
        client = self.following.client
        while not client.closed:
            try:
                version = await asyncio.to_thread(resources.slice_version, client)
            except KubeError:
                await asyncio.sleep(LOOK_EVERY)
            else:
                self.services.learn_version(version)
                return


def own_prefixes(announced: tuple[Prefix, ...], node: Node, *, in_use: bool) -> tuple[Prefix, ...]:
    """Whence pods of this node have addresses: no new ones from a prefix that may not be announced, because
    another Node has it as well, or it is outside the cluster's; pods that are here (`in_use`) keep theirs."""
    return announced or (node.pod_cidrs if in_use else ())


def next_hops(role: Agent) -> tuple[Address, ...]:
    """The addresses that learned routes lead to: those of the other nodes, or of routers."""
    entries = {id(entry): entry for entry in role.fib.learned.actual.values()}.values()
    found = {hop.gateway for entry in entries for hop in entry.hops if hop.gateway is not None}
    return tuple(sorted(found))


def is_elected(cluster: BgpCluster, node: Node) -> bool:
    """Whether this node reflects."""
    if cluster.topology is not Topology.REFLECTOR or cluster.reflectors.mode is not ReflectorMode.ELECTED:
        return False
    return any(each.uid == node.uid for each in cluster.status.reflectors)
