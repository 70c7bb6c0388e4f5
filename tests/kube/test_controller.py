"""The controller and an agent's state on a real API server, with the rights that deploy/ gives them.

What the stand-in can't show: that the roles are enough, that schemas take every status which is written, and
that events, Leases and status patches are what a real API server calls so.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import yaml

from bgpd import log
from bgpd.kube.client import KubeClient
from bgpd.kube.controller import Controller, ControllerOptions
from bgpd.kube.custom_state import SessionState
from bgpd.kube.errors import NotFound
from bgpd.kube.node_state import NodeFacts
from bgpd.kube.node_state_writer import NodeStateWriter
from bgpd.kube.options import DEFAULT_NAMESPACE
from bgpd.lab.control_plane import ControlPlane
from bgpd.lab.kube_certificates import Identity
from routes.prefix import parse_address
from tests.kube.api_servers import Json, at, eventually, load

ROOT = Path(__file__).parents[2]
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/podbgp.dev/v1alpha1"
SERVICES = "/api/v1/namespaces/default/services"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
FOLDERS = {
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": f"{RBAC}/namespaces/{DEFAULT_NAMESPACE}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{DEFAULT_NAMESPACE}/rolebindings",
}


def _manifests() -> Iterator[tuple[str, Json]]:
    """What a cluster needs before the controller starts, each with its collection."""
    for file in sorted((ROOT / "deploy/crds").glob("bgp*.yaml")):
        yield DEFINITIONS, yaml.safe_load(file.read_text())
    for file in sorted((ROOT / "deploy/kubernetes/base").glob("*-rbac.yaml")):
        for found in yaml.safe_load_all(file.read_text()):
            if found["kind"] in FOLDERS:
                yield FOLDERS[found["kind"]], found


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane, own_namespace: str) -> Iterator[KubeClient]:
    """The control plane with our definitions and rights, and two Nodes."""
    assert own_namespace
    client = control_plane.client()
    made: list[str] = []

    def create(folder: str, manifest: Json) -> None:
        client.create(folder, manifest)
        made.append(f"{folder}/{at(manifest, 'metadata', 'name')}")

    try:
        for folder, manifest in _manifests():
            create(folder, manifest)
        assert eventually(lambda: bool(client.get(f"{GROUP}/bgpclusters")))
        assert eventually(lambda: bool(client.get(f"{GROUP}/bgpnodestates")))
        for name, address in (("ctl-a", "192.0.2.1"), ("ctl-b", "192.0.2.2")):
            create("/api/v1/nodes", {"metadata": {"name": name}, "spec": {"unschedulable": name == "ctl-b"}})
            addresses = [{"type": "InternalIP", "address": address}]
            body = {"status": {"addresses": addresses}}
            client.patch(f"/api/v1/nodes/{name}", body, "strategic", subresource="status")
        yield client
    finally:
        for path in reversed(made):
            try:
                client.delete(path)
            except NotFound:
                continue
        client.close()


def account(control_plane: ControlPlane, name: str) -> str:
    """A kubeconfig with the rights of one of our service accounts."""
    user = f"system:serviceaccount:{DEFAULT_NAMESPACE}:{name}"
    return str(control_plane.outside_kubeconfig(Identity(name, user)))


@pytest.fixture(scope="module")
def controller(control_plane: ControlPlane, cluster: KubeClient) -> Iterator[Controller]:
    """One that runs in a thread, without a process's signals."""
    assert cluster
    log.configure("info", "text")
    found: list[Controller] = []
    started = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler = lambda *_: None  # type: ignore[method-assign]  # no main thread
        async with asyncio.TaskGroup() as tasks:
            made = Controller(ControllerOptions(account(control_plane, "podbgp-controller")), tasks)
            await made.start()
            found.append(made)
            loop.call_soon(started.set)
            await made.stopped.wait()
            await made.finish()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert started.wait(20)
    yield found[0]
    found[0]._loop.call_soon_threadsafe(found[0].stopped.set)  # noqa: SLF001  as its signal handler does
    thread.join(20)
    assert not thread.is_alive()


