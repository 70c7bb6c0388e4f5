"""A client's cursors and its transport: what was started is finished, and nothing comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from socket import socket
from typing import cast

import pytest

from bgpd.bgp.codec import encode_keepalive
from bgpd.bgp.fanout import FanoutLog
from bgpd.bgp.group_encoder import Key
from bgpd.bgp.outflow import Outflow
from bgpd.bgp.transport import Transport
from routes.prefix import Family, Prefix
from tests.fakes.reflected import Pipe, VirtualLoop

V4: list[Key] = [Prefix.parse(f"10.{n}.0.0/24") for n in range(4)]
V6: list[Key] = [Prefix.parse(f"fd00:{n}::/64") for n in range(4)]


class Words:
    """Messages of 30 bytes that say what they are."""

    def announce(self, attributes: object, keys: Sequence[Key]) -> list[tuple[bytes, Sequence[Key]]]:
        return [(f"[+{key} {attributes}".ljust(29, ".").encode() + b"]", [key]) for key in keys]

    def withdraw(self, keys: Sequence[Key]) -> list[tuple[bytes, Sequence[Key]]]:
        return [(f"[-{key}".ljust(29, ".").encode() + b"]", [key]) for key in keys]


class Reader:
    """A client in both families behind a socket buffer of a few bytes."""

    def __init__(self, size: int) -> None:
        self.loop = VirtualLoop(Random(0))
        self.pipe = Pipe(1, size)
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.transport = Transport(cast("socket", self.pipe), self, loop)
        self.logs = {family: FanoutLog[Key](Words()) for family in Family}
        self.outflow = Outflow()
        for family, log in self.logs.items():
            self.outflow.add(family, log.join(1))
        self.transport.feed = self.outflow
        self.received = b""

    def transport_connected(self, transport: Transport) -> None: ...
    def transport_received(self, transport: Transport, data: bytes) -> None: ...
    def transport_wrote(self, transport: Transport, size: int) -> None: ...
    def transport_closed(self, transport: Transport) -> None: ...
    def transport_lost(self, transport: Transport, text: str) -> None: ...

    def put(self, *keys: Key, attributes: str = "a") -> None:
        log = self.logs[Family.IPV4 if keys[0] in V4 else Family.IPV6]
        for key in keys:
            log.put(key, 2, attributes)
        log.commit()
        self.transport.pump()

    def read(self, size: int) -> None:
        data, self.pipe.held = self.pipe.held[:size], self.pipe.held[size:]
        self.received += data
        writer = self.loop.writers.get(1)
        if writer:
            writer()
        self.loop.run(100)

    def read_all(self) -> list[bytes]:
        """Everything, cut into messages."""
        for _ in range(1000):
            self.read(7)
        assert self.outflow.caught_up
        assert not self.transport.pending
        messages, rest = [], self.received
        while rest:
            size = 19 if rest[0] == 0xFF else 30
            message, rest = rest[:size], rest[size:]
            assert message == encode_keepalive() or (message[:1] + message[-1:] == b"[]"), message
            messages.append(message)
        return messages


def test_families_alternate_whatever_the_size_of_the_tables() -> None:
    reader = Reader(size=40)
    reader.put(*V4)
    reader.put(*V6)
    kinds = [b":" in message for message in reader.read_all()]
    assert sorted(kinds) == [False] * 4 + [True] * 4
    assert kinds != sorted(kinds)


@pytest.mark.parametrize("first", [1, 10, 29, 30, 31, 45, 60])
def test_a_keepalive_waits_for_the_end_of_a_message_and_breaks_nothing(first: int) -> None:
    """One write took the rest of a message, the KEEPALIVE, and a part of the next one."""
    reader = Reader(size=first)
    reader.put(*V4)
    reader.transport.send(encode_keepalive())
    reader.pipe.size = 200
    reader.read(first)
    messages = reader.read_all()
    assert messages.count(encode_keepalive()) == 1
    assert [message for message in messages if message[:1] == b"["] == [
        data for data, _ in Words().announce("a", V4)
    ]


@pytest.mark.parametrize("step", range(1, 40))
def test_whatever_is_taken_at_a_time_every_message_comes_once(step: int) -> None:
    reader = Reader(size=step)
    reader.put(*V4)
    reader.put(*V6)
    reader.transport.send(encode_keepalive())
    reader.read(step)
    reader.put(V4[0], attributes="b")
    messages = reader.read_all()
    assert len(messages) == len(set(messages))
    assert reader.outflow.messages == len(messages) - 1
    assert reader.outflow.lag == 0


def test_a_session_that_ends_sends_the_rest_of_the_message_and_the_notification() -> None:
    reader = Reader(size=10)
    reader.put(*V4)
    reader.pipe.size = 1000
    reader.transport.close(b"<bye>")
    (first, _), *_ = Words().announce("a", V4)
    assert reader.pipe.held == first + b"<bye>"
