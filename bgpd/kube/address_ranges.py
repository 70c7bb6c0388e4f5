"""Sets of addresses as spans: what pools hold, and where a service's address may lie.

Owns the arithmetic and nothing else.  Nothing here ever counts a span out: a /64 has 2^64 addresses and costs
as much as a /32.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from routes.prefix import Address, Prefix

Span = tuple[int, int]
"""First and last address, both in."""


def to_int(address: Address) -> int:
    return int.from_bytes(address, "big")


def to_address(value: int, size: int) -> Address:
    return Address(value.to_bytes(size, "big"))


def ends_of(prefix: Prefix) -> tuple[Address, Address]:
    """The first and the last address of a prefix."""
    size = len(prefix.address)
    last = to_int(prefix.address) | (1 << size * 8 - prefix.length) - 1
    return prefix.address, to_address(last, size)


class AddressRanges:
    """Addresses of both families, as disjoint spans that do not touch each other."""

    __slots__ = ("_firsts", "_spans")

    def __init__(self, ends: Iterable[tuple[Address, Address]] = ()) -> None:
        loose: dict[int, list[Span]] = {4: [], 16: []}
        for first, last in ends:
            loose[len(first)].append((to_int(first), to_int(last)))
        self._keep({size: _merged(spans) for size, spans in loose.items()})

    @classmethod
    def of_prefixes(cls, prefixes: Iterable[Prefix]) -> AddressRanges:
        return cls(map(ends_of, prefixes))

    def _keep(self, spans: dict[int, list[Span]]) -> None:
        self._spans = spans
        self._firsts = {size: [first for first, _ in each] for size, each in spans.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddressRanges) and self._spans == other._spans

    __hash__ = None  # type: ignore[assignment]  # a set of spans is no key

    def spans(self, size: int) -> list[Span]:
        """Those of the family whose addresses have `size` bytes, in order."""
        return self._spans[size]

    def span_of(self, value: int, size: int) -> Span | None:
        at = bisect_right(self._firsts[size], value)
        if at and value <= self._spans[size][at - 1][1]:
            return self._spans[size][at - 1]
        return None

    def __contains__(self, address: Address) -> bool:
        return self.span_of(to_int(address), len(address)) is not None

    def block(self, address: Address, length: int) -> Prefix:
        """The shortest prefix from `length` bits on that has the address and lies inside entirely."""
        size, value = len(address), to_int(address)
        span = self.span_of(value, size)
        bits = size * 8
        if span is not None:
            for host in range(bits - length, 0, -1):
                first = value >> host << host
                if span[0] <= first and first + (1 << host) - 1 <= span[1]:
                    return Prefix(to_address(first, size), bits - host)
        return Prefix(address, bits)

    def prefixes(self) -> tuple[Prefix, ...]:
        """The fewest prefixes that hold exactly these addresses."""
        return tuple(
            prefix
            for size, spans in self._spans.items()
            for span in spans
            for prefix in _prefixes(span, size)
        )

    def overlap(self, other: AddressRanges) -> Address | None:
        """The first address that is in both."""
        for size, spans in self._spans.items():
            for mine in spans:
                for theirs in other.spans(size):
                    if mine[0] <= theirs[1] and theirs[0] <= mine[1]:
                        return to_address(max(mine[0], theirs[0]), size)
        return None

    def without(self, other: AddressRanges) -> AddressRanges:
        """What is here and not there."""
        left = AddressRanges()
        left._keep(
            {
                size: [rest for span in spans for rest in _without(span, other.spans(size))]
                for size, spans in self._spans.items()
            }
        )
        return left


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _without(span: Span, holes: Iterable[Span]) -> Iterator[Span]:
    first, last = span
    for low, high in holes:
        if high < first or low > last:
            continue
        if low > first:
            yield first, low - 1
        first = high + 1
    if first <= last:
        yield first, last


def _prefixes(span: Span, size: int) -> Iterator[Prefix]:
    first, last = span
    while first <= last:
        # As long as alignment allows, and no longer than what is left.
        host = min(
            (first & -first).bit_length() - 1 if first else size * 8, (last - first + 1).bit_length() - 1
        )
        yield Prefix(to_address(first, size), size * 8 - host)
        first += 1 << host
