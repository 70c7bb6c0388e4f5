"""A reflector's export policies as real daemons see them, and reloads that change them under a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bgpd.lab.workspace import Workspace
from tests.interop.agent import peer
from tests.interop.harness.bird import BirdSpeaker
from tests.interop.harness.frr import FrrSpeaker
from tests.interop.harness.gobgp import GobgpSpeaker
from tests.interop.harness.lan import build_lan
from tests.interop.harness.speaker import Announcement, SeenPath
from tests.interop.reflector import ASN, Reflector, clients, config, toward

FABRIC = 64601
POD, SMALL = "10.2.0.0/24", "10.2.1.128/25"

POLICIES = """
[[policies]]
name = "to-fabric"
[[policies.rules]]
name = "small"
match = { prefixes = [{ prefix = "10.0.0.0/8", ge = 25 }] }
action = "reject"
[[policies.rules]]
name = "all"
action = "accept"
set = { med = 7, prepend = 1, add_communities = ["65000:100"] }
"""
LATER = POLICIES.replace("ge = 25", "ge = 26").replace("65000:100", "65000:200")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_policies_toward_the_fabric_change_under_a_session_that_stays(
    workspace: Workspace, stack: ExitStack
) -> None:
    us, tor, node, other = build_lan(workspace, "us", "tor", "node", "other")
    router, plain = (
        FrrSpeaker(tor, FABRIC, (toward(tor, us),)),
        GobgpSpeaker(other, FABRIC, (toward(other, us),)),
    )
    bird = BirdSpeaker(node, ASN, (toward(node, us),))

    def text(policies: str) -> str:
        narrowed = peer(tor.ipv4, FABRIC, export_policies=["to-fabric"])
        return config(us, clients(), narrowed, peer(other.ipv4, FABRIC), policies)

    reflector = Reflector(us, text(POLICIES))
    stack.callback(reflector.kill)
    reflector.start()
    reflector.wait_ready()
    for speaker in (router, plain, bird):
        stack.callback(speaker.kill)
        speaker.start()
    for speaker in (router, plain, bird):
        speaker.wait_established()
    since = reflector.wait_established(tor.ipv4).since
    bird.announce(Announcement(POD, communities=("65000:2",)), Announcement(SMALL))
    plain.wait_best(SMALL)
    plain.wait_best(POD, lambda seen: told(seen) == ([ASN], 0, {"65000:2"}))
    router.wait_best(POD, lambda seen: told(seen) == ([ASN, ASN], 7, {"65000:2", "65000:100"}))
    assert router.paths(SMALL) == []
    (why,) = reflector.told(SMALL, tor.ipv4)
    assert (why.rule, why.reason) == ("not-reflected", "policy to-fabric rule small rejects it")
    reflector.reload(text(LATER))
    router.wait_best(SMALL, lambda seen: told(seen) == ([ASN, ASN], 7, {"65000:200"}))
    router.wait_best(POD, lambda seen: told(seen) == ([ASN, ASN], 7, {"65000:2", "65000:200"}))
    reflector.reload(text("").replace('export_policies = ["to-fabric"]', ""))
    router.wait_best(POD, lambda seen: told(seen) == ([ASN], 0, {"65000:2"}))
    assert reflector.peer(tor.ipv4).since == pytest.approx(since, abs=0.01)


def told(seen: SeenPath) -> tuple[list[int], int, set[str]]:
    return list(seen.as_path), seen.med or 0, set(seen.communities)
