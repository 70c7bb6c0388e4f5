"""Service announcements kept up change by change, against a naive model that looks at everything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.kube.custom_values import AddressKind, BgpAddressPool, BgpAdvertisement
from bgpd.kube.objects import EndpointSlice, Service
from bgpd.kube.service_claims import Limits
from bgpd.kube.services import ServiceAnnouncements
from routes.own_path import OwnPath
from routes.path import GRACEFUL_SHUTDOWN
from routes.prefix import Address, Family, Prefix, family_of, format_address, host_prefix
from tests.fakes.service_objects import addresses, advertisement, endpoints, pool, prefixes, service

NAMES = ("a", "b")
NAMESPACES = ("red", "blue")
SHARED = ("203.0.113.1", "203.0.113.9")
"""What most Services want, so that they meet."""
PUBLIC = (*SHARED * 3, "203.0.113.2", "203.0.113.200", "198.51.100.1", "10.96.0.1", "fd00:1::1")
PODS = prefixes("10.244.0.0/16")
SERVICES = prefixes("10.96.0.0/16 fd00:96::/112")
POOLS = (
    pool("all", "203.0.113.0-203.0.113.130", "fd00:1::/64"),
    pool("red", "203.0.113.0/24", namespaces=("red",)),
    pool("tiny", "203.0.113.200-203.0.113.201"),
)
NODE = "203.0.113.2"


@dataclass
class World:
    """All that a node knows."""

    services: dict[tuple[str, str], Service] = field(default_factory=dict)
    slices: dict[tuple[str, str], EndpointSlice] = field(default_factory=dict)
    advertisements: tuple[BgpAdvertisement, ...] = ()
    pools: tuple[BgpAddressPool, ...] = POOLS
    nodes: tuple[Address, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    going: bool = False
    withdrawn: bool = False

    @property
    def limits(self) -> Limits:
        return Limits(SERVICES, self.pools, PODS, self.nodes)


# -- the model ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Naive:
    """One Service's wish for one address, in the words of docs/services.md."""

    rank: tuple[int, float, tuple[str, str]]
    service: Service
    kind: AddressKind
    address: Address
    local: bool


def wishes(world: World) -> Iterable[Naive]:
    for one in world.services.values():
        if not one.cluster_ips:
            continue
        for rank, kind, found, local in (
            (0, AddressKind.CLUSTER_IP, one.cluster_ips, one.internal_local),
            (1, AddressKind.LOAD_BALANCER_IP, one.ingress, one.external_local),
            (2, AddressKind.EXTERNAL_IP, one.external_ips, one.external_local),
        ):
            for address in found:
                if allowed(world, one, kind, address):
                    yield Naive((rank, one.created, one.key), one, kind, address, local)


def allowed(world: World, one: Service, kind: AddressKind, address: Address) -> bool:
    ranges = any(each.covers(address) for each in SERVICES)
    if address in world.nodes or any(each.covers(address) for each in PODS):
        return False
    if kind is AddressKind.CLUSTER_IP:
        return ranges
    having = [each for each in world.pools if any(in_range(address, span) for span in each.ranges)]
    if kind is AddressKind.EXTERNAL_IP:
        having = [
            each for each in having if not each.scope.namespaces or one.namespace in each.scope.namespaces
        ]
    return bool(having) and not ranges


def in_range(address: Address, span: tuple[Address, Address]) -> bool:
    return len(address) == len(span[0]) and span[0] <= address <= span[1]


def reach(world: World, wish: Naive) -> tuple[str, bool]:
    """What is here: "ready", "leaving" or nothing; and whether anything usable is anywhere."""
    every = [
        (endpoint, "ready" if endpoint.ready else "leaving")
        for each in world.slices.values()
        if (each.namespace, each.service) == wish.service.key and each.family is family_of(wish.address)
        for endpoint in each.endpoints
        if endpoint.ready or (endpoint.serving and endpoint.terminating)
    ]
    here = {state for endpoint, state in every if endpoint.node == "n1"}
    return ("ready" if "ready" in here else "leaving" if here else ""), bool(every)


