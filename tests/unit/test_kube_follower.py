"""A daemon that follows Kubernetes, from its start to what still arrives while it stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from bgpd import process
from bgpd.config import Config
from bgpd.config_file import load_host
from bgpd.faults import crash_on_our_faults
from bgpd.kube.client import KubeClient
from bgpd.kube.custom_values import BgpCluster
from bgpd.kube.disk import IntentFile
from bgpd.kube.follower import Follower
from bgpd.kube.intent import ClusterFacts, Intent, reflector_intent
from bgpd.kube.options import KubeOptions
from bgpd.kube.restart import Again
from bgpd.reload import Reload
from bgpd.view import Facts
from routes.view import ShutdownReport
from tests.fakes.stand_in_api_server import StandInApiServer, node

CRD = {"apiVersion": "podbgp.dev/v1alpha1"}
GROUP = "/apis/podbgp.dev/v1alpha1"


class Quiet(process.Role):
    """A role that does nothing."""

    def __init__(self, config: Config, tasks: asyncio.TaskGroup) -> None:
        super().__init__(config, tasks)
        self.facts = Facts(time.time())
        self.taken: list[Config] = []
        self.works: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """There is nothing to serve."""

    def run_in_background(self, work: Coroutine[None, None, None]) -> None:
        self.works.append(self.tasks.create_task(work))

    def replace_config(self, new: Config) -> bool:
        self.config = new
        self.taken.append(new)
        return True

    def take(self, old: Config, plan: Reload) -> None:
        """Not asked: the whole configuration is taken above."""

    @property
    def idle(self) -> bool:
        return True

    def freeze(self) -> None:
        """There is nothing to freeze."""

    async def release(self, *, flush: bool, closed: int) -> ShutdownReport:  # noqa: ARG002  nothing is held
        return ShutdownReport(closed, 0, 0)


class QuietFollower(Follower[Quiet]):
    """It follows what everybody does."""

    role_name = "reflector"
    file_name = "intent.json"

    def follow(self, cluster: BgpCluster) -> None:
        """Nothing more."""

    @property
    def synced(self) -> bool:
        return self.tables.synced

    def facts(self) -> ClusterFacts | None:
        return self.tables.facts({})

    def intent(self) -> Intent | None:
        facts = self.facts()
        return None if facts is None else reflector_intent(facts)

    def without_node(self, config: Config) -> Config:
        return config

    def make(self, intent: Intent) -> Quiet:
        return Quiet(intent.config, self.tasks)

    def looked(self, role: Quiet, intent: Intent) -> None:
        """There is nothing else."""


def peer(**spec: object) -> dict[str, object]:
    spec = {"asn": 65010, "address": "192.0.2.9", "speakers": "Reflectors", **spec}
    return {**CRD, "kind": "BGPPeer", "metadata": {"name": "router"}, "spec": spec}


def fill(client: KubeClient) -> None:
    client.create("/api/v1/nodes", node("n1", "192.0.2.1", pod_cidrs=("10.244.1.0/24",)))
    spec = {"asn": 65000, "topology": "reflector", "podCIDRs": ["10.244.0.0/16"]}
    cluster = {**CRD, "kind": "BGPCluster", "metadata": {"name": "default"}, "spec": spec}
    client.create(f"{GROUP}/bgpclusters", cluster)
    client.create(f"{GROUP}/bgppeers", peer(passwordSecret={"name": "fabric"}))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  what is waited for is nobody's event
            await asyncio.sleep(0.01)


def live(
    tmp_path: Path, story: Callable[[QuietFollower, Quiet, KubeClient], None], after: float = 0.0
) -> Quiet:
    """Start a follower at a small cluster, tell the story, and stop; the role, as it was left."""

    async def main(server: StandInApiServer) -> Quiet:
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")
        options = KubeOptions(
            load_host(None, "reflector"), "n1", kubeconfig=kubeconfig, state_folder=tmp_path / "state"
        )
        client = KubeClient.load(kubeconfig)
        try:
            await asyncio.to_thread(fill, client)
            async with asyncio.TaskGroup() as tasks:
                crash_on_our_faults(tasks)
                follower = QuietFollower(options, Again(), tasks)
                role = await follower.start()
                await until(lambda: follower.synced and bool(follower.tables.secrets))
                story(follower, role, client)
                await asyncio.sleep(after)
                follower.stop()
                for task in role.works:
                    task.cancel()
        finally:
            client.close()
        return role

    with StandInApiServer() as server:
        return asyncio.run(main(server))


def test_what_was_on_its_way_when_the_daemon_stopped_is_left_alone(tmp_path: Path) -> None:
    def stops(follower: QuietFollower, role: Quiet, _: KubeClient) -> None:
        role.leave(process.Leaving(None))
        follower.stop()
        follower.tables.peers.values.clear()  # a batch that names no Secret any more, taken a moment too late
        follower.changed()

    assert live(tmp_path, stops, after=0.05).taken == []


def test_a_clock_that_is_set_back_holds_up_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgpd.kube.follower.BETWEEN_RESTARTS", 0.0)

    def moves(follower: QuietFollower, role: Quiet, _: KubeClient) -> None:
        role.facts.started += 86_400.0
        role.config = replace(role.config, speaker=replace(role.config.speaker, asn=65001))
        follower.changed()

    assert live(tmp_path, moves, after=0.05).stopped.is_set()


def test_the_intent_is_stored_beside_the_loop_and_once_more_at_the_end(tmp_path: Path) -> None:
    def changes(follower: QuietFollower, role: Quiet, _: KubeClient) -> None:
        assert role.config.peers[0].shutdown
        follower.tables.peers.values.clear()
        follower.changed()

    live(tmp_path, changes, after=0.05)
    stored = IntentFile(tmp_path / "state" / "intent.json", "n1").load()
    assert stored is not None
    assert stored[0].config.peers == ()


def test_a_change_that_comes_while_the_daemon_starts_is_taken_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken meanwhile, it had peers started that the start then started once more."""
    followers: list[QuietFollower] = []
    taken_meanwhile: list[Config] = []
    make = QuietFollower.make

    def remember(follower: QuietFollower, intent: Intent) -> Quiet:
        followers.append(follower)
        return make(follower, intent)

    async def takes_its_time(role: Quiet) -> None:
        peers = followers[0].tables.peers.values
        peers.update({uid: replace(each, asn=65011) for uid, each in peers.items()})
        followers[0].changed()
        await asyncio.sleep(0.05)
        taken_meanwhile.extend(role.taken)

    monkeypatch.setattr(QuietFollower, "make", remember)
    monkeypatch.setattr(Quiet, "start", takes_its_time)
    role = live(tmp_path, lambda *_: None, after=0.05)
    assert taken_meanwhile == []
    assert [each.asn for each in role.config.peers] == [65011]
