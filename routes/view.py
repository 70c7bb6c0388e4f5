"""What is shown of a path and of a kernel entry, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from routes.duplicates import Duplicate
from routes.path import Path, PathAttributes, PeerName
from routes.prefix import Address, Family, Prefix


class Table(Enum):
    """Which view of the routes is asked for."""

    ADJ_IN_PRE = "adj-in-pre"
    """Adj-RIB-In as received."""
    ADJ_IN_POST = "adj-in-post"
    """Adj-RIB-In after import policy: what it accepted."""
    LOC_RIB = "loc-rib"
    """What the decision process selected: best paths and those of equal cost, own prefixes included."""
    ADJ_OUT = "adj-out"
    """What each peer was told, as it was told."""
    FIB = "fib"
    """Kernel entries: wanted, present, or both."""


@dataclass(frozen=True, slots=True)
class PathView:
    """One path as the API shows it."""

    path: Path
    attributes: PathAttributes
    """After import policy, in the tables behind it; else as received."""
    accepted: bool
    rule: str
    """The name of the import rule that decided."""
    best: bool = False
    multipath: bool = False
    """Selected beside the best path as one of equal cost."""
    lost_at: str = ""
    """The decision step that removed it from consideration; empty when it is selected."""
    reason: str = ""
    """A sentence for a person: why it was refused, why it lost, or why it is unresolved."""
    stale: bool = False
    to: PeerName | None = None
    """Adj-RIB-Out: the peer that it is advertised to, or with a reason is not."""
    group: str = ""
    """Adj-RIB-Out of a reflector: the update group that is told."""
    members: int = 0
    """Of `group`, how many peers are told; 0 where `to` names one."""


@dataclass(frozen=True, slots=True)
class NextHopView:
    """One next hop of a kernel entry."""

    gateway: Address | None
    ifindex: int
    interface: str
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class FibView:
    """One kernel entry: wanted, present, or both."""

    nlri: Prefix
    next_hops: tuple[NextHopView, ...]
    """Empty: `unreachable`."""
    metric: int
    installed: bool
    """Whether the kernel has the entry as wanted."""
    held: bool = False
    """Kept although nothing wants it now (graceful restart)."""
    reason: str = ""
    """Why it is not in the kernel, in a sentence; empty when it is."""
    preferred_source: Address | None = None


class Match(Enum):
    """How a prefix selects others; each includes the prefix itself."""

    EXACT = "exact"
    LONGER = "longer"
    """What lies inside it."""
    SHORTER = "shorter"
    """What it lies inside."""
    LONGEST = "longest"
    """Of `SHORTER`, the longest that the table has: what a packet would take."""


@dataclass(frozen=True, slots=True)
class RouteQuery:
    """Which routes of one table are asked for; what is `None` selects everything."""

    table: Table
    peer: PeerName | None = None
    """Adj-RIB-In and Loc-RIB: received from it.  Adj-RIB-Out: advertised to it."""
    family: Family | None = None
    prefix: Prefix | None = None
    match: Match = Match.EXACT
    after: Prefix | None = None
    """Only what follows this prefix in the order of listings: IPv4 first, then by address and length."""

    def matches(self, nlri: Prefix) -> bool:
        """Whether family, prefix and `after` admit `nlri` (`LONGEST` counts as `SHORTER`)."""
        if self.family is not None and nlri.family is not self.family:
            return False
        if self.after is not None and (len(nlri.address), nlri) <= (len(self.after.address), self.after):
            return False
        if self.prefix is None:
            return True
        if self.match is Match.EXACT:
            return nlri == self.prefix
        if self.match is Match.LONGER:
            return self.prefix.contains(nlri)
        return nlri.contains(self.prefix)


@dataclass(frozen=True, slots=True)
class RouteChange:
    """The state of one prefix in a watched table after a change; without paths and entries it is gone."""

    nlri: Prefix
    paths: tuple[PathView, ...] = ()
    fib: tuple[FibView, ...] = ()


class Gate(Enum):
    """What a prefix passes on its way from a peer into the kernel, in this order."""

    ANNOUNCED = "announced"
    """Some peer, or this speaker, announces it."""
    IMPORT = "import"
    """Import policy accepts a path."""
    NEXT_HOP = "next-hop"
    """A next hop can be resolved."""
    SELECTED = "selected"
    """The decision process selects a path that is to be installed."""
    KERNEL = "kernel"
    """The kernel has the entry."""


class Told(NamedTuple):
    """What one update group of a reflector is told of a prefix: one path, or why it is not."""

    group: str
    source: PeerName
    """Whose path it is; `local` for an aggregate."""
    peers: int
    """How many peers of the group are told."""
    reason: str = ""
    """Why nobody is told, in a sentence."""
    not_back_to: tuple[PeerName, ...] = ()
    """Peers of the group that are not told, because the path comes from them."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why packets for a prefix or an address go where they go, or why they go nowhere."""

    target: Prefix
    """What was asked for; an address is a host prefix."""
    nlri: Prefix | None
    """What answers: the prefix itself, or for an address the longest selected one that covers it, or else
    the longest that any peer announced."""
    failed: Gate | None
    """The first gate that it fails; None when it passes all of them."""
    text: str
    """The answer in a sentence or two."""
    paths: tuple[PathView, ...] = ()
    """Every path to `nlri`, the selected ones first, the refused ones last."""
    fib: tuple[FibView, ...] = ()
    advertised_to: tuple[PeerName, ...] = ()
    more_specific: tuple[PathView, ...] = ()
    """For an address: paths to longer prefixes that cover it too and that were not selected."""
    told: tuple[Told, ...] = ()
    """Of a reflector: what each update group is told."""
    reflected: bool = False
    """A reflector's answer: it resolves no next hop and has no kernel entry, so those gates are none."""


