"""A stand-in for the kubelet and the container runtime of one node of the lab.

It is named a fake because there are no containers: a pod is a network namespace and one small program.  All
that concerns the network is real: the Node registers itself with its addresses and the startup taint, is
Ready only while the node's CNI folder has a configuration, and renews its Lease; a pod that is bound to the
node is wired by the real CNI plugins with exactly that configuration, reported with its addresses, told to
end, unwired, and its object deleted.

It is a process in the node's network namespace (`python -m bgpd.lab.fake_kubelet FILE`), with a kubelet's
identity and so a kubelet's rights.  `FakeKubelet` is the lab's handle on it.  It must never run what a pod's
object says, only the programs that `bgpd/lab/kube_pods.py` lists.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from bgpd.kube.client import Conflict, KubeClient, KubeError, NotFound
from bgpd.lab import netns
from bgpd.lab.command import LabError, find_tool
from bgpd.lab.kube_access import Access
from bgpd.lab.kube_certificates import Identity
from bgpd.lab.kube_cni import CniRuntime, Json
from bgpd.lab.kube_pods import PROGRAMS, LabPod, condition, now, read_pods, running_status, waiting_status
from bgpd.lab.kube_sandboxes import RunningPod, Sandboxes
from bgpd.lab.plan import Address, Node
from bgpd.lab.process import Process
from bgpd.lab.workspace import Workspace

STARTUP_TAINT = "podbgp.dev/not-ready"
ZONE_LABEL = "topology.kubernetes.io/zone"
TICK = 0.1
RETRY = 1.0
"""Seconds until what failed is tried again."""
HEARTBEAT = 10.0
WATCH_TIMEOUT = 60.0


class KubeletConfig(msgspec.Struct, frozen=True):
    """What the process is told in its file."""

    node: str
    addresses: list[str]
    """InternalIPs."""
    kubeconfig: str
    folder: str
    """The node's own: `cni/net.d` in it is what the agent writes to."""
    prefix: str
    """Of its pods' network namespaces."""
    zone: str = ""


