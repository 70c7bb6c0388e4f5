"""The kernel's forwarding entries: read them, change them in bulk, flush them.

Owns everything between a `Delta` and the kernel.  Ours is what matches table, protocol and one of our
metrics together, and nothing else is ever changed: creating is exclusive, replacing happens only to what
the delta says is ours, removing names protocol and metric.  It must never decide what is wanted
(`routes/fib.py`), and it lives in the network namespace that the process is in.

All calls block, and release the GIL while the kernel works.  They may come from any thread: a lock makes
changes one at a time, and dumps, which take long, do not keep changes waiting.
"""

from __future__ import annotations

import errno
import threading
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, Self

from bgpd.kernel import rtnetlink as nl
from bgpd.kernel.command_socket import CommandSocket, dump
from bgpd.kernel.dumps import (
    AddressReader,
    LinkReader,
    PlaceReader,
    TableReader,
    address_request,
    link_request,
    route_request,
)
from bgpd.kernel.messages import CREATE, FAMILY_OF_SIZE, REMOVE, REPLACE, Operation, RouteEncoder
from bgpd.kernel.monitor import Monitor
from bgpd.kernel.next_hop_objects import DEFAULT_THRESHOLD, NextHopObjects
from bgpd.kernel.route_reader import InUse, Ownership
from routes.fib import UNREACHABLE, Applied, Delta, Failure, FibEntry, Found
from routes.next_hop import ForeignRoute, InterfaceAddress, Link
from routes.prefix import Prefix

SWEEP_AFTER = 4_096
"""Entries that stopped using a next-hop object, at most, before unused objects are looked for."""


class Surroundings(NamedTuple):
    """What next hops are resolved in."""

    links: tuple[Link, ...]
    addresses: tuple[InterfaceAddress, ...]
    routes: tuple[ForeignRoute, ...]
    """Routes that are not ours."""


class KernelSnapshot(NamedTuple):
    """All that the kernel said at one moment."""

    entries: dict[int, dict[Prefix, FibEntry]]
    """Ours, by metric."""
    links: tuple[Link, ...]
    addresses: tuple[InterfaceAddress, ...]
    routes: tuple[ForeignRoute, ...]


class Flushed(NamedTuple):
    """What removing everything of ours did."""

    removed: int
    left: int
    errors: tuple[str, ...]


