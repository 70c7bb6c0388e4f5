"""The controller, no BGP speaker: it elects reflectors, gives out addresses, and says what is wrong.

Two of them run, and one leads (`lease.py`).  Here are the edges: watches in threads feed `ControllerState` in
the event loop, which decides; workers write what it wants, each object by one at a time, at a bounded rate.
While the API server is away nothing is decided from what is missing; what was decided waits in the queue.

Without a controller the cluster goes on as it is: reflectors reflect, agents announce.  What waits for it are
replacements of reflectors and new LoadBalancer addresses.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from random import random
from typing import TypeVar

import structlog

from bgpd.config import Endpoint
from bgpd.errors import ConfigError, PodbgpError
from bgpd.faults import crash_on_our_faults
from bgpd.kube import resources
from bgpd.kube.candidates import decode_elector_node
from bgpd.kube.client import KubeClient
from bgpd.kube.controller_metrics import ControllerMetrics, Counts, Glance
from bgpd.kube.controller_state import ControllerState
from bgpd.kube.custom_book import Watched
from bgpd.kube.errors import KubeError
from bgpd.kube.events import EventBook
from bgpd.kube.following import Following, Table
from bgpd.kube.lease import CALL_TIMEOUT, LeaseHolder, wall_clock
from bgpd.kube.objects import Secret, decode_pod
from bgpd.kube.options import DEFAULT_NAMESPACE
from bgpd.kube.review import reviewed
from bgpd.kube.status_writer import Result, StatusWriter
from bgpd.kube.watch import Batch, Pace, Resource
from bgpd.kube.write_queue import Write
from bgpd.metrics_server import MetricsServer
from bgpd.throttle import Throttle

log = structlog.get_logger()

T = TypeVar("T")

LEASE = "podbgp-controller"
REFLECTOR_LABELS = "app.kubernetes.io/component=reflector"
WORKERS = 4
DEBOUNCE = 0.05
"""Seconds for which changes are collected before they are looked at."""
TICK = 1.0
"""Seconds between looks at the time, for what nothing else reminds of."""
WRITE_TIMEOUT = 2.0
"""A write begun in the last moment of leading ends before another may lead (`lease.py`)."""


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What the command line says."""

    kubeconfig: str | None = None
    """None: the service account of this pod."""
    server: str | None = None
    """Another address than the one that the credentials name."""
    namespace: str = DEFAULT_NAMESPACE
    metrics: Endpoint | None = None


