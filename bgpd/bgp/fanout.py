"""One compacted log of encoded messages for each update group, and one cursor for each client.

A reflector passes each path on to all clients unchanged, so a change is encoded once and appended here; a
client is a position in the log and takes the next slice of bytes as it is.  The log is compacted: it holds
one live entry for each key (an NLRI, or with ADD-PATH an NLRI and path ID), at the place of its last change,
so the live log is the group's Adj-RIB-Out, and memory grows with paths plus clients (RFC 4456 section 6 is
decided elsewhere: what is put here may go to every client of the group but its source).

Positions are message numbers that are never used again, so compaction moves no cursor.  The rules:

- A packed message is skipped only when all its keys are superseded; a newer message always follows it.
- A withdrawal stays until every cursor has passed it.  Before somebody begins at the oldest entry, what is
  superseded is cut out of the messages that still carry it: a newcomer must not learn a dead path.
- A message has one source and is not sent to it.  When a key's path moves to a source that may have been
  told another's, that source gets a withdrawal of its own, at this place of the log.
- A cursor stands between messages.  The rest of a started message belongs to the client.

Sans-I/O: no sockets, no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from bgpd.bgp.segment import Message, Segment, SourceId

K = TypeVar("K", bound=Hashable)

SEGMENT_SIZE = 1 << 16
"""Bytes up to which new messages join the last segment."""
MOST_DIRECTED = 10_000
"""Messages for one client alone that may wait for it."""
SLICES = 64
"""Buffers of one write."""


class Encoder(Protocol[K]):
    """Makes whole messages, and says which keys went into each."""

    def announce(self, attributes: object, keys: Sequence[K]) -> list[tuple[bytes, Sequence[K]]]: ...
    def withdraw(self, keys: Sequence[K]) -> list[tuple[bytes, Sequence[K]]]: ...


def _runs(
    messages: Sequence[Message[K] | None], keys: list[K]
) -> Iterable[tuple[Message[K] | None, Sequence[K]]]:
    """The keys of each message; most often all are one's."""
    first = messages[0]
    if messages.count(first) == len(messages):
        return ((first, keys),)
    found: dict[Message[K] | None, list[K]] = {}
    for message, key in zip(messages, keys, strict=True):
        found.setdefault(message, []).append(key)
    return found.items()


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
    lasting: bool = False
    """Still true after a marked restart: an End-of-RIB."""


