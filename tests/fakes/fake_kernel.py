"""A FAKE kernel: places for routes, with the rules of the real one that matter here, and faults on demand.

It stands for rtnetlink in tests of the pure core.  What it claims about Linux is proved against the real
one by tests/e2e/test_kernel.py: creating is exclusive, a replace takes whatever has the place, a removal
honours the protocol, others can change anything, and routes can go in silence.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from routes.fib import Applied, Delta, Failure, FibEntry, Found
from routes.prefix import Prefix


class Route(NamedTuple):
    """What is in a place."""

    protocol: int
    entry: FibEntry


class Event(NamedTuple):
    """A notification, in the words of `Fib.observed`."""

    nlri: Prefix
    entry: FibEntry | None
    protocol: int
    gone: FibEntry | None


class FakeKernel:
    """The places of one table and metric; `ours` is the protocol that `apply` uses."""

    def __init__(self, ours: int) -> None:
        self.ours = ours
        self.routes: dict[Prefix, Route] = {}
        self.events: list[Event] = []
        """Notifications that nobody has read yet."""
        self.refusals: dict[Prefix, Failure] = {}
        """Faults: what any operation on these prefixes is answered with."""
        self.taken_from_others: list[Prefix] = []
        """Places where a replace met a foreign route."""

    def entries(self) -> dict[Prefix, FibEntry]:
        """A dump of ours."""
        return {nlri: route.entry for nlri, route in self.routes.items() if route.protocol == self.ours}

    # What others do

    def put(self, nlri: Prefix, protocol: int, entry: FibEntry) -> None:
        """Somebody else's `ip route replace`."""
        self.routes[nlri] = Route(protocol, entry)
        self.events.append(Event(nlri, entry, protocol, None))

    def delete(self, nlri: Prefix) -> None:
        """Somebody else's `ip route del`."""
        route = self.routes.pop(nlri, None)
        if route is not None:
            self.events.append(Event(nlri, None, route.protocol, route.entry))

    def lose(self, nlri: Prefix) -> None:
        """A route of ours goes without a notification, as with a lost device."""
        if self.routes.get(nlri, Route(-1, FibEntry(()))).protocol == self.ours:
            del self.routes[nlri]

    # What we do

    def apply(self, delta: Delta) -> Applied:
        """As `bgpd.kernel.netlink.Kernel.apply`."""
        failed: dict[Prefix, Failure] = {}
        for nlri, entry in delta.create:
            self._do(failed, nlri, self._create(nlri, entry))
        for nlri, entry in delta.replace:
            self._do(failed, nlri, self._replace(nlri, entry))
        for nlri, _ in delta.remove:
            self._do(failed, nlri, self._remove(nlri))
        looked_at = [nlri for nlri, failure in failed.items() if failure.code == errno.EEXIST]
        return Applied(failed, {nlri: self._found(nlri) for nlri in (*looked_at, *delta.read)})

    def _do(self, failed: dict[Prefix, Failure], nlri: Prefix, code: int) -> None:
        if code:
            failed[nlri] = self.refusals.get(nlri, Failure(code, errno.errorcode[code]))

    def _create(self, nlri: Prefix, entry: FibEntry) -> int:
        if nlri in self.refusals:
            return self.refusals[nlri].code
        if nlri in self.routes:
            return errno.EEXIST
        self.routes[nlri] = Route(self.ours, entry)
        return 0

    def _replace(self, nlri: Prefix, entry: FibEntry) -> int:
        if nlri in self.refusals:
            return self.refusals[nlri].code
        if nlri not in self.routes:
            return errno.ENOENT
        if self.routes[nlri].protocol != self.ours:
            self.taken_from_others.append(nlri)
        self.routes[nlri] = Route(self.ours, entry)
        return 0

    def _remove(self, nlri: Prefix) -> int:
        if nlri in self.refusals:
            return self.refusals[nlri].code
        if nlri not in self.entries():
            return errno.ESRCH
        del self.routes[nlri]
        return 0

    def _found(self, nlri: Prefix) -> Found:
        route = self.routes.get(nlri)
        if route is None:
            return Found(None)
        return Found(route.entry) if route.protocol == self.ours else Found(None, route.protocol)
