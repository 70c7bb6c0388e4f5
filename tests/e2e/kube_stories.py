"""A small cluster whose API server misbehaves on demand: real agents and kernels, a stand-in API server.

The stand-in listens in the control plane's namespace and lives in the test's process, where its faults are
one call away.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest

from api.client import Client, ClientError
from bgpd.lab import kube_network, netns
from bgpd.lab.kernel_routes import kernel_routes, learned_routes
from bgpd.lab.plan import POD_NETWORKS, Fabric, Network, Node, make_plan
from bgpd.lab.probe import RouteEvent, RouteMonitor
from bgpd.lab.process import Process, wait_for_socket
from bgpd.lab.stand_in_api_server import StandInApiServer
from bgpd.lab.stand_in_api_server_json import Json
from bgpd.lab.topology import Topology
from bgpd.lab.workspace import Workspace, claim
from routes.peer import PeerStatus, SessionState
from routes.prefix import Prefix
from routes.view import DaemonStatus, RouteQuery, Table
from tests.interop.harness.speaker import wait_until

ASN = 65000
UP = 60.0
"""Seconds in which a cluster must have come up on a busy machine."""
SOON = 40.0
"""Seconds in which all is right again: a watch that got errors for long asks again after up to 30."""
GROUP = "podbgp.dev/v1alpha1"
NAMESPACE = "podbgp-system"


class Daemon:
    """An agent, or the reflector beside it."""

    def __init__(self, socket: Path, log: Path) -> None:
        self.socket, self.log = socket, log

    def status(self) -> DaemonStatus:
        with Client(f"unix://{self.socket}") as client:
            return client.status()

    def peers(self) -> dict[str, PeerStatus]:
        with Client(f"unix://{self.socket}") as client:
            return {str(peer.name): peer for peer in client.peers()}

    def established(self) -> dict[str, float]:
        """Since when each session has been there, by the clock that nobody sets."""
        try:
            peers = self.peers()
        except ClientError:
            return {}
        set_by = time.time() - time.monotonic()
        up = {name: peer for name, peer in peers.items() if peer.state is SessionState.ESTABLISHED}
        return {name: peer.since - set_by for name, peer in up.items()}

    def knows(self, nlri: str) -> bool:
        """Whether its table has a path to a prefix."""
        query = RouteQuery(Table.LOC_RIB, prefix=Prefix.parse(nlri))
        try:
            with Client(f"unix://{self.socket}") as client:
                return any(True for _ in client.paths(query))
        except ClientError:
            return False

    def asn(self) -> int:
        try:
            return self.status().asn
        except ClientError:
            return 0

    def warnings(self) -> str:
        return "\n".join(f"{each.subject}: {each.value}" for each in self.status().warnings)


class Member(Daemon):
    """A node of the cluster, its agent above all."""

    def __init__(self, node: Node, kubeconfig: str, folder: Path) -> None:
        super().__init__(folder / "agent.sock", folder / "agent.log")
        folder.mkdir()
        self.node, self.name, self.namespace, self.folder = node, node.name, node.namespace, folder
        self.reflector = Daemon(folder / "reflector.sock", self.log)
        for what in (self, self.reflector):
            what.socket.with_suffix(".toml").write_text(f'[api]\nlisten = "unix://{what.socket}"\n')
        argv = [sys.executable, "-m", "bgpd", "agent", "--kubernetes", "--node", node.name]
        argv += ["--config", str(folder / "agent.toml"), "--reflector-config", str(folder / "reflector.toml")]
        argv += ["--kubeconfig", kubeconfig, "--state-dir", str(folder / "state")]
        argv += ["--cni-dir", str(folder / "cni"), "--cni-data-dir", str(folder / "leases")]
        self.agent = Process(f"agent of {node.name}", node.namespace, argv, self.log)

    @property
    def address(self) -> str:
        return str(self.node.addresses[0])

    def start(self) -> None:
        self.agent.start()
        wait_for_socket(self.agent, self.socket, UP)

    def says(self, text: str) -> bool:
        """Whether its log has this."""
        return text in self.log.read_text()

    def learned(self) -> set[Network]:
        """Where the kernel leads for us."""
        return set(learned_routes(self.namespace))

    def own(self) -> set[Network]:
        """What the kernel refuses for us where no pod is: this node's prefixes."""
        routes = [
            each for version in (4, 6) for each in kernel_routes(self.namespace, version, "proto", "179")
        ]
        return {route.destination for route in routes} - self.learned()


