"""One TCP connection as the state machine sees it, why one ends, and what that means for its paths.

Pure values and rules, for `fsm.py` alone: RFC 4724 section 4 and RFC 8538 section 3 say when a lost session
may keep its paths, and how a NOTIFICATION must be wrapped when it may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from bgpd.bgp.actions import Action, CloseConnection, Transmit
from bgpd.bgp.message import Notification, Open
from bgpd.bgp.negotiate import Endpoints, keeps_paths, notification_is_graceful
from bgpd.bgp.notifications import Cease, Code, cease, describe, hard_reset, is_hard_reset
from routes.peer import Negotiated, SessionState

_HARD = frozenset({Cease.MAX_PREFIXES, Cease.ADMIN_SHUTDOWN, Cease.PEER_DECONFIGURED})
"""Ceases of ours that must not leave our paths with the peer as stale (RFC 8538 section 3.1)."""


class End(NamedTuple):
    """Why a connection ends."""

    text: str
    notification: Notification | None = None
    sent: bool | None = None
    quiet: bool = False
    """Nothing failed: the loser of a collision, or a stop."""


@dataclass(slots=True, eq=False)
class Connection:
    """One TCP connection of a peer."""

    id: int
    incoming: bool
    began: float
    state: SessionState
    deadline: float
    """By state: the attempt's limit, the wait for OPEN, the hold timer."""
    ends: Endpoints | None = None
    ours: Open | None = None
    negotiated: Negotiated | None = None
    keepalive_at: float = inf
    send_hold_at: float = inf
    parked: bool = False
    """In OpenConfirm without our KEEPALIVE: it goes on only if the Established connection is lost."""
    heard: bool = False
    """The peer's KEEPALIVE came while parked."""


def stopped(notification: Notification | None) -> End:
    """The operator ended it."""
    if notification is None:
        return End("stopped by us, without a NOTIFICATION", quiet=True)
    return End(f"stopped by us with {describe(notification)}", notification, True, quiet=True)


def collision(text: str, subcode: Cease | None = Cease.COLLISION) -> End:
    """One of two connections goes, and nothing has failed."""
    return End(text, cease(subcode) if subcode else None, True if subcode else None, quiet=True)


def refuse(c: Connection, subcode: Cease) -> list[Action]:
    """Turn a new connection down."""
    return [Transmit(c.id, cease(subcode)), CloseConnection(c.id)]


def _is_hard(notification: Notification, sent: bool) -> bool:
    """Whether a NOTIFICATION between speakers with the N bit ends graceful restart."""
    if not sent:
        return is_hard_reset(notification)
    return notification.code == Code.CEASE and notification.subcode in (*_HARD, Cease.HARD_RESET)


def for_peer(notification: Notification, c: Connection) -> Notification:
    """The NOTIFICATION as it goes out: wrapped where the peer must drop our paths (RFC 8538)."""
    wraps = c.negotiated is not None and notification_is_graceful(c.negotiated)
    wraps = wraps and notification.code == Code.CEASE and notification.subcode in _HARD
    return hard_reset(notification) if wraps else notification


def graceful(negotiated: Negotiated, end: End) -> bool:
    """Whether this end lets the peer's paths be kept as stale."""
    if not keeps_paths(negotiated):
        return False
    if end.notification is None:
        return True
    return notification_is_graceful(negotiated) and not _is_hard(end.notification, bool(end.sent))
