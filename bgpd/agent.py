"""The agent role: this node's prefixes out, the other nodes' routes in, and into the kernel.

Wiring only.  It starts in an order that loses no packet: what is in the kernel is adopted before the first
session, and stays until the peers have sent their tables (`routes.convergence`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import structlog

from bgpd import process
from bgpd.agent_view import AgentView
from bgpd.announce import OwnPrefixes
from bgpd.config import Config, wrong_role
from bgpd.daemon import Daemon
from bgpd.errors import ConfigError, KernelError
from bgpd.fib_sync import FibSync
from bgpd.kernel.host_checks import check_host
from bgpd.kernel.netlink import Kernel
from bgpd.reload import Reload
from bgpd.view import Facts
from routes.convergence import InitialConvergence
from routes.node_prefixes import NodePrefixes
from routes.own_next_hop import ConfiguredNextHops
from routes.own_path import OwnPath
from routes.path import PeerName
from routes.policy import ImportPolicy, PeerImport
from routes.prefix import Address, Prefix, format_router_id
from routes.rib import Rib
from routes.route_policy import Policies
from routes.view import ShutdownReport

log = structlog.get_logger()

CHECK_HOST_EVERY = 60.0


def run(config: Config) -> int:
    """Run an agent until it is told to stop; the exit code."""
    if fault := wrong_role(config, "agent"):
        raise ConfigError(fault)
    return process.run(config, Agent)


def import_policy(
    config: Config, own_addresses: frozenset[Address], nodes: NodePrefixes | None = None
) -> ImportPolicy:
    """The import rules of a configuration, on a node with these addresses that may know other nodes."""
    peers = {
        peer.name: PeerImport(
            peer.allowas_in,
            peer.enforce_first_as,
            peer.max_prefixes,
            policies=config.named_policies(peer.import_policies),
        )
        for peer in config.peers
    }
    return ImportPolicy(
        asn=config.speaker.asn,
        router_id=config.speaker.router_id,
        allow=config.imports.allow,
        own_paths=config.agent.advertise,
        own_addresses=own_addresses,
        peers=peers,
        nodes=nodes,
    )


def export_policies(config: Config) -> dict[PeerName, Policies]:
    """The policies for what each peer is told, of those that have any."""
    return {
        peer.name: config.named_policies(peer.export_policies)
        for peer in config.peers
        if peer.export_policies
    }


def _own_next_hops(config: Config) -> ConfiguredNextHops:
    return ConfiguredNextHops(config.agent.next_hop_ipv4, config.agent.next_hop_ipv6)


class Agent(process.Role):
    """One agent, from `start` to `finish`."""

    def __init__(self, config: Config, tasks: asyncio.TaskGroup) -> None:
        super().__init__(config, tasks)
        fib = config.fib
        self.facts = Facts(time.time())
        kernel = Kernel(fib.table, fib.protocol, (fib.metric, fib.unreachable_metric))
        self.fib = FibSync(kernel, fib, self.meters)
        self.out = OwnPrefixes(self.fib, _own_next_hops(config))
        self._rib = Rib(import_policy(config, frozenset()), fib.multipath)
        names = [peer.name for peer in config.peers if not peer.shutdown]
        self._convergence = InitialConvergence(names, self.loop.time(), fib.hold_time, fib.deferral_time)
        self.daemon = Daemon(
            config, self._rib, self.fib, self.out, self.fib.interface_of, self._convergence, tasks
        )
        self.view = AgentView(self.daemon, self.fib, self.out, self.facts, self.request_shutdown)
        self._nodes: NodePrefixes | None = None
        self._services: tuple[OwnPath, ...] = ()
        self._started = False

    # -- starting ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve, adopt, listen, connect; a PodbgpError says what stands in the way."""
        self._connect_parts()
        await self.serve()  # first: where another agent has the socket, the kernel's entries are its own
        found = self.fib.start(self.loop.time() + self.config.fib.deferral_time)
        self.daemon.found = found
        self._set_policy()
        self._rib.set_resolver(self.fib.cost, self.fib.why_unresolved)
        self._started = True
        self._originate()
        self.daemon.listener.start()
        for peer in self.config.peers:
            self.daemon.add_peer(peer)
        self._check_convergence()
        self.run_in_background(self._watch_host())
        adopted = [str(family) for family in sorted(found)]
        log.info("agent started", router_id=format_router_id(self.config.speaker.router_id), adopted=adopted)

    def _connect_parts(self) -> None:
        self.fib.on_next_hops = self._next_hops_changed
        self.fib.on_addresses = self._addresses_changed
        self.fib.on_changed = self.view.fib_changed
        self.fib.watched = self.view.fib_watched
        self.daemon.watchers = self.view
        self.out.on_advertised = self.view.advertised
        self.daemon.on_convergence = self._check_convergence

    def _originate(self) -> None:
        """Have the configured prefixes in the RIB, in the kernel and with the peers."""
        pods = self.config.agent.advertise
        own = (*pods, *self._services)
        self._rib.originate(own)
        self.fib.originate(pods)  # a service address has no entry, and there may be thousands of them
        self.out.policies = export_policies(self.config)
        self.out.drain(self.config.agent.drain)
        self.out.originate(own)
        self.daemon.plan_flush()

    def _next_hops_changed(self, next_hops: set[Address] | None) -> None:
        self._rib.next_hops_changed(next_hops)
        self.daemon.plan_flush()

    def _set_policy(self) -> None:
        self._rib.set_policy(import_policy(self.config, self.fib.own_addresses, self._nodes))

    def _addresses_changed(self) -> None:
        self._set_policy()
        self.out.addresses_changed()
        self.daemon.plan_flush()

    def _check_convergence(self) -> None:
        """Release what was adopted once the initial convergence has ended for a while."""
        release = self._convergence.release_at()
        self.fib.release_held(release)
        self.facts.held_until = time.time() + release - self.loop.time() if self.fib.learned.held else 0.0
        if not self._convergence.waiting_for and not self.facts.converged_at:
            self.facts.converged_at = time.time()
            log.info("initial convergence complete", seconds=round(time.time() - self.facts.started, 3))
            self.converged()

    async def _watch_host(self) -> None:
        """Look at the host's settings now and then, and log what is new."""
        while True:
            warnings = tuple(check_host(self.fib.usage()))
            for warning in warnings:
                if warning not in self.facts.warnings:
                    log.warning(
                        "host setting", subject=warning.subject, value=warning.value, advice=warning.advice
                    )
            self.facts.warnings = warnings
            await asyncio.sleep(CHECK_HOST_EVERY)

    # -- the rest of its life ---------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing is to be applied to the kernel."""
        return self.fib.idle

    @property
    def unhealthy(self) -> str:
        """Why the kernel can't be changed."""
        return self.fib.error

    def take(self, old: Config, plan: Reload) -> None:  # noqa: ARG002  peers are the caller's
        """Take a changed configuration."""
        new = self.config
        if (old.imports, old.peers, old.policies) != (new.imports, new.peers, new.policies):
            self._set_policy()
        self.out.configured = _own_next_hops(new)
        self._originate()
        if new.fib != old.fib:
            self._rib.set_multipath(new.fib.multipath)
            self.fib.options_changed(new.fib)
        if new.agent != old.agent:
            self.out.addresses_changed()

    def announce_services(self, paths: Iterable[OwnPath]) -> None:
        """Announce exactly these beside the configured prefixes; before `start` they wait for it."""
        before, self._services = self._services, tuple(paths)
        if before != self._services and self._started:
            self._originate()

    def verify_against(self, nodes: NodePrefixes | None) -> None:
        """Hold other nodes' paths against what they may announce; None: that is not known."""
        before, self._nodes = self._nodes, nodes
        if nodes is not before and self._started:
            self._set_policy()
            self.daemon.plan_flush()

    def rejudge(self, prefixes: Iterable[Prefix]) -> None:
        """Nodes changed: judge the paths of these prefixes again, and hold nothing of a node that is gone."""
        self._rib.rejudge(prefixes)
        if self._nodes is not None and self.fib.learned.held:
            self.fib.drop_held(self._nodes.orphans(self.fib.learned.held_prefixes()))
        self.daemon.plan_flush()

    def freeze(self) -> None:
        """What closing sessions withdraw must stay in the kernel."""
        self.fib.freeze()

    async def release(self, *, flush: bool, closed: int) -> ShutdownReport:
        """Leave or flush the kernel's entries."""
        entries = sum(len(fib.actual) for fib in (self.fib.learned, self.fib.own))
        try:
            flushed = await self.fib.stop(flush=flush)
        except KernelError as error:
            return ShutdownReport(closed, 0, entries, (str(error),))
        if flushed is None:
            return ShutdownReport(closed, 0, entries)
        return ShutdownReport(closed, flushed.removed, flushed.left, flushed.errors)
