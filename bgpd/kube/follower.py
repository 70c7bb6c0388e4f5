"""A daemon whose intent comes from Kubernetes: no file for the host, and no restart for a change.

Watches keep tables (`following.py`), a pure translation makes a configuration of them (`intent.py`), and the
role takes it as it takes a file's.  The last intent is kept on disk, so that a host that boots while the API
server is away does what it did before.  An API server that is away, slow or wrong changes nothing: what is
known stays, and its age is shown.

What can't change while a daemon runs (its AS number, its router ID) restarts it in place: the kernel keeps
its routes and peers with graceful restart keep our paths, as in any restart.
"""

from __future__ import annotations

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Generic, TypeVar

import structlog

from api.daemon_view import ServicesView
from api.server import ApiServer
from bgpd import process
from bgpd.config import Config
from bgpd.errors import ConfigError
from bgpd.kube.client import KubeClient
from bgpd.kube.custom_values import CLUSTER_NAME, BgpCluster
from bgpd.kube.disk import IntentFile
from bgpd.kube.following import Following
from bgpd.kube.intent import Intent, Problem
from bgpd.kube.node_shown import cluster_known
from bgpd.kube.options import KubeOptions
from bgpd.kube.resources import has_cluster
from bgpd.kube.restart import Again
from bgpd.kube.shown import intent_status
from bgpd.kube.tables import ClusterTables
from bgpd.kube.waiting import Waiting, serve_while_waiting
from bgpd.kube.waiting_view import WaitingView
from bgpd.metrics_server import Page
from bgpd.reload import check_policies, plan_reload
from routes.node_view import ClusterKnown, NodeHost
from routes.view import IntentStatus

log = structlog.get_logger()

R = TypeVar("R", bound=process.Role)

PATIENCE = 5.0
"""Seconds that a start waits for the API server before it takes the intent of its previous life."""
BETWEEN_RESTARTS = 10.0
"""The least seconds between two restarts in place."""
SHOWN = 5
SAY_AGAIN = 30.0
"""Seconds between two lines about what a start still waits for."""
STORE_EVERY = 5.0
"""Seconds between two writes of the intent."""


