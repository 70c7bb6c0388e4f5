"""Encodes what an update group is told: whole UPDATEs, each with the keys that went into it.

An update group is one family plus whatever changes bytes: 4-octet AS numbers, ADD-PATH, the kind of peer.
Messages stay within 4,096 bytes unless one path's attributes need more, so that extended messages
(RFC 8654) split no group; such a path reaches only a group whose members all take them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from bgpd.bgp.codec import pack_attributes
from bgpd.bgp.framing import UPDATE, frame
from bgpd.bgp.packing import announcement_bodies, pack_prefixes, reach_header, withdrawal_bodies
from routes.path import PathAttributes
from routes.peer import Negotiated
from routes.prefix import Family, Prefix

_ROOM = 4096 - 23
"""Bytes for attributes and NLRI in an UPDATE that has no withdrawn routes."""
_REACH_HEADER = 4

Key = Prefix | tuple[Prefix, int]
"""An NLRI, with ADD-PATH and its path ID."""
Encoded = list[tuple[bytes, Sequence[Key]]]


class GroupEncoder:
    """`bgpd.bgp.fanout.Encoder` for one family and what its members negotiated alike."""

    def __init__(self, family: Family, member: Negotiated) -> None:
        self._family = family
        self._kind = member.kind
        self._four_octet = member.four_octet
        self._add_path = family in member.add_path_send

    def announce(self, attributes: object, keys: Sequence[Key]) -> Encoded:
        """UPDATEs that announce `keys` with `attributes` (a `PathAttributes`).

        Attributes that fit no message of 4,096 bytes are announced to nobody: the keys are withdrawn, so
        that no peer keeps an older path.
        """
        path = cast("PathAttributes", attributes)
        reach = reach_header(path, self._family)
        block = pack_attributes(path, reach is None, self._four_octet, self._kind)
        room = _ROOM - len(block) - (_REACH_HEADER + len(reach) if reach else 0)
        encoded: Encoded = []
        for pieces, part in self._filled(keys, room):
            bodies = announcement_bodies(block, reach, pieces, extended=False)
            if bodies is None:
                encoded += self.withdraw(part)
            else:
                encoded += [(frame(UPDATE, body), part) for body in bodies]
        return encoded

    def withdraw(self, keys: Sequence[Key]) -> Encoded:
        """UPDATEs that withdraw `keys`."""
        room = _ROOM - _REACH_HEADER - 3
        return [
            (frame(UPDATE, body), part)
            for pieces, part in self._filled(keys, room)
            for body in withdrawal_bodies(self._family, pieces)
        ]

    def _filled(self, keys: Sequence[Key], room: int) -> Iterator[tuple[list[bytes], Sequence[Key]]]:
        """The NLRI of as many keys as have room in a message, and those keys."""
        if self._add_path:
            paths = cast("Sequence[tuple[Prefix, int]]", keys)
            pieces = pack_prefixes([nlri for nlri, _ in paths], self._family)
            pieces = [
                number.to_bytes(4, "big") + piece for (_, number), piece in zip(paths, pieces, strict=True)
            ]
        else:
            pieces = pack_prefixes(cast("Sequence[Prefix]", keys), self._family)
        sizes = list(map(len, pieces))
        if sum(sizes) <= room:
            yield pieces, keys
            return
        first, left = 0, room
        for at, size in enumerate(sizes):
            if size > left and at > first:
                yield pieces[first:at], keys[first:at]
                first, left = at, room
            left -= size
        yield pieces[first:], keys[first:]
