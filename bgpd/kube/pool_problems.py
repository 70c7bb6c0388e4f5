"""What keeps a Service from its address, or a pool from being used: values for events and conditions.

Owns the sentences and the check of a pool against the ranges that it must not touch.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from bgpd.kube.address_ranges import AddressRanges
from bgpd.kube.custom_values import BgpAddressPool
from bgpd.kube.service_endpoints import ServiceKey
from routes.prefix import format_address

About = tuple[str, str, str]
"""Kind, namespace and name of an object."""


class Trouble(StrEnum):
    """Reasons in events and conditions."""

    EXHAUSTED = "PoolExhausted"
    NO_POOL = "NoPool"
    POOL_REFUSES = "PoolRefuses"
    OUTSIDE = "AddressOutsidePools"
    TAKEN = "AddressTaken"
    BAD_REQUEST = "BadRequest"
    OVERLAP = "PoolOverlaps"
    KEPT_OUT = "PoolInClusterRanges"


class PoolProblem(NamedTuple):
    """Something that somebody has to know of."""

    about: About
    reason: Trouble
    text: str


def about_service(key: ServiceKey, reason: Trouble, text: str) -> PoolProblem:
    return PoolProblem(("Service", *key), reason, text)


def about_pool(
    pool: BgpAddressPool, kept_out: AddressRanges, accepted: Iterable[tuple[str, AddressRanges]]
) -> PoolProblem | None:
    """Why a pool can't be used, beside those that are; None if it can."""
    about, ranges = ("BGPAddressPool", "", pool.name), AddressRanges(pool.ranges)
    if (inside := ranges.overlap(kept_out)) is not None:
        text = (
            f"{format_address(inside)} lies in the pod or service ranges of BGPCluster: nothing is allocated"
        )
        return PoolProblem(about, Trouble.KEPT_OUT, f"{text} from this pool; valid are ranges beside them")
    for name, other in accepted:
        if (both := ranges.overlap(other)) is not None:
            text = f"{format_address(both)} is in BGPAddressPool {name}, too, which has it (first by name)"
            return PoolProblem(about, Trouble.OVERLAP, f"{text}: nothing is allocated from this pool")
    return None
