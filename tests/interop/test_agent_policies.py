"""Policies between the agent and a real daemon: what comes in is changed, what goes out the other one sees.

Reloads change both without touching the session, as `since` of the API shows.
"""

from __future__ import annotations

import pytest

from routes.view import Gate, PathView, Table
from tests.interop.agent import ASN, config, peer
from tests.interop.conftest import MakeAgent, MakeSpeaker
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import Announcement, Neighbor, SeenPath

THEIR_ASN = 65001
MARKED, PLAIN, SMALL = "10.2.0.0/24", "10.3.0.0/24", "10.4.0.128/25"
POD, SERVICE = "10.1.0.0/24", "10.96.0.7/32"

FIRST = """
[[policies]]
name = "in"
default = "accept"
[[policies.rules]]
name = "small"
match = { prefixes = [{ prefix = "10.0.0.0/8", ge = 25 }] }
action = "reject"
[[policies.rules]]
name = "marked"
match = { communities = ["65001:7"], as_path = { originated_by = [65001], max_length = 1 } }
action = "accept"
set = { local_pref = 250, med = 3, add_communities = ["65000:250"] }
[[policies]]
name = "out"
[[policies.rules]]
name = "all"
action = "accept"
set = { med = 11, prepend = 2, add_communities = ["65000:100"] }
"""
SECOND = FIRST.replace("local_pref = 250", "local_pref = 50").replace("65000:100", "65000:200")
SECOND = SECOND.replace(
    'name = "out"',
    'name = "out"\n[[policies.rules]]\nname = "no-services"\n'
    'match = { prefixes = ["10.96.0.7/32"] }\naction = "reject"',
)


@pytest.mark.parametrize("daemon", ["bird", "frr"])
def test_policies_modify_what_comes_and_goes_and_a_reload_keeps_the_session(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], daemon: str
) -> None:
    us, them = lan
    entry = peer(them.ipv4, THEIR_ASN, import_policies=["in"], export_policies=["out"])
    service = '{ prefix = "10.96.0.7/32", unreachable = false, communities = ["65000:9"] }'

    def text(policies: str, drain: bool = False) -> str:
        plain = config(us, entry + policies, agent={"drain": drain})
        return plain.replace('advertise = ["10.1.0.0/24"', f'advertise = [{service}, "10.1.0.0/24"')

    speaker = make_speaker(daemon, them, THEIR_ASN, Neighbor(us.ipv4, ASN, them.ipv4))
    agent = make_agent(us, text(FIRST))
    speaker.start()
    agent.wait_ready()
    since = agent.wait_established(them.ipv4).since
    speaker.announce(Announcement(MARKED, communities=("65001:7",)), Announcement(PLAIN), Announcement(SMALL))

    path = agent.wait_path(MARKED, lambda view: view.accepted)
    assert (path.rule, told(agent.paths(MARKED))) == ("policy in rule marked", (None, ["65001:7"]))
    agent.wait_kernel(MARKED, them.ipv4)
    agent.wait_kernel(PLAIN, them.ipv4)
    refused = agent.wait_refused(SMALL, "policy in rule small")
    assert agent.client.explain(SMALL).failed is Gate.IMPORT
    agent.wait_logged("path refused", prefix=SMALL, rule="policy in rule small", reason=refused.reason)
    speaker.wait_best(POD, lambda seen: exported(seen) == ([ASN] * 3, 11, {"65000:100"}))
    speaker.wait_best(SERVICE, lambda seen: exported(seen) == ([ASN] * 3, 11, {"65000:9", "65000:100"}))
    assert agent.kernel(SERVICE) is None
    assert agent.fib(SERVICE) == []

    agent.reload(text(SECOND))
    speaker.wait_best(POD, lambda seen: "65000:200" in seen.communities)
    speaker.wait_gone(SERVICE)
    (why,) = [view for view in agent.paths(SERVICE, Table.ADJ_OUT, them.ipv4) if not view.accepted]
    assert why.rule == "policy out rule no-services"
    assert agent.client.explain(MARKED).paths[0].attributes.local_pref == 50

    agent.reload(text(SECOND, drain=True))
    speaker.wait_best(POD, lambda seen: drained(seen) and "65000:200" in seen.communities)
    assert "being drained" in agent.client.status().warnings[0].subject
    assert agent.peer(them.ipv4).since == pytest.approx(since, abs=0.01)


def told(views: list[PathView]) -> tuple[int | None, list[str]]:
    """As received, before the policy."""
    attributes = views[0].path.attributes
    return attributes.local_pref, [f"{each >> 16}:{each & 0xFFFF}" for each in attributes.communities]


def exported(seen: SeenPath) -> tuple[list[int], int | None, set[str]]:
    return list(seen.as_path), seen.med, set(seen.communities)


def drained(seen: SeenPath) -> bool:
    """FRR knows the community by its name."""
    return not seen.communities.isdisjoint(("65535:0", "graceful-shutdown"))
