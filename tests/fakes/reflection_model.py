"""What each peer of a reflector should hold, said naively: the reference that tests compare with.

Everything is computed anew from what each peer announces now; nothing here is shared with the reflector
but the decision process, which has a reference of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bgpd.config import AllowEntry
from routes.decision import decide
from routes.path import (
    EMPTY_AS_PATH,
    AsPath,
    AsSegment,
    Origin,
    Path,
    PathAttributes,
    SegmentKind,
    Source,
    UnknownAttribute,
)
from routes.prefix import Family, Prefix, parse_address
from routes.reflection import NO_ADVERTISE, NO_EXPORT, Role
from routes.route_policy import Policies, judge

ASN = 65000
ROUTER_ID = CLUSTER_ID = 0x0A0000FE
ALLOW = (AllowEntry(Prefix.parse("10.0.0.0/8"), 8, 32), AllowEntry(Prefix.parse("fd00::/16"), 16, 128))
INSIDE = [Prefix.parse(f"10.{n}.0.0/24") for n in range(6)] + [Prefix.parse(f"fd00:{n}::/64") for n in (1, 2)]
OUTSIDE = [Prefix.parse("172.16.0.0/24")]
"""In no `[import] allow`: it neither comes from another AS nor goes there."""
PREFIXES = INSIDE + OUTSIDE
MAY_HEAR = {
    (Role.CLIENT, Role.CLIENT),
    (Role.CLIENT, Role.NON_CLIENT),
    (Role.CLIENT, Role.EXTERNAL),
    (Role.NON_CLIENT, Role.CLIENT),
    (Role.EXTERNAL, Role.CLIENT),
    (Role.EXTERNAL, Role.NON_CLIENT),
}
VERSIONS = 8
"""Of what a peer announces prefixes with."""


class Speaker(Protocol):
    """A peer of the reflector."""

    @property
    def role(self) -> Role: ...
    @property
    def source(self) -> Source: ...
    @property
    def families(self) -> frozenset[Family]: ...
    @property
    def add_paths(self) -> int: ...


class Announcement(NamedTuple):
    """What a peer announces a prefix with."""

    attributes: PathAttributes
    loops: bool = False


def as_path(*asns: int) -> AsPath:
    return AsPath.of((AsSegment(SegmentKind.SEQUENCE, asns),)) if asns else EMPTY_AS_PATH


def announcement(peer: Speaker, family: Family, version: int) -> Announcement:
    """One of a few that each peer has; the next hop says whose it is."""
    number = peer.source.bgp_id
    hop = parse_address(f"10.99.0.{number}" if family is Family.IPV4 else f"fd99::{number}")
    base = PathAttributes(Origin.IGP, EMPTY_AS_PATH, hop, med=version)
    if peer.role is Role.EXTERNAL:
        base = base._replace(as_path=as_path(peer.source.asn, *range(64700, 64700 + version % 2)))
    else:
        base = base._replace(local_pref=(100, 100, 200, 50)[version % 4])
    internal = peer.role is not Role.EXTERNAL
    match version:
        case 2:
            base = base._replace(communities=(65000 << 16 | 1, NO_EXPORT))
        case 3:
            base = base._replace(unknown=(UnknownAttribute(0xE0, 99, b"opaque"),))
        case 4:
            base = base._replace(communities=(NO_ADVERTISE,))
        case 5 if peer.role is Role.NON_CLIENT:
            base = base._replace(originator_id=0x0A00FF01, cluster_list=(7, 8))
        case 6 if internal:
            return Announcement(base._replace(originator_id=9, cluster_list=(CLUSTER_ID,)), loops=True)
        case 7 if internal:
            return Announcement(base._replace(originator_id=ROUTER_ID), loops=True)
    return Announcement(base)


@dataclass
class Model:
    """What each peer announces now."""

    most_paths: int
    announced: dict[tuple[Speaker, Prefix], Announcement]
    policies: Callable[[Speaker], Policies] = lambda _: ()
    """What each peer's export policies are."""

    def forget(self, peer: Speaker) -> None:
        """Its session is lost."""
        self.announced = {key: told for key, told in self.announced.items() if key[0] is not peer}

    def expected(self, peer: Speaker, nlri: Prefix) -> list[PathAttributes]:
        """What the peer should hold of a prefix."""
        if nlri.family not in peer.families:
            return []
        paths = {
            Path(nlri, told.attributes, source.source): source
            for (source, each), told in self.announced.items()
            if each == nlri and not told.loops and not (source.role is Role.EXTERNAL and nlri in OUTSIDE)
        }
        selected: Sequence[Path] = decide(list(paths), lambda _: 0, self.most_paths).selected
        return [
            self.told(path, paths[path], peer)
            for path in selected[: max(1, peer.add_paths)]
            if paths[path] is not peer
            and self.may_hear(path, paths[path], peer)
            and judge(self.policies(peer), nlri, path.attributes).accepted
        ]

    @staticmethod
    def may_hear(path: Path, source: Speaker, target: Speaker) -> bool:
        communities = path.attributes.communities
        if (source.role, target.role) not in MAY_HEAR or NO_ADVERTISE in communities:
            return False
        return target.role is not Role.EXTERNAL or (path.nlri in INSIDE and NO_EXPORT not in communities)

    def told(self, path: Path, source: Speaker, target: Speaker) -> PathAttributes:
        """As RFC 4456 section 8 and RFC 4271 section 5.1 say, after the policies."""
        outcome = judge(self.policies(target), path.nlri, path.attributes)
        attributes = outcome.attributes
        if target.role is Role.EXTERNAL:
            return attributes._replace(
                as_path=as_path(*([ASN] * (1 + (outcome.prepend or 0)))),
                local_pref=None,
                med=outcome.med,
                originator_id=None,
                cluster_list=(),
            )
        if source.role is Role.EXTERNAL:
            return attributes._replace(local_pref=100 if outcome.local_pref is None else outcome.local_pref)
        return attributes._replace(
            originator_id=attributes.originator_id or source.source.bgp_id,
            cluster_list=(CLUSTER_ID, *attributes.cluster_list),
        )
