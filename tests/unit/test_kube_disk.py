"""The last intent on disk: the same when it is read again, for nobody else's eyes, and never half of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bgpd.kube.disk import IntentFile
from bgpd.kube.intent import Intent, Problem, agent_intent, reflector_intent
from routes.node_prefixes import KnownNode
from routes.own_path import OwnPath
from routes.prefix import Prefix, parse_address
from tests.unit.test_kube_intent import cluster, facts, node

SERVICE = OwnPath(Prefix.parse("203.0.113.5/32"), unreachable=False, communities=(65000 << 16 | 1,))
POD = Prefix.parse("10.244.0.0/16")
ADDRESSES = frozenset(map(parse_address, ("192.0.2.1", "2001:db8::1")))
INTENTS = [
    agent_intent(facts(cluster(), others=(node(2),))),
    reflector_intent(facts(cluster(), others=(node(2),))),
    Intent(
        agent_intent(facts(cluster())).config, (Problem("Node", "n", "NoPodCIDR", "it has none"),), (SERVICE,)
    ),
    replace(
        reflector_intent(facts(cluster())), pod_ranges=(POD,), nodes=(KnownNode("n", (POD,), ADDRESSES),)
    ),
]


@pytest.mark.parametrize("intent", INTENTS)
def test_what_was_stored_is_loaded(intent: Intent, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "intent.json"
    IntentFile(path).store(intent)
    loaded = IntentFile(path).load()
    assert loaded is not None
    assert loaded[0] == intent
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"at": 1}', b'{"at": 1, "intent": {"config": 7}}', b"\xff\xfe"]
)
def test_a_broken_file_is_no_intent(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "intent.json"
    path.write_bytes(content)
    assert IntentFile(path).load() is None


def test_a_missing_file_is_no_intent(tmp_path: Path) -> None:
    assert IntentFile(tmp_path / "none.json").load() is None


def test_an_intent_that_is_stored_already_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "intent.json"
    file = IntentFile(path)
    file.store(INTENTS[0])
    path.unlink()
    file.store(INTENTS[0])
    assert not path.exists()


def test_after_the_last_intent_none_that_a_thread_still_holds_is_stored(tmp_path: Path) -> None:
    file = IntentFile(tmp_path / "intent.json")
    file.store(INTENTS[0])
    file.close()
    file.store(INTENTS[1])
    loaded = file.load()
    assert loaded is not None
    assert loaded[0] == INTENTS[0]


def test_who_leaves_for_good_leaves_no_password_behind(tmp_path: Path) -> None:
    file = IntentFile(tmp_path / "intent.json")
    file.store(INTENTS[0])
    file.remove()
    file.store(INTENTS[1])
    assert list(tmp_path.iterdir()) == []
    file.remove()


def test_the_intent_of_a_node_whose_disk_was_cloned_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "intent.json"
    IntentFile(path, "n1").store(INTENTS[0])
    assert IntentFile(path, "n2").load() is None
    assert IntentFile(path, "n1").load() is not None
