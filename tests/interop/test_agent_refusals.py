"""What the agent refuses from real daemons, and that the log and the API say why.

Paths that no node should take, peers that are not who they should be, and more prefixes than agreed.
"""

from __future__ import annotations

import pytest

from routes.peer import SessionState
from routes.prefix import Family, Prefix
from routes.view import Gate, Match, RouteQuery, Table
from tests.interop.agent import ASN, OWN, PASSWORD_FILE, Agent, config, peer
from tests.interop.conftest import MakeAgent, MakeSpeaker
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import Announcement, Neighbor, Speaker, wait_until

THEIR_ASN = 65001
GOOD = ("10.2.0.0/24", "fd00:2::/64")
LEAKS = {
    "0.0.0.0/0": "default-not-allowed",
    "::/0": "default-not-allowed",
    "198.51.100.0/24": "not-allowed",  # somebody else's
    "2001:db8:5::/48": "not-allowed",
    "10.1.0.0/24": "own-prefix",
    "10.1.0.7/32": "own-prefix",  # inside our own
    "fd00:1::7/128": "own-prefix",
}


def connect(
    make_agent: MakeAgent,
    make_speaker: MakeSpeaker,
    lan: list[LanHost],
    daemon: str,
    **keys: int | dict[str, str | int],
) -> tuple[Agent, Speaker]:
    us, them = lan
    speaker = make_speaker(daemon, them, THEIR_ASN, Neighbor(us.ipv4, ASN, them.ipv4))
    agent = make_agent(us, config(us, peer(them.ipv4, THEIR_ASN, **keys)))
    speaker.start()
    agent.wait_ready()
    agent.wait_established(them.ipv4)
    return agent, speaker


@pytest.mark.parametrize("daemon", ["frr", "bird", "gobgp"])
def test_leaked_prefixes_are_refused_by_name_and_leave_no_trace_in_the_kernel(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], daemon: str
) -> None:
    agent, speaker = connect(make_agent, make_speaker, lan, daemon)
    name = lan[1].ipv4
    speaker.announce(*(Announcement(prefix) for prefix in (*LEAKS, *GOOD)))
    speaker.wait_established()
    for prefix, rule in LEAKS.items():
        refused = agent.wait_refused(prefix, rule)
        agent.wait_logged("path refused", peer=name, prefix=prefix, rule=rule, reason=refused.reason)
        if prefix not in OWN:
            told = agent.client.explain(prefix)
            assert told.failed is Gate.IMPORT
            assert refused.reason in told.text
    wait_until(lambda: all(map(agent.kernel, GOOD)), 5, "the good ones are installed")
    learned = {str(entry.nlri) for entry in agent.client.fib() if entry.next_hops}
    assert learned == set(GOOD)
    counts = agent.counts(name, "ipv4")
    assert (counts.accepted, counts.received) == (1, 5)


@pytest.mark.parametrize("daemon", ["frr", "bird", "openbgpd"])
def test_a_wrong_as_number_is_named_on_both_sides_of_it(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], daemon: str
) -> None:
    us, them = lan
    speaker = make_speaker(daemon, them, THEIR_ASN, Neighbor(us.ipv4, ASN, them.ipv4))
    agent = make_agent(us, config(us, peer(them.ipv4, 65002)))
    speaker.start()
    agent.wait_ready()
    status = agent.wait_error(them.ipv4, "expected AS 65002, got 65001")
    assert status.last_error is not None
    assert (status.last_error.code, status.last_error.subcode, status.last_error.sent) == (2, 2, True)
    assert status.state is not SessionState.ESTABLISHED
    line = agent.wait_logged("connection failed", peer=them.ipv4, reason="expected AS 65002, got 65001")
    assert line["sent"] == "OPEN Message Error/Bad Peer AS (2/2)"


@pytest.mark.parametrize("daemon", ["frr", "bird"])
def test_we_are_the_wrong_as_to_them(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], daemon: str
) -> None:
    us, them = lan
    speaker = make_speaker(daemon, them, THEIR_ASN, Neighbor(us.ipv4, 65009, them.ipv4))
    agent = make_agent(us, config(us, peer(them.ipv4, THEIR_ASN)))
    speaker.start()
    agent.wait_ready()
    status = agent.wait_error(them.ipv4, "Bad Peer AS (2/2)")
    assert status.last_error is not None
    assert status.last_error.sent is False


@pytest.mark.parametrize("daemon", ["frr", "bird", "gobgp", "openbgpd"])
def test_a_wrong_password_is_suspected(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], daemon: str
) -> None:
    us, them = lan
    speaker = make_speaker(daemon, them, THEIR_ASN, Neighbor(us.ipv4, ASN, them.ipv4, password="theirs"))
    agent = make_agent(us, config(us, peer(them.ipv4, THEIR_ASN, password_file=PASSWORD_FILE)), "ours")
    speaker.start()
    agent.wait_ready()
    status = agent.wait_error(them.ipv4, "the peer may not have the same password", timeout=20)
    assert status.state is not SessionState.ESTABLISHED
    assert status.last_error is not None
    agent.wait_logged("connection failed", peer=them.ipv4, reason=status.last_error.text)
    assert not speaker.is_established(us.ipv4)


def test_too_many_prefixes_reset_the_session_and_it_stays_down(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost]
) -> None:
    limits: dict[str, str | int] = {"limit": 2, "idle_time": 60}
    agent, speaker = connect(make_agent, make_speaker, lan, "bird", max_prefixes=limits)
    name = lan[1].ipv4
    speaker.announce(*(Announcement(f"10.2.{number}.0/24") for number in range(2)))
    wait_until(lambda: agent.counts(name, "ipv4").accepted == 2, 5, "the first two")
    speaker.announce(Announcement("10.2.2.0/24"))
    status = agent.wait_error(name, "Maximum Number of Prefixes Reached (6/1)")
    assert status.state is SessionState.IDLE
    assert status.next_connect > 50
    agent.wait_logged("prefixes over the limit: session reset", peer=name, family="ipv4", limit=2)
    agent.wait_gone("10.2.0.0/24")


def test_prefixes_over_a_limit_that_drops_are_refused(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost]
) -> None:
    agent, speaker = connect(
        make_agent, make_speaker, lan, "gobgp", max_prefixes={"limit": 2, "action": "drop"}
    )
    prefixes = [f"10.2.{number}.0/24" for number in range(3)]
    for prefix in prefixes:
        speaker.announce(Announcement(prefix))
        agent.wait_path(prefix)
    refused = agent.wait_refused(prefixes[2], "max-prefixes")
    assert refused.reason == f"{lan[1].ipv4} announces more prefixes than its limit of 2"
    agent.wait_logged("prefixes over the limit are refused", peer=lan[1].ipv4, limit=2)
    assert agent.client.explain(prefixes[2]).failed is Gate.IMPORT
    assert agent.peer(lan[1].ipv4).state is SessionState.ESTABLISHED
    listed = RouteQuery(
        Table.LOC_RIB, family=Family.IPV4, prefix=Prefix.parse("10.2.0.0/16"), match=Match.LONGER
    )
    assert {str(view.path.nlri) for view in agent.client.paths(listed)} == set(prefixes[:2])
