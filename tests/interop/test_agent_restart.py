"""Graceful restart with real daemons (RFC 4724): who is killed by `kill -9` loses no route at the other end.

Both roles of it: theirs is killed and ours helps, then ours is killed and theirs helps.  Without graceful
restart, what a killed daemon announced goes at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from routes.peer import SessionState
from routes.prefix import format_address
from tests.interop.agent import ASN, OWN, Agent, RouteMonitor, config, peer
from tests.interop.conftest import MakeAgent, MakeSpeaker
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import Announcement, Neighbor, Speaker, wait_until

KEPT = ("10.2.0.0/24", "fd00:2::/64")
NOT_AGAIN = "10.3.0.0/24"
"""What they announce before their restart, and no more after it."""
THEIR_ASN = 65001
DAEMONS = ("frr", "bird", "gobgp")
HOLD_TIME = 2
"""How much longer the kernel keeps routes than the peer's End-of-RIB: GoBGP sends that before its routes."""


@pytest.fixture
def monitor(lan: list[LanHost]) -> Iterator[RouteMonitor]:
    monitor = RouteMonitor(lan[0])
    yield monitor
    monitor.kill()


def establish(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], daemon: str, *, graceful: bool
) -> tuple[Agent, Speaker]:
    """The two, with everything that they announce in the kernel."""
    us, them = lan
    speaker = make_speaker(
        daemon, them, THEIR_ASN, Neighbor(us.ipv4, ASN, them.ipv4, graceful_restart=graceful)
    )
    speaker.announce(*(Announcement(prefix) for prefix in (*KEPT, NOT_AGAIN)))
    agent = make_agent(us, config(us, peer(them.ipv4, THEIR_ASN), fib={"hold_time": HOLD_TIME}))
    speaker.start()
    agent.wait_ready()
    negotiated = agent.wait_established(them.ipv4).negotiated
    assert negotiated is not None
    for prefix in (*KEPT, NOT_AGAIN):
        wait_installed(agent, speaker, prefix)
    return agent, speaker


def wait_installed(agent: Agent, speaker: Speaker, prefix: str) -> None:
    def is_fresh() -> bool:
        # Asked first, because BIRD sleeps up to three seconds over work of its own, and a question wakes it.
        established = speaker.is_established(agent.host.ipv4)
        return established and any(not path.stale for path in agent.paths(prefix))

    wait_until(is_fresh, 10, lambda: f"{prefix} is fresh; {agent.paths(prefix)}")
    attributes = agent.paths(prefix)[0].attributes
    agent.wait_kernel(prefix, format_address(attributes.link_local or attributes.next_hop))


def wait_down(agent: Agent, name: str) -> None:
    wait_until(
        lambda: agent.peer(name).state is not SessionState.ESTABLISHED, 2, "the session with the dead is down"
    )


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_restart_on_either_side_loses_no_route(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], monitor: RouteMonitor, daemon: str
) -> None:
    agent, speaker = establish(make_agent, make_speaker, lan, daemon, graceful=True)
    name = lan[1].ipv4
    monitor.start()

    speaker.kill()
    wait_down(agent, name)
    agent.wait_logged("session down", peer=name, graceful=True)
    for prefix in (*KEPT, NOT_AGAIN):
        assert agent.kernel(prefix) is not None
        assert agent.wait_path(prefix).stale

    del speaker.announced[NOT_AGAIN]
    speaker.start()
    agent.wait_established(name)
    for prefix in KEPT:
        wait_installed(agent, speaker, prefix)
    agent.wait_gone(NOT_AGAIN)

    agent.kill()
    for prefix in OWN:
        assert speaker.paths(prefix), f"{daemon} dropped {prefix}"
    agent.start()
    agent.wait_ready()
    agent.wait_established(name)
    for prefix in OWN:
        speaker.wait_best(prefix)
    for prefix in KEPT:
        wait_installed(agent, speaker, prefix)
        assert monitor.deleted(prefix) == []


@pytest.mark.parametrize("daemon", [*DAEMONS, "openbgpd"])
def test_without_graceful_restart_the_routes_of_the_killed_go_at_once(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], daemon: str
) -> None:
    us, them = lan
    speaker = make_speaker(daemon, them, THEIR_ASN, Neighbor(us.ipv4, ASN, them.ipv4))
    speaker.announce(Announcement(NOT_AGAIN))
    agent = make_agent(us, config(us, peer(them.ipv4, THEIR_ASN)))
    speaker.start()
    agent.wait_ready()
    wait_installed(agent, speaker, NOT_AGAIN)
    speaker.kill()
    agent.wait_gone(NOT_AGAIN, timeout=1)


def test_a_peer_that_does_not_come_back_in_its_restart_time_is_forgotten(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost]
) -> None:
    us, them = lan
    neighbor = Neighbor(us.ipv4, ASN, them.ipv4, graceful_restart=True, restart_time=1)
    speaker = make_speaker("gobgp", them, THEIR_ASN, neighbor)
    speaker.announce(Announcement(NOT_AGAIN))
    agent = make_agent(us, config(us, peer(them.ipv4, THEIR_ASN)))
    speaker.start()
    agent.wait_ready()
    wait_installed(agent, speaker, NOT_AGAIN)
    speaker.kill()
    agent.wait_logged("session down", peer=them.ipv4, graceful=True)
    assert agent.kernel(NOT_AGAIN) is not None
    agent.wait_gone(NOT_AGAIN, timeout=3)
    agent.wait_logged("stale paths removed", peer=them.ipv4)
