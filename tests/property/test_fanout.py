"""The fan-out log against a naive model: whatever happens in whatever order, every client ends up right.

Clients parse the bytes that they are given, cut anywhere, as a real peer would.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.bgp.cursor import Cursor
from bgpd.bgp.fanout import FanoutLog

PACK = 3
"""Keys in a message, so that packing is exercised with few keys."""


class TextEncoder:
    """Messages as lines of JSON."""

    def announce(self, attributes: object, keys: Sequence[str]) -> list[tuple[bytes, Sequence[str]]]:
        return [(_line("+", part, attributes), part) for part in _parts(keys)]

    def withdraw(self, keys: Sequence[str]) -> list[tuple[bytes, Sequence[str]]]:
        return [(_line("-", part, None), part) for part in _parts(keys)]


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(keys), PACK):
        yield keys[at : at + PACK]


def _line(kind: str, keys: Sequence[str], attributes: object) -> bytes:
    return json.dumps([kind, list(keys), attributes]).encode() + b"\n"


class Client:
    """A peer that reads as much as it is given, and believes it."""

    def __init__(self, log: FanoutLog[str], source: int) -> None:
        self.log = log
        self.source = source
        self.table: dict[str, object] = {}
        self.cursor: Cursor[str] = log.join(source)
        self.received = b""
        self.marks: list[str] = []
        self.fresh: set[str] | None = None
        self.promised: list[set[str]] = []
        """For each mark that is to come, the keys that must be here when it comes."""

    def mark(self, kind: str, keys: set[str], *, lasting: bool) -> None:
        self.promised.append(keys)
        self.cursor.at_end(_line("mark", [], kind), lasting=lasting)

    def reconnect(self) -> None:
        self.log.leave(self.cursor)
        self.table.clear()
        self.cursor = self.log.join(self.source)
        self.received, self.fresh = b"", None
        self.promised.clear()

    def read(self, size: int) -> None:
        """Take up to `size` bytes, as a socket with that much room would."""
        while size > 0:
            rest = self.cursor.rest
            taken = bytes(rest[:size])
            self.cursor.rest = rest[len(taken) :]
            size -= len(taken)
            self.received += taken
            if self.cursor.rest or size <= 0:
                break
            data = b"".join(self.cursor.next_slices(size))
            if not data:
                break
            taken = data[:size]
            self.cursor.sent(len(taken))
            self.received += taken
            size -= len(taken)
        self._parse()

    def drain(self) -> None:
        for _ in range(10_000):
            self.read(1 << 20)
            if self.cursor.caught_up:
                return
        raise AssertionError("a client that reads everything never catches up")

    def _parse(self) -> None:
        *lines, self.received = self.received.split(b"\n")
        for line in lines:
            kind, keys, attributes = json.loads(line)
            if kind == "mark":
                self._marked(attributes)
            for key in keys:
                if kind == "+":
                    assert attributes[0] != self.source, "a client was sent its own path"
                    self.table[key] = attributes
                    if self.fresh is not None:
                        self.fresh.add(key)
                else:
                    self.table.pop(key, None)

    def _marked(self, mark: str) -> None:
        self.marks.append(mark)
        if mark == "eorr" and self.fresh is not None:
            self.table = {key: value for key, value in self.table.items() if key in self.fresh}
            self.fresh = None
        if self.promised:
            assert self.promised.pop(0) <= self.table.keys(), "a mark came before what it stands for"


class Network:
    """A log, its clients, and what the log was told."""

    def __init__(self, sources: int, keys: int, random: Random) -> None:
        self.random = random
        self.log: FanoutLog[str] = FanoutLog(TextEncoder())
        self.model: dict[str, tuple[int, int]] = {}
        self.keys = [f"k{number}" for number in range(keys)]
        self.sources = range(sources)
        self.shared = {(s, v): [s, v] for s in self.sources for v in range(3)}
        self.clients = [Client(self.log, source) for source in self.sources]

    def step(self) -> None:
        action = self.random.choice(
            ("change", "change", "change", "read", "read", "rejoin", "refresh", "drain", "mark")
        )
        client = self.random.choice(self.clients)
        if action == "change":
            self.change(self.random.sample(self.keys, self.random.randint(1, min(5, len(self.keys)))))
        elif action == "read":
            client.read(self.random.randint(1, 90))
        elif action == "rejoin":
            client.reconnect()
        elif action == "drain":
            client.drain()
        elif action == "mark":
            client.mark("eor", self.heard_by(client), lasting=True)
        elif self.random.random() < 0.5:
            client.cursor.restart(marked=False)
        else:
            client.drain()
            client.fresh = set()
            client.cursor.restart(marked=True)
            client.mark("eorr", self.heard_by(client), lasting=False)

    def heard_by(self, client: Client) -> set[str]:
        return {key for key, (source, _) in self.model.items() if source != client.source}

    def change(self, keys: Sequence[str]) -> None:
        for key in keys:
            if self.random.random() < 0.3:
                self.log.remove(key)
                self.model.pop(key, None)
            else:
                source, version = self.random.choice(self.sources), self.random.randrange(3)
                self.log.put(key, source, self.shared[source, version])
                self.model[key] = (source, version)
        self.log.commit()
        if self.random.random() < 0.5:
            self.log.tidy()
        for client in self.clients:  # what was taken away meanwhile is no more promised
            client.promised = [keys & self.heard_by(client) for keys in client.promised]

    def check(self) -> None:
        for client in self.clients:
            client.drain()
            expected = {k: [s, v] for k, (s, v) in self.model.items() if s != client.source}
            assert client.table == expected
        self.log.tidy()
        assert self.log.size == len(self.model)
        late = Client(self.log, 1000)
        late.drain()
        assert late.table == {k: [s, v] for k, (s, v) in self.model.items()}
        self.log.leave(late.cursor)


@settings(max_examples=1000, deadline=None)
@given(
    seed=st.integers(0, 1 << 40), sources=st.integers(1, 4), keys=st.integers(1, 12), steps=st.integers(1, 80)
)
def test_every_client_ends_with_what_the_model_says(seed: int, sources: int, keys: int, steps: int) -> None:
    network = Network(sources, keys, Random(seed))
    for _ in range(steps):
        network.step()
        if network.random.random() < 0.05:
            network.check()
    network.check()


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 1 << 40), steps=st.integers(50, 200))
def test_the_log_keeps_nothing_that_nobody_needs(seed: int, steps: int) -> None:
    network = Network(3, 8, Random(seed))
    for _ in range(steps):
        network.step()
    network.check()
    network.log.tidy()
    assert network.log.withdrawals == 0
    live = sum(len(_line("+", [key], [9, 9])) for key in network.model)
    assert network.log.held <= 2 * live + 200


def test_a_slow_client_gets_only_the_newest_version() -> None:
    network = Network(2, 1, Random(0))
    slow = network.clients[1]
    for version in range(3):
        network.log.put("k0", 0, network.shared[0, version])
        network.log.commit()
    data = b"".join(slow.cursor.next_slices(1 << 20))
    assert data == _line("+", ["k0"], [0, 2])


def test_the_best_path_moving_to_a_client_withdraws_the_other_one_from_it() -> None:
    network = Network(2, 1, Random(0))
    network.log.put("k0", 0, network.shared[0, 0])
    network.log.commit()
    network.clients[1].drain()
    assert network.clients[1].table
    network.log.put("k0", 1, network.shared[1, 0])
    network.log.commit()
    for client in network.clients:
        client.drain()
    assert network.clients[1].table == {}
    assert network.clients[0].table == {"k0": [1, 0]}


def test_end_of_rib_comes_after_what_was_there_and_before_what_came_later() -> None:
    network = Network(2, 3, Random(0))
    reader = network.clients[1]
    network.log.put("k0", 0, network.shared[0, 0])
    network.log.commit()
    reader.cursor.at_end(_line("mark", [], "eor"))
    network.log.put("k1", 0, network.shared[0, 1])
    network.log.commit()
    lines = b"".join(reader.cursor.next_slices(1 << 20)).splitlines()
    assert [json.loads(line)[0] for line in lines] == ["+", "mark", "+"]


@pytest.mark.parametrize("size", range(1, 60, 7))
def test_a_started_message_is_finished_before_anything_else(size: int) -> None:
    network = Network(2, 2, Random(0))
    reader = network.clients[1]
    network.log.put("k0", 0, network.shared[0, 0])
    network.log.commit()
    reader.read(size)
    network.log.put("k0", 0, network.shared[0, 1])
    network.log.remove("k1")
    network.log.commit()
    reader.drain()
    assert reader.table == {"k0": [0, 1]}
    assert reader.received == b""


def test_what_waits_for_one_client_alone_is_bounded() -> None:
    """The best path comes back to a stuck client again and again: each time it is owed a withdrawal."""
    network = Network(2, 1, Random(0))
    stuck = network.clients[1]
    with patch("bgpd.bgp.fanout.MOST_DIRECTED", 3):
        for _ in range(5):
            for source in (0, 1):
                network.log.put("k0", source, network.shared[source, 0])
                network.log.commit()
    assert stuck.cursor in network.log.overrun
