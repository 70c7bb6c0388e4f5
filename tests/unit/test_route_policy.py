"""What an operator's policies make of a path, and the rule that says so."""

from __future__ import annotations

import pytest

from routes.path import AsPath, AsSegment, Origin, PathAttributes, SegmentKind
from routes.prefix import Prefix, parse_address
from routes.route_policy import (
    Action,
    AsPathMatch,
    PrefixRange,
    RouteMatch,
    RoutePolicy,
    RouteRule,
    RouteSet,
    judge,
)

POD = Prefix.parse("10.244.1.0/24")


def as_path(*asns: int, ending: tuple[int, ...] = ()) -> AsPath:
    segments = (AsSegment(SegmentKind.SEQUENCE, asns),)
    return AsPath.of((*segments, AsSegment(SegmentKind.SET, ending)) if ending else segments)


PATH = PathAttributes(
    Origin.IGP,
    as_path(64601, 64700, 64900),
    parse_address("192.0.2.1"),
    med=5,
    communities=(1, 2),
    large_communities=((1, 2, 3),),
)


def within(text: str, ge: int, le: int) -> PrefixRange:
    return PrefixRange(Prefix.parse(text), ge, le)


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (RouteMatch(), True),
        (RouteMatch(prefixes=(within("10.244.0.0/16", 16, 16),)), False),
        (RouteMatch(prefixes=(within("10.244.0.0/16", 24, 28),)), True),
        (RouteMatch(prefixes=(within("10.244.0.0/16", 25, 32),)), False),
        (RouteMatch(prefixes=(within("10.0.0.0/16", 16, 32), within("10.244.1.0/24", 24, 24))), True),
        (RouteMatch(prefixes=(within("0.0.0.0/0", 0, 32),)), True),
        (RouteMatch(prefixes=(within("::/0", 0, 128),)), False),
        (RouteMatch(as_path=AsPathMatch(contains=(1, 64700))), True),
        (RouteMatch(as_path=AsPathMatch(contains=(1,))), False),
        (RouteMatch(as_path=AsPathMatch(originated_by=(64900,))), True),
        (RouteMatch(as_path=AsPathMatch(originated_by=(64700,))), False),
        (RouteMatch(as_path=AsPathMatch(neighbor=(64601,))), True),
        (RouteMatch(as_path=AsPathMatch(neighbor=(64700,))), False),
        (RouteMatch(as_path=AsPathMatch(min_length=3, max_length=3)), True),
        (RouteMatch(as_path=AsPathMatch(min_length=4)), False),
        (RouteMatch(as_path=AsPathMatch(max_length=2)), False),
        (RouteMatch(communities=(7, 2)), True),
        (RouteMatch(communities=(7,)), False),
        (RouteMatch(communities=(7,), large_communities=((1, 2, 3),)), True),
        (RouteMatch(large_communities=((9, 9, 9),)), False),
        (RouteMatch(communities=(2,), as_path=AsPathMatch(contains=(1,))), False),
    ],
)
def test_all_conditions_that_are_given_must_hold(match: RouteMatch, holds: bool) -> None:
    assert match.holds(POD, PATH) == holds


@pytest.mark.parametrize(
    ("path", "origin", "length_3"),
    [
        (AsPath.of(()), False, False),
        (as_path(64900), True, False),
        (as_path(1, 2, ending=(64900, 5)), False, True),
    ],
    ids=["our own AS", "one AS", "an aggregate"],
)
def test_an_as_path_without_a_known_origin_has_none(path: AsPath, origin: bool, length_3: bool) -> None:
    assert AsPathMatch(originated_by=(64900,)).holds(path) == origin
    assert AsPathMatch(min_length=3).holds(path) == length_3


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        (RouteSet(), {}),
        (RouteSet(local_pref=200, med=7), {"local_pref": 200, "med": 7}),
        (RouteSet(med=5, add_communities=(1,)), {}),
        (RouteSet(add_communities=(9, 1)), {"communities": (1, 2, 9)}),
        (RouteSet(remove_communities=(1, 8), add_communities=(3,)), {"communities": (2, 3)}),
        (RouteSet(remove_large_communities=((1, 2, 3),)), {"large_communities": ()}),
        (RouteSet(add_large_communities=((4, 5, 6),)), {"large_communities": ((1, 2, 3), (4, 5, 6))}),
        (RouteSet(prepend=3), {}),
    ],
)
def test_what_a_rule_changes(changes: RouteSet, changed: dict[str, object]) -> None:
    after = changes.applied(PATH)
    assert after == PATH._replace(**changed)  # type: ignore[arg-type]  # named in the table
    assert (after is PATH) == (not changed)


ACCEPT = RouteRule("rest", Action.ACCEPT)
MARKED = RouteRule("marked", Action.CONTINUE, set=RouteSet(local_pref=50, add_communities=(77,)))
NO_PODS = RouteRule("no-pods", Action.REJECT, RouteMatch(prefixes=(within("10.244.0.0/16", 16, 32),)))
IF_77 = RouteRule("if-77", Action.REJECT, RouteMatch(communities=(77,)))


@pytest.mark.parametrize(
    ("policies", "accepted", "rule", "text"),
    [
        ((), True, "", ""),
        ((RoutePolicy("a"),), False, "policy a default", "no rule of policy a accepts it"),
        ((RoutePolicy("a", default=Action.ACCEPT),), True, "policy a default", "policy a default"),
        ((RoutePolicy("a", (ACCEPT,)),), True, "policy a rule rest", "policy a rule rest"),
        ((RoutePolicy("a", (NO_PODS, ACCEPT)),), False, "policy a rule no-pods", "rejects it"),
        ((RoutePolicy("a", (ACCEPT, NO_PODS)),), True, "policy a rule rest", ""),
        (
            (RoutePolicy("a", (MARKED, ACCEPT)),),
            True,
            "policy a rule rest",
            "policy a rule marked, policy a rule rest",
        ),
        ((RoutePolicy("a", (MARKED, IF_77, ACCEPT)),), False, "policy a rule if-77", ""),
        ((RoutePolicy("a", (MARKED,)),), False, "policy a default", "its default is to reject"),
        ((RoutePolicy("a", (ACCEPT,)), RoutePolicy("b", (NO_PODS,))), False, "policy b rule no-pods", ""),
        ((RoutePolicy("a", (NO_PODS,)), RoutePolicy("b", (ACCEPT,))), False, "policy a rule no-pods", ""),
        (
            (RoutePolicy("a", (MARKED, ACCEPT)), RoutePolicy("b", (IF_77,), Action.ACCEPT)),
            False,
            "policy b rule if-77",
            "",
        ),
    ],
)
def test_the_first_rule_decides_and_every_policy_must_accept(
    policies: tuple[RoutePolicy, ...], accepted: bool, rule: str, text: str
) -> None:
    told = judge(policies, POD, PATH)
    assert (told.accepted, told.rule) == (accepted, rule)
    assert text in told.text


def test_later_rules_win_and_what_they_set_is_noted_for_the_export() -> None:
    later = RouteRule("later", Action.ACCEPT, set=RouteSet(local_pref=60, prepend=2))
    told = judge((RoutePolicy("a", (MARKED, later)),), POD, PATH)
    assert (told.local_pref, told.med, told.prepend) == (60, None, 2)
    assert told.attributes == PATH._replace(local_pref=60, communities=(1, 2, 77))
