"""The controller against an API server: what it writes, what it does not, and what stops it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import structlog

from bgpd import log
from bgpd.kube import controller as module
from bgpd.kube import lease
from bgpd.kube.controller import Controller, ControllerOptions
from bgpd.kube.watch import Pace
from bgpd.lab.stand_in_api_server import StandInApiServer
from bgpd.lab.stand_in_api_server_store import Selection

NAMESPACE = "podbgp-system"
PACE = Pace(first_wait=0.05, longest_wait=0.5, longest_wait_away=0.2)
Json = dict[str, object]


class Running:
    """A controller in a thread of its own."""

    def __init__(self, options: ControllerOptions) -> None:
        self.options = options
        self.controller: Controller | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="controller")
        self._thread.start()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._loop = asyncio.get_running_loop()
            controller = Controller(self.options, tasks, PACE)
            await controller.start()
            self.controller = controller
            await controller.stopped.wait()
            await controller.finish()

    def stop(self) -> None:
        if self.controller is not None and self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.controller.stopped.set)
        self._thread.join(15)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def as_a_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It logs as the daemon does, without its signals: those are for the main thread."""
    log.configure("info", "text")
    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", lambda *_: None)
    yield
    structlog.reset_defaults()  # else other tests' loggers keep to this one's first words


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with StandInApiServer(pod_cidrs=("10.244.0.0/16",)) as server:
        yield server


Start = Callable[[], Running]


