"""SIGHUP: what changed in the file takes effect, nobody else notices, and a mistake changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bgpd.lab.topology import Topology
from routes.path import PeerName
from routes.peer import SessionState
from tests.e2e.conftest import MakeLab
from tests.e2e.network import Asked, eventually, ours
from tests.e2e.podbgp import podbgp

SECOND_NODE, THIRD_NODE = PeerName("192.0.2.12"), PeerName("192.0.2.13")
THIRD = '[[peers]]\naddress = "192.0.2.13"\nasn = 65000\nsource_address = "192.0.2.11"\n'
POD_RANGES = '"10.244.0.0/16", "fd00:10:244::/48"'


@pytest.fixture(scope="module")
def network(make_shared_lab: MakeLab) -> Topology:
    """A mesh of three; node 1 reloads, and its session with node 2 must never notice."""
    return make_shared_lab(nodes=3)


@pytest.fixture
def asked(network: Topology) -> Asked:
    return Asked(network.agents["node1"])


@pytest.fixture(autouse=True)
def config(network: Topology, asked: Asked) -> Iterator[str]:
    """Node 1's file; at the end it is in use again, and the session with node 2 is the same."""
    text = network.agents["node1"].config.read_text()
    before = ours(network.plan.nodes[0].namespace)
    assert THIRD in text
    assert len(before) == 6
    since = asked.peers()[SECOND_NODE].since
    yield text
    if network.agents["node1"].config.read_text() != text:
        asked.reload(text)
    eventually(lambda: all(peer.state is SessionState.ESTABLISHED for peer in asked.peers().values()))
    eventually(lambda: ours(network.plan.nodes[0].namespace) == before)
    assert asked.peers()[SECOND_NODE].since == pytest.approx(since, abs=0.1)
    assert asked.status().config_error == ""


def has(network: Topology, node: int, *prefixes: str) -> bool:
    """Whether a node's kernel has entries for all of these."""
    lines = ours(network.plan.nodes[node - 1].namespace)
    return all(any(f"{prefix} " in line for line in lines) for prefix in prefixes)


# -- mistakes --


MISTAKES = {
    "no TOML": ("[speaker]", "[speaker", "agent.toml"),
    "an unknown key": ("[fib]", "[fib]\nprotocoll = 5", "fib.protocoll"),
    "a wrong value": ("[fib]\nprotocol = 179", "[fib]\nprotocol = 186", "fib.protocol = 186"),
    "a prefix with host bits": ("10.244.1.0/24", "10.244.1.7/24", "agent.advertise[0]"),
    "a password file that is not there": (
        "[import]",
        f'{THIRD.replace("13", "14")}password_file = "nowhere"\n[import]',
        "peers[2].password_file",
    ),
    "what can't change at run time": ("asn = 65000\nrouter_id", "asn = 65001\nrouter_id", "speaker.asn"),
    "another metric": ("[fib]", "[fib]\nmetric = 30", "fib.metric: can't change while the daemon runs"),
}


