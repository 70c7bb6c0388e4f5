"""What an agent says of its Node on the Node itself: that its network is there, by a condition and a taint.

Cloud controllers and cluster tools set NetworkUnavailable and the startup taint; whoever wires the network
clears both, once it works.  Owns these two marks and no other part of the Node.  The bodies are pure;
`NodeMarks` sends them, blocks, and belongs in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from bgpd.kube.client import KubeClient
from bgpd.kube.errors import Conflict, Nonsense
from bgpd.kube.objects import STARTUP_TAINT, Node

ATTEMPTS = 3
"""At a taint that others change at the same time."""


class _Meta(msgspec.Struct):
    resourceVersion: str  # noqa: N815  as in the API


class _Spec(msgspec.Struct):
    taints: list[dict[str, object]] | None = None


class _Node(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)


_NODE = msgspec.json.Decoder(_Node)


def is_marked_ready(node: Node) -> bool:
    """Whether the Node says already that its network is there."""
    return node.network_unavailable == "False" and STARTUP_TAINT not in node.taints


def condition_patch(now: datetime, *, available: bool, message: str) -> Mapping[str, object]:
    """A strategic merge patch of the Node's status."""
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": "NetworkUnavailable",
        "status": "False" if available else "True",
        "reason": "RoutesInKernel" if available else "RoutesNotInKernel",
        "message": message,
        "lastHeartbeatTime": stamp,
        "lastTransitionTime": stamp,
    }
    return {"status": {"conditions": [condition]}}


def untaint_patch(raw: bytes) -> dict[str, object]:
    """A merge patch that takes the startup taint off a Node as just read; empty where there is none.

    Taints are one atomic list, so the patch holds only for the version that was read (else: 409).
    """
    node = _NODE.decode(raw)
    taints = node.spec.taints or []
    kept = [taint for taint in taints if taint.get("key") != STARTUP_TAINT]
    if len(kept) == len(taints):
        return {}
    return {"metadata": {"resourceVersion": node.metadata.resourceVersion}, "spec": {"taints": kept}}


class NodeMarks:
    """The marks of one Node."""

    def __init__(self, client: KubeClient, name: str) -> None:
        self._client = client
        self._path = f"/api/v1/nodes/{name}"

    def ready(self, message: str) -> None:
        """Say that the network is there; raises KubeError."""
        body = condition_patch(datetime.now(UTC), available=True, message=message)
        self._client.patch(self._path, body, "strategic", subresource="status")
        for attempt in range(ATTEMPTS):
            raw = self._client.get(self._path)
            try:
                patch = untaint_patch(raw)
            except ValueError as error:
                raise Nonsense(200, "NotANode", str(error)[:300], where=self._path) from error
            if not patch:
                return
            try:
                self._client.patch(self._path, patch, "merge")
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return
