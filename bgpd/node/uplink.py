"""Which links carry pods' packets off the node, and so how large these may be.

Owns the choice.  Nothing is wrapped, so pods get all of the uplink's MTU; where packets may leave over
several links, as with two top-of-rack routers, the smallest counts.  It must never change a link.
`choose` is pure; `read_uplink` asks the kernel (`bgpd/kernel/uplinks.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bgpd.kernel.uplinks import LinkMtu, Uplinks, read_uplinks
from bgpd.node.errors import HostError
from routes.prefix import Address, Prefix, format_address, is_link_local


class Uplink(NamedTuple):
    """The links that were chosen, and why."""

    links: tuple[str, ...]
    mtu: int
    """The smallest of theirs."""
    why: str


def choose(facts: Uplinks, node_addresses: Sequence[Address], pod_prefixes: Sequence[Prefix] = ()) -> Uplink:
    """The uplink of a node that is reached at these addresses; HostError when no link can be one.

    An address on the loopback device is that of a node behind routers, and says nothing of links.
    """
    links = {link.ifindex: link for link in facts.links if link.up and not link.loopback and link.mtu}
    wanted = set(node_addresses)
    holders = {held.ifindex for held in facts.addresses if held.address in wanted}
    pods = {held.ifindex for held in facts.addresses if any(p.covers(held.address) for p in pod_prefixes)}
    others = {held.ifindex for held in facts.addresses if not is_link_local(held.address)} - pods
    for chosen, why in (
        (holders, "has the node's address"),
        (facts.default_links, "has a default route"),
        (others, "has an address that is no pod's gateway"),
    ):
        if found := [links[ifindex] for ifindex in sorted(chosen) if ifindex in links]:
            return _uplink(found, why)
    asked = ", ".join(map(format_address, node_addresses)) or "no address"
    raise HostError(
        f"no uplink: no link that is up has the node's address ({asked}), a default route or another "
        "address; set spec.pods.mtu in BGPCluster"
    )


def _uplink(links: list[LinkMtu], why: str) -> Uplink:
    return Uplink(tuple(link.name for link in links), min(link.mtu for link in links), why)


def read_uplink(node_addresses: Sequence[Address], pod_prefixes: Sequence[Prefix] = ()) -> Uplink:
    """The uplink of the namespace that the process is in; HostError or KernelError."""
    return choose(read_uplinks(), node_addresses, pod_prefixes)
