"""What to look at in a lab: as the run shows it, and as commands to copy when the lab stays up.

Pure but for `client`, which names the command line client beside the running Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bgpd.lab import netns
from bgpd.lab.command import find_tool
from bgpd.lab.plan import Node
from bgpd.lab.topology import Topology

Commands = list[tuple[str, list[str]]]


def script(name: str) -> str:
    """The full path of one of our console scripts."""
    return str(Path(sys.executable).with_name(name))


def client(topology: Topology, node: Node, *words: str) -> list[str]:
    """`podbgp` asking a node's agent; its socket is a file, so no namespace has to be entered."""
    return [script("podbgp"), "--address", f"unix://{topology.agents[node.name].socket}", *words]


def kernel_table(node: Node, version: int, *, colour: bool = False) -> list[str]:
    """`ip route` for a node's learned routes."""
    switches = ["-c=always"] if colour else []
    return [
        *(netns.ip_tool(), *switches, f"-{version}", "-n", node.namespace),
        *("route", "show", "proto", "179"),
    ]


def tour(topology: Topology) -> Commands:
    """Commands for someone who explores a lab that stays up, each with what it shows."""
    plan = topology.plan
    first, last = plan.nodes[0], plan.nodes[-1]
    pod, other = first.pods[0], last.pods[-1]
    ping = find_tool("ping", "iputils-ping")
    commands: Commands = [
        (f"the peers of {first.name}", client(topology, first, "peers")),
        (f"the routes of {first.name}", client(topology, first, "routes")),
        ("one of them, with the reasons", client(topology, first, "route", str(last.pod_networks[0]))),
        (f"the kernel's table of {first.name}", kernel_table(first, 4)),
        (
            f"{pod.name} pings {other.name} on {last.name}",
            netns.in_namespace(pod.namespace, [ping, "-c3", str(other.addresses[-1])]),
        ),
        (f"a shell on {first.name}", netns.in_namespace(first.namespace, ["/bin/sh"])),
        (
            f"the log of {first.name}'s agent",
            [find_tool("tail", "coreutils"), str(topology.agents[first.name].process.log)],
        ),
    ]
    summary = {"frr": ["show bgp summary"], "bird": ["show", "protocols"]}.get(plan.fabric, [])
    for router in topology.routers.values():
        commands.append((f"the sessions of {router.name}", router.shell_command(*summary)))
    return commands
