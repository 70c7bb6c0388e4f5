"""Random lives of several peers, against a model that keeps everything naively and judges from scratch."""

from __future__ import annotations

from typing import NamedTuple
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from routes.decision import decide
from routes.loc_rib import Change
from routes.node_prefixes import KnownNode, NodePrefixes
from routes.own_path import OwnPath
from routes.path import (
    EMPTY_AS_PATH,
    GRACEFUL_SHUTDOWN,
    AsPath,
    AsSegment,
    Origin,
    Path,
    PathAttributes,
    PeerKind,
    PeerName,
    SegmentKind,
    Source,
)
from routes.policy import AllowEntry, ImportPolicy, MaxPrefixes, PeerImport, compile_attributes
from routes.prefix import Address, Family, Prefix, parse_address
from routes.rib import Rib
from routes.route_policy import Action, PrefixRange, RouteMatch, RoutePolicy, RouteRule, RouteSet

OWN_ASN = 65000
ROUTER_ID = 99

PREFIXES = [
    Prefix.parse(text)
    for text in (
        "0.0.0.0/0",
        "10.244.0.0/16",
        "10.244.1.0/24",
        "10.244.1.7/32",
        "10.244.2.0/24",
        "10.244.3.0/24",
        "10.9.0.0/16",
        "127.1.0.0/16",
        "::/0",
        "fd00:10:244::/48",
        "fd00:10:244:2::/64",
        "fe80::/64",
    )
]
OWN = [
    (),
    (OwnPath(Prefix.parse("10.244.1.0/24")),),
    (OwnPath(Prefix.parse("10.244.1.7/32"), med=5), OwnPath(PREFIXES[10])),
    (OwnPath(Prefix.parse("10.244.1.7/32")), OwnPath(PREFIXES[1], unreachable=False)),
]
INSIDE = AllowEntry(Prefix.parse("10.244.0.0/16"), 16, 32)
ALLOW = [
    (INSIDE, AllowEntry(Prefix.parse("fd00:10:244::/48"), 48, 128)),
    (AllowEntry(Prefix.parse("10.244.0.0/16"), 24, 24),),
    (
        AllowEntry(PREFIXES[0], 0, 32),
        AllowEntry(Prefix.parse("0.0.0.0/1"), 1, 32),
        AllowEntry(PREFIXES[8], 0, 0),
    ),
]
SOURCES = [
    Source(PeerName("192.0.2.1"), PeerKind.IBGP, OWN_ASN, 1, parse_address("192.0.2.1")),
    Source(PeerName("192.0.2.2"), PeerKind.IBGP, OWN_ASN, 2, parse_address("192.0.2.2")),
    Source(PeerName("192.0.2.3"), PeerKind.EBGP, 64513, 3, parse_address("192.0.2.3")),
]
NEXT_HOPS = [parse_address(text) for text in ("192.0.2.1", "192.0.2.2", "192.0.2.9", "127.0.0.1", "fd00::1")]

attribute_values = st.builds(
    PathAttributes,
    origin=st.sampled_from(Origin),
    as_path=st.sampled_from(
        [
            EMPTY_AS_PATH,
            AsPath.of((AsSegment(SegmentKind.SEQUENCE, (64513,)),)),
            AsPath.of((AsSegment(SegmentKind.SEQUENCE, (64513, OWN_ASN)),)),
            AsPath.of(
                (AsSegment(SegmentKind.SEQUENCE, (64513, 7)), AsSegment(SegmentKind.SET, (8, OWN_ASN)))
            ),
        ]
    ),
    next_hop=st.sampled_from(NEXT_HOPS),
    med=st.sampled_from([None, 0, 5]),
    local_pref=st.sampled_from([None, 100, 200]),
    communities=st.sampled_from([(), (1,), (GRACEFUL_SHUTDOWN,)]),
    originator_id=st.sampled_from([None, None, 50, ROUTER_ID]),
    cluster_list=st.sampled_from([(), (5,), (5, 77)]),
)
EBGP_PATH = AsPath.of((AsSegment(SegmentKind.SEQUENCE, (64513,)),))
SOUND = PathAttributes(Origin.IGP, EBGP_PATH, NEXT_HOPS[0])
few_attributes = st.sampled_from(
    [
        SOUND,
        SOUND._replace(med=5),
        SOUND._replace(next_hop=NEXT_HOPS[2]),
        SOUND._replace(local_pref=200),
        SOUND._replace(communities=(GRACEFUL_SHUTDOWN,)),
        SOUND._replace(next_hop=NEXT_HOPS[3]),
        SOUND._replace(originator_id=50, cluster_list=(77,)),
        SOUND._replace(as_path=EMPTY_AS_PATH),
    ]
)
"""So few that what one step did meets the next: each is accepted, refused or rewritten by some peer."""

