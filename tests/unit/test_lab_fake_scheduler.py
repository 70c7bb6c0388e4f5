"""Where the lab's stand-in for kube-scheduler puts pods."""

from __future__ import annotations

import msgspec
import pytest

from bgpd.lab.fake_scheduler import SchedulableNode, SchedulablePod, choose

NOT_READY = {"key": "podbgp.dev/not-ready", "effect": "NoSchedule"}


def node(name: str, **spec: object) -> SchedulableNode:
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name}}
    return msgspec.convert({"metadata": metadata, "spec": spec}, SchedulableNode)


def pod(**spec: object) -> SchedulablePod:
    return msgspec.convert({"metadata": {"name": "web"}, "spec": spec}, SchedulablePod)


NODES = [node("node1"), node("node2")]


@pytest.mark.parametrize(
    ("asked", "nodes", "load", "expected"),
    [
        (pod(), NODES, {}, "node1"),
        (pod(), NODES, {"node1": 1}, "node2"),
        (pod(nodeSelector={"kubernetes.io/hostname": "node2"}), NODES, {"node2": 9}, "node2"),
        (pod(nodeSelector={"kubernetes.io/hostname": "node3"}), NODES, {}, None),
        (pod(), [node("node1", unschedulable=True), node("node2")], {"node2": 9}, "node2"),
        (pod(), [node("node1", taints=[NOT_READY])], {}, None),
        (pod(), [node("node1", taints=[{**NOT_READY, "effect": "PreferNoSchedule"}])], {}, "node1"),
        (pod(tolerations=[{"operator": "Exists"}]), [node("node1", taints=[NOT_READY])], {}, "node1"),
        (
            pod(tolerations=[{"key": "podbgp.dev/not-ready", "value": "other"}]),
            [node("node1", taints=[NOT_READY])],
            {},
            None,
        ),
        (
            pod(tolerations=[{"key": "podbgp.dev/not-ready", "effect": "NoExecute"}]),
            [node("node1", taints=[NOT_READY])],
            {},
            None,
        ),
        (pod(), [], {}, None),
    ],
    ids=[
        "the first of equals", "the one with fewer pods", "the one that it names, however full",
        "one that is not there", "never a cordoned one", "never a tainted one", "a preference is none",
        "what it tolerates", "another value is not tolerated", "another effect is not tolerated", "no nodes",
    ],
)  # fmt: skip
def test_a_pod_is_bound_to(
    asked: SchedulablePod, nodes: list[SchedulableNode], load: dict[str, int], expected: str | None
) -> None:
    chosen = choose(asked, nodes, load)
    assert (chosen and chosen.metadata.name) == expected
