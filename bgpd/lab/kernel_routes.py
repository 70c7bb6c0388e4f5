"""A namespace's kernel routes as values, read through `ip -json`.

The lab and the tests judge the agent by what the kernel really has, with a tool that is not ours.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec

from bgpd.lab import netns
from bgpd.lab.command import run
from bgpd.lab.plan import Address, Network, Node, Plan

OURS = 179
UNREACHABLE = "unreachable"


class _Via(msgspec.Struct):
    host: str


class _NextHop(msgspec.Struct):
    gateway: str = ""
    via: _Via | None = None
    dev: str = ""
    flags: list[str] = []


class _Route(_NextHop):
    dst: str = ""
    type: str = "unicast"
    protocol: str = ""
    metric: int = 0
    prefsrc: str = ""
    nexthops: list[_NextHop] = []


class NextHop(msgspec.Struct, frozen=True):
    """One way out."""

    gateway: Address | None
    device: str


class KernelRoute(msgspec.Struct, frozen=True):
    """One entry of the kernel's table."""

    destination: Network
    kind: str
    """`unicast`, `unreachable`, ..."""
    protocol: str
    metric: int
    next_hops: tuple[NextHop, ...]
    preferred_source: Address | None

    @property
    def gateways(self) -> set[Address]:
        return {hop.gateway for hop in self.next_hops if hop.gateway is not None}


def kernel_routes(namespace: str, version: int, *selector: str) -> list[KernelRoute]:
    """The routes of one IP version; `selector` is as for `ip route show`: `proto 179`, `table 100`."""
    output = run([netns.ip_tool(), "-n", namespace, "-json", f"-{version}", "route", "show", *selector])
    routes = msgspec.json.decode(output or "[]", type=list[_Route])
    return [_read(route, version) for route in routes]


def learned_routes(namespace: str, protocol: int = OURS) -> dict[Network, KernelRoute]:
    """The entries of a protocol that lead somewhere, of both IP versions."""
    return {
        route.destination: route
        for version in (4, 6)
        for route in kernel_routes(namespace, version, "proto", str(protocol))
        if route.kind != UNREACHABLE
    }


def missing_routes(plan: Plan, node: Node) -> list[Network]:
    """What a node's kernel still lacks: entries that are not there, or have too few next hops."""
    present = learned_routes(node.namespace)
    return [
        network
        for network in plan.learned(node)
        if network not in present or len(present[network].next_hops) != plan.paths
    ]


def _read(route: _Route, version: int) -> KernelRoute:
    everything = "0.0.0.0/0" if version == 4 else "::/0"
    return KernelRoute(
        destination=ip_network(everything if route.dst == "default" else route.dst),
        kind=route.type,
        protocol=route.protocol,
        metric=route.metric,
        next_hops=tuple(_read_hop(hop) for hop in route.nexthops or [route]),
        preferred_source=ip_address(route.prefsrc) if route.prefsrc else None,
    )


def _read_hop(hop: _NextHop) -> NextHop:
    gateway = hop.gateway or (hop.via.host if hop.via else "")
    return NextHop(ip_address(gateway) if gateway else None, hop.dev)
