"""The configuration file of a lab's route reflector, as an operator would write it.

Pure: text from the plan.  No node is named in it: clients come from ranges.
"""

from __future__ import annotations

from pathlib import Path

from bgpd.lab import light_plan
from bgpd.lab.agent_config import RETRY
from bgpd.lab.plan import IBGP_ASN, NODE_NETWORKS, Network, Plan, Reflector


def reflector_config(plan: Plan, reflector: Reflector, socket: Path, memory: Path) -> str:
    """The TOML of one reflector, which answers on `socket` and remembers its clients in `memory`."""
    families = [] if plan.dual_stack else ['families = ["ipv4"]']
    lines = [
        "[speaker]",
        f"asn = {IBGP_ASN}",
        f'router_id = "{reflector.address}"',
        f'listen = ["{reflector.address}:179"]',
        *RETRY,
        "",
        "[reflector]",
        f'state_file = "{memory}"',
        "",
    ]
    ranges: list[tuple[Network, int]] = [(NODE_NETWORKS[0], NODE_NETWORKS[0].num_addresses)]
    if plan.light_nodes:
        ranges.append((light_plan.NETWORK, len(plan.light_nodes)))
    for clients, most in ranges:
        lines += ["[[reflector.clients]]", f'range = "{clients}"', f"asn = {IBGP_ASN}"]
        lines += [f"max_sessions = {most}", *families, ""]
    lines += [
        "[[peers]]",
        f'address = "{reflector.other}"',
        f"asn = {IBGP_ASN}",
        f'source_address = "{reflector.address}"',
        *families,
        "",
        "[api]",
        f'listen = "unix://{socket}"',
        "",
        "[metrics]",
        'listen = "127.0.0.1:9180"',
        "",
    ]
    return "\n".join(lines)
