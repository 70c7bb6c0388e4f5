"""Clients that stand at one place of a log and are written to together, and how they leave it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bgpd.bgp.cursor import Cursor
from bgpd.bgp.fanout import FanoutLog
from bgpd.bgp.front import Front


class Words:
    """Messages of four bytes."""

    def announce(self, attributes: object, keys: Sequence[str]) -> list[tuple[bytes, Sequence[str]]]:
        return [(f"+{key}{attributes};".encode(), [key]) for key in keys]

    def withdraw(self, keys: Sequence[str]) -> list[tuple[bytes, Sequence[str]]]:
        return [(f"-{key}.;".encode(), [key]) for key in keys]


class Reader:
    """A client with a socket that takes `room` bytes more, and then refuses."""

    def __init__(self, log: FanoutLog[str], source: int, room: int = 1000) -> None:
        self.cursor: Cursor[str] = log.join(source)
        self.room = room
        self.received = b""
        self.fell = 0

    def send(self, data: bytes | memoryview) -> int:
        taken = bytes(data[: self.room])
        if not taken:
            raise BlockingIOError
        self.room -= len(taken)
        self.received += taken
        return len(taken)

    def fell_behind(self) -> None:
        self.fell += 1

    def drain(self) -> bytes:
        """Read alone, all that is left."""
        data = bytes(self.cursor.rest)
        self.cursor.rest = b""
        slices = self.cursor.next_slices(1000)
        self.cursor.sent(sum(map(len, slices)))
        self.received += data + b"".join(slices)
        return self.received


class Group:
    """A log, its front, and readers with the sources 0 to 3."""

    def __init__(self, rooms: Sequence[int] = (1000,) * 4) -> None:
        self.log: FanoutLog[str] = FanoutLog(Words())
        self.alone: dict[Reader, None] = {}
        self.front: Front[str, Reader] = Front(self.log, self.alone, self.write_to)
        self.readers = [Reader(self.log, source, room) for source, room in enumerate(rooms)]
        for each in self.readers:
            assert self.admit(each)

    def admit(self, reader: Reader) -> bool:
        """A reader's place in the list of all is its descriptor."""
        return self.front.admit(reader.cursor, self.readers.index(reader), reader)

    def write_to(self, fd: int, data: bytes) -> int:
        return self.readers[fd].send(data)

    def put(self, key: str, source: int, attributes: str) -> None:
        self.log.put(key, source, attributes)
        self.log.commit()

    def write(self) -> int:
        return sum(self.front.write())


def test_a_source_gets_everything_but_its_own() -> None:
    group = Group()
    group.put("a", 2, "1")
    group.write()
    assert [each.received for each in group.readers] == [b"+a1;", b"+a1;", b"", b"+a1;"]
    group.put("a", 9, "2")
    for key, source in (("b", 0), ("c", 2), ("d", 0)):
        group.put(key, source, "1")
    group.write()
    got = [each.received.removeprefix(b"+a1;") for each in group.readers]
    assert got == [b"+a2;+c1;", b"+a2;+b1;+c1;+d1;", b"+a2;+b1;+d1;", b"+a2;+b1;+c1;+d1;"]
    assert [each.cursor.place for each in group.readers] == [(5, 3, 12), (5, 5, 20), (5, 3, 12), (5, 5, 20)]
    assert not group.alone


@pytest.mark.parametrize("room", range(8))
def test_a_source_that_does_not_take_all_goes_on_alone(room: int) -> None:
    group = Group((room, 1000, 1000, 1000))
    for key, source in (("a", 9), ("b", 0), ("c", 9)):
        group.put(key, source, "1")
    group.write()
    slow = group.readers[0]
    assert list(group.alone) == [slow]
    assert (slow.fell, slow.cursor.bytes_past) == (1, room)
    assert slow.drain() == b"+a1;+c1;"
    assert slow.cursor.place[1] == 2


def test_many_sources_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their writes differ, and the loop has to turn in between."""
    monkeypatch.setattr("bgpd.bgp.front.STEP", 1)
    group = Group()
    group.put("a", 2, "1")
    group.put("b", 0, "1")
    group.write()
    assert set(group.alone) == {group.readers[0], group.readers[2]}
    assert group.readers[2].drain() == b"+b1;"
    assert group.readers[0].drain() == b"+a1;"
    assert [each.received for each in group.readers[1::2]] == [b"+a1;+b1;"] * 2


def test_several_commits_are_one_write() -> None:
    group = Group()
    for key in "abc":
        group.put(key, 9, "1")
    assert group.write() == 4
    assert {each.received for each in group.readers} == {b"+a1;+b1;+c1;"}
    assert {each.cursor.place for each in group.readers} == {(3, 3, 12)}


@pytest.mark.parametrize("room", range(9))
def test_who_does_not_take_all_goes_on_alone_and_loses_nothing(room: int) -> None:
    group = Group((1000, room, 1000, room))
    group.put("a", 9, "1")
    group.put("b", 9, "1")
    group.write()
    slow = group.readers[1::2] if room < 8 else []
    assert list(group.alone) == slow[::-1]
    assert [each.fell for each in group.readers] == [0, len(slow) // 2] * 2
    for each in slow:
        assert each.cursor.bytes_past == room
        each.drain()
    assert {each.received for each in group.readers} == {b"+a1;+b1;"}
    assert {each.cursor.place[:2] for each in group.readers} == {(2, 2)}


@pytest.mark.parametrize("leaves", range(4))
def test_who_leaves_in_the_middle_of_a_round_stands_where_its_bytes_end(
    leaves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgpd.bgp.front.STEP", 2)
    group = Group()
    group.put("a", 9, "1")
    steps = group.front.write()
    assert next(steps) == 2
    group.put("a", 9, "2")
    group.readers[leaves].cursor.stand_alone()
    assert group.readers[leaves].cursor.place[:2] == ((1, 1) if leaves < 2 else (0, 0))
    list(steps)
    assert group.readers[leaves].drain() == (b"+a1;+a2;" if leaves < 2 else b"+a2;")
    group.write()
    assert {each.received for each in group.readers if each is not group.readers[leaves]} == {b"+a1;+a2;"}


def test_what_waits_for_one_client_alone_takes_it_from_the_front() -> None:
    group = Group()
    group.put("a", 0, "1")
    group.readers[1].cursor.at_end(b"eor;")
    group.put("b", 0, "1")
    group.write()
    assert list(group.alone) == [group.readers[1]]
    assert group.readers[1].drain() == b"+a1;eor;+b1;"


def test_a_withdrawal_waits_for_the_front_as_for_any_client() -> None:
    group = Group()
    group.put("a", 0, "1")
    group.write()
    group.readers[0].drain()
    group.log.remove("a")
    group.log.commit()
    group.log.tidy()
    assert group.log.withdrawals == 1
    group.write()
    group.readers[0].drain()
    group.log.tidy()
    assert group.log.withdrawals == 0
    assert {each.received for each in group.readers[1:]} == {b"+a1;-a.;"}


def test_who_is_behind_the_others_is_not_admitted() -> None:
    group = Group()
    late = Reader(group.log, 7)
    group.readers.append(late)
    group.put("a", 0, "1")
    assert not group.admit(late)
    group.write()
    assert not group.admit(late)
    late.drain()
    assert group.admit(late)
    group.log.leave(late.cursor)
    assert len(group.front) == 4
    assert group.log.slowest() == 1