@pytest.fixture
def start(server: StandInApiServer, tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def start() -> Running:
        config = server.kubeconfig(tmp_path / f"config{len(started)}")
        started.append(Running(ControllerOptions(config, namespace=NAMESPACE)))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


# -- objects ------------------------------------------------------------------------------------------


def custom(kind: str, name: str, **spec: object) -> Json:
    return {"apiVersion": "podbgp.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def cluster(**spec: object) -> Json:
    return custom(
        "BGPCluster",
        "default",
        **{"asn": 65000, "topology": "reflector", "podCIDRs": ["10.244.0.0/16"], **spec},
    )


def node(name: str, address: str, zone: str = "", ready: str = "True") -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def service(name: str, **spec: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": "podbgp.dev/bgp",
            "ports": [{"port": 80}],
            **spec,
        },
    }


def path(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


class Cluster:
    """What a test does to the cluster, and what it sees of it."""

    def __init__(self, server: StandInApiServer) -> None:
        self.server = server

    def reports(self, name: str, *reflectors: str) -> None:
        """An agent's state: established with these addresses."""
        if name not in {path(each, "metadata", "name") for each in self.server.list("BGPNodeState")}:
            self.server.create(custom("BGPNodeState", name))
        sessions = [
            {"peer": each, "asn": 65000, "state": "Established", "received": 5} for each in reflectors
        ]
        self.server.patch("BGPNodeState", name, {"status": {"sessions": sessions}}, subresource="status")

    def reflectors(self) -> dict[str, str]:
        found = path(self.server.get("BGPCluster", "default"), "status", "reflectors")
        return {each["node"]: each["phase"] for each in cast("list[dict[str, str]]", found or [])}

    def condition(self, kind: str, name: str, condition: str) -> str:
        """`Status Reason: message`."""
        found = path(self.server.get(kind, name), "status", "conditions")
        for each in cast("list[dict[str, str]]", found or []):
            if each["type"] == condition:
                return f"{each['status']} {each['reason']}: {each['message']}"
        return ""

    def ingress(self, name: str) -> list[str]:
        found = path(self.server.get("Service", name, "shop"), "status", "loadBalancer", "ingress")
        return [each["ip"] for each in cast("list[dict[str, str]]", found or [])]

    def events(self) -> set[tuple[str, str]]:
        kind = self.server.store.kind_named("Event", "events.k8s.io")
        _, found = self.server.store.matching(kind, Selection())
        said = [each.value() for each in found]
        return {(str(each.get("reason")), str(path(each, "regarding", "name"))) for each in said}

    def version(self) -> object:
        return path(self.server.get("BGPCluster", "default"), "metadata", "resourceVersion")


@pytest.fixture
def world(server: StandInApiServer) -> Cluster:
    return Cluster(server)


# -- stories ------------------------------------------------------------------------------------------


def test_reflectors_are_elected_and_become_active_when_the_agents_say_so(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster())
    for number, zone in enumerate("aab", start=1):
        server.create(node(f"n{number}", f"192.0.2.{number}", zone))
        world.reports(f"n{number}")
    start()
    eventually(lambda: list(world.reflectors().values()) == ["Starting", "Starting"])
    elected = set(world.reflectors())
    assert "n3" in elected, "one in each zone"
    assert world.condition("BGPCluster", "default", "ReflectorsReady").startswith("False NoneActive")
    for number in range(1, 4):
        world.reports(f"n{number}", *(f"192.0.2.{name[1:]}" for name in elected))
    eventually(lambda: world.reflectors() == dict.fromkeys(elected, "Active"))
    eventually(lambda: world.condition("BGPCluster", "default", "ReflectorsReady").startswith("True"))
    eventually(lambda: ("ReflectorElected", "default") in world.events())


def test_a_cordoned_reflector_is_replaced_before_it_drains(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(reflectors={"count": 1}))
    everyone = [f"192.0.2.{number}" for number in range(1, 4)]
    for number in range(1, 4):
        server.create(node(f"n{number}", f"192.0.2.{number}"))
        world.reports(f"n{number}", *everyone)
    start()
    eventually(lambda: list(world.reflectors().values()) == ["Active"])
    (first,) = world.reflectors()
    for number in range(1, 4):
        world.reports(f"n{number}", f"192.0.2.{first[1:]}")
    server.patch("Node", first, {"spec": {"unschedulable": True}})
    eventually(lambda: list(world.reflectors().values()) == ["Active", "Starting"])
    (second,) = world.reflectors().keys() - {first}
    for number in range(1, 4):
        world.reports(f"n{number}", *everyone)
    eventually(lambda: world.reflectors() == {first: "Draining", second: "Active"})


def test_a_cluster_that_is_deleted_and_made_again_has_the_same_reflectors(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(reflectors={"count": 1}))
    server.create(node("n1", "192.0.2.1"))
    world.reports("n1", "192.0.2.1")
    start()
    eventually(lambda: world.reflectors() == {"n1": "Active"})
    server.create(node("n2", "192.0.2.2"))  # a better choice, if one were to be made
    world.reports("n2", "192.0.2.1", "192.0.2.2")
    server.patch("Node", "n1", {"metadata": {"labels": {"karpenter.sh/capacity-type": "spot"}}})
    server.delete("BGPCluster", "default")
    server.create(cluster(reflectors={"count": 1}))
    eventually(lambda: bool(world.reflectors()))
    assert world.reflectors() == {"n1": "Active"}


def test_a_cluster_that_became_invalid_keeps_its_reflectors_and_gets_new_ones(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(reflectors={"count": 1}))
    for number in (1, 2):
        server.create(node(f"n{number}", f"192.0.2.{number}"))
        world.reports(f"n{number}", "192.0.2.1", "192.0.2.2")
    start()
    eventually(lambda: list(world.reflectors().values()) == ["Active"])
    (first,) = world.reflectors()
    server.patch("BGPCluster", "default", {"spec": {"asn": -1}})
    eventually(lambda: world.condition("BGPCluster", "default", "Accepted").startswith("False Invalid"))
    assert world.reflectors() == {first: "Active"}
    server.patch("Node", first, {"spec": {"unschedulable": True}})
    eventually(lambda: world.reflectors().get(first) == "Draining")
    assert "Active" in world.reflectors().values()


def test_nothing_is_written_while_nothing_changes(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(topology="fabric"))
    server.create(node("n1", "192.0.2.1"))
    server.create(custom("BGPPolicy", "all", default="Accept"))
    start()
    eventually(lambda: world.condition("BGPPolicy", "all", "Accepted").startswith("True"))
    eventually(lambda: world.condition("BGPCluster", "default", "Accepted").startswith("True"))
    time.sleep(1.5)
    before, written = (
        world.version(),
        sum(n for (verb, what), n in server.load.requests.items() if verb == "PATCH"),
    )
    server.patch("Node", "n1", {"metadata": {"labels": {"x": "y"}}})
    time.sleep(1.5)
    assert world.version() == before
    assert sum(n for (verb, what), n in server.load.requests.items() if verb == "PATCH") == written


def test_a_service_gets_an_address_keeps_it_and_loses_it_with_its_class(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(topology="fabric"))
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    server.create(custom("BGPAddressPool", "public", ranges=["203.0.113.8/31"]))
    server.create(service("one"))
    running = start()
    eventually(lambda: len(world.ingress("one")) == 1)
    (first,) = world.ingress("one")
    server.create(service("two"))
    server.create(service("three"))
    eventually(
        lambda: ("PoolExhausted", "three") in world.events() or ("PoolExhausted", "two") in world.events()
    )
    eventually(lambda: ("AddressAllocated", "one") in world.events())
    running.stop()
    other: Json = {"spec": {"type": "ClusterIP", "loadBalancerClass": None}}
    server.patch("Service", "one", other, namespace="shop")
    start()
    eventually(lambda: world.ingress("one") == [])
    eventually(lambda: first in world.ingress("two") + world.ingress("three"))
    server.patch("Service", "two", other, namespace="shop")
    eventually(lambda: world.ingress("two") == [])
    assert len(world.ingress("three")) == 1


def test_what_is_wrong_with_an_object_is_said_on_it(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(topology="fabric", passwordSecret={"name": "nodes"}))
    server.create(custom("BGPPeer", "bad", asn=65001, address="192.0.2.1", ttlSecurity=999))
    server.create(custom("BGPPeer", "tor", asn=65001, address="192.0.2.1", policies={"import": ["absent"]}))
    server.create(custom("BGPAddressPool", "inside", ranges=["10.244.7.0/24"]))
    start()
    eventually(lambda: "ttlSecurity" in world.condition("BGPPeer", "bad", "Accepted"))
    assert world.condition("BGPPeer", "bad", "Accepted").startswith("False Invalid")
    eventually(lambda: "no BGPPolicy absent" in world.condition("BGPPeer", "tor", "ReferencesFound"))
    eventually(lambda: world.condition("BGPAddressPool", "inside", "Accepted").startswith("False PoolIn"))
    eventually(lambda: "no Secret nodes" in world.condition("BGPCluster", "default", "ReferencesFound"))
    secret: Json = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "nodes", "namespace": NAMESPACE},
        "data": {"password": "eA=="},
    }
    server.create(secret)
    eventually(lambda: world.condition("BGPCluster", "default", "ReferencesFound").startswith("True"))
    server.create(custom("BGPPolicy", "absent"))
    eventually(lambda: world.condition("BGPPeer", "tor", "ReferencesFound").startswith("True"))
    assert path(server.get("BGPPeer", "tor"), "status", "observedGeneration") == 1


