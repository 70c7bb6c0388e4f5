"""Who a Node is in BGP, and who claims to be the same: router IDs, and values that only one may hold.

A router ID (RFC 6286) must be unique in the AS.  A Node's is its first IPv4 address; where it has none, a
hash of its UID serves.  A reflector beside an agent always uses such a hash, since two speakers on one Node
need two.  Hashes can collide (with 5,000 Nodes, in one cluster of 340), so that collisions are looked for
here and reported, and never repaired by guessing.

This module must never talk to an API server, and nothing in it depends on time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from bgpd.kube.objects import Node
from routes.prefix import Family, Prefix

_V = TypeVar("_V", bound=Hashable)


def router_id_of(node: Node) -> int:
    """A Node's router ID: its first IPv4 address, or else one derived from its UID."""
    for address in node.addresses:
        if len(address) == 4:
            return int.from_bytes(address, "big")
    return derived_router_id(f"agent/{node.uid}")


def reflector_router_id_of(uid: str) -> int:
    """The router ID, and the cluster ID (RFC 4456), of a reflector on the Node or in the Pod of that UID."""
    return derived_router_id(f"reflector/{uid}")


def derived_router_id(name: str) -> int:
    """A router ID from a name: never zero, and the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") or 1


class Claims(Generic[_V]):
    """Who holds which values; `changed` costs as much as what changed, whatever the number of holders."""

    def __init__(self) -> None:
        self._of: dict[str, frozenset[_V]] = {}
        self._holders: dict[_V, set[str]] = {}

    def claim(self, holder: str, values: Iterable[_V]) -> set[str]:
        """Replace what `holder` holds (nothing: it is gone); everyone whose conflicts may have changed."""
        new, old = frozenset(values), self._of.get(holder, frozenset())
        touched = {holder}
        for value in old - new:
            holders = self._holders[value]
            touched |= holders
            holders.discard(holder)
            if not holders:
                del self._holders[value]
        for value in new - old:
            holders = self._holders.setdefault(value, set())
            touched |= holders
            holders.add(holder)
        if new:
            self._of[holder] = new
        else:
            self._of.pop(holder, None)
        return touched

    def conflicts(self, holder: str) -> list[tuple[_V, str]]:
        """What `holder` holds that others hold too, with their names, in order."""
        found = [
            (value, other)
            for value in self._of.get(holder, frozenset())
            for other in self._holders[value]
            if other != holder
        ]
        return sorted(found, key=lambda pair: (str(pair[0]), pair[1]))


class PrefixClaims:
    """Who holds which prefixes; one inside another's conflicts as much as the same one."""

    def __init__(self) -> None:
        self._of: dict[str, frozenset[Prefix]] = {}
        self._holders: dict[Prefix, set[str]] = {}
        self._lengths: Counter[tuple[Family, int]] = Counter()
        """How many are held of each length; in nearly every cluster there is one for each family."""

    def claim(self, holder: str, prefixes: Iterable[Prefix]) -> set[str]:
        """Replace what `holder` holds; everyone whose conflicts may have changed."""
        new, old = frozenset(prefixes), self._of.get(holder, frozenset())
        touched = {holder}
        for prefix in old - new:
            touched.update(*(self._holders[near] for near in self._overlapping(prefix)))
            holders = self._holders[prefix]
            holders.discard(holder)
            if not holders:
                del self._holders[prefix]
                self._lengths[prefix.family, prefix.length] -= 1
        for prefix in new - old:
            if prefix not in self._holders:
                self._holders[prefix] = set()
                self._lengths[prefix.family, prefix.length] += 1
            touched.update(*(self._holders[near] for near in self._overlapping(prefix)))
            self._holders[prefix].add(holder)
        if new:
            self._of[holder] = new
        else:
            self._of.pop(holder, None)
        return touched

    def conflicts(self, holder: str) -> list[tuple[Prefix, str, Prefix]]:
        """Each of `holder`'s prefixes that overlaps with one of others: the prefix, whose, and theirs."""
        found = [
            (prefix, other, near)
            for prefix in self._of.get(holder, frozenset())
            for near in self._overlapping(prefix)
            for other in self._holders[near]
            if other != holder
        ]
        return sorted(found, key=lambda found: (str(found[0]), found[1], str(found[2])))

    def _overlapping(self, prefix: Prefix) -> list[Prefix]:
        """Those held that contain `prefix`, or lie in it."""
        family = prefix.family
        lengths = {length for (of, length), held in self._lengths.items() if held and of is family}
        near = [wide for wide in prefix.covering() if wide.length in lengths and wide in self._holders]
        if any(length > prefix.length for length in lengths):  # rare: look at all
            near += [held for held in self._holders if held != prefix and prefix.contains(held)]
        return near