NO_HOSTS = RouteRule("no-hosts", Action.REJECT, RouteMatch(prefixes=(PrefixRange(PREFIXES[1], 25, 32),)))
IF_MED = RouteRule("marked", Action.CONTINUE, RouteMatch(communities=(1,)), RouteSet(med=9))
PREFERRED = RouteRule(
    "preferred",
    Action.ACCEPT,
    RouteMatch(prefixes=(PrefixRange(PREFIXES[2], 24, 32),)),
    RouteSet(local_pref=300, remove_communities=(GRACEFUL_SHUTDOWN,)),
)
PEER_POLICIES = [
    (),
    (),
    (RoutePolicy("narrow", (NO_HOSTS, IF_MED), Action.ACCEPT),),
    (RoutePolicy("modify", (PREFERRED, IF_MED), Action.ACCEPT), RoutePolicy("narrow", (NO_HOSTS, PREFERRED))),
]
NODES = [
    KnownNode("a", (Prefix.parse("10.244.1.0/24"),), frozenset(NEXT_HOPS[:1])),
    KnownNode("a", (Prefix.parse("10.244.1.0/24"), PREFIXES[10]), frozenset(NEXT_HOPS[2:3])),
    KnownNode("b", (Prefix.parse("10.244.2.0/24"), Prefix.parse("10.244.1.0/24")), frozenset(NEXT_HOPS[:3])),
    KnownNode("b", (Prefix.parse("10.244.0.0/22"),), frozenset(NEXT_HOPS[2:3])),
]

policies = st.builds(
    lambda allow, allowas_in, first_as, cluster_id, ours, theirs: ImportPolicy(
        asn=OWN_ASN,
        router_id=ROUTER_ID,
        allow=allow,
        own_addresses=[NEXT_HOPS[1]],
        cluster_id=cluster_id,
        peers={
            SOURCES[0].peer: PeerImport(policies=ours),
            SOURCES[2].peer: PeerImport(allowas_in=allowas_in, enforce_first_as=first_as, policies=theirs),
        },
    ),
    st.sampled_from(ALLOW),
    st.integers(0, 1),
    st.booleans(),
    st.sampled_from([None, 77]),
    st.sampled_from(PEER_POLICIES),
    st.sampled_from(PEER_POLICIES),
)


class Update(NamedTuple):
    attributes: PathAttributes | None
    announced: tuple[Prefix, ...]
    withdrawn: tuple[Prefix, ...]
    path_id: int


def of_one_family(prefixes: list[Prefix]) -> tuple[Prefix, ...]:
    return tuple(each for each in prefixes if each.family is prefixes[0].family)


some_prefixes = st.lists(st.sampled_from(PREFIXES[1:6] + PREFIXES[10:11]), min_size=1, max_size=4).map(
    of_one_family
)
path_ids = st.sampled_from([0, 0, 0, 0, 1, 2])
families = st.sampled_from([frozenset(Family), frozenset({Family.IPV4}), frozenset()])
peers = st.integers(0, len(SOURCES) - 1)

STEPS: dict[str, tuple[int, st.SearchStrategy[tuple[object, ...]]]] = {
    "announce": (9, st.tuples(peers, few_attributes, some_prefixes, path_ids)),
    "withdraw": (2, st.tuples(peers, some_prefixes, path_ids)),
    "bounce": (2, st.tuples(peers, families, families)),
    "down": (1, st.tuples(peers, families)),
    "up": (1, st.tuples(peers, families)),
    "sweep": (1, st.tuples(peers, st.sampled_from(Family))),
    "mark": (1, st.tuples(peers, st.sampled_from(Family))),
    "forget": (1, st.tuples(peers)),
    "policy": (1, st.tuples(policies)),
    "verify": (1, st.tuples(st.booleans())),
    "node": (2, st.tuples(st.sampled_from(NODES))),
    "node_gone": (1, st.tuples(st.sampled_from("ab"))),
    "originate": (1, st.tuples(st.sampled_from(OWN))),
    "unresolved": (1, st.tuples(st.frozensets(st.sampled_from(NEXT_HOPS)))),
    "take": (1, st.tuples()),
}
"""Each step with its weight."""

