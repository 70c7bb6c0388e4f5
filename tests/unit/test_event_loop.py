"""The daemons' loop: readers that it calls itself, and whether more input is ready than was read."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest

from bgpd.event_loop import MOST_LOOKS, input_waits
from tests.fakes.sessions import run, until

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def pairs(count: int = 1) -> Iterator[list[Pair]]:
    """Ours and theirs, gone from the loop and closed afterwards."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(count)]
        for ours, theirs in made:
            stack.enter_context(ours)
            stack.enter_context(theirs)
            stack.callback(loop.remove_reader, ours.fileno())
        yield made


def test_input_waits_until_it_is_read_to_its_end() -> None:
    async def story() -> None:
        waits, loop = input_waits(), asyncio.get_running_loop()
        with pairs() as [(ours, theirs)]:
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
        with pairs() as [(ours, theirs)]:
            asyncio.get_running_loop().add_reader(ours, lambda: ours.recv(1))
            theirs.send(b"a")
            assert not input_waits()()

    asyncio.run(story())


def test_who_is_ready_is_read_in_the_order_of_the_kernel() -> None:
    async def story() -> None:
        loop, seen = asyncio.get_running_loop(), list[bytes]()
        with pairs(3) as made:

            def read(ours: socket.socket) -> None:
                seen.append(ours.recv(9))

            for ours, _ in made:
                loop.add_reader(ours, read, ours)
            for number in (2, 0, 1):
                made[number][1].send(b"%d" % number)
            await until(lambda: len(seen) == 3)
        assert seen == [b"2", b"0", b"1"]

    run(story)


def test_a_reader_that_another_one_removes_is_not_called() -> None:
    async def story() -> None:
        loop, seen = asyncio.get_running_loop(), list[bytes]()
        with pairs(2) as [(one, to_one), (two, to_two)]:

            def read(ours: socket.socket, other: socket.socket) -> None:
                seen.append(ours.recv(9))
                loop.remove_reader(other)

            loop.add_reader(one, read, one, two)
            loop.add_reader(two, read, two, one)
            to_one.send(b"one")
            to_two.send(b"two")
            await asyncio.sleep(0.05)
        assert seen == [b"one"]

    run(story)


def test_who_gets_the_number_of_a_closed_descriptor_is_not_taken_for_ready() -> None:
    """Its first read would wait for ever."""

    async def story() -> None:
        loop, seen = asyncio.get_running_loop(), list[bytes]()
        with pairs(3) as [(one, to_one), (two, to_two), (new, to_new)]:

            def read() -> None:
                one.recv(9)
                fd = two.fileno()
                loop.remove_reader(two)
                os.dup2(new.fileno(), fd)
                loop.add_reader(fd, lambda: seen.append(new.recv(9)))

            loop.add_reader(one, read)
            loop.add_reader(two, pytest.fail, "it was removed")
            to_one.send(b"x")
            to_two.send(b"x")
            loop.call_later(0.05, to_new.send, b"y")
            await until(lambda: bool(seen))
            loop.remove_reader(two)
        assert seen == [b"y"]

    run(story)


def test_a_reader_is_replaced_and_removed_even_when_its_socket_is_closed() -> None:
    async def story() -> None:
        loop, seen = asyncio.get_running_loop(), list[bytes]()
        with pairs() as [(ours, theirs)]:
            loop.add_reader(ours, pytest.fail, "the first one")
            loop.add_reader(ours, lambda: seen.append(ours.recv(9)))
            theirs.send(b"x")
            await until(lambda: bool(seen))
            fd = ours.fileno()
            ours.close()
            assert loop.remove_reader(fd)
            assert not loop.remove_reader(fd)

    run(story)


def test_a_fault_in_a_reader_reaches_the_loops_handler_and_the_others_are_read() -> None:
    async def story() -> None:
        loop, seen, faults = asyncio.get_running_loop(), list[bytes](), list[object]()
        loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
        with pairs(2) as [(one, to_one), (two, to_two)]:

            def fail() -> None:
                raise ValueError(one.recv(9))

            loop.add_reader(one, fail)
            loop.add_reader(two, lambda: seen.append(two.recv(9)))
            to_one.send(b"x")
            to_two.send(b"y")
            await until(lambda: bool(seen and faults))
        assert seen == [b"y"]
        assert isinstance(faults[0], ValueError)

    run(story)


def test_an_interrupt_in_a_reader_ends_the_loop() -> None:
    async def story() -> None:
        with pairs() as [(ours, theirs)]:

            def interrupt() -> None:
                raise KeyboardInterrupt

            asyncio.get_running_loop().add_reader(ours, interrupt)
            theirs.send(b"x")
            await asyncio.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        run(story)


def test_a_flood_of_input_does_not_hold_up_what_is_no_input() -> None:
    """A reader that is ready again whenever it asks."""

    async def story() -> None:
        waits, loop, reads = input_waits(), asyncio.get_running_loop(), list[bytes]()
        with pairs() as [(ours, theirs)]:

            def read() -> None:
                reads.append(ours.recv(1))
                theirs.send(b"x")
                waits()

            loop.add_reader(ours, read)
            theirs.send(b"x")
            turns: list[int] = []
            for _ in range(5):
                await asyncio.sleep(0)
                turns.append(len(reads))
        assert turns[-1] > MOST_LOOKS, "it goes on"
        assert all(later - earlier <= MOST_LOOKS for earlier, later in pairwise([0, *turns]))

    run(story)


def test_writers_and_threads_are_served_beside_readers() -> None:
    async def story() -> None:
        loop, seen = asyncio.get_running_loop(), list[bytes]()
        with pairs() as [(ours, theirs)]:

            def write() -> None:
                loop.remove_writer(ours)
                seen.append(b"written")

            loop.add_reader(ours, lambda: seen.append(ours.recv(9)))
            loop.add_writer(ours, write)
            await asyncio.to_thread(loop.call_soon_threadsafe, seen.append, b"thread")
            theirs.send(b"read")
            await until(lambda: len(seen) == 3)
        assert sorted(seen) == [b"read", b"thread", b"written"]

    run(story)
