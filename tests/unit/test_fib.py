"""Desired against actual, told as stories of one prefix or a few."""

from __future__ import annotations

import errno
import time
from math import inf

import pytest

from routes.fib import UNREACHABLE, Applied, Delta, Failure, Fib, FibEntry, Found, Hop
from routes.prefix import Address, Prefix, parse_address

POD, OTHER = Prefix.parse("10.244.2.0/24"), Prefix.parse("10.244.3.0/24")
LINK = 3


def via(*gateways: str) -> FibEntry:
    return FibEntry.of(Hop(parse_address(gateway), LINK) for gateway in gateways)


A, B = via("192.0.2.1"), via("192.0.2.2")
FULL = Failure(errno.ENETUNREACH, "Nexthop has invalid gateway (ENETUNREACH)")
TAKEN = Failure(errno.EEXIST, "File exists (EEXIST)")


def a_fib() -> Fib:
    return Fib(20, 179)


def with_installed(*items: tuple[Prefix, FibEntry]) -> Fib:
    fib = a_fib()
    fib.want_many(dict(items))
    fib.delta(0)
    fib.applied(Applied(), 0)
    return fib


def done(fib: Fib, now: float = 0, applied: Applied | None = None) -> Delta:
    """Take the next delta and answer it."""
    delta = fib.delta(now)
    if delta.size:
        fib.applied(applied or Applied(), now)
    return delta


def test_a_wanted_prefix_is_created_once() -> None:
    fib = a_fib()
    fib.want(POD, A)
    assert done(fib) == Delta(20, [(POD, A)], [], [])
    assert fib.state(POD).installed
    assert done(fib).size == 0


def test_another_entry_replaces_and_none_removes() -> None:
    fib = with_installed((POD, A))
    fib.want(POD, B)
    assert done(fib) == Delta(20, [], [(POD, B)], [])
    fib.want(POD, None)
    assert done(fib) == Delta(20, [], [], [(POD, B)])
    assert fib.actual == {}


def test_the_same_entry_again_is_no_work() -> None:
    fib = with_installed((POD, A))
    fib.want(POD, via("192.0.2.1"))
    assert done(fib).size == 0


def test_one_apply_is_in_flight_and_nothing_is_actual_before_its_answer() -> None:
    fib = a_fib()
    fib.want(POD, A)
    fib.delta(0)
    fib.want(OTHER, B)
    assert fib.delta(0).size == 0
    assert fib.actual == {}
    fib.applied(Applied(), 0)
    assert fib.delta(0).create == [(OTHER, B)]


def test_a_change_of_mind_in_flight_is_made_good_afterwards() -> None:
    fib = a_fib()
    fib.want(POD, A)
    fib.delta(0)
    fib.want(POD, B)
    fib.applied(Applied(), 0)
    assert done(fib).replace == [(POD, B)]


def test_a_limit_takes_the_oldest_first() -> None:
    fib = a_fib()
    fib.want(POD, A)
    fib.want(OTHER, A)
    assert fib.delta(0, limit=1).create == [(POD, A)]
    fib.applied(Applied(), 0)
    assert fib.pending
    assert fib.delta(0, limit=1).create == [(OTHER, A)]


def test_an_answer_without_a_delta_is_a_bug() -> None:
    with pytest.raises(RuntimeError):
        a_fib().applied(Applied(), 0)


# Holding


def test_adopted_entries_stay_without_a_touch_while_they_are_wanted_again() -> None:
    fib = a_fib()
    fib.adopt({POD: A, OTHER: B}, hold_until=180)
    assert fib.delta(0).size == 0
    assert fib.state(POD).held
    assert "kept until" in fib.state(POD).reason
    fib.want(POD, A)
    assert done(fib).size == 0
    assert fib.state(POD).installed
    assert fib.held == 1


def test_what_nothing_wants_after_convergence_goes_at_the_released_time() -> None:
    fib = a_fib()
    fib.adopt({POD: A, OTHER: B}, hold_until=180)
    fib.want(POD, A)
    fib.release_adopted(20)
    assert fib.next_deadline() == 20
    assert fib.delta(19.9).size == 0
    assert done(fib, 20).remove == [(OTHER, B)]
    assert fib.next_deadline() == inf


def test_an_adopted_entry_that_is_wanted_otherwise_is_replaced() -> None:
    fib = a_fib()
    fib.adopt({POD: A}, hold_until=180)
    fib.want(POD, B)
    assert done(fib).replace == [(POD, B)]


