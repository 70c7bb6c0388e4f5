"""A stand-in for kube-scheduler: it binds the lab's pods to nodes.

It is named a fake because it looks at little: a pod goes to the node that its `nodeSelector` allows
(`kubernetes.io/hostname` names one), that is not cordoned, whose taints the pod tolerates, and that has the
fewest pods.  Resources, affinity and priorities it does not know.  `choose` is pure; the process
(`python -m bgpd.lab.fake_scheduler KUBECONFIG`) has kube-scheduler's identity and rights.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec

from bgpd.kube.client import Conflict, KubeClient, KubeError, NotFound
from bgpd.lab.kube_access import Access
from bgpd.lab.kube_certificates import Identity
from bgpd.lab.process import Process

IDENTITY = Identity("fake-scheduler", "system:kube-scheduler")
POLL = 0.2
RETRY = 1.0
BLOCKING = ("NoSchedule", "NoExecute")


class Taint(msgspec.Struct, frozen=True):
    """What keeps pods away from a node."""

    key: str
    effect: str
    value: str = ""


class Toleration(msgspec.Struct, frozen=True):
    """What a pod puts up with."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        if self.effect not in ("", taint.effect) or self.key not in ("", taint.key):
            return False
        return self.operator == "Exists" or (self.key == taint.key and self.value == taint.value)


class _Meta(msgspec.Struct):
    name: str
    namespace: str = "default"
    uid: str = ""
    labels: dict[str, str] = {}
    deletionTimestamp: str = ""  # noqa: N815 - as in the API


class NodeSpec(msgspec.Struct):
    """What is looked at."""

    unschedulable: bool = False
    taints: list[Taint] = []


class SchedulableNode(msgspec.Struct):
    """A Node."""

    metadata: _Meta
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)


class PodSpec(msgspec.Struct):
    """What is looked at."""

    nodeName: str = ""  # noqa: N815 - as in the API
    nodeSelector: dict[str, str] = {}  # noqa: N815 - as in the API
    tolerations: list[Toleration] = []
    schedulerName: str = "default-scheduler"  # noqa: N815 - as in the API


class SchedulablePod(msgspec.Struct):
    """A Pod."""

    metadata: _Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)


class _Nodes(msgspec.Struct):
    items: list[SchedulableNode] = []


class _Pods(msgspec.Struct):
    items: list[SchedulablePod] = []


def choose(
    pod: SchedulablePod, nodes: Sequence[SchedulableNode], load: Mapping[str, int]
) -> SchedulableNode | None:
    """The node for a pod, given how many pods each has; None when none will have it."""
    fit = [node for node in nodes if _fits(pod, node)]
    return min(fit, key=lambda node: (load.get(node.metadata.name, 0), node.metadata.name), default=None)


def _fits(pod: SchedulablePod, node: SchedulableNode) -> bool:
    wanted = pod.spec.nodeSelector.items()
    if (
        node.spec.unschedulable
        or node.metadata.deletionTimestamp
        or not wanted <= node.metadata.labels.items()
    ):
        return False
    blocking = [taint for taint in node.spec.taints if taint.effect in BLOCKING]
    return all(any(each.tolerates(taint) for each in pod.spec.tolerations) for taint in blocking)


class FakeScheduler:
    """The scheduler, as the lab holds it; a context manager."""

    def __init__(self, access: Access) -> None:
        """The API server must serve already."""
        argv = [sys.executable, "-m", "bgpd.lab.fake_scheduler", str(access.kubeconfig(IDENTITY))]
        self.process = Process("fake scheduler", access.namespace, argv, access.folder / "fake-scheduler.log")

    def __enter__(self) -> Self:
        self.process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()


def _schedule(client: KubeClient) -> None:
    """Bind every pod that waits and fits somewhere."""
    waiting = _pods(client, fieldSelector="spec.nodeName=")
    if not waiting:
        return
    nodes = msgspec.json.decode(client.get("/api/v1/nodes"), type=_Nodes).items
    load = Counter(pod.spec.nodeName for pod in _pods(client))
    for pod in waiting:
        node = choose(pod, nodes, load)
        if node is not None and not pod.metadata.deletionTimestamp:
            _bind(client, pod, node.metadata.name)
            load[node.metadata.name] += 1


def _pods(client: KubeClient, **query: str) -> list[SchedulablePod]:
    return msgspec.json.decode(client.get("/api/v1/pods", **query), type=_Pods).items


def _bind(client: KubeClient, pod: SchedulablePod, node: str) -> None:
    meta = pod.metadata
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    try:
        client.create(f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}/binding", binding)
    except (Conflict, NotFound) as error:
        _say(f"pod {meta.name} is not bound to {node}: {error}")
    else:
        _say(f"pod {meta.name} is bound to {node}")


def _run(kubeconfig: str) -> None:
    """Until killed."""
    client = KubeClient.load(kubeconfig)
    while True:
        try:
            _schedule(client)
            time.sleep(POLL)
        except (KubeError, msgspec.MsgspecError) as error:
            _say(str(error))
            time.sleep(RETRY)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    _run(sys.argv[1])
