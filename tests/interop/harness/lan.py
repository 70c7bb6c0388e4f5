"""One link with a namespace for each speaker: where interop tests put our agent and a real daemon.

Host 1 has 192.0.2.1/24 and 2001:db8::1/64, and so on.  Everything of it lies in namespaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bgpd.lab import netns
from bgpd.lab.topology import FORWARDING, QUIET_IPV6
from bgpd.lab.workspace import Workspace

DEVICE = "lan0"


@dataclass(frozen=True)
class LanHost:
    """One namespace on the link."""

    name: str
    namespace: str
    folder: Path
    """For the configuration and the sockets of what runs there."""
    ipv4: str
    ipv6: str

    def address(self, family: str) -> str:
        """Its address of a family, `ipv4` or `ipv6`."""
        return self.ipv4 if family == "ipv4" else self.ipv6


def build_lan(workspace: Workspace, *names: str) -> list[LanHost]:
    """Make the link and the hosts, in this order."""
    switch = workspace.namespace("switch")
    hosts = [
        LanHost(
            name,
            workspace.namespace(name),
            workspace.folder / name,
            f"192.0.2.{number}",
            f"2001:db8::{number}",
        )
        for number, name in enumerate(names, start=1)
    ]
    netns.create([switch, *(host.namespace for host in hosts)])
    netns.batch(switch, ["link add bridge0 type bridge mcast_snooping 0", "link set bridge0 up"])
    for host in hosts:
        host.folder.mkdir()
        netns.set_sysctls(host.namespace, QUIET_IPV6 | FORWARDING)
        netns.batch(
            host.namespace,
            [
                f"link add {DEVICE} type veth peer name {host.name} netns {switch}",
                f"link set {DEVICE} up",
                netns.add_address(DEVICE, f"{host.ipv4}/24"),
                netns.add_address(DEVICE, f"{host.ipv6}/64"),
            ],
        )
        netns.batch(switch, [f"link set {host.name} master bridge0", f"link set {host.name} up"])
    return hosts
