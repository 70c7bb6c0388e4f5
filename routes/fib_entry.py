"""The shape of a kernel entry, and the next hops in it, as plain values.

Owns what `routes/fib.py` compares and what `bgpd/kernel` writes and reads; equal entries are equal values
however they came about.  A prefix is never part of an entry: thousands share one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from routes.prefix import Address, format_address

PROTOCOL_NAMES = {
    0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra", 11: "zebra",
    12: "bird", 16: "dhcp", 18: "keepalived", 42: "babel", 84: "ovn", 99: "openr", 186: "bgp", 187: "isis",
    188: "ospf", 189: "rip", 192: "eigrp",
}  # fmt: skip
"""As in iproute2's rt_protos, which is where an operator knows them from."""


class Hop(NamedTuple):
    """Where a packet goes next."""

    gateway: Address | None
    """None: the destination itself is on the link."""
    ifindex: int
    onlink: bool = False
    """The gateway is on the link although no connected route says so."""

    def __str__(self) -> str:
        via = f"via {format_address(self.gateway)} " if self.gateway is not None else ""
        return f"{via}link {self.ifindex}{' onlink' if self.onlink else ''}"


def _hop_order(hop: Hop) -> tuple[bytes, int, bool]:
    return (hop.gateway or b"", hop.ifindex, hop.onlink)


class FibEntry(NamedTuple):
    """The shape of a kernel entry; one value is shared by all prefixes that have it.

    Build it with `FibEntry.of`: equal sets of hops give equal values.
    """

    hops: tuple[Hop, ...]
    """Sorted, each once; more than one is ECMP; none is `unreachable`."""
    preferred_source: Address | None = None
    odd: bytes = b""
    """What a dump showed and we never set (another type, metrics, weights): it makes an entry that was
    changed by hand differ from every wanted one."""

    @classmethod
    def of(cls, hops: Iterable[Hop], preferred_source: Address | None = None, odd: bytes = b"") -> FibEntry:
        ordered = tuple(hops)
        if len(ordered) > 1:
            ordered = tuple(sorted(set(ordered), key=_hop_order))
        return cls(ordered, preferred_source, odd)

    def __str__(self) -> str:
        source = f" src {format_address(self.preferred_source)}" if self.preferred_source else ""
        odd = " with settings that are not ours" if self.odd else ""
        return (", ".join(map(str, self.hops)) or "unreachable") + source + odd


UNREACHABLE = FibEntry(())
"""Answers with ICMP unreachable, so that packets for what is gone never loop."""


def protocol_name(protocol: int) -> str:
    """A routing protocol number with its usual name: `4 (static)`."""
    name = PROTOCOL_NAMES.get(protocol)
    return f"{protocol} ({name})" if name else str(protocol)
