"""A cluster's network keeps Kubernetes' promises.

API server, controllers, kube-proxy, CNI plugins and router are the real ones.  One cluster for all of it, as
`podbgpd lab --kubernetes` builds it; the stories that change it come last, and leave what the next one needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from bgpd.lab.control_plane import ControlPlane
from bgpd.lab.kube_cluster import KubeCluster, eventually
from bgpd.lab.kube_drain_story import drain
from bgpd.lab.kube_services_story import (
    HOST_PORT,
    Balanced,
    announce_services,
    balance,
    closed_port_is_refused,
    ingress,
    names_are_found,
    nodes_for,
    reach_all,
    shown_paths,
)
from bgpd.lab.kube_story import delete_node, every_pod_reaches_every_pod, reflectors_die_in_turn
from bgpd.lab.kube_table import table
from bgpd.lab.present import Presenter
from bgpd.lab.workspace import claim

PODS = ("pod1", "pod2", "pod3")
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
POLICIES = pytest.mark.parametrize("local", [False, True], ids=["Cluster", "Local"])


class Setting:
    """The cluster with a pod on each node, two apps, and their Services by app and policy."""

    def __init__(self, cluster: KubeCluster) -> None:
        self.cluster = cluster
        for number, pod in enumerate(PODS, start=1):
            cluster.create_pod(pod, f"node{number}")
        cluster.create_pod("web1", "node1", "web")
        cluster.create_pod("web2", "node2", "web")
        cluster.create_pod("single", "node2")
        cluster.create_pod("host", "node1", host_port=HOST_PORT)
        announce_services(cluster)
        self.services = {
            (app, local): balance(cluster, f"{app}-{'local' if local else 'cluster'}", app, local=local)
            for app in ("web", "single")
            for local in (False, True)
        }
        for pod in (*PODS, "web1", "web2", "single", "host"):
            cluster.pod_addresses(pod)

    @property
    def web(self) -> Balanced:
        return self.services["web", False]


@pytest.fixture(scope="module")
def acceptance() -> Iterator[Setting]:
    workspace = claim("kl")
    try:
        with KubeCluster(workspace, ControlPlane(workspace), services=True, outside=True) as cluster:
            try:
                cluster.start()
                yield Setting(cluster)
            finally:
                for process in (cluster.controller, *(node.agent for node in cluster.nodes.values())):
                    sys.stderr.write(f"--- the end of the log of {process.name}\n{process.tail()}\n")
    finally:
        workspace.remove()


def test_a_cluster_grows_from_an_empty_api_server(acceptance: Setting) -> None:
    cluster = acceptance.cluster
    assert len(cluster.reflectors()) == 2

    def states() -> list[list[str]] | None:
        rows = table("bgpnodestates", cluster.objects("bgpnodestates"))[1:]
        return rows if len(rows) == len(cluster.nodes) and all("True" in row for row in rows) else None

    assert [row[0] for row in eventually(states, "every node says that it is ready")] == list(cluster.nodes)


def test_every_pod_reaches_every_pod_with_its_own_address(acceptance: Setting) -> None:
    assert every_pod_reaches_every_pod(acceptance.cluster, PODS, Presenter())


@POLICIES
@pytest.mark.parametrize("app", ["web", "single"])
def test_the_router_has_a_load_balancers_address_over_the_right_nodes(
    acceptance: Setting, app: str, local: bool
) -> None:
    service = acceptance.services[app, local]
    wanted = {"web": ["node1", "node2"], "single": ["node2"]}[app] if local else ["node1", "node2", "node3"]
    assert nodes_for(acceptance.cluster, service) == wanted
    assert shown_paths(acceptance.cluster, service, Presenter())


@FAMILIES
@POLICIES
def test_a_load_balancer_leads_to_every_endpoint(acceptance: Setting, local: bool, family: int) -> None:
    address = acceptance.services["web", local].addresses[family]
    pods = {"web1", "web2"}
    assert reach_all(acceptance.cluster, "LoadBalancer", address, 80, pods, Presenter(), unchanged=local)


@FAMILIES
def test_a_cluster_ip_leads_to_every_endpoint(acceptance: Setting, family: int) -> None:
    address = acceptance.web.cluster_addresses[family]
    assert reach_all(acceptance.cluster, "ClusterIP", address, 80, {"web1", "web2"}, Presenter())


@FAMILIES
@pytest.mark.parametrize("node", ["node1", "node3"])
def test_a_node_port_leads_to_every_endpoint(acceptance: Setting, node: str, family: int) -> None:
    """Also that of a node without one."""
    address = acceptance.cluster.nodes[node].node.addresses[family]
    port = acceptance.web.node_port
    assert reach_all(acceptance.cluster, "NodePort", address, port, {"web1", "web2"}, Presenter())


@FAMILIES
def test_a_host_port_leads_to_its_pod(acceptance: Setting, family: int) -> None:
    address = acceptance.cluster.nodes["node1"].node.addresses[family]
    out = Presenter()
    assert reach_all(acceptance.cluster, "HostPort", address, HOST_PORT, {"host"}, out, unchanged=True)


def test_an_ingress_proxy_behind_a_load_balancer_leads_to_every_endpoint(acceptance: Setting) -> None:
    assert ingress(acceptance.cluster, "proxy", acceptance.web, Presenter())


def test_pods_look_names_up_at_a_cluster_ip(acceptance: Setting) -> None:
    assert names_are_found(acceptance.cluster, "pod1", acceptance.web, Presenter())


@FAMILIES
def test_a_closed_port_is_refused_and_does_not_loop(acceptance: Setting, family: int) -> None:
    assert closed_port_is_refused(acceptance.cluster, acceptance.web.addresses[family], Presenter())


def test_reflectors_die_in_turn_without_a_lost_ping(acceptance: Setting) -> None:
    assert reflectors_die_in_turn(acceptance.cluster, PODS, Presenter())


def test_a_drain_loses_no_ping_and_no_new_connection(acceptance: Setting) -> None:
    cluster, services = acceptance.cluster, list(acceptance.services.values())
    assert drain(cluster, "node2", "pod2", ("pod1", "pod3"), services, Presenter())
    assert {"web2", "single"}.isdisjoint({*cluster.ready_pods("web"), *cluster.ready_pods("single")})


def test_a_deleted_node_is_gone_everywhere_in_seconds(acceptance: Setting) -> None:

    assert delete_node(acceptance.cluster, "node3", Presenter())
