"""What the operator configured, as checked values.

`bgpd/config_file.py` reads TOML into these; nothing else makes them in the daemon.  Every field that a
file may omit has its default here, and docs/configuration.md documents each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from bgpd.errors import ConfigError
from routes.own_path import OwnPath
from routes.path import PeerKind, PeerName
from routes.policy import AllowEntry, MaxPrefixes
from routes.prefix import Address, Family, Prefix
from routes.route_policy import Policies, RoutePolicy

__all__ = [
    "AgentConfig",
    "AllowEntry",
    "ClientRange",
    "Config",
    "Endpoint",
    "ExportConfig",
    "FibConfig",
    "ImportConfig",
    "MaxPrefixes",
    "PeerConfig",
    "Problem",
    "ReflectorConfig",
    "SpeakerConfig",
    "wrong_role",
]


class Endpoint(NamedTuple):
    """An address and TCP port to listen on."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class SpeakerConfig:
    """`[speaker]`: who this BGP speaker is."""

    asn: int
    router_id: int
    listen: tuple[Endpoint, ...] = ()
    hold_time: int = 90
    """Seconds; 0 turns the hold timer off, else at least 3."""
    connect_retry: float = 5.0
    """Seconds before the first new attempt; doubles up to `connect_retry_max`, with jitter."""
    connect_retry_max: float = 60.0
    graceful_restart: bool = True
    restart_time: int = 120
    """Seconds, at most 4095: how long peers keep our paths while we are away."""


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What an update group's paths get on their way out; what is not set stays as it is."""

    local_pref: int | None = None
    """Only towards iBGP."""
    med: int | None = None
    prepend: int = 0
    """How often our own AS is prepended in addition; only towards eBGP."""
    add_communities: tuple[int, ...] = ()
    add_large_communities: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One `[[peers]]` entry."""

    name: PeerName
    """The address in its usual spelling, and the zone: `192.0.2.1`, `fe80::1%eth0`."""
    address: Address
    asn: int
    kind: PeerKind
    interface: str = ""
    """The zone of a link-local address."""
    port: int = 179
    source_address: Address | None = None
    password: str = field(default="", repr=False)
    """The content of `password_file`, without the final newline."""
    ttl_security: int = 0
    """Hops (RFC 5082): 0 is off, 1 a direct neighbour."""
    multihop: int = 0
    """TTL of outgoing packets for eBGP peers that are further away than one hop; 0: direct only."""
    passive: bool = False
    hold_time: int = 90
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    max_prefixes: MaxPrefixes | None = None
    allowas_in: int = 0
    """How often our own AS number may occur in an AS_PATH."""
    enforce_first_as: bool = True
    """An eBGP peer's paths begin with its own AS number; off for a route server."""
    add_path: bool = False
    """Ask the peer to send several paths for each prefix (RFC 7911, receive)."""
    graceful_restart: bool = True
    extended_next_hop: bool = True
    """Offer RFC 8950, so that IPv4 prefixes can have IPv6 next hops."""
    shutdown: bool = False
    """Keep the peer configured and its session down."""
    description: str = ""
    client: bool = False
    """A reflector's client (RFC 4456); else an iBGP peer is a non-client."""
    next_hop_self: bool = False
    """Announce a reflector's own address as next hop to this peer: only where its host forwards."""
    add_paths: int = 0
    """Paths for each prefix that a reflector sends with ADD-PATH; below 2 it is not offered."""
    export: ExportConfig = ExportConfig()
    import_policies: tuple[str, ...] = ()
    """Names of policies that are asked about what the peer announces, after all other rules."""
    export_policies: tuple[str, ...] = ()
    """Names of policies that are asked about what it is to be told."""
    range: str = ""
    """Of a reflector's clients, as text, for a peer that was made from it; it has no entry of its own."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """`[agent]`: what this node advertises."""

    advertise: tuple[OwnPath, ...] = ()
    drain: bool = False
    """Announce everything as the last choice (RFC 8326), so that the node can go without a loss."""
    next_hop_ipv4: Address | None = None
    """The node's own address for a family other than the session's; absent: found on the session's link."""
    next_hop_ipv6: Address | None = None


