"""What we offer in an OPEN, and what both OPENs together mean.

Pure.  A peer's OPEN is either acceptable, and gives one `Negotiated` that everything above the session
reads, or it is refused with a NOTIFICATION and a sentence that names both sides' values.
RFC 4271 sections 4.2 and 6.2, RFC 5492, RFC 6286, RFC 4724 section 3.
"""

from __future__ import annotations

from typing import NamedTuple

from bgpd.bgp.message import Notification, Open
from bgpd.bgp.notifications import Code, OpenError
from bgpd.config import PeerConfig, SpeakerConfig
from routes.path import PeerKind
from routes.peer import Capabilities, GracefulRestart, Negotiated
from routes.prefix import Address, Family, format_router_id


class Endpoints(NamedTuple):
    """The two ends of a TCP connection."""

    local_address: Address
    local_port: int
    peer_address: Address
    peer_port: int
    ifindex: int = 0
    """The interface of a link-local or directly connected peer, else 0."""


class Refusal(NamedTuple):
    """Why an OPEN is not acceptable."""

    notification: Notification
    text: str


def offer(
    config: PeerConfig, speaker: SpeakerConfig, restarting: bool, forwarding: frozenset[Family], plain: bool
) -> Open:
    """Our OPEN.  `plain` leaves out what an old peer may refuse (RFC 5492 section 3)."""
    families = frozenset(config.families)
    capabilities = Capabilities(families=families, four_octet_asn=speaker.asn)
    if not plain:
        restart = None
        if config.graceful_restart and speaker.graceful_restart:
            preserved = tuple((family, family in forwarding) for family in sorted(families))
            restart = GracefulRestart(speaker.restart_time, restarting, True, preserved)
        capabilities = Capabilities(
            families=families,
            four_octet_asn=speaker.asn,
            route_refresh=True,
            enhanced_route_refresh=True,
            extended_message=True,
            extended_next_hop=families & {Family.IPV4} if config.extended_next_hop else frozenset(),
            add_path_receive=families if config.add_path else frozenset(),
            add_path_send=families if config.add_paths > 1 else frozenset(),
            graceful_restart=restart,
        )
    return Open(speaker.asn, config.hold_time, speaker.router_id, capabilities)


def refused(config: PeerConfig, ours: Open, theirs: Open) -> Refusal | None:
    """The first reason to refuse the peer's OPEN, in the order of RFC 4271 section 6.2."""

    def refusal(subcode: OpenError, text: str, data: bytes = b"") -> Refusal:
        return Refusal(Notification(Code.OPEN, subcode, data), text)

    if theirs.asn != config.asn:
        return refusal(OpenError.BAD_PEER_AS, f"expected AS {config.asn}, got {theirs.asn}")
    if theirs.bgp_id == 0:
        return refusal(OpenError.BAD_BGP_ID, "the peer's BGP identifier is 0.0.0.0")
    if theirs.bgp_id == ours.bgp_id and config.kind is PeerKind.IBGP:
        own = format_router_id(ours.bgp_id)
        return refusal(OpenError.BAD_BGP_ID, f"the peer has our own BGP identifier {own}")
    if theirs.hold_time in (1, 2):
        return refusal(OpenError.HOLD_TIME, f"hold time {theirs.hold_time} is neither 0 nor at least 3")
    offered = families_of(theirs.capabilities)
    if not offered & ours.capabilities.families:
        wanted = sorted(ours.capabilities.families)
        text = f"no address family in common: we want {_names(wanted)}, the peer offers {_names(offered)}"
        missing = b"".join(bytes((1, 4, 0, family, 0, 1)) for family in wanted)
        return refusal(OpenError.CAPABILITY, text, missing)
    return None


def agree(config: PeerConfig, ours: Open, theirs: Open, ends: Endpoints) -> Negotiated:
    """What an acceptable pair of OPENs means from our side."""
    mine, other = ours.capabilities, theirs.capabilities
    families = mine.families & families_of(other)
    return Negotiated(
        kind=config.kind,
        local_asn=ours.asn,
        peer_asn=theirs.asn,
        peer_bgp_id=theirs.bgp_id,
        local_address=ends.local_address,
        peer_address=ends.peer_address,
        ifindex=ends.ifindex,
        hold_time=min(ours.hold_time, theirs.hold_time),
        families=families,
        four_octet=other.four_octet_asn is not None,
        extended_message=mine.extended_message and other.extended_message,
        extended_next_hop=families & mine.extended_next_hop & other.extended_next_hop,
        add_path_receive=families & mine.add_path_receive & other.add_path_send,
        add_path_send=families & mine.add_path_send & other.add_path_receive,
        route_refresh=mine.route_refresh and other.route_refresh,
        enhanced_route_refresh=mine.enhanced_route_refresh and other.enhanced_route_refresh,
        graceful_restart=other.graceful_restart if mine.graceful_restart else None,
        local_capabilities=mine,
        peer_capabilities=other,
    )


def families_of(capabilities: Capabilities) -> frozenset[Family]:
    """The families of an OPEN; without the multiprotocol capability that is IPv4 alone (RFC 4760)."""
    return capabilities.families or frozenset({Family.IPV4})


def keeps_paths(negotiated: Negotiated) -> bool:
    """Whether the peer asked for its paths to be kept over a restart, for any family of this session."""
    restart = negotiated.graceful_restart
    return restart is not None and any(family in negotiated.families for family, _ in restart.families)


def notification_is_graceful(negotiated: Negotiated) -> bool:
    """Whether both sides set the N bit: a NOTIFICATION other than a hard reset keeps paths (RFC 8538)."""
    ours, theirs = negotiated.local_capabilities.graceful_restart, negotiated.graceful_restart
    return ours is not None and theirs is not None and ours.notification and theirs.notification


def we_are_dominant(ours: Open, negotiated: Negotiated) -> bool:
    """Whether the connection that we opened survives a collision (RFC 4271 section 6.8, RFC 6286)."""
    return (ours.bgp_id, ours.asn) > (negotiated.peer_bgp_id, negotiated.peer_asn)


def _names(families: frozenset[Family] | list[Family]) -> str:
    return " and ".join(str(family) for family in sorted(families))
