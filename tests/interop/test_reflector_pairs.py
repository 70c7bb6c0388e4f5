"""Our reflector beside, above and below real ones: what is announced arrives once more, and never stays.

Whatever sessions are lost, a path that its source withdraws is gone everywhere: nothing loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from bgpd.lab.workspace import Workspace
from routes.path import PeerName
from routes.view import Table
from tests.interop.agent import peer
from tests.interop.conftest import SPEAKERS
from tests.interop.harness.bird import BirdSpeaker
from tests.interop.harness.frr import FrrSpeaker
from tests.interop.harness.lan import LanHost, build_lan
from tests.interop.harness.speaker import Announcement, Speaker, wait_until
from tests.interop.reflector import ASN, CLUSTER_ID, Reflector, check_reflected, clients, config, toward

P = Announcement("10.2.0.0/24", med=7, local_pref=130, communities=("65000:7",))
Q = Announcement("10.3.0.0/24")
THEIR_CLUSTER_ID = "10.8.8.8"


@dataclass
class Network:
    """Our reflector, their reflector, and what speaks with them."""

    ours: Reflector
    theirs: Speaker
    one: BirdSpeaker
    two: BirdSpeaker
    hosts: list[LanHost]

    def start(self) -> None:
        self.ours.start()
        self.ours.wait_ready()
        for speaker in (self.theirs, self.one, self.two):
            speaker.start()
        for speaker in (self.theirs, self.one, self.two):
            speaker.wait_established(timeout=30)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def assemble(
    stack: ExitStack, hosts: list[LanHost], ours: Reflector, theirs: Speaker, ends: tuple[BirdSpeaker, ...]
) -> Network:
    stack.callback(ours.kill)
    for each in (theirs, *ends):
        stack.callback(each.kill)
    one, two = ends
    network = Network(ours, theirs, one, two, hosts)
    network.start()
    return network


def wait_clusters(speaker: Speaker, told: Announcement, source: LanHost, *expected: tuple[str, ...]) -> None:
    """Return when it holds exactly the paths that came through these reflectors."""

    def held() -> list[tuple[str, ...]]:
        return sorted(seen.cluster_list for seen in speaker.paths(told.prefix) if seen.originator_id)

    wait_until(
        lambda: held() == sorted(expected), 10, lambda: f"{speaker.host.name}: {held()}, not {expected}"
    )
    for seen in speaker.paths(told.prefix):
        if seen.originator_id:
            check_reflected(seen, told, source, seen.cluster_list)


def wait_gone_everywhere(network: Network, *prefixes: str) -> None:
    for prefix in prefixes:
        for speaker in (network.one, network.two, network.theirs):
            speaker.wait_gone(prefix)
        wait_until(partial(_has_none, network.ours, prefix), 5, f"{prefix} is gone")


def _has_none(ours: Reflector, prefix: str) -> bool:
    return not ours.paths(prefix)


@pytest.mark.parametrize("same", [True, False], ids=["one-cluster", "two-clusters"])
@pytest.mark.parametrize("daemon", SPEAKERS)
def test_a_redundant_pair(workspace: Workspace, stack: ExitStack, daemon: str, same: bool) -> None:
    # GoBGP compares no CLUSTER_LIST, but addresses: it must find those of the clients lower than ours.
    *ends, us, them = hosts = build_lan(workspace, "one", "two", "us", "them")
    # GoBGP 3.10 adds ORIGINATOR_ID and CLUSTER_LIST only toward its clients, and what has its own cluster ID
    # it takes, passes on and never withdraws: as a part of our cluster it has no session with us.
    apart = daemon == "gobgp" and same
    to_us = () if apart else (toward(them, us, client=daemon == "gobgp"),)
    theirs = SPEAKERS[daemon](them, ASN, (*to_us, *(toward(them, host, client=True) for host in ends)))
    theirs.cluster_id = CLUSTER_ID if same else THEIR_CLUSTER_ID
    network = assemble(
        stack,
        hosts,
        Reflector(us, config(us, clients(), *([] if apart else [peer(them.ipv4, ASN)]))),
        theirs,
        tuple(BirdSpeaker(host, ASN, (toward(host, us), toward(host, them))) for host in ends),
    )
    clients_hear_both(network, theirs.cluster_id)
    if not apart:
        a_path_of_the_other_reflector_is_judged(network, same=same)
    each_end_keeps_another_reflector(network, same=same)
    network.one.withdraw(P.prefix)
    network.two.withdraw(Q.prefix)
    wait_gone_everywhere(network, P.prefix, Q.prefix)


def clients_hear_both(network: Network, their_id: str) -> None:
    network.one.announce(P)
    network.two.announce(Q)
    both = [(CLUSTER_ID,), (their_id,)]
    wait_clusters(network.two, P, network.hosts[0], *both)
    wait_clusters(network.one, Q, network.hosts[1], *both)


def a_path_of_the_other_reflector_is_judged(network: Network, *, same: bool) -> None:
    """It has our cluster ID and loops, or it loses because it came through one reflector more."""
    ours, name = network.ours, network.hosts[3].ipv4
    wait_until(lambda: bool(ours.paths(P.prefix, name=name)), 5, "the other one reflects to us")
    (path,) = ours.paths(P.prefix, name=name)
    assert path.accepted is not same
    assert path.rule == ("cluster-loop" if same else "own-as")
    (best,) = [view for view in ours.paths(P.prefix, Table.LOC_RIB) if view.best]
    assert best.path.source.peer == PeerName(network.hosts[0].ipv4)


def each_end_keeps_another_reflector(network: Network, *, same: bool) -> None:
    """Between two clusters paths go on; one cluster with two heads needs both sessions of each client."""
    one, two, us, them = network.hosts
    network.one.shut_down(us.ipv4, "maintenance")
    network.two.shut_down(them.ipv4, "maintenance")
    if same:
        wait_clusters(network.two, P, one)
        wait_clusters(network.one, Q, two)
    else:
        wait_clusters(network.two, P, one, (CLUSTER_ID, THEIR_CLUSTER_ID))
        wait_clusters(network.one, Q, two, (THEIR_CLUSTER_ID, CLUSTER_ID))


@pytest.mark.parametrize("above", ["ours", "frr"])
def test_a_hierarchy(workspace: Workspace, stack: ExitStack, above: str) -> None:
    """One client is at the lower reflector and at the upper one as well, which closes a circle."""
    us, them, low, high = hosts = build_lan(workspace, "us", "them", "low", "high")
    upper, lower = (us, them) if above == "ours" else (them, us)
    ids = (CLUSTER_ID, THEIR_CLUSTER_ID) if above == "ours" else (THEIR_CLUSTER_ID, CLUSTER_ID)
    peers = [] if above == "ours" else [peer(them.ipv4, ASN)]
    frr_clients = {low.ipv4} if above == "ours" else {low.ipv4, high.ipv4, us.ipv4}
    neighbors = [us, low] if above == "ours" else [us, low, high]
    frr = FrrSpeaker(
        them, ASN, tuple(toward(them, host, client=host.ipv4 in frr_clients) for host in neighbors)
    )
    frr.cluster_id = THEIR_CLUSTER_ID
    network = assemble(
        stack,
        hosts,
        Reflector(us, config(us, clients(), *peers)),
        frr,
        (
            BirdSpeaker(low, ASN, (toward(low, lower), toward(low, upper))),
            BirdSpeaker(high, ASN, (toward(high, upper),)),
        ),
    )
    network.one.announce(P)
    network.two.announce(Q)
    wait_clusters(network.two, P, low, ids[:1])
    wait_clusters(network.one, Q, high, ids[:1], (ids[1], ids[0]))
    network.one.shut_down(upper.ipv4, "the upper one only through the lower one")
    wait_clusters(network.two, P, low, ids)
    wait_clusters(network.one, Q, high, (ids[1], ids[0]))
    network.one.withdraw(P.prefix)
    network.two.withdraw(Q.prefix)
    wait_gone_everywhere(network, P.prefix, Q.prefix)
