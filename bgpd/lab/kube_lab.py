"""`podbgpd lab --kubernetes`: a cluster from an empty API server, and what it promises.

Owns the order of the demonstration.  With the real components where `make kube` has run; elsewhere with the
stand-in API server, without Services; it says which.  The stories are in `kube_story`, `kube_services_story`
and `kube_drain_story`.

A given cluster's API server is not used: the lab's nodes would register there, and that cluster's scheduler
would give them pods of its own.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

from bgpd.lab import explore, fabric_frr, signals
from bgpd.lab.command import LabError, find_tool
from bgpd.lab.control_plane import ControlPlane
from bgpd.lab.kube_cluster import KubeCluster, eventually
from bgpd.lab.kube_components import CNI_PLUGINS, have_components
from bgpd.lab.kube_drain_story import drain
from bgpd.lab.kube_node import Control
from bgpd.lab.kube_services_story import (
    HOST_PORT,
    Balanced,
    announce_services,
    balance,
    closed_port_is_refused,
    ingress,
    names_are_found,
    shown_paths,
    ways_in,
)
from bgpd.lab.kube_stand_in import StandInControlPlane
from bgpd.lab.kube_story import delete_node, every_pod_reaches_every_pod, reflectors_die_in_turn
from bgpd.lab.kube_table import DEFINITIONS, columns, lines, table
from bgpd.lab.netns import in_namespace
from bgpd.lab.present import Presenter
from bgpd.lab.run import judged, leave, show_tour
from bgpd.lab.workspace import claim

TOPOLOGIES = ("reflector", "mesh")
FEWEST_NODES, MOST_NODES = 3, 20
STATES_WITHIN = 20.0
"""Seconds in which every node has written what it knows of itself."""


@dataclass(frozen=True, slots=True)
class KubeLabOptions:
    """What `podbgpd lab --kubernetes` was asked for."""

    topology: str = "reflector"
    nodes: int = 3
    stand_in: bool = False
    """The stand-in API server also where the real one is there."""
    short: bool = False
    """Without the parts that take long: reflectors that die, and the drain."""
    keep: bool = False
    timeout: float = 90.0
    """Seconds in which all nodes must be usable."""

    def check(self) -> None:
        """LabError when there is no such lab."""
        if self.topology not in TOPOLOGIES:
            raise LabError(f"there is no topology {self.topology!r} with pods: use {', '.join(TOPOLOGIES)}")
        if not FEWEST_NODES <= self.nodes <= MOST_NODES:
            raise LabError(f"{self.nodes} nodes: use {FEWEST_NODES} to {MOST_NODES}")


def run_kube_lab(options: KubeLabOptions, presenter: Presenter | None = None) -> int:
    """Run the demonstration; returns the exit code."""
    out = presenter or Presenter()
    return judged(lambda: _run(options, out), out)


def _run(options: KubeLabOptions, out: Presenter) -> bool:
    options.check()
    real = have_components() and not options.stand_in
    _check_tools(real=real)
    with ExitStack() as cleanup:
        with signals.held():
            workspace = claim()
            cleanup.callback(leave, workspace, out, keep=options.keep)
        control: Control = ControlPlane(workspace) if real else StandInControlPlane(workspace)
        cluster = KubeCluster(
            workspace, control, nodes=options.nodes, topology=options.topology, outside=real, services=real
        )
        _say_what_is_what(cluster, out)
        out.step("Starting an empty API server")
        cleanup.enter_context(cluster)
        if options.keep:
            cleanup.callback(_keep, cluster, out)
        return Show(cluster, options, out).run()


def _check_tools(*, real: bool) -> None:
    """Refuse what can't work before anything is made."""
    for tool, package in (("ip", "iproute2"), ("sysctl", "procps"), ("ping", "iputils-ping")):
        find_tool(tool, package)
    find_tool("iptables", "iptables")
    if not CNI_PLUGINS.is_dir():
        raise LabError(
            f"the CNI plugins are not in {CNI_PLUGINS}: apt-get install containernetworking-plugins"
        )
    if not DEFINITIONS.is_dir():
        raise LabError(f"the definitions of podbgp's objects are not in {DEFINITIONS}: run it from a clone")
    if real:
        fabric_frr.check_installed()


def _say_what_is_what(cluster: KubeCluster, out: Presenter) -> None:
    """What is real here, and what stands in for something else."""
    control = cluster.control
    real = isinstance(control, ControlPlane)
    out.console.print(
        f"[bold]podbgp {cluster.workspace.name}[/]: Kubernetes, {len(cluster.network.plan.nodes)} nodes, "
        f"topology {cluster.kind}, IPv4 and IPv6"
    )
    out.say(f"API server: {control.description}")
    out.say("real: podbgp's agents, reflectors and controller, the CNI plugins, the kernel's routes")
    if real:
        out.say("also real: etcd, kube-controller-manager, kube-proxy, the FRR router outside")
    out.say("stand-ins: fake_kubelet (a pod is a network namespace), fake_scheduler")
    if not real:
        out.say(
            "no Services: they need kube-controller-manager and kube-proxy, which `make kube` builds once"
        )


