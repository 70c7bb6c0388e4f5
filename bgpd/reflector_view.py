"""The reflector as the API and the metrics see it: what it passed on to whom, what not, and why.

With thousands of clients an answer must not grow with them: what a group is told is one row, and a peer's
own row is made when that peer is asked for.  Reasons are asked of the groups again, never stored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import ClassVar

from bgpd.bgp.update_group import UpdateGroup
from bgpd.bgp.update_groups import UpdateGroups
from bgpd.daemon import Daemon, PeerState
from bgpd.view import Facts, PrefixUnion, RoleView, Shutdown
from routes import explain as explaining
from routes.duplicates import Duplicates
from routes.loc_rib import Change
from routes.path import Path, PeerName
from routes.peer import PeerStatus, Reflection
from routes.prefix import Prefix
from routes.reflection import Role
from routes.view import (
    DaemonStatus,
    Explanation,
    FibCount,
    FibView,
    Gate,
    GroupView,
    Match,
    PathView,
    RouteQuery,
    Told,
)

DUPLICATES_SHOWN = 10
NOT_BACK = "a path is not sent back to the peer that it came from"
TOLD, NOT_TOLD = "reflected", "not-reflected"
"""What a path of Adj-RIB-Out has as its rule."""


class ReflectorView(RoleView):
    """What a reflector shows."""

    role: ClassVar[str] = "reflector"

    def __init__(
        self,
        daemon: Daemon,
        groups: UpdateGroups,
        duplicates: Duplicates,
        facts: Facts,
        shutdown: Shutdown,
    ) -> None:
        super().__init__(daemon, facts, shutdown)
        self._groups = groups
        self._duplicates = duplicates

    # -- what peers are told ----------------------------------------------------------------------

    def told(self, nlri: Prefix, peer: PeerName | None) -> Sequence[PathView]:
        """What each group is told of a prefix; for a peer, what it is told and what not, with the reason."""
        if peer is None:
            return [view for group in self._groups_for(nlri) for view in self._told_group(group, nlri)]
        group = self._groups.groups_of(peer).get(nlri.family)
        return [] if group is None else list(self._told_peer(group, nlri, peer))

    def known_out(self) -> Collection[Prefix]:
        """What anybody may be told: the Loc-RIB, and aggregates."""
        known = super().known_out()
        aggregates = list(chain.from_iterable(group.aggregates() for group in self._groups))
        return PrefixUnion(known, frozenset(aggregates)) if aggregates else known

    def _groups_for(self, nlri: Prefix) -> Iterator[UpdateGroup]:
        return (group for group in self._groups if group.key.family is nlri.family)

    def _offered(self, group: UpdateGroup, nlri: Prefix) -> Iterator[tuple[Path, str]]:
        """Each path that a group could be told, with the reason why it is not."""
        most = max(1, group.key.add_paths)
        aggregate = group.aggregate_of(nlri)
        for at, path in enumerate(self._daemon.rib.selected(nlri)):
            reason = group.why_refused(path)
            if not reason and aggregate is not None:
                reason = f"{aggregate} is announced in its place"
            if not reason and at >= most:
                reason = "only the best path" if most == 1 else f"only the {most} best paths"
                reason += " of a prefix may be announced to this group"
            yield path, reason
        own = group.aggregate(nlri)
        if own is not None:
            yield own, group.why_policies_refuse(own)

    def _told_group(self, group: UpdateGroup, nlri: Prefix) -> Iterator[PathView]:
        for path, reason in self._offered(group, nlri):
            told = len(group.members) - (path.source.peer in group.members)
            if told and not reason:
                yield replace(_view(group, path, ""), members=told)

    def _told_peer(self, group: UpdateGroup, nlri: Prefix, peer: PeerName) -> Iterator[PathView]:
        for path, reason in self._offered(group, nlri):
            why = NOT_BACK if path.source.peer == peer else reason
            yield replace(_view(group, path, why), to=peer)

    # -- explaining -------------------------------------------------------------------------------

    def explain(self, target: Prefix, match: Match) -> Explanation:
        """Why peers know of `target` what they know."""
        found = explaining.explain(self._daemon.rib, target, match, lambda _: ())
        told = tuple(self._answers(target if found.nlri is None else found.nlri))
        names = sorted(set(self._told_names(target if found.nlri is None else found.nlri)))
        found = replace(found, told=told, advertised_to=tuple(names), reflected=True)
        if found.nlri is None:
            return self._explain_aggregate(found) if told else found
        text = found.text
        if found.failed is Gate.KERNEL:
            found = replace(found, failed=None)
            text = f"{found.nlri} is selected, and {_peers(len(names))} told of it"
        twice = None if found.nlri is None else self._duplicates.of(found.nlri)
        if twice is not None:
            text += f"; more than one client announces it, {twice.first} and {twice.second} among them"
        return replace(found, text=text)

    @staticmethod
    def _explain_aggregate(found: Explanation) -> Explanation:
        count = len(found.advertised_to)
        text = f"{found.target} is an aggregate of clients' prefixes, and {_peers(count)} told of it"
        return replace(found, nlri=found.target, failed=None, text=text)

    def _answers(self, nlri: Prefix) -> Iterator[Told]:
        for group in self._groups_for(nlri):
            for path, reason in self._offered(group, nlri):
                source = path.source.peer
                own = (source,) if source in group.members else ()
                count = 0 if reason else len(group.members) - len(own)
                yield Told(group.name, source, count, reason, own)

    def _told_names(self, nlri: Prefix) -> Iterator[PeerName]:
        for group in self._groups_for(nlri):
            for path, reason in self._offered(group, nlri):
                if not reason:
                    yield from group.members - {path.source.peer}

    # -- no FIB -----------------------------------------------------------------------------------

    def fib(self, query: RouteQuery) -> Iterator[FibView | None]:  # noqa: ARG002  a reflector has no FIB
        """A reflector forwards nothing."""
        return iter(())

    def fib_counts(self) -> Iterable[FibCount]:
        """A reflector forwards nothing."""
        return ()

    # -- peers and the whole ----------------------------------------------------------------------

    def peer_status(self, state: PeerState) -> PeerStatus:
        """One peer, with its role, its groups, and how far behind it is."""
        config = state.config
        groups = self._groups.groups_of(config.name)
        reflection = Reflection(
            Role.of(config.kind, client=config.client).value,
            tuple((family, group.name) for family, group in groups.items()),
            self._groups.lag(config.name),
        )
        return replace(super().peer_status(state), reflection=reflection)

    def status(self, *, received: bool = True) -> DaemonStatus:
        """The daemon as a whole."""
        return replace(
            super().status(received=received),
            groups=tuple(map(_group, self._groups)),
            duplicates=len(self._duplicates),
            first_duplicates=self._duplicates.first(DUPLICATES_SHOWN),
        )

    # -- feeds ------------------------------------------------------------------------------------

    def changed(self, changes: Sequence[Change]) -> None:
        """The Loc-RIB changed, and with it what peers are told."""
        super().changed(changes)
        if self._told_feed:
            self.advertised(chain.from_iterable(self._told_otherwise(nlri) for nlri, _, _ in changes))

    def _told_otherwise(self, nlri: Prefix) -> Iterator[Prefix]:
        yield nlri
        for group in self._groups_for(nlri):
            aggregate = group.aggregate_of(nlri)
            if aggregate is not None:
                yield aggregate


def _view(group: UpdateGroup, path: Path, reason: str) -> PathView:
    told = path.attributes if reason else group.told(path)
    rule = NOT_TOLD if reason else group.deciding_rule(path) or TOLD
    shown = path._replace(attributes=told)
    return PathView(shown, told, not reason, rule, best=not reason, reason=reason, group=group.name)


def _group(group: UpdateGroup) -> GroupView:
    log = group.log
    return GroupView(
        group.name,
        group.key.family,
        group.key.role.value,
        len(group.members),
        log.size,
        log.held,
        log.withdrawals,
        log.next_seq - log.slowest(),
    )


def _peers(count: int) -> str:
    return f"{count} {'peer is' if count == 1 else 'peers are'}"
