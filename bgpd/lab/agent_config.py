"""The configuration file of a lab node's agent, as an operator would write it.

Pure: text from the plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bgpd.lab import light_plan
from bgpd.lab.plan import NODE_NETWORKS, POD_NETWORKS, Node, Plan

RETRY = ["connect_retry = 1", "connect_retry_max = 2"]
"""A lab has no time to wait for the usual pauses between attempts to connect."""


def agent_config(plan: Plan, node: Node, socket: Path) -> str:
    """The TOML of one node's agent, which answers on `socket`."""
    listen = dict.fromkeys(f"{session.source}:179" for session in node.sessions)
    families = len(node.pod_networks)
    allow = POD_NETWORKS[:families] + (NODE_NETWORKS[:families] if plan.routers else ())
    allow += light_plan.POD_NETWORKS[:families] if plan.light_nodes else ()
    lines = ["[speaker]", f"asn = {node.asn}", f'router_id = "{node.router_id}"']
    if plan.reflectors:
        lines += RETRY
    else:
        lines.append(f"listen = {strings(listen)}")
    lines += [
        "",
        "[agent]",
        f"advertise = {strings(plan.advertised(node))}",
        "",
    ]
    for session in node.sessions:
        lines += [
            "[[peers]]",
            f'address = "{session.address}"',
            f"asn = {session.asn}",
            f'source_address = "{session.source}"',
        ]
        if not plan.dual_stack:
            lines.append('families = ["ipv4"]')
        lines.append("")
    lines += ["[import]", f"allow = {strings(allow)}", "", "[fib]", "protocol = 179"]
    if plan.routers:
        lines += [f'preferred_source_ipv{address.version} = "{address}"' for address in node.addresses]
    lines += ["", "[api]", f'listen = "unix://{socket}"', "", "[metrics]", 'listen = "127.0.0.1:9179"', ""]
    return "\n".join(lines)


def strings(values: Iterable[object]) -> str:
    """A TOML array of strings."""
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"
