"""One resource of the API server, kept up to date by list and watch in a thread beside the event loop.

Owns: the resource version to go on from, and every reason to list again: history compacted away (410, as an
answer or inside the stream), an API server that was restored from an older backup (its versions lie before
ours, and a watch from "the future" is silent for ever), an answer that makes no sense.

An API server that is away, slow, or answers nonsense changes nothing: what is known stays, and `status` says
how old it is and why.  Only a whole list that is a list of this kind, with a version, can delete anything
that no DELETED event named.  Must never: run on the event loop, wait without a bound, or let a slow listener
make memory grow (`on_loop` lets the next events wait in the socket).
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from bgpd.kube.errors import Gone, KubeError, Nonsense, Unavailable, error_for
from bgpd.kube.known import Batch, Identity, Known

if TYPE_CHECKING:
    from bgpd.kube.client import KubeClient

__all__ = ["Batch", "Pace", "Resource", "Watch", "WatchStatus", "on_loop"]

T = TypeVar("T")

MOST_PER_BATCH = 1000
_PAGE = 250  # of Nodes, the largest objects: 3 MB


@dataclass(frozen=True)
class Resource(Generic[T]):
    """What to watch, and how to read it: `decode` takes the JSON of one object and raises ValueError."""

    path: str
    kind: str
    decode: Callable[[bytes], T]
    field_selector: str = ""
    label_selector: str = ""

    def query(self) -> dict[str, str | int | bool]:
        selectors = {"fieldSelector": self.field_selector, "labelSelector": self.label_selector}
        return {name: text for name, text in selectors.items() if text}


@dataclass(frozen=True)
class Pace:
    """Seconds.  A watch is asked to end after `watch` to twice that: not all clients return at once."""

    watch: float = 300.0
    idle: float = 90.0  # bookmarks come every minute, before 1.21 only where something changed
    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_wait_away: float = 5.0  # nobody answers: asking costs nobody anything
    longest_retry_after: float = 120.0
    between_lists: float = 10.0  # one that is needed sooner waits, longer each time


@dataclass(frozen=True)
class WatchStatus:
    """`error` is empty while all is well; else what is known is from `last_heard` (monotonic, or 0)."""

    synced: bool
    last_heard: float
    error: str
    objects: int
    malformed: tuple[tuple[str, str], ...] = ()
    lists: int = 0
    events: int = 0


class _Meta(msgspec.Struct, frozen=True):
    uid: str = ""
    name: str = ""
    namespace: str = ""
    version: str = msgspec.field(default="", name="resourceVersion")


class _Head(msgspec.Struct, frozen=True):
    """Of any object; the last three fields are those of a Status."""

    kind: str = ""
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    code: int = 0
    reason: str = ""
    message: str = ""


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _List(msgspec.Struct, frozen=True):
    kind: str
    metadata: _Meta
    items: list[msgspec.Raw] | None


_HEAD = msgspec.json.Decoder(_Head)
_EVENT = msgspec.json.Decoder(_Event)
_LIST = msgspec.json.Decoder(_List)
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Watch(Generic[T]):
    """List and watch in a thread of its own.

    `deliver` is called there, one batch at a time.  Where it answers with an event, nothing more is read
    until that is set (`on_loop` makes such a `deliver` for an event loop).
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource[T],
        deliver: Callable[[Batch[T]], threading.Event | None],
        pace: Pace | None = None,
        *,
        random_source: Callable[[], float] = random.random,
    ) -> None:
        self._client = client.sibling()
        self._resource, self._deliver, self._pace = resource, deliver, pace or Pace()
        self._random = random_source
        self._known: Known[T] = Known()
        self._version = ""  # of the last list, event or bookmark; empty: list
        self._doubt = False  # something failed: is it still the server that gave us the version?
        self._failures = 0
        self._lists_in_a_row = 0
        self._listed = -1e9
        self._stopped = threading.Event()
        self._taken = threading.Event()
        self._status = WatchStatus(synced=False, last_heard=0.0, error="not heard from yet", objects=0)
        self._thread = threading.Thread(target=self._run, name=f"watch {resource.path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, wait: float = 2.0) -> None:
        """End at once, wherever the thread hangs.  From the event loop: with no `wait`."""
        self._stopped.set()
        self._taken.set()
        self._client.close()
        if self._thread.ident is not None:
            self._thread.join(wait)

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def status(self) -> WatchStatus:
        return self._status

    def _run(self) -> None:
        try:
            while not self.stopped:
                self._stopped.wait(self._round())
        finally:
            if not self.stopped:  # ours: the interpreter reports it, and nobody takes what is known for fresh
                self._note(error="the watch thread ended by an error of podbgp itself; see the log")

    def _round(self) -> float:
        """List where necessary, then watch until that ends; answers how long to wait before the next."""
        try:
            if self._version and self._doubt:
                self._check_version()
            if not self._version:
                self._list()
            self._doubt = False
            self._watch()
        except KubeError as error:
            return 0.0 if self.stopped else self._wait_after(error)
        return 0.0

    def _wait_after(self, error: KubeError) -> float:
        pace = self._pace
        self._doubt = True
        if isinstance(error, Gone | Nonsense):
            self._version = ""
            lately = time.monotonic() - self._listed < pace.between_lists
            self._lists_in_a_row = self._lists_in_a_row + 1 if lately else 0
            if isinstance(error, Gone) and not lately:
                return 0.0  # expected once in a while
        self._failures += 1
        self._note(error=str(error))
        longest = pace.longest_wait if error.status else pace.longest_wait_away
        doublings = max(self._failures - 1, self._lists_in_a_row)
        wait = min(longest, pace.first_wait * 2.0 ** min(doublings, 10))
        if error.retry_after is not None:  # never before the time that we were told
            told = min(error.retry_after, pace.longest_retry_after)
            return max(wait, told) * (1.0 + 0.25 * self._random())
        return wait * (0.5 + 0.5 * self._random())

    def _check_version(self) -> None:
        """A version before ours is another history: ours would be "in the future", and its watch silent."""
        body = self._client.get(self._resource.path, **self._resource.query(), limit=1)
        if _number(self._read_list(body).metadata.version) < _number(self._version):
            self._version = ""

    def _list(self) -> None:
        """The whole list, applied only when all of it has come."""
        seen: set[str] = set()
        nameless = 0
        version = ""
        objects: list[tuple[Identity, T | _Problem]] = []
        for page in self._client.pages(self._resource.path, self._resource.query(), limit=_PAGE):
            if page.first:
                seen, nameless, objects = set(), 0, []
            head = self._read_list(page.body)
            version = head.metadata.version
            for item in head.items or ():
                who, value = self._read_object(bytes(item))
                if who is None:
                    nameless += 1
                else:
                    seen.add(who.uid)
                    objects.append((who, value))
        for who, value in objects:
            self._put(who, value)
        if not nameless:  # else nobody may be taken for gone: it may be the one without a name
            self._known.keep_only(seen)
        self._version, self._listed = version, time.monotonic()
        trouble = f"{self._resource.path}: {nameless} objects without uid and name" if nameless else ""
        self._note(lists=self._status.lists + 1, error=trouble)
        self._tell(listed=True)

    def _watch(self) -> None:
        query = {**self._resource.query(), "resourceVersion": self._version, "allowWatchBookmarks": True}
        timeout = self._pace.watch * (1.0 + self._random())
        begun = time.monotonic()
        accepted = False
        try:
            for lines in self._client.stream(self._resource.path, query, timeout, self._pace.idle):
                accepted = True
                self._take(lines)
        except Unavailable as error:
            if accepted and error.reason == "Timeout" and not self.stopped:
                return  # nothing happened, or the server hangs: its answer to the next watch tells which
            raise
        if (
            time.monotonic() - begun < timeout - 2.0
        ):  # a server that stops: who knows what starts in its place
            raise Unavailable(0, "EndedEarly", "the watch ended before its time", where=self._resource.path)
        self._failures = 0

    def _take(self, lines: list[bytes]) -> None:
        try:
            for line in lines:
                self._event(line)
        finally:  # what came before an ERROR or nonsense in the same read counts
            self._failures = 0 if lines else self._failures
            self._note(error="", events=self._status.events + len(lines))
            self._tell()

    def _event(self, line: bytes) -> None:
        try:
            event = _EVENT.decode(line)
            body = bytes(event.object)
            head = _HEAD.decode(body)
        except _UNREADABLE as error:
            raise Nonsense(200, "NotAnEvent", str(error)[:300], where=self._resource.path) from error
        if event.type == "ERROR":
            raise error_for(head.code or 200, head.reason, head.message[:1000], where=self._resource.path)
        if event.type not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") or head.kind != self._resource.kind:
            message = f"event {event.type[:20]!r} of kind {head.kind[:60]!r}; expected {self._resource.kind}"
            raise Nonsense(200, "WrongKind", message, where=self._resource.path)
        if _number(head.metadata.version) < _number(self._version):
            raise Gone(410, "OtherHistory", "a resource version before ours", where=self._resource.path)
        if event.type == "DELETED":
            self._known.remove(head.metadata.uid)
        elif event.type != "BOOKMARK":
            who, value = self._read_object(body)
            if who is not None:
                self._put(who, value)
        if head.metadata.version:
            self._version = head.metadata.version

    def _read_list(self, body: bytes) -> _List:
        try:
            found = _LIST.decode(body)
        except _UNREADABLE as error:
            raise Nonsense(200, "NotAList", str(error)[:300], where=self._resource.path) from error
        if found.kind != f"{self._resource.kind}List" or not found.metadata.version:
            message = f"kind {found.kind[:60]!r}, version {found.metadata.version[:20]!r}"
            message = f"{message}; expected {self._resource.kind}List with a version"
            raise Nonsense(200, "NotAList", message, where=self._resource.path)
        return found

    def _read_object(self, body: bytes) -> tuple[Identity | None, T | _Problem]:
        try:
            meta = _HEAD.decode(body).metadata
        except _UNREADABLE as error:
            return None, _Problem(str(error)[:300])
        if not meta.uid or not meta.name:
            return None, _Problem("metadata without uid and name")
        who = Identity(meta.uid, meta.name, meta.namespace)
        try:
            return who, self._resource.decode(body)
        except _UNREADABLE as error:
            return who, _Problem(str(error)[:300])

    def _put(self, who: Identity, value: T | _Problem) -> None:
        if isinstance(value, _Problem):
            self._known.put_malformed(who, value.text)
        else:
            self._known.put(who, value)

    def _tell(self, *, listed: bool = False) -> None:
        """Deliver what the listener has not heard; the first whole list ends with a batch that says so."""
        batches = list(self._known.batches(MOST_PER_BATCH))
        first = not self._status.synced
        emptied = listed and not first and not len(self._known)
        if first and not batches:
            batches = [Batch()]
        for number, batch in enumerate(batches, start=1):
            said = replace(batch, synced=not first or number == len(batches), emptied=emptied)
            self._taken = self._deliver(said) or _TAKEN
            if self.stopped:
                return
            self._taken.wait()
        self._note(synced=True)

    def _note(
        self, *, error: str | None = None, synced: bool | None = None,
        lists: int | None = None, events: int | None = None,
    ) -> None:  # fmt: skip
        """The next status, as one value: other threads read it."""
        now = self._status
        self._status = WatchStatus(
            synced=now.synced if synced is None else synced,
            last_heard=now.last_heard if error else time.monotonic(),
            error=now.error if error is None else error,
            objects=len(self._known),
            malformed=self._known.malformed,
            lists=now.lists if lists is None else lists,
            events=now.events if events is None else events,
        )


def on_loop(
    loop: asyncio.AbstractEventLoop, handle: Callable[[Batch[T]], None]
) -> Callable[[Batch[T]], threading.Event | None]:
    """A `deliver` that runs `handle` on the event loop, one batch at a time: the rest waits in the socket."""

    def deliver(batch: Batch[T]) -> threading.Event | None:
        taken = threading.Event()

        def take() -> None:
            try:
                handle(batch)
            finally:
                taken.set()

        try:
            loop.call_soon_threadsafe(take)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            return None
        return taken

    return deliver


@dataclass(frozen=True)
class _Problem:
    """Why an object can't be read."""

    text: str


def _number(version: str) -> int:
    """Resource versions are numbers that grow (since Kubernetes 1.35 by contract, with etcd ever since)."""
    return int(version) if version.isascii() and version.isdigit() and len(version) < 24 else 0


_TAKEN = threading.Event()
_TAKEN.set()