steps = st.sampled_from([name for name, (weight, _) in STEPS.items() for _ in range(weight)]).flatmap(
    lambda name: st.tuples(st.just(name), STEPS[name][1])
)

Key = tuple[PeerName, Prefix, int]


class Model:
    """Adj-RIB-In as a flat dictionary; everything else is computed from it whenever it is asked for."""

    def __init__(self, policy: ImportPolicy) -> None:
        self.policy = policy
        self.received: dict[Key, Path] = {}
        self.stale: set[Key] = set()
        self.up: set[PeerName] = set()
        self.own: tuple[OwnPath, ...] = ()
        self.unresolved: frozenset[Address] = frozenset()

    @property
    def own_prefixes(self) -> dict[Prefix, OwnPath]:
        return {own.nlri: own for own in self.own}

    def remove(self, keys: set[Key]) -> None:
        self.stale -= keys
        for key in keys:
            self.received.pop(key, None)

    def of_peer(self, peer: PeerName, family: Family | None = None) -> set[Key]:
        return {
            key for key in self.received if key[0] == peer and (family is None or key[1].family is family)
        }

    def cost(self, path: Path) -> int | None:
        return None if path.attributes.next_hop in self.unresolved else 0

    def candidates(self, nlri: Prefix) -> list[Path]:
        policy = self.policy.with_own_paths(self.own)
        found = []
        for (_, prefix, _), path in self.received.items():
            verdict = policy.judge(path.source, path.attributes, prefix)
            if prefix == nlri and verdict.accepted:
                found.append(path._replace(attributes=verdict.attributes))
        return found

    def selected(self, multipath: int) -> dict[Prefix, tuple[Path, ...]]:
        table = {}
        for nlri in PREFIXES:
            if nlri not in self.own_prefixes:
                chosen = decide(self.candidates(nlri), self.cost, multipath).selected
                if chosen:
                    table[nlri] = chosen
        return table


