"""Rules on prefixes and next hops that know no peer: what is never a destination, and what an entry admits.

`compile_prefixes` is what the hot path asks; a property test holds it to the plain rules.  Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import NamedTuple

from routes.prefix import Address, Prefix


class AllowEntry(NamedTuple):
    """`[import] allow`: admits `prefix` and what is more specific, with a length from `ge` to `le`.

    A default route (length 0) admits only itself, whatever `ge` and `le` say.
    """

    prefix: Prefix
    ge: int
    le: int


MARTIANS = tuple(
    Prefix.parse(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "fe80::/10",
        "ff00::/8",
    )
)
"""Never a destination.  The documentation ranges are not here: labs and tests are built of them."""

_IPV6_ZEROS = bytes(10)
_IPV6_MAPPED = bytes(10) + b"\xff\xff"
_IPV6_LOW = (bytes(16), bytes(15) + b"\x01")


def is_martian_next_hop(next_hop: Address, link_local: Address | None = None) -> bool:
    """Whether no packet can be sent there: 0/8, 127/8, 224/3 and their IPv6 kin.

    `::` is sound beside a link-local address, which then is the next hop (RFC 2545 section 3).
    """
    first = next_hop[0]
    if len(next_hop) == 4:
        return first in {0, 127} or first >= 224
    if first == 0xFF:
        return True
    if first or not next_hop.startswith(_IPV6_ZEROS):
        return False
    if next_hop in _IPV6_LOW:
        return link_local is None
    return next_hop.startswith(_IPV6_MAPPED)


class Range(NamedTuple):
    """The addresses of a prefix, as packed bytes: their order is numeric order."""

    low: bytes
    high: bytes

    @classmethod
    def of(cls, prefix: Prefix) -> Range:
        size = len(prefix.address)
        host = (1 << (size * 8 - prefix.length)) - 1
        return cls(prefix.address, (int.from_bytes(prefix.address, "big") | host).to_bytes(size, "big"))


def _without_nested(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Those that lie in no other: disjoint, in address order."""
    widest: list[Prefix] = []
    for prefix in sorted(prefixes):
        if not (widest and widest[-1].contains(prefix)):
            widest.append(prefix)
    return widest


def compile_prefixes(
    allow: Iterable[AllowEntry] | None, denied: Iterable[Prefix], size: int
) -> Callable[[Prefix], bool]:
    """A predicate for prefixes of one family: admitted by an entry, and not inside what is denied.

    With None nothing needs an entry.  `size`: bytes of the family's addresses.
    """
    if allow is None:
        entries = [(bytes(size), b"\xff" * size, 0, size * 8)]
    else:
        entries = [
            (*Range.of(prefix), max(ge, prefix.length), le) if prefix.length else (prefix[0], prefix[0], 0, 0)
            for prefix, ge, le in allow
            if len(prefix.address) == size
        ]
    # What no entry admits needs no second refusal: in practice one own prefix is left here.
    holes = _without_nested(
        prefix
        for prefix in denied
        if len(prefix.address) == size
        and any(low <= Range.of(prefix).high and prefix.address <= high for low, high, _, _ in entries)
    )
    lows = [hole.address for hole in holes]
    highs = [(Range.of(hole).high, hole.length) for hole in holes]

    def outside(nlri: Prefix) -> bool:
        at = bisect_right(lows, nlri[0])
        if not at:
            return True
        high, shortest = highs[at - 1]
        return nlri[0] > high or nlri[1] < shortest

    if allow is None:
        return outside

    def admits(nlri: Prefix) -> bool:
        address, length = nlri
        for low, high, ge, le in entries:
            if low <= address <= high and ge <= length <= le:
                return not lows or outside(nlri)
        return False

    return admits


def allowing(entries: Iterable[AllowEntry], nlri: Prefix) -> AllowEntry | None:
    """The first entry that admits a prefix."""
    for entry in entries:
        prefix, ge, le = entry
        if prefix.length == 0:
            ge = le = 0
        if prefix.contains(nlri) and ge <= nlri.length <= le:
            return entry
    return None
