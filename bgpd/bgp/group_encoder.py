"""Encodes what an update group is told: whole UPDATEs, each with the keys that went into it.

An update group is one family plus whatever changes bytes: 4-octet AS numbers, ADD-PATH, the kind of peer.
Messages stay within 4,096 bytes unless one path's attributes need more, so that extended messages
(RFC 8654) split no group; such a path reaches only a group whose members all take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from bgpd.bgp.codec import pack_attributes
from bgpd.bgp.framing import STANDARD_LIMIT
from bgpd.bgp.packing import (
    ATTRIBUTE_HEADER,
    FIXED,
    UNREACH_HEADER,
    announcement,
    pack_prefix,
    pack_prefixes,
    reach_header,
    withdrawal,
)
from routes.path import PathAttributes
from routes.peer import Negotiated
from routes.prefix import Family, Prefix

_ROOM = STANDARD_LIMIT - FIXED
"""Bytes for attributes and NLRI in an UPDATE that has no withdrawn routes."""
_MOST_NLRI = 17
"""Bytes of one without ADD-PATH."""
_MEMORY = 4096
"""Attributes whose bytes are remembered; a full memory is emptied."""

Key = Prefix | tuple[Prefix, int]
"""An NLRI, with ADD-PATH and its path ID."""
Encoded = list[tuple[bytes, Sequence[Key]]]


class _Packed(NamedTuple):
    """Attributes, kept so that their identity stays theirs, as bytes."""

    attributes: PathAttributes
    reach: bytes | None
    """What MP_REACH_NLRI begins with, where it is needed."""
    block: bytes
    """All others."""
    room: int
    """Bytes that are left for NLRI."""


class GroupEncoder:
    """`bgpd.bgp.fanout.Encoder` for one family and what its members negotiated alike."""

    def __init__(self, family: Family, member: Negotiated) -> None:
        self._family = family
        self._kind = member.kind
        self._four_octet = member.four_octet
        self._add_path = family in member.add_path_send
        self._packed: dict[int, _Packed] = {}
        """By identity, which costs nothing beside a hash."""

    def announce(self, attributes: object, keys: Sequence[Key]) -> Encoded:
        """UPDATEs that announce `keys` with `attributes` (a `PathAttributes`).

        Attributes that fit no message of 4,096 bytes are announced to nobody: the keys are withdrawn, so
        that no peer keeps an older path.
        """
        _, reach, block, room = self._packed.get(id(attributes)) or self._pack(attributes)
        if len(keys) == 1 and not self._add_path and room >= _MOST_NLRI:  # as it is most often
            return [(announcement(block, reach, pack_prefix(keys[0])), keys)]  # type: ignore[arg-type]  # a prefix
        encoded: Encoded = []
        for blob, part in self._filled(keys, room):
            if len(blob) > room:
                encoded += self.withdraw(part)
            else:
                encoded.append((announcement(block, reach, blob), part))
        return encoded

    def _pack(self, attributes: object) -> _Packed:
        path = cast("PathAttributes", attributes)
        reach = reach_header(path, self._family)
        block = pack_attributes(path, reach is None, self._four_octet, self._kind)
        room = _ROOM - len(block) - (ATTRIBUTE_HEADER + len(reach) if reach else 0)
        if len(self._packed) >= _MEMORY:
            self._packed.clear()
        packed = self._packed[id(attributes)] = _Packed(path, reach, block, room)
        return packed

    def withdraw(self, keys: Sequence[Key]) -> Encoded:
        """UPDATEs that withdraw `keys`."""
        if len(keys) == 1 and not self._add_path:
            return [(withdrawal(self._family, pack_prefix(keys[0])), keys)]  # type: ignore[arg-type]  # a prefix
        return [
            (withdrawal(self._family, blob), part)
            for blob, part in self._filled(keys, _ROOM - ATTRIBUTE_HEADER - UNREACH_HEADER)
        ]

    def _filled(self, keys: Sequence[Key], room: int) -> Encoded:
        """The NLRI of as many keys as have room in a message, but of one at least, and those keys."""
        if self._add_path:
            paths = cast("Sequence[tuple[Prefix, int]]", keys)
            pieces = pack_prefixes([nlri for nlri, _ in paths], self._family)
            pieces = [
                number.to_bytes(4, "big") + piece for (_, number), piece in zip(paths, pieces, strict=True)
            ]
        else:
            pieces = pack_prefixes(cast("Sequence[Prefix]", keys), self._family)
        blob = b"".join(pieces)
        if len(blob) <= room:
            return [(blob, keys)] if keys else []  # an UPDATE without any would be an End-of-RIB
        filled: Encoded = []
        first, left = 0, room
        for at, piece in enumerate(pieces):
            if len(piece) > left and at > first:
                filled.append((b"".join(pieces[first:at]), keys[first:at]))
                first, left = at, room
            left -= len(piece)
        filled.append((b"".join(pieces[first:]), keys[first:]))
        return filled
