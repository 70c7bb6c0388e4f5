"""BGPAdvertisement and BGPAddressPool: which Services' addresses are announced, and where they come from."""

from __future__ import annotations

import ipaddress
import itertools

from bgpd import config_values as values
from bgpd.config_values import UnfitError
from bgpd.kube import custom_fields as fields
from bgpd.kube import custom_shared as shared
from bgpd.kube import custom_wire as wire
from bgpd.kube.custom_fields import Place
from bgpd.kube.custom_values import (
    AddressKind,
    AddressRange,
    AdvertisementStatus,
    BgpAddressPool,
    BgpAdvertisement,
    PoolStatus,
)
from routes.policy import MARTIANS
from routes.prefix import Address

_MOST_COMMUNITIES = 32
_MOST_RANGES = 64
_LONGEST_RANGE = 91
_SHORTEST_IPV4 = 8
_SHORTEST_IPV6 = 16
_MOST_SERVICES = 1_000_000
_DIGITS = fields.matching("[0-9]+", 39, "a number in digits")


def decode_advertisement(raw: bytes) -> BgpAdvertisement:
    form = shared.read(raw, wire.ADVERTISEMENT, "BGPAdvertisement")
    at, spec = shared.place("BGPAdvertisement", form.metadata), form.spec
    lengths = at.inside("aggregationLength")
    status = shared.status_of(at, form.status)
    kinds = at.each("addresses", spec.addresses, shared.enum_of(AddressKind), len(AddressKind), 1)
    return BgpAdvertisement(
        name=at.name,
        uid=form.metadata.uid,
        generation=form.metadata.generation,
        addresses=frozenset(kinds),
        scope=shared.scope_of(at, spec.service_selector, spec.namespaces),
        nodes=shared.selector_of(at, "nodeSelector", spec.node_selector),
        communities=at.each("communities", spec.communities, shared.community, _MOST_COMMUNITIES),
        local_pref=at.maybe("localPref", spec.local_pref, values.integer(0, shared.BIGGEST)),
        length_ipv4=lengths.one("ipv4", spec.aggregation_length.ipv4, values.integer(_SHORTEST_IPV4, 32)),
        length_ipv6=lengths.one("ipv6", spec.aggregation_length.ipv6, values.integer(_SHORTEST_IPV6, 128)),
        status=AdvertisementStatus(
            status.observed_generation,
            status.conditions,
            Place(at.kind, at.name, "status").one(
                "services", form.status.services, values.integer(0, _MOST_SERVICES)
            ),
        ),
    )


def decode_pool(raw: bytes) -> BgpAddressPool:
    form = shared.read(raw, wire.POOL, "BGPAddressPool")
    at, spec = shared.place("BGPAddressPool", form.metadata), form.spec
    ranges = at.each("ranges", spec.ranges, address_range, _MOST_RANGES, 1)
    _check_apart(at, spec.ranges, ranges)
    status, inner = shared.status_of(at, form.status), Place(at.kind, at.name, "status")
    return BgpAddressPool(
        name=at.name,
        uid=form.metadata.uid,
        generation=form.metadata.generation,
        ranges=ranges,
        auto_assign=spec.auto_assign,
        scope=shared.scope_of(at, spec.service_selector, spec.namespaces),
        avoid_edges=spec.avoid_edges,
        status=PoolStatus(
            status.observed_generation,
            status.conditions,
            int(inner.one("total", form.status.total, _DIGITS)),
            inner.one("allocated", form.status.allocated, shared.COUNT),
        ),
    )


def address_range(value: object) -> AddressRange:
    """A prefix, or `FIRST-LAST`."""
    written = values.text(value)
    first_text, dash, last_text = written.partition("-")
    if len(written) > _LONGEST_RANGE:
        raise UnfitError("must be a prefix, or first and last address as in 203.0.113.10-203.0.113.20")
    if dash:
        first, last = fields.address(first_text), fields.address(last_text)
        if len(first) != len(last):
            raise UnfitError("has ends of two families")
        if first > last:
            raise UnfitError(f"has its ends in the wrong order; write {last_text}-{first_text}")
        found = AddressRange(first, last)
    else:
        network = ipaddress.ip_network(str(fields.prefix(written)))
        found = AddressRange(Address(network[0].packed), Address(network[-1].packed))
    _check_usable(found)
    return found


def _check_usable(found: AddressRange) -> None:
    for martian in MARTIANS:
        if len(martian.address) != len(found.first):
            continue
        if martian.covers(found.first) or found.first <= martian.address <= found.last:
            raise UnfitError(f"has addresses of {martian}, which no speaker accepts")


def _check_apart(at: Place, written: list[str], ranges: tuple[AddressRange, ...]) -> None:
    """Every address is in one range, or its Service could get it twice."""
    order = sorted(range(len(ranges)), key=lambda number: (len(ranges[number].first), ranges[number]))
    for before, after in itertools.pairwise(order):
        one, other = ranges[before], ranges[after]
        if len(one.first) == len(other.first) and other.first <= one.last:
            at.wrong(f"ranges[{after}]", written[after], f"overlaps ranges[{before}], {written[before]}")
