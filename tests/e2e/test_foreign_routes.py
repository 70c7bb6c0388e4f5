"""Routes of others are left alone, whatever the agent does; routes of ours that others change are mended."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from bgpd.lab import netns
from bgpd.lab.converge import wait_converged
from bgpd.lab.probe import RouteMonitor
from bgpd.lab.topology import Topology
from tests.e2e.conftest import CONVERGED_WITHIN, MakeLab
from tests.e2e.network import SECOND, Asked, eventually, foreign, hold_for, ours, shown

GATEWAY = {4: "192.0.2.99", 6: "2001:db8::99"}
LEARNED = {4: "10.244.2.0/24", 6: "fd00:10:244:2::/64"}
OWN = {4: "10.244.1.0/24", 6: "fd00:10:244:1::/64"}
LAST_RESORT = 4278198272
LEFT_OVER = "10.96.0.0/16"
VERSIONS = (4, 6)


def others() -> list[str]:
    """Routes of other protocols, or with our protocol in another table or with another metric."""
    return [
        f"route add {prefix} via {GATEWAY[version]} {how}"
        for version in VERSIONS
        for prefix, how in (
            (LEARNED[version], "proto 186 metric 50"),
            (LEARNED[version], "proto 179 metric 21"),
            (LEARNED[version], "proto 179 metric 20 table 100"),
            (OWN[version], "proto 186 metric 3000000000"),
            (OWN[version], f"proto static metric {LAST_RESORT - 1}"),
            ({4: "10.99.0.0/16", 6: "fd99::/48"}[version], "proto 186 metric 20"),
            ({4: "10.98.0.0/16", 6: "fd98::/48"}[version], f"proto static metric {LAST_RESORT}"),
        )
    ]


@pytest.fixture(scope="module")
def network(make_shared_lab: MakeLab) -> Topology:
    """A mesh of two whose nodes had routes of others before the agents came."""
    topology = make_shared_lab(agents=False)
    hold_for(topology, 1)
    for node in topology.plan.nodes:
        netns.batch(node.namespace, others())
    topology.start_agents()
    wait_converged(topology, CONVERGED_WITHIN)
    return topology


@pytest.fixture
def namespace(network: Topology) -> Iterator[str]:
    """Node 1, which is at the end as it was."""
    namespace = network.plan.nodes[0].namespace
    before = ours(namespace), foreign(namespace)
    assert len(before[0]) == 4
    yield namespace
    eventually(lambda: (ours(namespace), foreign(namespace)) == before, lambda: str(shown(namespace)))


def podbgp(network: Topology, *words: str) -> None:
    argv = [sys.executable, "-c", "from api.cli import main; main()"]
    api = f"unix://{network.agents['node1'].socket}"
    subprocess.run([*argv, "--api", api, *words], check=True, capture_output=True, timeout=60)


def flush(network: Topology) -> str:
    agent = network.agents["node1"]
    argv = [sys.executable, "-m", "bgpd", "flush", "--config", str(agent.config)]
    return netns.run_in(agent.node.namespace, argv)


def test_routes_of_others_survive_everything(network: Topology, namespace: str) -> None:
    """Start, `kill -9`, restart, release of what was held, shutdown with a flush, `podbgpd flush`."""
    process, asked = network.agents["node1"].process, Asked(network.agents["node1"])
    theirs, log = foreign(namespace), network.workspace.folder / "monitor-foreign.log"
    assert len([line for line in theirs if "99" in line]) >= len(others())
    with RouteMonitor(namespace, log) as monitor:
        process.kill()
        netns.batch(namespace, [f"route add {LEFT_OVER} via 192.0.2.99 proto 179 metric 20"])
        process.start()
        asked.wait_converged()
        assert any(LEFT_OVER in line for line in ours(namespace))
        eventually(lambda: not any(LEFT_OVER in line for line in ours(namespace)))
        podbgp(network, "shutdown", "--flush")
        assert process.wait() == 0
        assert ours(namespace) == []
        assert foreign(namespace) == theirs
        process.start()
        asked.wait_converged()
        eventually(lambda: len(ours(namespace)) == 4)
        process.kill()
        assert flush(network).startswith("removed 4 routes of protocol 179")
        assert foreign(namespace) == theirs
        process.start()
        asked.wait_converged()
        changed = [event.text for event in monitor.stop()]
    assert changed
    assert [text for text in changed if "proto 179" not in text or "metric 21" in text] == []


MENDED = {
    "a learned entry, deleted": "route del {learned} proto 179 metric 20",
    "the own prefix, deleted": "route del unreachable {own} proto 179 metric 4278198272",
    "another gateway": "route replace {learned} via {gateway} proto 179 metric 20",
    "another type": "route replace blackhole {learned} proto 179 metric 20",
    "another metric of TCP": "route replace {learned} via {right} proto 179 metric 20 mtu 1300",
    "the own prefix, routed": "route replace {own} via {gateway} proto 179 metric 4278198272",
    "a second next hop": "route replace {learned} proto 179 metric 20 nexthop via {right} "
    "nexthop via {gateway}",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("command", MENDED.values(), ids=MENDED.keys())
def test_what_others_do_to_our_entries_is_mended_within_a_second(
    namespace: str, command: str, version: int
) -> None:
    before = ours(namespace)
    right = {4: "192.0.2.12", 6: "2001:db8::12"}[version]
    values = {"learned": LEARNED[version], "own": OWN[version], "gateway": GATEWAY[version], "right": right}
    netns.batch(namespace, [command.format(**values)])
    eventually(lambda: ours(namespace) == before, lambda: str(ours(namespace)), SECOND)


def test_what_others_add_in_our_name_goes_within_a_second(namespace: str) -> None:
    """Protocol, table and metric say that it is ours, and nobody wants it."""
    netns.batch(
        namespace,
        [
            "route add 10.97.0.0/16 via 192.0.2.99 proto 179 metric 20",
            "route add fd97::/48 via 2001:db8::99 proto 179 metric 20",
        ],
    )
    eventually(lambda: not any("97" in line for line in ours(namespace)), within=SECOND)


def place(version: int, learned: bool) -> tuple[str, str]:
    """A prefix of ours and what its place is, in the words of `ip`."""
    return (LEARNED[version], "metric 20") if learned else (OWN[version], f"metric {LAST_RESORT}")


def in_place(namespace: str, prefix: str, metric: str) -> list[str]:
    """All that a place holds."""
    lines = [f"{line} " for line in shown(namespace)]
    return [line for line in lines if f"{prefix} " in line and f"{metric} " in line]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("learned", [True, False], ids=["learned", "own"])
@pytest.mark.parametrize("protocol", ["186 (bgp)", "4 (static)", "99 (openr)"])
def test_a_foreign_route_in_our_place_stays_and_is_named(
    network: Topology, namespace: str, version: int, learned: bool, protocol: str
) -> None:
    prefix, metric = place(version, learned)
    number, asked = protocol.split(maxsplit=1)[0], Asked(network.agents["node1"])
    theirs = f"{prefix} via {GATEWAY[version]} proto {number} {metric}"
    before = in_place(namespace, prefix, metric)
    netns.batch(namespace, [f"route replace {theirs}"])
    (found,) = in_place(namespace, prefix, metric)
    eventually(lambda: protocol in asked.entry(prefix).reason, lambda: str(asked.entry(prefix)), SECOND)
    assert not asked.entry(prefix).installed
    assert sum(count.failed for count in asked.status().fib) == 1
    if (protocol, learned) == ("186 (bgp)", True):
        time.sleep(2.5)  # the first attempts to install ours come and go
    assert in_place(namespace, prefix, metric) == [found]
    netns.batch(namespace, [f"route del {theirs}"])
    eventually(lambda: in_place(namespace, prefix, metric) == before, within=SECOND)
    assert (asked.entry(prefix).installed, asked.entry(prefix).reason) == (True, "")


def test_a_foreign_route_that_was_there_first_stays(network: Topology, namespace: str) -> None:
    process, asked = network.agents["node1"].process, Asked(network.agents["node1"])
    before = ours(namespace)
    process.kill()
    places = [place(version, learned) for version in VERSIONS for learned in (True, False)]
    theirs = [
        f"{prefix} via {GATEWAY[6 if ':' in prefix else 4]} proto 186 {metric}" for prefix, metric in places
    ]
    netns.batch(namespace, [f"route replace {each}" for each in theirs])
    found = [in_place(namespace, *each) for each in places]
    process.start()
    asked.wait_converged()
    for prefix, _ in places:
        eventually(lambda prefix=prefix: "186 (bgp)" in asked.entry(prefix).reason, within=SECOND)  # type: ignore[misc]  # a default in a lambda has no type
    assert [in_place(namespace, *each) for each in places] == found
    netns.batch(namespace, [f"route del {each}" for each in theirs])
    eventually(lambda: ours(namespace) == before, lambda: str(ours(namespace)), SECOND)


def test_a_foreign_route_beside_ours_survives_a_change_of_ours(network: Topology, namespace: str) -> None:
    """IPv4 lets somebody append a route in the same place; neither a repair nor a removal takes it."""
    prefix, metric = place(4, learned=True)
    asked = Asked(network.agents["node1"])
    netns.batch(namespace, [f"route append {prefix} via {GATEWAY[4]} proto 186 {metric}"])
    (theirs,) = [line for line in in_place(namespace, prefix, metric) if "proto bgp" in line]
    netns.batch(namespace, [f"route del {prefix} proto 179 {metric}"])
    eventually(lambda: "186 (bgp)" in asked.entry(prefix).reason, within=SECOND)
    assert in_place(namespace, prefix, metric) == [theirs]
    netns.batch(namespace, [f"route del {prefix} proto 186 {metric}"])
    eventually(lambda: asked.entry(prefix).installed, within=SECOND)
