"""The daemons' loop knows whether more input is ready than was read."""

from __future__ import annotations

import asyncio
import socket

from bgpd.event_loop import input_waits
from tests.fakes.sessions import run, until


def test_input_waits_until_it_is_read_to_its_end() -> None:
    async def story() -> None:
        waits, loop = input_waits(), asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            seen: list[bool] = []

            def read() -> None:
                ours.recv(1)
                seen.append(waits())

            loop.add_reader(ours, read)
            assert not waits()
            theirs.send(b"ab")
            assert waits()
            await until(lambda: len(seen) == 2)
            assert seen == [True, False]
            loop.remove_reader(ours)
            theirs.send(b"c")
            assert not waits(), "nobody waits for it"

    run(story)


def test_on_another_loop_nothing_is_waited_for() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            asyncio.get_running_loop().add_reader(ours, lambda: ours.recv(1))
            theirs.send(b"a")
            assert not input_waits()()
            asyncio.get_running_loop().remove_reader(ours)

    asyncio.run(story())
