"""What a node needs besides routes, step by step: packet filter, CNI configuration, and marks on its Node.

Owns the order.  A node takes pods when it can forward (`bgpd/node/readiness.py`): then the CNI configuration
is written, the kernel is read back, and only then the Node is marked usable.  What fails is tried again at
the next look, and never holds up routes: every step that may block runs in a worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog

from bgpd.agent import Agent
from bgpd.errors import KernelError
from bgpd.kube.client import KubeClient
from bgpd.kube.custom_values import BgpCluster, Topology
from bgpd.kube.errors import KubeError
from bgpd.kube.node_marks import NodeMarks, is_marked_ready
from bgpd.kube.objects import Node
from bgpd.kube.options import KubeOptions
from bgpd.node.cni import CniFile, PodNetwork
from bgpd.node.errors import HostError
from bgpd.node.nft import PacketFilter, Port, Rules
from bgpd.node.readiness import NOT_YET, PeerFacts, Readiness, ReadinessFacts, judge
from bgpd.node.uplink import read_uplink
from routes.prefix import Address, Prefix, host_prefix
from routes.view import HostWarning

log = structlog.get_logger()

T = TypeVar("T")

LOOK_EVERY = 0.5
"""Seconds between two looks while something is missing."""
LOOK_GAP = 0.2
"""The least between two looks, whatever changes."""
LOOK_AGAIN = 5.0
"""The same when all is in place."""
FILTER_EVERY = 60.0
"""Seconds after which the packet filter is looked at although nothing new is wanted of it."""
FILTER_REST = 20.0
"""How many times as long as it took to write the packet filter it then rests: thousands of Services take
tenths of a second, and may change all the time."""
FEW_PORTS, FEW_PORTS_REST = 1000, 0.5
"""So few are quick to write: that it took long was a busy machine's doing.  A new Service's connections must
not be refused because of that, so it rests no longer than these seconds."""
FAILURES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What the cluster wants of this host."""

    node: Node
    cluster: BgpCluster
    own: tuple[Prefix, ...]
    """Pod prefixes that are announced."""
    services: tuple[Prefix, ...] = ()
    """Where service addresses lie, where any is announced."""
    local_ports: tuple[Port, ...] = ()
    """Of Services that deliver only to this node's endpoints."""
    pools: tuple[Prefix, ...] = ()
    neighbours: tuple[Address, ...] = ()
    """Other nodes, by their addresses, as far as they are known: pods reach them untranslated."""
    leaving: bool = False


