"""The agent role: this node's prefixes out, the other nodes' routes in, and into the kernel.

Wiring and life cycle only: start in an order that loses no packet (adopt the kernel's entries before the
first session), reload on SIGHUP, and the ways to stop.  SIGTERM and SIGINT are for a restart: entries
stay, and peers with graceful restart hear nothing.  `podbgp shutdown` leaves for good.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass

import structlog

from api.listen import ListenError
from api.server import ApiServer
from bgpd import config_file
from bgpd.agent_view import AgentView, Facts
from bgpd.announce import OwnPrefixes
from bgpd.bgp.message import Notification
from bgpd.bgp.notifications import Cease, cease
from bgpd.config import Config
from bgpd.config_table import InvalidConfigError
from bgpd.daemon import Daemon, repeated
from bgpd.errors import ConfigError, KernelError, PodbgpError
from bgpd.fib_sync import FibSync
from bgpd.gc_policy import GcPolicy
from bgpd.kernel.host_checks import check_host
from bgpd.kernel.netlink import Flushed, Kernel
from bgpd.log import configure, log_problems
from bgpd.meters import Meters, measure_loop_lag
from bgpd.metrics_server import MetricsServer
from bgpd.reload import plan_reload
from routes.convergence import InitialConvergence
from routes.own_next_hop import ConfiguredNextHops
from routes.policy import ImportPolicy, PeerImport
from routes.prefix import Address, Family, format_router_id
from routes.rib import Rib
from routes.view import ShutdownReport

log = structlog.get_logger()

CHECK_HOST_EVERY = 60.0
SETTLED = 3.0
"""Seconds between looks at whether the garbage collector should run."""


def run(config: Config) -> int:
    """Run an agent until it is told to stop; the exit code."""
    code = 0
    try:
        asyncio.run(_main(config))
    except* PodbgpError as group:
        code = 1
        for error in group.exceptions:
            log.critical("the agent can't run", reason=str(error))
    return code


async def _main(config: Config) -> None:
    async with asyncio.TaskGroup() as tasks:
        agent = Agent(config, tasks)
        await agent.start()
        await agent.stopped.wait()
        await agent.finish()


def import_policy(config: Config, own_addresses: frozenset[Address]) -> ImportPolicy:
    """The import rules of a configuration, on a node with these addresses."""
    peers = {
        peer.name: PeerImport(peer.allowas_in, peer.enforce_first_as, peer.max_prefixes)
        for peer in config.peers
    }
    return ImportPolicy(
        asn=config.speaker.asn,
        router_id=config.speaker.router_id,
        allow=config.imports.allow,
        own_prefixes=config.agent.advertise,
        own_addresses=own_addresses,
        peers=peers,
    )


def _own_next_hops(config: Config) -> ConfiguredNextHops:
    return ConfiguredNextHops(config.agent.next_hop_ipv4, config.agent.next_hop_ipv6)


@dataclass(frozen=True, slots=True)
class _Leaving:
    """How the agent was told to stop."""

    notification: Notification | None
    """None: for a restart; peers with graceful restart hear nothing."""
    flush: bool = False


class Agent:
    """One agent, from `start` to `finish`."""

    def __init__(self, config: Config, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        fib = config.fib
        self.config = config
        self.stopped = asyncio.Event()
        self._loop = loop
        self._tasks = tasks
        self._background: list[asyncio.Task[None]] = []
        self._meters = Meters()
        self._facts = Facts(time.time())
        self._kernel = Kernel(fib.table, fib.protocol, (fib.metric, fib.unreachable_metric))
        self.fib = FibSync(self._kernel, fib, self._meters)
        self._rib = Rib(import_policy(config, frozenset()), fib.multipath)
        names = [peer.name for peer in config.peers if not peer.shutdown]
        self._convergence = InitialConvergence(names, loop.time(), fib.hold_time, fib.deferral_time)
        self.out = OwnPrefixes(self.fib, _own_next_hops(config))
        self.daemon = Daemon(
            config, self._rib, self.fib, self.out, self.fib.interface_of, self._convergence, tasks
        )
        self.view = AgentView(self.daemon, self.fib, self.out, self._facts, self._request_shutdown)
        self._api = ApiServer(self.view, config.api_listen)
        self._metrics: MetricsServer | None = None
        self._leaving = _Leaving(None)
        self._left: asyncio.Future[ShutdownReport] = loop.create_future()
        self._gc = GcPolicy()

    # -- starting ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Adopt, listen, connect; a PodbgpError says what stands in the way."""
        self._connect_parts()
        deferral = self._loop.time() + self.config.fib.deferral_time
        found = self.fib.start(deferral)
        self.daemon.found = found
        self._rib.set_policy(import_policy(self.config, self.fib.own_addresses))
        self._rib.set_resolver(self.fib.cost, self.fib.why_unresolved)
        self._originate()
        await self._serve()
        self.daemon.listener.start()
        for peer in self.config.peers:
            self.daemon.add_peer(peer)
        self._check_convergence()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.leave, _Leaving(None))
        self._loop.add_signal_handler(signal.SIGHUP, self.reload)
        self._background += [
            self._tasks.create_task(measure_loop_lag(self._meters.loop_lag)),
            self._tasks.create_task(self._watch_host()),
            self._tasks.create_task(self._collect_garbage()),
        ]
        adopted = [str(family) for family in sorted(found)]
        log.info("agent started", router_id=format_router_id(self.config.speaker.router_id), adopted=adopted)

    def _originate(self) -> None:
        """Have the configured prefixes in the RIB, in the kernel and with the peers."""
        own = self.config.agent.advertise
        self._rib.originate(own)
        self.fib.originate(own)
        self.out.originate(own)
        self.daemon.plan_flush()

    def _connect_parts(self) -> None:
        self.fib.on_next_hops = self._next_hops_changed
        self.fib.on_addresses = self._addresses_changed
        self.fib.on_changed = self.view.fib_changed
        self.fib.watched = self.view.fib_watched
        self.daemon.watchers = self.view
        self.out.on_advertised = self.view.advertised
        self.daemon.on_convergence = self._check_convergence

    async def _serve(self) -> None:
        """Open the API and the metrics."""
        try:
            await self._api.start()
        except ListenError as error:
            raise ConfigError(f"{self.config.path}: api.listen: {error}") from None
        endpoint = self.config.metrics_listen
        if endpoint is not None:
            from bgpd.metrics import exposition, registry_of  # noqa: PLC0415  3 MB that few agents need

            registry = registry_of(self.view, self._meters)
            self._metrics = MetricsServer(lambda: exposition(registry), self.view.unhealthy)
            try:
                await self._metrics.start(endpoint)
            except OSError as error:
                raise ConfigError(f"{self.config.path}: metrics.listen: {error.strerror}") from None

    def _next_hops_changed(self, next_hops: set[Address] | None) -> None:
        self._rib.next_hops_changed(next_hops)
        self.daemon.plan_flush()

    def _addresses_changed(self) -> None:
        self._rib.set_policy(import_policy(self.config, self.fib.own_addresses))
        self.out.addresses_changed()
        self.daemon.plan_flush()

    def _check_convergence(self) -> None:
        """Release what was adopted once the initial convergence has ended for a while."""
        release = self._convergence.release_at()
        self.fib.release_held(release)
        self._facts.held_until = time.time() + release - self._loop.time()
        if not self._convergence.waiting_for and not self._facts.converged_at:
            self._facts.converged_at = time.time()
            log.info("initial convergence complete", seconds=round(time.time() - self._facts.started, 3))
            self._tasks.create_task(self._api.set_converged(True))

    # -- in the background ------------------------------------------------------------------------

    async def _watch_host(self) -> None:
        """Look at the host's settings now and then, and log what is new."""
        while True:
            warnings = tuple(check_host(self.fib.usage()))
            for warning in warnings:
                if warning not in self._facts.warnings:
                    log.warning(
                        "host setting", subject=warning.subject, value=warning.value, advice=warning.advice
                    )
            self._facts.warnings = warnings
            await asyncio.sleep(CHECK_HOST_EVERY)

    async def _collect_garbage(self) -> None:
        while True:
            await asyncio.sleep(SETTLED)
            repeated.flush()
            if self.fib.idle:
                self._gc.settled(sum(len(self._rib.loc_rib(family).holders) for family in Family))

    # -- reloading --------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again (SIGHUP); an invalid one changes nothing."""
        try:
            new = config_file.load(self.config.path)
            plan = plan_reload(self.config, new)
        except ConfigError as error:
            self._meters.reloaded(ok=False)
            self._facts.config_error = str(error)
            log.warning("configuration not taken: the old one stays in use", reason=str(error))
            if isinstance(error, InvalidConfigError):
                log_problems("error", error.problems)
            return
        old, self.config, self.daemon.config = self.config, new, new
        self._facts.config_error = ""
        self._meters.reloaded(ok=True)
        configure(new.log_level, new.log_format)
        log_problems("warning", new.warnings)
        self._rib.set_policy(import_policy(new, self.fib.own_addresses))
        self.out.configured = _own_next_hops(new)
        self._originate()
        if new.fib != old.fib:
            self._rib.set_multipath(new.fib.multipath)
            self.fib.options_changed(new.fib)
        for name in plan.removed:
            self.daemon.remove_peer(name)
        for peer in plan.changed:
            self.daemon.change_peer(peer)
        for peer in plan.added:
            self.daemon.add_peer(peer)
        if new.agent != old.agent:
            self.out.addresses_changed()
        self.daemon.plan_flush()
        log.info(
            "configuration taken",
            added=[peer.name for peer in plan.added],
            changed=[peer.name for peer in plan.changed],
            removed=plan.removed,
        )

    # -- leaving ----------------------------------------------------------------------------------

    def leave(self, how: _Leaving) -> None:
        """Stop; the first call decides how."""
        if not self.stopped.is_set():
            self._leaving = how
            self.stopped.set()

    async def _request_shutdown(self, flush: bool, message: str) -> ShutdownReport:
        """`podbgp shutdown`: leave for good, and answer when that is done."""
        self.leave(_Leaving(cease(Cease.ADMIN_SHUTDOWN, message), flush))
        return await asyncio.shield(self._left)

    async def finish(self) -> None:
        """Close the sessions as told, leave or flush the kernel's entries, answer, and stop serving."""
        log.info("agent stops", flush=self._leaving.flush)
        for task in self._background:
            task.cancel()
        self.fib.freeze()  # what closing sessions withdraw must stay in the kernel
        entries = sum(len(fib.actual) for fib in (self.fib.learned, self.fib.own))
        self.daemon.listener.close()
        sessions = [state.session for state in self.daemon.peers.values()]
        closed = sum(state.negotiated is not None for state in self.daemon.peers.values())
        async with asyncio.TaskGroup() as closing:
            for session in sessions:
                if self._leaving.notification is None:
                    closing.create_task(session.close_quietly())
                else:
                    closing.create_task(session.stop(self._leaving.notification))
        report = ShutdownReport(closed, 0, entries)
        try:
            flushed: Flushed | None = await self.fib.stop(flush=self._leaving.flush)
            if flushed is not None:
                report = ShutdownReport(closed, flushed.removed, flushed.left, flushed.errors)
        except KernelError as error:
            report = report._replace(errors=(str(error),))
        self._left.set_result(report)
        self.view.close()
        await self._api.stop()
        if self._metrics is not None:
            await self._metrics.close()
