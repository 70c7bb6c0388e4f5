"""The decision process, as named elimination steps (RFC 4271 section 9.1.2.2, RFC 4456 section 9).

`decide` is the definition.  Each step takes the paths that are left and removes some from consideration,
and each loser keeps the name of the step that it lost at.  A step looks at the set and never at its
order, which matters for MED: it compares only within one neighbouring AS, so a fold over pairs would
depend on who spoke first.

What interior cost leaves is equal in cost: up to `multipath` paths with different next hops forward
together.  The steps before it never leave eBGP beside iBGP, and compare AS paths by length alone.  The
tie-breaks then order them, and the first is the best path.

`select` gives the same selection faster and without reasons; a property test holds it to `decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from routes.path import Path, PeerKind
from routes.policy import DEFAULT_LOCAL_PREF
from routes.prefix import Address, is_link_local

Cost = Callable[[Path], int | None]
"""The interior cost of a path's next hop; None when it can't be resolved.  Never asked of a local path."""


_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long, and `select` is a hot path


class Lost(Enum):
    """The step at which a path was removed from consideration."""

    UNRESOLVED = "unresolved"
    NOT_LOCAL = "not-local"
    LOCAL_PREF = "local-pref"
    AS_PATH = "as-path-length"
    ORIGIN = "origin"
    MED = "med"
    IBGP = "ebgp-over-ibgp"
    COST = "interior-cost"
    BGP_ID = "bgp-id"
    CLUSTER_LIST = "cluster-list-length"
    PEER_ADDRESS = "peer-address"
    PATH_ID = "path-id"
    LINK = "link"
    SAME_NEXT_HOP = "same-next-hop"
    MULTIPATH_LIMIT = "multipath-limit"


LOST_TEXT: dict[Lost, str] = {
    Lost.UNRESOLVED: "its next hop can't be resolved",
    Lost.NOT_LOCAL: "this speaker originates the prefix itself",
    Lost.LOCAL_PREF: "another path has a higher local preference",
    Lost.AS_PATH: "another path has a shorter AS path",
    Lost.ORIGIN: "another path has a lower origin",
    Lost.MED: "another path through the same neighbouring AS has a lower MED",
    Lost.IBGP: "another path was learned over eBGP",
    Lost.COST: "another path's next hop is nearer",
    Lost.BGP_ID: "another path comes from a lower BGP identifier",
    Lost.CLUSTER_LIST: "another path passed fewer route reflectors",
    Lost.PEER_ADDRESS: "another path comes from a lower peer address",
    Lost.PATH_ID: "another path of the same peer has a lower path ID",
    Lost.LINK: "another path comes over a link with a lower number",
    Lost.SAME_NEXT_HOP: "equal in cost, but a selected path has the same next hop",
    Lost.MULTIPATH_LIMIT: "equal in cost, but beyond the most paths that forward together",
}


class Decision(NamedTuple):
    """The outcome for one prefix."""

    best: Path | None
    multipath: tuple[Path, ...]
    """Paths of equal cost that forward beside the best, in tie-break order."""
    lost: tuple[tuple[Path, Lost], ...]
    """Every other path, with the step it lost at."""

    @property
    def selected(self) -> tuple[Path, ...]:
        """`(best, *multipath)`, empty without a path."""
        return () if self.best is None else (self.best, *self.multipath)


class _Candidate(NamedTuple):
    path: Path
    cost: int


_Step = Callable[[list[_Candidate]], list[_Candidate]]


def local_pref(path: Path) -> int:
    """LOCAL_PREF, or the default that its absence stands for."""
    value = path.attributes.local_pref
    return DEFAULT_LOCAL_PREF if value is None else value


def bgp_id(path: Path) -> int:
    """ORIGINATOR_ID takes the place of the peer's BGP identifier (RFC 4456 section 9)."""
    originator = path.attributes.originator_id
    return path.source.bgp_id if originator is None else originator


def _lowest(key: Callable[[_Candidate], int | bytes | tuple[int, str]]) -> _Step:
    def keep(left: list[_Candidate]) -> list[_Candidate]:
        values = [key(each) for each in left]
        least = min(values)
        return [each for each, value in zip(left, values, strict=True) if value == least]

    return keep


def _lowest_med(left: list[_Candidate]) -> list[_Candidate]:
    """Lowest MED within each neighbouring AS; a missing one is 0 (RFC 4271 section 9.1.2.2 c)."""
    least: dict[int, int] = {}
    for path, _ in left:
        med, neighbor = path.attributes.med or 0, path.attributes.as_path.neighbor_as
        least[neighbor] = min(med, least.get(neighbor, med))
    return [
        each
        for each in left
        if (each.path.attributes.med or 0) == least[each.path.attributes.as_path.neighbor_as]
    ]


STEPS: tuple[tuple[Lost, _Step], ...] = (
    (Lost.NOT_LOCAL, _lowest(lambda c: c.path.source.kind is not PeerKind.LOCAL)),
    (Lost.LOCAL_PREF, _lowest(lambda c: -local_pref(c.path))),
    (Lost.AS_PATH, _lowest(lambda c: c.path.attributes.as_path.length)),
    (Lost.ORIGIN, _lowest(lambda c: c.path.attributes.origin)),
    (Lost.MED, _lowest_med),
    (Lost.IBGP, _lowest(lambda c: c.path.source.kind is PeerKind.IBGP)),
    (Lost.COST, _lowest(lambda c: c.cost)),
)
"""What is left after these is equal in cost."""

