"""What happens when a callback of the event loop fails, and when a daemon may be counted on."""

from __future__ import annotations

import asyncio

import pytest

from bgpd.errors import InvariantError
from bgpd.faults import crash_on_our_faults
from bgpd.meters import Histogram
from bgpd.process import why_unready
from routes.node_view import NodeDrain, NodeHost, NodeReadiness, NodeReflector
from routes.path import PeerName


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


def host(ready: bool) -> NodeHost:
    readiness = NodeReadiness(ready, ready, ("no session with 192.0.2.1",))
    return NodeHost(readiness, NodeDrain(False, True, True, ""), True, "", NodeReflector(False, False))


@pytest.mark.parametrize(
    ("converged", "waiting", "node", "unready"),
    [
        (True, (), None, ""),
        (False, ("192.0.2.1",), None, "waiting for End-of-RIB from 192.0.2.1"),
        (False, tuple("abcdef"), None, "waiting for End-of-RIB from a, b, c, d, e, ..."),
        (True, (), host(ready=False), "the node is not ready for pods: no session with 192.0.2.1"),
        (False, ("192.0.2.1",), host(ready=True), ""),  # whoever is gone for good keeps no node back
    ],
)
def test_a_daemon_is_ready_when_others_may_count_on_it(
    converged: bool, waiting: tuple[str, ...], node: NodeHost | None, unready: str
) -> None:
    names = [PeerName(name) for name in waiting]
    assert why_unready(node, names, converged=converged) == unready
