"""Who may hear which path, and what a path looks like when it is passed on (RFC 4456).

A reflector's peers have roles, and a role decides alone: from a client to everybody, from a non-client to
clients, from another AS to everybody inside.  Towards another AS only what clients announce leaves, and of
that only what the operator listed, in the spirit of RFC 8212.  The next hop, local preference, MED and
unknown attributes of a reflected path stay as they are (section 10); ORIGINATOR_ID and CLUSTER_LIST are what
is added (section 8).

Pure: neither sends anything nor knows a session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from routes.adj_rib_out import prepended
from routes.path import Path, PathAttributes, PeerKind, Source
from routes.policy import DEFAULT_LOCAL_PREF, AllowEntry, compile_prefixes
from routes.prefix import Address, Family, Prefix, format_address
from routes.route_policy import Outcome, Policies

NO_EXPORT = 0xFFFFFF01
NO_ADVERTISE = 0xFFFFFF02
NO_EXPORT_SUBCONFED = 0xFFFFFF03
"""Well-known communities (RFC 1997)."""

_INSIDE_ONLY = frozenset((NO_EXPORT, NO_EXPORT_SUBCONFED))


class Role(Enum):
    """What a peer is to a reflector."""

    CLIENT = "client"
    NON_CLIENT = "non-client"
    EXTERNAL = "external"
    """A peer in another AS."""

    @classmethod
    def of(cls, kind: PeerKind, *, client: bool) -> Role:
        """The role of a peer by its configuration."""
        if kind is PeerKind.EBGP:
            return cls.EXTERNAL
        return cls.CLIENT if client else cls.NON_CLIENT


def may_hear(source: Role, target: Role) -> bool:
    """Whether a peer in one role is told what one in another announced (RFC 4456 section 6)."""
    if target is Role.EXTERNAL:
        return source is Role.CLIENT
    return source is not Role.NON_CLIENT or target is Role.CLIENT


def why_not(source: Role, target: Role) -> str:
    """The rule behind a refusal of `may_hear`, in a sentence."""
    if target is Role.EXTERNAL:
        whose = "a non-client" if source is Role.NON_CLIENT else "another AS"
        return f"only clients' prefixes are announced to another AS, and this path comes from {whose}"
    return "a path from a non-client is passed on to clients alone (RFC 4456 section 6)"


class Export(NamedTuple):
    """What a group's paths get on their way out; what is None stays as it is."""

    asn: int
    """Ours."""
    cluster_id: int
    next_hop: Address | None = None
    """Ours, where this host forwards; None keeps the path's own."""
    local_pref: int | None = None
    med: int | None = None
    prepend: int = 0
    communities: tuple[int, ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    policies: Policies = ()
    """Asked about each path; what they set wins over the values here."""

    def after(self, told: Outcome) -> Export:
        """With what the policies set for one path."""
        return self._replace(
            local_pref=self.local_pref if told.local_pref is None else told.local_pref,
            med=self.med if told.med is None else told.med,
            prepend=self.prepend if told.prepend is None else told.prepend,
        )


class Border(NamedTuple):
    """What may leave for another AS: nothing but what the operator listed."""

    admits: Mapping[int, Callable[[Prefix], bool]]
    """By the size of an address: whether a client's prefix may leave."""
    aggregates: tuple[Prefix, ...] = ()
    """Announced instead of the clients' prefixes inside them."""
    bgp_id: int = 0
    """Ours, for AGGREGATOR."""

    @classmethod
    def of(cls, allow: Iterable[AllowEntry], aggregates: tuple[Prefix, ...] = (), bgp_id: int = 0) -> Border:
        """The border that `[import] allow` draws, which is one for both directions."""
        entries = tuple(allow)
        return cls({size: compile_prefixes(entries, (), size) for size in (4, 16)}, aggregates, bgp_id)

    def why_kept(self, nlri: Prefix) -> str:
        """Why a prefix may not leave, in a sentence; empty when it may."""
        if self.admits[len(nlri.address)](nlri):
            return ""
        return f"no entry of [import] allow admits {nlri}, and nothing else is announced to another AS"


CLOSED = Border.of(())
"""Nothing leaves."""


def next_hop_sizes(family: Family, *, extended: bool) -> tuple[int, ...]:
    """How many bytes a next hop of a family may have on a session (RFC 8950 for IPv4 over IPv6)."""
    if family is Family.IPV6:
        return (16,)
    return (4, 16) if extended else (4,)


def unfit_next_hop(next_hop: Address, family: Family) -> str:
    """Why a next hop of another size than `next_hop_sizes` can't be told, in a sentence."""
    shown = format_address(next_hop)
    if family is Family.IPV6:
        return f"an IPv6 prefix can't have the IPv4 next hop {shown}"
    return f"its next hop {shown} is IPv6, and extended next hop (RFC 8950) was not negotiated"


def refused_by_community(attributes: PathAttributes, target: Role) -> str:
    """Why a well-known community forbids to pass the path on, in a sentence; empty when none does."""
    communities = attributes.communities
    if not communities:
        return ""
    if NO_ADVERTISE in communities:
        return "it has the community NO_ADVERTISE (RFC 1997)"
    if target is Role.EXTERNAL and not _INSIDE_ONLY.isdisjoint(communities):
        return "it has the community NO_EXPORT (RFC 1997)"
    return ""


def exported(path: Path, target: Role, export: Export, policies: Outcome | None = None) -> PathAttributes:
    """The attributes that a peer in the role `target` is told, after what `policies` made of the path."""
    if policies is not None:
        path, export = path._replace(attributes=policies.attributes), export.after(policies)
    told = (
        _outside(path.attributes, export)
        if target is Role.EXTERNAL
        else _inside(path.attributes, path.source, export)
    )
    if export.next_hop is not None:
        told = told._replace(next_hop=export.next_hop, link_local=None)
    if export.med is not None:
        told = told._replace(med=export.med)
    if export.communities or export.large_communities:
        told = told._replace(
            communities=tuple(dict.fromkeys((*told.communities, *export.communities))),
            large_communities=tuple(dict.fromkeys((*told.large_communities, *export.large_communities))),
        )
    return told


def _inside(attributes: PathAttributes, source: Source, export: Export) -> PathAttributes:
    """Towards iBGP; a path from another AS enters ours here, so it is no reflected one."""
    local_pref = export.local_pref
    if local_pref is None:
        local_pref = DEFAULT_LOCAL_PREF if attributes.local_pref is None else attributes.local_pref
    if source.kind is not PeerKind.IBGP:
        return attributes._replace(local_pref=local_pref)
    originator = source.bgp_id if attributes.originator_id is None else attributes.originator_id
    return attributes._replace(
        local_pref=local_pref,
        originator_id=originator,
        cluster_list=(export.cluster_id, *attributes.cluster_list),
    )


def _outside(attributes: PathAttributes, export: Export) -> PathAttributes:
    """Towards eBGP: our AS in front, and without what means nothing outside (RFC 4271 sections 5.1.4, 5.1.5).

    A MED that came over iBGP is another AS's or a node's own, neither of which is meant for the peer.
    """
    as_path = attributes.as_path
    for _ in range(1 + export.prepend):
        as_path = prepended(as_path, export.asn)
    return attributes._replace(
        as_path=as_path, med=None, local_pref=None, originator_id=None, cluster_list=(), link_local=None
    )