def expected(world: World) -> dict[Prefix, OwnPath]:
    behind: dict[Prefix, list[tuple[BgpAdvertisement, bool]]] = {}
    by_address: dict[Address, list[Naive]] = {}
    for wish in wishes(world):
        by_address.setdefault(wish.address, []).append(wish)
    for claims in by_address.values():
        owner = min(claims, key=lambda wish: wish.rank).service.namespace
        mine = [wish for wish in claims if wish.service.namespace == owner]
        reaches = [(wish, *reach(world, wish)) for wish in mine]
        if any(wish.local and not here and anywhere for wish, here, anywhere in reaches):
            continue
        local = any(wish.local for wish in mine)
        for wish, here, anywhere in reaches:
            usable = bool(here) if wish.local else anywhere or wish.kind is AddressKind.CLUSTER_IP
            for each in world.advertisements if usable else ():
                if wish.kind in each.addresses and each.nodes.matches(world.labels):
                    prefix = aggregate(world, wish, each, local)
                    behind.setdefault(prefix, []).append((each, wish.local and here == "leaving"))
    return {} if world.withdrawn else {nlri: path(nlri, told, world.going) for nlri, told in behind.items()}


def aggregate(world: World, wish: Naive, told: BgpAdvertisement, local: bool) -> Prefix:
    """The widest prefix that is allowed, found by trying all of them on addresses that could spoil it."""
    host = host_prefix(wish.address)
    least = told.length_ipv4 if len(wish.address) == 4 else told.length_ipv6
    kind = wish.kind if wish.kind is AddressKind.CLUSTER_IP else AddressKind.LOAD_BALANCER_IP
    found = host
    for wider in host.covering():
        if local or wider.length < least or len(wish.address) == 16:
            break
        size = 1 << 32 - wider.length
        if size > 512:
            break
        first = int.from_bytes(wider.address, "big")
        every = (Address((first + step).to_bytes(4, "big")) for step in range(size))
        if not all(allowed(world, wish.service, kind, address) for address in every):
            break
        found = wider
    return found


def path(nlri: Prefix, told: list[tuple[BgpAdvertisement, bool]], going: bool) -> OwnPath:
    communities = {each for advertised, _ in told for each in advertised.communities if isinstance(each, int)}
    preferences = [each.local_pref for each, _ in told if each.local_pref is not None]
    if going or all(leaving for _, leaving in told):
        return OwnPath(nlri, False, tuple(sorted({*communities, GRACEFUL_SHUTDOWN})), (), 0, 0xFFFFFFFF)
    return OwnPath(nlri, False, tuple(sorted(communities)), (), max(preferences, default=None))


# -- random worlds ------------------------------------------------------------------------------------

services = st.builds(
    lambda name, namespace, cluster, ingress, external, local, internal, created: service(
        name, cluster, ingress=ingress, external=external, namespace=namespace, local=local,
        internal_local=internal, created=created,
    ),
    st.sampled_from(NAMES),
    st.sampled_from(NAMESPACES),
    st.sampled_from(("10.96.0.1", "10.96.0.5", "10.96.0.9", "10.96.0.8 fd00:96::9", "172.16.0.1", "")),
    st.sampled_from(("", *PUBLIC)),
    st.lists(st.sampled_from(PUBLIC), max_size=2, unique=True).map(" ".join),
    st.booleans(),
    st.booleans(),
    st.sampled_from((0.0, 1.0, 2.0)),
)  # fmt: skip
slices = st.builds(
    lambda of, namespace, where, name, family: endpoints(
        of, *where, name=name, namespace=namespace, family=family
    ),
    st.sampled_from((*NAMES * 2, "")),
    st.sampled_from(NAMESPACES),
    st.lists(st.sampled_from(("n1", "n1:leaving", "n1:dead", "n2", "n2:leaving")), min_size=1, max_size=2),
    st.sampled_from(("x", "y", "z")),
    st.sampled_from((Family.IPV4, Family.IPV4, Family.IPV4, Family.IPV6)),
)  # fmt: skip
advertisements = st.lists(
    st.builds(
        lambda name, kinds, ipv4, nodes, communities, local_pref: advertisement(
            name, *kinds, ipv4=ipv4, nodes=nodes, communities=communities, local_pref=local_pref
        ),
        st.sampled_from(("one", "two", "three")),
        st.sets(st.sampled_from(AddressKind)),
        st.sampled_from((32, 28, 24)),
        st.sampled_from(({}, {}, {"zone": "a"}, {"zone": "b"})),
        st.sampled_from(((), (1,), (2, 3))),
        st.sampled_from((None, 50, 200)),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda each: each.name,
).map(tuple)
VALUES: dict[str, st.SearchStrategy[object]] = {
    "service": services,
    "slice": slices,
    "delete service": st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(NAMES)),
    "delete slice": st.tuples(st.sampled_from(NAMESPACES), st.sampled_from("xyz")),
    "advertisements": advertisements,
    "labels": st.sampled_from(({}, {"zone": "a"}, {"zone": "b"})),
    "pools": st.sampled_from(({0, 1, 2}, {0, 1, 2}, {0}, {1, 2}, set())),
    "nodes": st.sampled_from(("", NODE, "192.0.2.1", f"{NODE} 192.0.2.1")),
    "drain": st.sampled_from(((False, False), (False, False), (True, False), (True, True))),
}
KINDS = ("service", "slice") * 8 + tuple(VALUES)


