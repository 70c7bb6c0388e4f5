"""The clients of one log that have everything: they stand at one place, and are written to together.

Most changes find most clients here, and then one change costs one write a client and nothing beside it: no
place to look up, none to move, no condition to ask again.  Who can't be treated like the others reads alone,
by its own cursor: a client with something of its own to be sent, and whoever did not take all of a write.
It is admitted again once it has everything.

Writes are direct, past what a transport has queued, which is right between messages alone: so only a client
of which no message is started may be here.  They go to descriptors, whose numbers are given away again: a
transport leaves before it closes.  What is being written stays valid whatever is committed meanwhile, because
a newer message always follows what it supersedes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from itertools import repeat
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

from bgpd.bgp.cursor import Cursor
from bgpd.bgp.fanout import FanoutLog
from bgpd.bgp.segment import Batch, SourceId

NOBODY = -1
"""The source that stands for all who are here: nothing comes from it."""
STEP = 128
"""Writes between two looks at the clock."""
MOST = 1 << 19
"""Bytes of one write, about."""

_data_of = itemgetter(2)

Write = Callable[[int, bytes], int]
"""`os.write`."""


class Reader(Protocol):
    """Whose cursor it is."""

    def fell_behind(self) -> None:
        """It did not take all of a write, and a message may be started: nothing may be written past it."""


K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Reader)


class Front(Generic[K, R]):
    """The cursors that stand together, and what writes to each."""

    def __init__(self, log: FanoutLog[K], alone: dict[R, None], write: Write = os.write) -> None:
        self._log = log
        self._write = write
        self._alone = alone
        """Gets whoever leaves."""
        # Where those stand to whom the batch was not written, and what all have been written here before.
        self._seq = self._messages = self._bytes = 0
        # One entry for each who is here.
        self._cursors: list[Cursor[K]] = []
        self._fds: list[int] = []
        self._readers: list[R] = []
        self._batch: Batch = []
        """What is being written now."""
        self._data = b""
        """The same as one buffer; empty between writes."""
        self._end = 0
        """The place behind it."""
        self._at = 0
        """So many, from the first on, have been written to."""

    def __len__(self) -> int:
        return len(self._cursors)

    @property
    def needs_from(self) -> int:
        """The first withdrawal that tells anybody here something."""
        return self._seq

    # -- who is here ------------------------------------------------------------------------------

    def admit(self, cursor: Cursor[K], fd: int, reader: R) -> bool:
        """Take in a cursor that has everything, if those who are here have, too."""
        if self._data or not cursor.caught_up:
            return False
        if not self._cursors:
            self._seq = self._log.next_seq
            self._log.apart[NOBODY] = self
        if self._seq < self._log.next_seq:
            return False
        cursor.front, cursor.slot = self, len(self._cursors)
        cursor.messages -= self._messages
        cursor.bytes_past -= self._bytes
        self._log.apart.pop(cursor.source, None)
        self._cursors.append(cursor)
        self._fds.append(fd)
        self._readers.append(reader)
        return True

    def place(self, cursor: Cursor[K]) -> tuple[int, int, int]:
        """Where one who is here stands, and the messages and bytes that all have been written here."""
        if cursor.slot < self._at:
            return self._end, self._messages + len(self._batch), self._bytes + len(self._data)
        return self._seq, self._messages, self._bytes

    def leave(self, cursor: Cursor[K]) -> None:
        """Let one read alone, from where it stands."""
        cursor.seq, messages, size = self.place(cursor)
        cursor.messages += messages
        cursor.bytes_past += size
        cursor.front, slot = None, cursor.slot
        self._log.apart[cursor.source] = cursor
        self._alone[self._readers[slot]] = None
        if slot < self._at:  # those who have been written to stay in front of the others
            self._at -= 1
            self._swap(slot, self._at)
            slot = self._at
        self._swap(slot, len(self._cursors) - 1)
        for entries in (self._cursors, self._fds, self._readers):
            entries.pop()
        if not self._cursors:
            self._log.apart.pop(NOBODY, None)

    def _swap(self, a: int, b: int) -> None:
        self._cursors[a], self._cursors[b] = self._cursors[b], self._cursors[a]
        self._fds[a], self._fds[b] = self._fds[b], self._fds[a]
        self._readers[a], self._readers[b] = self._readers[b], self._readers[a]
        self._cursors[a].slot, self._cursors[b].slot = a, b

    # -- writing ----------------------------------------------------------------------------------

    def write(self) -> Iterator[int]:
        """Write what is new to everybody here, in steps, each of which says how many writes it took."""
        until = self._log.next_seq
        while self._cursors and self._seq < until:
            if done := self._begin():
                yield done
            while self._data and self._at < len(self._fds):
                yield self._step()
            self._seq = self._end
            self._messages += len(self._batch)
            self._bytes += len(self._data)
            self._batch, self._data, self._at = [], b"", 0

    def _begin(self) -> int:
        """Plan one write, and make those that differ from it, to the sources of what is in it; how many.

        Where these are many, they read alone.
        """
        batch, self._end = self._log.since(self._seq, MOST)
        self._batch = batch
        known = self._log.cursors
        if len(batch) == 1:  # most often: its source gets nothing
            ((_, source, self._data),) = batch
            cursor = known.get(source)
            if cursor is not None and cursor.front is self:
                self._swap(cursor.slot, 0)
                self._at = 1
                cursor.messages -= 1
                cursor.bytes_past -= len(self._data)
            return 0
        self._data = b"".join(map(_data_of, batch))
        sources: dict[SourceId, Cursor[K]] = {}
        for _, source, _ in batch:
            cursor = known.get(source)
            if cursor is not None and cursor.front is self:
                sources[source] = cursor
        for source, cursor in sources.items():
            if len(sources) > STEP:
                self.leave(cursor)
            else:
                self._write_source(cursor, [each for each in batch if each[1] != source])
        return self._at

    def _write_source(self, cursor: Cursor[K], others: Batch) -> None:
        """Write what is not the source's own."""
        taken = size = 0
        if others:
            data = b"".join(map(_data_of, others))
            size = len(data)
            with suppress(OSError):  # as in `_step`
                taken = self._write(self._fds[cursor.slot], data)
        self._swap(cursor.slot, self._at)
        self._at += 1
        if taken < size:
            self._fell_behind(cursor, others, taken)
            return
        cursor.messages -= len(self._batch) - len(others)
        cursor.bytes_past -= len(self._data) - taken

    def _step(self) -> int:
        """The inner loop of a reflector: nothing but the writes, and no step of ours in between."""
        data, began = self._data, self._at
        stop = min(began + STEP, len(self._fds))
        taken: list[int] = []
        while began + len(taken) < stop:
            try:  # what `extend` took before an exception stays in the list
                taken.extend(map(self._write, self._fds[began + len(taken) : stop], repeat(data)))
            except OSError:  # full; or lost, which shows again, and is dealt with, at its next write
                taken.append(0)
        self._at = stop
        if taken.count(len(data)) < len(taken):
            short = [(at, size) for at, size in enumerate(taken, began) if size < len(data)]
            for at, size in reversed(short):
                self._fell_behind(self._cursors[at], self._batch, size)
        return len(taken)

    def _fell_behind(self, cursor: Cursor[K], batch: Batch, taken: int) -> None:
        """Only so many bytes of its batch were taken by one that counts as written to."""
        reader = self._readers[cursor.slot]
        self.leave(cursor)
        cursor.messages -= len(self._batch)
        cursor.bytes_past -= len(self._data) - taken
        cursor.seq = self._seq
        cursor.took(batch, taken)
        reader.fell_behind()
