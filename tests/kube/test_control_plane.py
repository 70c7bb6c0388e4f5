"""The lab's control plane serves, allocates, knows who asks, and comes back."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from bgpd.kube.client import KubeClient, Refused
from bgpd.lab import netns
from bgpd.lab.control_plane import SERVICE_NETWORKS, ControlPlane
from bgpd.lab.kube_certificates import Identity
from bgpd.lab.plan import POD_NETWORKS
from bgpd.lab.workspace import claim
from tests.kube.pod_network import eventually

NODES = "/api/v1/nodes"


def create_node(api: KubeClient, name: str) -> None:
    api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


@pytest.mark.usefixtures("control_plane")
def test_a_service_gets_an_address_of_each_family(api: KubeClient) -> None:
    spec = {"ports": [{"port": 80}], "ipFamilyPolicy": "RequireDualStack"}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "two-families"}, "spec": spec}
    made = json.loads(api.create("/api/v1/namespaces/default/services", body))
    addresses = [ip_address(text) for text in made["spec"]["clusterIPs"]]
    assert [address.version for address in addresses] == [4, 6]
    assert all(
        address in ip_network(network) for address, network in zip(addresses, SERVICE_NETWORKS, strict=True)
    )


@pytest.mark.usefixtures("controllers")
def test_each_node_gets_prefixes_of_its_own(api: KubeClient) -> None:
    names = ["apart-1", "apart-2"]
    for name in names:
        create_node(api, name)

    def look() -> list[str] | None:
        specs = [json.loads(api.get(f"{NODES}/{name}"))["spec"] for name in names]
        return [text for spec in specs for text in spec.get("podCIDRs", ())] or None

    given = [ip_network(text) for text in eventually(lambda: _four(look()), "podCIDRs of both")]
    for name in names:
        api.delete(f"{NODES}/{name}")
    assert [network.prefixlen for network in given] == [24, 64, 24, 64]
    assert len(set(given)) == 4
    for network in given:
        assert network.network_address in POD_NETWORKS[0 if network.version == 4 else 1]


def _four(found: list[str] | None) -> list[str] | None:
    return found if found is not None and len(found) == 4 else None


def test_a_kubelet_has_no_rights_on_another_node(control_plane: ControlPlane, api: KubeClient) -> None:
    create_node(api, "victim")
    kubelet = control_plane.client(Identity("kubelet-thief", "system:node:thief", ("system:nodes",)))
    with pytest.raises(Refused, match="victim"):
        kubelet.patch(f"{NODES}/victim", {"status": {"phase": "Running"}}, subresource="status")
    kubelet.close()
    api.delete(f"{NODES}/victim")


def test_a_killed_api_server_comes_back_with_what_it_had(
    control_plane: ControlPlane, api: KubeClient
) -> None:
    create_node(api, "survivor")
    control_plane.apiserver.kill()
    control_plane.start()
    assert json.loads(api.get(f"{NODES}/survivor"))["metadata"]["name"] == "survivor"
    api.delete(f"{NODES}/survivor")


def test_nothing_is_left_of_a_control_plane(control_plane: ControlPlane) -> None:
    workspace = claim("kube")
    try:
        components = control_plane.components
        with ControlPlane(workspace, components=components, controllers=(), dual_stack=False) as other:
            assert len(netns.pids(other.namespace)) == 2
        assert netns.existing(workspace.name) == []
        assert not other.etcd.running
        assert not other.apiserver.running
    finally:
        workspace.remove()
