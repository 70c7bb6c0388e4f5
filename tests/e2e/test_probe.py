"""The recorders, on a network that is broken on purpose: they must see what happened, and no more."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bgpd.lab import netns
from bgpd.lab.command import LabError
from bgpd.lab.kernel_routes import learned_routes
from bgpd.lab.probe import Pinger, RouteMonitor
from bgpd.lab.topology import Topology
from tests.e2e.conftest import MakeLab
from tests.interop.harness.speaker import wait_until

OUTAGE = 0.3


@pytest.fixture
def network(make_lab: MakeLab) -> Topology:
    """Two nodes with hand-made routes instead of agents."""
    topology = make_lab(agents=False)
    for node, other in (topology.plan.nodes, reversed(topology.plan.nodes)):
        for network, gateway in zip(other.pod_networks, other.addresses, strict=True):
            netns.batch(node.namespace, [f"route add {network} via {gateway} proto 179 metric 20"])
    return topology


@pytest.fixture
def ping_log(network: Topology) -> Path:
    return network.workspace.folder / "ping.log"


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_probes_of_an_outage_are_lost(network: Topology, ping_log: Path, version: int) -> None:
    node, other = network.plan.nodes
    pod, target = network.plan.pods
    address = next(address for address in target.addresses if address.version == version)
    prefix = next(prefix for prefix in other.pod_networks if prefix.version == version)
    with Pinger("outage", pod.namespace, address, ping_log) as pinger:
        time.sleep(OUTAGE)
        down = time.time()
        netns.batch(node.namespace, [f"route add blackhole {prefix} metric 1"])
        time.sleep(OUTAGE)
        netns.batch(node.namespace, [f"route del blackhole {prefix} metric 1"])
        up = time.time()
        time.sleep(OUTAGE)
        report = pinger.stop()
    assert report.lost
    assert report.lost == report.lost_between(down - 0.05, up + 0.05)
    assert report.sent - report.answered - len(report.lost) <= 1


def test_a_network_at_rest_loses_nothing_and_changes_nothing(network: Topology, ping_log: Path) -> None:
    pod, target = network.plan.pods
    with (
        RouteMonitor(network.plan.nodes[0].namespace, ping_log.with_name("monitor.log")) as monitor,
        Pinger("rest", pod.namespace, target.addresses[0], ping_log) as pinger,
    ):
        time.sleep(1)
        report = pinger.stop()
        assert report.lost == ()
        assert report.sent > 20
        assert monitor.stop() == []


def test_every_change_of_a_route_is_recorded(network: Topology, ping_log: Path) -> None:
    node, other = network.plan.nodes
    prefix = other.pod_networks[0]
    assert learned_routes(node.namespace)[prefix].gateways == {other.addresses[0]}
    with RouteMonitor(node.namespace, ping_log.with_name("monitor.log")) as monitor:
        changes = [f"route del {prefix} proto 179", f"route add unreachable {prefix} proto 179"]
        netns.batch(node.namespace, changes)
        wait_until(lambda: len(monitor.events()) == 2, 5, lambda: str(monitor.events()))
        deleted, added = monitor.stop()
    assert prefix not in learned_routes(node.namespace)
    assert (deleted.deleted, added.deleted) == (True, False)
    assert str(prefix) in deleted.text


def test_a_target_that_never_answers_is_no_measurement(
    make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgpd.lab.probe.READY_TIMEOUT", 0.3)
    topology = make_lab(agents=False)
    pod, target = topology.plan.pods
    log = topology.workspace.folder / "ping.log"
    with (
        pytest.raises(LabError, match="no answer"),
        Pinger("nobody", pod.namespace, target.addresses[0], log),
    ):
        pass
