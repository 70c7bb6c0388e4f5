"""LoadBalancer addresses under random changes: rules that hold after every step, whatever was before."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.kube.custom_values import BgpAddressPool
from bgpd.kube.objects import Service
from bgpd.kube.pool_demand import demand_of, is_ours, may_share
from bgpd.kube.pool_problems import Trouble
from bgpd.kube.pool_space import is_edge
from bgpd.kube.pools import Allocator, Plan
from bgpd.kube.service_endpoints import ServiceKey
from routes.prefix import Address, Family, family_of, parse_address
from tests.fakes.service_objects import pool, prefixes, service

BOTH = (Family.IPV4, Family.IPV6)
KEPT_OUT = prefixes("10.96.0.0/12")
NODE = parse_address("203.0.113.1")
POOLS = (
    pool("a", "203.0.113.0/30", "fd00:1::/127"),
    pool("a", "203.0.113.2-203.0.113.3"),
    pool("b", "203.0.113.254-203.0.114.1", edges=True),
    pool("c", "198.51.100.0/31", namespaces=("red",)),
    pool("d", "192.0.2.0/31", auto=False),
    pool("e", "203.0.113.3/32"),
    pool("f", "10.96.0.4/30"),
)

services = st.builds(
    lambda name, space, created, families, notes, ports, local, kind: replace(
        service(
            name, ingress="", namespace=space, created=created, families=families[0], policy=families[1],
            annotations=notes, ports=ports, local=local, selector={"app": "all"},
            load_balancer_class=kind,
        ),
        uid=f"{space}-{name}-{created}",
    ),
    st.sampled_from("pqrstu"),
    st.sampled_from(("red", "blue")),
    st.sampled_from((0.0, 0.0, 1.0)),
    st.sampled_from(
        (((Family.IPV4,), "SingleStack"),) * 3
        + ((BOTH, "RequireDualStack"), (BOTH, "PreferDualStack"), ((Family.IPV6,), "SingleStack"))
    ),
    st.sampled_from(
        (
            {}, {}, {}, {"sharing-key": "k"}, {"sharing-key": "k"},
            {"sharing-key": "k", "addresses": "203.0.113.2"},
            {"addresses": "203.0.113.2"}, {"addresses": "203.0.113.3"}, {"addresses": "nonsense"},
            {"address-pool": "a"}, {"address-pool": "d"}, {"address-pool": "missing"},
        )
    ),
    st.sampled_from(((80,), (25,), (80, 25), (443,))),
    st.booleans(),
    st.sampled_from(("podbgp.dev/bgp",) * 5 + (None,)),
)  # fmt: skip
STEPS = {
    "put": services,
    "delete": st.tuples(st.sampled_from(("red", "blue")), st.sampled_from("pqrstu")),
    "pools": st.sampled_from(((0, 2, 3, 4), (0, 2, 3, 4, 5, 6), (1, 2, 3), (2,), ())),
    "status": st.just(None),
}
steps_of_a_day = st.lists(
    st.sampled_from(("put",) * 8 + ("delete",) * 4 + ("status",) * 3 + ("pools",)).flatmap(
        lambda kind: st.tuples(st.just(kind), STEPS[kind])
    ),
    min_size=10,
    max_size=50,
)


class World:
    """The API server, and the controller that writes plans into it."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, Service] = {}
        self.pools: tuple[BgpAddressPool, ...] = tuple(POOLS[number] for number in (0, 2, 3, 4))
        self.allocator = Allocator(self.pools, (), KEPT_OUT, [NODE])

    def step(self, kind: str, value: object) -> None:
        match kind, value:
            case "put", Service() as one:
                before = self.services.get(one.key)
                same = before is not None and before.uid == one.uid
                one = replace(one, ingress=before.ingress if before is not None and same else ())
                self.services[one.key] = one
                self.take(self.allocator.apply([one]))
            case "delete", (str(space), str(name)):
                self.services.pop((space, name), None)
                self.take(self.allocator.apply(deleted=[(space, name)]))
            case "pools", tuple() as chosen:
                self.pools = tuple(POOLS[number] for number in chosen)
                self.take(self.allocator.pools_replaced(self.pools, KEPT_OUT, [NODE]))
            case _:
                self.take(self.allocator.apply(self.services.values()))

    def take(self, plan: Plan) -> None:
        assert not plan.more
        for key, held in plan.assignments.items():
            self.services[key] = replace(self.services[key], ingress=held)
        for key in plan.releases:
            self.services[key] = replace(self.services[key], ingress=())

    def usable(self) -> list[BgpAddressPool]:
        """The pools as the rules have it: outside the cluster's ranges, and those of earlier names."""
        found: list[BgpAddressPool] = []
        for each in sorted(self.pools, key=lambda one: one.name):
            mine = set(inside(each))
            if each.name != "f" and not any(mine & set(inside(other)) for other in found):
                found.append(each)
        return found

    def allowed(self, one: Service) -> list[BgpAddressPool]:
        named = demand_of(one).pool
        chosen = [each for each in self.usable() if (each.name == named if named else each.auto_assign)]
        return [each for each in chosen if each.scope.holds(one.namespace, one.labels)]


