"""Who holds which address of the pools, and who may hold it beside them.

Owns the holders of every address, in the order of their age, the addresses of every sharing key, and the
pools' free addresses.  Decides nothing about what a Service should have: that is `pools.py`'s.  Pure.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterable
from itertools import islice

from bgpd.kube.address_ranges import to_int
from bgpd.kube.custom_values import EVERY_SERVICE
from bgpd.kube.objects import Service
from bgpd.kube.pool_demand import SharingKey, demand_of, may_share
from bgpd.kube.pool_problems import PoolProblem
from bgpd.kube.pool_space import PoolSpace
from bgpd.kube.service_endpoints import ServiceKey
from routes.prefix import Address, Family

MOST_SHARING = 64
"""Services that may have one address: as many as are announced (`services.MOST_CLAIMS`)."""
MOST_TRIED = 64
"""Shared addresses of one key that are looked at for one more Service."""

Age = tuple[float, str, str]
Trigger = tuple[str, object, object]
"""What a waiting Service waits for: an address, a family of a pool, a sharing key."""


def age_of(service: Service) -> Age:
    """The older of two wins; names decide between those of one second."""
    return service.created, service.namespace, service.name


def of_address(address: Address) -> Trigger:
    return "address", address, 0


def of_pool(name: str, size: int) -> Trigger:
    return "pool", name, size


def of_key(key: SharingKey) -> Trigger:
    return ("key", *key)


class Tenant:
    """A Service of ours, what it wants and what it has."""

    __slots__ = ("addresses", "age", "demand", "problem", "service", "told", "waits_for")

    def __init__(self, service: Service) -> None:
        self.age = age_of(service)
        self.addresses: dict[Family, Address] = {}
        self.problem: PoolProblem | None = None
        self.waits_for: tuple[Trigger, ...] = ()
        self.put(service)

    def put(self, service: Service) -> None:
        self.service, self.demand = service, demand_of(service)
        self.told = service.ingress
        """What its status says, or the last plan since."""

    @property
    def key(self) -> ServiceKey:
        return self.service.key

    def in_order(self) -> tuple[Address, ...]:
        families = self.demand.families
        return tuple(self.addresses[family] for family in families if family in self.addresses)

    def agrees_with(self, other: Tenant) -> bool:
        """Whether both may have one address."""
        return may_share(self.service, self.demand, other.service, other.demand)


class Ledger:
    """The holders of every address."""

    def __init__(self) -> None:
        self.spaces: dict[str, PoolSpace] = {}
        self.events: dict[Trigger, tuple[Age, ServiceKey] | None] = {}
        """What somebody may have waited for, in order, and who is to be asked next where not the first."""
        self._holders: dict[Address, list[tuple[Age, Tenant]]] = {}
        self._shared: dict[SharingKey, dict[Address, int]] = {}
        self._starts: dict[int, list[int]] = {4: [], 16: []}
        self._owners: dict[int, list[PoolSpace]] = {4: [], 16: []}

    def use(self, spaces: Iterable[PoolSpace]) -> None:
        """These pools, disjoint, are all; those that choose Services are asked first."""
        order = sorted(spaces, key=lambda each: (each.pool.scope == EVERY_SERVICE, each.name))
        self.spaces = {space.name: space for space in order}
        for size in (4, 16):
            rows = sorted(
                (
                    (to_int(first), space)
                    for space in order
                    for first, _ in space.pool.ranges
                    if len(first) == size
                ),
                key=lambda row: row[0],
            )
            self._starts[size] = [start for start, _ in rows]
            self._owners[size] = [space for _, space in rows]
        for address in self._holders:
            if (owner := self.space_of(address)) is not None:
                owner.take(address)

    def space_of(self, address: Address) -> PoolSpace | None:
        """The pool that an address is in."""
        at = bisect_right(self._starts[len(address)], to_int(address))
        owner = self._owners[len(address)][at - 1] if at else None
        return owner if owner is not None and address in owner else None

    def holders(self, address: Address) -> list[Tenant]:
        """Who has an address, the oldest first."""
        return [tenant for _, tenant in self._holders.get(address, ())]

    def hold(self, tenant: Tenant, family: Family, address: Address) -> None:
        """The Service has the address from now on; whether it may is another question."""
        tenant.addresses[family] = address
        insort(self._holders.setdefault(address, []), (tenant.age, tenant), key=lambda row: row[0])
        if (space := self.space_of(address)) is not None:
            space.take(address)
        if (key := tenant.demand.sharing) is not None:
            counts = self._shared.setdefault(key, {})
            counts[address] = counts.get(address, 0) + 1
            self.events[of_key(key)] = None

    def drop(self, tenant: Tenant, family: Family) -> None:
        """The Service has its address of this family no more."""
        address = tenant.addresses.pop(family)
        rows = self._holders[address]
        rows.remove((tenant.age, tenant))
        self.events[of_address(address)] = None
        if not rows:
            del self._holders[address]
            if (space := self.space_of(address)) is not None:
                space.give_back(address)
                self.events[of_pool(space.name, len(address))] = None
        if (key := tenant.demand.sharing) is not None:
            counts = self._shared[key]
            counts[address] -= 1
            if not counts[address]:
                del counts[address]
            if not counts:
                del self._shared[key]
            self.events[of_key(key)] = None

    def losers(self, address: Address) -> list[Tenant]:
        """Those who hold an address that an older holder does not share with them."""
        kept: list[Tenant] = []
        lost: list[Tenant] = []
        for tenant in self.holders(address):
            room = len(kept) < MOST_SHARING and all(map(tenant.agrees_with, kept))
            (kept if room else lost).append(tenant)
        return lost

    def may_hold(self, tenant: Tenant, address: Address) -> bool:
        """Whether nobody has the address, or only those who share it with this Service."""
        others = [other for other in self.holders(address) if other is not tenant]
        return len(others) < MOST_SHARING and all(map(tenant.agrees_with, others))

    def shareable(self, tenant: Tenant, size: int, spaces: Collection[PoolSpace]) -> Address | None:
        """An address that other Services of the same key have, and that this one may have too."""
        if tenant.demand.sharing is None:
            return None
        for address in islice(self._shared.get(tenant.demand.sharing, ()), MOST_TRIED):
            if len(address) == size and self.space_of(address) in spaces and self.may_hold(tenant, address):
                return address
        return None
