"""Which LoadBalancer address each Service has: allocation out of the BGPAddressPools.

The rules, in the order in which they win:

- **Nothing is renumbered that need not be.** What a Service's status says is kept over restarts, and whatever
  happens to pools: one that shrinks or goes away leaves the Service its address, with a problem, so that a
  slip can be undone.  (Nodes stop announcing it meanwhile: no pool says any more that it is ours.)  A new
  address comes only where the Service asks for another one (address, pool, families) and can have it; where
  it can't, it keeps what it has, and the problem says why.
- **An address has one holder**, or several that agree (`pool_demand.may_share`).  Where more hold one, which
  only an edited status or a changed Service brings about, the oldest (creation, namespace, name) keeps it.
- **Who waits is served by age**, whenever an address that it could have comes free.
- **Pools are asked in one order**: those that choose Services (namespaces, labels) before those for all, then
  by name.  Where pools overlap, the first by name has all of its addresses and the other is refused entirely.

Owns what each Service has and what it waits for.  Pure: must never write a status or an event; whoever does
finds both in the Plan.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from bgpd.kube.address_ranges import AddressRanges
from bgpd.kube.custom_values import BgpAddressPool
from bgpd.kube.objects import Service
from bgpd.kube.pool_demand import is_ours
from bgpd.kube.pool_ledger import Age, Ledger, Tenant, Trigger, age_of, of_address, of_key, of_pool
from bgpd.kube.pool_problems import About, PoolProblem, Trouble, about_pool, about_service
from bgpd.kube.pool_space import PoolSpace
from bgpd.kube.service_endpoints import ServiceKey
from routes.prefix import ADDRESS_SIZE, Address, Family, Prefix, family_of, format_address, host_prefix

MOST_RETRIES = 256
"""Waiting Services that are tried again in one turn; the Plan says when there are more."""


class Plan(NamedTuple):
    """What is different now, for whoever writes it down."""

    assignments: Mapping[ServiceKey, tuple[Address, ...]]
    """Services whose status has to say exactly these addresses, and says others."""
    releases: Mapping[ServiceKey, tuple[Address, ...]]
    """Services that are not ours any more, and have these from us: their status has to lose them."""
    problems: tuple[PoolProblem, ...]
    """New ones, or with another text."""
    solved: tuple[About, ...] = ()
    """What had a problem, and has none now."""
    more: bool = False
    """Call `apply` again soon: Services wait that could be served."""


class _Found(NamedTuple):
    """An address for one family of a Service; or why there is none, or none better than it has."""

    address: Address | None
    problem: PoolProblem | None = None
    waits_for: tuple[Trigger, ...] = ()


def allocate(
    services: Iterable[Service],
    pools: Iterable[BgpAddressPool],
    current: Mapping[ServiceKey, tuple[Address, ...]] | None = None,
    kept_out: Iterable[Prefix] = (),
) -> Plan:
    """The plan for all Services at once; `current` stands for what their status says."""
    held = current or {}
    known = (replace(each, ingress=held.get(each.key, each.ingress)) for each in services)
    return Allocator(pools, known, kept_out).first


def _passes(problem: PoolProblem) -> bool:
    """Whether waiting may help; what somebody has to mend is said first."""
    return problem.reason in {Trouble.EXHAUSTED, Trouble.TAKEN}


_Meaning = tuple[tuple[object, ...], tuple[Prefix, ...], tuple[Address, ...]]


def _meaning(
    pools: Iterable[BgpAddressPool], kept_out: tuple[Prefix, ...], nodes: Iterable[Address]
) -> _Meaning:
    """What allocation depends on: no status of a pool, and of the nodes' addresses those inside pools."""
    every = sorted(pools, key=lambda pool: pool.name)
    inside = AddressRanges(ends for pool in every for ends in pool.ranges)
    fields = tuple((pool.name, pool.ranges, pool.auto_assign, pool.scope, pool.avoid_edges) for pool in every)
    return fields, kept_out, tuple(sorted(address for address in set(nodes) if address in inside))


