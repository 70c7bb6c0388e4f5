"""A cluster in the lab: an API server, nodes whose agents follow it, pods through CNI plugins, services.

Owns what stands where and in which order it starts.  Everything that speaks, routes or translates is the real
program; what stands in for something says so in its name (`fake_kubelet`, `fake_scheduler`, and without
`make kube` the stand-in API server, with which there are no Services).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from api.client import Client
from bgpd.kube.client import Conflict, KubeClient, KubeError, NotFound
from bgpd.lab import kube_network
from bgpd.lab.command import LabError
from bgpd.lab.control_plane import ControlPlane
from bgpd.lab.converge import Count
from bgpd.lab.fake_scheduler import FakeScheduler
from bgpd.lab.kube_apply import Json, apply, apply_all, documents
from bgpd.lab.kube_certificates import service_account
from bgpd.lab.kube_fabric import Outside
from bgpd.lab.kube_node import NAMESPACE, Control, KubeNode
from bgpd.lab.kube_pods import ECHO_IMAGE
from bgpd.lab.kube_proxy import KubeProxy
from bgpd.lab.plan import POD_NETWORKS, Address, Fabric, Network, make_plan
from bgpd.lab.process import Process, wait_for_socket
from bgpd.lab.topology import Topology
from bgpd.lab.workspace import Workspace
from routes.peer import SessionState

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CONTROLLER = service_account(NAMESPACE, "podbgp-controller")
PATIENCE = 60.0
"""Seconds in which what the cluster should do must have happened."""
ASN = 65000
WEB = ((80, "TCP", 8080),)
"""Port, protocol and target port of most Services here."""

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, within: float = PATIENCE) -> T:
    """What `look` returns, once it is something; an answer that is an error is none yet."""
    end = time.monotonic() + within
    while True:
        try:
            found, why = look(), ""
        except (KubeError, LabError) as error:
            found, why = None, f": {error}"
        if found is not None and found is not False:
            return found
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {within:g} s{why}")
        time.sleep(0.05)


class KubeCluster:
    """The cluster; a context manager.  Once it is entered the API server serves, empty; `start` fills it."""

    def __init__(
        self,
        workspace: Workspace,
        control: Control,
        *,
        nodes: int = 3,
        topology: str = "reflector",
        outside: bool = False,
        services: bool = False,
    ) -> None:
        plan = make_plan(workspace.namespace, fabric=Fabric.MESH, nodes=nodes, pods_per_node=1)
        self.control = control
        self.workspace = workspace
        self.kind = topology
        self.network = Topology(kube_network.without_pods(plan), workspace)
        self.outside = Outside(self.network.plan, workspace) if outside else None
        self.services = services
        self.nodes: dict[str, KubeNode] = {}
        self.controller: Process
        self.api: KubeClient
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.network.build()
            stack.callback(self.network.stop)
            stack.enter_context(self.control)
            self.api = self.control.client()
            stack.callback(self.api.close)
            if self.outside is not None:
                stack.enter_context(self.outside)
            for node in self.network.plan.nodes:
                self.control.attach(node)
                zone = f"zone{node.number % 2}"
                self.nodes[node.name] = KubeNode(node, self.control, self.workspace, zone)
            self.controller = self._controller()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def leave(self) -> None:
        """Let all of it run on when the context is left."""
        self._stack.pop_all()

    # -- installing -------------------------------------------------------------------------------

    def _install(self) -> None:
        """What `kubectl apply -k deploy/kubernetes/...` brings, but for the pods that the lab runs itself."""
        if isinstance(self.control, ControlPlane):
            if not DEPLOY.is_dir():
                raise LabError(f"the definitions of podbgp's objects are missing: {DEPLOY}")
            base = DEPLOY / "kubernetes" / "base"
            files = [*sorted((DEPLOY / "crds").glob("bgp*.yaml")), base / "namespace.yaml"]
            files += [base / "agent-rbac.yaml", base / "controller-rbac.yaml"]
            for file in files:
                apply_all(self.api, documents(file))
        else:  # the real one makes this namespace itself, for the kubelets' Leases
            meta = {"name": "kube-node-lease"}
            apply(self.api, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        self.apply_cluster()

    def _controller(self) -> Process:
        argv = [sys.executable, "-m", "bgpd", "controller", "--namespace", NAMESPACE]
        argv += ["--kubeconfig", str(self.control.kubeconfig(CONTROLLER))]
        return Process("controller", self.control.namespace, argv, self.control.folder / "controller.log")

    def apply_cluster(self, **more: object) -> None:
        """The BGPCluster, with other fields of its spec where given."""
        spec: Json = {
            "asn": ASN,
            "topology": self.kind,
            "podCIDRs": [str(network) for network in POD_NETWORKS],
            "timers": {"connectRetry": 1},
        }
        if isinstance(self.control, ControlPlane):
            spec["serviceCIDRs"] = list(self.control.service_networks)
        self.apply("BGPCluster", "default", spec | more)

    def apply(self, kind: str, name: str, spec: Json) -> Json:
        """One of podbgp's own objects."""
        meta = {"name": name}
        return apply(
            self.api, {"apiVersion": "podbgp.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}
        )

    # -- running ----------------------------------------------------------------------------------

    def start(self, count: Count | None = None, within: float = PATIENCE) -> None:
        """Install podbgp and boot all nodes; returns when every Node is marked as usable.

        `count` is told how many are.  What takes long to load is started first and at once.
        """
        for node in self.nodes.values():
            self._stack.enter_context(node.kubelet)
        scheduler = self._stack.enter_context(FakeScheduler(self.control))
        self._install()
        for process in (self.controller, *(node.agent for node in self.nodes.values())):
            process.start()
            self._stack.callback(process.kill)
        self._start_proxies()
        self.wait_usable(within, count)
        scheduler.process.must_run()

    def _start_proxies(self) -> None:
        """One kube-proxy for each node; it looks for its Node once, as it starts."""
        if not (self.services and isinstance(self.control, ControlPlane)):
            return
        for node in self.nodes.values():
            eventually(partial(self.exists, f"/api/v1/nodes/{node.name}"), f"Node {node.name}")
            node.proxy = self._stack.enter_context(KubeProxy(self.control, node.node, self.workspace))

    def wait_usable(self, within: float = PATIENCE, count: Count | None = None) -> None:
        """Return when no Node has the startup taint, and each says that its network is there."""

        end = time.monotonic() + within
        while missing := [name for name in self.nodes if not self.is_usable(name)]:
            self.must_run()
            if count is not None:
                count(len(self.nodes) - len(missing), len(self.nodes))
            if time.monotonic() > end:
                raise LabError(
                    f"after {within:g} s not usable: {', '.join(missing)}\n{self._blame(missing[0])}"
                )
            time.sleep(0.05)
        if count is not None:
            count(len(self.nodes), len(self.nodes))
        for node in self.nodes.values():
            wait_for_socket(node.agent, node.socket)

    def _blame(self, name: str) -> str:
        """The end of the log of a node's agent."""
        return f"the end of its agent's log:\n{self.nodes[name].agent.tail()}"

    def is_usable(self, name: str) -> bool:
        """Whether a Node says that its network is there."""
        try:
            node = self.get(f"/api/v1/nodes/{name}")
        except KubeError:
            return False
        taints = _list(_dict(node["spec"]).get("taints"))
        conditions = {each["type"]: each["status"] for each in _list(_dict(node["status"])["conditions"])}
        tainted = any(taint["key"] == "podbgp.dev/not-ready" for taint in taints)
        return not tainted and conditions.get("NetworkUnavailable") == "False"

    def must_run(self) -> None:
        """LabError, with the end of its log, when something of ours has ended."""
        self.controller.must_run()
        for node in self.nodes.values():
            if node.agent.log.exists():
                node.agent.must_run()

    # -- objects ----------------------------------------------------------------------------------

    def get(self, path: str, **query: str) -> Json:
        value = json.loads(self.api.get(path, **query))
        return _dict(value)

    def objects(self, plural: str) -> list[Json]:
        """All of one of podbgp's kinds."""
        return _list(self.get(f"/apis/podbgp.dev/v1alpha1/{plural}")["items"])

    def exists(self, path: str) -> bool:
        try:
            self.api.get(path)
        except NotFound:
            return False
        return True

    def reflectors(self) -> list[str]:
        """The Nodes that reflect, by name."""
        status = _dict(self.get("/apis/podbgp.dev/v1alpha1/bgpclusters/default").get("status", {}))
        return [str(each["node"]) for each in _list(status.get("reflectors"))]

    def create_pod(
        self,
        name: str,
        node: str = "",
        app: str = "",
        *,
        image: str = ECHO_IMAGE,
        arguments: Sequence[str] = (),
        ports: tuple[str, ...] = ("8080/TCP", "5353/UDP"),
        host_port: int = 0,
    ) -> None:
        """A pod that answers with its name, on a node of the scheduler's choice or on a named one."""
        listed: list[Json] = []
        for port in ports:
            number, _, protocol = port.partition("/")
            listed.append({"containerPort": int(number), "protocol": protocol})
        if host_port:
            listed[0]["hostPort"] = host_port
        container = {"name": "main", "image": image, "args": list(arguments), "ports": listed}
        spec: Json = {"containers": [container]}
        if node:
            spec["nodeSelector"] = {"kubernetes.io/hostname": node}
        meta = {"name": name, "labels": {"app": app or name}}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        self.api.create("/api/v1/namespaces/default/pods", body)

    def create_service(
        self,
        name: str,
        app: str,
        kind: str = "ClusterIP",
        *,
        ports: tuple[tuple[int, str, int], ...] = WEB,
        annotations: Mapping[str, str] | None = None,
        local: bool = False,
    ) -> Json:
        """Dual-stack; ports are port, protocol, target port."""
        listed = [
            {"name": f"p{port}", "port": port, "protocol": protocol, "targetPort": target}
            for port, protocol, target in ports
        ]
        spec: Json = {
            "type": kind,
            "selector": {"app": app},
            "ports": listed,
            "ipFamilyPolicy": "RequireDualStack",
        }
        if local:
            spec["externalTrafficPolicy"] = "Local"
        meta = {"name": name, "annotations": dict(annotations or {})}
        body = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
        return _dict(json.loads(self.api.create("/api/v1/namespaces/default/services", body)))

    def pod_addresses(self, name: str, within: float = PATIENCE) -> list[Address]:
        """Of a pod, once it is ready."""

        def look() -> list[Address] | None:
            status = _dict(self.get(f"/api/v1/namespaces/default/pods/{name}")["status"])
            conditions = {each["type"]: each["status"] for each in _list(status.get("conditions"))}
            ready = conditions.get("Ready") == "True"
            return [ip_address(str(each["ip"])) for each in _list(status["podIPs"])] if ready else None

        return eventually(look, f"pod {name} is ready", within)

    def pods_on(self, name: str) -> list[str]:
        """The pods that are bound to a node, by name."""
        found = self.get("/api/v1/namespaces/default/pods", fieldSelector=f"spec.nodeName={name}")
        return [str(_dict(pod["metadata"])["name"]) for pod in _list(found["items"])]

    def ready_pods(self, app: str) -> dict[str, str]:
        """The node of each pod of an app that is ready and stays."""
        found = self.get("/api/v1/namespaces/default/pods", labelSelector=f"app={app}")
        ready = {}
        for pod in _list(found["items"]):
            meta, status = _dict(pod["metadata"]), _dict(pod["status"])
            conditions = {each["type"]: each["status"] for each in _list(status.get("conditions"))}
            if conditions.get("Ready") == "True" and "deletionTimestamp" not in meta:
                ready[str(meta["name"])] = str(_dict(pod["spec"])["nodeName"])
        return ready

    def pod_namespace(self, name: str) -> str:
        """The network namespace of a pod."""
        found = self.get(f"/api/v1/namespaces/default/pods/{name}")
        kubelet = self.nodes[str(_dict(found["spec"])["nodeName"])].kubelet
        return kubelet.pod_namespace(name, str(_dict(found["metadata"])["uid"]))

    def pod_prefixes(self, name: str) -> list[Network]:
        """A Node's podCIDRs."""
        spec = _dict(self.get(f"/api/v1/nodes/{name}")["spec"])
        cidrs = spec.get("podCIDRs")
        return [ip_network(str(each)) for each in cidrs] if isinstance(cidrs, list) else []

    def sessions_complete(self) -> bool:
        """Whether each agent has a session with every peer, and the table of each."""
        return all(self._has_everything(node) for node in self.nodes.values() if node.agent.running)

    def _has_everything(self, node: KubeNode) -> bool:
        wait_for_socket(node.agent, node.socket)
        with Client(f"unix://{node.socket}") as client:
            peers = list(client.peers())
        return bool(peers) and all(
            peer.state is SessionState.ESTABLISHED and peer.negotiated is not None
            and set(peer.end_of_rib) >= peer.negotiated.families
            for peer in peers
        )  # fmt: skip

    def stop_kubelet(self, name: str) -> None:
        """The node's kubelet dies; its pods stay."""
        self.nodes[name].kubelet.process.kill()

    def delete_pod(self, name: str) -> None:
        with suppress(NotFound):  # it has ended by itself
            self.api.delete(f"/api/v1/namespaces/default/pods/{name}")

    def cordon(self, name: str, *, cordoned: bool = True) -> None:
        """As `kubectl cordon` and `uncordon` do."""
        self._patch_node(name, {"spec": {"unschedulable": cordoned or None}})

    def _patch_node(self, name: str, body: Json) -> None:
        for _ in range(5):
            try:
                self.api.patch(f"/api/v1/nodes/{name}", body)
            except Conflict:
                continue
            return


def _dict(value: object) -> Json:
    if not isinstance(value, dict):
        raise LabError(f"the API server answered {value!r}, which is no object")
    return value


def _list(value: object) -> list[Json]:
    return [_dict(each) for each in value] if isinstance(value, list) else []