def test_a_withdrawn_entry_can_be_held_and_wanted_again() -> None:
    fib = with_installed((POD, A))
    fib.want(POD, None, hold_until=10)
    assert fib.delta(9).size == 0
    assert fib.state(POD).held
    fib.want(POD, A)
    assert fib.delta(11).size == 0
    fib.want(POD, None, hold_until=30)
    assert done(fib, 30).remove == [(POD, A)]


def test_held_entries_of_whom_is_gone_for_good_are_dropped_and_no_others() -> None:
    fib = with_installed((POD, A))
    fib.adopt({POD: A, OTHER: B}, hold_until=180)
    fib.want(POD, A)
    fib.want(POD, None, hold_until=30)
    assert fib.drop_held([OTHER, Prefix.parse("203.0.113.0/24")]) == 1
    assert done(fib).remove == [(OTHER, B)]
    assert list(fib.held_prefixes()) == [POD]
    fib.want(POD, A)
    assert fib.drop_held([POD]) == 0
    assert (done(fib).size, fib.state(POD).installed) == (0, True)


# What the kernel refuses


def test_a_refusal_is_told_and_retried_ever_more_slowly() -> None:
    fib = a_fib()
    fib.want(POD, A)
    refused = Applied({POD: FULL})
    delays, now = [], 0.0
    for _ in range(9):
        assert done(fib, now, refused).create == [(POD, A)]
        assert fib.state(POD).reason == FULL.text
        delays.append(fib.next_deadline() - now)
        assert fib.delta(now).size == 0
        now = fib.next_deadline()
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert done(fib, now).create == [(POD, A)]
    assert fib.state(POD).installed
    assert fib.blocked() == {}


def test_a_new_entry_or_a_change_of_links_is_tried_at_once() -> None:
    fib = a_fib()
    fib.want(POD, A)
    done(fib, 0, Applied({POD: FULL}))
    fib.want(POD, B)
    assert done(fib, 0, Applied({POD: FULL})).create == [(POD, B)]
    fib.retry_blocked()
    assert done(fib, 0).create == [(POD, B)]


def test_a_failed_replace_keeps_what_is_there() -> None:
    fib = with_installed((POD, A))
    fib.want(POD, B)
    done(fib, 0, Applied({POD: FULL}))
    assert fib.state(POD).actual == A
    assert fib.state(POD).reason == FULL.text


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESRCH])
def test_what_is_gone_already_is_created_or_forgotten(code: int) -> None:
    fib = with_installed((POD, A), (OTHER, A))
    fib.want_many({POD: B, OTHER: None})
    done(fib, 0, Applied(dict.fromkeys((POD, OTHER), Failure(code, "gone"))))
    assert done(fib).create == [(POD, B)]
    assert fib.actual == {POD: B}


# Foreign routes in our place


def foreign_in_place(protocol: int = 4) -> Applied:
    return Applied({POD: TAKEN}, {POD: Found(None, protocol)})


def test_a_foreign_route_in_our_place_is_named_and_left_alone() -> None:
    fib = a_fib()
    fib.want(POD, A)
    done(fib, 0, foreign_in_place())
    assert fib.state(POD).reason == "a route of protocol 4 (static) has this prefix, table and metric"
    fib.want(POD, B)
    assert fib.delta(0.5).size == 0
    assert done(fib, 1, foreign_in_place(186)).create == [(POD, B)]
    assert "186 (bgp)" in fib.state(POD).reason


def test_when_the_foreign_route_goes_ours_takes_the_place_at_once() -> None:
    fib = a_fib()
    fib.want(POD, A)
    done(fib, 0, foreign_in_place())
    fib.observed(POD, None, 4, B)
    assert done(fib, 0).create == [(POD, A)]


def test_what_exists_and_is_ours_is_adopted() -> None:
    fib = a_fib()
    fib.want_many({POD: A, OTHER: A})
    done(fib, 0, Applied({POD: TAKEN, OTHER: TAKEN}, {POD: Found(A), OTHER: Found(B)}))
    assert fib.state(POD).installed
    assert done(fib).replace == [(OTHER, A)]


def test_ours_beside_a_foreign_one_is_not_replaced() -> None:
    fib = with_installed((POD, A))
    fib.want(POD, B)
    fib.observed(POD, A, 4)
    assert done(fib, 0, Applied({}, {POD: Found(A, 4)})) == Delta(20, [], [], [], (POD,))
    assert fib.delta(0).size == 0
    delta = done(fib, fib.next_deadline(), Applied({}, {POD: Found(A, 4)}))
    assert delta == Delta(20, [], [], [], (POD,))
    fib.want(POD, None)
    assert done(fib, 0).remove == [(POD, A)]


