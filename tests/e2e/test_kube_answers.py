"""What an agent answers of itself: while it waits for a cluster, when its node is ready, and of Services."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import NamedTuple

import pytest

from api.client import Client, ClientError
from bgpd.lab import netns
from bgpd.lab.kube_certificates import service_account
from bgpd.lab.kube_cluster import KubeCluster, eventually
from bgpd.lab.kube_node import KubeNode
from bgpd.lab.kube_stand_in import StandInControlPlane
from bgpd.lab.process import Process
from bgpd.lab.workspace import claim


class Answer(NamedTuple):
    status: int
    body: str


IDENTITY = service_account("podbgp-system", "podbgp-agent")
PORT, REFLECTOR_PORT, EARLY_PORT = 9179, 9180, 9279
SERVICES = "10.96.0.0/16"
ANSWERS: list[Answer | None] = []
"""What was said to /healthz while the cluster came up; None: nobody listened."""


def probe(node: KubeNode, port: int, path: str) -> Answer:
    """Ask on the node, as a kubelet does."""

    def ask() -> Answer:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        try:
            return Answer(answer.status, answer.read().decode())
        finally:
            connection.close()

    return netns.call_in(node.node.namespace, ask)


@pytest.fixture(scope="module")
def cluster() -> Iterator[KubeCluster]:
    """Two nodes, and nothing in the API server yet."""
    workspace = claim("e2e")
    try:
        with KubeCluster(workspace, StandInControlPlane(workspace), nodes=2, topology="reflector") as built:
            for node in built.nodes.values():
                for role, port in (("agent", PORT), ("reflector", REFLECTOR_PORT)):
                    path = node.folder / f"{role}.toml"
                    path.write_text(f'{path.read_text()}[metrics]\nlisten = "127.0.0.1:{port}"\n')
            yield built
            for node in built.nodes.values():
                sys.stderr.write(f"--- the end of the log of {node.name}\n{node.agent.tail()}\n")
    finally:
        workspace.remove()


@pytest.fixture(scope="module")
def node(cluster: KubeCluster) -> KubeNode:
    return cluster.nodes["node1"]


def test_an_agent_without_a_cluster_is_alive_and_says_what_it_waits_for(
    cluster: KubeCluster, node: KubeNode
) -> None:
    settings = node.folder / "early.toml"
    socket = node.folder / "early.sock"
    settings.write_text(f'[api]\nlisten = "unix://{socket}"\n[metrics]\nlisten = "127.0.0.1:{EARLY_PORT}"\n')
    command = [sys.executable, "-m", "bgpd", "agent", "--kubernetes", "--node", node.name]
    command += ["--config", str(settings), "--kubeconfig", str(cluster.control.kubeconfig(IDENTITY))]
    command += ["--state-dir", str(node.folder / "early"), "--cni-dir", str(node.folder / "early-cni")]
    early = Process("early agent", node.node.namespace, command, node.folder / "early.log")
    early.start()
    try:
        alive = eventually(lambda: _answered(node, EARLY_PORT, "/healthz"), "an answer to a probe")
        assert (alive.status, alive.body.startswith("ok, but not ready: waiting for")) == (200, True)
        waits = "waiting for the cluster's intent: there is no BGPCluster: see docs/kubernetes.md\n"
        eventually(lambda: probe(node, EARLY_PORT, "/readyz") == (503, waits), f"{waits!r} at /readyz")
        assert "podbgp_node_ready 0.0" in probe(node, EARLY_PORT, "/metrics").body
        assert probe(node, EARLY_PORT, "/metrics/reflector") == (200, "")
    finally:
        assert early.terminate() == 0, early.tail()


def _answered(node: KubeNode, port: int, path: str) -> Answer | None:
    try:
        return probe(node, port, path)
    except ConnectionRefusedError:
        return None


@pytest.fixture(scope="module")
def running(cluster: KubeCluster) -> KubeCluster:
    cluster.start(lambda *_: ANSWERS.append(_answered(cluster.nodes["node1"], PORT, "/healthz")))
    cluster.apply_cluster(serviceCIDRs=[SERVICES])
    return cluster


@pytest.mark.usefixtures("running")
def test_no_probe_finds_the_port_closed_while_the_agent_begins() -> None:
    first = next(at for at, answer in enumerate(ANSWERS) if answer is not None)
    assert None not in ANSWERS[first:]
    assert {answer.status for answer in ANSWERS[first:] if answer is not None} == {200}


def test_a_ready_node_says_so_and_from_where_it_knows(running: KubeCluster, node: KubeNode) -> None:
    assert set(running.nodes) == {"node1", "node2"}
    eventually(lambda: probe(node, PORT, "/readyz") == (200, "ok\n"), "readiness at /readyz")
    with Client(f"unix://{node.socket}") as client:
        status = client.node()
    assert status.source.value == "kubernetes"
    assert status.cluster is not None
    assert (status.cluster.node, status.cluster.problems, status.cluster.waits) == ("node1", (), "")
    assert (status.cluster.api_server.synced, status.cluster.api_server.stale) == (True, False)
    assert status.host is not None
    assert status.host.readiness == (True, True, ())
    assert (status.host.cni_written, status.host.drain.graceful_shutdown) == (True, False)


@pytest.mark.usefixtures("running")
def test_an_elected_node_shows_its_reflector_beside_itself(node: KubeNode) -> None:
    with Client(f"unix://{node.socket}") as client:

        def reflects() -> bool:
            host = client.node().host
            return host is not None and host.reflector == (True, True)

        eventually(reflects, "a reflector that runs")
    eventually(lambda: probe(node, REFLECTOR_PORT, "/readyz") == (200, "ok\n"), "a reflector that is ready")
    relayed, own = probe(node, PORT, "/metrics/reflector").body, probe(node, PORT, "/metrics").body
    assert 'role="reflector"' in relayed
    assert 'role="reflector"' not in own
    with Client(f"unix://{node.reflector_socket}") as client:
        status = client.node()
        assert (status.role, status.host) == ("reflector", None)
        with pytest.raises(ClientError, match="a reflector announces no Services"):
            client.services()


def test_why_a_service_is_not_announced_and_then_is(running: KubeCluster, node: KubeNode) -> None:
    with Client(f"unix://{node.socket}") as client:
        assert "no BGPAdvertisement selects this node" in client.services().note
        ports = [{"port": 80, "targetPort": 8080}]
        meta = {"name": "web", "namespace": "default"}
        spec = {"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": ports}
        running.api.create(
            "/api/v1/namespaces/default/services",
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec},
        )
        running.apply("BGPAdvertisement", "elsewhere", {"addresses": ["LoadBalancerIP"]})
        why = "no BGPAdvertisement selects this Service and ClusterIP"
        refused = f"ClusterIP 10.96.0.7 is not announced: {why}"
        eventually(lambda: _texts(client) == [refused], f"{refused!r}")
        assert client.service_paths() == ([], "")
        running.apply("BGPAdvertisement", "cluster", {"addresses": ["ClusterIP"]})
        eventually(lambda: _texts(client) == ["ClusterIP 10.96.0.7 is announced as 10.96.0.7/32"], "a path")
        paths, _ = client.service_paths()
        assert [str(path.nlri) for path in paths] == ["10.96.0.7/32"]


def _texts(client: Client) -> list[str]:
    return [verdict.text for verdict in client.services("default", "web").verdicts]


def test_a_cordoned_node_says_what_it_still_announces(running: KubeCluster, node: KubeNode) -> None:
    running.api.patch("/api/v1/nodes/node1", {"spec": {"unschedulable": True}})
    with Client(f"unix://{node.socket}") as client:

        def leaves() -> bool:
            host = client.node().host
            return host is not None and host.drain.graceful_shutdown

        eventually(leaves, "a node that says that it leaves")
        host = client.node().host
        assert host is not None
        assert host.drain.reason.startswith("the node is cordoned: ")
        assert host.readiness.ready, "pods that are here stay here"


def test_what_is_known_is_called_stale_when_the_api_server_is_away(
    running: KubeCluster, node: KubeNode
) -> None:
    running.control.stop()
    with Client(f"unix://{node.socket}") as client:

        def stale() -> bool:
            known = client.node().cluster
            return known is not None and known.api_server.stale

        eventually(stale, "news that are called stale")
        known = client.node().cluster
        assert known is not None
        assert known.api_server.age >= 10
        assert known.api_server.error
    assert probe(node, PORT, "/readyz") == (200, "ok\n"), "it does all that it did"
