"""Update groups against a naive model: whatever happens in whatever order, each peer's table is right.

Clients, non-clients and peers in other ASes announce, withdraw, join, leave, ask for everything again and
read slowly; what they parse from the bytes they get must be what RFC 4456 section 6 says, said naively.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.bgp.codec import encode_keepalive
from bgpd.daemon import Daemon
from bgpd.reflector_view import ReflectorView
from bgpd.view import Facts, Shutdown
from routes.duplicates import Duplicates
from routes.path import PeerKind
from routes.peer import Negotiated
from routes.prefix import Address, Family, Prefix
from routes.reflection import Role
from routes.route_policy import (
    Action,
    Policies,
    PrefixRange,
    RouteMatch,
    RoutePolicy,
    RouteRule,
    RouteSet,
)
from tests.fakes.reflected import Network, Peer, VirtualLoop
from tests.fakes.reflection_model import ASN, PREFIXES, VERSIONS, Model, Speaker, announcement

BOTH = frozenset(Family)
EVERYBODY = (Role.CLIENT, Role.CLIENT, Role.CLIENT, Role.NON_CLIENT, Role.NON_CLIENT, Role.EXTERNAL)


MARK = RouteSet(local_pref=300, med=9, prepend=1, add_communities=(0xFFFFFF04,))  # sorted on the wire
SOME = RouteMatch(prefixes=tuple(PrefixRange(nlri, nlri.length, 32) for nlri in PREFIXES[:3]))
VARIANTS = (
    RoutePolicy("p", default=Action.ACCEPT),
    RoutePolicy("p", (RouteRule("some", Action.ACCEPT, SOME, MARK),)),
    RoutePolicy("p", (RouteRule("none", Action.REJECT, SOME),), Action.ACCEPT),
    RoutePolicy("p", (RouteRule("mark", Action.CONTINUE, RouteMatch(communities=(65000 << 16 | 1,)), MARK),)),
)
"""What one name may stand for, now and after a reload."""
SECOND = RoutePolicy("q", (RouteRule("all", Action.ACCEPT, set=RouteSet(med=4)),))


class World(Network):
    """The network, what happens in it, and the model."""

    def __init__(self, random: Random) -> None:
        loop = VirtualLoop(random)
        roles = random.sample(EVERYBODY, random.randint(2, len(EVERYBODY)))
        super().__init__([self._peer(n, role, loop, random) for n, role in enumerate(roles, 1)], loop, random)
        # The same object for the same version, as a decoder gives it: packing goes by that.
        self.known = {
            (peer.name, family, version): announcement(peer, family, version)
            for peer in self.peers.values()
            for family in Family
            for version in range(VERSIONS)
        }
        self.model = Model(max(1, *(peer.add_paths for peer in self.peers.values())), {}, self._policies)
        for peer in self.peers.values() if random.random() < 0.5 else ():
            self._choose_policies(peer)
        self.out.config = replace(self.config, policies=(random.choice(VARIANTS), SECOND))

    def _policies(self, peer: Speaker) -> Policies:
        return self.out.config.named_policies(cast("Peer", peer).config.export_policies)

    def _choose_policies(self, peer: Peer) -> None:
        names = self.random.choice(((), ("p",), ("p",), ("p", "q")))
        peer.config = replace(peer.config, export_policies=names)

    def reload(self) -> None:
        """Policies change, and now and then a peer's list of them."""
        if self.random.random() < 0.5:
            self.out.config = replace(self.out.config, policies=(self.random.choice(VARIANTS), SECOND))
        for peer in self.peers.values() if self.random.random() < 0.5 else ():
            if self.random.random() < 0.5:
                self._choose_policies(peer)
        self.flush()
        self.out.revise({peer.name: peer.config for peer in self.peers.values()})

    @staticmethod
    def _peer(number: int, role: Role, loop: VirtualLoop, random: Random) -> Peer:
        external = role is Role.EXTERNAL
        add_paths = 0 if external else random.choice((0, 0, 2, 3))
        families = random.choice((BOTH, BOTH, frozenset({Family.IPV4})))
        negotiated = Negotiated(
            kind=PeerKind.EBGP if external else PeerKind.IBGP,
            local_asn=ASN,
            peer_asn=65100 + number if external else ASN,
            peer_bgp_id=number,
            local_address=Address(b"\x0a\x63\0\xfe"),
            peer_address=Address(bytes((10, 99, 0, number))),
            ifindex=0,
            hold_time=90,
            families=families,
            four_octet=random.random() < 0.8,
            add_path_send=families if add_paths else frozenset(),
            enhanced_route_refresh=random.random() < 0.5,
        )
        return Peer(f"{role.value}-{number}", role, loop, negotiated, add_paths)

    # -- what happens -----------------------------------------------------------------------------

    def step(self) -> None:
        peer = self.random.choice(list(self.peers.values()))
        if not peer.up:
            self.join(peer)
            return
        match self.random.randrange(18):
            case 0 | 1 | 2 | 3 | 4:
                self.announce(peer)
            case 5 | 6:
                self.withdraw(peer)
            case 7 | 8 | 9:
                peer.read(self.random.choice((1, 19, 70, 400, 5000)))
            case 10 | 11 | 12:
                self.loop.run(self.random.randint(1, 3))
            case 13:
                self.out.refresh(peer.name, self.random.choice(list(Family)))
            case 14:
                self.leave(peer)
            case 15:
                peer.send(encode_keepalive())
            case 17:
                self.reload()
            case 16 if not self.completed and self.random.random() < 0.3:
                self.complete()

    def _some_prefixes(self, peer: Peer) -> dict[Family, tuple[Prefix, ...]]:
        some = self.random.sample(PREFIXES, self.random.randint(1, len(PREFIXES)))
        by_family = {f: tuple(p for p in some if p.family is f) for f in peer.families}
        return {family: mine for family, mine in by_family.items() if mine}

    def announce(self, peer: Peer) -> None:
        version = self.random.randrange(VERSIONS)
        for family, some in self._some_prefixes(peer).items():
            told = self.known[peer.name, family, version]
            self.rib.update(peer.source, 0, told.attributes, some, ())
            self.model.announced |= {(peer, nlri): told for nlri in some}
        self._maybe_flush()

    def withdraw(self, peer: Peer) -> None:
        for some in self._some_prefixes(peer).values():
            self.rib.update(peer.source, 0, None, (), some)
            for nlri in some:
                self.model.announced.pop((peer, nlri), None)
        self._maybe_flush()

    def _maybe_flush(self) -> None:
        """Often several UPDATEs are decided on together."""
        if self.random.random() < 0.7:
            self.flush()

    def leave(self, peer: Peer) -> None:
        super().leave(peer)
        self.model.forget(peer)
        self._maybe_flush()

    # -- what must come of it ---------------------------------------------------------------------

    def check(self) -> None:
        self.settle()
        for peer in self.peers.values():
            if peer.up:
                self._check_table(peer)
                assert not peer.heard.stale
                assert sorted(peer.heard.end_of_rib) == (sorted(peer.families) if self.completed else [])
        assert all(group.members for group in self.out.groups)

    def _check_table(self, peer: Peer) -> None:
        for nlri in PREFIXES:
            held = Counter(told for (each, _), told in peer.heard.table.items() if each == nlri)
            assert held == Counter(self.model.expected(peer, nlri)), f"{peer.name}, {nlri}"

    def check_view(self) -> None:
        """The Adj-RIB-Out of the API, which is computed, is what peers hold."""
        daemon = cast("Daemon", SimpleNamespace(rib=self.rib))
        unused = cast("Duplicates", None), Facts(0.0), cast("Shutdown", None)
        view = ReflectorView(daemon, self.out.groups, *unused)
        for peer in self.peers.values():
            for nlri in PREFIXES if peer.up else ():
                shown = view.told(nlri, peer.name)
                told = Counter(each.attributes for each in shown if each.accepted)
                held = Counter(each for (key, _), each in peer.heard.table.items() if key == nlri)
                assert told == held, f"{peer.name}, {nlri}: {shown}"
                assert all(each.reason for each in shown if not each.accepted)


@settings(max_examples=1500, deadline=None)
@given(
    seed=st.integers(0, 1 << 48),
    steps=st.integers(1, 60),
    pinned=st.sampled_from([1, 100_000]),
    many=st.sampled_from([1, 2, 100]),
)
def test_every_peer_ends_with_what_the_model_says(seed: int, steps: int, pinned: int, many: int) -> None:
    random = Random(seed)
    with (
        patch("bgpd.bgp.update_groups.MOST_PINNED", pinned),
        patch("bgpd.bgp.update_groups.log"),
        patch("bgpd.bgp.front.STEP", 2),
        patch("routes.rib.MANY", many),
        patch("routes.loc_rib.MANY", many),
    ):
        world = World(random)
        for _ in range(steps):
            world.step()
            if random.random() < 0.03:
                world.check()
        world.complete()
        world.check()
        world.check_view()
