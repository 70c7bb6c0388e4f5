"""When the entries of a previous life are released."""

from __future__ import annotations

from routes.convergence import InitialConvergence
from routes.path import PeerName
from routes.prefix import Family

A, B = PeerName("192.0.2.1"), PeerName("192.0.2.2")
BOTH = frozenset(Family)


def start(*peers: PeerName) -> InitialConvergence:
    return InitialConvergence(peers, started=100.0, hold_time=10.0, deferral_time=180.0)


def test_every_family_of_every_peer_counts() -> None:
    wait = start(A, B)
    wait.established(A, BOTH, True, 101.0)
    wait.established(B, BOTH, True, 101.0)
    for peer, family in ((A, Family.IPV4), (A, Family.IPV6), (B, Family.IPV4)):
        wait.end_of_rib(peer, family, 102.0)
    assert wait.waiting_for == (B,)
    assert wait.release_at() == 280.0
    wait.end_of_rib(B, Family.IPV6, 103.0)
    assert wait.release_at() == 113.0


def test_a_peer_that_never_comes_is_waited_for_until_the_deferral_timer() -> None:
    wait = start(A, B)
    wait.established(A, BOTH, False, 101.0)
    assert wait.release_at() == 280.0


def test_a_peer_without_graceful_restart_owes_no_end_of_rib() -> None:
    wait = start(A)
    wait.established(A, BOTH, False, 101.0)
    assert wait.release_at() == 111.0


def test_a_session_that_comes_again_starts_its_families_anew() -> None:
    wait = start(A)
    wait.established(A, BOTH, True, 101.0)
    wait.end_of_rib(A, Family.IPV4, 102.0)
    wait.established(A, BOTH, True, 105.0)
    wait.end_of_rib(A, Family.IPV6, 106.0)
    assert wait.waiting_for == (A,)


def test_removing_the_last_awaited_peer_completes() -> None:
    wait = start(A)
    wait.removed(A, 120.0)
    assert wait.release_at() == 130.0


def test_no_peers_means_nothing_to_wait_for() -> None:
    assert start().release_at() == 110.0


def test_late_news_of_unknown_peers_changes_nothing() -> None:
    wait = start(A)
    wait.end_of_rib(B, Family.IPV4, 101.0)
    wait.end_of_rib(A, Family.IPV4, 101.0)
    wait.removed(B, 101.0)
    assert wait.waiting_for == (A,)
