"""A Kubernetes control plane in a namespace of the lab: etcd, kube-apiserver, kube-controller-manager.

These are the real components (`bgpd/lab/kube_components.py` says where they come from), with certificates and
data made afresh in the lab's folder.  There is no kube-scheduler and no kubelet in it: `fake_scheduler` and
`fake_kubelet` stand in for them.  Owns the processes and their order; every one of them runs inside the
namespace, so that removing the lab ends them too, whatever became of the process that started them.

    with ControlPlane(workspace) as control:
        control.attach(node)
        client = control.client()
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from bgpd.kube.client import KubeClient, KubeError
from bgpd.lab import kube_network, netns
from bgpd.lab.command import LabError, try_run
from bgpd.lab.kube_certificates import ADMIN, ADMINS, Authority, Identity
from bgpd.lab.kube_components import Components, find_components
from bgpd.lab.kube_door import Door
from bgpd.lab.plan import POD_NETWORKS, Network, Node
from bgpd.lab.process import Process
from bgpd.lab.workspace import Workspace

API_PORT = 6443
ETCD = "http://127.0.0.1:2379"
ETCD_PEERS = "http://127.0.0.1:2380"
"""No other member: it only has to listen somewhere in its own namespace."""
SERVICE_NETWORKS = ("10.96.0.0/16", "fd00:10:96::/108")
NODE_PREFIX_LENGTHS = (24, 64)
READY_TIMEOUT = 60.0
"""Some seconds on an idle machine."""
POLL = 0.05
CONTROLLERS = (
    "nodeipam", "nodelifecycle", "endpoint", "endpointslice", "endpointslicemirroring", "namespace",
    "garbagecollector",
)  # fmt: skip
"""What pods, services and nodes need; no workload controller, since the lab creates its pods itself."""
CONTROLLER = Identity("kube-controller-manager", "system:kube-controller-manager", (ADMINS,))
"""Each controller has an account of its own in a cluster; here one identity does all their work."""


class ControlPlane:
    """One cluster's API server and what stands behind it; a context manager."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        components: Components | None = None,
        controllers: tuple[str, ...] = CONTROLLERS,
        dual_stack: bool = True,
        pod_networks: tuple[Network, ...] = POD_NETWORKS,
    ) -> None:
        """No controllers: the API server alone, as where there is no kube-controller-manager."""
        self.components = components or find_components()
        self.namespace = workspace.namespace("control")
        self.dual_stack = dual_stack
        families = 2 if dual_stack else 1
        self.pod_networks = pod_networks[:families]
        self.service_networks = SERVICE_NETWORKS[:families]
        self.folder = workspace.folder / "control"
        self.authority = Authority(self.folder / "pki")
        self.server = f"https://{kube_network.CONTROL_ADDRESS}:{API_PORT}"
        """As nodes reach it."""
        self.door = Door(self.namespace, "127.0.0.1", API_PORT)
        self.etcd = self._process("etcd", self._etcd_command())
        self.apiserver = self._process("kube-apiserver", self._apiserver_command())
        self.controller_manager: Process | None = None
        if controllers:
            self.controller_manager = self._process(
                "kube-controller-manager", self._controller_command(controllers)
            )
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(netns.remove, [self.namespace])
            kube_network.create_control_namespace(self.namespace)
            names = [f"IP:{kube_network.CONTROL_ADDRESS}", "IP:127.0.0.1", "DNS:kubernetes.default.svc"]
            self.authority.create(names)
            self.kubeconfig(CONTROLLER)
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
        """Start what is not running, and return when it serves."""
        for process in (self.etcd, self.apiserver):  # the API server itself waits for etcd
            if not process.running:
                process.start()
        self.wait_ready()
        if self.controller_manager is not None and not self.controller_manager.running:
            self.controller_manager.start()

    def stop(self) -> None:
        """Kill all of it; the namespace and the data stay until the context is left."""
        for process in (self.controller_manager, self.apiserver, self.etcd):
            if process is not None:
                process.kill()

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Return when the API server says that it is ready; LabError, with its log, when it is too slow."""
        end = time.monotonic() + timeout
        client = self.client(timeout=2.0)
        try:
            while not _is_ready(client):
                self.etcd.must_run()
                self.apiserver.must_run()
                if time.monotonic() > end:
                    raise LabError(
                        f"kube-apiserver is not ready after {timeout:g} s:\n{self.apiserver.tail()}"
                    )
                time.sleep(POLL)
        finally:
            client.close()

    @property
    def description(self) -> str:
        """What it is, for whoever looks at the lab."""
        version = ".".join(map(str, self.components.version))
        without = "" if self.controller_manager is not None else ", without controllers and services"
        return f"the real API server, version {version}{without}"

    def attach(self, node: Node) -> None:
        """Give a node that is already built its way to the API server."""
        kube_network.attach(self.namespace, kube_network.management_link(node))

    def kubeconfig(self, identity: Identity = ADMIN) -> Path:
        """For a process on a node, or in the control plane's namespace."""
        return self.authority.kubeconfig(identity, self.server)

    def outside_kubeconfig(self, identity: Identity = ADMIN) -> Path:
        """For a process of this machine outside the lab's namespaces, while this one runs."""
        host, port = self.door.address
        return self.authority.kubeconfig(identity, f"https://{host}:{port}", "-outside")

    def client(self, identity: Identity = ADMIN, *, timeout: float = 20.0) -> KubeClient:
        """A client for this process; the caller closes it."""
        return KubeClient.load(str(self.outside_kubeconfig(identity)), timeout=timeout)

    def _process(self, name: str, argv: list[str]) -> Process:
        return Process(name, self.namespace, argv, self.folder / f"{name}.log")

    def _etcd_command(self) -> list[str]:
        etcd = str(self.components.etcd)
        # Nothing here must outlive a power failure, and fsync on a busy disk costs seconds.
        quick = ["--unsafe-no-fsync"] if "unsafe-no-fsync" in try_run([etcd, "--help"]) else []
        listen = ["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]
        peers = ["--listen-peer-urls", ETCD_PEERS, "--initial-advertise-peer-urls", ETCD_PEERS]
        cluster = ["--initial-cluster", f"default={ETCD_PEERS}"]
        return [etcd, "--data-dir", str(self.folder / "etcd"), *listen, *peers, *cluster, *quick]

    def _apiserver_command(self) -> list[str]:
        authority = self.authority
        return [
            str(self.components.apiserver),
            *self.components.gates,
            f"--etcd-servers={ETCD}",
            "--bind-address=0.0.0.0",
            f"--secure-port={API_PORT}",
            f"--advertise-address={kube_network.CONTROL_ADDRESS}",
            f"--tls-cert-file={authority.server_certificate}",
            f"--tls-private-key-file={authority.server_key}",
            f"--client-ca-file={authority.certificate}",
            "--allow-privileged=true",  # as kubeadm has it: the agent's init container sets sysctls
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            # Without the controllers for them, no namespace has an account that pods could get.
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={authority.account_key}",
            f"--service-account-signing-key-file={authority.account_key}",
            f"--service-cluster-ip-range={','.join(self.service_networks)}",
            "--profiling=false",
        ]

    def _controller_command(self, controllers: tuple[str, ...]) -> list[str]:
        program = self.components.controller_manager
        if program is None:
            raise LabError(
                f"there is no kube-controller-manager beside {self.components.apiserver}: run `make kube`, "
                "or ask for no controllers"
            )
        lengths = zip(("ipv4", "ipv6"), NODE_PREFIX_LENGTHS, strict=True)
        masks = [f"--node-cidr-mask-size-{family}={length}" for family, length in lengths]
        return [
            str(program),
            *self.components.gates,
            f"--kubeconfig={self.authority.path(CONTROLLER)}",
            f"--controllers={','.join(controllers)}",
            "--leader-elect=false",
            "--allocate-node-cidrs",
            f"--cluster-cidr={','.join(map(str, self.pod_networks))}",
            f"--service-cluster-ip-range={','.join(self.service_networks)}",
            *(masks if self.dual_stack else [f"--node-cidr-mask-size={NODE_PREFIX_LENGTHS[0]}"]),
            "--profiling=false",
        ]


def _is_ready(client: KubeClient) -> bool:
    try:
        return client.text("/readyz").strip() == "ok"
    except KubeError:
        return False
