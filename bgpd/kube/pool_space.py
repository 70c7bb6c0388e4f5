"""The addresses of one pool: which are in use, and which is the next to give out.

An address that was given back is given out again as late as can be: first all that never were, then the one
that was given back first, so that late packets and stale DNS answers do not meet a stranger.  A range is
never listed: giving out of a /64 costs as much as of a /28, and memory grows with what is in use.
"""

from __future__ import annotations

from bgpd.kube.address_ranges import AddressRanges, Span, to_address, to_int
from bgpd.kube.custom_values import BgpAddressPool
from routes.prefix import Address

MOST_REMEMBERED = 4096
"""Addresses given back whose order is known; older ones count as never given out."""


def is_edge(value: int, size: int) -> bool:
    """Whether some old equipment takes the address for a network's or for a broadcast."""
    return size == 4 and value & 0xFF in {0, 0xFF}


def _edges_up_to(value: int) -> int:
    """How many IPv4 addresses up to this one are edges."""
    whole, rest = divmod(value + 1, 256)
    return 2 * whole + (rest > 0)


class PoolSpace:
    """One pool's addresses; both families have their own order."""

    def __init__(self, pool: BgpAddressPool, kept_out: AddressRanges) -> None:
        self.pool = pool
        self._ranges = AddressRanges(pool.ranges).without(kept_out)
        self._families = {
            size: _Sequence(self._ranges.spans(size), size, pool.avoid_edges) for size in (4, 16)
        }

    @property
    def name(self) -> str:
        return self.pool.name

    def is_of(self, pool: BgpAddressPool, kept_out: AddressRanges) -> bool:
        """Whether a pool still has these addresses; then it takes the pool's other fields as they are now."""
        ranges = AddressRanges(pool.ranges).without(kept_out)
        same = ranges == self._ranges and pool.avoid_edges == self.pool.avoid_edges
        if same:
            self.pool = pool
        return same

    @property
    def total(self) -> int:
        """Addresses that are given out without being asked for."""
        return sum(each.total for each in self._families.values())

    @property
    def used(self) -> int:
        """Addresses in use."""
        return sum(len(each.used) for each in self._families.values())

    def __contains__(self, address: Address) -> bool:
        return address in self._ranges

    def take(self, address: Address) -> None:
        """The address is in use; one of elsewhere does not matter."""
        if address in self._ranges:
            self._families[len(address)].take(to_int(address))

    def give_back(self, address: Address) -> None:
        """The address is in use no more."""
        if address in self._ranges:
            self._families[len(address)].give_back(to_int(address))

    def free(self, size: int) -> int:
        """How many addresses of this size are left to give out."""
        return self._families[size].free

    def has_family(self, size: int) -> bool:
        """Whether it gives out addresses of this size at all."""
        return self._families[size].total > 0

    def next(self, size: int) -> Address | None:
        """The one to give out next; taking it is another call."""
        value = self._families[size].next()
        return None if value is None else to_address(value, size)


class _Sequence:
    """One family of a pool."""

    __slots__ = ("_at", "_avoid", "_given_back", "_size", "_span", "_spans", "_used_edges", "total", "used")

    def __init__(self, spans: list[Span], size: int, avoid_edges: bool) -> None:
        self._spans, self._size = spans, size
        self._avoid = avoid_edges and size == 4
        self.used: set[int] = set()
        self._used_edges = 0
        self._given_back: dict[int, None] = {}
        """In the order of being given back."""
        self._span = 0
        self._at = spans[0][0] if spans else 0
        self.total = sum(last - first + 1 for first, last in spans)
        if self._avoid:
            self.total -= sum(_edges_up_to(last) - _edges_up_to(first - 1) for first, last in spans)

    @property
    def free(self) -> int:
        return self.total - len(self.used) + self._used_edges

    def _skipped(self, value: int) -> bool:
        return self._avoid and is_edge(value, self._size)

    def take(self, value: int) -> None:
        if value not in self.used:
            self.used.add(value)
            self._used_edges += self._skipped(value)
            self._given_back.pop(value, None)

    def give_back(self, value: int) -> None:
        if value not in self.used:
            return
        self.used.remove(value)
        if self._skipped(value):
            self._used_edges -= 1
            return
        self._given_back[value] = None
        if len(self._given_back) > MOST_REMEMBERED:
            del self._given_back[next(iter(self._given_back))]

    def next(self) -> int | None:
        free = self.free
        if free <= 0:
            return None
        if free <= len(self._given_back):
            return next(iter(self._given_back))
        # One that is neither in use nor given back exists, so this ends, and goes on from there next time.
        while self._at in self.used or self._at in self._given_back or self._skipped(self._at):
            self._step()
        return self._at

    def _step(self) -> None:
        if self._at < self._spans[self._span][1]:
            self._at += 1
            return
        self._span = (self._span + 1) % len(self._spans)
        self._at = self._spans[self._span][0]
