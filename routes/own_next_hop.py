"""Which next hop this speaker puts into what it announces (RFC 4271 section 5.1.3, RFC 2545, RFC 8950).

For the session's own family it is the session's local address.  For the other family it is the node's
own address of that family on the session's link, or, where RFC 8950 was negotiated, the IPv6 address;
never an IPv4-mapped one.  Without either the family is not announced, and the reason is a value.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from routes.peer import Negotiated
from routes.prefix import Address, Family, family_of, format_address, is_link_local


class OwnNextHop(NamedTuple):
    """The next hop for one family on one session, or why there is none."""

    address: Address | None
    link_local: Address | None = None
    """Beside a global address, for a neighbour on the same link (RFC 2545 section 3)."""
    reason: str = ""


class NodeAddresses(Protocol):
    """What must be known of the node's interfaces."""

    def interface_of(self, address: Address) -> int:
        """The ifindex that holds `address`; 0 when none does."""

    def addresses_on(self, ifindex: int) -> tuple[Address, ...]:
        """The addresses of an interface, in the kernel's order."""


class ConfiguredNextHops(NamedTuple):
    """`[agent] next_hop_ipv4` and `next_hop_ipv6`."""

    ipv4: Address | None = None
    ipv6: Address | None = None


def own_next_hop(
    family: Family, session: Negotiated, node: NodeAddresses, configured: ConfiguredNextHops
) -> OwnNextHop:
    """The next hop to announce `family` with on `session`."""
    chosen = configured.ipv4 if family is Family.IPV4 else configured.ipv6
    local = session.local_address
    ifindex = session.ifindex or node.interface_of(local)
    on_link = node.addresses_on(ifindex) if ifindex else ()
    if chosen is None and family_of(local) is family and not is_link_local(local):
        chosen = local
    if chosen is None:
        chosen = next((a for a in on_link if family_of(a) is family and not is_link_local(a)), None)
    if chosen is not None:
        beside = local if family is Family.IPV6 and is_link_local(local) else None
        return OwnNextHop(chosen, beside)
    if family is Family.IPV6 and is_link_local(local):
        return OwnNextHop(local)
    if family is Family.IPV4 and Family.IPV4 in session.extended_next_hop:
        ipv6 = own_next_hop(Family.IPV6, session, node, configured)
        if ipv6.address is not None:
            return ipv6
    return OwnNextHop(None, reason=_reason(family, session))


def _reason(family: Family, session: Negotiated) -> str:
    key = "next_hop_ipv4" if family is Family.IPV4 else "next_hop_ipv6"
    why = f"the link of {format_address(session.local_address)} has no {family} address"
    if family is Family.IPV4:
        why += ", and the peer did not negotiate extended next hop (RFC 8950)"
    return f"{why}: give the link one, or set [agent] {key}"
