"""What leaves for another AS: clients' prefixes that are listed, or an aggregate in their place."""

from __future__ import annotations

import pytest

from bgpd.bgp.codec import Decoder
from bgpd.bgp.message import Update
from bgpd.bgp.update_group import GroupKey, Identities, UpdateGroup
from routes.aggregates import Aggregates
from routes.path import (
    EMPTY_AS_PATH,
    Aggregator,
    Origin,
    Path,
    PathAttributes,
    PeerKind,
    PeerName,
    Source,
)
from routes.peer import Negotiated
from routes.policy import AllowEntry
from routes.prefix import Address, Family, Prefix, parse_address
from routes.reflection import NO_EXPORT, Border, Export, Role

OURS = parse_address("192.0.2.1")
PODS = Prefix.parse("10.244.0.0/16")
ALLOW = (AllowEntry(PODS, 16, 32),)
ROLES = {
    PeerName("a"): Role.CLIENT,
    PeerName("b"): Role.CLIENT,
    PeerName("other"): Role.NON_CLIENT,
    PeerName("tor"): Role.EXTERNAL,
}


def path(nlri: str, peer: str = "a", origin: Origin = Origin.IGP, communities: tuple[int, ...] = ()) -> Path:
    number = 10 + list(ROLES).index(PeerName(peer))
    kind = PeerKind.EBGP if peer == "tor" else PeerKind.IBGP
    address = Address(bytes((192, 0, 2, number)))
    attributes = PathAttributes(origin, EMPTY_AS_PATH, address, local_pref=100, communities=communities)
    return Path(Prefix.parse(nlri), attributes, Source(PeerName(peer), kind, 65000, number, address))


def group(
    *, aggregates: tuple[Prefix, ...] = (), next_hop: Address | None = OURS, add_paths: int = 0
) -> UpdateGroup:
    session = Negotiated(
        PeerKind.EBGP, 65000, 64601, 9, OURS, parse_address("192.0.2.254"), 0, 90, frozenset((Family.IPV4,)),
        add_path_send=frozenset((Family.IPV4,) if add_paths else ()),
    )  # fmt: skip
    export = Export(65000, 1, next_hop)
    key = GroupKey(Family.IPV4, Role.EXTERNAL, export, True, add_paths, False)
    return UpdateGroup(key, session, ROLES.__getitem__, Identities(), Border.of(ALLOW, aggregates, 7))


def now(group: UpdateGroup, *changes: tuple[Path | None, Path | None]) -> None:
    """Have the best paths of some prefixes replaced."""
    rows = []
    for before, after in changes:
        known = after or before
        assert known is not None
        rows.append((known.nlri, (before,) if before else (), (after,) if after else ()))
    group.put(rows)
    group.log.commit()


def told(group: UpdateGroup, *texts: str) -> list[str]:
    return [text for text in texts if Prefix.parse(text) in group.log]


@pytest.mark.parametrize(
    ("announced", "why"),
    [
        (path("10.244.1.0/24"), ""),
        (path("10.245.1.0/24"), "no entry of [import] allow admits 10.245.1.0/24"),
        (path("10.244.1.0/24", "other"), "this path comes from a non-client"),
        (path("10.244.1.0/24", "tor"), "this path comes from another AS"),
        (path("10.244.1.0/24", communities=(NO_EXPORT,)), "it has the community NO_EXPORT"),
    ],
)
def test_only_listed_prefixes_of_clients_leave(announced: Path, why: str) -> None:
    border = group()
    now(border, (None, announced))
    assert (announced.nlri in border.log) == (not why)
    assert why in border.why_refused(announced)


def test_an_aggregate_stands_for_clients_prefixes_while_there_is_one() -> None:
    border = group(aggregates=(PODS,))
    one, two, outside = path("10.244.1.0/24"), path("10.244.2.0/24", "b"), path("10.245.0.0/24")
    now(border, (None, one), (None, two), (None, outside))
    every = ("10.244.0.0/16", "10.244.1.0/24", "10.244.2.0/24", "10.245.0.0/24")
    assert told(border, *every) == ["10.244.0.0/16"]
    now(border, (one, None))
    assert told(border, *every) == ["10.244.0.0/16"]
    now(border, (two, None))
    assert told(border, *every) == []


