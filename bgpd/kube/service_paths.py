"""How service addresses become paths: what each advertisement says, and one path for each prefix.

Several advertisements may say something about one address, and several addresses may stand behind one prefix.
The rule is the same for both, and does not depend on an order: communities are united, the highest local
preference wins (one that is named over none), and a path is announced as going only when all behind it are.
Advertisements of different aggregation lengths make different prefixes, each with its own attributes.

Owns the counts that this takes, so that one change costs what it touches.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bgpd.kube.custom_values import BgpAdvertisement
from bgpd.kube.objects import Service
from routes.own_path import OwnPath
from routes.path import GRACEFUL_SHUTDOWN
from routes.prefix import Prefix

LEAST_PREFERRED = 0
"""The local preference of what is going (RFC 8326 section 4)."""
HIGHEST_MED = 0xFFFFFFFF
"""So that a router outside that knows no GRACEFUL_SHUTDOWN prefers other nodes of our AS all the same."""


class Terms(NamedTuple):
    """What one advertisement has a path say."""

    communities: tuple[int, ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    local_pref: int | None = None
    going: bool = False


Contribution = tuple[Prefix, Terms]


class Offer:
    """An advertisement, as this node uses it."""

    __slots__ = ("_lengths", "_scope", "_terms", "kinds", "name")

    def __init__(self, advertisement: BgpAdvertisement) -> None:
        self.name = advertisement.name
        self.kinds = advertisement.addresses
        self._scope = advertisement.scope
        self._lengths = {4: advertisement.length_ipv4, 16: advertisement.length_ipv6}
        communities = advertisement.communities
        staying = Terms(
            tuple(each for each in communities if isinstance(each, int)),
            tuple(each for each in communities if not isinstance(each, int)),
            advertisement.local_pref,
        )
        self._terms = (staying, staying._replace(going=True))

    def is_for(self, service: Service) -> bool:
        return self._scope.holds(service.namespace, service.labels)

    def length(self, size: int) -> int:
        """The aggregation length, by the size of an address."""
        return self._lengths[size]

    def terms(self, *, going: bool) -> Terms:
        return self._terms[going]


class Changes(NamedTuple):
    """What to announce (again, with other attributes) and what to withdraw, each in order."""

    announce: tuple[OwnPath, ...] = ()
    withdraw: tuple[Prefix, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.announce or self.withdraw)


NO_CHANGES = Changes()


class ServicePaths:
    """The paths announced, and how many contributions of which terms stand behind each."""

    def __init__(self) -> None:
        self.going = False
        """Everything is announced as going."""
        self.withdrawn = False
        """Nothing is announced, whatever stands behind it."""
        self._terms: dict[Prefix, dict[Terms, int]] = {}
        self._announced: dict[Prefix, OwnPath] = {}

    @property
    def announced(self) -> Mapping[Prefix, OwnPath]:
        return self._announced

    def replace(self, before: Iterable[Contribution], now: Iterable[Contribution]) -> Iterable[Prefix]:
        """Count what an address contributes instead of what it did; answers the prefixes to settle."""
        touched = []
        for prefix, terms in now:
            counts = self._terms.setdefault(prefix, {})
            counts[terms] = counts.get(terms, 0) + 1
            touched.append(prefix)
        for prefix, terms in before:
            counts = self._terms[prefix]
            counts[terms] -= 1
            if not counts[terms]:
                del counts[terms]
            if not counts:
                del self._terms[prefix]
            touched.append(prefix)
        return touched

    def settle(self, touched: Iterable[Prefix] | None = None) -> Changes:
        """Have what is announced follow the counts, for some prefixes or all."""
        announce: list[OwnPath] = []
        withdraw: list[Prefix] = []
        for prefix in sorted({*self._terms, *self._announced} if touched is None else set(touched)):
            before, now = self._announced.get(prefix), self._path(prefix)
            if now == before:
                continue
            if now is None:
                del self._announced[prefix]
                withdraw.append(prefix)
            else:
                self._announced[prefix] = now
                announce.append(now)
        return Changes(tuple(announce), tuple(withdraw))

    def _path(self, prefix: Prefix) -> OwnPath | None:
        behind = self._terms.get(prefix)
        if not behind or self.withdrawn:
            return None
        communities = {each for terms in behind for each in terms.communities}
        large = {each for terms in behind for each in terms.large_communities}
        local_pref = max((terms.local_pref for terms in behind if terms.local_pref is not None), default=None)
        med = None
        if self.going or all(terms.going for terms in behind):
            communities.add(GRACEFUL_SHUTDOWN)
            local_pref, med = LEAST_PREFERRED, HIGHEST_MED
        return OwnPath(prefix, False, tuple(sorted(communities)), tuple(sorted(large)), local_pref, med)
