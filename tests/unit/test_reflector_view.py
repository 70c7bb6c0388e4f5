"""What a reflector's API says: of each group and each peer what it is told, what not, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import pytest

from bgpd.bgp.message import Notification
from bgpd.bgp.outflow import Outflow
from bgpd.bgp.update_groups import Terms, UpdateGroups
from bgpd.daemon import Daemon
from bgpd.reflector_view import NOT_BACK, ReflectorView
from bgpd.view import Facts, RoleView, Shutdown
from routes.duplicates import Duplicates
from routes.path import EMPTY_AS_PATH, LOCAL_PEER, Origin, Path, PathAttributes, PeerKind, PeerName, Source
from routes.peer import Negotiated, PeerStatus, Reflection, SessionState
from routes.policy import AllowEntry, ImportPolicy, PeerImport
from routes.prefix import Address, Family, Prefix, parse_address
from routes.reflection import NO_EXPORT, Border, Export, Role
from routes.rib import Rib
from routes.view import Convergence, DaemonStatus, Match, RouteQuery, Table
from tests.fakes.reflected import VirtualLoop

POD = Prefix.parse("10.244.1.0/24")
SECOND = Prefix.parse("10.244.2.0/24")
OUTSIDE = Prefix.parse("10.99.0.0/24")
PODS = Prefix.parse("10.244.0.0/16")
ALLOW = (AllowEntry(PODS, 16, 32),)
ME = parse_address("192.0.2.1")
A, B, C = (PeerName(f"192.0.2.{n}") for n in (11, 12, 13))
OTHER, TOR = PeerName("192.0.2.20"), PeerName("192.0.2.254")
ROLES = {A: Role.CLIENT, B: Role.CLIENT, C: Role.CLIENT, OTHER: Role.NON_CLIENT, TOR: Role.EXTERNAL}


@dataclass
class Session:
    """As much of one as update groups use: it takes nothing."""

    name: PeerName

    def send(self, data: bytes) -> None: ...
    def attach(self, feed: Outflow) -> None: ...
    def pump(self) -> None: ...
    def reset(self, notification: Notification) -> None: ...


class Reflector:
    """A reflector with three clients, another reflector and a router, in one family."""

    def __init__(self, aggregates: tuple[Prefix, ...] = (), add_paths: int = 0) -> None:
        peers = {name: PeerImport(trusted=True) for name in ROLES}
        self.rib = Rib(ImportPolicy(asn=65000, router_id=1, cluster_id=1, peers=peers), max(1, add_paths))
        duplicates = Duplicates(lambda name: ROLES.get(name) is Role.CLIENT)
        self.rib.watch_duplicates(duplicates)
        border = Border.of(ALLOW, aggregates, 1)
        with patch("asyncio.get_running_loop", return_value=VirtualLoop(Random(1))):
            self.groups = UpdateGroups(self._selected, ROLES.__getitem__, border)
        configs = {
            name: SimpleNamespace(name=name, kind=kind(role), client=role is Role.CLIENT, range="")
            for name, role in ROLES.items()
        }
        states = {name: SimpleNamespace(config=config, negotiated=None) for name, config in configs.items()}
        daemon = SimpleNamespace(rib=self.rib, peers=states, peer_status=status)
        self.view = ReflectorView(
            cast("Daemon", daemon), self.groups, duplicates, Facts(0.0), cast("Shutdown", None)
        )
        self.sources = {name: self.join(name, add_paths) for name in ROLES}

    def _selected(self, family: Family) -> Iterable[tuple[Prefix, tuple[Path, ...]]]:
        return list(self.rib.loc_rib(family).selected.items())

    def join(self, name: PeerName, add_paths: int = 0) -> Source:
        address, role = parse_address(name), ROLES[name]
        source = Source(name, kind(role), 64601 if role is Role.EXTERNAL else 65000, address[3], address)
        self.rib.session_up(source, (Family.IPV4,))
        sent = add_paths if role is Role.CLIENT else 0
        session = Negotiated(
            source.kind, 65000, source.asn, source.bgp_id, ME, address, 0, 90, frozenset((Family.IPV4,)),
            add_path_send=frozenset((Family.IPV4,) if sent else ()),
        )  # fmt: skip
        own = ME if role is Role.EXTERNAL else None
        self.groups.session_up(Session(name), session, Terms(role, Export(65000, 1, own), sent))
        return source

    def announce(self, name: PeerName, *nlri: Prefix, communities: tuple[int, ...] = ()) -> None:
        source = self.sources[name]
        attributes = PathAttributes(Origin.IGP, EMPTY_AS_PATH, source.address, communities=communities)
        self.rib.update(source, 0, attributes, nlri, ())
        self.flush()

    def withdraw(self, name: PeerName, nlri: Prefix) -> None:
        self.rib.update(self.sources[name], 0, None, (), (nlri,))
        self.flush()

    def flush(self) -> None:
        changes = self.rib.take_changes()
        self.groups.changed(changes)
        self.view.changed(changes)

    def said(self, peer: PeerName, nlri: Prefix = POD) -> list[str]:
        """Why a peer is not told each path of a prefix; empty where it is."""
        return [view.reason for view in self.view.told(nlri, peer)]


def kind(role: Role) -> PeerKind:
    return PeerKind.EBGP if role is Role.EXTERNAL else PeerKind.IBGP


def status(state: SimpleNamespace) -> PeerStatus:
    return PeerStatus(state.config.name, state.config.kind, 65000, 65000, SessionState.ESTABLISHED)


def whole_of(reflector: Reflector) -> DaemonStatus:
    """The reflector's own part of the status."""
    plain = DaemonStatus("1", "reflector", 65000, 1, 0.0, Convergence(True))
    with patch.object(RoleView, "status", lambda _, received: plain):  # noqa: ARG005  as it is called
        return reflector.view.status()


