"""The lab's network as it stands: built from a plan, with all that speaks BGP in it, and removed again.

Owns the order of things: namespaces, kernel parameters, links, pods, routers or reflectors, agents.  The
demo and the end-to-end tests use the same object.  It must never touch the root namespace
(`bgpd/lab/netns.py`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bgpd.lab import fabric_bird, fabric_frr, light_plan, netns, pods
from bgpd.lab.agent_config import agent_config
from bgpd.lab.plan import (
    IBGP_ASN,
    NODE_NETWORKS,
    SHARED_DEVICE,
    Fabric,
    Node,
    Plan,
    Reflector,
    Router,
    Uplink,
    with_one_more,
)
from bgpd.lab.process import Process, wait_for_socket
from bgpd.lab.reflector_config import reflector_config
from bgpd.lab.workspace import Workspace

QUIET_IPV6 = {
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    "net.ipv6.conf.all.accept_dad": "0",  # an address is usable at once, not after a second
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.dad_transmits": "0",
    "net.ipv6.conf.default.accept_ra": "0",
}
FORWARDING = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv6.conf.default.forwarding": "1",
    "net.ipv4.conf.all.rp_filter": "0",  # both links of a node carry its traffic, in either direction
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.fib_multipath_hash_policy": "1",
    "net.ipv6.fib_multipath_hash_policy": "1",
    "net.ipv4.conf.all.ignore_routes_with_linkdown": "1",
    "net.ipv4.conf.default.ignore_routes_with_linkdown": "1",
    "net.ipv6.conf.all.ignore_routes_with_linkdown": "1",
    "net.ipv6.conf.default.ignore_routes_with_linkdown": "1",
}
BRIDGE = "bridge0"


class RouterDaemon(Protocol):
    """What the lab asks of a top-of-rack router's software."""

    name: str
    namespace: str
    folder: Path

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def start_bgp(self) -> None: ...
    def kill_bgp(self) -> None: ...
    def shell_command(self, *commands: str) -> list[str]: ...


@dataclass(frozen=True)
class Agent:
    """A node's agent: its process, and the files that it was given."""

    node: Node
    config: Path
    socket: Path
    process: Process


@dataclass(frozen=True)
class RunningReflector:
    """A route reflector: its process, and the files that it was given."""

    reflector: Reflector
    config: Path
    socket: Path
    process: Process


