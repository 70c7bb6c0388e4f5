"""What every role's process has in common: API, metrics, signals, reload, and the ways to stop.

A role wires the parts that do its work and says what is particular (`Role`).  SIGTERM and SIGINT are for a
restart: peers with graceful restart hear nothing.  `podbgp shutdown` leaves for good.  SIGHUP reads the
configuration again, and an invalid one changes nothing.
"""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass

import structlog

from api.listen import ListenError
from api.server import ApiServer
from bgpd import config_file
from bgpd.bgp.message import Notification
from bgpd.bgp.notifications import Cease, cease
from bgpd.config import Config
from bgpd.config_table import InvalidConfigError
from bgpd.daemon import Daemon, repeated
from bgpd.errors import ConfigError, PodbgpError
from bgpd.event_loop import EventLoop
from bgpd.faults import crash_on_our_faults
from bgpd.gc_policy import GcPolicy
from bgpd.log import configure, log_problems
from bgpd.meters import Meters, measure_loop_lag
from bgpd.metrics_server import MetricsServer
from bgpd.reload import Reload, plan_reload
from bgpd.view import Facts, RoleView
from routes.node_view import NodeHost
from routes.path import PeerName
from routes.prefix import Family
from routes.view import ShutdownReport

log = structlog.get_logger()

NAMED = 5
"""So many peers are named in a sentence."""
SETTLED = 3.0
"""Seconds between looks at whether the garbage collector should run."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """How the process was told to stop."""

    notification: Notification | None
    """None: for a restart; peers with graceful restart hear nothing."""
    flush: bool = False


class StoppedEarlyError(Exception):
    """The process was told to stop before its role had started."""


class Role(ABC):
    """One daemon, from `start` to `finish`."""

    daemon: Daemon
    view: RoleView
    facts: Facts

    def __init__(self, config: Config, tasks: asyncio.TaskGroup) -> None:
        self.config = config
        self.stopped = asyncio.Event()
        self.meters = Meters()
        self.tasks = tasks
        self.loop = asyncio.get_running_loop()
        self._background: list[asyncio.Task[None]] = []
        self._api: ApiServer | None = None
        self._metrics: MetricsServer | None = None
        self._leaving = Leaving(None)
        self._left: asyncio.Future[ShutdownReport] = self.loop.create_future()
        self._gc = GcPolicy()
        self.on_hangup: Callable[[], object] = self.reload
        """Called at SIGHUP."""
        self.on_stop: Callable[[], object] = lambda: None
        """Called when the daemon begins to stop."""

    # -- what a role is ---------------------------------------------------------------------------

    @abstractmethod
    async def start(self) -> None:
        """Begin; a PodbgpError says what stands in the way."""

    @abstractmethod
    def take(self, old: Config, plan: Reload) -> None:
        """Take `self.config`, which replaced `old`; peers follow after."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether nothing is under way."""

    @property
    def unhealthy(self) -> str:
        """Why the daemon can't do its work, in a sentence; empty when it can."""
        return ""

    @property
    def unready(self) -> str:
        """Why nobody should count on the daemon yet, in a sentence; empty when all may."""
        follows = self.facts.follows
        host = None if follows is None else follows.node_host()
        waiting = () if self.facts.converged_at else self.daemon.convergence.waiting_for
        return why_unready(host, waiting, converged=bool(self.facts.converged_at))

    @abstractmethod
    def freeze(self) -> None:
        """The end begins: what closing sessions withdraw must have no effect outside."""

    @abstractmethod
    async def release(self, *, flush: bool, closed: int) -> ShutdownReport:
        """Let go of everything, `closed` sessions being closed; with `flush` remove what is ours."""

    # -- starting ---------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Open the API and the metrics, and listen for signals."""
        self._api = ApiServer(self.view, self.config.api_listen)
        await listen(self._api, self.config)
        await self._serve_metrics()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.leave, Leaving(None))
        self.loop.add_signal_handler(signal.SIGHUP, self.on_hangup)
        self.run_in_background(measure_loop_lag(self.meters.loop_lag))
        self.run_in_background(self._tidy())

    def take_listener(self, metrics: MetricsServer | None) -> None:
        """Before `start`: serve metrics at what listens already."""
        self._metrics = metrics

    async def _serve_metrics(self) -> None:
        endpoint = self.config.metrics_listen
        if self._metrics is not None and self._metrics.endpoint != endpoint:
            await self._metrics.close()
            self._metrics = None
        if endpoint is None:
            return
        from bgpd.metrics import Metrics  # noqa: PLC0415  3 MB that many do without

        metrics = Metrics(self.view, self.meters)
        answers = (metrics.exposition, lambda: self.unhealthy, lambda: self.unready)
        if self._metrics is not None:
            self._metrics.answer_with(*answers)
            return
        self._metrics = MetricsServer(answers[0], answers[1], unready=answers[2])
        try:
            await self._metrics.start(endpoint)
        except OSError as error:
            raise ConfigError(f"{self.config.path}: metrics.listen: {error.strerror}") from None

    def run_in_background(self, work: Coroutine[None, None, None]) -> None:
        """Run until the process ends."""
        self._background.append(self.tasks.create_task(work))

    def converged(self) -> None:
        """Tell readiness probes that the first convergence is complete."""
        if self._api is not None:
            self.tasks.create_task(self._api.set_converged(True))

    async def _tidy(self) -> None:
        """Now and then: say what the log suppressed, and collect garbage while there is nothing to do."""
        while True:
            await asyncio.sleep(SETTLED)
            repeated.flush()
            if self.idle:
                rib = self.daemon.rib
                self._gc.settled(sum(len(rib.loc_rib(family).holders) for family in Family))

    # -- reloading --------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again (SIGHUP); an invalid one changes nothing."""
        try:
            new = config_file.load(self.config.path)
        except ConfigError as error:
            self._refuse(error)
            return
        self.replace_config(new)

    def replace_config(self, new: Config) -> bool:
        """Take a new configuration; False when it can't be taken while the daemon runs, which is logged."""
        try:
            plan = plan_reload(self.config, new)
        except ConfigError as error:
            self._refuse(error)
            return False
        old, self.config, self.daemon.config = self.config, new, new
        self.facts.config_error = ""
        self.meters.reloaded(ok=True)
        configure(new.log_level, new.log_format)
        log_problems("warning", new.warnings)
        self.take(old, plan)
        for name in plan.removed:
            self.daemon.remove_peer(name)
        for peer in plan.changed:
            self.daemon.change_peer(peer)
        for peer in plan.added:
            self.daemon.add_peer(peer)
        self.daemon.plan_flush()
        log.info(
            "configuration taken",
            added=[peer.name for peer in plan.added],
            changed=[peer.name for peer in plan.changed],
            removed=plan.removed,
        )
        return True

    def _refuse(self, error: ConfigError) -> None:
        self.meters.reloaded(ok=False)
        self.facts.config_error = str(error)
        log.warning("configuration not taken: the old one stays in use", reason=str(error))
        if isinstance(error, InvalidConfigError):
            log_problems("error", error.problems)

    # -- leaving ----------------------------------------------------------------------------------

    def leave(self, how: Leaving) -> None:
        """Stop; the first call decides how."""
        if not self.stopped.is_set():
            self._leaving = how
            self.stopped.set()

    @property
    def flushes(self) -> bool:
        """Whether it was told to leave nothing of its own behind."""
        return self._leaving.flush

    @property
    def leaves_for_good(self) -> bool:
        """Whether it was told that it does not come back."""
        return self._leaving.notification is not None

    async def request_shutdown(self, flush: bool, message: str) -> ShutdownReport:
        """`podbgp shutdown`: leave for good, and answer when that is done."""
        self.leave(Leaving(cease(Cease.ADMIN_SHUTDOWN, message), flush))
        return await asyncio.shield(self._left)

    async def finish(self) -> None:
        """Close the sessions as told, let go of the rest, answer, and stop serving."""
        how = self._leaving
        log.info("daemon stops", flush=how.flush)
        self.on_stop()
        for task in self._background:
            task.cancel()
        self.freeze()
        self.daemon.listener.close()
        states = list(self.daemon.peers.values())
        closed = sum(state.negotiated is not None for state in states)
        async with asyncio.TaskGroup() as closing:
            for state in states:
                if how.notification is None:
                    closing.create_task(state.session.close_quietly())
                else:
                    closing.create_task(state.session.stop(how.notification))
        self._left.set_result(await self.release(flush=how.flush, closed=closed))
        self.view.close()
        if self._api is not None:
            await self._api.stop()
        if self._metrics is not None:
            await self._metrics.close()


