"""Who may announce which pod prefix: the nodes of a cluster, with their prefixes and addresses.

A path inside the pod ranges is sound when its prefix is a node's, or lies inside it, and its next hop is one
of that node's addresses.  Anything else is a hijack, a mistake or a node that is gone.  What lies outside the
pod ranges is not judged here.  A prefix that several nodes have is nobody's: a packet can't go to both, and
which of them is right can't be known from here, so it is refused for all and told.  One inside which more
prefixes of nodes lie than there are of its own length is no claim at all: a Node with a whole pod range, by
mistake or malice, would take everybody else's pods off the network.

One node changes for a few dictionary operations, among 5,000 as among five.  This module keeps no paths:
whoever changes a node has `Rib.rejudge` look again at the prefixes that `set` and `remove` return.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from routes.prefix import Address, Prefix, format_address


class KnownNode(NamedTuple):
    """One node: what it may announce, and from where."""

    name: str
    prefixes: tuple[Prefix, ...]
    addresses: frozenset[Address]


class NodePrefixes:
    """The nodes, by what they may announce."""

    def __init__(self, pod_ranges: Iterable[Prefix], nodes: Iterable[KnownNode] = ()) -> None:
        self._ranges = _Nest()
        for pod_range in pod_ranges:
            self._ranges.add(pod_range, "")
        self._nodes: dict[str, KnownNode] = {}
        self._claimed = _Nest()
        """What Nodes say."""
        self._owners = _Nest()
        """The same without what is too wide."""
        self._inside: dict[Prefix, int] = {}
        """How many claimed prefixes lie inside one; those with none are left out, which is nearly all."""
        self._sorted: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        """First address and length of each claimed prefix, by the size of an address."""
        self._too_wide: set[Prefix] = set()
        for node in nodes:
            self.set(node)

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def nodes(self) -> tuple[KnownNode, ...]:
        """Those that are known."""
        return tuple(self._nodes.values())

    def set(self, node: KnownNode) -> frozenset[Prefix]:
        """Know a node, or know it better; the prefixes inside which verdicts may be others now."""
        before = self._nodes.get(node.name)
        if before == node:
            return frozenset()
        old = frozenset() if before is None else frozenset(before.prefixes)
        new = frozenset(node.prefixes)
        for prefix in old - new:
            self._give_up(prefix, node.name)
        for prefix in new - old:
            self._claim(prefix, node.name)
        self._nodes[node.name] = node
        moved = before is None or before.addresses != node.addresses
        return (old | new if moved else old ^ new) | self._look_at_widths()

    def remove(self, name: str) -> frozenset[Prefix]:
        """Forget a node; the prefixes inside which verdicts may be others now."""
        node = self._nodes.pop(name, None)
        if node is None:
            return frozenset()
        gone = frozenset(node.prefixes)
        for prefix in gone:
            self._give_up(prefix, name)
        return gone | self._look_at_widths()

    def _claim(self, prefix: Prefix, name: str) -> None:
        if prefix not in self._claimed:
            for wide in self._claimed.around(prefix):
                self._inside[wide] = self._inside.get(wide, 0) + 1
            if inside := self._count_inside(prefix):
                self._inside[prefix] = inside
            insort(self._sorted[len(prefix.address)], _place(prefix))
        self._claimed.add(prefix, name)
        if prefix not in self._too_wide:
            self._owners.add(prefix, name)

    def _give_up(self, prefix: Prefix, name: str) -> None:
        self._claimed.discard(prefix, name)
        self._owners.discard(prefix, name)
        if prefix in self._claimed:
            return
        self._inside.pop(prefix, None)
        places = self._sorted[len(prefix.address)]
        del places[bisect_left(places, _place(prefix))]
        for wide in self._claimed.around(prefix):
            self._inside[wide] -= 1
            if not self._inside[wide]:
                del self._inside[wide]

    def _count_inside(self, prefix: Prefix) -> int:
        """How many other claimed prefixes this one contains: in order they stand right behind it."""
        places, bits = self._sorted[len(prefix.address)], len(prefix.address) * 8
        first, length = _place(prefix)
        last = first | (1 << bits - length) - 1
        return bisect_right(places, (last, bits)) - bisect_right(places, (first, length))

    def _look_at_widths(self) -> frozenset[Prefix]:
        """Have only what is not too wide count; those that count now, or no longer."""
        if not self._inside and not self._too_wide:
            return frozenset()
        wide = {each for each, inside in self._inside.items() if inside > self._claimed.as_long_as(each)}
        turned = wide ^ self._too_wide
        self._too_wide = wide
        for prefix in turned:
            for name in self._claimed.names(prefix):
                (self._owners.discard if prefix in wide else self._owners.add)(prefix, name)
        return frozenset(turned)

    def why_refused(self, nlri: Prefix, next_hop: Address) -> str:
        """Why a path is not sound, in a sentence; empty when it is, or is not judged."""
        owners = self._owners.names_around(nlri)
        if len(owners) == 1 and next_hop in self._nodes[owners[0]].addresses:
            return ""  # nearly always, so that this is asked first
        if not self._ranges.any_around(nlri):
            return ""
        if not owners:
            return f"{nlri} lies in the pod ranges and belongs to no node{self._but_claimed(nlri)}"
        if len(owners) > 1:
            return f"{nlri} belongs to more than one node: {', '.join(owners)}"
        return (
            f"{nlri} belongs to node {owners[0]}, which does not have the next hop {format_address(next_hop)}"
        )

    def _but_claimed(self, nlri: Prefix) -> str:
        names = self._claimed.names_around(nlri)
        return f" ({', '.join(names)} has a podCIDR around those of many nodes)" if names else ""

    def orphans(self, prefixes: Collection[Prefix]) -> list[Prefix]:
        """Those that lie in the pod ranges and in no node's prefix."""
        return [
            nlri for nlri in prefixes if self._ranges.any_around(nlri) and not self._owners.any_around(nlri)
        ]


