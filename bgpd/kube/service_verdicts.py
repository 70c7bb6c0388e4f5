"""What is said about a service address: the rule that decided, and a sentence for whoever asks.

Owns the words.  The decision itself is `services.py`'s and `service_claims.py`'s, and is made without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bgpd.kube.custom_values import AddressKind
from bgpd.kube.service_claims import Claim, Rule
from bgpd.kube.service_endpoints import ServiceKey
from routes.prefix import Address, Prefix, format_address


@dataclass(frozen=True, slots=True)
class Verdict:
    """One address of a Service, from the point of view of one node."""

    address: Address | None
    """None: the Service has no address that could be announced."""
    kind: AddressKind | None
    announced: bool
    rule: Rule
    prefixes: tuple[Prefix, ...]
    """What the address is announced as: itself, or aggregates."""
    text: str

    @classmethod
    def of_none(cls, text: str) -> Verdict:
        return cls(None, None, False, Rule.NOTHING_TO_ANNOUNCE, (), text)


_WHY = {
    Rule.NODE_ADDRESS: "it is the address of a node",
    Rule.POD_ADDRESS: "it lies in the pod ranges of BGPCluster",
    Rule.OUTSIDE_SERVICE_RANGES: "it lies outside spec.serviceCIDRs of BGPCluster: add its range there",
    Rule.IN_SERVICE_RANGES: "it lies in spec.serviceCIDRs of BGPCluster, which are for ClusterIPs alone",
    Rule.OUTSIDE_POOLS: "no BGPAddressPool has it: only addresses of a pool are announced, because the author"
    " of a Service could name any; add a pool with it (autoAssign: false keeps it from being allocated)",
    Rule.POOL_REFUSES: "the BGPAddressPool that has it is not for this Service (namespaces, serviceSelector)",
    Rule.OTHER_CONTROLLER: "spec.loadBalancerClass names another controller than podbgp.dev/bgp",
    Rule.OTHER_NAMESPACE: "it belongs to Service {owner}, which has the first claim, of another namespace",
    Rule.TOO_MANY_CLAIMS: "too many Services have a claim to it, the first of them {owner}",
    Rule.NO_ENDPOINT: "no endpoint in the cluster is ready, or serves while it terminates",
    Rule.NO_LOCAL_ENDPOINT: "its traffic policy is Local, and this node has no usable endpoint",
    Rule.SHARED_WITH_LOCAL: "it is shared with a Service whose traffic policy is Local, and which has no"
    " usable endpoint on this node: packets to that Service would be dropped here",
    Rule.NO_ADVERTISEMENT: "no BGPAdvertisement selects this Service and {kind}",
    Rule.OTHER_NODES: "every BGPAdvertisement of it selects other nodes",
    Rule.DRAINED: "this node is drained: service paths are withdrawn",
}


def sentence(rule: Rule, claim: Claim, owner: ServiceKey, prefixes: Sequence[Prefix]) -> str:
    """The sentence for a rule; `owner` has the first claim to the address."""
    what = f"{claim.kind} {format_address(claim.address)}"
    if rule not in _WHY:
        how = " as going (GRACEFUL_SHUTDOWN): its endpoints here terminate, or the node drains"
        return f"{what} is announced as {', '.join(map(str, prefixes))}{how if rule is Rule.GOING else ''}"
    return f"{what} is not announced: {_WHY[rule].format(owner='/'.join(owner), kind=claim.kind)}"