def test_what_an_aggregate_says() -> None:
    border = group(aggregates=(PODS,))
    now(border, (None, path("10.244.1.0/24")), (None, path("10.244.2.0/24", "b", Origin.INCOMPLETE)))
    entry = border.log.entry(PODS)
    assert entry is not None
    said = entry[1]
    assert isinstance(said, PathAttributes)
    assert (said.next_hop, said.atomic_aggregate, said.aggregator) == (OURS, True, Aggregator(65000, 7))
    assert (str(said.as_path), said.origin) == ("65000", Origin.INCOMPLETE)
    assert (said.local_pref, said.originator_id, said.cluster_list) == (None, None, ())
    now(border, (path("10.244.2.0/24", "b", Origin.INCOMPLETE), None))
    entry = border.log.entry(PODS)
    assert entry is not None
    assert isinstance(entry[1], PathAttributes)
    assert entry[1].origin is Origin.IGP


@pytest.mark.parametrize(
    "refused", [path("10.244.3.0/24", "other"), path("10.244.3.0/24", communities=(NO_EXPORT,))]
)
def test_what_may_not_leave_makes_no_aggregate(refused: Path) -> None:
    border = group(aggregates=(PODS,))
    now(border, (None, refused))
    assert PODS not in border.aggregates()
    now(border, (refused, path("10.244.3.0/24")))
    assert border.aggregates() == [PODS]
    now(border, (path("10.244.3.0/24"), refused))
    assert told(border, "10.244.0.0/16", "10.244.3.0/24") == []


def test_without_a_next_hop_of_ours_prefixes_leave_as_they_are() -> None:
    border = group(aggregates=(PODS,), next_hop=None)
    now(border, (None, path("10.244.1.0/24")))
    assert told(border, "10.244.0.0/16", "10.244.1.0/24") == ["10.244.1.0/24"]


@pytest.mark.parametrize("add_paths", [0, 2])
def test_a_client_may_announce_the_aggregate_itself(add_paths: int) -> None:
    border = group(aggregates=(PODS,), add_paths=add_paths)
    now(border, (None, path("10.244.0.0/16")))
    assert border.log.size == 1
    assert border.aggregate(PODS) is not None
    now(border, (path("10.244.0.0/16"), None))
    assert border.log.size == 0


@pytest.mark.parametrize("add_paths", [0, 2])
def test_another_border_announces_and_withdraws_what_it_changes(add_paths: int) -> None:
    border = group(add_paths=add_paths)
    selected = [(each.nlri, (each,)) for each in (path("10.244.1.0/24"), path("10.244.0.0/16", "b"))]
    border.put((nlri, (), paths) for nlri, paths in selected)
    border.log.commit()
    assert border.log.size == 2
    for aggregates, size in (((PODS,), 1), ((), 2), ((Prefix.parse("10.244.1.0/24"),), 2)):
        border.redraw(Border.of(ALLOW, aggregates, 7), selected)
        assert border.log.size == size
        assert border.aggregates() == list(aggregates)
    border.redraw(Border.of((), (PODS,)), selected)
    assert border.log.size == 0


def test_a_next_hop_of_the_other_family_is_told_to_nobody() -> None:
    border = group(next_hop=parse_address("2001:db8::1"), aggregates=(PODS,))
    one = path("10.244.1.0/24")
    now(border, (None, one))
    assert border.log.size == 0
    assert "extended next hop (RFC 8950) was not negotiated" in border.why_refused(one)


def test_the_aggregate_of_a_prefix() -> None:
    wide, narrow = Prefix.parse("10.0.0.0/9"), Prefix.parse("10.128.0.0/16")
    found = Aggregates((narrow, wide))
    for text, expected in (
        ("10.0.0.0/9", wide),
        ("10.0.0.0/8", None),
        ("10.127.255.0/24", wide),
        ("10.128.0.0/24", narrow),
        ("10.129.0.0/24", None),
        ("9.255.255.0/24", None),
    ):
        assert found.of(Prefix.parse(text)) == expected


def test_a_router_reads_the_aggregate_from_the_bytes() -> None:
    border = group(aggregates=(PODS,))
    now(border, (None, path("10.244.1.0/24")))
    data = b"".join(border.log.join(99).next_slices(1 << 20))
    decoder = Decoder()
    decoder.negotiated = Negotiated(
        PeerKind.EBGP, 64601, 65000, 1, parse_address("192.0.2.254"), OURS, 0, 90, frozenset((Family.IPV4,))
    )
    (update,) = decoder.feed(data)
    assert isinstance(update, Update)
    assert update.attributes is not None
    said = update.attributes
    assert (update.announced, str(said.as_path), said.next_hop) == ((PODS,), "65000", OURS)
    assert (said.atomic_aggregate, said.aggregator) == (True, Aggregator(65000, 7))
