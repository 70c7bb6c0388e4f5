"""The optional parameters of an OPEN, down to single capabilities, and what a ROUTE-REFRESH holds.

Owns their framing and the errors in it.  Never reads what a capability says: the codec does.
RFC 4271 sections 4.2 and 6.2, RFC 5492 section 4, RFC 9072, RFC 2918, RFC 7313 section 5.
"""

from __future__ import annotations

from collections.abc import Iterator

from bgpd.bgp.framing import BAD_LENGTH, HEADER_SIZE, ROUTE_REFRESH, SessionResetError, frame
from bgpd.bgp.message import RefreshKind, RouteRefresh
from bgpd.bgp.nlri import UNICAST
from bgpd.bgp.notifications import Code, OpenError
from routes.peer import Negotiated
from routes.prefix import Family

_CAPABILITIES = 2
_EXTENDED = b"\xff"
_INVALID_LENGTH = 1


def broken_open(text: str) -> SessionResetError:
    """The error for an OPEN that can't be parsed; RFC 4271 section 6.2 has no subcode for it."""
    return SessionResetError(Code.OPEN, 0, text)


def capability_list(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Code and value of each capability; `data` begins with the length of the optional parameters."""
    wide = data[0] != 0 and data[1:2] == _EXTENDED
    size, start = (int.from_bytes(data[2:4], "big"), 4) if wide else (data[0], 1)
    if start + size != len(data):
        raise broken_open("the length of the optional parameters does not fit the OPEN")
    for kind, parameter in _tlvs(data[start:], 2 if wide else 1):
        if kind != _CAPABILITIES:
            text = f"optional parameter {kind} is not supported"
            raise SessionResetError(Code.OPEN, OpenError.OPTIONAL_PARAMETER, text)
        yield from _tlvs(parameter, 1)


def _tlvs(data: bytes, length_size: int) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        start = position + 1 + length_size
        end = start + int.from_bytes(data[position + 1 : start], "big")
        if start > len(data) or end > len(data):
            raise broken_open("an optional parameter of the OPEN is cut short")
        yield data[position], data[start:end]
        position = end


def decode_route_refresh(body: bytes, negotiated: Negotiated) -> RouteRefresh | None:
    """None: one that has to be ignored, for a subtype or a family that this session does not have.

    ExaBGP would end the session over an unknown subtype.
    """
    kind = body[2] if negotiated.enhanced_route_refresh and len(body) > 2 else RefreshKind.REQUEST
    if kind not in (RefreshKind.REQUEST, RefreshKind.BEGIN, RefreshKind.END):
        return None
    if len(body) != 4:
        length = HEADER_SIZE + len(body)
        text = f"a ROUTE-REFRESH can't have {length} bytes"
        if kind == RefreshKind.REQUEST:
            raise SessionResetError(Code.HEADER, BAD_LENGTH, text, length.to_bytes(2, "big"))
        raise SessionResetError(Code.REFRESH, _INVALID_LENGTH, text, frame(ROUTE_REFRESH, body))
    afi, safi = int.from_bytes(body[:2], "big"), body[3]
    if safi != UNICAST or afi not in negotiated.families:
        return None
    return RouteRefresh(Family(afi), kind)