def inside(one: BgpAddressPool) -> list[Address]:
    """All addresses of a (small) pool."""
    return [
        Address(value.to_bytes(len(first), "big"))
        for first, last in one.ranges
        for value in range(int.from_bytes(first, "big"), int.from_bytes(last, "big") + 1)
    ]


def check(world: World, before: dict[ServiceKey, tuple[Address, ...]], kind: str) -> None:
    held = world.allocator.assignments
    known = {key: one for key, one in world.services.items() if is_ours(one)}
    assert set(held) == set(known)
    assert all(known[key].ingress == addresses for key, addresses in held.items())
    holders: dict[Address, list[Service]] = {}
    for key, addresses in held.items():
        assert {family_of(address) for address in addresses} <= set(known[key].families)
        for address in addresses:
            holders.setdefault(address, []).append(known[key])
    anywhere = {address for each in world.usable() for address in inside(each)} - {NODE}
    for address, having in holders.items():
        for one in having:
            assert address in anywhere or address in before.get(one.key, ())
            assert all(
                may_share(one, demand_of(one), other, demand_of(other))
                for other in having
                if other is not one
            )
    if kind == "pools":
        for key, addresses in before.items():
            lost = set(addresses) - set(held[key])
            assert all(asked_away(world, known[key], address) for address in lost)
    troubles = {problem.about[1:]: problem.reason for problem in world.allocator.problems}
    for key, one in known.items():
        missing = [family for family in one.families if family not in map(family_of, held[key])]
        if (missing and one.family_policy != "PreferDualStack") or not held[key]:
            assert key in troubles
        if troubles.get(key) is Trouble.EXHAUSTED:
            assert any(not free_for(world, one, family, holders) for family in one.families)


def asked_away(world: World, one: Service, lost: Address) -> bool:
    """Whether a Service that lost an address has one instead that it asked for and could not have before."""
    demand = demand_of(one)
    (now,) = (each for each in one.ingress if len(each) == len(lost))
    asked = demand.requested.get(family_of(lost))
    if asked is not None:
        return lost != asked and now == asked
    named = [inside(each) for each in world.usable() if each.name == demand.pool]
    return any(now in each and lost not in each for each in named)


def free_for(world: World, one: Service, family: Family, holders: dict[Address, list[Service]]) -> bool:
    """Whether some address of a family could be given to a Service, found by looking at every one."""
    return any(
        family_of(address) is family
        and address not in holders
        and address != NODE
        and not (each.avoid_edges and is_edge(int.from_bytes(address, "big"), len(address)))
        for each in world.allowed(one)
        for address in inside(each)
    )


@settings(max_examples=80, deadline=None)
@given(steps_of_a_day)
def test_the_rules_hold_whatever_happens(steps: list[tuple[str, object]]) -> None:
    world = World()
    for kind, value in steps:
        before = dict(world.allocator.assignments)
        world.step(kind, value)
        check(world, before, kind)
        again = Allocator(world.pools, world.services.values(), KEPT_OUT, [NODE])
        assert not again.first.assignments
        assert again.assignments == world.allocator.assignments
        assert {each.about for each in again.problems} == {each.about for each in world.allocator.problems}
        free = {name: total - used for name, (used, total) in again.usage.items()}
        assert free == {name: total - used for name, (used, total) in world.allocator.usage.items()}
