"""A path: NLRI, path attributes, and the session it came from (RFC 4271 section 1.1)."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple, NewType

from routes.prefix import Address, Prefix

PeerName = NewType("PeerName", str)
"""What the operator calls a peer: its address as configured (`192.0.2.1`, `fe80::1%eth0`)."""

LOCAL_PEER = PeerName("local")
"""The `PeerName` of what this speaker originates itself."""


class Origin(IntEnum):
    """ORIGIN (RFC 4271 section 5.1.1); lower is preferred."""

    IGP = 0
    EGP = 1
    INCOMPLETE = 2


class SegmentKind(IntEnum):
    """AS_PATH segment types (RFC 4271 section 4.3, RFC 5065)."""

    SET = 1
    SEQUENCE = 2
    CONFED_SEQUENCE = 3
    CONFED_SET = 4


class AsSegment(NamedTuple):
    """One AS_PATH segment with four-octet AS numbers."""

    kind: SegmentKind
    asns: tuple[int, ...]


class AsPath(NamedTuple):
    """AS_PATH, with what the decision process asks of it computed once.

    Build it with `AsPath.of`; equal segments give equal values.
    """

    segments: tuple[AsSegment, ...]
    length: int
    """For comparison: a set counts 1, confederation segments 0 (RFC 4271 section 9.1.2.2, RFC 5065)."""
    neighbor_as: int
    """The AS that MED is compared within: the leftmost of the first sequence, 0 when there is none."""

    @classmethod
    def of(cls, segments: tuple[AsSegment, ...]) -> AsPath:
        length = 0
        for kind, asns in segments:
            length += {SegmentKind.SEQUENCE: len(asns), SegmentKind.SET: 1}.get(kind, 0)
        first = next((s for s in segments if s.kind in (SegmentKind.SEQUENCE, SegmentKind.SET)), None)
        neighbor = first.asns[0] if first and first.kind is SegmentKind.SEQUENCE and first.asns else 0
        return cls(segments, length, neighbor)

    def count(self, asn: int) -> int:
        """How often `asn` occurs (loop detection, RFC 4271 section 9.1.2)."""
        return sum(segment.asns.count(asn) for segment in self.segments)

    def __str__(self) -> str:
        opening = {1: "{", 2: "", 3: "(", 4: "["}
        closing = {1: "}", 2: "", 3: ")", 4: "]"}
        return " ".join(f"{opening[k]}{' '.join(map(str, asns))}{closing[k]}" for k, asns in self.segments)


EMPTY_AS_PATH = AsPath((), 0, 0)


class Aggregator(NamedTuple):
    """AGGREGATOR (RFC 4271 section 5.1.7): the AS number and BGP identifier of who aggregated."""

    asn: int
    bgp_id: int


class UnknownAttribute(NamedTuple):
    """An unrecognised optional transitive attribute, kept to be passed on (RFC 4271 section 5)."""

    flags: int
    code: int
    value: bytes


class PathAttributes(NamedTuple):
    """The path attributes of one NLRI, as plain values.  `None` and `()` mean: not present."""

    origin: Origin
    as_path: AsPath
    next_hop: Address
    link_local: Address | None = None
    """The link-local half of a 32-byte IPv6 next hop (RFC 2545 section 3)."""
    med: int | None = None
    local_pref: int | None = None
    atomic_aggregate: bool = False
    aggregator: Aggregator | None = None
    communities: tuple[int, ...] = ()
    extended_communities: tuple[bytes, ...] = ()
    """8 bytes each."""
    large_communities: tuple[tuple[int, int, int], ...] = ()
    originator_id: int | None = None
    cluster_list: tuple[int, ...] = ()
    unknown: tuple[UnknownAttribute, ...] = ()


GRACEFUL_SHUTDOWN = 0xFFFF0000
"""The well-known community of RFC 8326."""


class PeerKind(Enum):
    """Whose session a path came over; eBGP wins over iBGP in the decision process."""

    LOCAL = "local"
    EBGP = "ebgp"
    IBGP = "ibgp"


class Source(NamedTuple):
    """The session that a path was received on.  One value for each established session."""

    peer: PeerName
    kind: PeerKind
    asn: int
    bgp_id: int
    address: Address
    """The peer's address on this session, for the last tie-break."""
    ifindex: int = 0
    """The link that the session runs over; non-zero only for link-local peers and direct neighbours."""


class Path(NamedTuple):
    """One path to one destination."""

    nlri: Prefix
    attributes: PathAttributes
    source: Source
    path_id: int = 0
    """The identifier received with ADD-PATH (RFC 7911); 0 without."""
