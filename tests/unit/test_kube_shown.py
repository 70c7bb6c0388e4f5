"""What an operator sees first of how a daemon stands to its cluster."""

from __future__ import annotations

import pytest

from bgpd.kube.following import News
from bgpd.kube.intent import Problem
from bgpd.kube.shown import MOST_SHOWN, intent_status
from bgpd.node.drain import DrainPlan
from bgpd.node.readiness import Readiness

FRESH = News(synced=True, age=0.0, error="", malformed=())
AWAY = News(synced=True, age=37.4, error="/api/v1/nodes: NoAnswer: refused", malformed=())
CUT = AWAY._replace(age=0.4)
NO_CIDR = Problem("Node", "n1", "NoPodCIDR", "spec.podCIDRs is empty")
LEAVES = DrainPlan(True, True, True, "the node is cordoned")


def test_where_all_is_well_nothing_is_said() -> None:
    found = intent_status(FRESH, (), readiness=Readiness(True, True))
    assert found == (0.0, 0, 0, True, ())


@pytest.mark.parametrize(
    ("news", "waits", "stale", "said"),
    [
        (AWAY, "x", 37.4, ["not heard from for 37 s, what is known stays in use: /api/v1/nodes: NoAnswer"]),
        (CUT, "", 0.0, []),
        (FRESH, "the BGPCluster is being read", 0.0, ["the BGPCluster is being read"]),
    ],
)
def test_the_age_of_the_news(news: News, waits: str, stale: float, said: list[str]) -> None:
    found = intent_status(news, (), waits=waits)
    assert found.stale == stale
    assert len(found.warnings) == len(said)
    assert all(text in warning.value for warning, text in zip(found.warnings, said, strict=True))


def test_everything_that_stands_in_the_way_is_named() -> None:
    news = FRESH._replace(malformed=(("rack1", "spec.asn: Expected int"),))
    waits = Readiness(reasons=("no session",))
    found = intent_status(news, (NO_CIDR,), readiness=waits, drain=LEAVES, trouble=["nft: not found"])
    assert (found.malformed, found.problems, found.ready) == (1, 1, False)
    assert [f"{each.subject}: {each.value}" for each in found.warnings] == [
        "Node n1: spec.podCIDRs is empty",
        "rack1: can't be read: spec.asn: Expected int",
        "this node leaves: the node is cordoned",
        "this node is not ready for pods: no session",
        "the host could not be set up: nft: not found",
    ]


def test_a_broken_template_fills_no_screen() -> None:
    problems = [Problem("Node", f"n{number:04}", "X", "x") for number in range(5000)]
    found = intent_status(FRESH, problems)
    assert found.problems == 5000
    assert len(found.warnings) == MOST_SHOWN + 1
    assert found.warnings[-1].value == "4984 like these"
