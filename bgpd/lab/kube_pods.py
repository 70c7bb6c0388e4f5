"""Pods as the lab's stand-in for a kubelet sees them: what it reads of them, and what it says of them.

Pure: JSON in, JSON out.  Objects come over a network, perhaps from a cluster that is not the lab's, so a pod
names one of a few programs that the lab brings (as its image) and never a command line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bgpd.lab.kube_cni import Json, Sandbox
from bgpd.lab.plan import Address

ECHO_IMAGE = "podbgp.dev/echo"
DNS_IMAGE = "podbgp.dev/dns"
INGRESS_IMAGE = "podbgp.dev/ingress"
PROGRAMS = {
    ECHO_IMAGE: Path(__file__).with_name("kube_echo.py"),
    DNS_IMAGE: Path(__file__).with_name("kube_dns.py"),
    INGRESS_IMAGE: Path(__file__).with_name("kube_ingress.py"),
}
"""What an image stands for: a Python program of the standard library alone, which is run as
`PROGRAM NAME PORTS -- ARGS` with the container's args, which are data to it."""
MOST_ARGUMENTS = 64
MOST_ARGUMENT = 512
MOST_GRACE = 60.0
_SAFE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class _Meta(msgspec.Struct):
    name: str
    namespace: str = "default"
    uid: str = ""
    deletionTimestamp: str = ""  # noqa: N815 - as in the API
    deletionGracePeriodSeconds: float = 30.0  # noqa: N815 - as in the API
    resourceVersion: str = ""  # noqa: N815 - as in the API


class _Port(msgspec.Struct):
    containerPort: int  # noqa: N815 - as in the API
    protocol: str = "TCP"
    hostPort: int = 0  # noqa: N815 - as in the API
    hostIP: str = ""  # noqa: N815 - as in the API


class _Container(msgspec.Struct):
    name: str
    image: str = ""
    ports: list[_Port] = []
    args: list[str] = []


class _Spec(msgspec.Struct):
    containers: list[_Container] = []
    hostNetwork: bool = False  # noqa: N815 - as in the API


class _Status(msgspec.Struct):
    phase: str = ""


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _PodList(msgspec.Struct):
    metadata: dict[str, object] = {}
    items: list[msgspec.Raw] = []


@dataclass(frozen=True, slots=True)
class LabPod:
    """A pod that is bound to the node."""

    namespace: str
    name: str
    uid: str
    container: str
    """The name of its first container, the only one that is run."""
    image: str
    ports: tuple[_Port, ...]
    arguments: tuple[str, ...]
    deleting: bool
    grace: float
    """Seconds that it may take to end."""
    over: bool
    """It has ended and only its object is left."""

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def sandbox(self, prefix: str) -> Sandbox:
        """Its network: namespaces of a node begin with `prefix`, and no two pods ever share one."""
        netns = f"{prefix}-{self.name[:40]}-{self.uid[:4]}"
        ports = tuple(_port_mapping(port) for port in self.ports if port.hostPort)
        return Sandbox(self.uid.replace("-", ""), netns, self.namespace, self.name, ports)

    @property
    def command_line(self) -> list[str]:
        """What its program is told: `web 8080/TCP -- ...`."""
        ports = [f"{port.containerPort}/{port.protocol}" for port in self.ports]
        return [self.name, *ports, *(["--", *self.arguments] if self.arguments else [])]


def _port_mapping(port: _Port) -> dict[str, str | int]:
    mapping: dict[str, str | int] = {
        "hostPort": port.hostPort,
        "containerPort": port.containerPort,
        "protocol": port.protocol.lower(),
    }
    return mapping | ({"hostIP": port.hostIP} if port.hostIP else {})


def read_pods(body: bytes) -> tuple[dict[str, LabPod], str]:
    """The pods of a list by UID, and the version to watch from; one that can't be read is left out."""
    listed = msgspec.json.decode(body, type=_PodList)
    pods: dict[str, LabPod] = {}
    for raw in listed.items:
        try:
            pod = _read_pod(msgspec.json.decode(raw, type=_Pod))
        except msgspec.ValidationError:
            continue
        if pod is not None:
            pods[pod.uid] = pod
    return pods, str(listed.metadata.get("resourceVersion", ""))


def _read_pod(wire: _Pod) -> LabPod | None:
    """None for a pod that is not for the lab: in the host's network, or without a container or a name."""
    meta, spec = wire.metadata, wire.spec
    names = (meta.name, meta.namespace, meta.uid)
    if spec.hostNetwork or not spec.containers or not all(map(_SAFE_NAME.fullmatch, names)):
        return None
    first = spec.containers[0]
    return LabPod(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        container=first.name,
        image=first.image,
        ports=tuple(port for port in first.ports if port.protocol in ("TCP", "UDP")),
        arguments=tuple(text[:MOST_ARGUMENT] for text in first.args[:MOST_ARGUMENTS]),
        deleting=bool(meta.deletionTimestamp),
        grace=min(meta.deletionGracePeriodSeconds, MOST_GRACE),
        over=wire.status.phase in ("Succeeded", "Failed"),
    )


def now() -> str:
    """The API's way to write a moment."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Json:
    """An entry of `status.conditions`."""
    moment = now()
    return {
        "type": kind, "status": status, "reason": reason or kind, "message": message,
        "lastTransitionTime": moment,
    }  # fmt: skip


def running_status(
    pod: LabPod, host: Sequence[Address], addresses: Sequence[Address], *, ready: bool
) -> Json:
    """What is patched into a pod that has its network and its program."""
    value = "True" if ready else "False"
    kinds = {"Initialized": "True", "Ready": value, "ContainersReady": value}
    return {
        "status": {
            "phase": "Running",
            "hostIP": str(host[0]),
            "podIP": str(addresses[0]),
            "podIPs": [{"ip": str(address)} for address in addresses],
            "startTime": now(),
            "conditions": [condition(kind, status) for kind, status in kinds.items()],
            "containerStatuses": [
                {
                    "name": pod.container, "image": pod.image, "imageID": pod.image, "restartCount": 0,
                    "ready": ready, "started": ready, "state": {"running": {"startedAt": now()}},
                }
            ],
        }
    }  # fmt: skip


def waiting_status(pod: LabPod, reason: str, message: str) -> Json:
    """What is patched into a pod that can't start yet, so that `kubectl describe` says why."""
    waiting = {"waiting": {"reason": reason, "message": message[:1000]}}
    return {
        "status": {
            "phase": "Pending",
            "containerStatuses": [
                {
                    "name": pod.container, "image": pod.image, "imageID": "", "restartCount": 0,
                    "ready": False, "state": waiting,
                }
            ],
        }
    }  # fmt: skip
