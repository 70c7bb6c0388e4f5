"""Pods wired by the real CNI plugins, and services carried by the real kube-proxy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address

import pytest

from bgpd.lab import netns
from bgpd.lab.kube_ask import Reply, ask, look_up
from bgpd.lab.kube_pods import DNS_IMAGE, INGRESS_IMAGE
from bgpd.lab.plan import Address
from tests.kube.pod_network import PODS, SERVICES, Json, PodNetwork, eventually

HOST_PORT = 8088


@pytest.fixture(scope="module", autouse=True)
def pods(network: PodNetwork) -> Iterator[None]:
    """A pod on each node; the one on the second is what the service leads to."""
    network.create_pod("client", "node1", "client")
    network.create_pod("web", "node2", "web", host_port=HOST_PORT)
    yield
    network.delete_pod("web", wait=False)
    network.delete_pod("client", wait=False)


@pytest.fixture(scope="module")
def service(network: PodNetwork, pods: None) -> Iterator[Json]:
    del pods
    created = network.create_service("web", "web", "NodePort")
    network.pod_addresses("web")
    spec = created["spec"]
    assert isinstance(spec, dict)
    yield spec
    network.api.delete(f"{SERVICES}/web")


def answer(namespace: str, address: Address, port: int, protocol: str = "TCP") -> Reply:
    """Of whatever is behind an address, once kube-proxy has heard of it."""
    what = f"answer from {address} port {port} ({protocol})"
    return eventually(lambda: ask(namespace, address, port, protocol, timeout=0.5), what)


def test_a_pod_has_an_address_of_each_of_its_nodes_prefixes(network: PodNetwork) -> None:
    for pod, node in (("client", "node1"), ("web", "node2")):
        addresses = network.pod_addresses(pod)
        networks = network.pod_networks(node)
        assert [address.version for address in addresses] == [4, 6]
        assert all(address in own for address, own in zip(addresses, networks, strict=True))


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_reaches_a_pod_on_the_other_node(network: PodNetwork, version: int, protocol: str) -> None:
    (address,) = [each for each in network.pod_addresses("web") if each.version == version]
    network.pod_addresses("client")
    port = 8080 if protocol == "TCP" else 5353
    reply = ask(network.pod_namespace("client"), address, port, protocol)
    assert reply.pod == "web"
    assert reply.untranslated
    assert reply.seen in network.pod_addresses("client")


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("family", [0, 1])
def test_a_cluster_ip_leads_to_the_pod_and_keeps_the_source(
    network: PodNetwork, service: Json, family: int, protocol: str
) -> None:
    addresses = service["clusterIPs"]
    assert isinstance(addresses, list)
    network.pod_addresses("client")
    port = 80 if protocol == "TCP" else 53
    reply = answer(network.pod_namespace("client"), ip_address(addresses[family]), port, protocol)
    assert reply.pod == "web"
    assert reply.seen in network.pod_addresses("client")


@pytest.mark.parametrize("family", [0, 1])
def test_a_node_port_of_either_node_leads_to_the_pod(network: PodNetwork, service: Json, family: int) -> None:
    ports = service["ports"]
    assert isinstance(ports, list)
    for node in network.nodes:
        reply = answer(network.outsider, node.addresses[family], ports[0]["nodePort"])
        assert reply.pod == "web"


def test_a_pod_looks_a_service_up_at_the_clusters_dns(network: PodNetwork, service: Json) -> None:
    addresses = service["clusterIPs"]
    assert isinstance(addresses, list)
    zone = [f"web.default.svc={address}" for address in addresses]
    network.create_pod("dns", "node2", "dns", image=DNS_IMAGE, arguments=zone)
    spec = network.create_service("dns", "dns")["spec"]
    assert isinstance(spec, dict)
    network.pod_addresses("dns")
    client = network.pod_namespace("client")
    for server, version in ((spec["clusterIPs"][0], 6), (spec["clusterIPs"][1], 4)):
        ask_it = partial(look_up, client, ip_address(server), "web.default.svc", version, timeout=0.5)
        found = eventually(ask_it, f"answer of the DNS server at {server}")
        assert [str(each) for each in found] == [
            each for each in addresses if (":" in each) == (version == 6)
        ]
    network.delete_pod("dns", wait=False)


def test_a_proxy_in_a_pod_tells_the_service_who_the_client_is(network: PodNetwork, service: Json) -> None:
    addresses = service["clusterIPs"]
    assert isinstance(addresses, list)
    network.create_pod("proxy", "node1", "proxy", image=INGRESS_IMAGE, arguments=[f"{addresses[0]}:80"])
    proxy = network.pod_addresses("proxy")
    reply = answer(network.nodes[0].namespace, proxy[0], 8080, "HTTP")
    assert (reply.pod, reply.seen, reply.forwarded_for) == ("web", proxy[0], str(reply.own))
    network.delete_pod("proxy", wait=False)


def test_a_host_port_leads_to_the_pod_with_the_clients_address(network: PodNetwork) -> None:
    network.pod_addresses("web")
    reply = ask(network.outsider, network.nodes[1].addresses[0], HOST_PORT)
    assert reply.pod == "web"
    assert reply.untranslated


def test_a_pod_that_is_deleted_leaves_nothing(network: PodNetwork) -> None:
    network.create_pod("brief", "node1", "brief")
    address = network.pod_addresses("brief")[0]
    namespace = network.pod_namespace("brief")
    lease = network.kubelets["node1"].leases_folder / "podbgp" / str(address)
    assert lease.exists()
    network.delete_pod("brief")
    assert netns.existing(namespace) == []
    assert not lease.exists()
    routes = netns.run_in(network.nodes[0].namespace, [netns.ip_tool(), "route", "show", f"{address}"])
    assert routes == ""


def test_a_kubelet_that_dies_finds_its_pods_again(network: PodNetwork) -> None:
    network.pod_addresses("client")
    before = netns.pids(network.pod_namespace("client"))
    kubelet = network.kubelets["node1"]
    kubelet.process.kill()
    kubelet.start()
    network.create_pod("later", "node1", "later")
    network.pod_addresses("later")
    assert netns.pids(network.pod_namespace("client")) == before
    network.delete_pod("later", wait=False)


def test_pods_and_services_outlive_an_api_server_that_is_away(network: PodNetwork, service: Json) -> None:
    addresses = service["clusterIPs"]
    assert isinstance(addresses, list)
    network.pod_addresses("client")
    namespace, address = network.pod_namespace("client"), ip_address(addresses[0])
    answer(namespace, address, 80)
    network.cluster.apiserver.kill()
    try:
        assert ask(namespace, address, 80).pod == "web"
    finally:
        network.cluster.start()
    network.create_pod("after", "node1", "after")
    network.pod_addresses("after")
    network.delete_pod("after", wait=False)


def test_a_node_is_ready_only_with_a_cni_configuration(network: PodNetwork) -> None:
    def ready() -> str:
        status = network.get("/api/v1/nodes/node1")["status"]
        assert isinstance(status, dict)
        return str({each["type"]: each["status"] for each in status["conditions"]}["Ready"])

    eventually(lambda: ready() == "True", "readiness of node1")
    assert network.cni_file("node1").remove()
    eventually(lambda: ready() == "False", "end of node1's readiness")
    network.write_conflist("node1")
    eventually(lambda: ready() == "True", "readiness of node1")


def test_an_image_that_the_lab_does_not_have_is_never_run(network: PodNetwork) -> None:
    network.create_pod("stranger", "node2", "stranger", image="docker.io/library/nginx")

    def reason() -> str | None:
        status = network.get(f"{PODS}/stranger")["status"]
        assert isinstance(status, dict)
        states = [each["state"] for each in status.get("containerStatuses", [])]
        return str(states[0]["waiting"]["reason"]) if states else None

    assert eventually(reason, "reason of pod stranger") == "ErrImagePull"
    network.delete_pod("stranger", wait=False)
