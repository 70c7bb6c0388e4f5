"""BGP messages as plain values (RFC 4271 section 4): what the codec makes of bytes, and bytes of.

One UPDATE on the wire can become several `Update` values: one for each family, next hop and path ID.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from routes.path import PathAttributes
from routes.peer import Capabilities
from routes.prefix import Family, Prefix


@dataclass(frozen=True, slots=True)
class Open:
    """OPEN.  `asn` is the four-octet number where the capability is present, else the two-octet field."""

    asn: int
    hold_time: int
    bgp_id: int
    capabilities: Capabilities


class Keepalive(NamedTuple):
    """KEEPALIVE."""


class Notification(NamedTuple):
    """NOTIFICATION (RFC 4271 section 4.5, RFC 9003 for the text of a Cease)."""

    code: int
    subcode: int = 0
    data: bytes = b""


class RefreshKind:
    """The subtype of ROUTE-REFRESH (RFC 7313 section 3)."""

    REQUEST = 0
    BEGIN = 1
    END = 2


class RouteRefresh(NamedTuple):
    """ROUTE-REFRESH (RFC 2918, RFC 7313)."""

    family: Family
    kind: int = RefreshKind.REQUEST


class EndOfRib(NamedTuple):
    """An UPDATE that says: the initial table of this family is complete (RFC 4724 section 2)."""

    family: Family


class Update(NamedTuple):
    """Paths announced and prefixes withdrawn; all of one family and one path ID."""

    attributes: PathAttributes | None
    """None when nothing is announced."""
    announced: tuple[Prefix, ...]
    withdrawn: tuple[Prefix, ...]
    path_id: int = 0
    error: str = ""
    """Why announced prefixes were turned into `withdrawn` (treat-as-withdraw) or an attribute was
    discarded (RFC 7606); empty for a sound UPDATE."""


class Malformed(NamedTuple):
    """Bytes that end the session: send this NOTIFICATION and close (RFC 4271 section 6)."""

    notification: Notification
    text: str


Message = Open | Keepalive | Notification | RouteRefresh | EndOfRib | Update | Malformed
