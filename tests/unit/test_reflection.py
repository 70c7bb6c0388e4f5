"""Who hears what (RFC 4456 section 6), and what a path looks like when it is passed on (section 8)."""

from __future__ import annotations

import pytest

from routes.path import (
    EMPTY_AS_PATH,
    AsPath,
    AsSegment,
    Origin,
    Path,
    PathAttributes,
    PeerKind,
    PeerName,
    SegmentKind,
    Source,
    UnknownAttribute,
)
from routes.policy import AllowEntry
from routes.prefix import Prefix, parse_address
from routes.reflection import (
    CLOSED,
    NO_ADVERTISE,
    NO_EXPORT,
    NO_EXPORT_SUBCONFED,
    Border,
    Export,
    Role,
    exported,
    may_hear,
    refused_by_community,
    why_not,
)

HOP, OURS = parse_address("192.0.2.7"), parse_address("192.0.2.1")
NLRI = Prefix.parse("10.1.0.0/24")
EXPORT = Export(asn=65000, cluster_id=9)
FULL = PathAttributes(
    Origin.INCOMPLETE,
    EMPTY_AS_PATH,
    HOP,
    med=3,
    local_pref=250,
    communities=(65000 << 16 | 1,),
    large_communities=((1, 2, 3),),
    unknown=(UnknownAttribute(0xE0, 99, b"x"),),
)
CLIENT, NON_CLIENT, EXTERNAL = Role


def path(attributes: PathAttributes = FULL, kind: PeerKind = PeerKind.IBGP) -> Path:
    return Path(NLRI, attributes, Source(PeerName("192.0.2.7"), kind, 65000, 7, HOP))


def sequence(*asns: int) -> AsPath:
    return AsPath.of((AsSegment(SegmentKind.SEQUENCE, asns),))


@pytest.mark.parametrize(
    ("source", "hears"),
    [
        (CLIENT, {CLIENT, NON_CLIENT, EXTERNAL}),
        (NON_CLIENT, {CLIENT}),
        (EXTERNAL, {CLIENT, NON_CLIENT}),
    ],
)
def test_who_may_hear(source: Role, hears: set[Role]) -> None:
    assert {target for target in Role if may_hear(source, target)} == hears
    assert all(why_not(source, target) for target in set(Role) - hears)


@pytest.mark.parametrize(
    ("community", "kept_from"),
    [
        (NO_ADVERTISE, set(Role)),
        (NO_EXPORT, {EXTERNAL}),
        (NO_EXPORT_SUBCONFED, {EXTERNAL}),
        (65000 << 16 | 1, set[Role]()),
    ],
)
def test_well_known_communities(community: int, kept_from: set[Role]) -> None:
    attributes = FULL._replace(communities=(5, community))
    assert {role for role in Role if refused_by_community(attributes, role)} == kept_from


def test_a_reflected_path_gains_two_attributes_and_nothing_else_changes() -> None:
    for role in (CLIENT, NON_CLIENT):
        assert exported(path(), role, EXPORT) == FULL._replace(originator_id=7, cluster_list=(9,))


def test_what_another_reflector_added_is_kept() -> None:
    attributes = FULL._replace(originator_id=42, cluster_list=(8, 7))
    told = exported(path(attributes), CLIENT, EXPORT)
    assert (told.originator_id, told.cluster_list) == (42, (9, 8, 7))


def test_a_path_from_another_as_enters_here() -> None:
    attributes = FULL._replace(local_pref=None, as_path=sequence(65001))
    told = exported(path(attributes, PeerKind.EBGP), CLIENT, EXPORT)
    assert told == attributes._replace(local_pref=100)


@pytest.mark.parametrize("prepend", [0, 2])
def test_toward_another_as_what_is_internal_stays_inside(prepend: int) -> None:
    attributes = FULL._replace(originator_id=42, cluster_list=(8,), as_path=sequence(65009))
    told = exported(path(attributes), EXTERNAL, EXPORT._replace(prepend=prepend))
    assert told == attributes._replace(
        as_path=sequence(*[65000] * (1 + prepend), 65009),
        med=None,
        local_pref=None,
        originator_id=None,
        cluster_list=(),
    )
    assert told.next_hop == HOP, "a third-party next hop"


def test_export_policy_replaces_and_adds() -> None:
    policy = EXPORT._replace(
        next_hop=OURS, local_pref=50, med=1, communities=(65000 << 16 | 1, 2), large_communities=((4, 5, 6),)
    )
    told = exported(path(), CLIENT, policy)
    assert (told.next_hop, told.local_pref, told.med) == (OURS, 50, 1)
    assert told.communities == (65000 << 16 | 1, 2)
    assert told.large_communities == ((1, 2, 3), (4, 5, 6))
    assert exported(path(), EXTERNAL, policy).med == 1
    assert exported(path(), EXTERNAL, policy).local_pref is None


def test_only_what_is_listed_leaves() -> None:
    border = Border.of([AllowEntry(Prefix.parse("10.0.0.0/8"), 16, 24)])
    kept = {text for text in ("10.1.0.0/24", "10.1.0.0/25", "172.16.0.0/24", "fd00::/64", "0.0.0.0/0")
            if border.why_kept(Prefix.parse(text))}  # fmt: skip
    assert kept == {"10.1.0.0/25", "172.16.0.0/24", "fd00::/64", "0.0.0.0/0"}
    assert CLOSED.why_kept(NLRI)
