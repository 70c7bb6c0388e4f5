"""This host's default gateways, for BGPPeers that are "the default gateway".

Apart, so that a reflector imports pyroute2 (9 MB) only where such a peer is meant for reflectors.
"""

from __future__ import annotations

from bgpd.config import FibConfig
from bgpd.kube.intent import Gateway
from routes.next_hop import Resolver
from routes.prefix import ADDRESS_SIZE, Family


def read_surroundings(fib: FibConfig) -> Resolver:
    """The links, addresses and foreign routes of this host."""
    from bgpd.kernel.netlink import Kernel  # noqa: PLC0415  see above

    with Kernel(fib.table, fib.protocol, (fib.metric, fib.unreachable_metric)) as kernel:
        found = kernel.surroundings()
    return Resolver(found.links, found.addresses, found.routes)


def gateways_of(resolver: Resolver) -> dict[Family, Gateway]:
    """The host's default gateways."""
    found: dict[Family, Gateway] = {}
    for family, size in ADDRESS_SIZE.items():
        hop = resolver.default_gateway(size)
        if hop is not None and hop.gateway is not None:
            found[family] = Gateway(hop.gateway, resolver.links[hop.ifindex].name)
    return found