class Kernel:
    """The routing tables of the namespace that this process is in."""

    def __init__(
        self,
        table: int,
        protocol: int,
        metrics: Iterable[int],
        object_threshold: int = DEFAULT_THRESHOLD,
    ) -> None:
        self._ownership = Ownership(table, protocol, frozenset(metrics))
        self._lock = threading.Lock()
        self._socket = CommandSocket()
        self._in_use = InUse(set(), set())
        self._encoder = RouteEncoder(table, protocol, self._socket.next_seq, self._in_use.note)
        self._objects = NextHopObjects(self._socket, self._ownership, object_threshold)
        self._loosened = 0
        self._applies = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; the kernel keeps its routes."""
        self._socket.close()

    def monitor(self) -> Monitor:
        """A monitor of what others change; what this kernel object changes is hidden from it."""
        return Monitor(self._ownership, self._objects.map, self._in_use, self._socket.port_id)

    # Reading

    def snapshot(self) -> KernelSnapshot:
        """Read our entries and what next hops are resolved in."""
        with self._lock:
            self._objects.load()
            applies = self._applies
        entries: dict[int, dict[Prefix, FibEntry]] = {metric: {} for metric in self._ownership.metrics}
        foreign: list[ForeignRoute] = []
        for table, family in self._tables():
            reader = dump(
                route_request(family, table), lambda: TableReader(self._ownership, self._objects.map)
            )
            foreign += reader.foreign
            for metric, found in reader.entries.items():
                entries[metric].update(found)
        with self._lock:
            self._note(entries, forget=applies == self._applies)
        return KernelSnapshot(entries, _links(), _addresses(), tuple(foreign))

    def _tables(self) -> list[tuple[int, int]]:
        """The tables to read, each for both families: next hops are resolved in main, wherever ours are."""
        tables = sorted({nl.RT_TABLE_MAIN, self._ownership.table})
        return [(table, family) for table in tables for family in (nl.AF_INET, nl.AF_INET6)]

    def _note(self, entries: dict[int, dict[Prefix, FibEntry]], *, forget: bool) -> None:
        """Remember what the entries that exist depend on, and forget the rest if none came meanwhile."""
        present = [item for found in entries.values() for item in found.items()]
        now = InUse(set(), set())
        for entry in {id(entry): entry for _, entry in present}.values():
            now.note(entry)
        self._in_use.add(now)
        if forget:
            self._in_use.keep_only(now)
            self._objects.note_present(
                {id(entry): entry for (address, _), entry in present if len(address) == 4}
            )

    def surroundings(self) -> Surroundings:
        """Read only what next hops are resolved in."""
        foreign: list[ForeignRoute] = []
        for table, family in self._tables():
            foreign += dump(
                route_request(family, table),
                lambda: TableReader(self._ownership, self._objects.map, foreign_only=True),
            ).foreign
        return Surroundings(_links(), _addresses(), tuple(foreign))

    def _read_places(self, metric: int, prefixes: Iterable[Prefix]) -> dict[Prefix, Found]:
        """What is in our places for these prefixes, each of them."""
        found = dict.fromkeys(prefixes, Found(None))
        wanted = frozenset(found)
        for family in {FAMILY_OF_SIZE[len(nlri.address)] for nlri in wanted}:
            request = route_request(family, self._ownership.table)
            found |= dump(
                request, lambda: PlaceReader(self._ownership, self._objects.map, metric, wanted)
            ).found
        return found

    # Changing

    def apply(self, delta: Delta) -> Applied:
        """Do what a delta says.  KernelError: what was done is unknown, read everything again."""
        with self._lock:
            self._applies += 1
            self._objects.prepare([*delta.create, *delta.replace] if delta.replace else delta.create)
            failed = self._run(CREATE, delta.metric, delta.create)
            again = {nlri for nlri, failure in failed.items() if failure.code == errno.EEXIST}
            failed |= self._run(REPLACE, delta.metric, delta.replace)
            failed |= self._run(REMOVE, delta.metric, [(nlri, UNREACHABLE) for nlri, _ in delta.remove])
            again.update(delta.read)
            found = self._read_places(delta.metric, again) if again else {}
            self._loosen(delta)
            return Applied(failed, found)

    def _run(
        self, operation: Operation, metric: int, items: list[tuple[Prefix, FibEntry]]
    ) -> dict[Prefix, Failure]:
        failed = self._run_once(operation, metric, items)
        if operation is REMOVE or not self._objects.map.ours:
            return failed
        lost = {nlri for nlri, failure in failed.items() if failure.code == errno.EINVAL}
        retried = [item for item in items if item[0] in lost and self._objects.id_of(item[1])]
        if retried:  # the objects went, with the carrier or by hand
            self._objects.load()
            self._objects.prepare(retried)
            for nlri, _ in retried:
                del failed[nlri]
            failed |= self._run_once(operation, metric, retried)
        return failed

    def _run_once(
        self, operation: Operation, metric: int, items: list[tuple[Prefix, FibEntry]]
    ) -> dict[Prefix, Failure]:
        failed: dict[Prefix, Failure] = {}
        for chunk in self._encoder.chunks(operation, metric, items, self._objects.id_of):
            last = chunk.first_seq + len(chunk.items) - 1
            for seq, failure in self._socket.transact(chunk.data, last).items():
                at = seq - chunk.first_seq
                if 0 <= at < len(chunk.items):  # a late answer to an earlier command is not ours
                    failed[chunk.items[at][0]] = failure
        return failed

    def _loosen(self, delta: Delta) -> None:
        """Once enough entries changed, look for next-hop objects that nothing uses any more."""
        if not self._objects.map.ours:
            return
        self._loosened += len(delta.remove) + len(delta.replace)
        if self._loosened >= SWEEP_AFTER:
            self._loosened = 0
            self._objects.sweep()

    def sweep(self) -> int:
        """Remove next-hop objects of ours that nothing uses; how many that were."""
        with self._lock:
            self._loosened = 0
            return self._objects.sweep()

    def flush(self) -> Flushed:
        """Remove everything of ours, next-hop objects included."""
        snapshot = self.snapshot()
        with self._lock:
            failed: dict[Prefix, Failure] = {}
            total = 0
            for metric, entries in snapshot.entries.items():
                total += len(entries)
                failed |= self._run(REMOVE, metric, [(nlri, UNREACHABLE) for nlri in entries])
            left = {nlri: failure for nlri, failure in failed.items() if failure.code != errno.ESRCH}
            self._objects.sweep()
            texts: defaultdict[str, list[Prefix]] = defaultdict(list)
            for nlri, failure in left.items():
                texts[failure.text].append(nlri)
            errors = tuple(f"{nlris[0]} and {len(nlris) - 1} more: {text}" for text, nlris in texts.items())
            return Flushed(total - len(left), len(left), errors)


def _links() -> tuple[Link, ...]:
    return tuple(dump(link_request(), LinkReader).links)


def _addresses() -> tuple[InterfaceAddress, ...]:
    return tuple(dump(address_request(), AddressReader).addresses)
