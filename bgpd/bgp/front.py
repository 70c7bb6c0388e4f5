"""The clients of one log that have everything: they stand at one place, and are written to together.

Most changes find most clients here, and then one change costs one write a client and nothing beside it: no
place to look up, none to move, no condition to ask again.  Who can't be treated like the others reads alone,
by its own cursor: a client with something of its own to be sent, and whoever did not take all of a write.
It is admitted again once it has everything.

Writes are direct, past what a transport has queued, which is right between messages alone: so only a client
of which no message is started may be here.  What is being written stays valid whatever is committed
meanwhile, because a newer message always follows what it supersedes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from bgpd.bgp.cursor import Cursor
from bgpd.bgp.fanout import FanoutLog

NOBODY = -1
"""The source that stands for all who are here: nothing comes from it."""
STEP = 64
"""Writes between two looks at the clock."""
MOST = 1 << 19
"""Bytes of one write, about."""

Send = Callable[[memoryview | bytes], int]
"""A socket's own `send`."""


class Reader(Protocol):
    """Whose cursor it is."""

    def fell_behind(self) -> None:
        """It did not take all of a write, and a message may be started: nothing may be written past it."""


K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Reader)


class Front(Generic[K, R]):
    """The cursors that stand together, and what writes to each."""

    def __init__(self, log: FanoutLog[K], alone: dict[R, None]) -> None:
        self._log = log
        self._alone = alone
        """Gets whoever leaves."""
        self._lead: Cursor[K] = Cursor(log, NOBODY)
        self._bytes = 0
        # One entry for each who is here.
        self._cursors: list[Cursor[K]] = []
        self._sends: list[Send] = []
        self._readers: list[R] = []
        self._data: memoryview | bytes = b""
        """What is being written now."""
        self._at = 0
        """So many, from the first on, have been written to."""

    def __len__(self) -> int:
        return len(self._cursors)

    # -- who is here ------------------------------------------------------------------------------

    def admit(self, cursor: Cursor[K], send: Send, reader: R) -> bool:
        """Take in a cursor that has everything, if those who are here have, too."""
        lead = self._lead
        if self._data or not cursor.caught_up:
            return False
        if not self._cursors:
            lead.seq = self._log.next_seq
            self._log.apart[NOBODY] = lead
        if not lead.caught_up:
            return False
        cursor.front, cursor.slot = self, len(self._cursors)
        cursor.messages -= lead.messages
        cursor.bytes_past -= self._bytes
        self._log.apart.pop(cursor.source, None)
        self._cursors.append(cursor)
        self._sends.append(send)
        self._readers.append(reader)
        return True

    def place(self, cursor: Cursor[K]) -> tuple[int, int, int]:
        """Where one who is here stands, and the messages and bytes that all have been written here."""
        lead = self._lead
        if cursor.slot < self._at:
            return lead.planned_end, lead.messages + lead.planned_messages, self._bytes + len(self._data)
        return lead.seq, lead.messages, self._bytes

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
        for entries in (self._cursors, self._sends, self._readers):
            entries.pop()
        if not self._cursors:
            self._log.apart.pop(NOBODY, None)

    def _swap(self, a: int, b: int) -> None:
        self._cursors[a], self._cursors[b] = self._cursors[b], self._cursors[a]
        self._sends[a], self._sends[b] = self._sends[b], self._sends[a]
        self._readers[a], self._readers[b] = self._readers[b], self._readers[a]
        self._cursors[a].slot, self._cursors[b].slot = a, b

    # -- writing ----------------------------------------------------------------------------------

    def write(self) -> Iterator[int]:
        """Write what is new to everybody here, in steps, each of which says how many writes it took."""
        until = self._log.next_seq
        while self._cursors and self._lead.seq < until:
            self._begin()
            if self._data and self._at:
                yield self._at
            while self._at < len(self._sends):
                yield self._step()
            self._lead.sent(len(self._data))
            self._bytes += len(self._data)
            self._data, self._at = b"", 0

    def _begin(self) -> None:
        """Plan one write; the sources of what is in it need another, and many of them read alone."""
        buffers = self._lead.next_slices(MOST)
        self._data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        planned = self._lead.planned_sources()
        found = (self._log.cursors.get(source) for source in planned)
        sources = [cursor for cursor in found if cursor is not None and cursor.front is self]
        for cursor in sources:
            if len(sources) > STEP or not self._write_source(cursor, alone=len(planned) == 1):
                self.leave(cursor)
        if not buffers:
            self._at = len(self._sends)

    def _write_source(self, cursor: Cursor[K], *, alone: bool) -> bool:
        """Write what is new but the source's own, which is all of it where it is the source `alone`; False
        when it reads alone, from where it stood."""
        data, own = b"", self._lead.planned_messages
        if not alone:
            parts, own = self._lead.planned_without(cursor.source)
            data = b"".join(parts)
        taken = 0
        if data:
            with suppress(OSError):  # as in `_step`
                taken = self._sends[cursor.slot](data)
        if taken < len(data):
            reader = self._readers[cursor.slot]
            self.leave(cursor)
            cursor.next_slices(MOST)
            cursor.sent(taken)
            cursor.bytes_past += taken
            reader.fell_behind()
            return True
        cursor.messages -= own
        cursor.bytes_past -= len(self._data) - taken
        self._swap(cursor.slot, self._at)
        self._at += 1
        return True

    def _step(self) -> int:
        """The inner loop of a reflector: nothing but the writes."""
        data, at = self._data, self._at
        size, stop = len(data), min(at + STEP, len(self._sends))
        short: list[tuple[int, int]] = []
        while at < stop:
            try:
                for send in self._sends[at:stop]:
                    taken = send(data)
                    if taken != size:
                        short.append((at, taken))
                    at += 1
            except OSError:  # full; or lost, which shows again, and is dealt with, at its next write
                short.append((at, 0))
                at += 1
        done, self._at = at - self._at, at
        for slot, taken in reversed(short):
            self._fell_behind(slot, taken)
        return done

    def _fell_behind(self, slot: int, taken: int) -> None:
        cursor, reader = self._cursors[slot], self._readers[slot]
        self.leave(cursor)
        cursor.messages -= self._lead.planned_messages
        cursor.bytes_past -= len(self._data) - taken
        cursor.follow(self._lead, taken)
        reader.fell_behind()
