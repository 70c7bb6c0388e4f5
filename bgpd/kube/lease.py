"""One controller at a time: leader election by a Lease (coordination.k8s.io/v1).

`Candidacy` is the whole protocol as a state machine without a clock or a socket; `LeaseHolder` runs it in a
thread, because its calls block.  What it rests on:

- **Our own clock alone.**  The times in a Lease are another machine's; they are only compared for equality.
  A Lease may be taken when it has not changed for its duration since *we* saw it first.
- **The leader stops first.**  It leads until `RENEW_DEADLINE` after it *sent* the last renewal that was
  confirmed; others wait `DURATION`, which is longer, from a moment that is later.  Between them lies the time
  that a write already under way may take (`WRITE_TIMEOUT` in the controller).
- **Compare and swap.**  Every write carries the version that was read, so that of two takers one wins.

It must never say that we lead because nothing was heard to the contrary.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

import msgspec
import structlog

from bgpd.kube.client import KubeClient
from bgpd.kube.errors import Conflict, KubeError, NotFound

log = structlog.get_logger()

DURATION = 15
"""Seconds that others wait, as the Lease says."""
RENEW_DEADLINE = 10.0
"""Seconds for which a confirmed renewal lets us act."""
RETRY = 2.0
"""Seconds between two renewals, or two looks at another's Lease."""
CALL_TIMEOUT = 3.0
"""Of the client that is used here: several attempts must fit into the deadline."""
LONGEST_DURATION = 3600
"""A Lease that claims more is not believed."""
PATH = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

Body = Mapping[str, object]


class _Meta(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815  as in the API
    uid: str = ""


class _Spec(msgspec.Struct):
    holderIdentity: str | None = None  # noqa: N815  as in the API
    leaseDurationSeconds: int | None = None  # noqa: N815  as in the API
    acquireTime: str | None = None  # noqa: N815  as in the API
    renewTime: str | None = None  # noqa: N815  as in the API
    leaseTransitions: int | None = None  # noqa: N815  as in the API


class _Lease(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)


_LEASE = msgspec.json.Decoder(_Lease)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as read.  Its times are text: another machine's, or given back as they are."""

    holder: str = ""
    duration: int = DURATION
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0
    version: str = ""


def decode_lease(raw: bytes) -> LeaseRecord:
    """A Lease from its JSON; ValueError where it is none."""
    wire = _LEASE.decode(raw)
    spec = wire.spec
    return LeaseRecord(
        holder=spec.holderIdentity or "",
        duration=min(max(spec.leaseDurationSeconds or DURATION, 1), LONGEST_DURATION),
        acquired=spec.acquireTime or "",
        renewed=spec.renewTime or "",
        transitions=spec.leaseTransitions or 0,
        version=wire.metadata.resourceVersion,
    )


class Want(Enum):
    """What a candidate asks of the API server."""

    READ = "read"
    CREATE = "create"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Request:
    """One call; the answer goes to `Candidacy.answered` or `failed`."""

    want: Want
    record: LeaseRecord = LeaseRecord()
    """What is to be written; for REPLACE with the version that it replaces."""


class Candidacy:
    """The protocol.  Times are seconds of a clock that never goes back; `wall` is the time of day as text."""

    def __init__(self, identity: str, *, jitter: Callable[[], float] = random.random) -> None:
        self.identity = identity
        self._jitter = jitter
        self._seen: LeaseRecord | None = None
        self._seen_at = 0.0
        self._lead_until = float("-inf")
        self._ask_at = float("-inf")
        self._missing = False
        """Whether the API server said that there is no Lease."""
        self._sent_at = 0.0
        self._held = False
        """Whether our last confirmed write holds the Lease, expired or not."""
        self.left = False

    def leads(self, now: float) -> bool:
        """Whether we may act now."""
        return now < self._lead_until

    @property
    def lead_until(self) -> float:
        return self._lead_until

    @property
    def holder(self) -> str:
        """Who leads, as far as is known."""
        return self._seen.holder if self._seen else ""

    def next(self, now: float, wall: str) -> Request | float:
        """What to ask now, or how many seconds to wait."""
        if now < self._ask_at:
            return self._ask_at - now
        self._sent_at = now
        seen = self._seen
        if self._missing:
            return Request(Want.CREATE, self._mine(wall, 0))
        if seen is None or not (self._held or self._free(seen, now)):
            return Request(Want.READ)
        if seen.holder == self.identity:
            return Request(Want.REPLACE, replace(seen, renewed=wall, duration=DURATION))
        return Request(Want.REPLACE, replace(self._mine(wall, seen.transitions + 1), version=seen.version))

    def _mine(self, wall: str, transitions: int) -> LeaseRecord:
        return LeaseRecord(self.identity, DURATION, wall, wall, transitions)

    def _free(self, seen: LeaseRecord, now: float) -> bool:
        return seen.holder in {"", self.identity} or now >= self._seen_at + seen.duration

    def answered(self, now: float, request: Request, record: LeaseRecord) -> None:
        """The API server answered with the Lease as it is now."""
        self._missing = False
        if record != self._seen:
            self._seen, self._seen_at = record, now
        mine = record.holder == self.identity
        if request.want is not Want.READ and mine:
            self._held = True
            self._lead_until = self._sent_at + RENEW_DEADLINE
        elif not mine:
            self._lose()
        free = request.want is Want.READ and self._free(record, now)
        self._ask_at = now if free else now + self._pause(record, now)

    def _pause(self, record: LeaseRecord, now: float) -> float:
        """A retry's time, or less where another's Lease ends before."""
        pause = RETRY * (1.0 + 0.2 * self._jitter())
        if record.holder == self.identity:
            return pause
        return min(pause, max(self._seen_at + record.duration - now, 0.0) + 0.2 * self._jitter())

    def failed(self, now: float, error: KubeError) -> None:
        """The call did not succeed.  What we held may be held still, but nothing was confirmed."""
        self._ask_at = now + max(RETRY * (0.5 + 0.5 * self._jitter()), min(error.retry_after or 0.0, 30.0))
        if isinstance(error, NotFound):
            if not self._missing:  # else: the namespace is missing too
                self._ask_at = now
            self._missing, self._seen = True, None
            self._lose()
        elif isinstance(error, Conflict):  # someone wrote it meanwhile: read who
            self._missing, self._held, self._seen, self._ask_at = False, False, None, now

    def leave(self, now: float, wall: str) -> Request | None:
        """Stop leading, at once; the write that lets others in without a wait, if the Lease is ours."""
        self.left = True
        leading, seen = self.leads(now), self._seen
        self._lose()
        if not leading or seen is None:
            return None
        return Request(Want.REPLACE, replace(seen, holder="", duration=1, renewed=wall))

    def _lose(self) -> None:
        self._held = False
        self._lead_until = float("-inf")


def lease_body(name: str, namespace: str, record: LeaseRecord) -> Body:
    """The JSON of a Lease that is to be written."""
    metadata = {"name": name, "namespace": namespace}
    if record.version:
        metadata["resourceVersion"] = record.version
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": record.duration,
            "acquireTime": record.acquired or None,
            "renewTime": record.renewed or None,
            "leaseTransitions": record.transitions,
        },
    }