@dataclass(frozen=True, slots=True)
class Show:
    """One demonstration on one cluster."""

    cluster: KubeCluster
    options: KubeLabOptions
    out: Presenter

    def run(self) -> bool:
        """All of it; whether everything was proved."""
        nodes = list(self._start())
        pods = [f"pod{name.removeprefix('node')}" for name in nodes]
        proved = [self._pods(pods, nodes)]
        services: list[Balanced] = []
        if self.cluster.services:
            services = self._services(nodes)
            proved.append(self._ways_in(pods[0], services))
        self._look()
        if not self.options.short:
            if self.cluster.kind == "reflector":
                self.out.step("The elected reflectors die in turn, under pings every 10 ms")
                proved.append(reflectors_die_in_turn(self.cluster, pods, self.out))
            proved.append(self._drain(nodes[1], pods, services))
        self.out.step(f"kubectl delete node {nodes[-1]}")
        proved.append(delete_node(self.cluster, nodes[-1], self.out))
        return all(proved)

    def _start(self) -> list[str]:
        self.out.step("Installing podbgp and booting the nodes")
        begun = time.monotonic()
        with self.out.progress("nodes that are marked as usable") as count:
            self.cluster.start(count, self.options.timeout)
        self.out.say(f"no startup taint is left after {time.monotonic() - begun:.1f} s")
        return list(self.cluster.nodes)

    def _look(self) -> None:
        """What kubectl would show; not at once, since the nodes write their states only now and then."""
        self.out.step("What kubectl shows of it")
        eventually(self._states_are_written, "every node says how it is", STATES_WITHIN)
        self._table("bgpclusters", "bgpc", ("Reflectors", ".status.reflectors[*].node"))
        self._table("bgpnodestates", "bgpns")

    def _states_are_written(self) -> bool:
        shown = table("bgpnodestates", self.cluster.objects("bgpnodestates"))[1:]
        ready = [name for name, _ in columns("bgpnodestates")].index("Ready") + 1
        return len(shown) == len(self.cluster.nodes) and all(row[ready] == "True" for row in shown)

    def _table(self, plural: str, short: str, *more: tuple[str, str]) -> None:
        self.out.say(f"kubectl get {short}")
        for line in lines(table(plural, self.cluster.objects(plural), more)):
            self.out.say(f"  {line}")

    def _pods(self, pods: list[str], nodes: list[str]) -> bool:
        self.out.step("Pods, wired by the CNI plugins as the agents configured them")
        for pod, node in zip(pods, nodes, strict=True):
            self.cluster.create_pod(pod, node)
        for pod, node in zip(pods, nodes, strict=True):
            addresses = ", ".join(map(str, self.cluster.pod_addresses(pod)))
            self.out.say(f"{pod} on {node}: {addresses}")
        return every_pod_reaches_every_pod(self.cluster, pods, self.out)

    def _services(self, nodes: list[str]) -> list[Balanced]:
        """Two apps: one with two endpoints, and one with a single one, on the node that is drained later."""
        self.out.step("Services: an address pool, an advertisement, a router that peers with the nodes")
        cluster = self.cluster
        announce_services(cluster)
        for number, node in enumerate(nodes[:2], start=1):
            cluster.create_pod(f"web{number}", node, "web")
        cluster.create_pod("single", nodes[1])
        cluster.create_pod("host", nodes[1], host_port=HOST_PORT)
        services = [
            balance(cluster, f"{app}-{'local' if local else 'cluster'}", app, local=local)
            for app in ("web", "single")
            for local in (False, True)
        ]
        for pod in ("web1", "web2", "single", "host"):
            cluster.pod_addresses(pod)
        return services

    def _ways_in(self, pod: str, services: list[Balanced]) -> bool:
        cluster, out = self.cluster, self.out
        web = [service for service in services if service.app == "web"]
        return all(
            [
                *(shown_paths(cluster, service, out) for service in services),
                ways_in(cluster, web, "host", out),
                ingress(cluster, "proxy", web[0], out),
                names_are_found(cluster, pod, web[0], out),
                *(closed_port_is_refused(cluster, address, out) for address in web[0].addresses),
            ]
        )

    def _drain(self, node: str, pods: list[str], services: list[Balanced]) -> bool:
        self.out.step(f"kubectl drain {node}")
        watchers = [pod for pod in pods if pod != pods[1]]
        return drain(self.cluster, node, pods[1], watchers, services, self.out)


def _keep(cluster: KubeCluster, out: Presenter) -> None:
    """Let it run on, and say how to look at it."""
    cluster.leave()
    node = next(iter(cluster.nodes.values()))
    config = str(cluster.control.kubeconfig())
    kubectl = in_namespace(cluster.control.namespace, ["kubectl", "--kubeconfig", config, "get"])
    tour: list[tuple[str, list[str]]] = [
        ("with kubectl, where there is one", [*kubectl, "nodes,pods,services,bgpns", "-o", "wide"]),
        (f"the peers of {node.name}", [explore.script("podbgp"), "--api", f"unix://{node.socket}", "peers"]),
        (f"a shell on {node.name}", in_namespace(node.node.namespace, ["/bin/sh"])),
        (f"the log of {node.name}'s agent", [find_tool("tail", "coreutils"), str(node.agent.log)]),
    ]
    if cluster.outside is not None:
        tour.append(("the router's sessions", cluster.outside.frr.shell_command("show bgp summary")))
    show_tour(tour, cluster.workspace, out)