async def listen(api: ApiServer, config: Config) -> None:
    """Begin to serve the API; ConfigError where its address can't be had."""
    try:
        await api.start()
    except ListenError as error:
        raise ConfigError(f"{config.path}: api.listen: {error}") from None


def why_unready(host: NodeHost | None, waiting: Sequence[PeerName], *, converged: bool) -> str:
    """What is missing until others may count on a daemon, in a sentence; empty when nothing is.

    A node of Kubernetes has its own rule: a peer that is gone for good must not keep it back.
    """
    if host is not None:
        why = "; ".join(host.readiness.reasons)
        return "" if host.readiness.ready else f"the node is not ready for pods: {why}"
    if converged:
        return ""
    more = ", ..." if len(waiting) > NAMED else ""
    return f"waiting for End-of-RIB from {', '.join(waiting[:NAMED]) or 'nobody'}{more}"


def run(config: Config, role: Callable[[Config, asyncio.TaskGroup], Role]) -> int:
    """Run a role until it is told to stop; the exit code."""

    async def started(tasks: asyncio.TaskGroup) -> Role:
        daemon = role(config, tasks)
        await daemon.start()
        return daemon

    return run_until_stopped(started)


def run_until_stopped(start: Callable[[asyncio.TaskGroup], Awaitable[Role]]) -> int:
    """Run the role that `start` starts until it is told to stop; the exit code."""
    code = 0
    try:
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            runner.run(_main(start))
    except* StoppedEarlyError:
        log.info("stopped before it began")
    except* PodbgpError as group:
        code = 1
        for error in group.exceptions:
            log.critical("the daemon can't run", reason=str(error))
    return code


async def _main(start: Callable[[asyncio.TaskGroup], Awaitable[Role]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        crash_on_our_faults(tasks)
        daemon = await start(tasks)
        await daemon.stopped.wait()
        await daemon.finish()
