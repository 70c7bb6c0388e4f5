"""What one client reads of the logs of its update groups: `bgpd.bgp.transport.Feed`.

A client in two families has two cursors, and they alternate, so that a large table of one family does not
keep the other waiting.  At most one message is started at a time, whichever log it is of.
"""

from __future__ import annotations

from collections import deque

from bgpd.bgp.cursor import Cursor
from bgpd.bgp.group_encoder import Key
from routes.prefix import Family

Buffer = bytes | memoryview
_ALL: list[tuple[Cursor[Key], int]] = []
"""Stands for a plan of the only cursor."""


class Outflow:
    """The cursors of one session."""

    def __init__(self) -> None:
        self.cursors: dict[Family, Cursor[Key]] = {}
        self._order: deque[Cursor[Key]] = deque()
        self._planned: list[tuple[Cursor[Key], int]] = []
        """The cursors of the last `next_slices`, each with its bytes."""
        self._started: Cursor[Key] | None = None

    def add(self, family: Family, cursor: Cursor[Key]) -> None:
        """Read this log too."""
        self.cursors[family] = cursor
        self._order.append(cursor)

    def replace(self, family: Family, cursor: Cursor[Key]) -> None:
        """Read another log than before; a message that is started is sent to its end."""
        before = self.cursors[family]
        self.stand_alone()
        cursor.succeed(before)
        self.cursors[family] = cursor
        self._order[self._order.index(before)] = cursor

    def stand_alone(self) -> None:
        """Let nothing be written past the transport."""
        for cursor in self._order:
            cursor.stand_alone()
            if cursor.rest:
                self._started = cursor

    @property
    def caught_up(self) -> bool:
        """Whether the client has everything."""
        return not self.rest and all(cursor.caught_up for cursor in self._order)

    @property
    def lag(self) -> int:
        """Messages that the client does not have yet, at most."""
        return sum(cursor.lag for cursor in self._order)

    @property
    def messages(self) -> int:
        """Messages started since the session is up."""
        return sum(cursor.place[1] for cursor in self._order)

    @property
    def bytes_past(self) -> int:
        """Bytes written past the transport."""
        return sum(cursor.place[2] for cursor in self._order)

    @property
    def rest(self) -> Buffer:
        """Of the message that was started."""
        return self._started.rest if self._started is not None else b""

    def next_slices(self, limit: int) -> list[Buffer]:
        """Whole messages of every log, in turn first of one and then of another."""
        if len(self._order) == 1:
            self._planned = _ALL
            return self._order[0].next_slices(limit)
        slices: list[Buffer] = []
        self._planned = []
        self._order.rotate(1)
        for cursor in self._order:
            if cursor.caught_up:
                continue
            mine = cursor.next_slices(limit)
            size = sum(map(len, mine))
            if size:
                self._planned.append((cursor, size))
                slices += mine
                limit -= size
                if limit <= 0:
                    break
        return slices

    def sent(self, size: int) -> None:
        """`size` bytes of `rest`, and then of the last slices, are out."""
        started = self._started
        if started is not None:
            taken = min(size, len(started.rest))
            started.rest = started.rest[taken:]
            size -= taken
            if not started.rest:
                self._started = None
        if not size:
            return
        planned, self._planned = self._planned, []
        if planned is _ALL:
            (cursor,) = self._order
            cursor.sent(size)
            if cursor.rest:
                self._started = cursor
            return
        for cursor, length in planned:
            taken = min(size, length)
            cursor.sent(taken)
            size -= taken
            if cursor.rest:
                self._started = cursor
                return
            if taken < length:
                return