TIE_BREAKS: tuple[tuple[Lost, _Step], ...] = (
    (Lost.BGP_ID, _lowest(lambda c: bgp_id(c.path))),
    (Lost.CLUSTER_LIST, _lowest(lambda c: len(c.path.attributes.cluster_list))),
    (Lost.PEER_ADDRESS, _lowest(lambda c: c.path.source.address)),
    (Lost.PATH_ID, _lowest(lambda c: c.path.path_id)),
    # Not the RFC's: two link-local peers can share everything above, and the order must still be total.
    (Lost.LINK, _lowest(lambda c: (c.path.source.ifindex, c.path.source.peer))),
)


def _tie_break_key(path: Path) -> tuple[int, int, Address, int, int, str]:
    """The tie-breaks as one key; they order a set, so here a fold is sound."""
    source, attributes = path.source, path.attributes
    peer, _, _, identifier, address, ifindex = source
    if attributes.originator_id is not None:
        identifier = attributes.originator_id
    return (identifier, len(attributes.cluster_list), address, path.path_id, ifindex, peer)


def _eliminate(
    steps: Iterable[tuple[Lost, _Step]], left: list[_Candidate], lost: list[tuple[Path, Lost]]
) -> list[_Candidate]:
    for reason, keep in steps:
        if len(left) < 2:
            break
        kept = keep(left)
        if len(kept) < len(left):
            alive = {id(each) for each in kept}
            lost.extend((each.path, reason) for each in left if id(each) not in alive)
            left = kept
    return left


def decide(paths: Iterable[Path], cost: Cost, multipath: int = 1) -> Decision:
    """Choose among all accepted paths to one prefix, with a reason for each that is not selected."""
    lost: list[tuple[Path, Lost]] = []
    left: list[_Candidate] = []
    for path in paths:
        interior = 0 if path.source.kind is PeerKind.LOCAL else cost(path)
        if interior is None:
            lost.append((path, Lost.UNRESOLVED))
        else:
            left.append(_Candidate(path, interior))
    equal = _eliminate(STEPS, left, lost)
    if not equal:
        return Decision(None, (), tuple(lost))
    broken: list[tuple[Path, Lost]] = []
    best = _eliminate(TIE_BREAKS, equal, broken)[0].path
    others = sorted((each.path for each in equal if each.path is not best), key=_tie_break_key)
    if multipath < 2:
        return Decision(best, (), (*lost, *broken))
    hops = {hop_key(best)}
    together: list[Path] = []
    for path in others:
        if hop_key(path) in hops:
            lost.append((path, Lost.SAME_NEXT_HOP))
        elif len(hops) < multipath:
            hops.add(hop_key(path))
            together.append(path)
        else:
            lost.append((path, Lost.MULTIPATH_LIMIT))
    return Decision(best, tuple(together), tuple(lost))


HopKey = Address | tuple[Address, Address | None, int]


def hop_key(path: Path) -> HopKey:
    """Equal for paths that forward to the same next hop: two reflectors pass on one path of one node.

    A link-local next hop is another one on each link.
    """
    next_hop, link_local = path.attributes.next_hop, path.attributes.link_local
    if link_local is None and not is_link_local(next_hop):
        return next_hop
    return next_hop, link_local, path.source.ifindex


def select(paths: Sequence[Path], cost: Cost, multipath: int = 1) -> tuple[Path, ...]:
    """`decide(...).selected`, for the hot path: two reflectors make two paths to everything."""
    left: list[_Candidate] = []
    least: tuple[int, int, int] | None = None
    for path in paths:
        if path.source.kind is PeerKind.LOCAL:
            return decide(paths, cost, multipath).selected
        interior = cost(path)
        if interior is None:
            continue
        attributes = path.attributes
        preference = attributes.local_pref
        if preference is None:
            preference = DEFAULT_LOCAL_PREF
        rank = (-preference, attributes.as_path.length, attributes.origin)
        if least is None or rank < least:  # a fold is sound here: these steps are a total order
            least = rank
            left = [_new(_Candidate, (path, interior))]
        elif rank == least:
            left.append(_new(_Candidate, (path, interior)))
    if len(left) > 1:
        med = left[0].path.attributes.med or 0
        for path, _ in left:
            if (path.attributes.med or 0) != med:
                left = _lowest_med(left)
                break
    return _in_order(_nearest(left), multipath)


def _nearest(left: list[_Candidate]) -> list[Path]:
    """eBGP over iBGP, then the lowest interior cost."""
    nearest: list[Path] = []
    least: tuple[bool, int] | None = None
    for path, interior in left:
        key = (path.source.kind is PeerKind.IBGP, interior)
        if least is None or key < least:
            least = key
            nearest = [path]
        elif key == least:
            nearest.append(path)
    return nearest


def _in_order(equal: list[Path], multipath: int) -> tuple[Path, ...]:
    """The best of equal paths, and those that forward beside it."""
    if len(equal) < 2:
        return tuple(equal)
    equal.sort(key=_tie_break_key)
    if multipath < 2:
        return (equal[0],)
    selected: dict[HopKey, Path] = {}
    for path in equal:
        if selected.setdefault(hop_key(path), path) is path and len(selected) == multipath:
            break
    return tuple(selected.values())
