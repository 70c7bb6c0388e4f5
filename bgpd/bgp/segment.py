"""A run of encoded messages in one buffer: what `fanout.py` sends slices of, and compacts.

Knows which of its messages are dead, whose each is, and which are withdrawals, so that a reader finds the
ranges that it may send without looking at single messages.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

SourceId = int
"""Names a peer: what it announces is not sent back to it, whichever session it uses."""

Batch = list[tuple[int, SourceId, bytes]]
"""Messages as they are written: place, source, and bytes, which the log may encode again meanwhile."""


class Message(Generic[K]):
    """One encoded UPDATE."""

    __slots__ = ("alive", "attributes", "carried", "data", "keys", "segment", "seq", "source")

    def __init__(
        self, seq: int, source: SourceId, attributes: object | None, data: bytes, keys: Sequence[K]
    ) -> None:
        self.seq = seq
        self.source = source
        self.attributes = attributes
        """None: a withdrawal."""
        self.data = data
        self.keys = keys
        self.alive = len(keys)
        """Keys of which this is the newest entry."""
        self.carried = False
        """A superseded key of it is noted in the log's `_carriers`."""
        self.segment: Segment[K] | None = None


class Segment(Generic[K]):
    """Messages one after another as one buffer; dead ones stay until enough of it is dead."""

    __slots__ = (
        "_runs",
        "dead",
        "dead_bytes",
        "ends",
        "messages",
        "of_source",
        "seqs",
        "view",
        "withdrawals",
    )

    def __init__(self, messages: list[Message[K]]) -> None:
        self.messages: list[Message[K]] = []
        self.seqs: list[int] = []
        self.ends: list[int] = []
        """Where each message ends in `view`."""
        self.of_source: dict[SourceId, list[int]] = {}
        """The indices of each source's messages."""
        self.withdrawals: list[int] = []
        self.view = memoryview(b"")
        self.dead: list[int] = []
        self.dead_bytes = 0
        self._runs: list[tuple[int, int]] | None = None
        self.extend(messages)

    def extend(self, messages: list[Message[K]]) -> None:
        """Append messages."""
        for at, message in enumerate(messages, len(self.messages)):
            message.segment = self
            self.of_source.setdefault(message.source, []).append(at)
            if message.attributes is None:
                self.withdrawals.append(at)
        self.messages += messages
        self.seqs += [message.seq for message in messages]
        size = len(self.view)
        self.ends += [size + end for end in accumulate(len(message.data) for message in messages)]
        self.view = memoryview(b"".join([self.view, *[message.data for message in messages]]))
        self._runs = None

    def kill(self, message: Message[K]) -> None:
        """The message is superseded as a whole."""
        insort(self.dead, bisect_left(self.seqs, message.seq))
        self.dead_bytes += len(message.data)
        self._runs = None

    def dead_after(self, index: int) -> bool:
        """Whether any message from `index` on is dead."""
        return bool(self.dead) and self.dead[-1] >= index

    def start(self, index: int) -> int:
        """Where a message begins in `view`."""
        return self.ends[index - 1] if index else 0

    def runs(self, first: int, last: int, skipped: Sequence[int]) -> Iterable[tuple[int, int]]:
        """Maximal ranges of indices in `first` to `last` without dead messages and without `skipped`."""
        if not skipped and not self.dead:
            return ((first, last),)
        if self._runs is None:
            self._runs = list(_between(0, len(self.seqs), self.dead))
        if not skipped:
            return ((max(a, first), min(b, last)) for a, b in self._runs if b > first and a < last)
        return _between(first, last, sorted({*skipped, *self.dead}) if self.dead else skipped)


def _between(first: int, last: int, holes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The ranges of `first` to `last` between the holes."""
    for hole in holes[bisect_left(holes, first) :]:
        if hole >= last:
            break
        if hole > first:
            yield first, hole
        first = hole + 1
    if first < last:
        yield first, last
