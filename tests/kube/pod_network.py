"""A small cluster: two nodes on one link, pods through the CNI plugins, services through kube-proxy.

What an agent of ours does on a node, the CNI configuration, the routes and the end of the startup taint, is
done here in its place, so that these tests show the lab's own parts alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Self, TypeVar

from bgpd.kube.client import KubeClient, KubeError, NotFound
from bgpd.lab import kube_network, netns
from bgpd.lab.command import LabError
from bgpd.lab.control_plane import ControlPlane
from bgpd.lab.fake_kubelet import STARTUP_TAINT, FakeKubelet
from bgpd.lab.fake_scheduler import FakeScheduler
from bgpd.lab.kube_pods import ECHO_IMAGE
from bgpd.lab.kube_proxy import KubeProxy
from bgpd.lab.kube_stand_in import StandInControlPlane
from bgpd.lab.plan import SHARED_DEVICE, Address, Fabric, Network, Node, make_plan
from bgpd.lab.process import Process
from bgpd.lab.topology import Topology
from bgpd.lab.workspace import Workspace
from bgpd.node import cni
from bgpd.node.cni import CniFile
from routes.prefix import Prefix

PATIENCE = 30.0
PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"

Json = dict[str, object]
T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, within: float = PATIENCE) -> T:
    """What `look` returns, once it is something; an answer that is an error is none yet."""
    end = time.monotonic() + within
    while True:
        try:
            found, why = look(), "nothing"
        except (KubeError, LabError) as error:
            found, why = None, str(error)
        if found is not None and found is not False:
            return found
        assert time.monotonic() < end, f"no {what} within {within:g} s: {why}"
        time.sleep(0.05)


class PodNetwork:
    """The cluster; a context manager."""

    def __init__(self, cluster: ControlPlane | StandInControlPlane, workspace: Workspace) -> None:
        """With kube-proxies where the cluster has controllers."""
        plan = make_plan(workspace.namespace, fabric=Fabric.MESH, nodes=2, pods_per_node=1)
        self.cluster = cluster
        self.workspace = workspace
        self.topology = Topology(kube_network.without_pods(plan), workspace)
        self.nodes = self.topology.plan.nodes
        self.kubelets: dict[str, FakeKubelet] = {}
        self.processes: list[Process] = []
        self.api: KubeClient
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.topology.build()
            stack.callback(self.topology.stop)
            self.api = self.cluster.client()
            stack.callback(self.api.close)
            self._add_outsider()
            for node in self.nodes:
                self._start_node(node, stack)
            scheduler = stack.enter_context(FakeScheduler(self.cluster))
            self.processes.append(scheduler.process)
            networks = {node.name: self.pod_networks(node.name) for node in self.nodes}
            for node in self.nodes:
                self._route(node, networks)
                self.write_conflist(node.name)
                self._declare_usable(node.name)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def outsider(self) -> str:
        """A namespace on the nodes' link that is no node: a client from outside."""
        return self.workspace.namespace("outsider")

    def pod_networks(self, node: str) -> list[Network]:
        """What a node was given; the controller manager takes 10 s before it looks at nodes at all."""

        def look() -> list[Network] | None:
            spec = self.get(f"/api/v1/nodes/{node}")["spec"]
            assert isinstance(spec, dict)
            return [ip_network(text) for text in spec["podCIDRs"]] if "podCIDRs" in spec else None

        return eventually(look, f"podCIDRs of {node}")

    def cni_file(self, node: str) -> CniFile:
        return CniFile(self.kubelets[node].cni_folder)

    def write_conflist(self, node: str) -> None:
        """With what an agent on this node would write."""
        prefixes = tuple(Prefix.parse(str(network)) for network in self.pod_networks(node))
        leases = str(self.kubelets[node].leases_folder)
        self.cni_file(node).write(cni.PodNetwork(prefixes, mtu=1500, data_folder=leases))

    def get(self, path: str) -> Json:
        value: Json = json.loads(self.api.get(path))
        return value

    def create_pod(
        self,
        name: str,
        node: str,
        app: str,
        *,
        image: str = ECHO_IMAGE,
        arguments: Sequence[str] = (),
        host_port: int = 0,
    ) -> None:
        """On TCP 8080 and UDP 5353."""
        ports: list[Json] = [{"containerPort": 8080}, {"containerPort": 5353, "protocol": "UDP"}]
        if host_port:
            ports[0]["hostPort"] = host_port
        container = {"name": "main", "image": image, "args": list(arguments), "ports": ports}
        spec = {"nodeSelector": {"kubernetes.io/hostname": node}, "containers": [container]}
        meta = {"name": name, "labels": {"app": app}}
        self.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def create_service(self, name: str, app: str, kind: str = "ClusterIP") -> Json:
        """Dual-stack, for both ports of the pods."""
        ports = [
            {"name": "web", "port": 80, "targetPort": 8080},
            {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
        ]
        spec = {
            "type": kind, "selector": {"app": app}, "ports": ports, "ipFamilyPolicy": "RequireDualStack",
        }  # fmt: skip
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
        value: Json = json.loads(self.api.create(SERVICES, body))
        return value

    def pod_addresses(self, name: str) -> list[Address]:
        """Of a pod, once it is ready."""

        def look() -> list[Address] | None:
            status = self.get(f"{PODS}/{name}")["status"]
            assert isinstance(status, dict)
            conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
            ready = conditions.get("Ready") == "True"
            return [ip_address(each["ip"]) for each in status["podIPs"]] if ready else None

        return eventually(look, f"readiness of pod {name}")

    def pod_namespace(self, name: str) -> str:
        found = self.get(f"{PODS}/{name}")
        meta, spec = found["metadata"], found["spec"]
        assert isinstance(meta, dict)
        assert isinstance(spec, dict)
        return self.kubelets[spec["nodeName"]].pod_namespace(name, meta["uid"])

    def delete_pod(self, name: str, *, wait: bool = True) -> None:
        """And return when its object is gone, which takes as long as its program goes on serving."""
        self.api.delete(f"{PODS}/{name}")
        if wait:
            eventually(lambda: self.is_gone(f"{PODS}/{name}"), f"end of pod {name}")

    def is_gone(self, path: str) -> bool:
        try:
            self.api.get(path)
        except NotFound:
            return True
        return False

    def _start_node(self, node: Node, stack: ExitStack) -> None:
        self.cluster.attach(node)
        kubelet = stack.enter_context(FakeKubelet(self.cluster, node, self.workspace))
        self.kubelets[node.name] = kubelet
        self.processes.append(kubelet.process)
        eventually(lambda: self.api.get(f"/api/v1/nodes/{node.name}"), f"Node {node.name}")
        if isinstance(self.cluster, ControlPlane):
            proxy = stack.enter_context(KubeProxy(self.cluster, node, self.workspace))
            self.processes.append(proxy.process)

    def _route(self, node: Node, networks: dict[str, list[Network]]) -> None:
        """What the agents would learn from each other."""
        lines = [
            f"route add {network} via {address} dev {SHARED_DEVICE}"
            for other in self.nodes
            if other is not node
            for network, address in zip(networks[other.name], other.addresses, strict=True)
        ]
        netns.batch(node.namespace, lines)

    def _declare_usable(self, node: str) -> None:
        path = f"/api/v1/nodes/{node}"
        usable = {"type": "NetworkUnavailable", "status": "False", "reason": "RouteCreated"}
        self.api.patch(path, {"status": {"conditions": [usable]}}, "strategic", subresource="status")
        eventually(lambda: self._remove_startup_taint(path), f"usable {node}")

    def _remove_startup_taint(self, path: str) -> bool:
        """Answers whether no taint was left; the startup taint is removed again where it came back.

        The list is replaced as a whole.  We do that only where nobody else has changed it meanwhile; before
        1.26 the controller manager may take its own taint out of an older list, and write that back.
        """
        node = self.get(path)
        meta, spec = node["metadata"], node["spec"]
        assert isinstance(meta, dict)
        assert isinstance(spec, dict)
        taints = spec.get("taints", ())
        left = [taint for taint in taints if taint["key"] != STARTUP_TAINT]
        if len(left) < len(taints):
            version = {"resourceVersion": meta["resourceVersion"]}
            self.api.patch(path, {"metadata": version, "spec": {"taints": left}})
        return not taints

    def _add_outsider(self) -> None:
        netns.create([self.outsider])
        switch = self.topology.plan.switch_namespace
        lines = [
            f"link add {SHARED_DEVICE} type veth peer name outsider netns {switch}",
            f"link set {SHARED_DEVICE} up",
            netns.add_address(SHARED_DEVICE, "192.0.2.200/24"),
            netns.add_address(SHARED_DEVICE, "2001:db8::200/64"),
        ]
        netns.batch(self.outsider, lines)
        netns.batch(switch, ["link set outsider master bridge0 up"])
