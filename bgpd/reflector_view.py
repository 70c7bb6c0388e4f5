"""The reflector as the API sees it: what it passed on to whom, what not, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from bgpd.bgp.update_groups import UpdateGroup, UpdateGroups
from bgpd.daemon import Daemon
from bgpd.view import Facts, RoleView, Shutdown
from routes import explain as explaining
from routes.duplicates import Duplicates
from routes.path import PeerName
from routes.prefix import Prefix
from routes.view import Explanation, FibCount, FibView, Gate, Match, PathView, RouteQuery

NOT_BACK = "a path is not sent back to the peer that it came from"


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

    def told(self, nlri: Prefix, peer: PeerName | None) -> Sequence[PathView]:
        """What each peer is told of a prefix; with a peer, also what it is not told, with the reason."""
        groups = [self._groups.groups_of(peer).get(nlri.family)] if peer else list(self._groups)
        views: list[PathView] = []
        for group in groups:
            if group is not None and group.key.family is nlri.family:
                views += self._told_group(group, nlri, peer)
        return views

    def _told_group(self, group: UpdateGroup, nlri: Prefix, peer: PeerName | None) -> Iterator[PathView]:
        for path in self._daemon.rib.selected(nlri)[: max(1, group.key.add_paths)]:
            refused = group.why_refused(path)
            told = path.attributes if refused else group.told(path)
            for name in (peer,) if peer else sorted(group.members):
                own = (
                    "a path is not sent back to the peer that it came from"
                    if path.source.peer == name
                    else ""
                )
                reason = own or refused
                if reason and peer is None:
                    continue
                shown = path._replace(attributes=told)
                yield PathView(shown, told, not reason, group.name, best=True, reason=reason, to=name)

    def fib(self, query: RouteQuery) -> Iterator[FibView | None]:  # noqa: ARG002  a reflector has no FIB
        """A reflector forwards nothing."""
        return iter(())

    def fib_counts(self) -> Iterable[FibCount]:
        """A reflector forwards nothing."""
        return ()

    def explain(self, target: Prefix, match: Match) -> Explanation:
        """Why clients know of `target` what they know."""
        found = explaining.explain(self._daemon.rib, target, match, lambda _: ())
        if found.nlri is None:
            return found
        told = tuple(view.to for view in self.told(found.nlri, None) if view.to is not None)
        if found.failed is not Gate.KERNEL:
            return replace(found, advertised_to=told)
        count = len(told)
        text = f"{found.nlri} is selected, and {count} {'peer is' if count == 1 else 'peers are'} told of it"
        return replace(found, failed=None, text=text, advertised_to=told)
