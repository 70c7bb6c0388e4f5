"""What an agent tells its peers: its own prefixes, and nothing else.

Owns, for each session that is up, how it was told (`routes.adj_rib_out.Target`): what the peer holds of us is
computed from that, never kept.  So whatever changes, our paths, their attributes, a policy, the node's
addresses, or that the node is being drained, the difference of two computations is what has to be said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from bgpd.bgp import codec
from bgpd.bgp.message import RefreshKind, RouteRefresh
from routes.adj_rib_out import Exporter, Target, exporter
from routes.own_next_hop import ConfiguredNextHops, NodeAddresses, own_next_hop
from routes.own_path import UNSPECIFIED, OwnPath, OwnPaths
from routes.path import PathAttributes, PeerName
from routes.peer import Negotiated
from routes.prefix import Family, Prefix
from routes.route_policy import Policies

log = structlog.get_logger()


class Sender(Protocol):
    """The part of a session that is needed here."""

    @property
    def name(self) -> PeerName: ...
    @property
    def negotiated(self) -> Negotiated | None: ...
    def send(self, data: bytes) -> None: ...


Own = dict[Prefix, PathAttributes]
"""What we originate; paths that are alike share one attributes object."""


@dataclass(slots=True)
class _Told:
    """A session, and how it was told what it was told."""

    session: Sender
    target: Target
    counts: dict[Family, int] = field(default_factory=dict)
    """How many prefixes of each family it holds."""


class _Difference:
    """What one session has to be told of one family."""

    def __init__(self) -> None:
        self.withdrawn: list[Prefix] = []
        self.announced: dict[int, tuple[PathAttributes, list[Prefix]]] = {}
        """By the identity of the attributes: one UPDATE takes all that share them."""
        self.more = 0
        """By how many the prefixes that the peer holds become more."""

    def note(self, nlri: Prefix, was: PathAttributes | None, now: PathAttributes | None) -> None:
        """The peer was told one thing, and is to be told another."""
        self.more += (now is not None) - (was is not None)
        if now is None:
            if was is not None:
                self.withdrawn.append(nlri)
        elif now != was:
            self.announced.setdefault(id(now), (now, []))[1].append(nlri)


class OwnPrefixes:
    """The agent's Adj-RIB-Out (`bgpd.daemon.Outbound`)."""

    patience = 0.0
    """What a node learns goes to its kernel at once."""

    def __init__(self, node: NodeAddresses, configured: ConfiguredNextHops) -> None:
        self.configured = configured
        """Next hops; a new value counts from the next `originate` or `addresses_changed`."""
        self.policies: Mapping[PeerName, Policies] = {}
        """Export policies of peers; a new value counts as that of `configured` does."""
        self.on_advertised: Callable[[Iterable[Prefix]], None] = lambda _: None
        """Called with the prefixes that some peer was told something new about."""
        self._node = node
        self._paths = OwnPaths()
        self._own: Own = {}
        self._alike: dict[OwnPath, PathAttributes] = {}
        """The attributes of each kind of path, by one without a prefix."""
        self._draining = False
        self._told: dict[PeerName, _Told] = {}

    # -- sessions ---------------------------------------------------------------------------------

    def session_up(self, session: Sender, negotiated: Negotiated) -> None:
        """Announce everything, then End-of-RIB at once: an agent waits for nobody (RFC 4724 section 4.1)."""
        told = self._told[session.name] = _Told(session, self._target(session.name, negotiated))
        tell = exporter(told.target)
        for family in sorted(negotiated.families):
            self._say_why_not(told.target, family)
            self._say_all(told, family, tell)
            session.send(codec.encode_end_of_rib(family, negotiated))

    def session_down(self, name: PeerName) -> None:
        """The peer holds nothing of ours that we could change."""
        self._told.pop(name, None)

    def forget(self, name: PeerName) -> None:
        """The peer is configured no more: nothing is kept of it."""
        self.session_down(name)

    def refresh(self, name: PeerName, family: Family) -> None:
        """The peer asks for everything again (RFC 2918), with marks where it knows them (RFC 7313)."""
        for told in self._sessions(name):
            session, negotiated = told.session, told.target.session
            if family not in negotiated.families:
                continue
            marked = negotiated.enhanced_route_refresh
            if marked:
                session.send(codec.encode_route_refresh(RouteRefresh(family, RefreshKind.BEGIN)))
            self._say_all(told, family, exporter(told.target))
            if marked:
                session.send(codec.encode_route_refresh(RouteRefresh(family, RefreshKind.END)))

    def _sessions(self, only: PeerName | None = None) -> Iterator[_Told]:
        for name, told in self._told.items():
            if told.session.negotiated is not None and only in (None, name):
                yield told

    def _target(self, name: PeerName, negotiated: Negotiated) -> Target:
        """How the peer is to be told now."""
        next_hops = {
            family: own_next_hop(family, negotiated, self._node, self.configured)
            for family in negotiated.families
        }
        return Target(name, negotiated, next_hops, self.policies.get(name, ()), self._draining)

    # -- what we have -----------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether everything is told as the last choice."""
        return self._draining

    @property
    def paths(self) -> tuple[OwnPath, ...]:
        """What is announced, as far as policies let it."""
        return tuple(self._paths.by_prefix.values())

    def originate(self, paths: Iterable[OwnPath]) -> None:
        """Announce exactly these from now on; withdrawals go first."""
        changed, gone = self._paths.replace(paths)
        was = {path.nlri: self._own.get(path.nlri) for path in (*gone, *changed)}
        for path in gone:
            del self._own[path.nlri]
        for path in changed:
            self._own[path.nlri] = self._attributes_of(path)
        self._tell_difference(was)

    def _attributes_of(self, path: OwnPath) -> PathAttributes:
        """One object for all that are alike."""
        key = path._replace(nlri=Prefix(UNSPECIFIED[path.nlri.family], 0), unreachable=True)
        attributes = self._alike.get(key)
        if attributes is None:
            if len(self._alike) > 2 * len(self._paths.by_prefix):
                self._alike.clear()
            attributes = self._alike[key] = path.attributes
        return attributes

    def drain(self, draining: bool) -> None:
        """Have everybody prefer other paths to ours, or no longer (RFC 8326); nothing is withdrawn."""
        self._draining = draining
        self._tell_difference({})

    def addresses_changed(self) -> None:
        """Announce again where the next hop is another now."""
        self._tell_difference({})

    def _tell_difference(self, before: Mapping[Prefix, PathAttributes | None]) -> None:
        """Tell everybody what differs from `before`, which has what changed, and from how they were told."""
        own = self._own
        for told in self._sessions():
            old, new = told.target, self._target(told.session.name, told.target.session)
            if old == new and not before:
                continue
            told.target = new
            was, now = exporter(old), exporter(new)
            differences = {family: _Difference() for family in sorted(new.session.families)}
            for nlri in before if old == new else {**own, **before}:
                difference = differences.get(nlri.family)
                if difference is not None:
                    new_attributes = own.get(nlri)
                    old_attributes = before.get(nlri, new_attributes)
                    difference.note(
                        nlri,
                        None if old_attributes is None else was(nlri, old_attributes),
                        None if new_attributes is None else now(nlri, new_attributes),
                    )
            for family in differences:
                if old.next_hops.get(family) != new.next_hops.get(family):
                    self._say_why_not(new, family)
            self._say(told, differences)

    # -- saying it --------------------------------------------------------------------------------

    def _say_all(self, told: _Told, family: Family, tell: Exporter) -> None:
        difference = _Difference()
        for nlri, attributes in self._own.items():
            if nlri.family is family:
                difference.note(nlri, None, tell(nlri, attributes))
        told.counts[family] = 0
        self._say(told, {family: difference})

    def _say(self, told: _Told, differences: Mapping[Family, _Difference]) -> None:
        """Send withdrawals, then announcements, as few UPDATEs as can be."""
        session, negotiated = told.session, told.target.session
        for family, difference in differences.items():
            told.counts[family] = told.counts.get(family, 0) + difference.more
            if difference.withdrawn:
                for message in codec.encode_updates(None, (), difference.withdrawn, negotiated):
                    session.send(message)
                self.on_advertised(difference.withdrawn)
        for difference in differences.values():
            for attributes, prefixes in difference.announced.values():
                for message in codec.encode_updates(attributes, prefixes, (), negotiated):
                    session.send(message)
                self.on_advertised(prefixes)

    def _say_why_not(self, target: Target, family: Family) -> None:
        """Log that a family can't be announced, if there is anything to announce."""
        next_hop = target.next_hops[family]
        if next_hop.address is None and any(nlri.family is family for nlri in self._own):
            log.warning("family not announced", peer=target.peer, family=family, reason=next_hop.reason)

    # -- what can be told -------------------------------------------------------------------------

    def targets(self) -> list[Target]:
        """Every peer that is told something, for `routes.explain`."""
        return [told.target for told in self._sessions()]

    def advertised(self, name: PeerName, family: Family) -> int:
        """How many prefixes of a family the peer was told."""
        told = self._told.get(name)
        return 0 if told is None else told.counts.get(family, 0)

    def not_announced(self, name: PeerName) -> tuple[tuple[Family, str], ...]:
        """The families without a usable next hop on the peer's session, each with the reason."""
        found = self._told.get(name)
        told = [] if found is None else sorted(found.target.next_hops.items())
        return tuple((family, ours.reason) for family, ours in told if ours.address is None)
