"""A prefix of two clients is told once, with both; what another reflector repeats is no second client's."""

from __future__ import annotations

import pytest

from routes.duplicates import Duplicate, Duplicates
from routes.path import EMPTY_AS_PATH, Origin, PathAttributes, PeerKind, PeerName, Source
from routes.policy import ImportPolicy, PeerImport
from routes.prefix import Address, Family, Prefix
from routes.rib import Rib

A, B, C, OTHER = (PeerName(name) for name in ("a", "b", "c", "other"))
CLIENTS = {A, B, C}
POD = Prefix.parse("10.244.1.0/24")
ELSE = Prefix.parse("10.244.2.0/24")


class Network:
    """A reflector's RIB with three clients and another reflector."""

    def __init__(self) -> None:
        peers = {name: PeerImport(trusted=True) for name in (*CLIENTS, OTHER)}
        self.rib = Rib(ImportPolicy(asn=65000, router_id=1, cluster_id=1, peers=peers))
        self.told: list[Duplicate] = []
        self.duplicates = Duplicates(CLIENTS.__contains__, self.told.append)
        self.rib.watch_duplicates(self.duplicates)
        self.sources = {
            name: Source(name, PeerKind.IBGP, 65000, at, Address(bytes((192, 0, 2, at))))
            for at, name in enumerate((A, B, C, OTHER), 11)
        }
        for source in self.sources.values():
            self.rib.session_up(source, tuple(Family))

    def announce(
        self, name: PeerName, nlri: Prefix = POD, originator: int | None = None, path_id: int = 0
    ) -> None:
        source = self.sources[name]
        attributes = PathAttributes(Origin.IGP, EMPTY_AS_PATH, source.address, originator_id=originator)
        self.rib.update(source, path_id, attributes, (nlri,), ())
        self.rib.take_changes()

    def withdraw(self, name: PeerName, nlri: Prefix = POD) -> None:
        self.rib.update(self.sources[name], 0, None, (), (nlri,))
        self.rib.take_changes()


def test_a_second_client_is_told_once_with_both_although_it_loses() -> None:
    network = Network()
    network.announce(A)
    assert not network.told
    network.announce(B)
    network.announce(B)
    network.announce(C)
    assert network.told == [Duplicate(POD, A, B)]
    assert network.duplicates.of(POD) == Duplicate(POD, A, B)


@pytest.mark.parametrize("gone", [A, B])
def test_it_is_over_when_one_of_two_withdraws_and_told_again_when_it_is_back(gone: PeerName) -> None:
    network = Network()
    network.announce(A)
    network.announce(B)
    network.withdraw(gone)
    assert (len(network.duplicates), network.duplicates.of(POD)) == (0, None)
    network.announce(gone)
    assert (len(network.told), network.duplicates.total) == (2, 2)


def test_a_lost_session_ends_it() -> None:
    network = Network()
    network.announce(A)
    network.announce(B)
    network.rib.session_down(B)
    network.rib.take_changes()
    assert not network.duplicates
    network.rib.session_down(A)
    network.rib.take_changes()
    assert not network.duplicates


@pytest.mark.parametrize(
    ("name", "originator", "duplicate"),
    [
        (OTHER, 11, False),  # the other reflector passes on what A announces
        (OTHER, 99, False),  # it is no client, so it may be where the prefix comes from
        (B, 11, False),  # B is a reflector below us, with A as its client too
        (B, 99, True),
    ],
)
def test_the_originator_says_whose_a_path_is(name: PeerName, originator: int, duplicate: bool) -> None:
    network = Network()
    network.announce(A)
    network.announce(name, originator=originator)
    assert bool(network.told) == duplicate


def test_two_paths_of_one_client_are_no_second_client() -> None:
    network = Network()
    network.announce(A, path_id=1)
    network.announce(A, path_id=2, originator=99)
    assert not network.duplicates


def test_the_first_few_of_many() -> None:
    network = Network()
    for nlri in (POD, ELSE):
        network.announce(A, nlri)
        network.announce(B, nlri)
    assert network.duplicates.first(1) == (Duplicate(POD, A, B),)
    assert [each.nlri for each in network.duplicates.first(10)] == [POD, ELSE]