class FakeKubelet:
    """One node's kubelet, as the lab holds it; a context manager."""

    def __init__(self, access: Access, node: Node, workspace: Workspace, *, zone: str = "") -> None:
        self.node = node
        self.folder = workspace.folder / node.name
        self.cni_folder = self.folder / "cni" / "net.d"
        """Where the agent's `10-podbgp.conflist` belongs."""
        self.leases_folder = self.folder / "cni" / "leases"
        """What host-local on this node must be given as its `dataDir`."""
        self._prefix = workspace.namespace(node.name)
        self._access = access
        self._zone = zone
        self._config = self.folder / "kubelet.json"
        argv = [*_own_mounts(), sys.executable, "-m", "bgpd.lab.fake_kubelet", str(self._config)]
        self.process = Process(
            f"fake kubelet of {node.name}", node.namespace, argv, self.folder / "kubelet.log"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, as a node boots: it registers itself, and takes over pods that are still there."""
        identity = Identity(f"kubelet-{self.node.name}", f"system:node:{self.node.name}", ("system:nodes",))
        self.cni_folder.mkdir(parents=True, exist_ok=True)
        config = KubeletConfig(
            node=self.node.name,
            addresses=[str(address) for address in self.node.addresses],
            kubeconfig=str(self._access.kubeconfig(identity)),
            folder=str(self.folder),
            prefix=self._prefix,
            zone=self._zone,
        )
        self._config.write_bytes(msgspec.json.encode(config))
        self.process.start()

    def stop(self) -> None:
        """Kill it, and remove its pods."""
        self.process.kill()
        netns.remove(self.pod_namespaces())

    def pod_namespaces(self) -> list[str]:
        """The network namespaces of its pods."""
        return netns.existing(f"{self._prefix}-")

    def pod_namespace(self, pod: str, uid: str) -> str:
        """The network namespace of one of its pods."""
        return f"{self._prefix}-{pod[:40]}-{uid[:4]}"


def _own_mounts() -> list[str]:
    """`ip netns exec` gives a process mounts of its own, and namespaces named there nobody else would see."""
    return [find_tool("nsenter", "util-linux"), f"--mount=/proc/{os.getpid()}/ns/mnt"]


class _Inside:
    """The process itself."""

    def __init__(self, config: KubeletConfig) -> None:
        folder = Path(config.folder)
        self._config = config
        self._client = KubeClient.load(config.kubeconfig)
        self._addresses: list[Address] = [ip_address(text) for text in config.addresses]
        self._runtime = CniRuntime(folder / "cni" / "net.d", folder / "cni" / "results")
        self._sandboxes = Sandboxes(config.prefix, self._runtime, folder)
        self._pods: dict[str, LabPod] | None = None
        """What the API server says; None before it has said anything."""
        self._changed = threading.Event()
        self._retry_at: dict[str, float] = {}
        self._complaints: dict[str, str] = {}

    def run(self) -> None:
        """Until killed."""
        _patiently("registration", self._register)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        threading.Thread(target=self._report_node, name="node", daemon=True).start()
        while True:
            self._changed.wait(TICK)
            self._changed.clear()
            if self._pods is not None:
                self._reconcile(self._pods)

    def _reconcile(self, pods: dict[str, LabPod]) -> None:
        """One look at every pod; what fails is tried again after a while, and stops nobody else."""
        gone = self._sandboxes.vanished(pods)
        steps: list[tuple[str, Callable[[], None]]] = [
            *((pod.uid, partial(self._take, pod)) for pod in pods.values()),
            *((found.pod.uid, partial(self._end, found)) for found in self._sandboxes.over()),
            *((uid, partial(self._sandboxes.drop, uid)) for uid in gone),
        ]
        for uid, step in steps:
            if time.monotonic() < self._retry_at.get(uid, 0.0):
                continue
            try:
                step()
            except (KubeError, LabError) as error:
                self._retry_at[uid] = time.monotonic() + RETRY
                _say(f"pod {pods[uid].name if uid in pods else uid}: {error}")
        for forgotten in [uid for uid in self._retry_at if uid not in pods and uid not in gone]:
            del self._retry_at[forgotten]
        for forgotten in [uid for uid in self._complaints if uid not in pods]:
            del self._complaints[forgotten]

    def _take(self, pod: LabPod) -> None:
        """Bring one pod closer to what its object says."""
        found = self._sandboxes.running.get(pod.uid)
        if pod.deleting:
            if found is None:
                self._finish(pod)
            else:
                self._sandboxes.tell_to_end(pod.uid, pod.grace)
        elif found is None:
            if not pod.over:
                self._start(pod)
        elif not found.reported:
            self._report(found)

    def _start(self, pod: LabPod) -> None:
        if pod.image not in PROGRAMS:
            text = f"the lab has no image {pod.image!r}, only {', '.join(PROGRAMS)}"
            self._complain(pod, "ErrImagePull", text)
            return
        try:
            found = self._sandboxes.start(pod)
        except LabError as error:
            self._complain(pod, "ContainerCreating", str(error))
            return
        _say(f"pod {pod.name}: runs in {found.sandbox.netns} with {', '.join(map(str, found.addresses))}")
        self._report(found)

    def _report(self, found: RunningPod) -> None:
        """Say that it runs."""
        status = running_status(found.pod, self._addresses, found.addresses, ready=True)
        with suppress(NotFound):  # deleted meanwhile
            self._client.patch(found.pod.path, status, "strategic", subresource="status")
        found.reported = True

    def _end(self, found: RunningPod) -> None:
        self._sandboxes.drop(found.pod.uid)
        self._finish(found.pod)

    def _complain(self, pod: LabPod, reason: str, text: str) -> None:
        """Say why a pod does not start, once for each reason, and try again later."""
        self._retry_at[pod.uid] = time.monotonic() + RETRY
        if self._complaints.get(pod.uid) == text:
            return
        _say(f"pod {pod.name}: {text}")
        status = waiting_status(pod, reason, text)
        self._client.patch(pod.path, status, "strategic", subresource="status")
        self._complaints[pod.uid] = text

    def _finish(self, pod: LabPod) -> None:
        """It is unwired: its object may go."""
        _say(f"pod {pod.name}: ended")
        with suppress(NotFound, Conflict):  # gone already, or another of this name is there
            self._client.delete(pod.path, uid=pod.uid, grace=0)

    def _watch(self) -> None:
        """Read the node's pods whenever one of them changes."""
        path, query = "/api/v1/pods", {"fieldSelector": f"spec.nodeName={self._config.node}"}
        while True:
            try:
                self._pods, version = read_pods(self._client.get(path, **query))
                self._changed.set()
                self._await_change(path, {**query, "resourceVersion": version})
            except (KubeError, msgspec.MsgspecError) as error:
                _say(f"watch: {error}")
                time.sleep(RETRY)

    def _await_change(self, path: str, query: dict[str, str]) -> None:
        """Return at the first event, whatever it says: a node has few pods, so all of them are read again."""
        for lines in self._client.stream(path, query, WATCH_TIMEOUT):
            if lines:
                return

    def _report_node(self) -> None:
        """Heartbeats, and the condition Ready as soon as it changes."""
        ready, beat = False, 0.0
        while True:
            try:
                if self._runtime.ready != ready:
                    self._patch_node([self._ready_condition(ready=not ready)])
                    ready = not ready
                if time.monotonic() >= beat:
                    self._renew_lease()
                    beat = time.monotonic() + HEARTBEAT
            except KubeError as error:
                _say(f"node: {error}")
                time.sleep(RETRY)
            time.sleep(TICK)

    def _register(self) -> None:
        """As kubelets do with --register-with-taints; a Node that is there keeps its taints."""
        name = self._config.node
        zone = {ZONE_LABEL: self._config.zone} if self._config.zone else {}
        conditions = [
            condition("NetworkUnavailable", "True", "NoRouteCreated", "the network agent has not said so"),
            self._ready_condition(ready=False),
        ]
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **zone}},
            "spec": {"taints": [{"key": STARTUP_TAINT, "effect": "NoSchedule"}]},
            "status": self._node_status(conditions),
        }
        try:
            self._client.create("/api/v1/nodes", node)
        except Conflict:
            # Merged by their type, one InternalIP would be lost.
            addresses = [{"$patch": "replace"}, *self._node_addresses()]
            self._patch_node([self._ready_condition(ready=False)], {"addresses": addresses})

    def _patch_node(self, conditions: list[Json], more: Json | None = None) -> None:
        path = f"/api/v1/nodes/{self._config.node}"
        beaten = [{**each, "lastHeartbeatTime": now()} for each in conditions]
        status = {"status": {"conditions": beaten, **(more or {})}}
        self._client.patch(path, status, "strategic", subresource="status")

    def _node_status(self, conditions: list[Json]) -> Json:
        room = {"pods": "110", "cpu": "2", "memory": "4Gi"}
        return {
            "addresses": self._node_addresses(),
            "capacity": room,
            "allocatable": room,
            "conditions": [{**each, "lastHeartbeatTime": now()} for each in conditions],
        }

    def _node_addresses(self) -> list[Json]:
        internal: list[Json] = [{"type": "InternalIP", "address": str(each)} for each in self._addresses]
        return [*internal, {"type": "Hostname", "address": self._config.node}]

    def _ready_condition(self, *, ready: bool) -> Json:
        if ready:
            return condition("Ready", "True", "KubeletReady", "the lab's fake kubelet is ready")
        return condition(
            "Ready", "False", "KubeletNotReady", "network plugin not ready: no CNI configuration"
        )

    def _renew_lease(self) -> None:
        """What the controller manager judges a node's life by."""
        name = self._config.node
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": moment}
        try:
            self._client.patch(f"{leases}/{name}", {"spec": spec})
        except NotFound:
            kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
            self._client.create(leases, {**kind, "spec": spec})


def _patiently(what: str, act: Callable[[], None]) -> None:
    """Do it until the API server lets us."""
    while True:
        try:
            act()
        except KubeError as error:
            _say(f"{what}: {error}")
            time.sleep(RETRY)
        else:
            return


def _say(text: str) -> None:
    sys.stderr.write(f"{now()} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    _Inside(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=KubeletConfig)).run()