class Allocator:
    """Who has which address; each change is answered with what has to be written down."""

    def __init__(
        self,
        pools: Iterable[BgpAddressPool] = (),
        services: Iterable[Service] = (),
        kept_out: Iterable[Prefix] = (),
        nodes: Iterable[Address] = (),
    ) -> None:
        """`kept_out` are pod and service ranges: a pool that overlaps with them is refused entirely."""
        self._tenants: dict[ServiceKey, Tenant] = {}
        self._ledger = Ledger()
        self._waiting: dict[Trigger, list[tuple[Age, ServiceKey]]] = {}
        self._dirty: set[ServiceKey] = set()
        self._refused: dict[str, PoolProblem] = {}
        self._news: dict[About, PoolProblem | None] = {}
        self._meaning: _Meaning = _meaning((), (), ())
        refused = self.pools_replaced(pools, kept_out, nodes).problems
        first = self.apply(services)
        self.first = first._replace(problems=(*refused, *first.problems))
        """The plan that the first lists give."""

    # -- what is asked ----------------------------------------------------------------------------

    @property
    def assignments(self) -> Mapping[ServiceKey, tuple[Address, ...]]:
        """What every Service of ours has now."""
        return {key: tenant.in_order() for key, tenant in self._tenants.items()}

    @property
    def problems(self) -> tuple[PoolProblem, ...]:
        """All that there are now."""
        of_services = (tenant.problem for tenant in self._tenants.values() if tenant.problem is not None)
        return (*self._refused.values(), *of_services)

    @property
    def usage(self) -> Mapping[str, tuple[int, int]]:
        """Addresses in use and in all, by pool, for the pools' status."""
        return {name: (space.used, space.total) for name, space in self._ledger.spaces.items()}

    # -- what changes -----------------------------------------------------------------------------

    def apply(self, changed: Iterable[Service] = (), deleted: Iterable[ServiceKey] = ()) -> Plan:
        """Services are new, changed or gone; several at once are one step."""
        releases: dict[ServiceKey, tuple[Address, ...]] = {}
        for key in deleted:
            self._leave(key)
        for service in sorted(changed, key=age_of):
            if is_ours(service):
                self._put(service)
                continue
            held = self._leave(service.key)
            if any(address in service.ingress for address in held):
                releases[service.key] = held
        return self._plan(releases)

    def pools_replaced(
        self, pools: Iterable[BgpAddressPool], kept_out: Iterable[Prefix] = (), nodes: Iterable[Address] = ()
    ) -> Plan:
        """These are all the pools, the ranges that they must not touch, and the addresses of nodes."""
        every, ranges = tuple(pools), tuple(kept_out)
        meaning = _meaning(every, ranges, nodes)
        if meaning != self._meaning:
            self._meaning = meaning
            self._use(every, ranges, meaning[2])
        return self._plan({})

    def _use(
        self, pools: Iterable[BgpAddressPool], kept_out: Iterable[Prefix], nodes: Iterable[Address]
    ) -> None:
        before, self._refused = self._refused, {}
        ranges = AddressRanges.of_prefixes(kept_out)
        hosts = AddressRanges.of_prefixes(map(host_prefix, nodes))
        accepted: dict[str, AddressRanges] = {}
        spaces: list[PoolSpace] = []
        for pool in sorted(pools, key=lambda each: each.name):
            problem = about_pool(pool, ranges, accepted.items())
            if problem is not None:
                self._refused[pool.name] = problem
                continue
            accepted[pool.name] = AddressRanges(pool.ranges)
            known = self._ledger.spaces.get(pool.name)
            spaces.append(known if known is not None and known.is_of(pool, hosts) else PoolSpace(pool, hosts))
        for name in {*before, *self._refused}:
            if before.get(name) != self._refused.get(name):
                self._news["BGPAddressPool", "", name] = self._refused.get(name)
        self._ledger.use(spaces)
        self._dirty.update(self._tenants)

    def _put(self, service: Service) -> None:
        tenant = self._tenants.get(service.key)
        if tenant is not None and (tenant.service.uid, tenant.age) != (service.uid, age_of(service)):
            self._leave(service.key)
            tenant = None
        if tenant is None:
            tenant = self._tenants[service.key] = Tenant(service)
            families = tenant.demand.families
            status = {family_of(address): address for address in reversed(service.ingress)}
            held = {family: address for family, address in status.items() if family in families}
        elif tenant.service == service:
            return
        else:
            held = dict(tenant.addresses)
            self._drop_all(tenant)
            tenant.put(service)
        for family, address in held.items():
            self._ledger.hold(tenant, family, address)
        for address in held.values():
            for loser in self._ledger.losers(address):
                self._ledger.drop(loser, family_of(address))
                self._dirty.add(loser.key)
        self._dirty.add(service.key)

    def _leave(self, key: ServiceKey) -> tuple[Address, ...]:
        """A Service is gone or not ours any more; answers what it had."""
        tenant = self._tenants.pop(key, None)
        if tenant is None:
            return ()
        held = tenant.in_order()
        self._drop_all(tenant)
        self._wait(tenant, ())
        self._dirty.discard(key)
        if tenant.problem is not None:
            self._news["Service", *key] = None
        return held

    def _drop_all(self, tenant: Tenant) -> None:
        for family in tuple(tenant.addresses):
            self._ledger.drop(tenant, family)

    # -- what follows -----------------------------------------------------------------------------

    def _plan(self, releases: Mapping[ServiceKey, tuple[Address, ...]]) -> Plan:
        """Place whatever changed, then whoever waited for what came free."""
        touched = {key: self._tenants[key] for key in self._dirty}
        self._dirty.clear()
        for tenant in sorted(touched.values(), key=lambda each: each.age):
            self._place(tenant)
        more = self._serve_waiting(touched)
        assignments: dict[ServiceKey, tuple[Address, ...]] = {}
        for key, tenant in sorted(touched.items()):
            held = tenant.in_order()
            # Also where the status is right, and an earlier plan, whose write is still under way, is not.
            if any(set(held) != set(said) for said in (tenant.service.ingress, tenant.told)):
                assignments[key] = tenant.told = held
        news, self._news = self._news, {}
        problems = tuple(problem for problem in news.values() if problem is not None)
        solved = tuple(about for about, problem in news.items() if problem is None)
        return Plan(assignments, releases, problems, solved, more)

    def _serve_waiting(self, touched: dict[ServiceKey, Tenant]) -> bool:
        """Try those again whose reason to wait may be over; whether some are left to be tried."""
        left = MOST_RETRIES
        events = self._ledger.events
        while events:
            trigger = next(iter(events))
            since = events.pop(trigger)
            rows = self._waiting.get(trigger, [])
            for age, key in rows[bisect_left(rows, since) if since is not None else 0 :]:
                if not left:
                    events.setdefault(trigger, (age, key))
                    return True
                if not self._worth_a_try(trigger):
                    break
                left -= 1
                touched[key] = self._tenants[key]
                self._place(self._tenants[key])
        return False

    def _worth_a_try(self, trigger: Trigger) -> bool:
        kind, name, size = trigger
        if kind != "pool" or not isinstance(name, str) or not isinstance(size, int):
            return True
        space = self._ledger.spaces.get(name)
        return space is not None and space.free(size) > 0

    def _place(self, tenant: Tenant) -> None:
        """Give a Service what it wants, as far as it can be had."""
        families, had = tenant.demand.families, dict(tenant.addresses)
        found = {family: self._find(tenant, family) for family in families}
        wanted = {family: each.address for family, each in found.items() if each.address is not None}
        if tenant.demand.all_families and len(wanted) < len(families):
            wanted = {family: address for family, address in had.items() if family in families}
        for family, address in had.items():
            if wanted.get(family) != address:
                self._ledger.drop(tenant, family)
        for family, address in wanted.items():
            if had.get(family) != address:
                self._ledger.hold(tenant, family, address)
        problems = [each.problem for each in found.values() if each.problem is not None]
        if not tenant.demand.all_families and wanted:
            problems = [each for each in problems if each.reason is not Trouble.NO_POOL or tenant.demand.pool]
        problem = min(problems, key=_passes, default=None)
        if problem != tenant.problem:
            tenant.problem = self._news["Service", *tenant.key] = problem
        self._wait(tenant, tuple(trigger for each in found.values() for trigger in each.waits_for))

    def _wait(self, tenant: Tenant, triggers: tuple[Trigger, ...]) -> None:
        for trigger in tenant.waits_for:
            rows = self._waiting[trigger]
            rows.remove((tenant.age, tenant.key))
            if not rows:
                del self._waiting[trigger]
        tenant.waits_for = tuple(dict.fromkeys(triggers))
        for trigger in tenant.waits_for:
            insort(self._waiting.setdefault(trigger, []), (tenant.age, tenant.key))

    # -- one address for one family ---------------------------------------------------------------

    def _find(self, tenant: Tenant, family: Family) -> _Found:
        demand, held = tenant.demand, tenant.addresses.get(family)
        if demand.mistake:
            return _Found(held, about_service(tenant.key, Trouble.BAD_REQUEST, demand.mistake))
        asked = demand.requested.get(family)
        if asked is not None and asked != held:
            problem = self._why_not(tenant, asked)
            return _Found(asked) if problem is None else _Found(held, problem, (of_address(asked),))
        spaces, problem = self._candidates(tenant, family)
        if held is not None and (asked is not None or problem is not None or self._fits(held, demand.pool)):
            return _Found(held, self._outside(tenant, held) or (problem if demand.pool else None))
        if problem is not None:
            return _Found(held, problem)
        size = ADDRESS_SIZE[family]
        if (shared := self._ledger.shareable(tenant, size, spaces)) is not None:
            return _Found(shared)
        for space in spaces:
            if (address := space.next(size)) is not None:
                return _Found(address)
        names = ", ".join(space.name for space in spaces)
        text = f"no {family} address is free in BGPAddressPool {names}"
        waits_for = [of_pool(space.name, size) for space in spaces]
        if demand.sharing is not None:
            waits_for.append(of_key(demand.sharing))
        return _Found(held, about_service(tenant.key, Trouble.EXHAUSTED, text), tuple(waits_for))

    def _fits(self, held: Address, pool: str) -> bool:
        """Whether an address is of no other pool than the one that its Service names, if it names one."""
        space = self._ledger.space_of(held)
        return not pool or space is None or space.name == pool

    def _outside(self, tenant: Tenant, held: Address) -> PoolProblem | None:
        if self._ledger.space_of(held) is not None:
            return None
        text = (
            f"{format_address(held)} is in no usable BGPAddressPool any more: the Service keeps it, and no"
            " node announces it; put it back into a pool, or have the Service ask for another address"
        )
        return about_service(tenant.key, Trouble.OUTSIDE, text)

    def _candidates(self, tenant: Tenant, family: Family) -> tuple[list[PoolSpace], PoolProblem | None]:
        """The pools that a Service may have an address of, in order."""
        service, named, key = tenant.service, tenant.demand.pool, tenant.key
        if named:
            space = self._ledger.spaces.get(named)
            if space is None:
                refused = self._refused.get(named)
                text = refused.text if refused else "there is no such pool"
                return [], about_service(key, Trouble.NO_POOL, f"BGPAddressPool {named!r}: {text}")
            if not space.pool.scope.holds(service.namespace, service.labels):
                text = f"BGPAddressPool {named!r} is not for this Service (namespaces, serviceSelector)"
                return [], about_service(key, Trouble.POOL_REFUSES, text)
            spaces = [space]
        else:
            every = (space for space in self._ledger.spaces.values() if space.pool.auto_assign)
            spaces = [each for each in every if each.pool.scope.holds(service.namespace, service.labels)]
        having = [space for space in spaces if space.has_family(ADDRESS_SIZE[family])]
        if having:
            return having, None
        text = f"no BGPAddressPool with {family} addresses is for this Service"
        return [], about_service(key, Trouble.NO_POOL, f"{text} (autoAssign, namespaces, serviceSelector)")

    def _why_not(self, tenant: Tenant, asked: Address) -> PoolProblem | None:
        """Why a Service can't have the address that it asks for."""
        space, text = self._ledger.space_of(asked), format_address(asked)
        service, named = tenant.service, tenant.demand.pool
        if space is None or (named and space.name != named):
            where = f"not in BGPAddressPool {named!r}" if named else "in no usable BGPAddressPool"
            return about_service(tenant.key, Trouble.OUTSIDE, f"{text}, which it asks for, is {where}")
        if not space.pool.scope.holds(service.namespace, service.labels):
            why = (
                f"BGPAddressPool {space.name!r}, which is not for this Service (namespaces, serviceSelector)"
            )
            return about_service(tenant.key, Trouble.POOL_REFUSES, f"{text}, which it asks for, is of {why}")
        if not self._ledger.may_hold(tenant, asked):
            holder = "/".join(self._ledger.holders(asked)[0].key)
            why = f"is held by Service {holder}, which does not share it (same namespace and"
            text = (
                f"{text}, which it asks for, {why} podbgp.dev/sharing-key, other ports, same traffic policy)"
            )
            return about_service(tenant.key, Trouble.TAKEN, text)
        return None