def test_nodes_with_the_same_router_id_are_named(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(topology="mesh"))
    server.create(node("n1", "192.0.2.1"))
    server.create(node("n2", "192.0.2.1"))
    start()
    eventually(lambda: "n2" in world.condition("BGPCluster", "default", "RouterIDsUnique"))
    eventually(lambda: {("DuplicateRouterID", "n1"), ("DuplicateRouterID", "n2")} <= world.events())
    server.delete("Node", "n2")
    eventually(lambda: world.condition("BGPCluster", "default", "RouterIDsUnique").startswith("True"))


def test_the_second_controller_takes_over_where_the_first_left(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(reflectors={"count": 1}))
    for number in (1, 2):
        server.create(node(f"n{number}", f"192.0.2.{number}"))
        world.reports(f"n{number}", "192.0.2.1", "192.0.2.2")
    first = start()
    eventually(lambda: list(world.reflectors().values()) == ["Active"])
    reflectors = world.reflectors()
    second = start()
    eventually(lambda: second.controller is not None and second.controller.state.synced)
    assert second.controller is not None
    assert not second.controller.state.leading
    version = world.version()
    first.stop()
    eventually(lambda: second.controller is not None and second.controller.state.leading)
    time.sleep(0.5)
    assert world.reflectors() == reflectors
    assert world.version() == version, "what is right already is not written again"


def test_an_api_server_that_was_away_is_caught_up_with(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(topology="fabric"))
    start()
    eventually(lambda: world.condition("BGPCluster", "default", "Accepted").startswith("True"))
    server.down()
    time.sleep(0.5)
    server.create(custom("BGPPolicy", "late"))
    server.up()
    eventually(lambda: world.condition("BGPPolicy", "late", "Accepted").startswith("True"), 20)


def test_a_conflict_is_read_again(server: StandInApiServer, world: Cluster, start: Start) -> None:
    server.create(cluster(topology="fabric"))
    server.faults.fail_next(2, 409, matching="bgpclusters/default/status")
    start()
    eventually(lambda: world.condition("BGPCluster", "default", "Accepted").startswith("True"))


