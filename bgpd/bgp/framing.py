"""Where a BGP message begins and ends in a byte stream, and when that can't be told any more.

Owns the 19-byte header of RFC 4271 section 4.1 and its errors (section 6.1), the larger limit of RFC 8654,
and the errors that end a session.  Never looks into a message's body, and never keeps state.
"""

from __future__ import annotations

from typing import Final

from bgpd.bgp.message import Malformed, Notification
from bgpd.bgp.notifications import Code

MARKER: Final = b"\xff" * 16
HEADER_SIZE: Final = 19
STANDARD_LIMIT: Final = 4096
EXTENDED_LIMIT: Final = 65535

OPEN: Final = 1
UPDATE: Final = 2
NOTIFICATION: Final = 3
KEEPALIVE: Final = 4
ROUTE_REFRESH: Final = 5

NOT_SYNCHRONIZED: Final = 1
BAD_LENGTH: Final = 2
BAD_TYPE: Final = 3

_LEAST = {OPEN: 29, UPDATE: 23, NOTIFICATION: 21, KEEPALIVE: 19, ROUTE_REFRESH: 19}
"""ROUTE-REFRESH has an error code of its own for its length (RFC 7313 section 5): the decoder looks at it."""
_MOST = {OPEN: STANDARD_LIMIT, KEEPALIVE: HEADER_SIZE}
"""Types that RFC 8654 does not extend."""


class SessionResetError(Exception):
    """The peer broke the protocol in a way that no milder answer covers; carries what to tell it."""

    def __init__(self, code: int, subcode: int, text: str, data: bytes = b"") -> None:
        super().__init__(text)
        # A NOTIFICATION is never extended to an old speaker, and quotes may be as long as the message.
        self.malformed = Malformed(Notification(code, subcode, data[: STANDARD_LIMIT - 21]), text)


def frame(kind: int, body: bytes) -> bytes:
    """A whole message."""
    return MARKER + (HEADER_SIZE + len(body)).to_bytes(2, "big") + bytes((kind,)) + body


def message_end(data: bytes | bytearray, start: int, limit: int) -> int:
    """Where the message ends whose header begins at `start`; raises when the header is wrong.

    The caller has at least `HEADER_SIZE` bytes there.  A wrong header is found before its body arrived,
    so that nothing larger than `limit` is ever waited for.
    """
    if data[start : start + 16] != MARKER:
        raise SessionResetError(Code.HEADER, NOT_SYNCHRONIZED, "the marker of a message is not all ones")
    raw_length = bytes(data[start + 16 : start + 18])
    length = int.from_bytes(raw_length, "big")
    kind = data[start + 18]
    if HEADER_SIZE <= length <= limit and kind not in _LEAST:
        raise SessionResetError(Code.HEADER, BAD_TYPE, f"message type {kind} is unknown", bytes((kind,)))
    least, most = _LEAST.get(kind, HEADER_SIZE), min(limit, _MOST.get(kind, limit))
    if not least <= length <= most:
        text = f"a message of type {kind} can't have {length} bytes"
        raise SessionResetError(Code.HEADER, BAD_LENGTH, text, raw_length)
    return start + length