def custom(client: KubeClient, plural: str, kind: str, name: str, **spec: object) -> None:
    body = {"apiVersion": "podbgp.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    client.create(f"{GROUP}/{plural}", body)


def condition(client: KubeClient, plural: str, name: str, kind: str) -> str:
    found = at(load(client.get(f"{GROUP}/{plural}/{name}")), "status", "conditions")
    for each in cast("list[dict[str, str]]", found or []):
        if each["type"] == kind:
            return f"{each['status']} {each['reason']}"
    return ""


def test_it_leads_elects_and_says_what_is_wrong(
    control_plane: ControlPlane, cluster: KubeClient, controller: Controller
) -> None:
    custom(
        cluster, "bgpclusters", "BGPCluster", "default",
        asn=65000, topology="reflector", podCIDRs=["10.244.0.0/16"], passwordSecret={"name": "absent"},
    )  # fmt: skip
    assert eventually(lambda: controller.state.leading, 30)

    def reflectors() -> list[str]:
        found = at(load(cluster.get(f"{GROUP}/bgpclusters/default")), "status", "reflectors")
        return [f"{each['node']} {each['phase']}" for each in cast("list[dict[str, str]]", found or [])]

    assert eventually(lambda: reflectors() == ["ctl-a Starting"]), "ctl-b is cordoned"
    assert eventually(
        lambda: condition(cluster, "bgpclusters", "default", "ReferencesFound") == "False Missing"
    )
    writer = NodeStateWriter(
        KubeClient.load(account(control_plane, "podbgp-agent")),
        "ctl-a",
        str(at(load(cluster.get("/api/v1/nodes/ctl-a")), "metadata", "uid")),
    )
    writer.start()
    session = SessionState("192.0.2.1", 65000, "Established", received=3)
    writer.offer(NodeFacts(0xC0000201, 65000, "0.1.0", (parse_address("192.0.2.1"),), sessions=(session,)))
    try:
        assert eventually(lambda: reflectors() == ["ctl-a Active"]), writer.error
    finally:
        writer.stop()
    written = load(cluster.get(f"{GROUP}/bgpnodestates/ctl-a"))
    assert at(written, "status", "routerID") == "192.0.2.1"
    assert "ctl-a" in json.dumps(at(written, "metadata", "ownerReferences"))


def test_a_service_gets_an_address_and_an_event(cluster: KubeClient, controller: Controller) -> None:
    custom(cluster, "bgpaddresspools", "BGPAddressPool", "public", ranges=["203.0.113.8/31"])
    annotations = {"podbgp.dev/load-balancer-class": "podbgp.dev/bgp"}  # 1.20 has no loadBalancerClass
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "x"}}
    cluster.create(SERVICES, {"metadata": {"name": "ctl-web", "annotations": annotations}, "spec": spec})
    try:
        assert eventually(lambda: b"203.0.113.8" in cluster.get(f"{SERVICES}/ctl-web"))
        events = "/apis/events.k8s.io/v1/namespaces/default/events"
        assert eventually(lambda: b"AddressAllocated" in cluster.get(events))
        others = "/apis/events.k8s.io/v1/namespaces/kube-system/events"
        assert eventually(lambda: b"ReflectorActive" in cluster.get(others))
        assert eventually(lambda: condition(cluster, "bgpaddresspools", "public", "Accepted") == "True Valid")
    finally:
        cluster.delete(f"{SERVICES}/ctl-web")
    assert not controller.counts.writes["failed"]
    assert not controller.counts.events_lost


def test_an_invalid_object_is_told_so(cluster: KubeClient, controller: Controller) -> None:
    assert controller.state.leading
    custom(cluster, "bgppeers", "BGPPeer", "tor", asn=65001, address="192.0.2.9", ttlSecurity=1, multihop=2)
    assert eventually(lambda: condition(cluster, "bgppeers", "tor", "Accepted") == "False Invalid")
