"""A reflector whose clients are the cluster's Nodes: who they are, what they may announce, and the fabric.

Wiring only.  A reflector is the one that knows all Nodes, so it is here that a path has to be its Node's
(`routes/node_prefixes.py`), and here that a Node's deletion withdraws its prefixes everywhere.
"""

from __future__ import annotations

import asyncio
import os
import sys

import structlog

from bgpd import process
from bgpd.bgp.notifications import Cease, cease
from bgpd.config import Config
from bgpd.errors import KernelError
from bgpd.kube import resources
from bgpd.kube.custom_values import BgpCluster, Speakers
from bgpd.kube.follower import Follower
from bgpd.kube.gateways import gateways_of, read_surroundings
from bgpd.kube.intent import ClusterFacts, Gateway, Intent, client_addresses, reflector_intent
from bgpd.kube.known_nodes import KnownNodes
from bgpd.kube.options import KubeOptions
from bgpd.kube.reflector_child import LEAVE
from bgpd.kube.restart import Again, run_and_again
from bgpd.process import Leaving
from bgpd.reflector import Reflector
from routes.path import PeerName
from routes.prefix import Family, format_address

log = structlog.get_logger()


def run(options: KubeOptions) -> int:
    """Run a reflector until it is told to stop; the exit code."""

    def once(again: Again) -> int:
        async def start(tasks: asyncio.TaskGroup) -> Reflector:
            reflector = KubeReflector(options, again, tasks)
            if options.with_parent:
                _follow_parent(reflector)
            return await reflector.start()

        return process.run_until_stopped(start)

    return run_and_again(once)


def _follow_parent(reflector: KubeReflector) -> None:
    """End as the agent says, or with it (`reflector_child.py`), also before there was an intent."""

    def heard() -> None:
        said = os.read(sys.stdin.fileno(), 64)
        gone = said.startswith(LEAVE)
        reflector.loop.remove_reader(sys.stdin.fileno())
        reflector.leave(Leaving(cease(Cease.ADMIN_SHUTDOWN, "this node reflects no more") if gone else None))

    reflector.loop.add_reader(sys.stdin.fileno(), heard)


class KubeReflector(Follower[Reflector]):
    """One reflector and what it follows."""

    role_name = "reflector"
    file_name = "reflector-intent.json"

    def __init__(self, options: KubeOptions, again: Again, tasks: asyncio.TaskGroup) -> None:
        self._gateways: dict[Family, Gateway] | None = None
        """None: nobody asked for them yet."""
        super().__init__(options, again, tasks)
        self.nodes = KnownNodes(self.following, self.changed)
        self.pools = self.following.follow(resources.POOLS, lambda _: self.changed())

    def follow(self, cluster: BgpCluster) -> None:
        """It follows everything from the start."""

    @property
    def synced(self) -> bool:
        return self.tables.synced and self.nodes.table.synced and self.pools.synced

    def _facts(self) -> ClusterFacts | None:
        gateways = self._default_gateways()
        return self.tables.facts(gateways, self.nodes.table.in_order(), self.pools.in_order())

    def _default_gateways(self) -> dict[Family, Gateway]:
        """Read once, when a peer needs them."""
        wanted = any(
            p.gateway and p.speakers is Speakers.REFLECTORS for p in self.tables.peers.values.values()
        )
        if self._gateways is None and wanted:
            try:
                self._gateways = gateways_of(read_surroundings(self.options.host.fib))
            except KernelError as error:
                log.warning("the default gateways can't be read", reason=str(error))
        return self._gateways or {}

    def intent(self) -> Intent | None:
        facts = self._facts()
        return None if facts is None else self.nodes.told(reflector_intent(facts), facts.cluster.pod_cidrs)

    def doubt(self) -> str:
        return super().doubt() or self.nodes.doubt

    def without_node(self, config: Config) -> Config:
        """Others decide whether it is a reflector still; until then it serves its clients."""
        return config

    def make(self, intent: Intent) -> Reflector:
        facts = self._facts() if self.synced else None
        expected = None
        if facts is not None:
            found = client_addresses(facts)
            expected = frozenset(PeerName(format_address(address)) for address in found)
        return Reflector(intent.config, self.tasks, nodes=intent.node_prefixes(), expected=expected)

    def looked(self, role: Reflector, intent: Intent) -> None:  # noqa: ARG002  the configuration holds it all
        cluster = self.tables.cluster
        self.nodes.on_touched = role.rejudge
        if cluster is not None:
            self.nodes.set_ranges(cluster.pod_cidrs)
        role.verify_against(self.nodes.prefixes)
