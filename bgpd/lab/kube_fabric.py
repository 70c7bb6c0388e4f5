"""The world outside of the lab's cluster: a fabric router that speaks BGP with it, and a client behind that.

The router (FRR) shares the nodes' link, is their default gateway, and has each node as a neighbour that opens
the session.  A range of neighbours would do too, but FRR forgets those when a session ends, and their paths
with them, whatever graceful restart says.  Pure but for `Outside`.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from bgpd.lab import netns
from bgpd.lab.fabric_frr import Frr
from bgpd.lab.plan import FIRST_ROUTER_ASN, IBGP_ASN, NODE_NETWORKS, SHARED_DEVICE, Address, Node, Plan
from bgpd.lab.topology import BRIDGE, FORWARDING, QUIET_IPV6
from bgpd.lab.workspace import Workspace

ROUTER_ADDRESSES: tuple[Address, ...] = (NODE_NETWORKS[0][250], NODE_NETWORKS[1][0xFA])
CLIENT_LINK: tuple[tuple[Address, Address], ...] = (
    (ip_address("100.64.0.1"), ip_address("100.64.0.2")),
    (ip_address("fd00:100:64::1"), ip_address("fd00:100:64::2")),
)
"""The router's address and the client's, in each family."""
LENGTHS = {4: 24, 6: 64}
TOR = "tor1"
MULTIPATH = 16


def router_config(nodes: Iterable[Node]) -> str:
    """FRR as the top-of-rack router of these nodes."""
    neighbours = [address for node in nodes for address in node.addresses]
    families = sorted({address.version for address in neighbours})
    lines = [
        "frr defaults datacenter",
        f"hostname {TOR}",
        "log stdout informational",
        f"router bgp {FIRST_ROUTER_ASN}",
        f" bgp router-id {ROUTER_ADDRESSES[0]}",
        " no bgp ebgp-requires-policy",
        " no bgp default ipv4-unicast",
        " bgp bestpath as-path multipath-relax",
        " timers bgp 10 30",
        " neighbor cluster peer-group",
        f" neighbor cluster remote-as {IBGP_ASN}",
        " neighbor cluster passive",
    ]
    lines += [f" neighbor {address} peer-group cluster" for address in neighbours]
    for family in families:
        lines += [
            f" address-family ipv{family} unicast",
            f"  maximum-paths {MULTIPATH}",
            "  neighbor cluster activate",
            " exit-address-family",
        ]
    return "\n".join([*lines, "exit", ""])


class Outside:
    """The router and the client; a context manager.  The cluster's network must be built."""

    def __init__(self, plan: Plan, workspace: Workspace) -> None:
        self.plan = plan
        self.families = 2 if plan.dual_stack else 1
        self.router_namespace = workspace.namespace(TOR)
        self.client_namespace = workspace.namespace("client")
        folder = workspace.folder / TOR
        self.frr = Frr(TOR, self.router_namespace, folder, router_config(plan.nodes))

    def __enter__(self) -> Self:
        netns.create([self.router_namespace, self.client_namespace])
        for namespace in (self.router_namespace, self.client_namespace):
            netns.set_sysctls(namespace, QUIET_IPV6 | FORWARDING)
        self._link_router()
        self._link_client()
        for node in self.plan.nodes:
            gateways = ROUTER_ADDRESSES[: self.families]
            netns.batch(node.namespace, [f"route add default via {gateway}" for gateway in gateways])
        self.frr.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.frr.stop()
        netns.remove([self.router_namespace, self.client_namespace])

    def _link_router(self) -> None:
        switch = self.plan.switch_namespace
        lines = [
            f"link add {SHARED_DEVICE} type veth peer name {TOR} netns {switch}",
            f"link set {SHARED_DEVICE} up",
        ]
        lines += [
            netns.add_address(SHARED_DEVICE, f"{address}/{LENGTHS[address.version]}")
            for address in ROUTER_ADDRESSES[: self.families]
        ]
        netns.batch(self.router_namespace, lines)
        netns.batch(switch, [f"link set {TOR} master {BRIDGE} up"])

    def _link_client(self) -> None:
        links = CLIENT_LINK[: self.families]
        lines = [
            f"link add client type veth peer name eth0 netns {self.client_namespace}",
            "link set client up",
        ]
        lines += [netns.add_address("client", f"{near}/{LENGTHS[near.version]}") for near, _ in links]
        netns.batch(self.router_namespace, lines)
        lines = ["link set eth0 up"]
        lines += [netns.add_address("eth0", f"{far}/{LENGTHS[far.version]}") for _, far in links]
        lines += [f"route add default via {near}" for near, _ in links]
        netns.batch(self.client_namespace, lines)

    @property
    def client_addresses(self) -> tuple[Address, ...]:
        return tuple(far for _, far in CLIENT_LINK[: self.families])
