"""Each real daemon as a client and as a non-client of our reflector: what one announces, the others hold.

Their view is what their own client shows.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bgpd.lab.workspace import Workspace
from tests.interop.agent import peer
from tests.interop.conftest import SPEAKERS
from tests.interop.harness.lan import build_lan
from tests.interop.harness.speaker import Announcement, SeenPath, Speaker, wait_until
from tests.interop.reflector import ASN, Reflector, check_reflected, clients, config, toward, wait_reflected

FULL = Announcement(
    "10.2.0.0/24",
    med=5,
    local_pref=120,
    communities=("65000:1", "65000:2"),
    large_communities=("65000:1:2",),
    next_hop="192.0.2.77",
)
PLAIN = Announcement("10.4.0.0/24")
SHARED = "10.5.0.0/24"


class Cluster:
    """Our reflector on the first host, two clients and a non-client, all of one kind."""

    def __init__(self, workspace: Workspace, daemon: str) -> None:
        us, *hosts = build_lan(workspace, "us", "one", "two", "other")
        self.hosts = hosts
        non_client = peer(hosts[2].ipv4, ASN)
        self.reflector = Reflector(us, config(us, clients(), non_client))
        self.speakers = [SPEAKERS[daemon](host, ASN, (toward(host, us),)) for host in hosts]

    @property
    def one(self) -> Speaker:
        return self.speakers[0]

    @property
    def two(self) -> Speaker:
        return self.speakers[1]

    @property
    def other(self) -> Speaker:
        return self.speakers[2]

    def start(self) -> None:
        self.reflector.start()
        self.reflector.wait_ready()  # those that are refused at first wait for long
        for speaker in self.speakers:
            speaker.start()
        for speaker in self.speakers:
            speaker.wait_established()
        for host in self.hosts:
            self.reflector.wait_established(host.ipv4)

    def kill(self) -> None:
        for speaker in self.speakers:
            speaker.kill()
        self.reflector.kill()


@pytest.fixture(params=SPEAKERS)
def cluster(workspace: Workspace, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    made = Cluster(workspace, request.param)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def test_a_daemon_as_client_and_as_non_client(cluster: Cluster) -> None:
    what_a_client_announces_reaches_everybody(cluster)
    what_a_non_client_announces_reaches_clients(cluster)
    the_better_path_wins_and_is_not_sent_back(cluster)
    withdrawals_follow(cluster)
    for host in cluster.hosts:
        assert cluster.reflector.peer(host.ipv4).counters.flaps == 0


def what_a_client_announces_reaches_everybody(cluster: Cluster) -> None:
    cluster.one.announce(FULL)
    for speaker in (cluster.two, cluster.other):
        check_reflected(speaker.wait_best(FULL.prefix), FULL, cluster.hosts[0])
    assert not came_back(cluster.one, FULL.prefix)


def came_back(speaker: Speaker, prefix: str) -> list[SeenPath]:
    """What a source of a prefix holds of it beside its own."""
    return [seen for seen in speaker.paths(prefix) if seen.originator_id]


def what_a_non_client_announces_reaches_clients(cluster: Cluster) -> None:
    cluster.other.announce(PLAIN)
    for speaker in (cluster.one, cluster.two):
        check_reflected(speaker.wait_best(PLAIN.prefix), PLAIN, cluster.hosts[2])
    assert not came_back(cluster.other, PLAIN.prefix)


def the_better_path_wins_and_is_not_sent_back(cluster: Cluster) -> None:
    """The best path moves from one client to the other and back, and each holds the other's."""
    worse, better = Announcement(SHARED, local_pref=110), Announcement(SHARED, local_pref=130)
    cluster.one.announce(worse)
    check_reflected(wait_reflected(cluster.two, SHARED), worse, cluster.hosts[0])
    cluster.two.announce(better)
    for speaker in (cluster.one, cluster.other):
        seen = wait_reflected(speaker, SHARED, lambda seen: seen.local_pref == 130)
        check_reflected(seen, better, cluster.hosts[1])
    wait_until(lambda: not came_back(cluster.two, SHARED), 5, "it holds its own path alone")
    cluster.two.withdraw(SHARED)
    for speaker in (cluster.two, cluster.other):
        seen = wait_reflected(speaker, SHARED, lambda seen: seen.local_pref == 110)
        check_reflected(seen, worse, cluster.hosts[0])
    wait_until(lambda: not came_back(cluster.one, SHARED), 5, "it holds its own path alone")


def withdrawals_follow(cluster: Cluster) -> None:
    cluster.one.withdraw(FULL.prefix, SHARED)
    cluster.other.withdraw(PLAIN.prefix)
    for speaker in cluster.speakers:
        for prefix in (FULL.prefix, SHARED, PLAIN.prefix):
            speaker.wait_gone(prefix)
