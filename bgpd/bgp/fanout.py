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
- A cursor stands between messages (`bgpd.bgp.cursor`).  The rest of a started message belongs to the client.
- A mark (End-of-RIB) comes behind all entries that were there when it was set, also where they changed since.

Sans-I/O: no sockets, no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from bgpd.bgp.cursor import Cursor, Directed
from bgpd.bgp.segment import Batch, Message, Segment, SourceId

K = TypeVar("K", bound=Hashable)

SEGMENT_SIZE = 1 << 16
"""Bytes up to which new messages join the last segment."""
MOST_DIRECTED = 10_000
"""Messages for one client alone that may wait for it."""


class Encoder(Protocol[K]):
    """Makes whole messages, and says which keys went into each."""

    def announce(self, attributes: object, keys: Sequence[K]) -> list[tuple[bytes, Sequence[K]]]: ...
    def withdraw(self, keys: Sequence[K]) -> list[tuple[bytes, Sequence[K]]]: ...


class Standing(Protocol):
    """A cursor, or a front of many."""

    @property
    def needs_from(self) -> int: ...


class FanoutLog(Generic[K]):
    """The log of one update group.  `put` and `remove` collect, `commit` appends, `tidy` compacts."""

    def __init__(self, encoder: Encoder[K]) -> None:
        self._encoder = encoder
        self._segments: list[Segment[K]] = []
        self._firsts: list[int] = []
        self._fresh: list[Message[K]] = []
        """Appended, and in no segment yet: who has all else needs none."""
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
        self.apart: dict[SourceId, Standing] = {}
        """Those that stand alone, and one for all that stand at a front."""
        self.next_seq = 0
        self.marked: dict[Cursor[K], None] = {}
        """Cursors with a mark that waits, such as End-of-RIB; others are dropped when they come up."""
        self._killed: list[Message[K]] = []
        """Dead, which their segments do not know yet: nobody who is being written to has to wait for it."""
        self._moved: list[int] = []
        """The places of entries that are announced anew, at the end."""
        self.overrun: list[Cursor[K]] = []
        """Cursors with too much waiting for them alone; the caller begins them anew, or ends them."""
        self.size = 0
        """Keys that are announced."""
        self.untidy = False
        """Whether there was a commit since the last `tidy`."""

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
        stored = sum(len(segment.view) for segment in self._segments)
        return stored + sum(len(message.data) for message in self._fresh)

    def known(self) -> Collection[K]:
        """Every key that a reader may hold: what is announced, and what any has still to be withdrawn of."""
        return self._newest.keys()

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
        for old, mine in self._entries(keys):
            if old is None:
                self.size += len(mine)
                continue
            if old.source != source:
                self._owed.setdefault(source, []).extend(mine)
            self._supersede(mine, old)
            if old.attributes is None:
                self.size += len(mine)
            else:
                self._moved.append(old.seq)
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
        for old, mine in self._entries(keys):
            if old is not None and old.attributes is not None:
                self.size -= len(mine)
                self._supersede(mine, old)
                self._withdrawn.setdefault(old.source, []).extend(mine)

    def _entries(self, keys: list[K]) -> Iterable[tuple[Message[K] | None, Sequence[K]]]:
        """The newest entries, each with the keys of which it is; most often all are one's."""
        newest = self._newest
        first = newest.get(keys[0])
        if len(keys) == 1:
            return ((first, keys),)
        messages = list(map(newest.get, keys))
        if messages.count(first) == len(messages):
            return ((first, keys),)
        found: dict[Message[K] | None, list[K]] = {}
        for message, key in zip(messages, keys, strict=True):
            found.setdefault(message, []).append(key)
        return found.items()

    def _supersede(self, keys: Sequence[K], old: Message[K]) -> None:
        """`old` is no more the newest entry of these keys of it."""
        old.alive -= len(keys)
        if not old.alive:
            self._killed.append(old)
        elif old.attributes is not None:
            old.carried = True
            for key in keys:
                self._carriers.setdefault(key, []).append(old)

    def _bury(self) -> None:
        """Note in the segments what has died."""
        killed, self._killed = self._killed, []
        for message in killed:
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
        self._fresh += messages
        if self.marked:
            self._postpone_marks()
        self._moved.clear()
        self.untidy = True
        return bool(messages or owed)

    def tidy(self) -> None:
        """Let go of what nobody needs any more: some time after a commit, since no reader waits for it."""
        self.untidy = False
        self._expire()
        self._store()
        self._compact()

    def _postpone_marks(self) -> None:
        """Let no mark come before an entry that was there when it was set, and has changed since.

        Or its reader would drop a path that it is told again a moment later.
        """
        for cursor in list(self.marked):
            if self.cursors.get(cursor.source) is not cursor or not cursor.postpone_marks(self._moved):
                del self.marked[cursor]

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

    def _store(self) -> None:
        """Have all that was appended in segments, and in these what has died known as dead."""
        self._bury()
        messages, self._fresh = [message for message in self._fresh if message.alive], []
        if not messages:
            return
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
                self._killed.append(message)

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
        self._bury()
        for carriers in list(self._carriers.values()):
            for message in list(carriers):
                self._cut(message)
        self._store()
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
        self._store()
        at = max(0, bisect_right(self._firsts, seq) - 1)
        for segment in self._segments[at:]:
            first = bisect_left(segment.seqs, seq)
            if first < len(segment.seqs):
                yield segment, first

    def since(self, seq: int, limit: int) -> tuple[Batch, int]:
        """What is alive from `seq` on, about `limit` bytes of it, and the place behind that."""
        found, end = self._fresh, self.next_seq
        if not found or found[0].seq > seq:
            found, size = [], 0
            for segment, at in self.segments_from(seq):
                found += segment.messages[at:]
                size += segment.ends[-1] - segment.start(at)
                if size > limit:
                    end = found[-1].seq + 1
                    break
        if len(found) == 1:
            (each,) = found
            return ([(each.seq, each.source, each.data)] if each.alive and each.seq >= seq else []), end
        batch = [(each.seq, each.source, each.data) for each in found if each.alive and each.seq >= seq]
        left = limit
        for at, (place, _, data) in enumerate(batch):
            left -= len(data)
            if left < 0:
                return batch[: at + 1], place + 1
        return batch, end
