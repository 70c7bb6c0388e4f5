"""Leader election: one leads, it stops before another may begin, and nobody trusts another's clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise

import pytest

from bgpd.kube.errors import Conflict, KubeError, NotFound, Unavailable
from bgpd.kube.lease import (
    DURATION,
    RENEW_DEADLINE,
    RETRY,
    Candidacy,
    LeaseRecord,
    Request,
    Want,
    decode_lease,
    lease_body,
)

GONE = NotFound(404, "NotFound", "")
CONFLICT = Conflict(409, "Conflict", "")
AWAY = Unavailable(0, "Timeout", "")
OTHERS = LeaseRecord("other", DURATION, "then", "then", 3, "7")


def candidate() -> Candidacy:
    return Candidacy("me", jitter=lambda: 0.0)


def ask(one: Candidacy, now: float) -> Request:
    request = one.next(now, f"wall {now:g}")
    assert isinstance(request, Request), request
    return request


def leading(now: float) -> Candidacy:
    """One that has made the Lease at `now`."""
    one = candidate()
    one.answered(now, ask(one, now), LeaseRecord(version="1"))
    request = ask(one, now)
    one.answered(now, request, replace(request.record, version="2"))
    assert one.leads(now)
    return one


def test_where_there_is_no_lease_it_is_made() -> None:
    one = candidate()
    assert ask(one, 0).want is Want.READ
    one.failed(0, GONE)
    request = ask(one, 0)
    assert request == Request(Want.CREATE, LeaseRecord("me", DURATION, "wall 0", "wall 0", 0))
    assert not one.leads(0)
    one.answered(1, request, replace(request.record, version="1"))
    assert one.leads(1)
    assert one.next(1, "") == RETRY


def test_where_the_namespace_is_missing_it_does_not_ask_all_the_time() -> None:
    one = candidate()
    ask(one, 0)
    one.failed(0, GONE)
    ask(one, 0)
    one.failed(0, GONE)
    assert one.next(0, "") == RETRY / 2


def test_a_lease_of_another_is_taken_when_it_did_not_change_for_its_duration_by_our_clock() -> None:
    one = candidate()
    now = 100.0
    one.answered(now, ask(one, now), OTHERS)
    while now < 100.0 + DURATION:
        wait = one.next(now, "")
        assert isinstance(wait, float)
        now += wait
        if now < 100.0 + DURATION:
            request = ask(one, now)
            assert request.want is Want.READ
            one.answered(now, request, OTHERS)
    request = ask(one, now)
    assert request.want is Want.REPLACE
    assert (request.record.holder, request.record.version, request.record.transitions) == ("me", "7", 4)


def test_a_renewed_lease_of_another_is_waited_for_again() -> None:
    one = candidate()
    one.answered(0, ask(one, 0), OTHERS)
    one.answered(14, ask(one, 14), replace(OTHERS, renewed="later", version="8"))
    assert ask(one, 28).want is Want.READ


@pytest.mark.parametrize("holder", ["", "me"])
def test_a_lease_that_was_given_up_or_is_ours_is_taken_at_once(holder: str) -> None:
    one = candidate()
    one.answered(0, ask(one, 0), replace(OTHERS, holder=holder))
    assert ask(one, 0).want is Want.REPLACE
    assert not one.leads(0), "reading it is not enough"


def test_leading_counts_from_when_the_renewal_was_sent() -> None:
    one = leading(0)
    request = ask(one, RETRY)
    one.answered(RETRY + 3, request, replace(request.record, version="3"))
    assert one.leads(RETRY + RENEW_DEADLINE - 0.01)
    assert not one.leads(RETRY + RENEW_DEADLINE)


def test_a_server_that_hangs_ends_it_before_another_can_begin() -> None:
    one = leading(0)
    now = 0.0
    while now < RENEW_DEADLINE:
        step = one.next(now, "")
        if isinstance(step, float):
            now += step
        else:
            now += 3
            one.failed(now, AWAY)
    assert not one.leads(now)
    assert RENEW_DEADLINE < DURATION


def test_a_conflict_is_read_again_and_another_holder_ends_it_at_once() -> None:
    one = leading(0)
    ask(one, RETRY)
    one.failed(RETRY, CONFLICT)
    request = ask(one, RETRY)
    assert request.want is Want.READ
    one.answered(RETRY, request, OTHERS)
    assert not one.leads(RETRY)


def test_a_conflict_by_someone_who_only_annotated_it_costs_nothing() -> None:
    one = leading(0)
    ask(one, RETRY)
    one.failed(RETRY, CONFLICT)
    one.answered(RETRY, ask(one, RETRY), LeaseRecord("me", DURATION, "", "", 0, "9"))
    request = ask(one, RETRY)
    assert (request.want, request.record.version, request.record.transitions) == (Want.REPLACE, "9", 0)
    assert one.leads(RETRY)


def test_a_deleted_lease_ends_it_at_once_and_is_made_again() -> None:
    one = leading(0)
    ask(one, RETRY)
    one.failed(RETRY, GONE)
    assert not one.leads(RETRY)
    assert ask(one, RETRY).want is Want.CREATE


def test_a_server_that_asks_for_patience_gets_it() -> None:
    one = candidate()
    ask(one, 0)
    one.failed(0, Unavailable(429, "TooManyRequests", "", retry_after=7.0))
    assert one.next(0, "") == 7.0


def test_leaving_gives_the_lease_up_and_only_if_it_is_held() -> None:
    one = leading(0)
    last = one.leave(1, "wall")
    assert last is not None
    assert (last.record.holder, last.record.version) == ("", "2")
    assert not one.leads(1)
    assert candidate().leave(1, "wall") is None


def test_a_record_survives_its_json() -> None:
    import json  # noqa: PLC0415  only here

    body = lease_body("podbgp", "ns", OTHERS)
    assert decode_lease(json.dumps(body).encode()) == OTHERS
    assert decode_lease(b'{"metadata":{},"spec":{"leaseDurationSeconds":999999}}').duration == 3600
    with pytest.raises(ValueError, match="int"):
        decode_lease(b'{"metadata":{},"spec":{"leaseDurationSeconds":"x"}}')


# -- a world in which answers come late, or never ------------------------------------------------------


class World:
    """An API server and candidates whose clocks differ, on one virtual time."""

    def __init__(self, seed: int, candidates: int) -> None:
        self.random = random.Random(seed)
        self.record: LeaseRecord | None = None
        self.versions = count(1)
        self.now = 0.0
        self.order = count()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.candidates = [Candidacy(f"c{number}", jitter=self.random.random) for number in range(candidates)]
        self.offset = [self.random.uniform(-1e6, 1e6) for _ in range(candidates)]
        self.led: set[str] = set()

    def at(self, delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.order), what))

    def apply(self, request: Request) -> LeaseRecord | KubeError:
        if request.want is Want.READ:
            return self.record or GONE
        if request.want is Want.CREATE and self.record is not None:
            return CONFLICT
        if request.want is Want.REPLACE and self.record is None:
            return GONE
        if request.want is Want.REPLACE and self.record and self.record.version != request.record.version:
            return CONFLICT
        self.record = replace(request.record, version=str(next(self.versions)))
        return self.record

    def turn(self, number: int) -> None:
        one, clock = self.candidates[number], self.offset[number]
        step = one.next(self.now + clock, f"{self.now + clock}")
        if isinstance(step, float):
            self.at(step, lambda: self.turn(number))
            return
        there = self.random.choice([0.01, 0.1, 2.0, 20.0])  # 20: applied long after it was given up
        back = self.random.choice([0.01, 0.1, 2.0, 20.0])
        answer: list[LeaseRecord | KubeError] = []
        self.at(there, lambda: answer.append(self.apply(step)))
        self.at(min(there + back, 3.0) + 0.001, lambda: self.hear(number, step, answer, there + back <= 3.0))

    def hear(self, number: int, request: Request, answer: list[LeaseRecord | KubeError], came: bool) -> None:
        one, clock = self.candidates[number], self.offset[number]
        found = answer[0] if came else AWAY
        if isinstance(found, KubeError):
            one.failed(self.now + clock, found)
        else:
            one.answered(self.now + clock, request, found)
        self.turn(number)

    def run(self, seconds: float) -> None:
        for number in range(len(self.candidates)):
            self.at(self.random.random(), lambda number=number: self.turn(number))  # type: ignore[misc]  # bound
        while self.now < seconds:
            self.now, _, what = heapq.heappop(self.events)
            what()
            leaders = [
                one.identity
                for one, clock in zip(self.candidates, self.offset, strict=True)
                if one.leads(self.now + clock)
            ]
            assert len(leaders) <= 1, f"two lead at {self.now}"
            self.led.update(leaders)


@pytest.mark.parametrize("seed", range(30))
def test_two_never_lead_at_a_time_and_somebody_does(seed: int) -> None:
    world = World(seed, candidates=3)
    world.run(600)
    assert world.led


def test_times_fit_together() -> None:
    """A write that was sent in the last moment ends before another may take the Lease."""
    from bgpd.kube.lease import CALL_TIMEOUT  # noqa: PLC0415  only here

    order = [CALL_TIMEOUT + RETRY * 1.2, RENEW_DEADLINE, DURATION]
    assert all(one < other for one, other in pairwise(order))
