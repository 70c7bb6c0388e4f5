"""The reflector's other sides: a fabric's router, clients that want several paths, and who is kept out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from bgpd.lab.workspace import Workspace
from routes.peer import SessionState
from tests.interop.agent import PASSWORD_FILE, peer
from tests.interop.conftest import SPEAKERS
from tests.interop.harness.bird import BirdSpeaker
from tests.interop.harness.frr import FrrSpeaker
from tests.interop.harness.lan import LanHost, build_lan
from tests.interop.harness.speaker import Announcement, Neighbor, Speaker, wait_until
from tests.interop.reflector import ASN, Reflector, check_reflected, clients, config, toward

FABRIC = 64601
TRIED = 2.0
"""Seconds in which every BIRD has tried to connect: it does after one, and would be up at once."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(
    stack: ExitStack, us: LanHost, text: str, speakers: Sequence[Speaker], password: str = ""
) -> Reflector:
    """The reflector first: who is refused by a port that nobody listens on waits for long."""
    reflector = Reflector(us, text, password)
    stack.callback(reflector.kill)
    reflector.start()
    reflector.wait_ready()
    for speaker in speakers:
        stack.callback(speaker.kill)
        speaker.start()
    return reflector


def test_a_fabric_router_needs_one_session_and_is_told_the_nodes_next_hops(
    workspace: Workspace, stack: ExitStack
) -> None:
    us, tor, one, two, other = build_lan(workspace, "us", "tor", "one", "two", "other")
    router = FrrSpeaker(tor, FABRIC, (toward(tor, us),))
    bird = BirdSpeaker(one, ASN, (toward(one, us),))
    frr = FrrSpeaker(two, ASN, (toward(two, us),))
    non_client = BirdSpeaker(other, ASN, (toward(other, us),))
    speakers = (router, bird, frr, non_client)
    sections = clients(), peer(tor.ipv4, FABRIC), peer(other.ipv4, ASN)
    reflector = start(stack, us, config(us, *sections), speakers)
    for speaker in speakers:
        speaker.wait_established()
    bird.announce(
        Announcement("10.2.0.0/24", med=9, communities=("65000:2",)),
        Announcement("10.2.1.0/24", communities=("65535:65281",)),  # NO_EXPORT
        Announcement("172.16.2.0/24"),
    )
    frr.announce(Announcement("10.3.0.0/24", local_pref=300))
    non_client.announce(Announcement("10.4.0.0/24"))
    router.announce(Announcement("10.100.0.0/24", med=3), Announcement("172.16.1.0/24"))
    _the_router_sees_what_may_leave(router, one, two)
    _inside_is_told_what_may_enter(reflector, tor, (bird, frr, non_client))
    # All else is inside by now, and still not outside.
    for speaker in (frr, bird):
        speaker.wait_best("10.4.0.0/24")
    for prefix in ("10.2.1.0/24", "172.16.2.0/24"):
        frr.wait_best(prefix)
    assert [router.paths(p) for p in ("10.2.1.0/24", "172.16.2.0/24", "10.4.0.0/24")] == [[], [], []]
    reasons = {
        view.reason
        for p in ("10.2.1.0/24", "172.16.2.0/24", "10.4.0.0/24")
        for view in reflector.told(p, tor.ipv4)
    }
    assert len(reasons) == 3
    bird.withdraw("10.2.0.0/24")
    router.wait_gone("10.2.0.0/24")


def _the_router_sees_what_may_leave(router: Speaker, one: LanHost, two: LanHost) -> None:
    for prefix, node in (("10.2.0.0/24", one), ("10.3.0.0/24", two)):
        seen = router.wait_best(prefix)
        assert seen.next_hop == node.ipv4  # a third-party next hop (RFC 4271 section 5.1.3)
        assert seen.as_path == (ASN,)
        assert not seen.med
        assert (seen.originator_id, seen.cluster_list) == ("", ())
    assert router.wait_best("10.2.0.0/24").communities == {"65000:2"}


def _inside_is_told_what_may_enter(reflector: Reflector, tor: LanHost, inside: Sequence[Speaker]) -> None:
    for speaker in inside:
        seen = speaker.wait_best("10.100.0.0/24")
        assert (seen.next_hop, seen.as_path, seen.local_pref, seen.med) == (tor.ipv4, (FABRIC,), 100, 3)
        assert (seen.originator_id, seen.cluster_list) == ("", ())  # it is not reflected: it enters here
        assert speaker.paths("172.16.1.0/24") == []
    refused = reflector.wait_path("172.16.1.0/24")
    assert (refused.accepted, refused.rule) == (False, "not-allowed")


