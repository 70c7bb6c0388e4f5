"""Keeps the kernel's entries equal to what the Loc-RIB wants: the loop around the pure `Fib`.

Owns the resolver's snapshot of the kernel, the monitor socket, and the one apply that may be in flight.
It never decides what is ours or what is wanted.  Small deltas are applied in the event loop, since one
change costs tens of microseconds; large ones, and dumps, in one worker thread: netlink's `send` releases
the GIL, so that decoding and installing overlap, and one thread keeps commands in their order.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import NamedTuple, Protocol, TypeVar

import structlog

from bgpd.config import FibConfig
from bgpd.errors import KernelError
from bgpd.kernel.host_checks import Usage
from bgpd.kernel.monitor import (
    AddressesChanged,
    EntryChanged,
    ForeignRoutesChanged,
    KernelEvent,
    LinksChanged,
    Monitor,
    Overrun,
)
from bgpd.kernel.netlink import Flushed, KernelSnapshot, Surroundings
from bgpd.meters import Meters
from routes.fib import UNREACHABLE, Applied, Delta, Failure, Fib, FibEntry
from routes.loc_rib import Change
from routes.next_hop import ResolveOptions, Resolver, losses
from routes.own_path import OwnPath
from routes.path import Path, PeerKind
from routes.prefix import Address, Family, Prefix, family_of

log = structlog.get_logger()

Found = TypeVar("Found")

INLINE = 64
"""Operations that the event loop does itself: about 2 ms."""
BATCH = 4096
"""Prefixes of one apply: a bound on the time that making a delta takes from the loop."""
DEBOUNCE = 0.02
"""Seconds that changes of links, addresses and foreign routes are collected."""
MEMO_LIMIT = 200_000
"""Next hops whose resolution is remembered; a peer may invent them without end."""
FIRST_RETRY, LAST_RETRY = 1.0, 30.0


class KernelPort(Protocol):
    """What is needed of `bgpd.kernel.netlink.Kernel`; blocking, from one thread at a time."""

    def snapshot(self) -> KernelSnapshot: ...
    def surroundings(self) -> Surroundings: ...
    def apply(self, delta: Delta) -> Applied: ...
    def flush(self) -> Flushed: ...
    def monitor(self) -> Monitor: ...
    def close(self) -> None: ...


class _Shape(NamedTuple):
    """What a next hop means: its interior cost and kernel entry, both None when it is unresolved."""

    cost: int | None
    entry: FibEntry | None


UNRESOLVED = _Shape(None, None)

_Key = tuple[Address, Address | None, int]
"""Next hop, link-local next hop, link of the session."""


class FibSync:
    """The kernel side of an agent.  Everything but `_in_worker`'s calls runs in the event loop."""

    def __init__(self, kernel: KernelPort, config: FibConfig, meters: Meters) -> None:
        self.config = config
        self.learned = Fib(config.metric, config.protocol)
        self.own = Fib(config.unreachable_metric, config.protocol)
        self.on_next_hops: Callable[[set[Address] | None], None] = lambda _: None
        """Called with the next hops that resolve differently now, before anything is decided on them."""
        self.on_addresses: Callable[[], None] = lambda: None
        """Called when addresses of this node changed."""
        self.on_changed: Callable[[Iterable[Prefix]], None] = lambda _: None
        """Called with the prefixes whose kernel entry may have changed."""
        self.watched: Callable[[], bool] = lambda: False
        """Whether anybody wants `on_changed`."""
        self.verified = False
        """Whether the last dump showed every entry as it was wanted."""
        self.mended = 0
        """How often somebody else changed what is in our place."""
        self.error = ""
        """Why the kernel can't be reached, in a sentence; empty when all is well."""
        self.resolver = Resolver()
        self._addresses: dict[int, list[Address]] = {}
        self._interface_of: dict[Address, int] = {}
        self._kernel = kernel
        self._monitor: Monitor | None = None
        self._meters = meters
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, "kernel")
        self._shapes: dict[int, dict[_Key, _Shape]] = {4: {}, 16: {}}
        self._forgotten = False
        """Whether paths may exist whose next hop is not in `_shapes`."""
        self._run_planned = False
        self._busy = False
        self._waiting_since = inf
        self._timer: asyncio.TimerHandle | None = None
        self._refresh_timer: asyncio.TimerHandle | None = None
        self._full_dump_for = ""
        self._retry_after = FIRST_RETRY
        self._stopped = False

    # -- life -------------------------------------------------------------------------------------

    def start(self, hold_until: float) -> frozenset[Family]:
        """Adopt what is in the kernel; the families found there.  KernelError if it can't be read."""
        self._monitor = self._kernel.monitor()
        snapshot = self._kernel.snapshot()
        self._meters.kernel_resyncs["start"] += 1
        self._take_surroundings(snapshot)
        learned = snapshot.entries[self.learned.metric]
        self.learned.adopt(learned, hold_until)
        self.own.adopt(snapshot.entries[self.own.metric], 0.0)
        self._loop.add_reader(self._monitor.fileno(), self._on_kernel_events)
        self.plan_run()
        return frozenset(nlri.family for nlri in learned)

    def freeze(self) -> None:
        """Change the kernel no more, whatever happens: the daemon is ending."""
        self._stopped = True

    async def stop(self, *, flush: bool) -> Flushed | None:
        """Let go of the kernel, and with `flush` remove what is ours."""
        self._stopped = True
        for timer in (self._timer, self._refresh_timer):
            if timer is not None:
                timer.cancel()
        if self._monitor is not None:
            self._loop.remove_reader(self._monitor.fileno())
            self._monitor.close()
        try:
            return await self._loop.run_in_executor(self._worker, self._kernel.flush) if flush else None
        finally:
            self._worker.shutdown()
            self._kernel.close()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to apply and nothing in flight."""
        return not (self._busy or self._run_planned or self.learned.pending or self.own.pending)

    def verify(self) -> None:
        """Read the kernel back, for `verified`."""
        self._full_dump_for = self._full_dump_for or "verify"
        self._plan_refresh(0.0)

    def usage(self) -> Usage:
        """What the entries in the kernel use of this host, for its checks."""
        entries = set(self.learned.actual.values())
        hops = {hop for entry in entries for hop in entry.hops}
        neighbours = Counter(family_of(hop.gateway) for hop in hops if hop.gateway is not None)
        links = sorted({hop.ifindex for hop in hops} & self.resolver.links.keys())
        return Usage(
            families=frozenset(nlri.family for fib in (self.learned, self.own) for nlri in fib.actual),
            links=tuple(self.resolver.links[ifindex].name for ifindex in links),
            multipath=max((len(entry.hops) for entry in entries), default=0),
            next_hops=neighbours,
        )

    # -- what is wanted ---------------------------------------------------------------------------

    def originate(self, paths: Iterable[OwnPath]) -> None:
        """Have an `unreachable` entry for exactly those of our own paths that say so."""
        alone = [path.nlri for path in paths if path.unreachable]
        wanted: dict[Prefix, FibEntry | None] = dict.fromkeys(self.own.desired)
        wanted.update(dict.fromkeys(alone, UNREACHABLE))
        self.own.want_many(wanted)
        self.plan_run()

    def changed(self, changes: Sequence[Change], *, hold: bool) -> None:
        """Take the changes of the Loc-RIB (`ChangeSink`)."""
        wanted: dict[Prefix, FibEntry | None] = {}
        shapes, local = self._shapes, PeerKind.LOCAL
        for nlri, _, after in changes:
            if len(after) == 1:
                _, attributes, source, _ = after[0]
                shape = shapes[len(nlri[0])].get((attributes.next_hop, attributes.link_local, source.ifindex))
                if shape is not None and source.kind is not local:
                    wanted[nlri] = shape.entry
                    continue
            wanted[nlri] = self._entry(nlri, after)
        now = self._loop.time()
        self.learned.want_many(wanted, now + self.config.hold_time if hold else 0.0)
        self._waiting_since = min(self._waiting_since, now)
        self.plan_run()

    def _entry(self, nlri: Prefix, selected: tuple[Path, ...]) -> FibEntry | None:
        if not selected or selected[0].source.kind is PeerKind.LOCAL:
            return None
        entries = [self._shape_of(path).entry for path in selected]
        if len(entries) == 1:
            return entries[0]
        hops = dict.fromkeys(hop for entry in entries if entry is not None for hop in entry.hops)
        if not hops:
            return None
        return FibEntry.of(list(hops)[: self.config.multipath], self._preferred_source(len(nlri.address)))

    def _preferred_source(self, size: int) -> Address | None:
        return self.config.preferred_source_ipv4 if size == 4 else self.config.preferred_source_ipv6

    # -- next hops --------------------------------------------------------------------------------

    def cost(self, path: Path) -> int | None:
        """The interior cost of a path's next hop; None when it is unresolved (`routes.decision.Cost`)."""
        return self._shape_of(path).cost

    def why_unresolved(self, path: Path) -> str:
        """Why the next hop of a path can't be used, in a sentence."""
        attributes = path.attributes
        return self.resolver.resolve(attributes.next_hop, attributes.link_local, path.source.ifindex).reason

    def _shape_of(self, path: Path) -> _Shape:
        nlri, attributes, source, _ = path
        size = len(nlri.address)
        shapes = self._shapes[size]
        key = (attributes.next_hop, attributes.link_local, source.ifindex)
        shape = shapes.get(key)
        if shape is None:
            if len(shapes) >= MEMO_LIMIT:
                shapes.clear()
                self._forgotten = True
            shape = shapes[key] = self._resolved(key, size)
        return shape

    def _resolved(self, key: _Key, size: int) -> _Shape:
        hops, cost, _ = self.resolver.resolve(*key)
        if not hops:
            return UNRESOLVED
        return _Shape(cost, FibEntry.of(hops[: self.config.multipath], self._preferred_source(size)))

    def interface_of(self, address: Address) -> int:
        """The interface that holds an address; 0 when none does."""
        return self._interface_of.get(address, 0)

    def addresses_on(self, ifindex: int) -> tuple[Address, ...]:
        """The addresses of an interface, in the kernel's order."""
        return tuple(self._addresses.get(ifindex, ()))

    @property
    def own_addresses(self) -> frozenset[Address]:
        """Every address of this node."""
        return frozenset(self._interface_of)

    def _take_surroundings(self, found: KernelSnapshot | Surroundings) -> Resolver:
        """Resolve in this snapshot from now on; the one that was used until now."""
        options = ResolveOptions(self.config.resolve_via_default, self.config.onlink)
        old, self.resolver = self.resolver, Resolver(found.links, found.addresses, found.routes, options)
        self._addresses = {}
        for ifindex, address, _ in found.addresses:
            self._addresses.setdefault(ifindex, []).append(address)
        self._interface_of = {address: ifindex for ifindex, address, _ in reversed(found.addresses)}
        return old

    def options_changed(self, config: FibConfig) -> None:
        """Take changed `[fib]` settings."""
        self.config = config
        self._plan_refresh()

    # -- applying ---------------------------------------------------------------------------------

    def release_held(self, at: float) -> None:
        """Adopted entries that nothing wants go at this time of the loop's clock."""
        self.learned.release_adopted(at)
        self.plan_run()

    def drop_held(self, prefixes: Iterable[Prefix]) -> None:
        """Entries of these prefixes that nothing wants go now: whoever had them has them no more."""
        if self.learned.drop_held(prefixes):
            self.plan_run()

    def plan_run(self) -> None:
        """Compare and apply at the end of this turn of the loop."""
        if not self._run_planned and not self._busy and not self._stopped:
            self._run_planned = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._run_planned = False
        if self._busy or self._stopped:
            return
        now = self._loop.time()
        deltas = [(fib, fib.delta(now, BATCH)) for fib in (self.own, self.learned)]
        work = [(fib, delta) for fib, delta in deltas if delta.size]
        if not work:
            self._waiting_since = inf
            self._arm(now)
            return
        self._busy = True
        since, self._waiting_since = self._waiting_since, inf if not self.learned.pending else now
        if all(not delta.read for _, delta in work) and sum(delta.size for _, delta in work) <= INLINE:
            try:
                self._applied(work, [self._kernel.apply(delta) for _, delta in work], since)
            except KernelError as error:
                self._apply_failed(work, error)
            return
        future = self._loop.run_in_executor(
            self._worker, lambda: [self._kernel.apply(delta) for _, delta in work]
        )
        future.add_done_callback(lambda done: self._worker_applied(work, done, since))

    def _worker_applied(
        self, work: list[tuple[Fib, Delta]], done: asyncio.Future[list[Applied]], since: float
    ) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, KernelError):
            self._apply_failed(work, error)
        elif not done.cancelled():
            self._applied(work, done.result(), since)

    def _applied(self, work: list[tuple[Fib, Delta]], outcome: list[Applied], since: float) -> None:
        self._busy = False
        now = self._loop.time()
        for (fib, delta), applied in zip(work, outcome, strict=True):
            fib.applied(applied, now)
            self._count(delta, applied)
            if fib is self.learned and since != inf:
                self._meters.convergence.observe(now - since, delta.size)
        if self.watched():
            self.on_changed([nlri for _, delta in work for nlri in _prefixes(delta)])
        self.error, self._retry_after = "", FIRST_RETRY
        self.plan_run()

    def _count(self, delta: Delta, applied: Applied) -> None:
        failed = applied.failed
        for operation, items in (
            ("create", delta.create),
            ("replace", delta.replace),
            ("remove", delta.remove),
        ):
            if failed:
                for nlri, _ in items:
                    if nlri in failed:
                        self._meters.kernel_failed(operation, failed[nlri].code)
                        log.debug(
                            "kernel refused", operation=operation, prefix=str(nlri), reason=failed[nlri].text
                        )
            done = sum(nlri not in failed for nlri, _ in items) if failed else len(items)
            if done:
                self._meters.kernel_done(operation, done)
        if failed:
            nlri, failure = next(iter(failed.items()))
            log.warning("kernel refused entries", count=len(failed), first=str(nlri), reason=failure.text)

    def _apply_failed(self, work: list[tuple[Fib, Delta]], error: KernelError) -> None:
        """What was done is unknown: give the deltas back as undone, and read everything again."""
        self._busy = False
        now = self._loop.time()
        for fib, delta in work:
            unknown = Failure(errno.EIO, str(error))
            fib.applied(Applied(dict.fromkeys(_prefixes(delta), unknown)), now)
        self._kernel_failed(error)

    def _kernel_failed(self, error: KernelError) -> None:
        self.error = str(error)
        log.error("the kernel can't be changed", reason=str(error), retry_in=self._retry_after)
        self._full_dump_for = self._full_dump_for or "error"
        self._plan_refresh(self._retry_after)
        self._retry_after = min(LAST_RETRY, self._retry_after * 2)

    def _arm(self, now: float) -> None:
        """Look again when something that is held or blocked is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min(self.learned.next_deadline(), self.own.next_deadline())
        if due != inf:
            self._timer = self._loop.call_at(max(due, now + 0.001), self.plan_run)

    # -- what others change -----------------------------------------------------------------------

    def _on_kernel_events(self) -> None:
        if self._monitor is None:
            return
        touched: list[Prefix] = []
        for event in self._monitor.read():
            if isinstance(event, EntryChanged):
                self._entry_changed(event)
                touched.append(event.nlri)
            else:
                self._surroundings_changed(event)
        if touched:
            self.plan_run()
            if self.watched():
                self.on_changed(touched)

    def _entry_changed(self, event: EntryChanged) -> None:
        fib = self.own if event.metric == self.own.metric else self.learned
        self.mended += 1
        fib.observed(event.nlri, event.entry, event.protocol, event.gone)

    def _surroundings_changed(self, event: KernelEvent) -> None:
        if isinstance(event, Overrun):
            self._full_dump_for = "overrun"
            log.info("kernel entries may have changed unseen: reading them again", reason=event.reason)
        elif not isinstance(event, LinksChanged | AddressesChanged | ForeignRoutesChanged):
            return
        self._plan_refresh()

    def _plan_refresh(self, delay: float = DEBOUNCE) -> None:
        if self._stopped:
            return
        due = self._loop.time() + delay
        if self._refresh_timer is not None:
            if self._refresh_timer.when() <= due:
                return
            self._refresh_timer.cancel()  # news does not wait for the retry after an error
        self._refresh_timer = self._loop.call_at(due, self._refresh)

    def _refresh(self) -> None:
        """Read links, addresses and foreign routes again, and all entries where they may be gone."""
        self._refresh_timer = None
        if self._full_dump_for:
            reason, self._full_dump_for = self._full_dump_for, ""
            self._dump(reason)
            return
        self._read(self._kernel.surroundings, self._refreshed)

    def _read(self, what: Callable[[], Found], then: Callable[[Found], None]) -> None:
        """Read in the worker, and go on with what was found."""

        def finished(done: asyncio.Future[Found]) -> None:
            if done.cancelled() or self._stopped:
                return
            error = done.exception()
            if isinstance(error, KernelError):
                self._kernel_failed(error)
            else:
                then(done.result())

        self._loop.run_in_executor(self._worker, what).add_done_callback(finished)

    def _refreshed(self, found: Surroundings) -> None:
        old = self._take_surroundings(found)
        lost = losses(old, self.resolver)
        if any(fib.depends_on(lost.links, lost.addresses) for fib in (self.learned, self.own)):
            self._dump("links")  # the kernel drops IPv4 entries of a lost device or address in silence
        self._resolve_again(old)

    def _dump(self, reason: str) -> None:
        self._meters.kernel_resyncs[reason] += 1
        self._read(self._kernel.snapshot, self._dumped)

    def _dumped(self, snapshot: KernelSnapshot) -> None:
        for fib in (self.learned, self.own):
            fib.resynced(snapshot.entries[fib.metric])
        self.verified = self.learned.in_step and self.own.in_step
        self.error, self._retry_after = "", FIRST_RETRY
        self._resolve_again(self._take_surroundings(snapshot))

    def _resolve_again(self, old: Resolver) -> None:
        """Forget the shapes that are another now, and have their prefixes decided again."""
        different: set[Address] = set()
        for size, shapes in self._shapes.items():
            for key in [key for key, shape in shapes.items() if shape != self._resolved(key, size)]:
                del shapes[key]
                different.update(address for address in key[:2] if address is not None)
        if old.addresses != self.resolver.addresses:
            self.on_addresses()
        if self._forgotten:
            self._forgotten = False
            self.on_next_hops(None)
        elif different:
            log.info("next hops resolve differently", count=len(different))
            self.on_next_hops(different)
        for fib in (self.learned, self.own):
            fib.retry_blocked()
        self.plan_run()


def _prefixes(delta: Delta) -> Iterable[Prefix]:
    for items in (delta.create, delta.replace, delta.remove):
        for nlri, _ in items:
            yield nlri
    yield from delta.read
