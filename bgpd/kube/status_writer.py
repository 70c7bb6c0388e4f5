"""One write of a status: read the object, write what is still right, and only onto what was read.

Blocks, and belongs in a thread.  It must never write over a change that it has not seen (409: read again),
onto another object of the same name, or when `may` says that somebody else writes now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

import msgspec
import structlog

from bgpd.kube.client import KubeClient
from bgpd.kube.errors import Conflict, KubeError, Nonsense, NotFound
from bgpd.kube.events import EventWrite
from bgpd.kube.write_queue import Write

log = structlog.get_logger()

ATTEMPTS = 3
"""At an object that others change at the same time."""


class Result(Enum):
    """What came of a write."""

    WRITTEN = "written"
    NEEDLESS = "needless"
    """The object says so already, or the write is not right any more."""
    GONE = "gone"
    NOT_OURS = "not-ours"
    """Somebody else leads."""


class _Meta(msgspec.Struct):
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815  as in the API


class _Object(msgspec.Struct):
    metadata: _Meta
    status: dict[str, object] = {}


_OBJECT = msgspec.json.Decoder(_Object)


class StatusWriter:
    """Performs writes for the controller."""

    def __init__(self, client: KubeClient, may: Callable[[], bool]) -> None:
        """`may`: whether we lead, asked right before each write."""
        self._client = client
        self._may = may

    def perform(self, write: Write) -> Result:
        """Raises KubeError where it should be tried again."""
        for attempt in range(ATTEMPTS):
            try:
                return self._attempt(write)
            except NotFound:
                return Result.GONE
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _attempt(self, write: Write) -> Result:
        if not self._may():
            return Result.NOT_OURS
        raw = self._client.get(write.path)
        try:
            found = _OBJECT.decode(raw)
            right = write.still is None or write.still(raw)
        except ValueError as error:
            raise Nonsense(200, "Unreadable", str(error)[:300], where=write.path) from error
        if found.metadata.uid != write.uid:
            return Result.GONE
        if not right or _says(found.status, write.status):
            return Result.NEEDLESS
        body = {"metadata": {"resourceVersion": found.metadata.resourceVersion}, "status": write.status}
        if not self._may():
            return Result.NOT_OURS
        self._client.patch(write.path, body, "merge", subresource="status")
        return Result.WRITTEN

    def tell(self, events: list[EventWrite]) -> int:
        """Write events; answers how many could not be, which are lost: they are hints."""
        lost = 0
        for event in events:
            if not self._may():
                return lost
            try:
                if event.create:
                    self._client.create(event.path, event.body)
                else:
                    self._client.patch(event.path, event.body, "merge")
            except KubeError as error:
                lost += 1
                log.debug("an event was lost", path=event.path, reason=str(error))
        return lost


def _says(status: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """Whether a merge patch with `wanted` would change nothing."""
    for key, value in wanted.items():
        found = status.get(key)
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            if not _says(found, value):
                return False
        elif isinstance(value, Mapping):
            if not _says({}, value):
                return False
        elif found != value:
            return False
    return True