def steady_clock() -> float:
    """Seconds that never go back, and go on while the machine is suspended: others take the Lease then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_clock() -> str:
    """Now, as the API writes a MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class LeaseHolder:
    """A candidacy, run in a thread.  `leads` is safe from any thread and needs no answer of anybody."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        changed: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`client`: of its own, with `CALL_TIMEOUT`.  `changed` is told in the thread when `leads` changed;
        where the API server hangs, only after the call in which it expired."""
        self._client = client
        self._path = PATH.format(namespace=namespace)
        self._namespace, self._name = namespace, name
        self._candidacy = Candidacy(identity)
        self._changed = changed
        self._leading = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self.error = ""
        """Why the last call failed; empty when it did not."""

    def start(self) -> None:
        self._thread.start()

    def leads(self) -> bool:
        return not self._stop.is_set() and self._candidacy.leads(steady_clock())

    @property
    def lead_until(self) -> float:
        """Until when, by `steady_clock`, if no renewal is confirmed before."""
        return self._candidacy.lead_until

    @property
    def holder(self) -> str:
        return self._candidacy.holder

    def stop(self, wait: float = CALL_TIMEOUT + 1.0) -> None:
        """Stop leading now, and give the Lease up if that can be done in `wait` seconds."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(wait)
        self._client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            step = self._candidacy.next(steady_clock(), wall_clock())
            if isinstance(step, Request):
                self._perform(step)
            else:
                left = self._candidacy.lead_until - steady_clock()
                self._stop.wait(min(step, left) if left > 0 else step)
            self._tell()
        last = self._candidacy.leave(steady_clock(), wall_clock())
        if last is not None:
            self._perform(last)

    def _perform(self, request: Request) -> None:
        target = f"{self._path}/{self._name}"
        body = lease_body(self._name, self._namespace, request.record)
        try:
            if request.want is Want.READ:
                answer = self._client.get(target)
            elif request.want is Want.CREATE:
                answer = self._client.create(self._path, body)
            else:
                answer = self._client.replace(target, body)
            record = decode_lease(answer)
        except KubeError as error:
            self._note_failure(error)
            return
        except ValueError as error:
            self._note_failure(KubeError(0, "NoLease", f"the answer is no Lease: {error}", where=target))
            return
        self.error = ""
        if not self._candidacy.left:
            self._candidacy.answered(steady_clock(), request, record)

    def _note_failure(self, error: KubeError) -> None:
        self.error = str(error)
        self._candidacy.failed(steady_clock(), error)

    def _tell(self) -> None:
        leading = self.leads()
        if leading == self._leading:
            return
        self._leading = leading
        if leading:
            log.info("leads now", lease=self._name)
        else:
            log.warning("leads no longer", lease=self._name, holder=self.holder, reason=self.error)
        self._changed(leading)