@pytest.mark.parametrize(
    ("source", "nlri", "communities", "target", "why"),
    [
        (A, POD, (), B, ""),
        (A, POD, (), OTHER, ""),
        (A, POD, (), TOR, ""),
        (A, POD, (), A, NOT_BACK),
        (OTHER, POD, (), B, ""),
        (OTHER, POD, (), OTHER, NOT_BACK),
        (OTHER, POD, (), TOR, "this path comes from a non-client"),
        (A, OUTSIDE, (), TOR, "no entry of [import] allow admits 10.99.0.0/24"),
        (A, POD, (NO_EXPORT,), TOR, "NO_EXPORT"),
        (A, POD, (NO_EXPORT,), B, ""),
    ],
)
def test_a_peer_is_told_or_the_reason_is_given(
    source: PeerName, nlri: Prefix, communities: tuple[int, ...], target: PeerName, why: str
) -> None:
    reflector = Reflector()
    reflector.announce(source, nlri, communities=communities)
    (view,) = reflector.view.told(nlri, target)
    assert (view.to, view.accepted, view.best) == (target, not why, not why)
    assert why in view.reason
    assert bool(why) == bool(view.reason)


def test_without_a_peer_there_is_one_row_for_each_group_however_many_members() -> None:
    reflector = Reflector()
    reflector.announce(A, POD)
    rows = [view for view in reflector.view.paths(RouteQuery(Table.ADJ_OUT)) if view is not None]
    assert [(row.group, row.members, row.to) for row in rows] == [
        ("ipv4 client", 2, None),
        ("ipv4 non-client", 1, None),
        ("ipv4 external next hop 192.0.2.1", 1, None),
    ]
    assert rows[2].attributes.next_hop == ME


def test_an_aggregate_is_listed_and_is_the_reason_for_what_it_stands_for() -> None:
    reflector = Reflector((PODS,))
    reflector.announce(A, POD, SECOND)
    query = RouteQuery(Table.ADJ_OUT, TOR)
    rows = [view for view in reflector.view.paths(query) if view is not None]
    assert [(str(row.path.nlri), row.accepted, row.path.source.peer) for row in rows] == [
        ("10.244.0.0/16", True, LOCAL_PEER),
        ("10.244.1.0/24", False, A),
        ("10.244.2.0/24", False, A),
    ]
    assert rows[1].reason == "10.244.0.0/16 is announced in its place"
    reflector.withdraw(A, POD)
    reflector.withdraw(A, SECOND)
    assert [view for view in reflector.view.paths(query) if view is not None] == []


def test_an_aggregate_is_explained() -> None:
    reflector = Reflector((PODS,))
    reflector.announce(A, POD)
    found = reflector.view.explain(PODS, Match.EXACT)
    assert (found.nlri, found.failed, found.advertised_to) == (PODS, None, (TOR,))
    assert found.text == "10.244.0.0/16 is an aggregate of clients' prefixes, and 1 peer is told of it"
    assert "nobody announces" in reflector.view.explain(OUTSIDE, Match.EXACT).text


