"""When a node may get pods: each gate, the quorum, and that open gates stay open."""

from __future__ import annotations

import pytest

from bgpd.node.readiness import NOT_YET, PeerFacts, Quorum, Readiness, ReadinessFacts, judge

GOOD = PeerFacts("reflector1", True, 0.1, True, True, True)
NO_SESSION = GOOD._replace(name="reflector2", established=False)
OPEN = ReadinessFacts(
    own_prefixes=2,
    peers=(GOOD,),
    quorum=Quorum.MAJORITY,
    settle_time=5.0,
    fib_pending=0,
    fib_failures=(),
    kernel_verified=True,
    cni_written=True,
)


def test_all_gates_open() -> None:
    assert judge(OPEN) == Readiness(True, True, ())


def test_first_the_cni_configuration_then_the_node() -> None:
    wired = judge(OPEN._replace(cni_written=False))
    assert (wired.can_forward, wired.ready) == (True, False)
    assert wired.reasons == ("the CNI configuration is not written",)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (OPEN._replace(own_prefixes=0), "no pod prefix"),
        (OPEN._replace(peers=(NO_SESSION,)), "reflector2 (no session)"),
        (OPEN._replace(peers=(GOOD._replace(own_written=False),)), "our prefixes are not written yet"),
        (OPEN._replace(peers=(GOOD._replace(end_of_rib=False),)), "no End-of-RIB yet"),
        (OPEN._replace(fib_pending=3), "has not acknowledged 3 changes"),
        (OPEN._replace(fib_failures=("10.0.0.0/24: EEXIST",)), "refused 1 entry: 10.0.0.0/24: EEXIST"),
    ],
)
def test_each_gate_keeps_pods_away_with_its_sentence(facts: ReadinessFacts, said: str) -> None:
    found = judge(facts)
    assert (found.can_forward, found.ready) == (False, False)
    assert len(found.reasons) == 1
    assert said in found.reasons[0]


def test_routes_that_were_not_read_back_keep_the_condition() -> None:
    found = judge(OPEN._replace(kernel_verified=False))
    assert (found.can_forward, found.ready) == (True, False)


@pytest.mark.parametrize(("seconds", "opens"), [(4.9, False), (5.0, True)])
def test_without_graceful_restart_time_stands_for_end_of_rib(seconds: float, opens: bool) -> None:
    peer = GOOD._replace(graceful_restart=False, end_of_rib=False, established_for=seconds)
    assert judge(OPEN._replace(peers=(peer,))).can_forward is opens


def test_with_graceful_restart_no_time_does() -> None:
    peer = GOOD._replace(end_of_rib=False, established_for=3600.0)
    assert not judge(OPEN._replace(peers=(peer,))).can_forward


@pytest.mark.parametrize(
    ("quorum", "expected", "needed"),
    [
        (Quorum.ONE, 0, 0), (Quorum.MAJORITY, 0, 0), (Quorum.ALL, 0, 0),
        (Quorum.ONE, 4, 1), (Quorum.MAJORITY, 4, 3), (Quorum.MAJORITY, 2, 2), (Quorum.MAJORITY, 5, 3),
        (Quorum.ALL, 4, 4),
    ],
)  # fmt: skip
def test_the_quorum(quorum: Quorum, expected: int, needed: int) -> None:
    for good in range(expected + 1):
        peers = (GOOD,) * good + tuple(NO_SESSION._replace(name=f"p{n}") for n in range(expected - good))
        assert judge(OPEN._replace(peers=peers, quorum=quorum)).can_forward is (good >= needed)


def test_a_cluster_of_one_expects_nobody() -> None:
    assert judge(OPEN._replace(peers=(), quorum=Quorum.ALL)).ready


def test_losing_every_peer_later_neither_unwires_pods_nor_hides_the_loss() -> None:
    before = judge(OPEN)
    lost = judge(OPEN._replace(peers=(NO_SESSION,), fib_pending=1), before)
    assert (lost.can_forward, lost.ready) == (True, True)
    assert len(lost.reasons) == 2
    assert all("their routes are kept" in reason for reason in lost.reasons)


def test_only_a_node_that_leaves_closes_the_gates() -> None:
    left = judge(OPEN._replace(leaving=True), judge(OPEN))
    assert (left.can_forward, left.ready) == (False, False)
    assert "leaving" in left.reasons[0]


def test_a_large_cluster_is_no_endless_sentence() -> None:
    peers = tuple(NO_SESSION._replace(name=f"node{number}") for number in range(200))
    (reason,) = judge(OPEN._replace(peers=peers), NOT_YET).reasons
    assert "and 195 more" in reason
    assert len(reason) < 300
