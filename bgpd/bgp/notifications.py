"""NOTIFICATION codes, and what each says to a person.

A session that ends without a sentence is the operator's lost evening, so every code has one here.  Text
from a peer (RFC 9003) is untrusted: it is cut, decoded leniently and stripped of control characters.
RFC 4271 section 4.5, RFC 4486 (Cease), RFC 6608 (FSM), RFC 8538 (hard reset), RFC 9003, RFC 9687.
"""

from __future__ import annotations

from enum import IntEnum

from bgpd.bgp.message import Notification


class Code(IntEnum):
    """Error codes."""

    HEADER = 1
    OPEN = 2
    UPDATE = 3
    HOLD_TIMER = 4
    FSM = 5
    CEASE = 6
    REFRESH = 7
    SEND_HOLD_TIMER = 8


class OpenError(IntEnum):
    """Subcodes of `Code.OPEN`."""

    VERSION = 1
    BAD_PEER_AS = 2
    BAD_BGP_ID = 3
    OPTIONAL_PARAMETER = 4
    HOLD_TIME = 6
    CAPABILITY = 7


class Cease(IntEnum):
    """Subcodes of `Code.CEASE`."""

    MAX_PREFIXES = 1
    ADMIN_SHUTDOWN = 2
    PEER_DECONFIGURED = 3
    ADMIN_RESET = 4
    CONNECTION_REJECTED = 5
    CONFIG_CHANGE = 6
    COLLISION = 7
    OUT_OF_RESOURCES = 8
    HARD_RESET = 9


_CODES = {
    Code.HEADER: "Message Header Error",
    Code.OPEN: "OPEN Message Error",
    Code.UPDATE: "UPDATE Message Error",
    Code.HOLD_TIMER: "Hold Timer Expired",
    Code.FSM: "Finite State Machine Error",
    Code.CEASE: "Cease",
    Code.REFRESH: "ROUTE-REFRESH Message Error",
    Code.SEND_HOLD_TIMER: "Send Hold Timer Expired",
}

_SUBCODES = {
    Code.HEADER: {1: "Connection Not Synchronized", 2: "Bad Message Length", 3: "Bad Message Type"},
    Code.OPEN: {
        1: "Unsupported Version Number",
        2: "Bad Peer AS",
        3: "Bad BGP Identifier",
        4: "Unsupported Optional Parameter",
        6: "Unacceptable Hold Time",
        7: "Unsupported Capability",
        11: "Role Mismatch",
    },
    Code.UPDATE: {
        1: "Malformed Attribute List",
        2: "Unrecognized Well-known Attribute",
        3: "Missing Well-known Attribute",
        4: "Attribute Flags Error",
        5: "Attribute Length Error",
        6: "Invalid ORIGIN Attribute",
        8: "Invalid NEXT_HOP Attribute",
        9: "Optional Attribute Error",
        10: "Invalid Network Field",
        11: "Malformed AS_PATH",
    },
    Code.FSM: {
        1: "Unexpected Message in OpenSent State",
        2: "Unexpected Message in OpenConfirm State",
        3: "Unexpected Message in Established State",
    },
    Code.CEASE: {
        1: "Maximum Number of Prefixes Reached",
        2: "Administrative Shutdown",
        3: "Peer De-configured",
        4: "Administrative Reset",
        5: "Connection Rejected",
        6: "Other Configuration Change",
        7: "Connection Collision Resolution",
        8: "Out of Resources",
        9: "Hard Reset",
        10: "BFD Down",
    },
    Code.REFRESH: {1: "Invalid Message Length"},
}

_TEXT_LIMIT = 255


def cease(subcode: Cease, text: str = "") -> Notification:
    """A Cease; `text` travels with a shutdown or reset (RFC 9003), cut to what fits."""
    if subcode not in (Cease.ADMIN_SHUTDOWN, Cease.ADMIN_RESET) or not text:
        return Notification(Code.CEASE, subcode)
    cut = text.encode()[:_TEXT_LIMIT].decode(errors="ignore").encode()
    return Notification(Code.CEASE, subcode, bytes((len(cut),)) + cut)


def hard_reset(notification: Notification) -> Notification:
    """`notification` in the wrapping that ends graceful restart with a peer that has the N bit (RFC 8538)."""
    inner = bytes((notification.code, notification.subcode)) + notification.data
    return Notification(Code.CEASE, Cease.HARD_RESET, inner)


def is_hard_reset(notification: Notification) -> bool:
    """Whether this is a Cease/Hard Reset."""
    return (notification.code, notification.subcode) == (Code.CEASE, Cease.HARD_RESET)


def unwrapped(notification: Notification) -> Notification:
    """What a hard reset carries; any other NOTIFICATION as it is."""
    if is_hard_reset(notification) and len(notification.data) >= 2:
        code, subcode, *_ = notification.data
        return Notification(code, subcode, notification.data[2:])
    return notification


def describe(notification: Notification) -> str:
    """`Cease/Administrative Shutdown (6/2): "new kernel"`."""
    inner = unwrapped(notification)
    known = Code(inner.code) if inner.code in _CODES else None
    code = _CODES[known] if known else "unknown code"
    subcodes = _SUBCODES.get(known, {}) if known else {}
    name = subcodes.get(inner.subcode, "unknown subcode" if inner.subcode else "")
    text = f"{code}{'/' if name else ''}{name} ({inner.code}/{inner.subcode})"
    if inner is not notification:
        text += ", as a hard reset"
    said = _shutdown_text(inner)
    return f'{text}: "{said}"' if said else text


def _shutdown_text(notification: Notification) -> str:
    """The RFC 9003 text of a Cease, made safe to print."""
    if notification.code != Code.CEASE or notification.subcode not in (
        Cease.ADMIN_SHUTDOWN,
        Cease.ADMIN_RESET,
    ):
        return ""
    length, text = notification.data[:1], notification.data[1:]
    decoded = text[: length[0]].decode(errors="replace") if length else ""
    return "".join(c if c.isprintable() else " " for c in decoded).strip()
