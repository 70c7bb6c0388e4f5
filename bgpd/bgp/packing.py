"""UPDATEs as bytes: how many prefixes one message takes, and where they go.

Owns the sizes.  IPv4 prefixes with an IPv4 next hop travel in the classic fields, everything else in
MP_REACH_NLRI and MP_UNREACH_NLRI, which come first among the attributes and never share a message with
other prefixes.  Never knows what the attributes say: it is given their bytes.
RFC 4271 section 4.3, RFC 4760, RFC 7606 section 5.1, RFC 8654, RFC 8950.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from bgpd.bgp.errors7606 import EXTENDED_LENGTH, OPTIONAL, Attr
from bgpd.bgp.framing import EXTENDED_LIMIT, HEADER_SIZE, MARKER, STANDARD_LIMIT, UPDATE
from bgpd.bgp.nlri import UNICAST
from routes.path import PathAttributes
from routes.prefix import ADDRESS_SIZE, Family, Prefix

FIXED = HEADER_SIZE + 4
"""Header, and the two length fields of an UPDATE."""
ATTRIBUTE_HEADER = 4
UNREACH_HEADER = 3

_header = struct.Struct("!16sHBH").pack
"""Marker, length and type, and the length of the withdrawn routes."""
_LENGTHS = tuple(bytes((length,)) for length in range(129))
_OCTETS = tuple(length + 7 >> 3 for length in range(129))
"""By the length of a prefix, which is looked up once for each that is sent."""


def pack_prefixes(prefixes: Iterable[Prefix], family: Family) -> list[bytes]:
    """The NLRI of those prefixes that are of `family`."""
    size = ADDRESS_SIZE[family]
    return [
        _LENGTHS[length] + address[: _OCTETS[length]] for address, length in prefixes if len(address) == size
    ]


def pack_prefix(prefix: Prefix) -> bytes:
    """Its NLRI."""
    address, length = prefix
    return _LENGTHS[length] + address[: _OCTETS[length]]


def withdrawals(family: Family, pieces: Sequence[bytes]) -> Iterator[bytes]:
    """UPDATEs that withdraw these NLRI."""
    overhead = FIXED if family is Family.IPV4 else FIXED + ATTRIBUTE_HEADER + UNREACH_HEADER
    return (withdrawal(family, blob) for blob in _fill(pieces, STANDARD_LIMIT - overhead))


def withdrawal(family: Family, blob: bytes) -> bytes:
    """The UPDATE that withdraws all NLRI in `blob`, which must fit."""
    if family is Family.IPV4:
        size = len(blob)
        return _header(MARKER, FIXED + size, UPDATE, size) + blob + b"\0\0"
    unreach = _family_attribute(Attr.MP_UNREACH_NLRI, bytes((0, family, UNICAST)) + blob)
    return announcement(unreach, None, b"")


def reach_header(attributes: PathAttributes, family: Family) -> bytes | None:
    """What MP_REACH_NLRI has before its NLRI; None where the classic fields serve."""
    next_hop: bytes = attributes.next_hop
    if family is Family.IPV4 and len(next_hop) == 4:
        return None
    if attributes.link_local is not None:
        next_hop += attributes.link_local
    return bytes((0, family, UNICAST, len(next_hop))) + next_hop + b"\0"


def announcements(
    block: bytes, reach: bytes | None, pieces: Sequence[bytes], *, extended: bool
) -> list[bytes] | None:
    """UPDATEs that announce these NLRI; None when not even one fits beside the attributes.

    `block` holds all attributes but MP_REACH_NLRI.
    """
    overhead = FIXED + len(block) + (ATTRIBUTE_HEADER + len(reach) if reach else 0)
    least = overhead + max(map(len, pieces))
    limit = STANDARD_LIMIT if least <= STANDARD_LIMIT else EXTENDED_LIMIT
    if least > limit or (limit == EXTENDED_LIMIT and not extended):
        return None
    return [announcement(block, reach, blob) for blob in _fill(pieces, limit - overhead)]


def announcement(block: bytes, reach: bytes | None, blob: bytes) -> bytes:
    """The UPDATE that announces all NLRI in `blob`, which must fit."""
    if reach is not None:
        block = _family_attribute(Attr.MP_REACH_NLRI, reach + blob) + block
        blob = b""
    size = len(block)
    return _header(MARKER, FIXED + size + len(blob), UPDATE, 0) + size.to_bytes(2, "big") + block + blob


def _fill(pieces: Sequence[bytes], room: int) -> Iterator[bytes]:
    """The pieces joined to blobs of at most `room` bytes."""
    if 0 < sum(map(len, pieces)) <= room:
        yield b"".join(pieces)
        return
    blob: list[bytes] = []
    left = room
    for piece in pieces:
        if len(piece) > left:
            yield b"".join(blob)
            blob, left = [], room
        blob.append(piece)
        left -= len(piece)
    if blob:
        yield b"".join(blob)


def _family_attribute(code: Attr, value: bytes) -> bytes:
    if len(value) > 255:
        return bytes((OPTIONAL | EXTENDED_LENGTH, code)) + len(value).to_bytes(2, "big") + value
    return bytes((OPTIONAL, code, len(value))) + value
