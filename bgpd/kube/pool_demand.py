"""What a LoadBalancer Service asks the pools for, read from its fields and annotations.

Ours are Services of type LoadBalancer whose `spec.loadBalancerClass` is podbgp.dev/bgp, and no others: one
without a class is its cloud's or another controller's.  Where the API server has no such field (before 1.21),
the annotation podbgp.dev/load-balancer-class says the same.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bgpd.kube.objects import LOAD_BALANCER_CLASS, Service
from bgpd.kube.service_claims import class_of
from routes.prefix import Address, Family, family_of, parse_address

POOL_ANNOTATION = "podbgp.dev/address-pool"
ADDRESSES_ANNOTATION = "podbgp.dev/addresses"
SHARING_ANNOTATION = "podbgp.dev/sharing-key"
LONGEST = 256
"""Of an annotation's text that is looked at."""

SharingKey = tuple[str, str]
"""Namespace and key: addresses are shared inside one namespace only."""


class Demand(NamedTuple):
    """What a Service wants."""

    families: tuple[Family, ...]
    all_families: bool
    """One of each family or nothing (SingleStack and RequireDualStack); else as many as there are."""
    requested: Mapping[Family, Address]
    pool: str
    """The pool that it names, or empty."""
    sharing: SharingKey | None
    mistake: str
    """What is wrong with how it asks; then it keeps what it has and gets nothing new."""


def is_ours(service: Service) -> bool:
    """Whether the pools are for this Service."""
    return service.type == "LoadBalancer" and class_of(service) == LOAD_BALANCER_CLASS


def demand_of(service: Service) -> Demand:
    """What a Service asks for."""
    requested, mistake = _requested(service)
    key = service.annotations.get(SHARING_ANNOTATION, "")[:LONGEST]
    return Demand(
        service.families,
        service.family_policy != "PreferDualStack",
        requested,
        service.annotations.get(POOL_ANNOTATION, "")[:LONGEST],
        (service.namespace, key) if key else None,
        mistake,
    )


def _requested(service: Service) -> tuple[Mapping[Family, Address], str]:
    """The addresses that it names: the annotation's, or `spec.loadBalancerIP`."""
    where = ADDRESSES_ANNOTATION if ADDRESSES_ANNOTATION in service.annotations else "spec.loadBalancerIP"
    written = service.annotations.get(ADDRESSES_ANNOTATION, service.load_balancer_ip)
    if not written.strip():
        return {}, ""
    if len(written) > LONGEST:
        return {}, f"{where} is longer than {LONGEST} characters"
    requested: dict[Family, Address] = {}
    for text in map(str.strip, written.split(",")):
        try:
            address = parse_address(text)
        except ValueError:
            return (
                {},
                f'{where}: {text!r} is no IP address; valid is one of each family, "203.0.113.7,fd00::7"',
            )
        family = family_of(address)
        if family in requested:
            return {}, f"{where}: {text} is the second {family} address; valid is one of each family"
        if family not in service.families:
            return {}, f"{where}: {text} is of {family}, which spec.ipFamilies does not have"
        requested[family] = address
    return requested, ""


def may_share(one: Service, first: Demand, other: Service, second: Demand) -> bool:
    """Whether two Services may have the same address.

    They say so by the same key, in the same namespace; no port is both's; and each node that gets a packet
    can deliver it to either: both have the policy Cluster, or both Local and the very same pods.
    """
    if first.sharing is None or first.sharing != second.sharing or not one.ports.isdisjoint(other.ports):
        return False
    if not one.external_local and not other.external_local:
        return True
    return (
        one.external_local
        and other.external_local
        and bool(one.selector)
        and dict(one.selector) == dict(other.selector)
    )