class Follower(ABC, Generic[R]):
    """One role, and what it follows."""

    role_name: str
    file_name: str
    """Of the stored intent."""

    def __init__(self, options: KubeOptions, again: Again, tasks: asyncio.TaskGroup) -> None:
        self.options = options
        self.role: R | None = None
        self.problems: frozenset[Problem] = frozenset()
        """What of the cluster's objects is not taken as it is written."""
        self.loop = asyncio.get_running_loop()
        self.tasks = tasks
        self._again = again
        self._leaving: process.Leaving | None = None
        """How the process was told to stop, if it was."""
        self._begins = True
        """Until there is an intent."""
        self._news = asyncio.Event()
        self._planned = False
        self._last: Intent | None = None
        """What is done now; at the start, what the previous life did."""
        self._begun = self.loop.time()
        self._stored_at = 0.0
        self._refused = ""
        """Why what the cluster says now is not taken."""
        self._unstored: Intent | None = None
        self._file = IntentFile(options.state_folder / self.file_name, options.node)
        client = KubeClient.load(options.kubeconfig, server=options.server)
        self.following = Following(client, self.loop, witness=has_cluster)
        self.tables = ClusterTables(options, self.following, self.changed)

    # -- what a role adds -------------------------------------------------------------------------

    @abstractmethod
    def follow(self, cluster: BgpCluster) -> None:
        """Follow what this cluster needs, and no more."""

    @property
    @abstractmethod
    def synced(self) -> bool:
        """Whether all that the intent needs was heard of."""

    @abstractmethod
    def intent(self) -> Intent | None:
        """What the cluster says; None while there is no BGPCluster or no Node."""

    @abstractmethod
    def without_node(self, config: Config) -> Config:
        """What is left of a configuration when this host's Node is gone."""

    @abstractmethod
    def make(self, intent: Intent) -> R:
        """The role, which does this from its start."""

    @abstractmethod
    def looked(self, role: R, intent: Intent) -> None:
        """Bring along what no configuration holds; called at each look, before that is compared."""

    @property
    def complete(self) -> bool:
        """Whether also all that a start waits for only a while was heard of."""
        return self.synced

    def shown(self) -> IntentStatus:
        """How this daemon stands to the cluster, for the API and the metrics."""
        return intent_status(self.following.news(), self.problems, waits=self.waits)

    def cluster_known(self) -> ClusterKnown:
        """The same in full, for `podbgp node`."""
        return cluster_known(self.options.node, self.following.news(), self.problems, self.waits)

    def node_host(self) -> NodeHost | None:
        """What is done for the node beside routing."""
        return None

    def services_shown(self) -> ServicesView | None:
        """The Services, where this role announces them."""
        return None

    def pages(self) -> Mapping[str, Page]:
        """What is served beside this daemon's own metrics, by path."""
        return {}

    @property
    def waits(self) -> str:
        """Why changes are not taken now, in a sentence; empty when they are."""
        if self._begins:
            return self._missing()
        return self._refused or ("" if self.synced else self._missing())

    # -- starting ---------------------------------------------------------------------------------

    async def start(self) -> R:
        """Wait for an intent, and run the role by it; StoppedEarlyError if it was told to stop before."""
        for number in (signal.SIGTERM, signal.SIGINT):  # the first process of a container has no defaults
            self.loop.add_signal_handler(number, self.leave, process.Leaving(None))
        source = Waiting(self.role_name, self.shown)
        api = ApiServer(WaitingView(source, self, self._waits_for, self.leave), self.options.host.api_listen)
        metrics = await serve_while_waiting(self.options.host, source, self._waits_for, self.pages())
        try:
            try:
                intent = await self._first_intent(api)
                self._begins = False
            finally:
                await api.stop()
            self._report(intent.problems)
            role = self.make(intent)
            role.on_hangup = self.changed
            role.on_stop = self.stop
            role.facts.intent, role.facts.follows = self.shown, self
            role.take_listener(metrics)
            await role.start()
            self.role = role  # only now: a change that came while it starts would start its peers twice
        except BaseException:
            self.following.close()
            if metrics is not None:
                await metrics.close()
            raise
        if self._leaving is not None:  # it was told so while the role started
            role.leave(self._leaving)
        if intent is not self._last:
            self._unstored = intent
        role.run_in_background(self._store_now_and_then())
        self.changed()
        return role

    def leave(self, how: process.Leaving) -> None:
        """Stop, also when it has not begun yet."""
        self._leaving = how
        self._news.set()
        if self.role is not None:
            self.role.leave(how)

    def _waits_for(self) -> str:
        return f"waiting for the cluster's intent: {self._missing()}"

    async def _first_intent(self, api: ApiServer) -> Intent:
        """What the API server says, or after a while without it what it said to the previous life.

        Who asks meanwhile is answered by `api`, unless it takes a moment only.
        """
        answers = False
        begun = self.loop.time()
        say_at = begun + PATIENCE
        self._last = self._previous()
        while True:
            self._follow()
            now = self.loop.time()
            intent = self._intent_at_start(patient=now - begun < PATIENCE)
            if intent is not None:
                return intent
            if self._leaving is not None:
                raise process.StoppedEarlyError
            if now >= say_at:
                say_at = now + SAY_AGAIN
                if not answers:
                    answers = True
                    await process.listen(api, self.options.host)
                log.warning("waiting for the cluster's intent", reason=self._missing())
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 1.0)

    def _previous(self) -> Intent | None:
        """The intent of the previous life, as far as it can be used."""
        found = self._file.load()
        if found is None:
            return None
        stored, self._stored_at = found
        intent = replace(stored, config=settings_of(self.options.host, stored.config))
        fault = fault_of(intent.config)
        if fault:
            log.warning("the stored intent can't be used", file=str(self._file.path), reason=fault)
        return None if fault else intent

    def _intent_at_start(self, *, patient: bool) -> Intent | None:
        """What to begin with; None to wait."""
        if self.synced and (self.complete or not patient):
            intent = None if self.doubt() else self.intent()
            self._refused = "" if intent is None else fault_of(intent.config)
            if intent is not None and not self._refused:
                return intent
        elif patient:
            return None
        before = self._last
        if before is None:
            return None
        gone = self.synced and not self.doubt() and self.tables.node is None
        age = round(time.time() - self._stored_at)
        log.warning("started from the stored intent", age=age, reason=self._missing())
        return self._without_node(before.config) if gone else before

    def _missing(self) -> str:
        news = self.following.news()
        if news.error:
            return news.error
        if not self.synced:
            return "not everything was heard of yet"
        if self._refused:
            return self._refused
        if news.malformed:
            return "; ".join(f"{name}: {text}" for name, text in news.malformed[:SHOWN])
        if self.tables.cluster is None:
            return "there is no BGPCluster: see docs/kubernetes.md"
        if self.tables.node is not None:
            return f"Node {self.options.node} has no address in status.addresses yet"
        return f"there is no Node {self.options.node}: is --node the name that kubectl get nodes shows?"

    # -- following --------------------------------------------------------------------------------

    def changed(self) -> None:
        """Something may be different: look once, at the end of the loop's turn."""
        self._news.set()
        if not self._planned and self.role is not None:
            self._planned = True
            self.loop.call_soon(self._look)

    def _follow(self) -> None:
        self.tables.follow_what_is_named()
        cluster = self.tables.cluster
        if cluster is not None:
            self.follow(cluster)

    def _look(self) -> None:
        """Have the role do what the cluster says now."""
        self._planned = False
        role = self.role
        if role is None or role.stopped.is_set():  # what it followed is closed, or will be in a moment
            return
        self._follow()
        if not self.synced:
            return
        doubt = self.doubt()
        if doubt:
            self._report((Problem("BGPCluster", CLUSTER_NAME, "Unbelievable", doubt),))
            return
        intent = self.intent()
        if intent is None:
            if self.tables.node is not None:  # it has no address: it is not the Node that is gone
                self._report((Problem("Node", self.options.node, "NoAddress", self._missing()),))
                return
            intent = self._without_node(role.config)
        self._report((*intent.problems, *self.tables.kept()))
        self._refused = fault_of(intent.config)
        if not self._refused:
            self._take(role, intent)

    def _take(self, role: R, intent: Intent) -> None:
        """Have the role do this, or begin again where it can't while it runs."""
        if restart := why_restart(role.config, intent.config):
            wait = self._begun + BETWEEN_RESTARTS - self.loop.time()
            if wait > 0:  # whoever changes it all the time has no daemon that does nothing but begin
                self._refused = f"{restart}; that is done in {wait:.0f} s"
                self.loop.call_later(wait, self.changed)
                return
            self._last = self._unstored = intent
            self._again.ask(restart)
            role.leave(process.Leaving(None))
            return
        self.looked(role, intent)
        if intent != self._last:
            self._last = self._unstored = intent
        if intent.config != role.config:
            role.replace_config(intent.config)

    def doubt(self) -> str:
        """Why what the API server says now is not to be acted on, in a sentence; empty when it is.

        Objects that nobody deletes from a cluster in use are missing: its data were lost, and come back.
        """
        if self.tables.cluster is None:
            return "there is no BGPCluster any more: what was last known stays in use"
        return ""

    def _without_node(self, config: Config) -> Intent:
        """A Node that is gone takes its own with it."""
        problem = Problem("Node", self.options.node, "Deleted", "the Node was deleted")
        left = Intent(self.without_node(config), (problem,))
        known = self._last
        return left if known is None else replace(left, pod_ranges=known.pod_ranges, nodes=known.nodes)

    def _report(self, problems: Iterable[Problem]) -> None:
        """Log what is new, and what is over."""
        now = frozenset(problems)
        for problem in sorted(now - self.problems):
            log.warning("not taken as written", kind=problem.kind, name=problem.name, reason=problem.text)
        for problem in sorted(self.problems - now):
            log.info("taken as written again", kind=problem.kind, name=problem.name, was=problem.reason)
        self.problems = now

    async def _store_now_and_then(self) -> None:
        """Keep the intent for the next start, without a write for each change of a busy cluster."""
        while True:
            intent, self._unstored = self._unstored, None
            if intent is not None:  # in a thread: a disk may take seconds, and no session waits for one
                await asyncio.to_thread(self._file.store, intent)
            await asyncio.sleep(STORE_EVERY)

    def forget(self) -> None:
        """Keep no intent for a next life: this host leaves for good."""
        self._file.remove()

    def stop(self) -> None:
        """The role ends: keep what it did, and follow nothing any more."""
        if self._unstored is not None:
            self._file.store(self._unstored)
        self._file.close()
        self.following.close()


def settings_of(host: Config, config: Config) -> Config:
    """A configuration with the host's settings of today, whose file may be another by now."""
    return replace(
        config,
        path=host.path,
        api_listen=host.api_listen,
        metrics_listen=host.metrics_listen,
        log_level=host.log_level,
        log_format=host.log_format,
    )


def fault_of(config: Config) -> str:
    """Why a configuration can be taken by nobody, in a sentence; empty when it can."""
    try:
        check_policies(config)
    except ConfigError as error:
        return str(error)
    return ""


def why_restart(old: Config, new: Config) -> str:
    """Why a daemon with the old configuration can't take the new one while it runs; empty when it can."""
    try:
        plan_reload(old, new)
    except ConfigError as error:
        return str(error)
    return ""