def test_dedicated_reflectors_are_the_pods_of_their_deployment(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(reflectors={"mode": "Dedicated"}))
    server.create(node("n1", "192.0.2.1"))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "reflector-x",
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/component": "reflector"},
        },
        "spec": {"nodeName": "n1", "hostNetwork": True, "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "podIPs": [{"ip": "192.0.2.1"}]},
    }
    server.create(json.loads(json.dumps(pod)))
    start()
    eventually(lambda: world.reflectors() == {"n1": "Active"})
    server.delete("Pod", "reflector-x", NAMESPACE)
    eventually(lambda: world.reflectors() == {})


def test_metrics_are_served(server: StandInApiServer, tmp_path: Path) -> None:
    from urllib.request import urlopen  # noqa: PLC0415  only here

    from bgpd.config import Endpoint  # noqa: PLC0415  only here
    from routes.prefix import parse_address  # noqa: PLC0415  only here

    server.create(cluster(topology="fabric"))
    options = ControllerOptions(
        server.kubeconfig(tmp_path / "c"), metrics=Endpoint(parse_address("127.0.0.1"), 0)
    )
    running = Running(options)
    try:
        eventually(lambda: running.controller is not None and running.controller.state.leading)
        assert running.controller is not None
        metrics = running.controller._metrics  # noqa: SLF001  where it listens
        assert metrics is not None
        with urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert "podbgp_controller_leads 1.0" in text
        assert 'podbgp_controller_node_problems{reason="DuplicatePodCIDR"} 0.0' in text
        for probe in ("healthz", "readyz"):
            with urlopen(f"http://127.0.0.1:{metrics.port}/{probe}", timeout=5) as answer:
                assert answer.read() == b"ok\n"
    finally:
        running.stop()


def test_times_fit_together() -> None:
    """A write begun in the last moment of leading ends before another may lead."""
    from bgpd.kube.lease import DURATION, RENEW_DEADLINE  # noqa: PLC0415  only here

    connect = answer = module.WRITE_TIMEOUT
    assert RENEW_DEADLINE + connect + answer < DURATION


def patches(server: StandInApiServer) -> int:
    return sum(number for (verb, _), number in server.load.requests.items() if verb == "PATCH")


def test_an_api_server_that_refuses_every_status_is_not_asked_all_the_time(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(topology="fabric"))
    for number in range(20):
        server.create(custom("BGPPolicy", f"p{number}"))
    server.faults.fail_next(1000, 500, matching="/status")
    start()
    time.sleep(3)
    asked = 1000 - server.faults.pending
    assert 0 < asked < 30, "a few, and then fewer"
    server.faults.clear()
    eventually(lambda: world.condition("BGPPolicy", "p19", "Accepted").startswith("True"), 20)


def test_one_object_that_can_not_be_written_holds_up_no_other(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create(cluster(topology="fabric"))
    server.create(custom("BGPPolicy", "bad"))
    server.create(custom("BGPPolicy", "good"))
    server.faults.fail_next(1000, 422, matching="bgppolicies/bad/status")
    start()
    eventually(lambda: world.condition("BGPPolicy", "good", "Accepted").startswith("True"))
    assert world.condition("BGPPolicy", "bad", "Accepted") == ""


def test_who_can_not_renew_writes_nothing_more(
    server: StandInApiServer, world: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"DURATION": 2, "RENEW_DEADLINE": 1.0, "RETRY": 0.2}.items():
        monkeypatch.setattr(lease, name, value)
    server.create(cluster(topology="fabric"))
    running = start()
    eventually(lambda: world.condition("BGPCluster", "default", "Accepted").startswith("True"))
    server.faults.fail_next(100_000, 500, matching="leases")
    eventually(lambda: running.controller is not None and not running.controller.state.leading)
    server.create(custom("BGPPolicy", "late"))
    time.sleep(0.5)
    before = patches(server)
    time.sleep(1.0)
    assert patches(server) == before
    assert world.condition("BGPPolicy", "late", "Accepted") == ""
    server.faults.clear()
    eventually(lambda: world.condition("BGPPolicy", "late", "Accepted").startswith("True"))


def test_a_burst_of_services_is_served_within_the_budget(
    server: StandInApiServer, world: Cluster, start: Start
) -> None:
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    server.create(cluster(topology="fabric"))
    server.create(custom("BGPAddressPool", "public", ranges=["203.0.113.0/25"]))
    for number in range(100):
        server.create(service(f"s{number}"))
    start()
    eventually(lambda: all(world.ingress(f"s{number}") for number in range(100)), 15)
    given = [world.ingress(f"s{number}")[0] for number in range(100)]
    assert len(set(given)) == 100
