"""Everything that the controller knows and wants, without an API server: batches in, writes and events out.

It is told what the watches say (`take_*`) and whether it leads, and `reconcile` puts what has to be written
into the queue.  A change costs as much as what it touches: a Node its own checks, a Service its own
allocation.  What costs as much as there are nodes (an election) is done once for all that came in one
debounce, and only where it can end otherwise.

Whoever does not lead knows everything and wants nothing.  Time comes as an argument, twice: `now` in seconds
of a clock that never goes back, `wall` for what people read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from enum import Enum, auto
from typing import TypeVar

from bgpd.kube import cluster_status, resources
from bgpd.kube.acceptance import Known, accepted, cluster_says
from bgpd.kube.advertised_services import AdvertisedServices
from bgpd.kube.agents_word import AgentsWord
from bgpd.kube.candidates import Candidate, candidate_of
from bgpd.kube.custom_book import CustomBook, Watched
from bgpd.kube.custom_state import BgpNodeState
from bgpd.kube.custom_values import CLUSTER_NAME, BgpCluster, ReflectorMode, Topology
from bgpd.kube.election import Reflector, Standing, elect
from bgpd.kube.events import CRD_VERSION, Regarding
from bgpd.kube.intent import MOST_NODES_IN_MESH
from bgpd.kube.load_balancers import LoadBalancers, PoolInputs, Said, ServiceKey
from bgpd.kube.node_checks import Check, News, NodeChecks
from bgpd.kube.objects import Node, Pod, Secret, Service
from bgpd.kube.review import Reviewed
from bgpd.kube.status_desk import StatusDesk
from bgpd.kube.watch import Batch
from bgpd.kube.write_queue import Write, WriteQueue

T = TypeVar("T")


LOOK_AGAIN = 1.0
"""Seconds from an election that changed something to the next."""


class Topic(Enum):
    """What has to be looked at again."""

    CUSTOM = auto()
    """Conditions of peers and policies."""
    COUNTS = auto()
    """Conditions and counts of advertisements and pools."""
    ELECTION = auto()
    CLUSTER = auto()
    POOLS = auto()


class ControllerState:
    """One cluster, as its controller sees it."""

    def __init__(self, namespace: str, jitter: Callable[[], float]) -> None:
        self.namespace = namespace
        self.leading = False
        self.queue = WriteQueue(jitter)
        self.desk = StatusDesk(self.queue)
        self.checks = NodeChecks()
        self.word = AgentsWord()
        self.custom = CustomBook(self.desk)
        self.balancers = LoadBalancers(self.queue)
        self.advertised = AdvertisedServices()
        self.cluster: BgpCluster | None = None
        """The last one that could be read."""
        self.standing = Standing()
        self.services: dict[ServiceKey, Service] = {}
        self.pods: dict[str, Pod] = {}
        self.candidates: dict[str, Candidate] = {}
        self._synced: set[Watched] = set()
        self._dirty: set[Topic] = set(Topic)
        self._said: list[Said] = []
        self._wake: float | None = None
        self._mesh_fits = True

    @property
    def synced(self) -> bool:
        return len(self._synced) == len(Watched)

    @property
    def reflectors(self) -> tuple[Reflector, ...]:
        return self.standing.reflectors

    # -- what the watches say ---------------------------------------------------------------------

    def take_custom(self, table: Watched, batch: Batch[Reviewed[T]]) -> None:
        """Peers, policies, advertisements, pools."""
        self.custom.take(table, batch)
        self._heard(table, batch)
        self._dirty |= {Topic.CUSTOM, Topic.COUNTS, Topic.CLUSTER}
        if table is Watched.POOLS:
            self._dirty.add(Topic.POOLS)
        elif table is Watched.ADVERTISEMENTS:
            self.advertised.advertisements_replaced(self.custom.valid_advertisements, self.services.values())

    def take_clusters(self, now: float, batch: Batch[Reviewed[BgpCluster]]) -> None:
        before = self.cluster
        self.take_custom(Watched.CLUSTERS, batch)
        found = self.custom.clusters.get(CLUSTER_NAME)
        if found is None:
            self.cluster = None
        elif found.value is not None:
            self.cluster = found.value
        after = self.cluster
        another = after is not None and (before is None or before.uid != after.uid)
        if another and after is not None and after.status.reflectors:  # else it was made again: they go on
            self.standing = cluster_status.standing_from(after, now)
        self.checks.ranges_replaced(now, after.pod_cidrs if after is not None else ())
        self._dirty |= {Topic.ELECTION, Topic.POOLS}

    def take_nodes(self, now: float, batch: Batch[Node]) -> None:
        for node in batch.deleted:
            self.checks.node_deleted(now, node)
            self._dirty |= {Topic.POOLS}
            if self.candidates.pop(node.uid, None) is not None:
                self._dirty |= {Topic.ELECTION, Topic.CLUSTER}
        for node in batch.changed:
            before = self.checks.nodes.get(node.name)
            self.checks.node_changed(now, node)
            if before is None or before.addresses != node.addresses:
                self._dirty.add(Topic.POOLS)
            self._candidate(node)
        self._heard(Watched.NODES, batch)

    def _candidate(self, node: Node) -> None:
        new = candidate_of(node, reports=node.name in self.checks.states)
        if self.candidates.get(node.uid) != new:
            self.candidates[node.uid] = new
            self._dirty |= {Topic.ELECTION, Topic.CLUSTER}

    def take_states(self, now: float, batch: Batch[BgpNodeState]) -> None:
        for state in batch.deleted:
            known = self.checks.states.get(state.name)
            if known is not None and known.uid == state.uid:
                self.checks.state_deleted(now, state)
                self._word_changed(state.name, changed=self.word.silent(state.name))
        for state in batch.changed:
            self.checks.state_changed(now, state)
            self._word_changed(state.name, changed=self.word.said(state))
        self._heard(Watched.NODE_STATES, batch)

    def _word_changed(self, name: str, *, changed: bool) -> None:
        node = self.checks.nodes.get(name)
        if node is not None:
            self._candidate(node)
        if changed:
            self._dirty.add(Topic.ELECTION)

    def take_services(self, batch: Batch[Service]) -> None:
        for service in batch.deleted:
            known = self.services.get(service.key)
            if known is not None and known.uid == service.uid:
                del self.services[service.key]
                self.advertised.service_deleted(service.key)
        for service in batch.changed:
            self.services[service.key] = service
            self.advertised.service_changed(service)
        if Topic.POOLS in self._dirty:  # else a Service that came with its pool would be refused first
            self.balancers.inputs_are(self._pool_inputs())
        self.balancers.changed(batch.changed, batch.deleted)
        self._heard(Watched.SERVICES, batch)
        self._dirty.add(Topic.COUNTS)

    def take_pods(self, batch: Batch[Pod]) -> None:
        for pod in batch.deleted:
            self.pods.pop(pod.uid, None)
        self.pods.update((pod.uid, pod) for pod in batch.changed)
        self._heard(Watched.PODS, batch)
        self._dirty.add(Topic.ELECTION)

    def take_secret(self, name: str, batch: Batch[Secret]) -> None:
        self.custom.take_secret(name, batch)
        self._dirty |= {Topic.CUSTOM, Topic.CLUSTER}

    def _heard(self, table: Watched, batch: Batch[T]) -> None:
        if batch.synced:
            self._synced.add(table)

    # -- leading ----------------------------------------------------------------------------------

    def lead(self, now: float) -> None:
        """Act from now on, beginning with what the statuses say."""
        self.leading = True
        self._dirty = set(Topic)
        self.standing = (
            cluster_status.standing_from(self.cluster, now) if self.cluster is not None else Standing()
        )
        self.balancers.begin(self.services, self._pool_inputs())
        self.checks.take_news()
        for check, problems in self.checks.problems.items():
            self._tell(News(check, self.checks.nodes[name], text) for name, text in problems.items())

    def follow(self) -> None:
        """Act no longer."""
        self.leading = False
        self.balancers.end()
        self.queue.clear()
        self._said.clear()

    # -- reconciling ------------------------------------------------------------------------------

    def reconcile(self, now: float, wall: datetime) -> None:
        """Put into the queue whatever has to be written."""
        self.checks.pass_time(now)
        news = self.checks.take_news()
        if not (self.leading and self.synced):
            return
        self._tell(news)
        if self._wake is not None and self._wake <= now:
            self._dirty.add(Topic.ELECTION)
        if Topic.POOLS in self._dirty:
            self.balancers.inputs_are(self._pool_inputs())
        self.balancers.go_on()
        if Topic.ELECTION in self._dirty:
            self._elect(now)
        if Topic.CUSTOM in self._dirty:
            self.custom.accept(now, wall, self._known())
        if Topic.COUNTS in self._dirty or Topic.POOLS in self._dirty:
            self.custom.count(now, wall, self.balancers, self.advertised)
        if Topic.CLUSTER in self._dirty:
            self._say_of_cluster(now, wall)
        self._dirty.clear()
        self.desk.pass_time(now, wall)
        self._said += self.balancers.take_said()

    def wait(self, now: float) -> float | None:
        """Seconds until `reconcile` has something to do although nothing was heard."""
        if not (self.leading and self.synced):
            return None
        if self.balancers.more:
            return 0.0
        waits = [self.checks.wait(now), self.desk.wait(now)]
        if self._wake is not None:
            waits.append(max(self._wake - now, 0.0))
        return min((each for each in waits if each is not None), default=None)

    def wrote(self, now: float, wall: datetime, write: Write) -> None:
        """A write was performed."""
        self.queue.done(write.path)
        self.desk.wrote(now, wall, write)

    def take_said(self) -> list[Said]:
        """Events that are to be said."""
        said, self._said = self._said, []
        return said

    # -- the topics -------------------------------------------------------------------------------

    def _pool_inputs(self) -> PoolInputs:
        cluster = self.cluster
        pools = tuple(each.value for each in self.custom.pools.values() if each.value is not None)
        kept_out = (*cluster.pod_cidrs, *cluster.service_cidrs) if cluster is not None else ()
        nodes = frozenset(address for node in self.checks.nodes.values() for address in node.addresses)
        return PoolInputs(pools, kept_out, nodes if pools else frozenset())

    def _elect(self, now: float) -> None:
        self._wake = None
        cluster = self.cluster
        if cluster is None:  # one that comes again finds its reflectors where they were
            return
        before = self.standing.reflectors
        if cluster.topology is not Topology.REFLECTOR:
            self.standing = Standing()
        elif cluster.reflectors.mode is ReflectorMode.DEDICATED:
            self.standing = Standing(cluster_status.dedicated(self.pods.values(), self.checks.nodes))
        else:
            self._hold_election(now, cluster)
        if self.standing.reflectors != before:
            self._dirty.add(Topic.CLUSTER)
            names = {each.node for each in self.standing.reflectors}
            uids = [node.uid for name in names if (node := self.checks.nodes.get(name)) is not None]
            self.checks.reflectors_replaced(now, uids)
            self._tell(self.checks.take_news())

    def _hold_election(self, now: float, cluster: BgpCluster) -> None:
        ready = {each.name for each in self.candidates.values() if each.ready}
        witness = self.word.witness(self.standing.reflectors, ready, set(self.checks.nodes))
        plan = elect(self.candidates, witness, self.standing, cluster.reflectors.count, now)
        self.standing, self._wake = plan.standing, plan.wake
        if plan.steps:  # of who is new, agents may have said something already
            self._wake = now + LOOK_AGAIN
        about = Regarding(CRD_VERSION, "BGPCluster", cluster.name, cluster.uid)
        self._said += [Said(about, step.reason, f"{step.node}: {step.text}") for step in plan.steps]

    def _known(self) -> Known:
        return self.custom.known(self.namespace, self.cluster.topology if self.cluster is not None else None)

    def _say_of_cluster(self, now: float, wall: datetime) -> None:
        for name, each in self.custom.clusters.items():
            path = f"{resources.CLUSTERS.path}/{name}"
            cluster, count = self.cluster, len(self.checks.nodes)
            if cluster is None or cluster.uid != each.uid:
                self.desk.want(now, wall, path, [accepted(each)], {})
                continue
            # One that became invalid goes on as it was, and agents hear of its reflectors.
            says = cluster_says(cluster, self._known()) if each.value is not None else [accepted(each)]
            says += cluster_status.topology_conditions(cluster, self.reflectors, count)
            says += cluster_status.node_conditions(self.checks)
            fields = {"nodes": count, "reflectors": cluster_status.reflectors_json(self.reflectors)}
            self.desk.want(now, wall, path, says, fields)
            self._tell_of_mesh(cluster, count)

    def _tell_of_mesh(self, cluster: BgpCluster, nodes: int) -> None:
        fits = cluster.topology is not Topology.MESH or nodes <= MOST_NODES_IN_MESH
        if self._mesh_fits and not fits:
            about = Regarding(CRD_VERSION, "BGPCluster", cluster.name, cluster.uid)
            text = f"{nodes} Nodes; a mesh has at most {MOST_NODES_IN_MESH}"
            self._said.append(Said(about, "MeshTooLarge", text, bad=True))
        self._mesh_fits = fits

    def _tell(self, news: Iterable[News]) -> None:
        for check, node, text in news:
            self._dirty.add(Topic.CLUSTER)
            if text:
                about = Regarding("v1", "Node", node.name, node.uid)
                self._said.append(Said(about, check.value, text, bad=check is not Check.NO_STATE))
