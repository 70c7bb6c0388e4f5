"""What waits to be written: one write an object, no hot loops, nothing lost, nothing written twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bgpd.kube.conditions import Say, bounded, merged
from bgpd.kube.errors import Invalid, KubeError, Unavailable
from bgpd.kube.status_desk import UNHURRIED, StatusDesk
from bgpd.kube.write_queue import Write, WriteQueue

WALL = datetime(2026, 1, 31, 12, tzinfo=UTC)
BAD = Invalid(422, "Invalid", "")
AWAY = Unavailable(503, "Unavailable", "")


def queue(burst: int = 50, rate: float = 25.0, most: int = 100) -> WriteQueue:
    return WriteQueue(lambda: 1.0, burst=burst, rate=rate, most=most)


def write(name: str, value: object = 1) -> Write:
    return Write(name, "uid", {"x": value})


def given(found: Write | float | None) -> Write:
    assert isinstance(found, Write), found
    return found


def test_a_newer_write_replaces_one_that_waits() -> None:
    q = queue()
    q.put(write("a", 1))
    q.put(write("a", 2))
    assert given(q.next(0)).status == {"x": 2}
    assert q.next(0) is None


def test_an_object_is_written_by_one_at_a_time() -> None:
    q = queue()
    q.put(write("a", 1))
    q.next(0)
    q.put(write("a", 2))
    assert q.next(0) is None
    q.done("a")
    assert given(q.next(0)).status == {"x": 2}


@pytest.mark.parametrize(
    ("error", "expected"),
    [(BAD, [0.5, 1, 2, 4, 8, 16, 32, 60, 60]), (AWAY, [0.5, 1, 2, 4, 5, 5, 5, 5, 5])],
)
def test_what_fails_waits_longer_each_time(error: KubeError, expected: list[float]) -> None:
    q = queue()
    q.put(write("a"))
    now, waits = 0.0, []
    for _ in range(9):
        q.failed(now, given(q.next(now)), error)
        wait = q.next(now)
        assert isinstance(wait, float)
        waits.append(wait)
        now += wait
    assert waits == expected


def test_one_that_fails_holds_up_no_other() -> None:
    q = queue()
    q.put(write("a"))
    q.put(write("b"))
    q.failed(0, given(q.next(0)), BAD)
    assert given(q.next(0)).path == "b"


def test_an_api_server_that_refuses_all_is_tried_by_one() -> None:
    q = queue()
    for name in "abcd":
        q.put(write(name))
    sent = [given(q.next(0)) for _ in range(4)]
    for each in sent:
        q.failed(0, each, AWAY)
    assert q.next(0) == 0.5, "four answers at once are one failure"
    probe = given(q.next(0.5))
    assert q.next(0.5) is None
    q.done(probe.path)
    assert [given(q.next(0.5)).path for _ in range(3)] == ["b", "c", "d"]


def test_who_is_told_how_long_to_wait_waits() -> None:
    q = queue()
    q.put(write("a"))
    q.failed(0, given(q.next(0)), Unavailable(429, "TooManyRequests", "", retry_after=9))
    q.put(write("c"))
    assert q.next(0) == 9


def test_a_newer_write_survives_the_failure_of_an_older_one() -> None:
    q = queue()
    q.put(write("a", 1))
    old = given(q.next(0))
    q.put(write("a", 2))
    q.failed(0, old, BAD)
    assert given(q.next(60)).status == {"x": 2}


def test_what_was_dropped_while_under_way_is_not_tried_again() -> None:
    q = queue()
    q.put(write("a"))
    old = given(q.next(0))
    q.clear()
    q.failed(0, old, BAD)
    assert q.next(100) is None
    assert len(q) == 0


def test_writes_are_rationed() -> None:
    q = queue(burst=3, rate=1.0)
    for number in range(10):
        q.put(write(str(number)))
    assert [isinstance(q.next(0), Write) for _ in range(4)] == [True, True, True, False]
    assert isinstance(q.next(1.0), Write)
    assert q.next(1.0) == pytest.approx(1.0, abs=1e-3)


def test_the_queue_is_bounded() -> None:
    q = queue(most=2)
    assert [q.put(write(name)) for name in "abca"] == [True, True, False, True]
    assert q.refused == 1


# -- the status desk ----------------------------------------------------------------------------------

VALID = Say("Accepted", True, "Valid")


class Desk:
    """One object, on a clock that the test sets."""

    def __init__(self) -> None:
        self.queue = queue()
        self.desk = StatusDesk(self.queue)
        self.now = 1000.0
        self.desk.seen("/a", "uid", 1, {}, ())

    @property
    def wall(self) -> datetime:
        return WALL + timedelta(seconds=self.now)

    def want(self, *says: Say, **fields: object) -> None:
        self.desk.want(self.now, self.wall, "/a", says, fields)

    def written(self) -> dict[str, object] | None:
        """What is written now, and performed."""
        found = self.queue.next(self.now)
        if not isinstance(found, Write):
            return None
        self.queue.done(found.path)
        self.desk.wrote(self.now, self.wall, found)
        return dict(found.status)


def test_what_an_object_says_already_is_not_written() -> None:
    story = Desk()
    story.want(VALID, nodes=5)
    first = story.written()
    assert first is not None
    assert set(first) == {"conditions", "nodes", "observedGeneration"}
    story.want(VALID, nodes=5)
    assert story.written() is None


def test_only_what_differs_is_written_and_times_of_transitions_stay() -> None:
    story = Desk()
    story.want(VALID, reflectors=[])
    story.written()
    story.now += 100
    story.want(VALID, reflectors=["r"])
    assert story.written() == {"reflectors": ["r"]}
    story.now += 100
    story.want(Say("Accepted", True, "NotUsed"))
    other = story.written()
    assert other is not None
    begun = (WALL + timedelta(seconds=1000)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f"'lastTransitionTime': '{begun}'" in str(other["conditions"])


@pytest.mark.parametrize(
    ("say", "nodes", "at_once"),
    [
        pytest.param(VALID, 6, False, id="a count"),
        pytest.param(Say("Accepted", True, "Valid", "other words"), 5, False, id="a text"),
        pytest.param(Say("Accepted", False, "Invalid"), 5, True, id="a condition that turns"),
    ],
)
def test_what_nobody_acts_on_waits(say: Say, nodes: int, at_once: bool) -> None:
    story = Desk()
    story.want(VALID, nodes=5)
    story.written()
    story.want(say, nodes=nodes)
    assert (story.written() is not None) is at_once
    if not at_once:
        assert story.desk.wait(story.now) == UNHURRIED
        story.now += UNHURRIED
        story.desk.pass_time(story.now, story.wall)
        assert story.written() is not None


def test_a_write_that_was_overtaken_does_not_hide_the_newer_one() -> None:
    story = Desk()
    story.want(VALID, reflectors=["one"])
    old = story.queue.next(story.now)
    assert isinstance(old, Write)
    story.want(VALID, reflectors=["two"])
    story.queue.done(old.path)
    story.desk.wrote(story.now, story.wall, old)
    assert story.written() == {"reflectors": ["two"]}


def test_what_somebody_else_changed_is_put_right() -> None:
    story = Desk()
    story.want(VALID, reflectors=["r"])
    story.written()
    story.desk.seen("/a", "uid", 1, {"reflectors": []}, ())
    story.want(VALID, reflectors=["r"])
    assert story.written() is not None


def test_an_object_that_is_gone_or_made_again_begins_anew() -> None:
    story = Desk()
    story.want(VALID)
    story.desk.gone("/a")
    assert story.written() is None
    story.want(VALID)
    assert story.written() is None
    story.desk.seen("/a", "other", 1, {}, ())
    story.want(VALID)
    assert given(story.queue.next(story.now)).uid == "other"


# -- conditions ---------------------------------------------------------------------------------------


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    (first,) = merged((), [VALID], WALL, 1)
    later = WALL + timedelta(hours=1)
    (same,) = merged([first], [Say("Accepted", True, "Other", "text")], later, 2)
    assert (same.last_transition, same.reason, same.observed_generation) == (WALL, "Other", 2)
    (turned,) = merged([first], [Say("Accepted", None, "X")], later, 2)
    assert (turned.last_transition, turned.status) == (later, "Unknown")


def test_messages_are_bounded() -> None:
    assert len(bounded("x" * 5000)) == 1024
    assert bounded("short") == "short"
