"""Where no real API server was built, the lab's pods are wired all the same, by the real CNI plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from bgpd.lab import netns
from bgpd.lab.kube_ask import ask
from bgpd.lab.kube_stand_in import StandInControlPlane
from bgpd.lab.workspace import claim
from tests.kube.pod_network import PodNetwork


@pytest.fixture(scope="module")
def network() -> Iterator[PodNetwork]:
    workspace = claim("e2e")
    try:
        with StandInControlPlane(workspace) as control, PodNetwork(control, workspace) as built:
            yield built
            for process in (control.apiserver, *built.processes):
                sys.stderr.write(f"--- the end of the log of {process.name}\n{process.tail()}\n")
        assert netns.existing(workspace.namespace("control")) == []
    finally:
        workspace.remove()


def test_pods_on_two_nodes_reach_each_other_and_are_gone_when_deleted(network: PodNetwork) -> None:
    network.create_pod("client", "node1", "client")
    network.create_pod("web", "node2", "web")
    own = network.pod_addresses("client")
    client, web = network.pod_namespace("client"), network.pod_namespace("web")
    for address in network.pod_addresses("web"):
        reply = ask(client, address, 8080)
        assert (reply.pod, reply.untranslated, reply.seen in own) == ("web", True, True)
    network.delete_pod("web")
    assert netns.existing(web) == []