class Host:
    """One node's set-up."""

    def __init__(self, options: KubeOptions, client: KubeClient) -> None:
        self.readiness: Readiness = NOT_YET
        self.errors: dict[str, str] = {}
        """What the host or the API server refused, by what was tried."""
        self.rivals: tuple[HostWarning, ...] = ()
        self._client = client
        self._options = options
        self._cni = CniFile(options.cni_folder)
        self._filter = PacketFilter()
        self._wired: PodNetwork | None = None
        self._rules: Rules | None = None
        self._look_at_filter = 0.0
        self._filter_rests = 0.0
        """Until when the packet filter is not written again."""
        self._filter_waits = False
        self._worker = ThreadPoolExecutor(1, "host")
        self._marking = ThreadPoolExecutor(1, "node marks")
        self._marked = 0.0
        self._poked = asyncio.Event()

    def trouble(self) -> list[str]:
        """What could not be set up, and what is in the way, each in a sentence."""
        found = [f"{what}: {why}" for what, why in sorted(self.errors.items())]
        return found + [f"{warning.subject} ({warning.value})" for warning in self.rivals]

    @property
    def wired(self) -> bool:
        """Whether the CNI configuration is written."""
        return self._wired is not None

    @property
    def cni_file(self) -> str:
        """Where it is written."""
        return str(self._cni.path)

    def poke(self) -> None:
        """Look now."""
        self._poked.set()

    def close(self, *, flush: bool = False) -> None:
        """Leave everything as it is: pods go on while the agent is away.  With `flush` leave nothing; the
        process does not end before that is done."""
        self._client.close()
        if flush:
            self._worker.submit(self._remove_all)
        self._worker.shutdown(wait=False, cancel_futures=not flush)
        self._marking.shutdown(wait=False, cancel_futures=True)

    def _remove_all(self) -> None:
        for what, remove in (("CNI configuration", self._cni.remove), ("packet filter", self._filter.remove)):
            try:
                if remove():
                    log.info("removed", what=what)
            except HostError as error:
                log.warning("not removed", what=what, reason=str(error))

    async def keep(self, wanted: Callable[[], tuple[Agent, HostPlan] | None]) -> None:
        """Keep the host as it is wanted."""
        while True:
            self._poked.clear()  # before what is wanted is read: whatever changes later is looked at again
            found = wanted()
            if found is not None:
                await self._look(*found)
            settled = self.readiness.ready and not self.errors and not self._filter_waits
            await asyncio.sleep(LOOK_GAP)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN if settled else LOOK_EVERY):
                    await self._poked.wait()

    async def _look(self, agent: Agent, wanted: HostPlan) -> None:
        await self._try("packet filter", lambda: self._apply_filter(wanted))
        before = self.readiness
        self.readiness = judge(self._facts(agent, wanted), before)
        if wanted.leaving:
            await self._try("CNI configuration", self._cni.remove)
            self._wired = None
        elif self.readiness.can_forward:
            await self._try("CNI configuration", lambda: self._wire(wanted))
            if not agent.fib.verified:
                agent.fib.verify()
        if self.readiness.ready and not before.ready:
            log.info("the node is ready for pods", after=round(time.time() - agent.facts.started, 3))
        elif self.readiness.reasons != before.reasons and self.readiness.reasons and not before.ready:
            log.info("the node is not ready for pods yet", reasons=self.readiness.reasons)
        if self.readiness.ready and not is_marked_ready(wanted.node):
            self._mark(wanted)

    async def _try(self, what: str, work: Callable[[], object]) -> None:
        """Do something that may block; what the host says against it is kept, and logged once."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, work)
        except (HostError, KernelError) as error:
            if self.errors.get(what) != str(error):
                log.warning("the host could not be set up", what=what, reason=str(error))
            self.errors[what] = str(error)
        else:
            self.errors.pop(what, None)

    # -- the packet filter and the CNI configuration (in the worker) ------------------------------

    def _apply_filter(self, wanted: HostPlan) -> None:
        cluster = wanted.cluster
        inside = (*cluster.pod_cidrs, *cluster.service_cidrs, *wanted.pools)
        hosts = (*wanted.node.addresses, *wanted.neighbours)
        rules = Rules(
            pod_prefixes=wanted.own,
            cluster=(*inside, *map(host_prefix, hosts)),
            masquerade=cluster.pods.masquerade,
            services=wanted.services,
            local_ports=wanted.local_ports,
        )
        now = time.monotonic()
        if rules == self._rules and now < self._look_at_filter:
            return
        self._filter_waits = rules != self._rules and now < self._filter_rests
        if self._filter_waits:
            return
        try:
            if self._filter.apply(rules):
                log.info("packet filter set", masquerade=rules.masquerade, services=len(rules.services))
        finally:
            done = time.monotonic()
            most = FILTER_EVERY if len(wanted.local_ports) > FEW_PORTS else FEW_PORTS_REST
            self._filter_rests = done + min(FILTER_REST * (done - now), most)
        self._rules, self._look_at_filter = rules, now + FILTER_EVERY

    def _wire(self, wanted: HostPlan) -> None:
        pods = wanted.cluster.pods
        mtu = pods.mtu or read_uplink(wanted.node.addresses, wanted.own).mtu
        network = PodNetwork(
            prefixes=wanted.own,
            mtu=mtu,
            interface=pods.interface,
            host_ports=pods.host_ports,
            bandwidth=pods.bandwidth,
            data_folder=self._options.cni_data_folder,
        )
        if self._cni.write(network):
            log.info("CNI configuration written", file=str(self._cni.path), mtu=mtu)
        self._wired = network
        self.rivals = self._cni.rivals()

    # -- readiness --------------------------------------------------------------------------------

    def _facts(self, agent: Agent, wanted: HostPlan) -> ReadinessFacts:
        settings = wanted.cluster.readiness
        failures = [f"{nlri}: {why}" for fib in (agent.fib.own, agent.fib.learned) for nlri, why in
                    list(fib.blocked().items())[:FAILURES_SHOWN]]  # fmt: skip
        return ReadinessFacts(
            own_prefixes=len(wanted.own),
            peers=tuple(peer_facts(agent)) or missing_peers(wanted.cluster),
            quorum=settings.peers,
            settle_time=settings.settle_time,
            fib_pending=0 if agent.fib.idle else 1,
            fib_failures=tuple(failures),
            kernel_verified=agent.fib.verified,
            cni_written=self.wired,
            leaving=wanted.leaving,
        )

    # -- the marks on the Node --------------------------------------------------------------------

    def _mark(self, wanted: HostPlan) -> None:
        """Say on the Node that its network is there, without waiting for the API server."""
        now = time.monotonic()
        if now < self._marked:
            return
        self._marked = now + LOOK_AGAIN
        self._marking.submit(self._mark_now, wanted.node.name)

    def _mark_now(self, name: str) -> None:
        try:
            NodeMarks(self._client, name).ready("podbgp: routes are in the kernel, and read back")
        except KubeError as error:
            log.warning("the Node could not be marked as ready", reason=str(error))


def peer_facts(agent: Agent) -> list[PeerFacts]:
    """What matters of every peer that there should be."""
    now = time.time()
    found = []
    for name, state in agent.daemon.peers.items():
        if state.config.shutdown:
            continue
        negotiated = state.negotiated
        up = negotiated is not None
        families = negotiated.families if negotiated is not None else frozenset()
        since = state.session.status(now).since if up else now
        found.append(
            PeerFacts(
                name=name,
                established=up,
                established_for=max(0.0, now - since),
                own_written=up and not state.session.pending_output,
                graceful_restart=negotiated is not None and negotiated.graceful_restart is not None,
                end_of_rib=up and families <= agent.daemon.rib.end_of_rib_received(name),
            )
        )
    return found


def missing_peers(cluster: BgpCluster) -> tuple[PeerFacts, ...]:
    """Whom a node without any peer waits for: only a mesh may consist of one node."""
    who = {
        Topology.REFLECTOR: "a reflector (BGPCluster.status.reflectors is empty: does the controller run?)",
        Topology.FABRIC: "a router (no BGPPeer is for this node)",
    }.get(cluster.topology)
    return () if who is None else (PeerFacts(who, False, 0.0, False, False, False),)
