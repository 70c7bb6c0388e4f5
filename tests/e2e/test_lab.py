"""`podbgpd lab`: it proves what it says, notices what is wrong, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.lab import netns, prove
from bgpd.lab.capture import Capture
from bgpd.lab.command import run
from bgpd.lab.plan import Fabric
from bgpd.lab.topology import Topology
from tests.e2e.conftest import MakeLab
from tests.e2e.lab_process import LAB, PROJECT, TIMEOUT, StartLab, started_labs
from tests.interop.harness.speaker import wait_until

QUICKEST = ("--fabric", "mesh", "--nodes", "2", "--pods", "1")
"""Of an option that is given twice, the last one counts."""
PROVED = "everything was proved"
STARTED = "Starting the agents"


@pytest.fixture
def start_lab(tmp_path: Path) -> Iterator[StartLab]:
    with started_labs(tmp_path, QUICKEST) as start:
        yield start


def root_namespace() -> str:
    """Everything of the root namespace that a lab could disturb."""
    shown = (["-br", "link"], ["-br", "address"], ["route", "show", "table", "all"], ["-6", "route"])
    return "\n".join(run([netns.ip_tool(), *words]) for words in shown)


@pytest.mark.parametrize("fabric", Fabric)
def test_a_lab_proves_everything_and_leaves_nothing(start_lab: StartLab, fabric: Fabric) -> None:
    before = root_namespace()
    more = ("--light-nodes", "40") if fabric is Fabric.REFLECTOR else ()
    lab = start_lab("--fabric", fabric.value, *more)
    assert lab.wait() == 0, lab.output
    assert "0 of 4 pings answered" in lab.output
    assert re.search(r"yes +every pod reaches every pod +4 of 4", lab.output)
    assert "proto 179" in lab.output
    if fabric is Fabric.REFLECTOR:
        judge_reflectors(lab.output)
    assert PROVED in lab.output
    assert "\x1b" not in lab.output  # no colours outside a terminal
    assert lab.left == []
    assert root_namespace() == before


def judge_reflectors(output: str) -> None:
    """What only that fabric shows: reflectors die and come back, and a node joins."""
    said = (
        "two route reflectors",
        "40 light nodes, which are speakers in one process without a FIB",
        "164 routes learned",
        "kill -9 reflector2 on node1: the agents have 0 sessions left",
        "node3: built, started",
        "4 agents and reflectors ran on",
    )
    assert [text for text in said if text not in output] == []
    assert re.search(r"yes +no ping was lost +\d{3,} answered, 0 lost", output)
    assert re.search(r"yes +no kernel route was deleted +0 deletions", output)


def test_two_labs_run_side_by_side(start_lab: StartLab) -> None:
    both = [start_lab(), start_lab("--ipv4-only")]
    assert [lab.wait() for lab in both] == [0, 0], "\n".join(lab.output for lab in both)
    assert both[0].name != both[1].name
    assert all(lab.left == [] for lab in both)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["Building", STARTED])
def test_an_interrupted_lab_removes_what_it_built(
    start_lab: StartLab, moment: str, number: signal.Signals
) -> None:
    lab = start_lab()
    lab.wait_for(moment)
    lab.process.send_signal(number)
    assert lab.wait() == 128 + number, lab.output
    assert f"interrupted by {number.name}" in lab.output
    assert lab.left == []


def test_a_lab_that_does_not_converge_says_what_lacks_and_is_removed(start_lab: StartLab) -> None:
    lab = start_lab("--timeout", "0")
    assert lab.wait() == 1
    assert "still lacks 10.244." in lab.output
    assert PROVED not in lab.output
    assert lab.left == []


def test_a_killed_lab_is_swept_away_by_the_next(start_lab: StartLab) -> None:
    dead = start_lab()
    dead.wait_for(STARTED)
    dead.process.kill()
    dead.wait()
    assert netns.existing(dead.name)
    following = start_lab()
    assert following.wait() == 0, following.output
    assert dead.left == []


def test_a_kept_lab_stays_until_it_is_removed(start_lab: StartLab) -> None:
    kept = start_lab("--keep")
    assert kept.wait() == 0, kept.output
    assert start_lab().wait() == 0  # which sweeps only what is dead
    commands = re.findall(r"^  \$ (.*)$", kept.output, re.MULTILINE)
    ping = next(command for command in commands if "ping" in command and "-c3" in command)
    assert "0% packet loss" in run(ping.split())
    remove = [*LAB, "--remove", kept.name]
    assert f"lab --remove {kept.name}" in commands[-1]
    subprocess.run(remove, check=True, cwd=PROJECT, capture_output=True, timeout=TIMEOUT)
    assert kept.left == []


def test_a_running_lab_is_not_removed(start_lab: StartLab) -> None:
    lab = start_lab()
    lab.wait_for(STARTED)
    remove = [*LAB, "--remove", lab.name]
    refused = subprocess.run(
        remove, cwd=PROJECT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert refused.returncode == 1
    assert f"still running as process {lab.process.pid}" in refused.stdout
    assert lab.wait() == 0, lab.output


@pytest.fixture
def dead_network(make_lab: MakeLab) -> Topology:
    """A network without agents, for what the proof must notice."""
    return make_lab(agents=False)


def test_the_proof_names_what_can_not_be_reached(dead_network: Topology) -> None:
    plan = dead_network.plan
    pods = prove.pod_hosts(plan)
    asked = prove.probes(pods, pods)
    assert not any(answer.reached for answer in prove.ping(asked, 0.3))
    for node, other in (plan.nodes, reversed(plan.nodes)):
        for network, gateway in zip(other.pod_networks, other.addresses, strict=True):
            netns.batch(node.namespace, [f"route add {network} via {gateway}"])
    netns.batch(plan.nodes[0].namespace, [f"route change unreachable {plan.nodes[1].pod_networks[0]}"])
    unreached = {a.probe.address.version for a in prove.ping(asked, 1.0) if not a.reached}
    assert unreached == {4}


def test_the_proof_notices_a_changed_source_address(dead_network: Topology) -> None:
    node, other = dead_network.plan.nodes
    pod, target = prove.pod_hosts(dead_network.plan)
    for near, far in ((node, other), (other, node)):
        netns.batch(near.namespace, [f"route add {far.pod_networks[0]} via {far.addresses[0]}"])
    probe = prove.Probe(pod, target, target.addresses[0])
    assert prove.connect([probe], 2.0)[0].unchanged
    second = node.pod_networks[0][99]
    netns.batch(node.namespace, [f"route add {second}/32 dev {node.pods[0].device} scope host"])
    netns.batch(
        pod.namespace,
        [
            netns.add_address("eth0", f"{second}/32"),
            f"route change 0.0.0.0/0 via {node.gateways[0]} dev eth0 src {second}",
        ],
    )
    answer = prove.connect([probe], 2.0)[0]
    assert (answer.reached, answer.seen, answer.unchanged) == (True, second, False)


def test_the_capture_notices_tunnels(dead_network: Topology) -> None:
    plan = dead_network.plan
    node, other = plan.nodes
    with Capture(plan.fabric_namespaces) as fabric:
        for kind, protocol, address in (
            (socket.SOCK_DGRAM, 0, (str(other.addresses[0]), 4789)),
            (socket.SOCK_RAW, 47, (str(other.addresses[0]), 0)),
        ):
            with netns.open_socket(node.namespace, socket.AF_INET, kind, protocol) as sender:
                sender.sendto(bytes(8), address)
        wait_until(lambda: _drained(fabric) == {"VXLAN": 1, "GRE": 1}, 5, lambda: str(fabric.tunnels))


def _drained(fabric: Capture) -> dict[str, int]:
    fabric.drain()
    return dict(fabric.tunnels)
