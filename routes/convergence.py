"""When the kernel entries adopted at start may go (RFC 4724 section 4.1, for the FIB).

An agent that restarts finds the entries of its previous life in the kernel.  They stay until every
configured peer has said End-of-RIB and a stated time has passed on top (FRR says it before its routes),
or until a deferral timer ends.  Time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from routes.path import PeerName
from routes.prefix import Family

NEVER = float("inf")


class InitialConvergence:
    """Counts the End-of-RIBs of the first convergence; tells when held entries are released."""

    def __init__(
        self, peers: Iterable[PeerName], started: float, hold_time: float, deferral_time: float
    ) -> None:
        self._waiting: dict[PeerName, frozenset[Family] | None] = dict.fromkeys(peers)
        """Families whose End-of-RIB is awaited; None: no session was established yet."""
        self._complete_at = started if not self._waiting else NEVER
        self._deadline = started + deferral_time
        self._hold_time = hold_time

    @property
    def waiting_for(self) -> tuple[PeerName, ...]:
        """Peers that have not said End-of-RIB for every family."""
        return tuple(self._waiting)

    def established(
        self, peer: PeerName, families: frozenset[Family], sends_end_of_rib: bool, now: float
    ) -> None:
        """A session is up.  A peer without graceful restart need not send End-of-RIB: it counts as said."""
        if peer in self._waiting:
            self._settle(peer, families if sends_end_of_rib else frozenset(), now)

    def end_of_rib(self, peer: PeerName, family: Family, now: float) -> None:
        """The initial table of one family of `peer` is complete."""
        left = self._waiting.get(peer)
        if left is not None:
            self._settle(peer, left - {family}, now)

    def removed(self, peer: PeerName, now: float) -> None:
        """The peer is no longer configured: nobody waits for it."""
        if peer in self._waiting:
            self._settle(peer, frozenset(), now)

    def _settle(self, peer: PeerName, left: frozenset[Family], now: float) -> None:
        if left:
            self._waiting[peer] = left
            return
        del self._waiting[peer]
        if not self._waiting:
            self._complete_at = min(self._complete_at, now)

    def release_at(self) -> float:
        """When held entries go, as far as is known now."""
        return min(self._complete_at + self._hold_time, self._deadline)