class Life:
    """Applies each step to the RIB and to the model."""

    def __init__(self, multipath: int) -> None:
        policy = ImportPolicy(asn=OWN_ASN, router_id=ROUTER_ID, allow=ALLOW[0])
        self.rib = Rib(policy, multipath)
        self.model = Model(policy)
        self.rib.set_resolver(self.model.cost)
        self.told: dict[Prefix, tuple[Path, ...]] = {}
        self.nodes: NodePrefixes | None = None
        self.known: dict[str, KnownNode] = {}

    def announce(
        self, peer: int, attributes: PathAttributes, prefixes: tuple[Prefix, ...], path_id: int
    ) -> None:
        source = SOURCES[peer]
        if source.peer in self.model.up:
            self.rib.updates(source, [Update(attributes, prefixes, (), path_id)])
            for nlri in prefixes:
                key = (source.peer, nlri, path_id)
                self.model.received[key] = Path(nlri, attributes, source, path_id)
                self.model.stale.discard(key)

    def withdraw(self, peer: int, prefixes: tuple[Prefix, ...], path_id: int) -> None:
        source = SOURCES[peer]
        if source.peer in self.model.up:
            self.rib.update(source, path_id, None, (), prefixes)
            self.model.remove({(source.peer, nlri, path_id) for nlri in prefixes})

    def down(self, peer: int, kept: frozenset[Family]) -> None:
        name = SOURCES[peer].peer
        self.rib.session_down(name, kept)
        if name in self.model.up:
            self.model.up.discard(name)
            self.model.remove({key for key in self.model.stale if key[0] == name})
            self.model.remove({key for key in self.model.of_peer(name) if key[1].family not in kept})
            self.model.stale |= self.model.of_peer(name)

    def up(self, peer: int, forwarding: frozenset[Family]) -> None:
        name = SOURCES[peer].peer
        if name in self.model.up:
            self.down(peer, frozenset())
        self.rib.session_up(SOURCES[peer], Family, forwarding)
        self.model.up.add(name)
        self.model.remove({key for key in self.model.of_peer(name) if key[1].family not in forwarding})

    def bounce(self, peer: int, kept: frozenset[Family], forwarding: frozenset[Family]) -> None:
        self.down(peer, kept)
        self.up(peer, forwarding)

    def sweep(self, peer: int, family: Family) -> None:
        name = SOURCES[peer].peer
        stale = self.model.stale & self.model.of_peer(name, family)
        assert self.rib.sweep_stale(name, family) == len(stale)
        self.model.remove(stale)

    def mark(self, peer: int, family: Family) -> None:
        self.rib.mark_stale(SOURCES[peer].peer, family)
        self.model.stale |= self.model.of_peer(SOURCES[peer].peer, family)

    def forget(self, peer: int) -> None:
        name = SOURCES[peer].peer
        self.rib.forget(name)
        self.model.up.discard(name)
        self.model.remove(self.model.of_peer(name))

    def policy(self, policy: ImportPolicy) -> None:
        """The nodes stay, whatever the rules."""
        policy.nodes = self.nodes
        self.rib.set_policy(policy)
        self.model.policy = policy

    def verify(self, wanted: bool) -> None:
        self.nodes = NodePrefixes([PREFIXES[1], PREFIXES[9]], self.known.values()) if wanted else None
        self.policy(self.model.policy)

    def node(self, facts: KnownNode) -> None:
        """In the naive model everything is judged anew; here only what the node touches."""
        self.known[facts.name] = facts
        if self.nodes is not None:
            self.rib.rejudge(self.nodes.set(facts))

    def node_gone(self, name: str) -> None:
        self.known.pop(name, None)
        if self.nodes is not None:
            self.rib.rejudge(self.nodes.remove(name))

    def originate(self, own: tuple[OwnPath, ...]) -> None:
        self.rib.originate(own)
        self.model.own = own

    def unresolved(self, next_hops: frozenset[Address]) -> None:
        changed = self.model.unresolved ^ next_hops
        self.model.unresolved = next_hops
        self.rib.next_hops_changed(changed)

    def take(self) -> None:
        for change in self.rib.take_changes():
            assert type(change) is Change
            assert self.told.pop(change.nlri, ()) == change.before
            if change.after:
                self.told[change.nlri] = change.after
        self.check()

    def check(self) -> None:
        model, rib = self.model, self.rib
        learned = {nlri: paths for nlri, paths in self.told.items() if nlri not in model.own_prefixes}
        assert learned == model.selected(rib.loc_rib(Family.IPV4).multipath)
        for nlri, own in model.own_prefixes.items():
            (path,) = self.told[nlri]
            assert (path.source.kind, path.attributes) == (PeerKind.LOCAL, own.attributes)
        for family in Family:
            selected = {nlri: paths for nlri, paths in self.told.items() if nlri.family is family}
            assert rib.loc_rib(family).selected == selected
        for source in SOURCES:
            for family in Family:
                self.check_peer(source, family)

    def check_peer(self, source: Source, family: Family) -> None:
        model, table = self.model, self.rib.table(source.peer, family)
        policy = model.policy.with_own_paths(model.own)
        keys = model.of_peer(source.peer, family)
        accepted = sum(policy.judge(source, model.received[key].attributes, key[1]).accepted for key in keys)
        counts = self.rib.counts(source.peer, family)
        assert (counts.received, counts.accepted) == (len(keys), accepted)
        if table is None:
            return
        assert {(source.peer, *key) for key in table.known()} == keys
        assert {(source.peer, *key) for key in table.stale_paths()} == keys & model.stale
        assert set(table.ids) == {nlri for _, nlri, path_id in keys if path_id}
        for nlri in {key[1] for key in keys}:
            received = {(source.peer, nlri, each.path.path_id): each.path for each in table.received(nlri)}
            assert received == {key: model.received[key] for key in keys if key[1] == nlri}
        for nlri, path_id in table.known():
            candidates = {path.path_id: path for path in table.candidates(nlri)}
            verdict = policy.judge(source, model.received[source.peer, nlri, path_id].attributes, nlri)
            found = candidates.get(path_id)
            assert (found and found.attributes) == (verdict.attributes if verdict.accepted else None)
        for paths in (table.plain, table.added):
            assert not paths.accepted.keys() & paths.refused.keys()
            assert paths.rewritten.keys() <= paths.accepted.keys()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([1, 2, 16]), st.sampled_from([1, 100]), st.lists(steps, min_size=20, max_size=50))
