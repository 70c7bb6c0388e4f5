"""What is known of a peer and of the session with it, as plain values that the API shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from routes.path import PeerKind, PeerName
from routes.prefix import Address, Family


class SessionState(Enum):
    """States of RFC 4271 section 8.2.2."""

    IDLE = "Idle"
    CONNECT = "Connect"
    ACTIVE = "Active"
    OPEN_SENT = "OpenSent"
    OPEN_CONFIRM = "OpenConfirm"
    ESTABLISHED = "Established"


@dataclass(frozen=True, slots=True)
class GracefulRestart:
    """The graceful restart capability (RFC 4724 section 3, RFC 8538)."""

    restart_time: int
    """Seconds, 0 to 4095."""
    restarting: bool = False
    """The R bit."""
    notification: bool = False
    """The N bit (RFC 8538)."""
    families: tuple[tuple[Family, bool], ...] = ()
    """Each family with its F (forwarding state preserved) bit."""

    def forwarding(self, family: Family) -> bool:
        """Whether the capability lists `family` with the F bit."""
        return (family, True) in self.families


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an OPEN advertises (RFC 5492)."""

    families: frozenset[Family] = frozenset()
    """Multiprotocol (RFC 4760); an OPEN without that capability means IPv4 alone."""
    four_octet_asn: int | None = None
    route_refresh: bool = False
    enhanced_route_refresh: bool = False
    extended_message: bool = False
    extended_next_hop: frozenset[Family] = frozenset()
    """NLRI families that may have an IPv6 next hop (RFC 8950)."""
    add_path_send: frozenset[Family] = frozenset()
    add_path_receive: frozenset[Family] = frozenset()
    graceful_restart: GracefulRestart | None = None
    unknown: tuple[int, ...] = ()
    """Codes that this speaker does not know."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both OPENs of a session agree on, from this speaker's side."""

    kind: PeerKind
    local_asn: int
    peer_asn: int
    peer_bgp_id: int
    local_address: Address
    peer_address: Address
    ifindex: int
    """The interface of a link-local or directly connected peer, else 0."""
    hold_time: int
    """Seconds; 0 means neither side sends keepalives."""
    families: frozenset[Family]
    four_octet: bool = True
    extended_message: bool = False
    extended_next_hop: frozenset[Family] = frozenset()
    add_path_receive: frozenset[Family] = frozenset()
    add_path_send: frozenset[Family] = frozenset()
    route_refresh: bool = False
    enhanced_route_refresh: bool = False
    graceful_restart: GracefulRestart | None = None
    """The peer's capability, when both sides sent one."""
    local_capabilities: Capabilities = field(default_factory=Capabilities)
    peer_capabilities: Capabilities = field(default_factory=Capabilities)


class LastError(NamedTuple):
    """Why the last session ended or could not be established, or what was wrong with an UPDATE since then."""

    text: str
    at: float
    """Seconds since the epoch."""
    sent: bool | None
    """True: we sent the NOTIFICATION; False: we received it; None: there was none (TCP, timer)."""
    code: int = 0
    subcode: int = 0


@dataclass(slots=True)
class Counters:
    """Messages since the daemon started."""

    messages_in: int = 0
    messages_out: int = 0
    updates_in: int = 0
    updates_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    flaps: int = 0
    """Times that an established session was lost."""


class FamilyCounts(NamedTuple):
    """Prefixes of one peer and family."""

    received: int
    accepted: int
    advertised: int
    stale: int = 0


class Reflection(NamedTuple):
    """What a peer is to a route reflector."""

    role: str
    """`client`, `non-client` or `external`."""
    groups: tuple[tuple[Family, str], ...] = ()
    """The update group of each family; none while the session is down."""
    lag: int = 0
    """Messages in the logs of its groups that were not sent to it yet, at most."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Everything that the API says of a peer, at one moment."""

    name: PeerName
    kind: PeerKind
    asn: int
    local_asn: int
    state: SessionState
    admin_down: bool = False
    local_address: Address | None = None
    peer_address: Address | None = None
    local_port: int = 0
    peer_port: int = 0
    bgp_id: int = 0
    hold_time: int = 0
    keepalive_time: float = 0
    hold_remaining: float = 0
    """Seconds until the hold timer fires; 0 when it does not run."""
    since: float = 0
    """When `state` was entered: seconds since the epoch."""
    next_connect: float = 0
    """Seconds until the next connection attempt; 0 when none is planned."""
    negotiated: Negotiated | None = None
    last_error: LastError | None = None
    counters: Counters = field(default_factory=Counters)
    families: tuple[tuple[Family, FamilyCounts], ...] = ()
    not_announced: tuple[tuple[Family, str], ...] = ()
    """Families without a usable next hop, each with the reason."""
    end_of_rib: tuple[Family, ...] = ()
    """Families whose End-of-RIB was received in this session."""
    passive: bool = False
    description: str = ""
    reflection: Reflection | None = None
    """None in an agent."""