class FanoutLog(Generic[K]):
    """The log of one update group.  `put` and `remove` collect, `commit` appends."""

    def __init__(self, encoder: Encoder[K]) -> None:
        self._encoder = encoder
        self._segments: list[Segment[K]] = []
        self._firsts: list[int] = []
        self._newest: dict[K, Message[K]] = {}
        """The newest entry of each key, withdrawals included."""
        self._carriers: dict[K, list[Message[K]]] = {}
        """Messages that are partly alive and still carry a superseded key."""
        self._withdrawals: deque[Message[K]] = deque()
        """In the log, oldest first; dead ones are dropped when they come up."""
        self._announced: dict[tuple[SourceId, int], tuple[object, list[K]]] = {}
        """By source and identity of the attributes: hashing them costs more than all the rest of `put`."""
        self._withdrawn: dict[SourceId, list[K]] = {}
        self._owed: dict[SourceId, list[K]] = {}
        self._dirty: dict[int, Segment[K]] = {}
        self.cursors: dict[SourceId, Cursor[K]] = {}
        self.apart: dict[SourceId, Cursor[K]] = {}
        """Those that stand alone, and one for all that stand at a front."""
        self.next_seq = 0
        self.overrun: list[Cursor[K]] = []
        """Cursors with too much waiting for them alone; the caller begins them anew, or ends them."""
        self.size = 0
        """Keys that are announced."""

    def __contains__(self, key: K) -> bool:
        entry = self._newest.get(key)
        return entry is not None and entry.attributes is not None

    @property
    def withdrawals(self) -> int:
        """Withdrawals that wait for slow cursors (an upper bound)."""
        return len(self._withdrawals)

    @property
    def held(self) -> int:
        """Bytes that the log holds."""
        return sum(len(segment.view) for segment in self._segments)

    def entry(self, key: K) -> tuple[SourceId, object] | None:
        """The source and attributes that a key is announced with."""
        entry = self._newest.get(key)
        return None if entry is None or entry.attributes is None else (entry.source, entry.attributes)

    # -- writing ----------------------------------------------------------------------------------

    def put(self, key: K, source: SourceId, attributes: object) -> None:
        """Announce a key; each key at most once between two commits."""
        self.put_all([key], source, attributes)

    def put_all(self, keys: list[K], source: SourceId, attributes: object) -> None:
        """Announce keys, and keep the list."""
        before = list(map(self._newest.get, keys))
        if any(before):
            for old, mine in _runs(before, keys):
                if old is None:
                    self.size += len(mine)
                    continue
                if old.source != source:
                    self._owed.setdefault(source, []).extend(mine)
                self._supersede(mine, old)
                if old.attributes is None:
                    self.size += len(mine)
        else:
            self.size += len(keys)
        packed = self._announced.get((source, id(attributes)))
        if packed is None:
            self._announced[source, id(attributes)] = (attributes, keys)
        else:
            packed[1].extend(keys)

    def remove(self, key: K) -> None:
        """Withdraw a key; nothing to do where it is not announced."""
        self.remove_all([key])

    def remove_all(self, keys: list[K]) -> None:
        """Withdraw keys, where they are announced."""
        for old, mine in _runs(list(map(self._newest.get, keys)), keys):
            if old is not None and old.attributes is not None:
                self.size -= len(mine)
                self._supersede(mine, old)
                self._withdrawn.setdefault(old.source, []).extend(mine)

    def _supersede(self, keys: Sequence[K], old: Message[K]) -> None:
        """`old` is no more the newest entry of these keys of it."""
        old.alive -= len(keys)
        if not old.alive:
            self._kill(old)
        elif old.attributes is not None:
            old.carried = True
            for key in keys:
                self._carriers.setdefault(key, []).append(old)

    def _kill(self, message: Message[K]) -> None:
        if message.carried:
            self._forget_carrier(message)
        segment = message.segment
        if segment is not None:
            segment.kill(message)
            if segment.dead_bytes * 4 > len(segment.view):
                self._mark(segment)

    def _forget_carrier(self, message: Message[K]) -> None:
        """The message is dead, or was encoded again without what it carried."""
        message.carried = False
        for key in message.keys:
            carriers = self._carriers.get(key)
            if carriers is not None and message in carriers:
                carriers.remove(message)
                if not carriers:
                    del self._carriers[key]

    def commit(self) -> bool:
        """Encode what was collected and append it; whether there was anything."""
        messages: list[Message[K]] = []
        owed, self._owed = self._owed, {}
        for source, keys in owed.items():
            cursor = self.cursors.get(source)
            if cursor is not None:
                for data, _ in self._encoder.withdraw(keys):
                    cursor.direct(Directed(self.next_seq, data))
                if cursor.waiting > MOST_DIRECTED:
                    self.overrun.append(cursor)
        withdrawn, self._withdrawn = self._withdrawn, {}
        for source, keys in withdrawn.items():
            self._append(messages, source, None, self._encoder.withdraw(keys))
        self._withdrawals.extend(messages)
        announced, self._announced = self._announced, {}
        for (source, _), (attributes, keys) in announced.items():
            self._append(messages, source, attributes, self._encoder.announce(attributes, keys))
        if messages:
            self._store(messages)
        self._expire()
        self._compact()
        return bool(messages or owed)

    def _append(
        self,
        messages: list[Message[K]],
        source: SourceId,
        attributes: object | None,
        encoded: Iterable[tuple[bytes, Sequence[K]]],
    ) -> None:
        for data, keys in encoded:
            message = Message(self.next_seq, source, attributes, data, keys)
            self.next_seq += 1
            messages.append(message)
            self._newest.update(dict.fromkeys(keys, message))

    def _store(self, messages: list[Message[K]]) -> None:
        last = self._segments[-1] if self._segments else None
        if last is not None and len(last.view) < SEGMENT_SIZE and id(last) not in self._dirty:
            last.extend(messages)
            return
        self._segments.append(Segment(messages))
        self._firsts.append(messages[0].seq)

    # -- compaction -------------------------------------------------------------------------------

    def slowest(self) -> int:
        """From where on withdrawals are needed by any cursor; the end of the log without one."""
        return min((cursor.needs_from for cursor in self.apart.values()), default=self.next_seq)

    def _expire(self) -> None:
        """Let withdrawals go that every cursor has passed."""
        waiting = self._withdrawals
        while waiting and not waiting[0].alive:
            waiting.popleft()
        if not waiting:
            return
        slowest = self.slowest()
        while waiting and (waiting[0].seq < slowest or not waiting[0].alive):
            message = waiting.popleft()
            if message.alive == len(message.keys):
                deque(map(self._newest.__delitem__, message.keys), 0)
            else:
                for key in message.keys:
                    if self._newest.get(key) is message:
                        del self._newest[key]
            if message.alive:
                message.alive = 0
                self._kill(message)

    def _cut(self, message: Message[K]) -> None:
        """Encode a message again without its superseded keys."""
        keys = [key for key in message.keys if self._newest.get(key) is message]
        self._forget_carrier(message)
        ((message.data, message.keys),) = self._encoder.announce(message.attributes, keys)
        if message.segment is not None:
            self._mark(message.segment)

    def _mark(self, segment: Segment[K]) -> None:
        self._dirty[id(segment)] = segment

    def _compact(self) -> None:
        """Rebuild the segments in which something died, and join small neighbours."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        kept: list[Segment[K]] = []
        for segment in self._segments:
            if id(segment) not in dirty:
                kept.append(segment)
                continue
            alive = [message for message in segment.messages if message.alive]
            if alive and kept and len(kept[-1].view) < SEGMENT_SIZE and len(segment.view) < SEGMENT_SIZE:
                kept[-1].extend(alive)
            elif alive:
                kept.append(Segment(alive))
        self._segments = kept
        self._firsts = [segment.seqs[0] for segment in kept]

    def cut_all(self) -> None:
        """Cut every superseded key out: who begins at the oldest entry must learn no dead path.

        It skips its own messages and old withdrawals, which are what would correct it.
        """
        for carriers in list(self._carriers.values()):
            for message in list(carriers):
                self._cut(message)
        self._compact()

    # -- reading ----------------------------------------------------------------------------------

    def join(self, source: SourceId) -> Cursor[K]:
        """A cursor at the oldest entry, for the client that is this source; replaces its earlier one."""
        self.cut_all()
        before = self.cursors.get(source)
        if before is not None:
            before.stand_alone()
        cursor = self.cursors[source] = self.apart[source] = Cursor(self, source)
        return cursor

    def leave(self, cursor: Cursor[K]) -> None:
        """Wait for this client no more."""
        cursor.stand_alone()
        if self.cursors.get(cursor.source) is cursor:
            del self.cursors[cursor.source], self.apart[cursor.source]

    def segments_from(self, seq: int) -> Iterable[tuple[Segment[K], int]]:
        """The segments that hold messages from `seq` on, each with the index of its first such message."""
        at = max(0, bisect_right(self._firsts, seq) - 1)
        for segment in self._segments[at:]:
            first = bisect_left(segment.seqs, seq)
            if first < len(segment.seqs):
                yield segment, first


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

    def __init__(self, log: FanoutLog[K], source: SourceId) -> None:
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

    def direct(self, message: Directed) -> None:
        """Have a message for this client alone sent at its place; places never go back."""
        self.stand_alone()
        self._directed.append(message)

    def at_end(self, data: bytes, *, lasting: bool = False) -> None:
        """Have `data` (an End-of-RIB, an EoRR) sent when all that is in the log now has been."""
        self.direct(Directed(self.log.next_seq, data, lasting))

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

    @property
    def planned_end(self) -> int:
        """The place behind the last `next_slices`."""
        return self._plan_end

    @property
    def planned_messages(self) -> int:
        """How many messages of the log are in the last `next_slices`."""
        return sum(part.last - part.first for part in self._plan if not isinstance(part, Directed))

    def planned_sources(self) -> set[SourceId]:
        """Whose messages of the log are in the last `next_slices`."""
        return {
            message.source
            for part in self._plan
            if not isinstance(part, Directed)
            for message in part.segment.messages[part.first : part.last]
        }

    def follow(self, lead: Cursor[K], size: int) -> None:
        """`size` bytes of what another cursor at this place has planned were taken by this one."""
        self.seq, self._plan, self._plan_end = lead.seq, lead._plan, lead._plan_end
        if size:
            self.sent(size)

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