@pytest.mark.parametrize("daemon", ["frr", "bird"])
def test_a_client_with_add_path_holds_both_paths_of_a_prefix(
    workspace: Workspace, stack: ExitStack, daemon: str
) -> None:
    us, wants, one, two = build_lan(workspace, "us", "wants", "one", "two")
    reader = SPEAKERS[daemon](wants, ASN, (toward(wants, us, add_path=True),))
    sources = [BirdSpeaker(host, ASN, (toward(host, us),)) for host in (one, two)]
    reflector = start(stack, us, config(us, clients(add_paths=4)), [reader, *sources])
    for speaker in (reader, *sources):
        speaker.wait_established()
    for speaker in sources:
        speaker.announce(Announcement("10.5.0.0/24"))

    def next_hops() -> list[str]:
        return sorted(seen.next_hop for seen in reader.paths("10.5.0.0/24"))

    wait_until(lambda: next_hops() == [one.ipv4, two.ipv4], 10, lambda: f"both paths: {next_hops()}")
    for seen in reader.paths("10.5.0.0/24"):
        check_reflected(seen, Announcement("10.5.0.0/24"), one if seen.next_hop == one.ipv4 else two)
    line = reflector.wait_logged("a second client announces a prefix", prefix="10.5.0.0/24")
    assert line["peers"] in ([one.ipv4, two.ipv4], [two.ipv4, one.ipv4])
    sources[0].withdraw("10.5.0.0/24")
    wait_until(lambda: next_hops() == [two.ipv4], 10, lambda: f"one path: {next_hops()}")


def test_a_range_keeps_out_who_lacks_its_password_or_its_ttl(workspace: Workspace, stack: ExitStack) -> None:
    us, *hosts = build_lan(workspace, "us", "good", "nokey", "wrong", "far")
    secure = {"password": "sesame", "ttl_security": True}
    neighbors = [
        toward(hosts[0], us, **secure),
        toward(hosts[1], us, ttl_security=True),
        toward(hosts[2], us, password="sesam", ttl_security=True),
        toward(hosts[3], us, password="sesame"),
    ]
    speakers = [
        (FrrSpeaker if host is hosts[0] else BirdSpeaker)(host, ASN, (neighbor,))
        for host, neighbor in zip(hosts, neighbors, strict=True)
    ]
    text = config(us, clients(password_file=PASSWORD_FILE, ttl_security=1))
    reflector = start(stack, us, text, [*speakers[1:], speakers[0]], "sesame")
    speakers[0].wait_established()
    speakers[0].announce(Announcement("10.2.0.0/24"))
    reflector.wait_path("10.2.0.0/24")
    time.sleep(TRIED)
    assert not any(speaker.is_established(us.ipv4) for speaker in speakers[1:])
    assert {
        status.name for status in reflector.client.peers() if status.state is SessionState.ESTABLISHED
    } == {hosts[0].ipv4}


def test_a_range_bounds_its_clients_and_what_they_announce(workspace: Workspace, stack: ExitStack) -> None:
    us, one, two = build_lan(workspace, "us", "one", "two")
    speakers = [BirdSpeaker(host, ASN, (toward(host, us),)) for host in (one, two)]
    reflector = start(stack, us, config(us, clients(max_sessions=1, allow=["10.2.0.0/16"])), speakers[:1])
    speakers[0].wait_established()
    start_late(stack, speakers[1])
    reflector.wait_logged("a range of clients is full", limit=1)
    speakers[0].announce(Announcement("10.2.0.0/24"), Announcement("10.3.0.0/24"))
    assert reflector.wait_path("10.2.0.0/24").accepted
    refused = reflector.wait_path("10.3.0.0/24")
    assert (refused.accepted, refused.rule) == (False, "not-allowed")
    assert not speakers[1].is_established(us.ipv4)
    assert [status.name for status in reflector.client.peers()] == [one.ipv4]


def start_late(stack: ExitStack, speaker: Speaker) -> None:
    stack.callback(speaker.kill)
    speaker.start()


def test_an_explicit_entry_wins_over_a_range(workspace: Workspace, stack: ExitStack) -> None:
    """The range is of our AS; this one address in it is a router of another."""
    us, tor = build_lan(workspace, "us", "tor")
    router = BirdSpeaker(tor, FABRIC, (Neighbor(us.ipv4, ASN, tor.ipv4, ("ipv4",)),))
    reflector = start(stack, us, config(us, clients(), peer(tor.ipv4, FABRIC)), [router])
    router.wait_established()
    assert reflector.wait_established(tor.ipv4).kind.value == "ebgp"