class GroupView(NamedTuple):
    """One update group of a reflector: peers that are told the same bytes, from one log."""

    name: str
    family: Family
    role: str
    """Of its members: `client`, `non-client` or `external`."""
    members: int
    entries: int
    """Prefixes (with ADD-PATH: paths) that the log announces."""
    log_bytes: int
    withdrawals: int
    """In the log until the slowest member has passed them, at most."""
    lag: int
    """Messages that the slowest member is behind."""


class HostWarning(NamedTuple):
    """A setting of the host that harms routing."""

    subject: str
    value: str
    advice: str
    """The command that mends it."""


class TableCount(NamedTuple):
    """The size of one table and family."""

    table: Table
    family: Family
    prefixes: int
    paths: int


class FibCount(NamedTuple):
    """The kernel entries of one family."""

    family: Family
    wanted: int
    installed: int
    failed: int
    """Wanted, tried, and refused by the kernel or by a foreign entry in its place."""
    held: int


class Convergence(NamedTuple):
    """Whether the tables of all peers have been received since the start."""

    complete: bool
    at: float = 0
    """When it was complete: seconds since the epoch."""
    waiting_for: tuple[PeerName, ...] = ()
    """Peers whose End-of-RIB is still awaited."""
    held_until: float = 0
    """When held entries go, as far as is known: seconds since the epoch; 0 when nothing is held."""


class IntentStatus(NamedTuple):
    """How a daemon stands to the cluster that it takes its intent from."""

    stale: float = 0.0
    """Seconds since the API server was heard from; 0 while all is well."""
    malformed: int = 0
    """Objects that can't be read."""
    problems: int = 0
    """Objects that are not taken as they are written."""
    ready: bool | None = None
    """Whether the node takes pods; None where that is not this daemon's business."""
    warnings: tuple[HostWarning, ...] = ()
    """All of that in words."""


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The daemon as a whole."""

    version: str
    role: str
    """`agent` or `reflector`."""
    asn: int
    router_id: int
    started: float
    """Seconds since the epoch."""
    convergence: Convergence
    peers: int = 0
    peers_established: int = 0
    tables: tuple[TableCount, ...] = ()
    fib: tuple[FibCount, ...] = ()
    warnings: tuple[HostWarning, ...] = ()
    config_path: str = ""
    config_error: str = ""
    """Why the last reload was refused; empty when the file in use is the newest."""
    groups: tuple[GroupView, ...] = ()
    """Update groups, of a reflector."""
    duplicates: int = 0
    """Prefixes that more than one client announces."""
    first_duplicates: tuple[Duplicate, ...] = ()
    intent: IntentStatus | None = None
    """Of a daemon that follows Kubernetes, beside the API: its warnings are among `warnings`."""


class ShutdownReport(NamedTuple):
    """What leaving for good did."""

    sessions_closed: int
    entries_removed: int
    entries_left: int
    """Kernel entries of ours that stay."""
    errors: tuple[str, ...] = ()
