"""Next-hop resolution (RFC 4271 section 9.1.2.1): which link and gateway lead to a BGP next hop.

Owns one immutable snapshot of what the kernel said about links, addresses and the routes of others.  Our
own routes are never part of it, so a path can't resolve through itself or through another path.  A gateway
route is followed once: the kernel accepts only gateways that are themselves on a link.  Every failure
carries its reason, because the API shows it.

It must never touch the kernel, keep state from one snapshot to the next, or remember answers: peers may ask
for next hops without end, and the caller has a bounded memory.
RFC 2545 section 3 (link-local next hops), RFC 8950 (IPv6 next hops of IPv4 prefixes: nothing here depends
on the prefix).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from routes.fib_entry import Hop, protocol_name
from routes.prefix import Address, Prefix, format_address, is_link_local

_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long, and nodes have next hops each


class Link(NamedTuple):
    """A network device."""

    ifindex: int
    name: str
    up: bool
    """Administratively."""
    lower_up: bool
    """It has a carrier."""


class InterfaceAddress(NamedTuple):
    """An address of this node."""

    ifindex: int
    address: Address
    length: int


class RouteKind(Enum):
    """What a kernel route does with a packet."""

    UNICAST = "unicast"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"
    OTHER = "special"


class ForeignRoute(NamedTuple):
    """A kernel route that is not ours."""

    prefix: Prefix
    metric: int
    protocol: int
    kind: RouteKind
    hops: tuple[Hop, ...]


class ResolveOptions(NamedTuple):
    """What the operator allows."""

    via_default: bool = False
    onlink: tuple[Prefix, ...] = ()
    """Next hops in these are on the session's link although no connected route covers them."""


class Resolution(NamedTuple):
    """Where a next hop leads."""

    hop: tuple[Hop, ...]
    """Empty: unresolved."""
    cost: int
    """The interior cost (RFC 4271 section 9.1.2.2 e): 0 when directly connected."""
    reason: str
    """Why it is unresolved, in a sentence; empty when it is not."""


class _Way(NamedTuple):
    """What a route means for every next hop that it leads to."""

    connected: bool
    hops: tuple[Hop, ...]
    """The usable ones; without a gateway, the next hop itself is on the link."""
    cost: int
    fault: str
    """Why there are none, with `_NEXT_HOP` in the place of the next hop."""


_NEXT_HOP = "<next hop>"
"""No link has such a name."""
_NO_WAY = _Way(connected=False, hops=(), cost=0, fault=f"no route leads to {_NEXT_HOP}")


def _unresolved(reason: str) -> Resolution:
    return Resolution((), 0, reason)


