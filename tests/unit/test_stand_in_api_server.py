"""What the stand-in API server does besides the API: what controllers do, being a process, counting load.

That it answers as the real one does is what tests/e2e/test_kube_conformance.py is for.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bgpd.kube.client import KubeClient, KubeError
from bgpd.lab.stand_in_api_server_json import PatchError, at_path, json_patched, merged, strategic
from bgpd.lab.stand_in_api_server_store import Refusal
from tests.fakes.stand_in_api_server import StandInApiServer, node


def test_nodes_get_prefixes_of_each_range_and_give_them_back() -> None:
    with StandInApiServer(pod_cidrs=("10.244.0.0/23", "fd00:244::/48")) as server:
        for name in ("a", "b", "c"):
            server.create(node(name, "192.0.2.1"))
        assert [at_path(server.get("Node", name), "spec", "podCIDRs") for name in ("a", "b", "c")] == [
            ["10.244.0.0/24", "fd00:244::/64"], ["10.244.1.0/24", "fd00:244:0:1::/64"], None,
        ]  # fmt: skip
        server.delete("Node", "a")
        server.create(node("d", "192.0.2.4"))
        assert at_path(server.get("Node", "d"), "spec", "podCIDR") == "10.244.0.0/24"


def test_what_a_node_owned_goes_with_it() -> None:
    with StandInApiServer(collect_garbage=True) as server:
        uid = at_path(server.create(node("a", "192.0.2.1")), "metadata", "uid")
        owner = {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": uid}
        state = {"apiVersion": "podbgp.dev/v1alpha1", "kind": "BGPNodeState"}
        server.create({**state, "metadata": {"name": "a", "ownerReferences": [owner]}})
        server.create({**state, "metadata": {"name": "b"}})
        server.delete("Node", "a")
        with pytest.raises(Refusal, match="not found"):
            server.get("BGPNodeState", "a")
        assert server.get("BGPNodeState", "b")


def test_it_runs_as_a_process(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    command = ["-m", "bgpd.lab.stand_in_api_server", "--listen", "[::1]:0", "--kubeconfig", str(kubeconfig)]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("stand-in API server ready at http://[::1]:")
            client = KubeClient.load(str(kubeconfig))
            assert client.text("/readyz") == "ok"
            client.close()
        finally:
            process.send_signal(signal.SIGTERM)


def test_load_is_counted_by_verb_and_resource(tmp_path: Path) -> None:
    with StandInApiServer() as server:
        client = KubeClient.load(server.kubeconfig(tmp_path / "kubeconfig"), timeout=1.0)
        client.get("/api/v1/nodes")
        with pytest.raises(KubeError):
            list(client.watch("/api/v1/nodes", {"resourceVersion": "1"}, idle=0.1))
        assert server.load.requests == {("list", "nodes"): 1, ("watch", "nodes"): 1}
        assert server.load.sent["list", "nodes"] > 50
        client.close()


def test_leaving_it_takes_no_time_while_clients_hang(tmp_path: Path) -> None:
    with StandInApiServer() as server:
        client = KubeClient.load(server.kubeconfig(tmp_path / "kubeconfig"))
        lines = client.stream("/api/v1/nodes", {"resourceVersion": "1"})
        next(lines)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2.0
    client.close()


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"c": None, "d": 3}}, {"a": 1, "b": {"d": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, 7, 7),
        ("text", {"a": {"b": None}}, {"a": {}}),
    ],
)
def test_merge_patches(target: object, patch: object, result: object) -> None:
    """RFC 7386, appendix A."""
    assert merged(target, patch) == result


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"conditions": [{"type": "A", "x": 1}]}, {"conditions": [{"type": "A", "y": 2}, {"type": "B"}]},
         {"conditions": [{"type": "A", "x": 1, "y": 2}, {"type": "B"}]}),
        ({"conditions": [{"type": "A"}, {"type": "B"}]}, {"conditions": [{"type": "A", "$patch": "delete"}]},
         {"conditions": [{"type": "B"}]}),
        ({"taints": [{"key": "a"}]}, {"taints": [{"key": "b"}]}, {"taints": [{"key": "b"}]}),
        ({"finalizers": ["a", "b"]}, {"$deleteFromPrimitiveList/finalizers": ["a"]}, {"finalizers": ["b"]}),
        ({"finalizers": ["a"]}, {"finalizers": ["b"]}, {"finalizers": ["a", "b"]}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"$patch": "replace", "b": 3}}, {"a": {"b": 3}}),
    ],
)  # fmt: skip
def test_strategic_merge_patches(target: object, patch: object, result: object) -> None:
    assert strategic(target, patch) == result


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ({"op": "add", "path": "/l/1", "value": 9}, {"l": [1, 9, 2], "a/b": {"c~": 3}}),
        ({"op": "add", "path": "/l/-", "value": 9}, {"l": [1, 2, 9], "a/b": {"c~": 3}}),
        ({"op": "remove", "path": "/l/0"}, {"l": [2], "a/b": {"c~": 3}}),
        ({"op": "replace", "path": "/a~1b/c~0", "value": 4}, {"l": [1, 2], "a/b": {"c~": 4}}),
        ({"op": "move", "from": "/l/0", "path": "/x"}, {"l": [2], "a/b": {"c~": 3}, "x": 1}),
        ({"op": "copy", "from": "/a~1b", "path": "/x"}, {"l": [1, 2], "a/b": {"c~": 3}, "x": {"c~": 3}}),
        ({"op": "test", "path": "/l", "value": [1, 2]}, {"l": [1, 2], "a/b": {"c~": 3}}),
    ],
)
def test_json_patches(operation: object, result: object) -> None:
    """RFC 6902."""
    assert json_patched({"l": [1, 2], "a/b": {"c~": 3}}, [operation]) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/l/3", "value": 9}, {"op": "remove", "path": "/none"},
        {"op": "test", "path": "/l"}, {"op": "replace", "path": "/none", "value": 1},
        {"op": "turn", "path": "/l"}, {"op": "add", "path": "l"}, 7,
    ],
)  # fmt: skip
def test_json_patches_that_do_not_apply(operation: object) -> None:
    with pytest.raises(PatchError):
        json_patched({"l": [1, 2]}, [operation])
