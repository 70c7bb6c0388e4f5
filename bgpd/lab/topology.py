"""The lab's network as it stands: built from a plan, with its routers and agents, and removed again.

Owns the order of things: namespaces, kernel parameters, links, pods, routers, agents.  The demo and the
end-to-end tests use the same object.  It must never touch the root namespace (`bgpd/lab/netns.py`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bgpd.lab import fabric_bird, fabric_frr, netns, pods
from bgpd.lab.agent_config import agent_config
from bgpd.lab.plan import Fabric, Node, Plan, Router
from bgpd.lab.process import Process
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


class Topology:
    """A lab's network; every method returns when its work is done."""

    def __init__(self, plan: Plan, workspace: Workspace) -> None:
        self.plan = plan
        self.workspace = workspace
        self.agents = {node.name: self._agent(node) for node in plan.nodes}
        self.routers = {router.name: self._router(router) for router in plan.routers}

    def build(self) -> None:
        """Make the namespaces, links and pods, and write the agents' files; nothing is started."""
        plan = self.plan
        netns.create(plan.namespaces)
        for pod in plan.pods:
            netns.set_sysctls(pod.namespace, QUIET_IPV6)
        for namespace in (*plan.fabric_namespaces, *(node.namespace for node in plan.nodes)):
            netns.set_sysctls(namespace, QUIET_IPV6 | FORWARDING)
        if plan.switch_namespace:
            netns.batch(
                plan.switch_namespace,
                [f"link add {BRIDGE} type bridge mcast_snooping 0", f"link set {BRIDGE} up"],
            )
        for node in plan.nodes:
            self._build_node(node)
            agent = self.agents[node.name]
            agent.config.write_text(agent_config(plan, node, agent.socket))

    def start_routers(self) -> None:
        """Start the top-of-rack routers, if the fabric has any."""
        for router in self.routers.values():
            router.start()

    def start_agents(self) -> None:
        """Start every node's agent."""
        for agent in self.agents.values():
            agent.process.start()

    def must_run(self) -> None:
        """LabError, with the end of its log, when an agent has ended."""
        for agent in self.agents.values():
            agent.process.must_run()

    def stop(self) -> None:
        """Kill the agents and routers; the namespaces stay."""
        for agent in self.agents.values():
            agent.process.kill()
        for router in self.routers.values():
            router.stop()

    def remove(self) -> None:
        """End everything and remove every trace."""
        self.stop()
        self.workspace.remove()

    def _build_node(self, node: Node) -> None:
        loopback = node.addresses if self.plan.routers else ()
        lines = [netns.add_address("lo", f"{address}/{address.max_prefixlen}") for address in loopback]
        for link in node.uplinks:
            lines.append(
                f"link add {link.device} type veth peer name {link.far_device} netns {link.far_namespace}"
            )
            lines.append(f"link set {link.device} up")
            lines += [netns.add_address(link.device, str(address)) for address in link.addresses]
        for pod in node.pods:
            lines += pods.node_commands(node, pod)
        netns.batch(node.namespace, lines)
        for pod in node.pods:
            netns.batch(pod.namespace, pods.pod_commands(node, pod))
        for link in node.uplinks:
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