class Resolver:
    """One snapshot of links, addresses and foreign routes, and the next hops resolved in it."""

    def __init__(
        self,
        links: Iterable[Link] = (),
        addresses: Iterable[InterfaceAddress] = (),
        routes: Iterable[ForeignRoute] = (),
        options: ResolveOptions | None = None,
    ) -> None:
        self.links = {link.ifindex: link for link in links}
        self.addresses = frozenset(addresses)
        self.options = options or ResolveOptions()
        self._own = {each.address for each in self.addresses}
        self._own_on_link = {(each.ifindex, each.address) for each in self.addresses}
        """A link-local address is this node's only on its link: others may have the same elsewhere."""
        self._tables = {4: _LongestMatch(4), 16: _LongestMatch(16)}
        for route in routes:
            self._tables[len(route.prefix.address)].add(route)
        self._faults = {link.ifindex: _fault(link) for link in self.links.values()}
        self._ways: dict[Prefix, _Way] = {}

    def resolve(self, next_hop: Address, link_local: Address | None, ifindex: int) -> Resolution:
        """Where this next hop leads; `ifindex` is the link of the session that it came over, or 0."""
        if is_link_local(next_hop) or (not any(next_hop) and link_local is not None):
            next_hop = link_local = link_local or next_hop
            if not ifindex:
                text = format_address(next_hop)
                return _unresolved(f"{text} is link-local, and the session is not bound to a link")
        if not any(next_hop):
            return _unresolved(f"{format_address(next_hop)} is no address of a router")
        own = next_hop != link_local and next_hop in self._own
        if own or (link_local is not None and (ifindex, link_local) in self._own_on_link):
            return _unresolved(f"{format_address(next_hop)} is an address of this node")
        if link_local is not None and ifindex:
            return self._over_link(Hop(link_local, ifindex))
        return self._through_routes(next_hop, ifindex)

    def default_gateway(self, size: int) -> Hop | None:
        """The first usable gateway of the default route of addresses with `size` bytes."""
        route = self._tables[size].default()
        if route is None or route.kind is not RouteKind.UNICAST:
            return None
        return next((hop for hop in route.hops if hop.gateway and not self._fault(hop.ifindex)), None)

    def _through_routes(self, next_hop: Address, ifindex: int) -> Resolution:
        route = self._tables[len(next_hop)].find(next_hop)
        way = _NO_WAY if route is None else self._ways.get(route.prefix) or self._new_way(route)
        connected, hops, cost, fault = way
        onlink = self.options.onlink
        if onlink and not connected and any(prefix.covers(next_hop) for prefix in onlink):
            if not ifindex:
                text = format_address(next_hop)
                return _unresolved(f"{text} is configured as on-link, and the session is not bound to a link")
            return self._over_link(Hop(next_hop, ifindex, onlink=True))
        if fault:
            return _unresolved(fault.replace(_NEXT_HOP, format_address(next_hop)))
        if connected:
            hops = tuple([_new(Hop, (next_hop, hop[1], False)) if hop[0] is None else hop for hop in hops])
        return _new(Resolution, (hops, cost, ""))

    def _over_link(self, hop: Hop) -> Resolution:
        fault = self._fault(hop.ifindex)
        return _unresolved(fault) if fault else Resolution((hop,), 0, "")

    def _new_way(self, route: ForeignRoute) -> _Way:
        way = self._ways[route.prefix] = self._way(route)
        return way

    def _way(self, route: ForeignRoute) -> _Way:
        connected = any(hop.gateway is None for hop in route.hops)
        if route.kind is not RouteKind.UNICAST:
            return _Way(connected, (), 0, f"the route {_named(route)} to {_NEXT_HOP} is {route.kind.value}")
        if route.prefix.length == 0 and not self.options.via_default:
            fault = f"only the default route leads to {_NEXT_HOP}, and resolve_via_default is off"
            return _Way(connected, (), 0, fault)
        usable = tuple(hop for hop in route.hops if not self._fault(hop.ifindex))
        if not usable:
            faults = dict.fromkeys(self._fault(hop.ifindex) for hop in route.hops)
            return _Way(connected, (), 0, "; ".join(faults) or "the route has no usable next hop")
        return _Way(connected, usable, 0 if connected else 1 + route.metric, "")

    def _fault(self, ifindex: int) -> str:
        """Why a link can't carry packets; empty when it can."""
        fault = self._faults.get(ifindex)
        return f"link {ifindex} does not exist" if fault is None else fault


def _fault(link: Link) -> str:
    if not link.up:
        return f"link {link.name} is down"
    return "" if link.lower_up else f"link {link.name} has no carrier"


def _named(route: ForeignRoute) -> str:
    return f"{route.prefix} of protocol {protocol_name(route.protocol)}"


class _LongestMatch:
    """Foreign routes of one address size: for each prefix the one of the lowest metric."""

    def __init__(self, size: int) -> None:
        self._bits = size * 8
        self._by_length: dict[int, dict[int, ForeignRoute]] = {}
        self._lengths: list[int] | None = []

    def add(self, route: ForeignRoute) -> None:
        address, length = route.prefix
        table = self._by_length.setdefault(length, {})
        key = int.from_bytes(address, "big") >> (self._bits - length)
        known = table.get(key)
        if known is None or route.metric < known.metric:
            table[key] = route
        self._lengths = None

    def default(self) -> ForeignRoute | None:
        return self._by_length.get(0, {}).get(0)

    def find(self, address: Address) -> ForeignRoute | None:
        if self._lengths is None:
            self._lengths = sorted(self._by_length, reverse=True)
        value = int.from_bytes(address, "big")
        for length in self._lengths:
            route = self._by_length[length].get(value >> (self._bits - length))
            if route is not None:
                return route
        return None


class Losses(NamedTuple):
    """What a node lost between two snapshots.

    The kernel drops IPv4 entries without a notification when their link goes down, loses its carrier
    (next-hop objects) or its last address, and when their preferred source goes.  Where entries of ours
    depend on any of it, a full dump is due.
    """

    links: frozenset[int]
    addresses: frozenset[Address]


def losses(old: Resolver, new: Resolver) -> Losses:
    """The links that went, went down or lost an address, and the addresses that no link has any more."""
    gone = old.addresses - new.addresses
    links = {each.ifindex for each in gone}
    for ifindex, link in old.links.items():
        now = new.links.get(ifindex)
        if now is None or (link.up and not now.up) or (link.lower_up and not now.lower_up):
            links.add(ifindex)
    kept = {each.address for each in new.addresses}
    return Losses(frozenset(links), frozenset(each.address for each in gone if each.address not in kept))
