"""What interop tests stand on: a link in namespaces, and the four daemons by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bgpd.lab.workspace import Workspace, claim
from tests.interop.agent import Agent
from tests.interop.harness.bird import BirdSpeaker
from tests.interop.harness.frr import FrrSpeaker
from tests.interop.harness.gobgp import GobgpSpeaker
from tests.interop.harness.lan import LanHost, build_lan
from tests.interop.harness.openbgpd import OpenbgpdSpeaker
from tests.interop.harness.speaker import Neighbor, Speaker

SPEAKERS: dict[str, type[Speaker]] = {
    kind.daemon: kind for kind in (FrrSpeaker, BirdSpeaker, GobgpSpeaker, OpenbgpdSpeaker)
}
"""A daemon that is not installed fails its tests; none is skipped."""

MakeSpeaker = Callable[[str, LanHost, int, Neighbor], Speaker]
MakeAgent = Callable[..., Agent]
"""Called as `Agent` itself is."""


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    """Namespaces and a folder of this test's own, which are gone after it."""
    mine = claim("itp")
    try:
        yield mine
    finally:
        mine.remove()


@pytest.fixture
def lan(workspace: Workspace) -> list[LanHost]:
    """Two hosts on one link: ours, and the daemon's."""
    return build_lan(workspace, "us", "them")


@pytest.fixture
def make_speaker() -> Iterator[MakeSpeaker]:
    """Makes a daemon by its name; it is killed after the test."""
    with ExitStack() as stack:

        def make(daemon: str, host: LanHost, asn: int, neighbor: Neighbor) -> Speaker:
            speaker = SPEAKERS[daemon](host, asn, (neighbor,))
            stack.callback(speaker.kill)
            return speaker

        yield make


@pytest.fixture
def make_agent() -> Iterator[MakeAgent]:
    """Makes and starts an agent; it is killed after the test.  `wait_ready` returns when it answers."""
    with ExitStack() as stack:

        def make(host: LanHost, text: str, password: str = "") -> Agent:
            agent = Agent(host, text, password)
            stack.callback(agent.kill)
            agent.start()
            return agent

        yield make
