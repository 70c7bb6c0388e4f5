"""The ways to stop an agent: for a restart, for good, and for good with its routes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from bgpd.lab.process import Process
from bgpd.lab.topology import Topology
from bgpd.lab.witness import Witness
from routes.path import PeerName
from routes.peer import LastError, SessionState
from tests.e2e.conftest import MakeLab
from tests.e2e.network import Asked, eventually, foreign, ours
from tests.e2e.podbgp import podbgp, podbgpd

NODE = PeerName("192.0.2.11")
OTHERS_NETWORKS = ("10.244.1.0/24", "fd00:10:244:1::/64")


@pytest.fixture(scope="module")
def network(make_shared_lab: MakeLab) -> Topology:
    """A mesh of two; node 1 leaves, and node 2 hears of it or not."""
    return make_shared_lab()


@pytest.fixture
def namespace(network: Topology, asked: Asked, peer: Asked) -> Iterator[str]:
    """Node 1; it is back at the end, whatever happened."""
    namespace, process = network.plan.nodes[0].namespace, asked.agent.process
    before = ours(namespace)
    assert len(before) == 4
    yield namespace
    if not process.running:
        process.start()
    eventually(lambda: asked.answers() and ours(namespace) == before)
    eventually(lambda: peer.peers()[NODE].state is SessionState.ESTABLISHED)


@pytest.fixture
def asked(network: Topology) -> Asked:
    return Asked(network.agents["node1"])


@pytest.fixture
def peer(network: Topology) -> Asked:
    return Asked(network.agents["node2"])


def told(peer: Asked) -> LastError:
    """What node 2 says of the end of its session with node 1."""
    eventually(lambda: peer.peers()[NODE].state is not SessionState.ESTABLISHED)
    error = peer.peers()[NODE].last_error
    assert error is not None
    return error


def kept_by_peer(network: Topology) -> bool:
    """Whether node 2 still leads to node 1's pods."""
    lines = ours(network.plan.nodes[1].namespace)
    return all(any(f"{prefix} " in line for line in lines) for prefix in OTHERS_NETWORKS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_for_a_restart(
    network: Topology, asked: Asked, peer: Asked, namespace: str, number: signal.Signals
) -> None:
    """Entries stay, and a peer with graceful restart gets no NOTIFICATION and keeps its paths as stale."""
    before = ours(namespace)
    process = asked.agent.process
    with Witness(network) as witness:
        process.signal(number)
        assert process.wait() == 0
        assert (told(peer).text, told(peer).sent) == ("the peer closed the connection", None)
        assert [counts.stale for _, counts in peer.peers()[NODE].families] == [1, 1]
        assert ours(namespace) == before
        assert kept_by_peer(network)
        seen = witness.stop()
    assert (seen.lost, seen.deleted) == ({}, [])


def test_without_graceful_restart_a_signal_says_goodbye(
    network: Topology, asked: Asked, peer: Asked, namespace: str
) -> None:
    """The peer would drop our paths anyway; so it learns why, and at once."""
    config = asked.agent.config.read_text()
    asked.reload(config.replace("[[peers]]\n", "[[peers]]\ngraceful_restart = false\n"))
    eventually(lambda: asked.peers()[PeerName("192.0.2.12")].state is SessionState.ESTABLISHED)
    before = ours(namespace)
    asked.agent.process.signal(signal.SIGTERM)
    assert asked.agent.process.wait() == 0
    assert "Administrative Shutdown" in told(peer).text
    assert ours(namespace) == before
    eventually(lambda: not kept_by_peer(network))
    asked.agent.config.write_text(config)


def test_shutdown_says_why_and_keeps_the_kernels_routes(
    network: Topology, asked: Asked, peer: Asked, namespace: str
) -> None:
    before = ours(namespace)
    report = json.loads(podbgp(asked, "shutdown", "--message", "new kernel, böse", "--output", "json"))
    assert asked.agent.process.wait() == 0
    assert report == {"sessions_closed": 1, "entries_removed": 0, "entries_left": 4, "errors": []}
    error = told(peer)
    assert error.text == (
        'the peer sent Cease/Administrative Shutdown (6/2), as a hard reset: "new kernel, böse"'
    )
    assert (error.sent, error.code) == (False, 6)
    assert ours(namespace) == before
    eventually(lambda: not kept_by_peer(network))


def test_shutdown_with_flush_removes_our_routes_and_says_how_many(asked: Asked, namespace: str) -> None:
    theirs = foreign(namespace)
    said = podbgp(asked, "shutdown", "--flush")
    assert asked.agent.process.wait() == 0
    assert "1 session closed, 4 kernel entries removed, 0 left in place" in " ".join(said.split())
    assert (ours(namespace), foreign(namespace)) == ([], theirs)


def test_the_daemon_flushes_only_when_no_agent_runs(asked: Asked, namespace: str) -> None:
    before = ours(namespace)
    refused = podbgpd(asked.agent, "flush")
    assert refused.returncode == 1
    assert f"an agent answers at {asked.api}" in refused.stderr
    assert "podbgp shutdown --flush" in refused.stderr
    assert ours(namespace) == before
    asked.agent.process.kill()
    done = podbgpd(asked.agent, "flush")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "removed 4 routes of protocol 179 from table 254\n"
    assert ours(namespace) == []
    assert podbgpd(asked.agent, "flush").stdout == "removed 0 routes of protocol 179 from table 254\n"


def test_a_second_agent_on_the_same_socket_is_refused_and_changes_nothing(
    network: Topology, asked: Asked, namespace: str
) -> None:
    """Not even where its file says something else than that of the first."""
    second = asked.agent.config.with_name("second.toml")
    second.write_text(asked.agent.config.read_text().replace("10.244.1.0/24", "10.244.78.0/24"))
    since = asked.peers()[PeerName("192.0.2.12")].since
    log = network.workspace.folder / "second.log"
    argv = [*asked.agent.process.argv[:-1], str(second)]
    process = Process("a second agent", namespace, argv, log)
    with Witness(network) as witness:
        process.start()
        assert process.wait() == 1
        seen = witness.stop()
    (line,) = [json.loads(line) for line in log.read_text().splitlines() if '"critical"' in line]
    assert "api.listen" in line["reason"]
    assert str(asked.agent.socket) in line["reason"]
    assert "Traceback" not in log.read_text()
    assert seen.lost == {}
    assert seen.changes == {"node1": [], "node2": []}
    assert asked.peers()[PeerName("192.0.2.12")].since == pytest.approx(since, abs=0.1)


@pytest.mark.usefixtures("namespace")
def test_a_socket_that_a_killed_agent_left_is_taken_over(asked: Asked) -> None:
    asked.agent.process.kill()
    assert asked.agent.socket.exists()
    asked.agent.process.start()
    asked.wait_converged()
    assert asked.answers()
