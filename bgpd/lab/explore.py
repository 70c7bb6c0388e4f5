"""What to look at in a lab: as the run shows it, and as commands to copy when the lab stays up.

Owns the command lines; all but `ping_answer` only build them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bgpd.lab import netns
from bgpd.lab.command import find_tool, try_run
from bgpd.lab.plan import POD_NETWORKS, Network, Node, Pod
from bgpd.lab.topology import Topology

Commands = list[tuple[str, list[str]]]


def script(name: str) -> str:
    """The full path of one of our console scripts."""
    return str(Path(sys.executable).with_name(name))


def client(topology: Topology, node: Node, *words: str) -> list[str]:
    """`podbgp` asking a node's agent; its socket is a file, so no namespace has to be entered."""
    return [script("podbgp"), "--api", f"unix://{topology.agents[node.name].socket}", *words]


def reflector_client(topology: Topology, name: str, *words: str) -> list[str]:
    """`podbgp` asking a reflector."""
    return [script("podbgp"), "--api", f"unix://{topology.reflectors[name].socket}", *words]


def kernel_table(node: Node, network: Network, *, colour: bool = False) -> list[str]:
    """`ip route` for a node's learned routes inside a network."""
    switches = ["-c"] if colour else []
    return [
        *(netns.ip_tool(), *switches, f"-{network.version}", "-n", node.namespace),
        *("route", "show", "root", str(network), "proto", "179"),
    ]


def ping(source: Pod, target: Pod, *switches: str) -> list[str]:
    """`ping` from one pod to the first address of another."""
    tool = find_tool("ping", "iputils-ping")
    return netns.in_namespace(source.namespace, [tool, "-n", *switches, str(target.addresses[0])])


def ping_answer(argv: list[str]) -> str:
    """Run a `ping` of one packet, and return its line about that packet, answered or not."""
    lines = [line for line in try_run(argv).splitlines() if line]
    return next((line for line in lines if "icmp_seq" in line), lines[-1] if lines else "no output")


def tour(topology: Topology) -> Commands:
    """Commands for someone who explores a lab that stays up, each with what it shows."""
    plan = topology.plan
    first, last = plan.nodes[0], plan.nodes[-1]
    pod, other = first.pods[0], last.pods[-1]
    commands: Commands = [
        (f"the peers of {first.name}", client(topology, first, "peers")),
        (f"the routes of {first.name}", client(topology, first, "routes")),
        ("one of them, with the reasons", client(topology, first, "route", str(last.pod_networks[0]))),
        (f"the kernel's table of {first.name}", kernel_table(first, POD_NETWORKS[0])),
        (f"{pod.name} pings {other.name} on {last.name}", ping(pod, other, "-c3")),
        (f"a shell on {first.name}", netns.in_namespace(first.namespace, ["/bin/sh"])),
        (
            f"the log of {first.name}'s agent",
            [find_tool("tail", "coreutils"), str(topology.agents[first.name].process.log)],
        ),
    ]
    for name in topology.reflectors:
        commands.append((f"the clients of {name}", reflector_client(topology, name, "peers")))
    summary = {"frr": ["show bgp summary"], "bird": ["show", "protocols"]}.get(plan.fabric, [])
    for router in topology.routers.values():
        commands.append((f"the sessions of {router.name}", router.shell_command(*summary)))
    return commands