class Topology:
    """A lab's network; every method returns when its work is done."""

    def __init__(self, plan: Plan, workspace: Workspace) -> None:
        self.plan = plan
        self.workspace = workspace
        self.agents = {node.name: self._agent(node) for node in plan.nodes}
        self.routers = {router.name: self._router(router) for router in plan.routers}
        self.reflectors = {each.name: self._reflector(each) for each in plan.reflectors}
        self.light_nodes = self._light_nodes()

    def build(self) -> None:
        """Make the namespaces, links and pods, and write the agents' files; nothing is started."""
        plan = self.plan
        netns.create(plan.namespaces)
        light = (plan.light_namespace,) if plan.light_nodes else ()
        own = tuple(each.namespace for each in plan.reflectors if not each.node)
        for namespace in (*plan.fabric_namespaces, *own, *light):
            netns.set_sysctls(namespace, QUIET_IPV6 | FORWARDING)
        if plan.switch_namespace:
            netns.batch(
                plan.switch_namespace,
                [f"link add {BRIDGE} type bridge mcast_snooping 0", f"link set {BRIDGE} up"],
            )
        for node in plan.nodes:
            self._build_node(node)
        if plan.light_nodes:
            self._build_light()
        for reflector in plan.reflectors:
            self._build_reflector(reflector)

    def start_routers(self) -> None:
        """Start the top-of-rack routers or the reflectors, if the fabric has any."""
        for router in self.routers.values():
            router.start()
        for reflector in self.reflectors.values():
            reflector.process.start()
        for reflector in self.reflectors.values():
            wait_for_socket(reflector.process, reflector.socket)

    def start_agents(self) -> None:
        """Start every node's agent, and the light nodes."""
        for agent in self.agents.values():
            agent.process.start()
        if self.light_nodes is not None:
            self.light_nodes.start()

    def join(self) -> Node:
        """Build one more node and start its agent; nobody else's configuration changes."""
        self.plan = with_one_more(self.plan, self.workspace.namespace)
        node = self.plan.nodes[-1]
        netns.create([node.namespace, *(pod.namespace for pod in node.pods)])
        agent = self.agents[node.name] = self._agent(node)
        self._build_node(node)
        agent.process.start()
        return node

    def must_run(self) -> None:
        """LabError, with the end of its log, when an agent, a reflector or the light nodes have ended."""
        for process in self._processes():
            process.must_run()

    def stop(self) -> None:
        """Kill whatever speaks BGP; the namespaces stay."""
        for process in self._processes():
            process.kill()
        for router in self.routers.values():
            router.stop()

    def remove(self) -> None:
        """End everything and remove every trace."""
        self.stop()
        self.workspace.remove()

    def _processes(self) -> list[Process]:
        reflectors = [each.process for each in self.reflectors.values()]
        light = [] if self.light_nodes is None else [self.light_nodes]
        return [*(agent.process for agent in self.agents.values()), *light, *reflectors]

    def _build_node(self, node: Node) -> None:
        netns.set_sysctls(node.namespace, QUIET_IPV6 | FORWARDING)
        for pod in node.pods:
            netns.set_sysctls(pod.namespace, QUIET_IPV6)
        loopback = node.addresses if self.plan.routers else ()
        lines = [netns.add_address("lo", f"{address}/{address.max_prefixlen}") for address in loopback]
        for link in node.uplinks:
            lines += _uplink_commands(link)
        for pod in node.pods:
            lines += pods.node_commands(node, pod)
        if self.plan.light_nodes:
            lines.append(f"route add {light_plan.NETWORK} dev {SHARED_DEVICE} scope link")
        netns.batch(node.namespace, lines)
        for pod in node.pods:
            netns.batch(pod.namespace, pods.pod_commands(node, pod))
        for link in node.uplinks:
            self._attach(link)
        agent = self.agents[node.name]
        agent.config.write_text(agent_config(self.plan, node, agent.socket))

    def _build_reflector(self, reflector: Reflector) -> None:
        link, lines = reflector.uplink, []
        if link is None:
            lines.append(netns.add_address(SHARED_DEVICE, f"{reflector.address}/32"))
        else:
            lines += _uplink_commands(link)
        if self.plan.light_nodes:
            if link is not None:
                lines.append(f"route add {light_plan.NETWORK} dev {SHARED_DEVICE} scope link")
            fixed = f"lladdr {light_plan.HARDWARE_ADDRESS} dev {SHARED_DEVICE} nud permanent"
            lines += [f"neighbour add {node.address} {fixed}" for node in self.plan.light_nodes]
        netns.batch(reflector.namespace, lines)
        if link is not None:
            self._attach(link)
        running = self.reflectors[reflector.name]
        memory = running.config.with_suffix(".json")
        memory.write_text('{"clients": []}')  # a new cluster: there is nobody to wait for
        running.config.write_text(reflector_config(self.plan, reflector, running.socket, memory))

    def _build_light(self) -> None:
        """One device; all addresses of the light nodes' network are local there, without being listed."""
        namespace, device = self.plan.light_namespace, light_plan.DEVICE
        link = Uplink(device, self.plan.switch_namespace, "light", (), ())
        lines = _uplink_commands(link)
        lines += [
            f"link set {device} address {light_plan.HARDWARE_ADDRESS}",
            f"route add local {light_plan.NETWORK} dev lo",
            f"route add {NODE_NETWORKS[0]} dev {device} scope link",
        ]
        netns.batch(namespace, lines)
        self._attach(link)

    def _attach(self, link: Uplink) -> None:
        """The far end of a link: up, on the bridge of the shared link or with the router's addresses."""
        far = [f"link set {link.far_device} up"]
        far += [netns.add_address(link.far_device, str(address)) for address in link.far_addresses]
        if not link.far_addresses:
            far.insert(0, f"link set {link.far_device} master {BRIDGE}")
        netns.batch(link.far_namespace, far)

    def _agent(self, node: Node) -> Agent:
        folder = self.workspace.folder
        config, socket = folder / f"{node.name}.toml", folder / f"{node.name}.sock"
        argv = [sys.executable, "-m", "bgpd", "agent", "--config", str(config)]
        process = Process(f"agent of {node.name}", node.namespace, argv, folder / f"{node.name}.log")
        return Agent(node, config, socket, process)

    def _router(self, router: Router) -> RouterDaemon:
        folder = self.workspace.folder / router.name
        if self.plan.fabric is Fabric.FRR:
            return fabric_frr.Frr(router.name, router.namespace, folder, fabric_frr.router_config(router))
        return fabric_bird.Bird(router.name, router.namespace, folder, fabric_bird.router_config(router))

    def _reflector(self, reflector: Reflector) -> RunningReflector:
        folder, name = self.workspace.folder, reflector.name
        config, socket = folder / f"{name}.toml", folder / f"{name}.sock"
        argv = [sys.executable, "-m", "bgpd", "reflector", "--config", str(config)]
        process = Process(name, reflector.namespace, argv, folder / f"{name}.log")
        return RunningReflector(reflector, config, socket, process)

    def _light_nodes(self) -> Process | None:
        plan = self.plan
        if not plan.light_nodes:
            return None
        argv = [sys.executable, "-m", "bgpd.lab.light_nodes", str(len(plan.light_nodes)), str(IBGP_ASN)]
        argv += [str(reflector.address) for reflector in plan.reflectors]
        argv += [] if plan.dual_stack else ["--ipv4-only"]
        log = self.workspace.folder / "light-nodes.log"
        return Process("light nodes", plan.light_namespace, argv, log)


def _uplink_commands(link: Uplink) -> list[str]:
    """The near end of a link, with its addresses; the far end goes to its namespace."""
    return [
        f"link add {link.device} type veth peer name {link.far_device} netns {link.far_namespace}",
        f"link set {link.device} up",
        *(netns.add_address(link.device, str(address)) for address in link.addresses),
    ]
