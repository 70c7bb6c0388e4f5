"""The two marks that an agent leaves on its Node, against the stand-in API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bgpd.kube.client import KubeClient
from bgpd.kube.errors import Nonsense
from bgpd.kube.node_marks import NodeMarks, condition_patch, is_marked_ready, untaint_patch
from bgpd.kube.objects import STARTUP_TAINT, Node, decode_node
from tests.fakes.stand_in_api_server import Instead, StandInApiServer

OTHER = {"key": "other", "effect": "NoSchedule"}
OURS = {"key": STARTUP_TAINT, "effect": "NoSchedule"}


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with StandInApiServer() as server:
        yield server


@pytest.fixture
def client(server: StandInApiServer, tmp_path: Path) -> Iterator[KubeClient]:
    client = KubeClient.load(server.kubeconfig(tmp_path / "kubeconfig"))
    yield client
    client.close()


def read(client: KubeClient) -> Node:
    return decode_node(client.get("/api/v1/nodes/n1"))


def test_a_node_is_marked_as_ready_and_keeps_what_others_say_of_it(client: KubeClient) -> None:
    client.create(
        "/api/v1/nodes",
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"taints": [OTHER, OURS]}},
    )
    status = {
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "True"}]
    }
    client.patch("/api/v1/nodes/n1", {"status": status}, "strategic", subresource="status")
    assert not is_marked_ready(read(client))
    NodeMarks(client, "n1").ready("routes are in the kernel")
    marked = read(client)
    assert is_marked_ready(marked)
    assert marked.taints == {"other"}
    assert marked.ready


@pytest.mark.parametrize(
    ("taints", "kept"), [([OURS], []), ([OTHER, OURS], [OTHER]), ([OTHER], None), ([], None), (None, None)]
)
def test_only_the_startup_taint_is_taken_off_and_only_from_the_version_that_was_read(
    taints: list[dict[str, str]] | None, kept: list[dict[str, str]] | None
) -> None:
    raw = json.dumps({"metadata": {"resourceVersion": "7"}, "spec": {"taints": taints}}).encode()
    expected = {} if kept is None else {"metadata": {"resourceVersion": "7"}, "spec": {"taints": kept}}
    assert untaint_patch(raw) == expected


def test_the_condition_says_what_is_so() -> None:
    body = condition_patch(datetime(2026, 1, 2, tzinfo=UTC), available=False, message="not yet")
    assert body == {
        "status": {
            "conditions": [
                {
                    "type": "NetworkUnavailable",
                    "status": "True",
                    "reason": "RoutesNotInKernel",
                    "message": "not yet",
                    "lastHeartbeatTime": "2026-01-02T00:00:00Z",
                    "lastTransitionTime": "2026-01-02T00:00:00Z",
                }
            ]
        }
    }


def test_an_answer_that_is_no_node_is_an_error_of_the_api_server(
    server: StandInApiServer, client: KubeClient
) -> None:
    client.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    server.faults.answer_next(Instead(200, b"{}"), count=2, matching="/nodes/n1")
    with pytest.raises(Nonsense):
        NodeMarks(client, "n1").ready("routes are in the kernel")