def changes_of(*kinds: str) -> st.SearchStrategy[tuple[str, object]]:
    return st.sampled_from(kinds).flatmap(lambda kind: st.tuples(st.just(kind), VALUES[kind]))


steps_of_a_day = st.builds(
    lambda first, later: first + later,
    st.lists(changes_of("service", "slice"), min_size=12, max_size=12),
    st.lists(changes_of(*KINDS), max_size=30),
)
"""A cluster that runs already, and what happens in it."""


def apply(world: World, node: ServiceAnnouncements, kind: str, value: object) -> tuple[object, object]:
    """One change, to the world and to the node; answers what the node says is different."""
    match kind, value:
        case "service", Service() as one:
            world.services[one.key] = one
            return node.service_changed(one)
        case "slice", EndpointSlice() as one:
            world.slices[one.namespace, one.name] = one
            return node.slice_changed(one)
        case "delete service", (str(namespace), str(name)):
            world.services.pop((namespace, name), None)
            return node.service_deleted((namespace, name))
        case "delete slice", (str(namespace), str(name)):
            world.slices.pop((namespace, name), None)
            return node.slice_deleted((namespace, name))
        case "advertisements", tuple() as every:
            world.advertisements = every
            return node.advertisements_replaced(every)
        case "labels", dict() as labels:
            world.labels = labels
            return node.node_labels_replaced(labels)
        case "pools", set() as chosen:
            world.pools = tuple(POOLS[number] for number in sorted(chosen))
        case "nodes", str(text):
            world.nodes = addresses(text)
        case "drain", (bool(going), bool(withdrawn)):
            world.going, world.withdrawn = going, withdrawn
            return node.drain_replaced(going=going, withdrawn=withdrawn)
    return node.limits_replaced(world.limits)


@settings(max_examples=150, deadline=None)
@given(advertisements, steps_of_a_day)
def test_every_change_leaves_what_looking_at_everything_gives(
    everything: tuple[BgpAdvertisement, ...], steps: list[tuple[str, object]]
) -> None:
    world = World()
    node = ServiceAnnouncements("n1", world.limits)
    world.advertisements = everything
    node.advertisements_replaced(everything)
    peer: dict[Prefix, OwnPath] = {}
    for kind, value in steps:
        announce, withdraw = apply(world, node, kind, value)
        assert isinstance(announce, tuple)
        assert isinstance(withdraw, tuple)
        for nlri in withdraw:
            del peer[nlri]
        assert all(peer.get(told.nlri) != told for told in announce)
        peer.update((told.nlri, told) for told in announce)
        assert peer == dict(node.announced) == expected(world)
    for key in world.services:
        for verdict in node.explain(key):
            shown = {str(prefix) for prefix in verdict.prefixes}
            assert verdict.announced == bool(shown)
            assert shown <= {str(prefix) for prefix in peer}
            assert verdict.text
    explained = {
        prefix for key in world.services for verdict in node.explain(key) for prefix in verdict.prefixes
    }
    assert explained == set(peer)


def test_the_model_is_not_empty() -> None:
    """A model that announced nothing would agree with a node that announces nothing."""
    world = World(advertisements=(advertisement("first", ipv4=28),))
    world.services["red", "a"] = service("a", ingress="203.0.113.1", namespace="red")
    world.slices["red", "x"] = replace(endpoints("a", "n2", namespace="red"), name="x")
    assert [f"{format_address(nlri.address)}/{nlri.length}" for nlri in sorted(expected(world))] == [
        "10.96.0.0/28",
        "203.0.113.0/28",
    ]