@dataclass(frozen=True, slots=True)
class ImportConfig:
    """`[import]`: nothing is accepted that no entry admits."""

    allow: tuple[AllowEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class FibConfig:
    """`[fib]`: which kernel entries are ours, and how they are made."""

    protocol: int = 179
    table: int = 254
    metric: int = 20
    unreachable_metric: int = 4278198272
    multipath: int = 16
    """The most next hops of one entry."""
    resolve_via_default: bool = False
    onlink: tuple[Prefix, ...] = ()
    """Next hops in these are taken to be on the session's link although no connected route covers them."""
    preferred_source_ipv4: Address | None = None
    preferred_source_ipv6: Address | None = None
    hold_time: float = 10.0
    """Seconds that held entries outlive the last End-of-RIB."""
    deferral_time: float = 180.0
    """Seconds after start (or a lost session) when held entries go, End-of-RIB or not."""


@dataclass(frozen=True, slots=True)
class ClientRange:
    """One `[[reflector.clients]]`: clients that need no entry of their own."""

    range: Prefix
    asn: int
    password: str = field(default="", repr=False)
    ttl_security: int = 0
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    hold_time: int = 90
    max_prefixes: MaxPrefixes | None = None
    """Of each client and family."""
    max_sessions: int = 8_000
    """Clients of this range at a time."""
    allow: tuple[AllowEntry, ...] | None = None
    """Prefixes that a client may announce; None: whatever is no martian and no loop."""
    add_paths: int = 0
    """Paths for each prefix that a client is sent with ADD-PATH (RFC 7911); below 2 it is not offered."""
    export: ExportConfig = ExportConfig()
    import_policies: tuple[str, ...] = ()
    export_policies: tuple[str, ...] = ()
    members: frozenset[Address] | None = None
    """The only addresses of the range that are admitted; None: all are."""


@dataclass(frozen=True, slots=True)
class ReflectorConfig:
    """`[reflector]`."""

    cluster_id: int
    clients: tuple[ClientRange, ...] = ()
    aggregates: tuple[Prefix, ...] = ()
    """Announced to eBGP peers instead of the clients' prefixes inside them, while there is any."""
    deferral_time: float = 120.0
    """Seconds after the start when End-of-RIB is sent, whoever is not back by then."""
    state_file: str = "/var/lib/podbgp/reflector.json"
    """The clients to wait for after a restart; empty: none are remembered."""


class Problem(NamedTuple):
    """Something in a configuration file that is wrong, or that is probably not meant."""

    file: str
    line: int
    """0 when no line can be named."""
    key: str
    """`peers[2].asn`; empty for the file as a whole."""
    value: str
    """As in the file, shortened; empty when there is none, or when it may be a secret."""
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.key} = {self.value}" if self.value else self.key
        return ": ".join(part for part in (where, what, self.text) if part)


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of one daemon: an agent, or with `reflector` a route reflector."""

    path: str
    speaker: SpeakerConfig
    agent: AgentConfig = AgentConfig()
    peers: tuple[PeerConfig, ...] = ()
    imports: ImportConfig = ImportConfig()
    fib: FibConfig = FibConfig()
    policies: tuple[RoutePolicy, ...] = ()
    reflector: ReflectorConfig | None = None
    api_listen: str = "unix:///run/podbgp/api.sock"
    metrics_listen: Endpoint | None = None
    log_level: str = "info"
    log_format: str = "auto"
    """`text`, `json`, or `auto`: text on a terminal."""
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    """What is valid but probably not meant; the daemon logs it."""

    @property
    def role(self) -> str:
        """`agent` or `reflector`: the command of `podbgpd` that runs this file."""
        return "agent" if self.reflector is None else "reflector"

    def named_policies(self, names: Iterable[str]) -> Policies:
        """The policies of these names; ConfigError when one is not there."""
        wanted = tuple(names)
        if not wanted:
            return ()
        known = {policy.name: policy for policy in self.policies}
        try:
            return tuple(known[name] for name in wanted)
        except KeyError as missing:
            raise ConfigError(f"{self.path}: there is no policy {missing}") from None


def wrong_role(config: Config, role: str) -> str:
    """Why `podbgpd ROLE` can't run this file, in a sentence; empty when it can."""
    if config.role == role:
        return ""
    has = (
        "has [reflector], so it is a reflector's"
        if config.reflector
        else "has no [reflector], so it is an agent's"
    )
    return f"{config.path}: {has}: run it with: podbgpd {config.role} --config {config.path}"
