"""Desired against actual: which kernel entries have to be created, replaced and removed.

Owns, for one metric of ours, what the Loc-RIB wants in the kernel, what the kernel is known to have, and
why the two differ.  The delta is computed over the prefixes that something happened to, so that a change
costs the same in a table of ten or of a hundred thousand.

Three rules keep it honest.  "Actual" changes only by an acknowledgement, a dump or the monitor.  Only what
is known to be ours is replaced or removed; everything else is created exclusively, and a foreign route in
that place blocks the prefix.  One apply is in flight; what others change meanwhile is read afresh.

It must never touch the kernel, read a clock or resolve a next hop (`routes/next_hop.py` does).
RFC 4724 section 4.2 has a speaker keep forwarding across its restart: entries found at the start are
adopted and held, and so is what is withdrawn with `hold_until`.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import chain
from math import inf
from typing import NamedTuple

from routes.fib_entry import UNREACHABLE, FibEntry, Hop, protocol_name
from routes.prefix import Address, Prefix

__all__ = [
    "UNREACHABLE",
    "Applied",
    "Delta",
    "Failure",
    "Fib",
    "FibEntry",
    "FibState",
    "Found",
    "Hop",
]

FIRST_RETRY = 1.0
LAST_RETRY = 60.0
"""Seconds between attempts at what the kernel refuses: the first doubles up to the last."""

Items = list[tuple[Prefix, FibEntry]]


class Delta(NamedTuple):
    """What one apply has to do to the entries of one metric."""

    metric: int
    create: Items
    """Exclusively: it fails where anything else has the place."""
    replace: Items
    """What is known to be ours, with the new entry."""
    remove: Items
    """What is known to be ours, with the entry that goes."""
    read: tuple[Prefix, ...] = ()
    """Prefixes whose entry is to be read after the rest is done."""

    @property
    def size(self) -> int:
        """How many operations; 0 needs no apply."""
        return len(self.create) + len(self.replace) + len(self.remove) + len(self.read)


class Failure(NamedTuple):
    """What the kernel said to one operation."""

    code: int
    text: str


class Found(NamedTuple):
    """What was read in the place (prefix, table and metric) of an entry of ours."""

    entry: FibEntry | None
    """Ours."""
    foreign: int | None = None
    """The protocol of a foreign route; beside ours only where somebody prepended or appended one."""


NOTHING = Found(None)


class Applied(NamedTuple):
    """The outcome of a delta: what is neither failed nor found was acknowledged."""

    failed: Mapping[Prefix, Failure] = {}
    found: Mapping[Prefix, Found] = {}
    """For `Delta.read`, and where a create met something that exists."""


class FibState(NamedTuple):
    """One prefix: what is wanted, what the kernel has, and why they differ."""

    wanted: FibEntry | None
    actual: FibEntry | None
    held: bool
    """Kept although nothing wants it."""
    reason: str
    """A sentence; empty when wanted and actual are the same."""

    @property
    def installed(self) -> bool:
        """Whether the kernel has the entry as wanted."""
        return self.wanted is not None and self.wanted == self.actual


class _Blocked(NamedTuple):
    reason: str
    retry_at: float
    delay: float
    foreign: bool


def _common(few: Mapping[Prefix, object], many: Mapping[Prefix, object]) -> list[Prefix]:
    """The keys that both have, in order, for the price of the smaller."""
    if len(few) > len(many):
        few, many = many, few
    return [nlri for nlri in few if nlri in many]


class Fib:
    """The kernel entries of one metric: desired against actual.

    The caller takes the next piece of work from `delta`, applies it, and answers with `applied`; until
    then `delta` gives nothing more.
    """

    def __init__(self, metric: int, protocol: int) -> None:
        self.metric = metric
        self.protocol = protocol
        self.desired: dict[Prefix, FibEntry] = {}
        self.actual: dict[Prefix, FibEntry] = {}
        self._dirty: dict[Prefix, object] = {}
        """Prefixes to compare, in order of arrival; the values mean nothing."""
        self._queue: deque[Prefix] = deque()
        """Those that were to be compared before these, each once."""
        self._held: dict[Prefix, float] = {}
        self._held_deadline = inf
        self._adopted: dict[Prefix, object] = {}
        self._adopted_until = 0.0
        self._blocked: dict[Prefix, _Blocked] = {}
        self._retry_deadline = inf
        self._read: dict[Prefix, object] = {}
        self._in_flight: Delta | None = None
        self._touched: dict[Prefix, object] = {}
        """What the monitor or a dump reported while a delta was in flight."""

    # What is wanted

    def want(self, nlri: Prefix, entry: FibEntry | None, hold_until: float = 0.0) -> None:
        """Want this entry for the prefix, or with None no entry."""
        self.want_many({nlri: entry}, hold_until)

    def want_many(self, wanted: Mapping[Prefix, FibEntry | None], hold_until: float = 0.0) -> None:
        """Want these entries; those that become None stay in the kernel until `hold_until`."""
        gone = [nlri for nlri, entry in wanted.items() if entry is None]
        self.desired.update(wanted)  # type: ignore[arg-type]  # None goes again below: copying costs more
        for nlri in gone:
            del self.desired[nlri]
        self._dirty.update(wanted)
        for kept in (self._held, self._adopted):
            for nlri in _common(kept, wanted) if kept else ():
                if nlri in self.desired:
                    del kept[nlri]
        for nlri in _common(self._blocked, wanted) if self._blocked else ():
            if not self._blocked[nlri].foreign:
                del self._blocked[nlri]
        if hold_until:
            self._hold(gone, hold_until)

    def _hold(self, prefixes: Iterable[Prefix], until: float) -> None:
        for nlri in prefixes:
            if nlri in self.actual or self._in_flight is not None:
                self._held[nlri] = max(until, self._held.get(nlri, 0.0))
                self._held_deadline = min(self._held_deadline, until)

    # What the kernel has

    def adopt(self, entries: Mapping[Prefix, FibEntry], hold_until: float) -> None:
        """Take over what a dump at the start found; what nothing wants by `hold_until` goes then."""
        self._adopted = dict.fromkeys(nlri for nlri in entries if nlri not in self.desired)
        self._adopted_until = hold_until
        self.resynced(entries)

    def release_adopted(self, at: float) -> None:
        """Convergence is known to be complete: what is still only adopted goes at this time."""
        self._adopted_until = at

    def drop_held(self, prefixes: Iterable[Prefix]) -> int:
        """What is kept of these although nothing wants it goes with the next delta; how many that were."""
        dropped = [nlri for nlri in prefixes if nlri in self._held or nlri in self._adopted]
        for nlri in dropped:
            self._held.pop(nlri, None)
            self._adopted.pop(nlri, None)
            self._dirty[nlri] = None
        return len(dropped)

    def resynced(self, entries: Mapping[Prefix, FibEntry]) -> None:
        """Take a full dump of our entries as the truth."""
        desired = self.desired
        self.actual = actual = dict(entries)
        for nlri, entry in entries.items():
            wanted = desired.get(nlri)
            if wanted is not None and wanted == entry:
                actual[nlri] = wanted  # one object for each shape, whoever made it
            else:
                self._dirty[nlri] = None
        self._dirty.update(dict.fromkeys(nlri for nlri in desired if nlri not in actual))
        for kept in (self._held, self._adopted):
            for nlri in [nlri for nlri in kept if nlri not in actual]:
                del kept[nlri]
        if self._in_flight is not None:
            for items in (self._in_flight.create, self._in_flight.replace, self._in_flight.remove):
                self._touched.update(items)

    def observed(
        self, nlri: Prefix, entry: FibEntry | None, protocol: int, gone: FibEntry | None = None
    ) -> None:
        """The monitor saw somebody else change what is in our place.

        `entry` is what was put there, None for a removal; `gone` is what a removal took, which for IPv6
        may be only a part of an ECMP entry.
        """
        ours = protocol == self.protocol
        if not ours and nlri not in self.desired and nlri not in self.actual:
            return
        if self._in_flight is not None:
            self._touched[nlri] = None
        elif ours and entry is not None:
            if entry == self.desired.get(nlri):
                # Never taken on trust: a dump may have been read since it was said, and what is said late
                # and wrong is found out only where it leads to work.
                if entry != self.actual.get(nlri):
                    self._read[nlri] = None
                return
            self.actual[nlri] = entry
            self._dirty[nlri] = None
        elif ours and gone == self.actual.get(nlri):
            self._forget(nlri)
        elif nlri in self.actual:
            self._read[nlri] = None
        elif nlri in self._blocked:
            del self._blocked[nlri]
            self._dirty[nlri] = None

    def retry_blocked(self) -> None:
        """Links or addresses changed: what the kernel refused may work now."""
        for nlri in [nlri for nlri, blocked in self._blocked.items() if not blocked.foreign]:
            del self._blocked[nlri]
            self._dirty[nlri] = None

    def _forget(self, nlri: Prefix) -> None:
        """The kernel has no entry of ours for this prefix."""
        self.actual.pop(nlri, None)
        self._held.pop(nlri, None)
        self._adopted.pop(nlri, None)
        self._dirty[nlri] = None

    # From one to the other

    def delta(self, now: float, limit: int = 0) -> Delta:
        """What to do next, for at most `limit` prefixes; empty while an apply is in flight."""
        delta = Delta(self.metric, [], [], [], ())
        if self._in_flight is not None:
            return delta
        self._wake(now)
        desired, actual = self.desired.get, self.actual.get
        blocked, unread = self._blocked, self._read
        create = delta.create.append
        for nlri in self._take_dirty(limit):
            wanted, present = desired(nlri), actual(nlri)
            if unread and nlri in unread:
                continue  # what is there is not known: it is compared once it was read
            if blocked and nlri in blocked and not self._may_try(nlri, wanted, now):
                continue
            if wanted is None:
                if present is not None and nlri not in self._held and nlri not in self._adopted:
                    delta.remove.append((nlri, present))
            elif present is None:
                create((nlri, wanted))
            elif present != wanted:
                delta.replace.append((nlri, wanted))
            elif blocked:
                blocked.pop(nlri, None)
        if self._read:
            delta = delta._replace(read=tuple(self._read))
            self._read = {}
        if delta.size:
            self._in_flight = delta
        return delta

    def _may_try(self, nlri: Prefix, wanted: FibEntry | None, now: float) -> bool:
        blocked, present = self._blocked[nlri], nlri in self.actual
        if wanted is None and (blocked.foreign or not present):
            del self._blocked[nlri]  # removing honours the protocol, so a foreign route is safe from it
            return True
        if now < blocked.retry_at:
            return False
        if blocked.foreign and present:
            self._read[nlri] = None  # a replace would take the foreign route beside ours
            return False
        return True

    def _take_dirty(self, limit: int) -> Iterable[Prefix]:
        """The next prefixes to compare, each once.  What is left waits in a queue: it is long in a large
        load, and a dict whose first keys were removed is slow to begin with."""
        queue = self._queue
        if not limit or len(queue) < limit:
            waiting: dict[Prefix, object] = dict.fromkeys(chain(queue, self._dirty)) if queue else self._dirty
            self._queue, self._dirty = deque(), {}
            if not limit or len(waiting) <= limit:
                return waiting
            queue = self._queue = deque(waiting)
        return [queue.popleft() for _ in range(limit)]

    def _wake(self, now: float) -> None:
        """What was held or blocked until now is compared again."""
        if self._adopted and now >= self._adopted_until:
            self._dirty.update(self._adopted)
            self._adopted = {}
        if now >= self._held_deadline:
            for nlri in [nlri for nlri, until in self._held.items() if now >= until]:
                del self._held[nlri]
                self._dirty[nlri] = None
            self._held_deadline = min(self._held.values(), default=inf)
        if now >= self._retry_deadline:
            waiting = inf
            for nlri, blocked in self._blocked.items():
                if now >= blocked.retry_at:
                    self._dirty[nlri] = None
                else:
                    waiting = min(waiting, blocked.retry_at)
            self._retry_deadline = waiting

    def next_deadline(self) -> float:
        """When `delta` will have something to do that no event announces; infinity when never."""
        adopted = self._adopted_until if self._adopted else inf
        return min(adopted, self._held_deadline, self._retry_deadline)

    # What came of it

    def applied(self, applied: Applied, now: float) -> None:
        """The kernel's answers to the delta in flight."""
        delta, self._in_flight = self._in_flight, None
        if delta is None:
            raise RuntimeError("applied without a delta in flight")
        failed = applied.failed
        if failed:
            self._failed(delta, applied, now)
            done = [
                item for items in (delta.create, delta.replace) for item in items if item[0] not in failed
            ]
            self.actual.update(done)
        else:
            self.actual.update(delta.create)
            self.actual.update(delta.replace)
        for nlri, _ in delta.remove:
            if nlri not in failed:
                self.actual.pop(nlri, None)
        if self._blocked:
            for items in (delta.create, delta.replace, delta.remove):
                for nlri, _ in items:
                    if nlri not in failed:
                        self._blocked.pop(nlri, None)
        for nlri, found in applied.found.items():
            self._found(nlri, found, now)
        self._read.update(self._touched)
        self._touched = {}

    def _failed(self, delta: Delta, applied: Applied, now: float) -> None:
        known_ours = {nlri for items in (delta.replace, delta.remove) for nlri, _ in items}
        for nlri, failure in applied.failed.items():
            if nlri in known_ours and failure.code in (errno.ENOENT, errno.ESRCH):
                self._forget(nlri)
            elif applied.found.get(nlri, NOTHING) == NOTHING:
                self._block(nlri, failure.text, now, foreign=False)

    def _found(self, nlri: Prefix, found: Found, now: float) -> None:
        self._dirty[nlri] = None
        if found.entry is not None:
            self.actual[nlri] = found.entry
        elif nlri in self.actual:
            self._forget(nlri)
        if found.foreign is not None:
            reason = f"a route of protocol {protocol_name(found.foreign)} has this prefix, table and metric"
            self._block(nlri, reason, now, foreign=True)
        elif found.entry is not None:
            self._blocked.pop(nlri, None)

    def _block(self, nlri: Prefix, reason: str, now: float, *, foreign: bool) -> None:
        before = self._blocked.get(nlri)
        delay = min(before.delay * 2, LAST_RETRY) if before is not None else FIRST_RETRY
        self._blocked[nlri] = _Blocked(reason, now + delay, delay, foreign)
        self._retry_deadline = min(self._retry_deadline, now + delay)

    # What can be told of it

    @property
    def pending(self) -> bool:
        """Whether `delta` would have something to compare now, deadlines aside."""
        return bool(self._dirty or self._queue or self._read)

    @property
    def in_step(self) -> bool:
        """Whether the kernel has every entry as it is wanted, as far as is known."""
        actual = self.actual
        return all(actual.get(nlri) == entry for nlri, entry in self.desired.items())

    @property
    def held(self) -> int:
        """How many entries are kept although nothing wants them."""
        return len(self._held) + len(self._adopted)

    def held_prefixes(self) -> Collection[Prefix]:
        """What is kept although nothing wants it."""
        return self._held.keys() | self._adopted.keys()

    def depends_on(self, links: AbstractSet[int], addresses: AbstractSet[Address]) -> bool:
        """Whether any entry in the kernel leads over one of the links or prefers one of the addresses."""
        if not links and not addresses:
            return False
        shapes = {id(entry): entry for entry in self.actual.values()}
        return any(
            entry.preferred_source in addresses or any(hop.ifindex in links for hop in entry.hops)
            for entry in shapes.values()
        )

    def blocked(self) -> Mapping[Prefix, str]:
        """What can't be done, each with its reason."""
        return {nlri: blocked.reason for nlri, blocked in self._blocked.items()}

    def state(self, nlri: Prefix) -> FibState:
        """Whether the prefix is in the kernel as wanted, and otherwise why not."""
        wanted, actual = self.desired.get(nlri), self.actual.get(nlri)
        held = wanted is None and (nlri in self._held or nlri in self._adopted)
        reason = ""
        if wanted == actual:
            pass
        elif nlri in self._blocked:
            reason = self._blocked[nlri].reason
        elif held:
            reason = (
                "kept until the peers have sent their tables" if nlri in self._adopted else "kept as stale"
            )
        elif wanted is None:
            reason = "about to be removed"
        else:
            reason = "about to be installed" if actual is None else f"about to replace {actual}"
        return FibState(wanted, actual, held, reason)
