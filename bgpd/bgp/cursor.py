"""How far one client has come in the log of its update group: what to send it next, and what it took.

A cursor stands between messages; of a started one, the rest belongs to the client.  The log (`fanout.py`)
never moves a cursor.  What is for this client alone waits here, at its place among the log's messages.

Sans-I/O: no sockets, no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from bgpd.bgp.segment import Batch, Segment, SourceId

K = TypeVar("K", bound=Hashable)

SLICES = 64
"""Buffers of one write."""


class Log(Protocol[K]):
    """What a cursor asks of its log."""

    next_seq: int
    marked: dict[Cursor[K], None]

    def segments_from(self, seq: int) -> Iterable[tuple[Segment[K], int]]: ...
    def cut_all(self) -> None: ...


class _Slice(NamedTuple, Generic[K]):
    """Messages `first` to `last` (excluded) of a segment."""

    data: memoryview
    segment: Segment[K]
    first: int
    last: int


class Directed(NamedTuple):
    """A message for one client alone, due before the log's message `seq`."""

    seq: int
    data: bytes
    mark: bool = False
    """It says that all which was there has been sent."""
    lasting: bool = False
    """Still true after a marked restart: an End-of-RIB."""


class Company(Protocol[K]):
    """Where clients that have everything stand together (`bgpd.bgp.front`)."""

    def place(self, cursor: Cursor[K]) -> tuple[int, int, int]: ...
    def leave(self, cursor: Cursor[K]) -> None: ...


