"""What the state machine asks of the outside: values, in the order in which they are to be done."""

from __future__ import annotations

from typing import NamedTuple

from bgpd.bgp.message import EndOfRib, Keepalive, Notification, Open, RouteRefresh, Update
from routes.peer import Negotiated

RoutingMessage = Update | EndOfRib | RouteRefresh
"""What only an Established session carries."""


class OpenConnection(NamedTuple):
    """Open a TCP connection to the peer, then call `connected` or `failed`."""

    connection: int


class Transmit(NamedTuple):
    """Send a message."""

    connection: int
    message: Open | Keepalive | Notification


class CloseConnection(NamedTuple):
    """Close a TCP connection once what was transmitted is out; no event may follow from it."""

    connection: int


class SessionOpened(NamedTuple):
    """The session is Established."""

    connection: int
    negotiated: Negotiated


class Deliver(NamedTuple):
    """Messages of the Established session, in order."""

    messages: list[RoutingMessage]


class SessionClosed(NamedTuple):
    """The session was Established and is no more."""

    text: str
    notification: Notification | None
    sent: bool | None
    """True: we sent the NOTIFICATION; False: we received it; None: there was none."""
    graceful: bool
    """Whether the peer's paths may be kept as stale (RFC 4724 section 4.2, RFC 8538)."""


class AttemptFailed(NamedTuple):
    """A connection ended before it was Established."""

    text: str
    notification: Notification | None
    sent: bool | None


Action = OpenConnection | Transmit | CloseConnection | SessionOpened | Deliver | SessionClosed | AttemptFailed
