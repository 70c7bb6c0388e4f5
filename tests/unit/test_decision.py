"""Each elimination step by a pair of paths that differ in nothing else."""

from __future__ import annotations

import pytest

from routes.decision import Decision, Lost, decide
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
)
from routes.prefix import Prefix, parse_address

NLRI = Prefix.parse("10.244.2.0/24")
NEAR, FAR, AWAY = (parse_address(f"192.0.2.{n}") for n in (1, 2, 3))
COSTS: dict[bytes, int | None] = {NEAR: 0, FAR: 10, AWAY: None}


def as_path(*asns: int) -> AsPath:
    return AsPath.of((AsSegment(SegmentKind.SEQUENCE, asns),))


def path(
    peer: int = 1,
    *,
    kind: PeerKind = PeerKind.IBGP,
    bgp_id: int = 7,
    address: str = "192.0.2.7",
    ifindex: int = 0,
    path_id: int = 0,
    attributes: PathAttributes | None = None,
) -> Path:
    source = Source(PeerName(f"peer {peer}"), kind, 65000, bgp_id, parse_address(address), ifindex)
    return Path(NLRI, attributes or PLAIN, source, path_id)


PLAIN = PathAttributes(Origin.IGP, as_path(1, 2), NEAR)


def decision(*paths: Path, multipath: int = 1) -> Decision:
    return decide(paths, lambda each: COSTS[each.attributes.next_hop], multipath)


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        (path(), path(2, attributes=PLAIN._replace(next_hop=AWAY, local_pref=900)), Lost.UNRESOLVED),
        (
            path(kind=PeerKind.LOCAL, attributes=PLAIN._replace(next_hop=AWAY)),
            path(2, attributes=PLAIN._replace(local_pref=900)),
            Lost.NOT_LOCAL,
        ),
        (path(attributes=PLAIN._replace(local_pref=101)), path(2), Lost.LOCAL_PREF),
        (path(), path(2, attributes=PLAIN._replace(local_pref=99)), Lost.LOCAL_PREF),
        (path(), path(2, attributes=PLAIN._replace(as_path=as_path(1, 2, 3))), Lost.AS_PATH),
        (path(), path(2, attributes=PLAIN._replace(origin=Origin.INCOMPLETE)), Lost.ORIGIN),
        (path(), path(2, attributes=PLAIN._replace(med=1)), Lost.MED),
        (path(kind=PeerKind.EBGP), path(2), Lost.IBGP),
        (path(), path(2, attributes=PLAIN._replace(next_hop=FAR)), Lost.COST),
        (path(bgp_id=6), path(2), Lost.BGP_ID),
        (path(bgp_id=9, attributes=PLAIN._replace(originator_id=6)), path(2), Lost.BGP_ID),
        (path(), path(2, attributes=PLAIN._replace(cluster_list=(1,))), Lost.CLUSTER_LIST),
        (path(address="192.0.2.6"), path(2), Lost.PEER_ADDRESS),
        (path(), path(path_id=1), Lost.PATH_ID),
        (path(), path(2, ifindex=1), Lost.LINK),
    ],
)
def test_a_step(better: Path, worse: Path, reason: Lost) -> None:
    for paths in ([better, worse], [worse, better]):
        assert decision(*paths) == Decision(better, (), ((worse, reason),))


def test_an_equal_local_pref_by_default() -> None:
    explicit = path(2, bgp_id=9, attributes=PLAIN._replace(local_pref=100))
    assert decision(path(), explicit).lost == ((explicit, Lost.BGP_ID),)


def test_med_compares_within_one_neighbouring_as() -> None:
    """The classic: pairwise comparison would make the winner depend on the order of arrival."""
    a = path(1, bgp_id=3, attributes=PLAIN._replace(as_path=as_path(1, 9), med=10))
    b = path(2, bgp_id=1, attributes=PLAIN._replace(as_path=as_path(2, 9), med=5))
    c = path(3, bgp_id=2, attributes=PLAIN._replace(as_path=as_path(1, 9), med=0))
    for paths in ([a, b, c], [b, c, a], [c, a, b], [c, b, a]):
        chosen = decision(*paths)
        assert chosen.best is b
        assert set(chosen.lost) == {(a, Lost.MED), (c, Lost.BGP_ID)}


def test_med_of_paths_from_inside_our_own_as() -> None:
    inside = PLAIN._replace(as_path=EMPTY_AS_PATH)
    worse = path(2, bgp_id=1, attributes=inside._replace(med=5))
    assert decision(path(attributes=inside), worse).lost == ((worse, Lost.MED),)


def test_two_top_of_rack_routers_with_different_as_numbers_forward_together() -> None:
    one = path(1, kind=PeerKind.EBGP, bgp_id=1, attributes=PLAIN._replace(as_path=as_path(64512, 1)))
    two = path(
        2, kind=PeerKind.EBGP, bgp_id=2, attributes=PLAIN._replace(as_path=as_path(64513, 1), next_hop=FAR)
    )
    costs = {NEAR: 0, FAR: 0}
    chosen = decide([two, one], lambda each: costs[each.attributes.next_hop], 2)
    assert chosen == Decision(one, (two,), ())


def test_ebgp_never_forwards_beside_ibgp() -> None:
    outside, inside = path(1, kind=PeerKind.EBGP), path(2)
    assert decision(outside, inside, multipath=16).selected == (outside,)


def test_beyond_the_limit() -> None:
    hops = [PLAIN._replace(next_hop=parse_address(f"192.0.2.{n}")) for n in (10, 11, 12)]
    paths = [path(n, bgp_id=n, attributes=hop) for n, hop in enumerate(hops)]
    chosen = decide(reversed(paths), lambda _: 0, 2)
    assert chosen == Decision(paths[0], (paths[1],), ((paths[2], Lost.MULTIPATH_LIMIT),))


def test_two_reflectors_make_one_next_hop() -> None:
    one, two = path(1, bgp_id=1), path(2, bgp_id=2)
    assert decision(two, one, multipath=16) == Decision(one, (), ((two, Lost.SAME_NEXT_HOP),))


def test_a_link_local_next_hop_is_another_one_on_each_link() -> None:
    link_local = PLAIN._replace(next_hop=parse_address("fe80::1"))
    one, two = path(1, ifindex=1, attributes=link_local), path(2, ifindex=2, attributes=link_local)
    assert decide([two, one], lambda _: 0, 16).selected == (one, two)


def test_nothing_left() -> None:
    lost = path(attributes=PLAIN._replace(next_hop=AWAY))
    assert decision() == Decision(None, (), ())
    assert decision(lost, multipath=4) == Decision(None, (), ((lost, Lost.UNRESOLVED),))
    assert decision(lost).selected == ()