class Controller:
    """One process, from `start` to `finish`."""

    def __init__(
        self, options: ControllerOptions, tasks: asyncio.TaskGroup, pace: Pace | None = None
    ) -> None:
        self.options = options
        self.stopped = asyncio.Event()
        self.identity = f"{os.uname().nodename}_{os.urandom(4).hex()}"
        self.state = ControllerState(options.namespace, random)
        self.counts = Counts()
        self._tasks = tasks
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(WORKERS + 1, thread_name_prefix="write")
        self._client = KubeClient.load(options.kubeconfig, server=options.server)
        self._writes = KubeClient.load(options.kubeconfig, server=options.server, timeout=WRITE_TIMEOUT)
        leases = KubeClient.load(options.kubeconfig, server=options.server, timeout=CALL_TIMEOUT)
        self._lease = LeaseHolder(leases, options.namespace, LEASE, self.identity, self._lease_changed)
        self._following = Following(self._client, self._loop, pace)
        self._writer = StatusWriter(self._writes, self._lease.leads)
        self._book = EventBook(self.identity)
        self._complaints = Throttle(log, interval=60.0)
        self._background: list[asyncio.Task[None]] = []
        self._work = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._metrics: MetricsServer | None = None
        self._secrets: dict[str, Table[Secret]] = {}

    # -- starting and stopping --------------------------------------------------------------------

    async def start(self) -> None:
        """Begin; a PodbgpError says what stands in the way."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stopped.set)
        await self._serve_metrics()
        self._follow_all()
        self._lease.start()
        works = [self._write_all() for _ in range(WORKERS)]
        self._background = [
            self._tasks.create_task(each) for each in (*works, self._tell_all(), self._tick())
        ]
        log.info("controller starts", identity=self.identity, server=self._client.server)

    async def _serve_metrics(self) -> None:
        endpoint = self.options.metrics
        if endpoint is None:
            return
        metrics = ControllerMetrics(self._glance)
        # The API server's absence makes nobody here unhealthy: a restart would not bring it back.
        self._metrics = MetricsServer(metrics.exposition, str, unready=self._unready)
        try:
            await self._metrics.start(endpoint)
        except OSError as error:
            raise ConfigError(f"--metrics: {error.strerror}") from None

    def _unready(self) -> str:
        """Why this one could not lead now."""
        if self.state.synced:
            return ""
        return (
            f"not everything was heard of yet: {self._following.news().error or 'the lists are on their way'}"
        )

    def _glance(self) -> Glance:
        leads, dropped = self._lease.leads(), self._book.dropped
        return Glance(self.state, self.counts, self._following.news(), leads, dropped)

    async def finish(self) -> None:
        """Stop acting, give the Lease up, and let go of the rest."""
        log.info("controller stops")
        for task in self._background:
            task.cancel()
        self.state.follow()
        await asyncio.to_thread(self._lease.stop)
        self._writes.close()
        self._following.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._metrics is not None:
            await self._metrics.close()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    # -- what is heard ----------------------------------------------------------------------------

    def _follow_all(self) -> None:
        state, now, follow = self.state, time.monotonic, self._following.follow
        namespace = self.options.namespace
        follow(reviewed(resources.CLUSTERS), self._then(lambda batch: state.take_clusters(now(), batch)))
        self._follow_custom(Watched.PEERS, resources.PEERS)
        self._follow_custom(Watched.POLICIES, resources.POLICIES)
        self._follow_custom(Watched.ADVERTISEMENTS, resources.ADVERTISEMENTS)
        self._follow_custom(Watched.POOLS, resources.POOLS)
        follow(resources.NODE_STATES, self._then(lambda batch: state.take_states(now(), batch)))
        nodes = replace(resources.NODES, decode=decode_elector_node)
        follow(nodes, self._then(lambda batch: state.take_nodes(now(), batch)))
        follow(resources.SERVICES, self._then(state.take_services))
        pods = f"/api/v1/namespaces/{namespace}/pods"
        follow(
            Resource(pods, "Pod", decode_pod, label_selector=REFLECTOR_LABELS), self._then(state.take_pods)
        )

    def _follow_custom(self, table: Watched, resource: Resource[T]) -> None:
        self._following.follow(
            reviewed(resource), self._then(lambda batch: self.state.take_custom(table, batch))
        )

    def _follow_secrets(self) -> None:
        """Those that are named, each alone."""
        named = self.state.custom.secrets_named
        for name in named - self._secrets.keys():
            resource = resources.secret(self.options.namespace, name)
            take = partial(self.state.take_secret, name)
            self._secrets[name] = self._following.follow(resource, self._then(take))
        for name in self._secrets.keys() - named:
            self._following.drop(self._secrets.pop(name))
            self.state.custom.forget_secret(name)

    def _then(self, take: Callable[[Batch[T]], None]) -> Callable[[Batch[T]], None]:
        """Take a batch, and look at what follows from it a moment later."""

        def changed(batch: Batch[T]) -> None:
            take(batch)
            self._soon(DEBOUNCE)

        return changed

    def _lease_changed(self, _leads: bool) -> None:
        """Called in the Lease's thread."""
        try:
            self._loop.call_soon_threadsafe(self._soon, 0.0)
        except RuntimeError:  # the loop is closed: nobody acts any more
            log.debug("the lease changed after the end")

    def _soon(self, seconds: float) -> None:
        """Reconcile in so many seconds, or before."""
        when = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._reconcile)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._soon(0.0)
            news = self._following.news()
            if news.error:
                self._complaints.warning("news", "what is known is old", age=news.age, reason=news.error)
            for name, problem in news.malformed:
                self._complaints.warning(name, "an object can't be read", name=name, reason=problem)
            self._complaints.flush()

    # -- what follows -----------------------------------------------------------------------------

    def _reconcile(self) -> None:
        self._timer = None
        self.counts.reconciles += 1
        self._follow_secrets()
        state, now, leads = self.state, time.monotonic(), self._lease.leads()
        if leads and not state.leading and state.synced:
            state.lead(now)
        elif state.leading and not leads:
            state.follow()
        state.reconcile(now, datetime.now(UTC))
        for said in state.take_said():
            tell = log.warning if said.bad else log.info
            tell(said.text, kind=said.about.kind, name=said.about.name, reason=said.reason)
            self._book.say(now, wall_clock(), said.about, said.reason, said.text, bad=said.bad)
        wait = state.wait(now)
        if wait is not None:
            self._soon(max(wait, DEBOUNCE))
        self._work.set()

    # -- what is written --------------------------------------------------------------------------

    async def _write_all(self) -> None:
        """One of the workers."""
        queue = self.state.queue
        while True:
            step = queue.next(time.monotonic())
            if isinstance(step, Write):
                await self._write(step)
                continue
            self._work.clear()
            try:
                async with asyncio.timeout(step):
                    await self._work.wait()
            except TimeoutError:
                continue

    async def _write(self, write: Write) -> None:
        try:
            result = await self._loop.run_in_executor(self._threads, self._writer.perform, write)
        except KubeError as error:
            self.counts.writes["failed"] += 1
            self._complaints.warning(
                write.path, "a status could not be written", path=write.path, reason=str(error)
            )
            self.state.queue.failed(time.monotonic(), write, error)
            self._work.set()
            return
        self.counts.writes[result.value] += 1
        if result in {Result.WRITTEN, Result.NEEDLESS}:
            self.state.wrote(time.monotonic(), datetime.now(UTC), write)
        else:
            self.state.queue.done(write.path)
        self._work.set()

    async def _tell_all(self) -> None:
        """Write events, one after the other: nobody waits for them."""
        while True:
            await asyncio.sleep(TICK)
            due = self._book.take(time.monotonic())
            if due:
                lost = await self._loop.run_in_executor(self._threads, self._writer.tell, due)
                self.counts.events_lost += lost


def run(options: ControllerOptions) -> int:
    """Run until told to stop; the exit code."""
    code = 0
    try:
        asyncio.run(_main(options))
    except* PodbgpError as group:
        code = 1
        for error in group.exceptions:
            log.critical("the controller can't run", reason=str(error))
    return code


async def _main(options: ControllerOptions) -> None:
    async with asyncio.TaskGroup() as tasks:
        crash_on_our_faults(tasks)
        controller = Controller(options, tasks)
        await controller.start()
        await controller.stopped.wait()
        await controller.finish()
