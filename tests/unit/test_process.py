"""What happens when a callback of the event loop fails."""

from __future__ import annotations

import asyncio

import pytest

from bgpd.errors import InvariantError
from bgpd.faults import crash_on_our_faults
from bgpd.meters import Histogram


async def serve(fault: object) -> None:
    async with asyncio.TaskGroup() as tasks:
        crash_on_our_faults(tasks)
        asyncio.get_running_loop().call_soon(fault)  # type: ignore[arg-type]  # a table of callbacks
        await asyncio.sleep(0.05)


def ours() -> None:
    Histogram((1.0,)).observe("no number")  # type: ignore[arg-type]  # the fault that is wanted


def of_a_library() -> None:
    raise BlockingIOError("what gRPC's poller lets through")


def test_a_fault_in_our_own_code_ends_the_daemon() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(serve(ours))
    assert caught.group_contains(InvariantError)


def test_a_fault_of_a_library_does_not() -> None:
    asyncio.run(serve(of_a_library))
