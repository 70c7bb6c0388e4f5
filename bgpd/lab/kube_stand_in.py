"""The lab's cluster where no real API server was built: the stand-in API server in a namespace.

It has the face of `ControlPlane`, so that nodes, pods and agents are started alike on both.  It gives Nodes
their prefixes at once, knows everybody as an administrator, and has no controllers: no Service gets
endpoints, and so there is no kube-proxy with it.  Whoever shows it must say that it is a stand-in
(`description`).
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from bgpd.kube.client import KubeClient, KubeError
from bgpd.lab import kube_network, netns
from bgpd.lab.command import LabError
from bgpd.lab.kube_certificates import ADMIN, Identity
from bgpd.lab.kube_door import Door
from bgpd.lab.plan import POD_NETWORKS, Network, Node
from bgpd.lab.process import Process
from bgpd.lab.workspace import Workspace

PORT = 8001
SERVICE_NETWORK = "10.96.0.0/16"
READY_TIMEOUT = 30.0
POLL = 0.05


class StandInControlPlane:
    """A cluster on the stand-in API server; a context manager."""

    description = "a stand-in API server, without controllers and services"

    def __init__(
        self,
        workspace: Workspace,
        *,
        dual_stack: bool = True,
        pod_networks: tuple[Network, ...] = POD_NETWORKS,
    ) -> None:
        self.namespace = workspace.namespace("control")
        self.folder = workspace.folder / "control"
        self.pod_networks = pod_networks[: 2 if dual_stack else 1]
        self.server = f"http://{kube_network.CONTROL_ADDRESS}:{PORT}"
        self.door = Door(self.namespace, str(kube_network.CONTROL_ADDRESS), PORT)
        ranges = ["--pod-cidrs", ",".join(map(str, self.pod_networks)), "--service-cidr", SERVICE_NETWORK]
        listen = ["--listen", f"{kube_network.CONTROL_ADDRESS}:{PORT}"]
        argv = [sys.executable, "-m", "bgpd.lab.stand_in_api_server", *listen, *ranges]
        log = self.folder / "stand-in-api-server.log"
        self.apiserver = Process("stand-in API server", self.namespace, argv, log)
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(netns.remove, [self.namespace])
            kube_network.create_control_namespace(self.namespace)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(self.door)
            stack.callback(self.stop)
            self.start()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def start(self) -> None:
        """Start it, empty, and return when it serves."""
        self.apiserver.start()
        self.wait_ready()

    def stop(self) -> None:
        """Kill it: all that it knew is gone."""
        self.apiserver.kill()

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Return when it serves; LabError, with its log, when it is too slow."""
        end = time.monotonic() + timeout
        client = self.client(timeout=2.0)
        try:
            while not _serves(client):
                self.apiserver.must_run()
                if time.monotonic() > end:
                    raise LabError(f"{self.apiserver.name} is not ready:\n{self.apiserver.tail()}")
                time.sleep(POLL)
        finally:
            client.close()

    def attach(self, node: Node) -> None:
        """Give a node that is already built its way to the API server."""
        kube_network.attach(self.namespace, kube_network.management_link(node))

    def kubeconfig(self, identity: Identity = ADMIN) -> Path:
        """For a process on a node, or in the control plane's namespace."""
        return self._write(identity, self.server, "")

    def outside_kubeconfig(self, identity: Identity = ADMIN) -> Path:
        """For a process of this machine outside the lab's namespaces, while this one runs."""
        host, port = self.door.address
        return self._write(identity, f"http://{host}:{port}", "-outside")

    def client(self, identity: Identity = ADMIN, *, timeout: float = 20.0) -> KubeClient:
        """A client for this process; the caller closes it."""
        return KubeClient.load(str(self.outside_kubeconfig(identity)), timeout=timeout)

    def _write(self, identity: Identity, server: str, suffix: str) -> Path:
        path = self.folder / f"{identity.name}{suffix}.kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {"server": server}}],
            "users": [{"name": "lab", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        }
        path.write_text(json.dumps(content, indent=2))  # JSON is YAML
        return path


def _serves(client: KubeClient) -> bool:
    try:
        client.get("/api/v1/nodes", limit=1)
    except KubeError:
        return False
    return True