class _Nest:
    """Names by prefix, found by what lies inside.  It costs as many lookups as there are lengths."""

    def __init__(self) -> None:
        self._names: dict[Prefix, tuple[str, ...]] = {}
        self._lengths: dict[int, Counter[int]] = {4: Counter(), 16: Counter()}
        """How many prefixes there are of each length, by the size of an address."""

    def __contains__(self, prefix: object) -> bool:
        return prefix in self._names

    def names(self, prefix: Prefix) -> tuple[str, ...]:
        """Whose exactly this one is."""
        return self._names.get(prefix, ())

    def as_long_as(self, prefix: Prefix) -> int:
        """How many prefixes of this length and family there are."""
        return self._lengths[len(prefix.address)][prefix.length]

    def around(self, prefix: Prefix) -> list[Prefix]:
        """The other prefixes that contain this one."""
        shorter = (each for each in self._lengths[len(prefix.address)] if each < prefix.length)
        return [wide for wide in (cut(prefix, each) for each in shorter) if wide in self._names]

    def add(self, prefix: Prefix, name: str) -> None:
        names = self._names.get(prefix, ())
        if not names:
            self._lengths[len(prefix.address)][prefix.length] += 1
        if name not in names:
            self._names[prefix] = tuple(sorted((*names, name)))

    def discard(self, prefix: Prefix, name: str) -> None:
        left = tuple(each for each in self._names.get(prefix, ()) if each != name)
        if left:
            self._names[prefix] = left
        elif self._names.pop(prefix, None) is not None:
            lengths = self._lengths[len(prefix.address)]
            lengths[prefix.length] -= 1
            if not lengths[prefix.length]:
                del lengths[prefix.length]

    def any_around(self, nlri: Prefix) -> bool:
        """Whether any of the prefixes contains `nlri`."""
        return bool(self.names_around(nlri))

    def names_around(self, nlri: Prefix) -> tuple[str, ...]:
        """All names of prefixes that contain `nlri`, each once."""
        address, length = nlri
        found: tuple[str, ...] = ()
        for each in self._lengths[len(address)]:
            if each > length:
                continue
            names = self._names.get(nlri if each == length else cut(nlri, each))
            if names and names != found:
                found = tuple(sorted({*found, *names})) if found else names
        return found


def _place(prefix: Prefix) -> tuple[int, int]:
    return int.from_bytes(prefix.address, "big"), prefix.length


def cut(nlri: Prefix, length: int) -> Prefix:
    """The prefix of this length that contains `nlri`; `length` is at most its own."""
    if length == nlri.length:
        return nlri
    size = len(nlri.address)
    host = size * 8 - length
    value = int.from_bytes(nlri.address, "big") >> host << host
    return Prefix(Address(value.to_bytes(size, "big")), length)