class Cursor(Generic[K]):
    """How far one client has come.

    `next_slices` says what to send now, and `sent` how much of exactly that was taken; nothing may be
    committed in between.  What is left of a started message is `rest`, which goes out before anything else.
    """

    __slots__ = (
        "_directed",
        "_plan",
        "_plan_end",
        "_skip_below",
        "bytes_past",
        "front",
        "log",
        "messages",
        "rest",
        "seq",
        "slot",
        "source",
    )

    def __init__(self, log: Log[K], source: SourceId) -> None:
        self.log = log
        self.source = source
        self.front: Company[K] | None = None
        """Where it stands with others; then `place` has what the next fields have otherwise."""
        self.slot = 0
        self.seq = 0
        """The first message that was not started."""
        self.rest: memoryview | bytes = b""
        self.messages = 0
        """Started since the client joined."""
        self.bytes_past = 0
        """Written at a front, past the client's transport."""
        self._skip_below = log.next_seq
        """Withdrawals before this place tell this client nothing."""
        self._directed: list[Directed] = []
        self._plan: Sequence[_Slice[K] | Directed] = ()
        self._plan_end = 0

    @property
    def place(self) -> tuple[int, int, int]:
        """`seq`, `messages` and `bytes_past`."""
        if self.front is None:
            return self.seq, self.messages, self.bytes_past
        seq, messages, size = self.front.place(self)
        return seq, self.messages + messages, self.bytes_past + size

    def stand_alone(self) -> None:
        """Leave the front, if it is at one."""
        if self.front is not None:
            self.front.leave(self)

    @property
    def caught_up(self) -> bool:
        """Whether there is nothing to send."""
        return self.place[0] >= self.log.next_seq and not self._directed and not self.rest

    @property
    def lag(self) -> int:
        """Messages between this client and the end of the log, at most."""
        return max(0, self.log.next_seq - self.place[0]) + len(self._directed)

    @property
    def needs_from(self) -> int:
        """The first withdrawal that tells this client something."""
        return max(self.place[0], self._skip_below)

    @property
    def waiting(self) -> int:
        """Messages for this client alone that wait for it."""
        return len(self._directed)

    def succeed(self, before: Cursor[K]) -> None:
        """Take the place of a cursor of another log: what was to be said at its end is said at the end here.

        The rest of a started message stays with the other one, whose owner has it sent first.
        """
        self.messages, self.bytes_past = before.place[1:]
        for each in before._directed:
            if each.mark:
                self.at_end(each.data, lasting=each.lasting)

    def direct(self, message: Directed) -> None:
        """Have a message for this client alone sent at its place; places never go back."""
        self.stand_alone()
        self._directed.append(message)

    def at_end(self, data: bytes, *, lasting: bool = False) -> None:
        """Have `data` (an End-of-RIB, an EoRR) sent when all that is in the log now has been."""
        self.log.marked[self] = None
        self.direct(Directed(self.log.next_seq, data, True, lasting))

    def postpone_marks(self, moved: Sequence[int]) -> bool:
        """Entries of these places are behind all marks now; whether any mark waits."""
        marks = [each for each in self._directed if each.mark]
        if marks and any(self.seq <= seq < marks[-1].seq for seq in moved):
            others = [each for each in self._directed if not each.mark]
            self._directed = [*others, *(each._replace(seq=self.log.next_seq) for each in marks)]
        return bool(marks)

    def restart(self, *, marked: bool) -> None:
        """Send the whole table again (route refresh).

        `marked`: between BoRR and EoRR (RFC 7313), which drop what is not announced again.  Without them
        the withdrawals that were still ahead are sent, not skipped.
        """
        self.log.cut_all()
        self.stand_alone()
        if marked:
            # The EoRR of a refresh that this one overtakes would drop what has not been sent again yet.
            self._directed = [message for message in self._directed if message.lasting]
        self._skip_below = self.log.next_seq if marked else min(self._skip_below, self.seq)
        self.seq = 0

    def next_slices(self, limit: int) -> list[memoryview | bytes]:
        """Buffers of whole messages, about `limit` bytes together, without what the client must not get."""
        if self.front is not None:
            if self.caught_up:
                return []  # what its transport has beside the log takes it from no front
            self.stand_alone()
        plan: list[_Slice[K] | Directed] = []
        self._plan = plan
        self._plan_end = self._fill(plan, limit)
        if not plan:
            self.seq = self._plan_end
        return [each.data for each in plan]

    def _fill(self, plan: list[_Slice[K] | Directed], limit: int) -> int:
        """Plan what comes next; the place behind it."""
        waiting, due, left = self._directed, 0, limit
        for segment, begin_at in self.log.segments_from(self.seq):
            seqs, first = segment.seqs, begin_at
            while first < len(seqs):
                while due < len(waiting) and waiting[due].seq <= seqs[first]:
                    plan.append(waiting[due])
                    due += 1
                last = len(seqs) if due == len(waiting) else bisect_left(seqs, waiting[due].seq, first)
                for begin, stop in segment.runs(first, last, self._skipped(segment)):
                    start = segment.start(begin)
                    end = stop
                    if segment.ends[stop - 1] - start > left:
                        end = max(begin + 1, bisect_right(segment.ends, start + left, begin, stop))
                    plan.append(_Slice(segment.view[start : segment.ends[end - 1]], segment, begin, end))
                    left -= segment.ends[end - 1] - start
                    if end < stop or left <= 0 or len(plan) >= SLICES:
                        return seqs[end - 1] + 1
                first = last
        plan.extend(waiting[due:])
        return self.log.next_seq

    def _skipped(self, segment: Segment[K]) -> Sequence[int]:
        """The messages of a segment that are not for this client."""
        own = segment.of_source.get(self.source, ())
        if not segment.withdrawals or segment.seqs[segment.withdrawals[0]] >= self._skip_below:
            return own
        below = bisect_left(segment.seqs, self._skip_below)
        return sorted({*own, *segment.withdrawals[: bisect_left(segment.withdrawals, below)]})

    def took(self, batch: Batch, size: int) -> None:
        """`size` bytes of these messages of the log were taken, at a front."""
        for seq, _, data in batch:
            if not size:
                break
            self.messages += 1
            self.seq = seq + 1
            self.rest = data[size:]
            size = max(0, size - len(data))

    def sent(self, size: int) -> None:
        """`size` bytes of the last `next_slices` were taken."""
        plan, self._plan = self._plan, ()
        plan_end, self._plan_end = self._plan_end, 0
        for each in plan:
            length = len(each.data)
            if size < length:
                self._stop_in(each, size)
                return
            size -= length
            if isinstance(each, Directed):
                del self._directed[0]
                self.messages += 1
            else:
                self.messages += each.last - each.first
                self.seq = each.segment.seqs[each.last - 1] + 1
        self.seq = max(self.seq, plan_end)

    def _stop_in(self, part: _Slice[K] | Directed, size: int) -> None:
        """Only `size` bytes of this part were taken."""
        if isinstance(part, Directed):
            if size:
                del self._directed[0]
                self.messages += 1
                self.rest = part.data[size:]
            return
        segment = part.segment
        at = segment.start(part.first) + size
        index = bisect_right(segment.ends, at, part.first, part.last)
        self.seq = segment.seqs[index]
        self.messages += index - part.first
        if at > segment.start(index):
            self.messages += 1
            self.rest = bytes(segment.view[at : segment.ends[index]])
            self.seq += 1
