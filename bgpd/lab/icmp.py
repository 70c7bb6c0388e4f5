"""ICMP echo (RFC 792, RFC 4443) as bytes: what a ping is made of.

Pure: no sockets.  Used by the proof, which pings hundreds of pairs at once from a single loop.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
_HEADER = struct.Struct("!BBHHH")


class Echo(NamedTuple):
    """The header of an echo request or reply."""

    kind: int
    identifier: int
    sequence: int


def echo_request(version: int, identifier: int, sequence: int) -> bytes:
    """An echo request without payload; the kernel fills in the checksum of an ICMPv6 one itself."""
    kind = ECHO_REQUEST[version]
    bare = _HEADER.pack(kind, 0, 0, identifier, sequence)
    return bare if version == 6 else _HEADER.pack(kind, 0, _checksum(bare), identifier, sequence)


def parse_echo(version: int, packet: bytes) -> Echo | None:
    """What a raw socket received, if it is an echo request or reply; IPv4 packets come with their header."""
    start = (packet[0] & 0x0F) * 4 if version == 4 and packet else 0
    if len(packet) < start + _HEADER.size:
        return None
    kind, _code, _sum, identifier, sequence = _HEADER.unpack_from(packet, start)
    if kind not in (ECHO_REQUEST[version], ECHO_REPLY[version]):
        return None
    return Echo(kind, identifier, sequence)


def _checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
