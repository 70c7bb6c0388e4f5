"""Which addresses a Service lays claim to, and which of them it may have announced.

Whoever may write a Service could write any address of the world into `externalIPs`, and have the fabric send
its packets here.  So an address is announced only from ranges that the cluster's owner wrote down: ClusterIPs
from `BGPCluster.serviceCIDRs`, all others from a BGPAddressPool; never a node's address, never a pod's.

Pure: a Service and the limits in, claims out, each with the rule that refuses it, if one does.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from bgpd.kube.address_ranges import AddressRanges
from bgpd.kube.custom_values import AddressKind, BgpAddressPool
from bgpd.kube.objects import LOAD_BALANCER_CLASS, Service
from bgpd.kube.service_endpoints import ServiceKey
from routes.prefix import Address, Prefix, host_prefix

CLASS_ANNOTATION = "podbgp.dev/load-balancer-class"
"""Stands for `spec.loadBalancerClass` where the API server does not know that field (before 1.21)."""


class Rule(StrEnum):
    """What decided about an address; the names are for conditions and `explain`."""

    ANNOUNCED = "Announced"
    GOING = "AnnouncedAsGoing"
    NODE_ADDRESS = "NodeAddress"
    POD_ADDRESS = "PodAddress"
    OUTSIDE_SERVICE_RANGES = "OutsideServiceRanges"
    IN_SERVICE_RANGES = "InServiceRanges"
    OUTSIDE_POOLS = "OutsidePools"
    POOL_REFUSES = "PoolRefuses"
    OTHER_CONTROLLER = "OtherController"
    OTHER_NAMESPACE = "OtherNamespace"
    TOO_MANY_CLAIMS = "TooManyClaims"
    NO_ENDPOINT = "NoEndpoint"
    NO_LOCAL_ENDPOINT = "NoLocalEndpoint"
    SHARED_WITH_LOCAL = "SharedWithLocal"
    NO_ADVERTISEMENT = "NoAdvertisement"
    OTHER_NODES = "OtherNodes"
    DRAINED = "Drained"
    NOTHING_TO_ANNOUNCE = "NothingToAnnounce"


class Limits:
    """Where service addresses may lie."""

    def __init__(
        self,
        service_ranges: Iterable[Prefix] = (),
        pools: Iterable[BgpAddressPool] = (),
        pod_ranges: Iterable[Prefix] = (),
        node_addresses: Iterable[Address] = (),
    ) -> None:
        self.service_ranges = AddressRanges.of_prefixes(service_ranges)
        self.pools = tuple((pool, AddressRanges(pool.ranges)) for pool in sorted(pools, key=_name))
        self.pod_ranges = AddressRanges.of_prefixes(pod_ranges)
        self.node_addresses = AddressRanges.of_prefixes(map(host_prefix, node_addresses))
        free = self.service_ranges.without(self.pod_ranges).without(self.node_addresses)
        self.cluster = free
        """For ClusterIPs."""
        every = AddressRanges(ends for pool, _ in self.pools for ends in pool.ranges)
        kept_out = (self.service_ranges, self.pod_ranges, self.node_addresses)
        for other in kept_out:
            every = every.without(other)
        self.external = every
        """For all other addresses."""

    def same_claims_as(self, other: Limits) -> bool:
        """Whether no claim is another under `other`: a node that joins changes nothing, as a rule."""
        return (
            self.cluster == other.cluster
            and self.external == other.external
            and [_meaning(pool) for pool, _ in self.pools] == [_meaning(pool) for pool, _ in other.pools]
        )

    def guarded(self) -> tuple[Prefix, ...]:
        """Where what is still to be forwarded was translated by nobody, so that its port is closed."""
        return (*self.cluster.prefixes(), *self.external.prefixes())

    def ranges_of(self, kind: AddressKind) -> AddressRanges:
        return self.cluster if kind is AddressKind.CLUSTER_IP else self.external

    def refusal(self, kind: AddressKind, address: Address, service: Service) -> Rule | None:
        """The rule that an address of a Service breaks."""
        if address not in self.ranges_of(kind):
            return self._outside(kind, address)
        if kind is AddressKind.LOAD_BALANCER_IP and class_of(service) not in {"", LOAD_BALANCER_CLASS}:
            return Rule.OTHER_CONTROLLER
        if kind is AddressKind.EXTERNAL_IP and not any(
            pool.scope.holds(service.namespace, service.labels)
            for pool, ranges in self.pools
            if address in ranges
        ):
            return Rule.POOL_REFUSES
        return None

    def _outside(self, kind: AddressKind, address: Address) -> Rule:
        if address in self.node_addresses:
            return Rule.NODE_ADDRESS
        if address in self.pod_ranges:
            return Rule.POD_ADDRESS
        if kind is AddressKind.CLUSTER_IP:
            return Rule.OUTSIDE_SERVICE_RANGES
        return Rule.IN_SERVICE_RANGES if address in self.service_ranges else Rule.OUTSIDE_POOLS


def _name(pool: BgpAddressPool) -> str:
    return pool.name


def _meaning(pool: BgpAddressPool) -> tuple[object, ...]:
    """A pool without its status, which changes with every allocation."""
    return pool.name, pool.ranges, pool.scope


class Claim(NamedTuple):
    """A Service's claim to an address; claims to one address are ranked by their order as tuples."""

    rank: int
    created: float
    service: ServiceKey
    kind: AddressKind
    address: Address
    local: bool
    """Only nodes with an endpoint of the Service deliver its packets."""
    refusal: Rule | None


_RANK = {AddressKind.CLUSTER_IP: 0, AddressKind.LOAD_BALANCER_IP: 1, AddressKind.EXTERNAL_IP: 2}
"""The API server and the pools give addresses out only once; an ExternalIP is what its author wrote."""


def class_of(service: Service) -> str:
    """The load balancer class of a Service; empty where it names none."""
    return service.load_balancer_class or service.annotations.get(CLASS_ANNOTATION, "")


def claims_of(service: Service, limits: Limits) -> tuple[Claim, ...]:
    """All claims of a Service, refused ones too.

    Without a ClusterIP (headless, ExternalName) kube-proxy serves none of its addresses, so there are none.
    """
    if not service.cluster_ips or service.type == "ExternalName":
        return ()
    ingress = service.ingress if service.type == "LoadBalancer" else ()
    rows = (
        (AddressKind.CLUSTER_IP, service.cluster_ips, service.internal_local),
        (AddressKind.LOAD_BALANCER_IP, ingress, service.external_local),
        (AddressKind.EXTERNAL_IP, service.external_ips, service.external_local),
    )
    return tuple(
        Claim(
            _RANK[kind], service.created, service.key, kind, address, local,
            limits.refusal(kind, address, service),
        )
        for kind, addresses, local in rows
        for address in addresses
    )  # fmt: skip
