"""Adj-RIB-Out: what a peer is told, computed when it is asked for (RFC 4271 section 9.1.3).

There is no copy for each peer: what a peer holds of us follows from the selection, from what was
negotiated with it, from its policies, and from the next hop that its session allows.  An agent announces
what it originates and nothing else; every refusal names its rule.  `export` works for any attributes, so a
speaker that passes on others' paths needs other rules here and no other translation.

`judge_own` is the definition; `exporter` gives the same for a whole table, remembering what is alike.

This module must never send anything, and never choose a next hop: `routes.own_next_hop` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

from routes.own_next_hop import OwnNextHop
from routes.path import (
    EMPTY_AS_PATH,
    GRACEFUL_SHUTDOWN,
    AsPath,
    AsSegment,
    Origin,
    Path,
    PathAttributes,
    PeerKind,
    PeerName,
    SegmentKind,
)
from routes.peer import Negotiated
from routes.policy import DEFAULT_LOCAL_PREF, Verdict
from routes.prefix import Address, Family, Prefix
from routes.route_policy import Outcome, Policies, compile_policies
from routes.route_policy import judge as judge_policies

MAX_SEGMENT = 255
"""AS numbers that one AS_PATH segment holds (RFC 4271 section 4.3)."""

ORIGINATED = PathAttributes(Origin.IGP, EMPTY_AS_PATH, Address(bytes(4)))
"""What this speaker's own prefixes have; the next hop is each session's."""


class ExportRule(StrEnum):
    """Names of export rules; what a policy decided is named after it and its rule."""

    OWN = "own"
    NOT_OWN = "not-own"
    NOT_NEGOTIATED = "not-negotiated"
    NO_NEXT_HOP = "no-next-hop"


class Target(NamedTuple):
    """A peer whose session is up, as the export side sees it."""

    peer: PeerName
    session: Negotiated
    next_hops: Mapping[Family, OwnNextHop]
    """What each family was announced with; a family without an address was not."""
    policies: Policies = ()
    draining: bool = False
    """We are about to go: everything is told as the last choice (RFC 8326)."""


def prepended(as_path: AsPath, asn: int) -> AsPath:
    """The AS_PATH with `asn` before it (RFC 4271 section 5.1.2 b)."""
    first = as_path.segments[0] if as_path.segments else None
    if first is not None and first.kind is SegmentKind.SEQUENCE and len(first.asns) < MAX_SEGMENT:
        head = AsSegment(SegmentKind.SEQUENCE, (asn, *first.asns))
        return AsPath.of((head, *as_path.segments[1:]))
    return AsPath.of((AsSegment(SegmentKind.SEQUENCE, (asn,)), *as_path.segments))


def export(
    session: Negotiated, next_hop: OwnNextHop, attributes: PathAttributes = ORIGINATED
) -> PathAttributes:
    """The attributes as the peer is told them; `next_hop` must have an address."""
    if next_hop.address is None:
        raise ValueError(f"no next hop to announce with: {next_hop.reason}")
    attributes = attributes._replace(next_hop=next_hop.address, link_local=next_hop.link_local)
    if session.kind is PeerKind.EBGP:
        # LOCAL_PREF and what reflectors add mean nothing in another AS (RFC 4271 section 5.1.5, RFC 4456).
        return attributes._replace(
            as_path=prepended(attributes.as_path, session.local_asn),
            local_pref=None,
            originator_id=None,
            cluster_list=(),
        )
    if attributes.local_pref is None:
        return attributes._replace(local_pref=DEFAULT_LOCAL_PREF)
    return attributes


def as_last_choice(attributes: PathAttributes) -> PathAttributes:
    """The attributes of what goes soon: GRACEFUL_SHUTDOWN, and inside our AS no preference (RFC 8326)."""
    communities = attributes.communities
    if GRACEFUL_SHUTDOWN not in communities:
        communities = (*communities, GRACEFUL_SHUTDOWN)
    return attributes._replace(local_pref=0, communities=communities)


def judge_export(path: Path, target: Target) -> Verdict:
    """Whether a selected path is announced to a peer, as what, and by which rule."""
    if path.source.kind is not PeerKind.LOCAL:
        text = f"{path.nlri} is not ours, and only our own prefixes are announced"
        return Verdict(False, path.attributes, ExportRule.NOT_OWN, text)
    return judge_own(path.nlri, path.attributes, target)


def judge_own(nlri: Prefix, attributes: PathAttributes, target: Target) -> Verdict:
    """The same for a path that this speaker originates."""
    family = nlri.family
    if family not in target.session.families:
        return Verdict(False, attributes, ExportRule.NOT_NEGOTIATED, f"{family} was not negotiated")
    next_hop = target.next_hops.get(family)
    if next_hop is None or next_hop.address is None:
        reason = next_hop.reason if next_hop is not None else f"{family} was not announced yet"
        return Verdict(False, attributes, ExportRule.NO_NEXT_HOP, reason)
    told = judge_policies(target.policies, nlri, attributes)
    if not told.accepted:
        return Verdict(False, attributes, told.rule, told.text)
    text = f"our own prefix; {told.text}" if told.text else "our own prefix"
    if target.draining:
        text += "; as the last choice, because this speaker is being drained (RFC 8326)"
    return Verdict(True, _told(told, target, next_hop), told.rule or ExportRule.OWN, text)


def _told(told: Outcome, target: Target, next_hop: OwnNextHop) -> PathAttributes:
    attributes, session = told.attributes, target.session
    if target.draining:
        attributes = as_last_choice(attributes)
    if told.prepend and session.kind is PeerKind.EBGP:
        as_path = attributes.as_path
        for _ in range(told.prepend):
            as_path = prepended(as_path, session.local_asn)
        attributes = attributes._replace(as_path=as_path)
    return export(session, next_hop, attributes)


Exporter = Callable[[Prefix, PathAttributes], PathAttributes | None]
"""What a peer is told of a path that we originate; None when it is told nothing."""


def exporter(target: Target) -> Exporter:
    """`judge_own` for many prefixes: those whose attributes are one object share one result."""
    known: dict[int, tuple[PathAttributes, Exporter]] = {}

    def compiled(family: Family) -> Exporter:
        next_hop = target.next_hops.get(family)
        if family not in target.session.families or next_hop is None or next_hop.address is None:
            return lambda _nlri, _attributes: None
        return compile_policies(
            target.policies, lambda told: _told(told, target, next_hop) if told.accepted else None
        )

    def tell(nlri: Prefix, attributes: PathAttributes) -> PathAttributes | None:
        found = known.get(id(attributes))
        if found is None:  # the attributes are kept, so that nothing else gets their id
            found = known[id(attributes)] = attributes, compiled(nlri.family)
        return found[1](nlri, attributes)

    return tell
