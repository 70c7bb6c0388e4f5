"""What is shown of a path and of a kernel entry, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from routes.path import Path, PathAttributes, PeerName
from routes.prefix import Address, Prefix


class Table(Enum):
    """Which view of the routes is asked for."""

    ADJ_IN_PRE = "adj-in-pre"
    """Adj-RIB-In as received."""
    ADJ_IN_POST = "adj-in-post"
    """Adj-RIB-In after import policy."""
    LOC_RIB = "loc-rib"
    ADJ_OUT = "adj-out"
    FIB = "fib"


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
    """Adj-RIB-Out: the peer that it is advertised to."""


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
