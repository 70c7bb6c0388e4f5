"""What an agent tells its peers: its own prefixes, and nothing else.

Owns, for each session that is up, the next hop that each family was announced with; so it knows what to
withdraw, what a refresh asks for, and what to say again when the node's addresses change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import structlog

from bgpd.bgp import codec
from bgpd.bgp.message import RefreshKind, RouteRefresh
from routes.adj_rib_out import Target, export
from routes.own_next_hop import ConfiguredNextHops, NodeAddresses, OwnNextHop, own_next_hop
from routes.path import PeerName
from routes.peer import Negotiated
from routes.prefix import Family, Prefix

log = structlog.get_logger()


class Sender(Protocol):
    """The part of a session that is needed here."""

    @property
    def name(self) -> PeerName: ...
    @property
    def negotiated(self) -> Negotiated | None: ...
    def send(self, data: bytes) -> None: ...


class OwnPrefixes:
    """The agent's Adj-RIB-Out (`bgpd.daemon.Outbound`)."""

    def __init__(self, node: NodeAddresses, configured: ConfiguredNextHops) -> None:
        self.configured = configured
        self.on_advertised: Callable[[Iterable[Prefix]], None] = lambda _: None
        """Called with the prefixes that some peer was told something new about."""
        self._node = node
        self._own: tuple[Prefix, ...] = ()
        self._told: dict[PeerName, tuple[Sender, dict[Family, OwnNextHop]]] = {}

    # -- sessions ---------------------------------------------------------------------------------

    def session_up(self, session: Sender, negotiated: Negotiated) -> None:
        """Announce everything, then End-of-RIB at once: an agent waits for nobody (RFC 4724 section 4.1)."""
        self._told[session.name] = (session, {})
        for family in sorted(negotiated.families):
            self._announce(session, negotiated, family, self._own)
            session.send(codec.encode_end_of_rib(family, negotiated))

    def session_down(self, name: PeerName) -> None:
        """The peer holds nothing of ours that we could change."""
        self._told.pop(name, None)

    def forget(self, name: PeerName) -> None:
        """The peer is configured no more: nothing is kept of it."""
        self.session_down(name)

    def refresh(self, name: PeerName, family: Family) -> None:
        """The peer asks for everything again (RFC 2918), with marks where it knows them (RFC 7313)."""
        for session, negotiated, _ in self._sessions(name):
            if family not in negotiated.families:
                continue
            marked = negotiated.enhanced_route_refresh
            if marked:
                session.send(codec.encode_route_refresh(RouteRefresh(family, RefreshKind.BEGIN)))
            self._announce(session, negotiated, family, self._own)
            if marked:
                session.send(codec.encode_route_refresh(RouteRefresh(family, RefreshKind.END)))

    def _sessions(
        self, only: PeerName | None = None
    ) -> Iterable[tuple[Sender, Negotiated, dict[Family, OwnNextHop]]]:
        for name, (session, told) in self._told.items():
            if session.negotiated is not None and only in (None, name):
                yield session, session.negotiated, told

    # -- what we have -----------------------------------------------------------------------------

    def originate(self, prefixes: Sequence[Prefix]) -> None:
        """Announce exactly these from now on."""
        before, self._own = self._own, tuple(prefixes)
        added = [nlri for nlri in self._own if nlri not in before]
        gone = [nlri for nlri in before if nlri not in self._own]
        for session, negotiated, told in self._sessions():
            for family in sorted(negotiated.families):
                self._withdraw(session, negotiated, family, gone)
                self._tell(session, negotiated, told.get(family), family, added)

    def addresses_changed(self) -> None:
        """Announce again where the next hop is another now."""
        for session, negotiated, told in self._sessions():
            for family in sorted(negotiated.families):
                self._tell(session, negotiated, told.get(family), family, ())

    def _tell(
        self,
        session: Sender,
        negotiated: Negotiated,
        before: OwnNextHop | None,
        family: Family,
        added: Sequence[Prefix],
    ) -> None:
        """Announce what is new, and everything when the next hop is another than `before`."""
        now = self._next_hop(negotiated, family)
        if now == before:
            self._announce(session, negotiated, family, added)
            return
        if now.address is None and before is not None and before.address is not None:
            self._withdraw(session, negotiated, family, self._own)
        self._announce(session, negotiated, family, self._own)

    def _next_hop(self, negotiated: Negotiated, family: Family) -> OwnNextHop:
        return own_next_hop(family, negotiated, self._node, self.configured)

    def _announce(
        self, session: Sender, negotiated: Negotiated, family: Family, prefixes: Iterable[Prefix]
    ) -> None:
        told = self._told[session.name][1]
        next_hop = told[family] = self._next_hop(negotiated, family)
        own = [nlri for nlri in prefixes if nlri.family is family]
        if not own:
            return
        if next_hop.address is None:
            log.warning("family not announced", peer=session.name, family=family, reason=next_hop.reason)
            return
        for message in codec.encode_updates(export(negotiated, next_hop), own, (), negotiated):
            session.send(message)
        self.on_advertised(own)

    def _withdraw(
        self, session: Sender, negotiated: Negotiated, family: Family, prefixes: Iterable[Prefix]
    ) -> None:
        gone = [nlri for nlri in prefixes if nlri.family is family]
        if gone:
            for message in codec.encode_updates(None, (), gone, negotiated):
                session.send(message)
            self.on_advertised(gone)

    # -- what can be told -------------------------------------------------------------------------

    def targets(self) -> list[Target]:
        """Every peer that is told something, for `routes.explain`."""
        return [Target(session.name, negotiated, told) for session, negotiated, told in self._sessions()]

    def advertised(self, name: PeerName, family: Family) -> int:
        """How many prefixes of a family the peer was told."""
        told = self._next_hops(name).get(family)
        if told is None or told.address is None:
            return 0
        return sum(nlri.family is family for nlri in self._own)

    def not_announced(self, name: PeerName) -> tuple[tuple[Family, str], ...]:
        """The families without a usable next hop on the peer's session, each with the reason."""
        told = sorted(self._next_hops(name).items())
        return tuple((family, ours.reason) for family, ours in told if ours.address is None)

    def _next_hops(self, name: PeerName) -> Mapping[Family, OwnNextHop]:
        found = self._told.get(name)
        return {} if found is None else found[1]