def test_any_sequence_equals_the_naive_model(
    multipath: int, many: int, sequence: list[tuple[str, tuple[object, ...]]]
) -> None:
    """`many`: whether the prefixes of an UPDATE are treated together where that is possible."""
    life = Life(multipath)
    with patch("routes.rib.MANY", many), patch("routes.loc_rib.MANY", many):
        for peer in range(len(SOURCES)):
            life.up(peer, frozenset())
        for name, arguments in sequence:
            getattr(life, name)(*arguments)
        life.take()


@settings(max_examples=300, deadline=None)
@given(policies, attribute_values, st.sampled_from(SOURCES))
def test_the_attribute_half_of_import_and_the_rest_equal_the_whole(
    policy: ImportPolicy, attributes: PathAttributes, source: Source
) -> None:
    verdict = policy.judge(source, attributes, PREFIXES[4])
    admit = compile_attributes(policy, source)
    admit(SOUND)
    admitted = admit(attributes)
    assert admit(attributes) is admitted
    rest = policy.rest(source)
    if rest is not None and admitted is not None:
        admitted = rest(PREFIXES[4], attributes)
        assert rest(PREFIXES[4], attributes) is admitted
    assert verdict.accepted == (admitted is not None)
    if admitted is not None:
        assert verdict.attributes == admitted
        assert (admitted is attributes) == (admitted == attributes)


def any_prefix(size: int) -> st.SearchStrategy[Prefix]:
    def cut(value: int, length: int) -> Prefix:
        host = size * 8 - length
        return Prefix(Address((value >> host << host).to_bytes(size, "big")), length)

    return st.builds(cut, st.integers(0, 2 ** (size * 8) - 1), st.integers(0, size * 8))


@settings(deadline=None)
@given(st.data(), st.sampled_from([4, 16]))
def test_compiled_prefix_rules_equal_the_plain_ones(data: st.DataObject, size: int) -> None:
    prefixes = any_prefix(size)
    entries = st.builds(AllowEntry, prefixes, st.integers(0, size * 8), st.integers(0, size * 8))
    policy = ImportPolicy(
        asn=OWN_ASN,
        router_id=ROUTER_ID,
        allow=data.draw(st.lists(entries, max_size=4)),
        own_paths=map(OwnPath, data.draw(st.lists(prefixes, max_size=4))),
    )
    near = [each for entry in policy.allow for each in entry.prefix.covering()] + list(policy.own_prefixes)
    nlri = data.draw(st.one_of(prefixes, st.sampled_from(near)) if near else prefixes)
    attributes = PathAttributes(Origin.IGP, EMPTY_AS_PATH, NEXT_HOPS[0])
    assert policy.admits(SOURCES[0].peer)[size](nlri) == policy.judge(SOURCES[0], attributes, nlri).accepted


@settings(deadline=None)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from([0, 1])), max_size=60),
)
def test_a_dropping_limit_is_never_exceeded(limit: int, sequence: list[tuple[bool, int, int]]) -> None:
    source = SOURCES[0]
    options = PeerImport(max_prefixes=MaxPrefixes(limit, action="drop"))
    policy = ImportPolicy(asn=OWN_ASN, router_id=ROUTER_ID, allow=[INSIDE], peers={source.peer: options})
    rib = Rib(policy)
    rib.session_up(source, [Family.IPV4])
    stored: set[tuple[Prefix, int]] = set()
    attributes = PathAttributes(Origin.IGP, EMPTY_AS_PATH, NEXT_HOPS[0])
    for announced, number, path_id in sequence:
        nlri = Prefix(Address(bytes((10, 244, number, 0))), 24)
        if announced:
            rib.update(source, path_id, attributes, (nlri,), ())
            if len(stored) < limit:
                stored.add((nlri, path_id))
        else:
            rib.update(source, path_id, None, (), (nlri,))
            stored.discard((nlri, path_id))
        table = rib.table(source.peer, Family.IPV4)
        assert table is not None
        assert set(table.known()) == stored
        assert not any((path.nlri, path.path_id) in stored for path in table.dropped.values())