# What others change


def test_a_foreign_edit_of_our_entry_is_repaired() -> None:
    fib = with_installed((POD, A))
    fib.observed(POD, B, 179)
    assert done(fib).replace == [(POD, A)]


def test_our_entry_that_was_deleted_is_created_again() -> None:
    fib = with_installed((POD, A))
    fib.observed(POD, None, 179, A)
    assert done(fib).create == [(POD, A)]


def test_a_part_of_an_ecmp_entry_that_was_deleted_is_read_before_it_is_repaired() -> None:
    both = via("192.0.2.1", "192.0.2.2")
    fib = with_installed((POD, both))
    fib.observed(POD, None, 179, A)
    assert done(fib, 0, Applied({}, {POD: Found(B)})).read == (POD,)
    assert done(fib).replace == [(POD, both)]


def test_a_foreign_route_over_ours_is_read_and_not_overwritten() -> None:
    fib = with_installed((POD, A))
    fib.observed(POD, B, 186)
    assert done(fib, 0, Applied({}, {POD: Found(None, 186)})).read == (POD,)
    assert fib.actual == {}
    assert fib.delta(0.5).size == 0
    assert "186" in fib.state(POD).reason


def test_nothing_is_replaced_before_what_took_the_place_was_read() -> None:
    fib = with_installed((POD, A))
    fib.want(POD, B)
    fib.observed(POD, A, 186)
    assert done(fib, 0, Applied({}, {POD: Found(None, 186)})) == Delta(20, [], [], [], (POD,))
    assert fib.delta(0).size == 0
    assert fib.state(POD).actual is None


def test_a_late_notification_that_says_all_is_well_is_not_believed() -> None:
    """It may be older than the dump that found nothing, and nothing else would ever find out."""
    fib = a_fib()
    fib.want(POD, A)
    fib.resynced({})
    fib.observed(POD, A, 179)
    assert not fib.state(POD).installed
    assert done(fib, 0, Applied({}, {POD: Found(None)})).read == (POD,)
    assert done(fib).create == [(POD, A)]


def test_a_change_during_an_apply_is_read_afresh() -> None:
    fib = a_fib()
    fib.want(POD, A)
    fib.delta(0)
    fib.observed(POD, None, 179, A)
    fib.applied(Applied(), 0)
    assert done(fib, 0, Applied({}, {POD: Found(None)})).read == (POD,)
    assert done(fib).create == [(POD, A)]


def test_an_entry_of_ours_that_nobody_here_wants_is_removed() -> None:
    fib = a_fib()
    fib.observed(POD, A, 179)
    assert done(fib).remove == [(POD, A)]


def test_foreign_churn_elsewhere_is_no_work() -> None:
    fib = with_installed((POD, A))
    fib.observed(OTHER, A, 186)
    fib.observed(OTHER, None, 186, A)
    assert fib.delta(0).size == 0


def test_a_dump_finds_what_went_in_silence() -> None:
    fib = with_installed((POD, A), (OTHER, A))
    fib.resynced({OTHER: B})
    delta = done(fib)
    assert delta.create == [(POD, A)]
    assert delta.replace == [(OTHER, A)]


# What it depends on, and what it costs


def test_it_knows_which_links_and_addresses_entries_depend_on() -> None:
    source = parse_address("192.0.2.9")
    fib = with_installed((POD, FibEntry.of(A.hops, source)), (OTHER, UNREACHABLE))
    assert fib.depends_on({LINK}, set())
    assert fib.depends_on(set(), {source})
    assert not fib.depends_on({LINK + 1}, {parse_address("192.0.2.1")})


def test_hops_in_any_order_are_one_entry() -> None:
    hops = [Hop(parse_address("192.0.2.1"), 3), Hop(None, 4), Hop(parse_address("fe80::1"), 3)]
    assert FibEntry.of(hops) == FibEntry.of(reversed([*hops, hops[0]]))


def test_a_prefix_costs_little() -> None:
    """Measured at 0.4 us; the bound leaves room for a busy machine."""
    wanted: dict[Prefix, FibEntry | None] = {
        Prefix(Address(bytes((10, at >> 16, at >> 8 & 255, at & 255))), 32): A for at in range(20_000)
    }
    best = inf
    for _ in range(5):
        fib = a_fib()
        start = time.process_time()
        fib.want_many(wanted)
        fib.delta(0)
        fib.applied(Applied(), 0)
        best = min(best, time.process_time() - start)
    assert best / len(wanted) < 3e-6