@pytest.mark.parametrize(("old", "new", "named"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_keeps_the_configuration_and_is_told(
    network: Topology, asked: Asked, config: str, old: str, new: str, named: str
) -> None:
    named = named.replace("agent.toml", str(network.agents["node1"].config))
    peers, entries = asked.peers(), ours(network.plan.nodes[0].namespace)
    assert old in config
    logged = len(asked.log(""))
    asked.reload(config.replace(old, new, 1))
    new_lines = asked.log("")[logged:]
    (line,) = [line for line in new_lines if str(line["event"]).startswith("configuration not taken")]
    assert (line["level"], line["event"]) == (
        "warning",
        "configuration not taken: the old one stays in use",
    )
    assert named in str(line["reason"])
    assert named in asked.status().config_error
    assert named in podbgp(asked, "status")
    assert ours(network.plan.nodes[0].namespace) == entries
    assert {name: peer.since for name, peer in asked.peers().items()} == pytest.approx(
        {name: peer.since for name, peer in peers.items()}, abs=0.1
    )


# -- peers --


def test_a_peer_is_removed_and_added(network: Topology, asked: Asked, config: str) -> None:
    asked.reload(config.replace(THIRD, ""))
    eventually(lambda: not has(network, 1, "10.244.3.0/24") and not has(network, 1, "fd00:10:244:3::/64"))
    assert has(network, 1, "10.244.2.0/24", "fd00:10:244:2::/64")
    assert set(asked.peers()) == {SECOND_NODE}
    third = Asked(network.agents["node3"])
    eventually(lambda: not has(network, 3, "10.244.1.0/24"))
    error = third.peers()[PeerName("192.0.2.11")].last_error
    assert error is not None
    assert "Peer De-configured" in error.text
    asked.reload(config)
    eventually(lambda: has(network, 1, "10.244.3.0/24", "fd00:10:244:3::/64"))
    eventually(lambda: has(network, 3, "10.244.1.0/24", "fd00:10:244:1::/64"))


CHANGES = {
    "a hold time": ("hold_time = 30", True),
    "families": ('families = ["ipv4"]', True),
    "a description": ('description = "the third"', False),
    "a limit": ("max_prefixes = 100", False),
    "loops allowed": ("allowas_in = 2", False),
}


@pytest.mark.parametrize(("line", "reset"), CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_peer_is_reset_only_where_it_must(
    network: Topology, asked: Asked, config: str, line: str, reset: bool
) -> None:
    before = asked.peers()[THIRD_NODE]
    asked.reload(config.replace(THIRD, f"{THIRD}{line}\n"))
    if reset:
        eventually(lambda: asked.peers()[THIRD_NODE].counters.flaps == before.counters.flaps + 1)
    eventually(lambda: asked.peers()[THIRD_NODE].state is SessionState.ESTABLISHED)
    after = asked.peers()[THIRD_NODE]
    assert (after.since == pytest.approx(before.since, abs=0.1)) is not reset
    eventually(lambda: has(network, 1, "10.244.3.0/24"))
    assert has(network, 1, "fd00:10:244:3::/64") is ("families" not in line)
    if "hold_time" in line:
        assert after.hold_time == 30
    if "description" in line:
        assert after.description == "the third"


def test_a_peer_is_shut_down_and_comes_back(network: Topology, asked: Asked, config: str) -> None:
    asked.reload(config.replace(THIRD, f"{THIRD}shutdown = true\n"))
    eventually(lambda: asked.peers()[THIRD_NODE].admin_down)
    eventually(lambda: not has(network, 1, "10.244.3.0/24"))
    asked.reload(config)
    eventually(lambda: has(network, 1, "10.244.3.0/24", "fd00:10:244:3::/64"))


# -- prefixes --


def test_advertised_prefixes_change(network: Topology, asked: Asked, config: str) -> None:
    """A new one is announced and has its `unreachable`; one that is gone is withdrawn, and has none."""
    more = ("10.244.77.0/24", "fd00:10:244:77::/64")
    sessions = {name: peer.since for name, peer in asked.peers().items()}
    asked.reload(config.replace('advertise = ["10.244.1.0/24"', f'advertise = ["{more[0]}", "{more[1]}"'))
    for node in (2, 3):
        eventually(lambda node=node: has(network, node, *more))  # type: ignore[misc]  # a default in a lambda has no type
        eventually(lambda node=node: not has(network, node, "10.244.1.0/24"))  # type: ignore[misc]  # as above
        assert has(network, node, "fd00:10:244:1::/64")
    lines = ours(network.plan.nodes[0].namespace)
    assert sum(line.startswith("unreachable") for line in lines) == 3
    assert not any("10.244.1.0/24" in line for line in lines)
    asked.reload(config)
    for node in (2, 3):
        eventually(lambda node=node: has(network, node, "10.244.1.0/24"))  # type: ignore[misc]  # as above
        eventually(lambda node=node: not has(network, node, more[0]) and not has(network, node, more[1]))  # type: ignore[misc]  # as above
    assert {name: peer.since for name, peer in asked.peers().items()} == pytest.approx(sessions, abs=0.1)


def test_allowed_prefixes_change(network: Topology, asked: Asked, config: str) -> None:
    """What is no longer allowed leaves the kernel, and returns without a word from the peer."""
    sessions = {name: peer.since for name, peer in asked.peers().items()}
    assert POD_RANGES in config
    asked.reload(config.replace(POD_RANGES, '"10.244.2.0/23", "fd00:10:244:2::/64"'))
    eventually(lambda: not has(network, 1, "fd00:10:244:3::/64"))
    assert has(network, 1, "10.244.2.0/24", "10.244.3.0/24", "fd00:10:244:2::/64")
    assert "no import entry admits" in asked.reasons("fd00:10:244:3::/64")[THIRD_NODE]
    asked.reload(config)
    eventually(lambda: has(network, 1, "fd00:10:244:3::/64"))
    assert {name: peer.since for name, peer in asked.peers().items()} == pytest.approx(sessions, abs=0.1)