class Cluster:
    """Nodes, their API server, and what happens in between."""

    def __init__(self, workspace: Workspace, topology: str, stack: ExitStack, nodes: int = 3) -> None:
        plan = make_plan(workspace.namespace, fabric=Fabric.MESH, nodes=nodes, pods_per_node=1)
        network = Topology(kube_network.without_pods(plan), workspace)
        stack.callback(network.stop)
        network.build()
        control = workspace.namespace("control")
        kube_network.create_control_namespace(control)
        self.server = stack.enter_context(
            StandInApiServer(
                host=str(kube_network.CONTROL_ADDRESS),
                port=8001,
                pod_cidrs=tuple(map(str, POD_NETWORKS)),
                open_socket=partial(netns.open_socket, control),
            )
        )
        self.folder = workspace.folder
        kubeconfig = self.server.kubeconfig(self.folder / "kubeconfig")
        self.members = [Member(node, kubeconfig, self.folder / node.name) for node in plan.nodes]
        for member in self.members:
            kube_network.attach(control, kube_network.management_link(member.node))
            stack.callback(member.agent.kill)
            self.create_node(member.name, *map(str, member.node.addresses))
        self.make_cluster(topology)
        if topology == "reflector":
            self.elect("node1", "node2")
        stack.callback(lambda: sys.stderr.write(self.logs()))
        for member in self.members:
            member.agent.start()
        self.wait_up()

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- the end of {each.log}\n{each.agent.tail()}" for each in self.members)

    def wait_up(self, within: float = UP) -> None:
        """Every node has a route to each other one's prefixes, over sessions that are complete."""
        for member in self.members:
            wait_for_socket(member.agent, member.socket, within)
        wait_until(self.complete, within, lambda: f"{self.missing()}")

    def complete(self) -> bool:
        return not any(self.missing().values())

    def missing(self) -> dict[str, set[Network]]:
        prefixes = {member.name: self.prefixes(member.name) for member in self.members}
        every = set().union(*prefixes.values())
        return {each.name: every - prefixes[each.name] - each.learned() for each in self.members}

    # -- objects ----------------------------------------------------------------------------------

    def create_node(self, name: str, *addresses: str, cidrs: tuple[str, ...] = ()) -> None:
        status = {
            "addresses": [{"type": "InternalIP", "address": each} for each in addresses],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        spec: Mapping[str, object] = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
        body: Json = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "spec": spec,
            "status": status,
        }
        self.server.create(body)

    def make_cluster(self, topology: str, **more: object) -> None:
        spec = {"asn": ASN, "topology": topology, "podCIDRs": list(map(str, POD_NETWORKS))}
        spec |= {"timers": {"connectRetry": 1}, "serviceCIDRs": ["10.96.0.0/16"], **more}
        self.make("BGPCluster", "default", spec)

    def make(self, kind: str, name: str, spec: Mapping[str, object]) -> None:
        self.server.create(
            {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}
        )

    def change_cluster(self, **spec: object) -> None:
        self.server.patch("BGPCluster", "default", {"spec": spec})

    def elect(self, *names: str) -> None:
        """As the controller does."""
        status = [
            {
                "node": name,
                "uid": self.uid(name),
                "addresses": [each["address"] for each in self._node(name)["status"]["addresses"]],
                "routerID": f"203.0.113.{number}",
                "phase": "Active",
            }
            for number, name in enumerate(names, start=1)
        ]
        patch = {"status": {"reflectors": status}}
        self.server.patch("BGPCluster", "default", patch, subresource="status")

    def set_addresses(self, name: str, *addresses: str) -> None:
        status = {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]}
        self.server.patch("Node", name, {"status": status}, subresource="status")

    def addresses(self, name: str) -> list[str]:
        return [each["address"] for each in self._node(name)["status"]["addresses"]]

    def announce(self, external: str) -> None:
        """A Service with this external address, announced by every node."""
        spec = {
            "clusterIP": "10.96.0.77",
            "externalIPs": [external],
            "ports": [{"port": 80, "protocol": "TCP"}],
        }
        service: Json = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
        self.server.create(service, "default")
        endpoints: Json = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": True}, "nodeName": "node1"}],
            "ports": [{"port": 80, "protocol": "TCP"}],
        }
        self.server.create(endpoints, "default")
        self.make("BGPAddressPool", "outside", {"ranges": [f"{external}/32"]})
        self.make("BGPAdvertisement", "all", {"addresses": ["ExternalIP"]})

    def withdraw(self) -> None:
        for kind, name in (("BGPAdvertisement", "all"), ("BGPAddressPool", "outside")):
            self.server.delete(kind, name)
        for kind, name in (("Service", "web"), ("EndpointSlice", "web-1")):
            self.server.delete(kind, name, "default")

    def _node(self, name: str) -> dict[str, dict[str, list[dict[str, str]]]]:
        return self.server.get("Node", name)  # type: ignore[return-value]  # any JSON

    def condition(self, node: str, kind: str) -> tuple[object, object]:
        """Status and reason of a condition of a node's BGPNodeState."""
        status = self.server.get("BGPNodeState", node)["status"]
        assert isinstance(status, dict)
        (found,) = [each for each in status["conditions"] if each["type"] == kind]
        return found["status"], found["reason"]

    def uid(self, name: str) -> str:
        return str(self._node(name)["metadata"]["uid"])

    def prefixes(self, name: str) -> set[Network]:
        return {ip_network(str(each)) for each in self._node(name)["spec"].get("podCIDRs", ())}

    # -- waiting ----------------------------------------------------------------------------------

    def wait_sessions(self, number: int) -> None:
        """Every agent has all its sessions, and that many."""

        def there() -> list[int]:
            return [len(each.established()) for each in self.members]

        wait_until(lambda: set(there()) == {number}, UP, lambda: f"{number} sessions each: {there()}")

    def wait_sessions_with(self, peers: Mapping[str, set[str]]) -> None:
        """Every agent has sessions with these, and no other."""

        def there() -> dict[str, set[str]]:
            return {each.name: set(each.established()) for each in self.members}

        wait_until(lambda: there() == peers, UP, lambda: f"sessions {peers}: {there()}")

    def wait_as(self, number: int) -> None:
        """Every agent is of this AS."""
        wait_until(lambda: {each.asn() for each in self.members} == {number}, UP, f"all are of AS {number}")

    # -- watching ---------------------------------------------------------------------------------

    @property
    def daemons(self) -> list[Daemon]:
        reflectors = [each.reflector for each in self.members if each.reflector.socket.exists()]
        return [*self.members, *reflectors]

    def sessions(self) -> list[dict[str, float]]:
        return [daemon.established() for daemon in self.daemons]

    @contextmanager
    def recorded(self) -> Iterator[Callable[[], list[RouteEvent]]]:
        """Gives all deletions of routes of ours so far, on every node."""
        with ExitStack() as stack:
            monitors = []
            for number, member in enumerate(self.members):
                log = self.folder / f"monitor{number}-{time.monotonic_ns()}.log"
                monitors.append(stack.enter_context(RouteMonitor(member.namespace, log)))
            yield lambda: [event for each in monitors for event in each.events() if _lost(event)]
            for monitor in monitors:
                monitor.process.must_run()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Inside, no route goes and no session is lost."""
        before = self.sessions()
        with self.recorded() as lost:
            yield
            gone = lost()
            assert not gone, f"{gone}\n{self.logs()}"
        for daemon, since in zip(self.daemons, before, strict=True):
            wait_until(
                partial(_the_same, daemon, since), SOON,
                lambda: f"{daemon.socket}: {since}, now {daemon.established()}\n{self.logs()}",  # noqa: B023
            )  # fmt: skip


def _the_same(daemon: Daemon, since: Mapping[str, float]) -> bool:
    """Whether these sessions are there, and still those.  A busy daemon may have to be asked twice."""
    now = daemon.established()
    return {name: now[name] for name in since if name in now} == pytest.approx(since, abs=0.5)


def _lost(event: RouteEvent) -> bool:
    """Whether one of the pod ranges' routes was deleted."""
    return event.deleted and ("10.244." in event.text or "fd00:10:244" in event.text)


def begin_again(*members: Member) -> None:
    """Kill -9 and start."""
    for member in members:
        member.agent.kill()
        member.log.unlink()
        member.agent.start()
    for member in members:
        wait_for_socket(member.agent, member.socket, SOON)


@contextmanager
def cluster(topology: str) -> Iterator[Cluster]:
    """A cluster that is up, and gone afterwards."""
    workspace = claim("kf")
    try:
        with ExitStack() as stack:
            yield Cluster(workspace, topology, stack)
    finally:
        workspace.remove()