def test_a_prefix_is_explained_group_by_group() -> None:
    reflector = Reflector((PODS,))
    reflector.announce(A, POD)
    found = reflector.view.explain(POD, Match.EXACT)
    assert (found.failed, found.reflected, found.advertised_to) == (None, True, (B, C, OTHER))
    assert found.text == "10.244.1.0/24 is selected, and 3 peers are told of it"
    assert [(told.group.split(" next")[0], told.peers, told.not_back_to) for told in found.told] == [
        ("ipv4 client", 2, (A,)),
        ("ipv4 non-client", 1, ()),
        ("ipv4 external", 0, ()),
    ]
    assert found.told[2].reason == "10.244.0.0/16 is announced in its place"


def test_every_path_is_explained_and_a_second_client_named() -> None:
    reflector = Reflector()
    reflector.announce(A, POD)
    reflector.announce(B, POD)
    found = reflector.view.explain(POD, Match.EXACT)
    assert [(view.path.source.peer, view.best, view.lost_at) for view in found.paths] == [
        (A, True, ""),
        (B, False, "bgp-id"),
    ]
    assert f"more than one client announces it, {A} and {B} among them" in found.text
    whole = whole_of(reflector)
    assert (whole.duplicates, [each[1:] for each in whole.first_duplicates]) == (1, [(A, B)])


def test_paths_beyond_what_a_group_may_have_are_named() -> None:
    reflector = Reflector(add_paths=2)
    for name in (A, B, C):
        reflector.announce(name, POD)
    assert reflector.said(C) == ["", ""]
    assert reflector.said(A) == [NOT_BACK, ""]
    assert reflector.said(OTHER) == ["", "only the best path of a prefix may be announced to this group"]


def test_a_peer_has_role_groups_and_lag() -> None:
    reflector = Reflector()
    reflector.announce(A, POD)
    shown = {peer.name: peer.reflection for peer in reflector.view.peers()}
    assert shown[B] == Reflection("client", ((Family.IPV4, "ipv4 client"),), 1)
    assert shown[TOR] == Reflection("external", ((Family.IPV4, "ipv4 external next hop 192.0.2.1"),), 1)
    reflector.groups.session_down(B)
    one = reflector.view.peer(B)
    assert one is not None
    assert one.reflection == Reflection("client", (), 0)


def test_status_has_the_groups() -> None:
    reflector = Reflector()
    reflector.announce(A, POD, SECOND)
    reflector.withdraw(A, SECOND)
    clients = whole_of(reflector).groups[0]
    assert (clients.name, clients.role, clients.members, clients.entries) == ("ipv4 client", "client", 3, 1)
    assert clients.log_bytes > 23
    assert (clients.withdrawals, clients.lag) == (1, 2)


def test_watchers_of_what_peers_are_told_hear_of_aggregates_too() -> None:
    reflector = Reflector((PODS,))
    feed = reflector.view.route_feed(Table.ADJ_OUT)
    with feed.subscribe(100) as changes:
        reflector.announce(A, POD)
        assert asyncio.run(changes.take(10)) == [POD, PODS]


def test_groups_of_other_policy_have_other_names() -> None:
    names = set()
    for number, export in enumerate(
        (Export(65000, 1), Export(65000, 1, med=5), Export(65000, 1, communities=(7,)))
    ):
        reflector = Reflector()
        address = Address(bytes((192, 0, 2, 100 + number)))
        session = Negotiated(PeerKind.IBGP, 65000, 65000, 100, ME, address, 0, 90, frozenset((Family.IPV4,)))
        name = PeerName("192.0.2.100")
        reflector.groups.session_up(Session(name), session, Terms(Role.CLIENT, export))
        names.add(reflector.groups.groups_of(name)[Family.IPV4].name)
    assert names == {"ipv4 client", "ipv4 client med 5", "ipv4 client 0:7"}


def test_another_border_takes_effect_on_sessions_that_are_up() -> None:
    reflector = Reflector()
    reflector.announce(A, POD, OUTSIDE)
    assert [bool(reason) for reason in reflector.said(TOR) + reflector.said(TOR, OUTSIDE)] == [False, True]
    reflector.groups.redraw(Border.of((AllowEntry(Prefix.parse("10.99.0.0/16"), 16, 32),), (), 1))
    assert [bool(reason) for reason in reflector.said(TOR) + reflector.said(TOR, OUTSIDE)] == [True, False]
    group = reflector.groups.groups_of(TOR)[Family.IPV4]
    assert [key for key in (POD, OUTSIDE) if key in group.log] == [OUTSIDE]
    assert reflector.said(B, OUTSIDE) == [""]
