"""The thread that writes one node's BGPNodeState when `node_state.py` says so.

Owns the object of its Node's name: creates it with the Node as its owner, so that it goes with the Node.  One
that an earlier Node of that name has left is waited for until the garbage collector has taken it.  It must
never hold up the agent, and an API server that is away costs nothing but the freshness of what it shows.
"""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime

import msgspec
import structlog

from bgpd.kube.client import KubeClient
from bgpd.kube.conditions import merged
from bgpd.kube.custom_state import decode_node_state
from bgpd.kube.custom_values import Condition
from bgpd.kube.errors import Conflict, KubeError, NotFound, Unavailable
from bgpd.kube.node_state import NodeFacts, StateSchedule, object_body, status_body
from bgpd.kube.resources import NODE_STATES

log = structlog.get_logger()

PATH = NODE_STATES.path


class _Owner(msgspec.Struct):
    uid: str


class _Meta(msgspec.Struct):
    ownerReferences: list[_Owner] = []  # noqa: N815  as in the API


class _Object(msgspec.Struct):
    metadata: _Meta


_OBJECT = msgspec.json.Decoder(_Object)


class NodeStateWriter:
    """Writes one node's state.  Every method may be called from any thread; only `stop` waits."""

    def __init__(self, client: KubeClient, node: str, uid: str) -> None:
        """`client`: of its own; `stop` closes it."""
        self._client = client
        self._node, self._uid = node, uid
        self._lock = threading.Condition()
        self._schedule = StateSchedule(node)
        self._conditions: tuple[Condition, ...] = ()
        self._exists = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="node state", daemon=True)
        self.error = ""
        """Why the last write failed; empty when it did not."""
        self.writes = 0

    def start(self) -> None:
        self._thread.start()

    def offer(self, facts: NodeFacts) -> None:
        """What is so now; it is written when its time has come."""
        with self._lock:
            self._schedule.offer(time.monotonic(), facts)
            self._lock.notify()

    def cluster_has(self, nodes: int) -> None:
        """How many nodes there are: the more, the more patient each of them is."""
        with self._lock:
            self._schedule.cluster_has(nodes)

    def node_is(self, uid: str) -> None:
        """The Node's UID, which changes where the Node is deleted and made again."""
        with self._lock:
            if uid != self._uid:
                self._uid, self._exists = uid, False
                self._schedule.forget(time.monotonic())
                self._lock.notify()

    def stop(self, wait: float = 2.0) -> None:
        with self._lock:
            self._stopped = True
            self._lock.notify()
        self._client.close()
        if self._thread.ident is not None:
            self._thread.join(wait)

    def _run(self) -> None:
        while (facts := self._wait()) is not None:
            try:
                self._write(facts)
            except KubeError as error:
                self._note_failure(error)

    def _wait(self) -> NodeFacts | None:
        """What is to be written, once it is due; None at the end."""
        with self._lock:
            while not self._stopped:
                step = self._schedule.next(time.monotonic())
                if isinstance(step, NodeFacts):
                    return step
                self._lock.wait(step)
        return None

    def _write(self, facts: NodeFacts) -> None:
        uid = self._uid
        if not self._exists:
            self._ensure(uid)
        conditions = merged(self._conditions, facts.conditions, datetime.now(UTC), 0)
        body = {"status": status_body(facts, conditions)}
        try:
            self._client.patch(f"{PATH}/{self._node}", body, "merge", subresource="status")
        except NotFound:
            with self._lock:
                self._exists = False
            raise
        with self._lock:
            self._conditions, self.error = conditions, ""
            self.writes += 1
            if uid == self._uid:
                self._exists = True
                self._schedule.wrote(time.monotonic(), facts)

    def _ensure(self, uid: str) -> None:
        """Have the object, and have it owned by this Node and no earlier one of its name."""
        try:
            self._client.create(PATH, object_body(self._node, uid))
        except Conflict:
            self._take_over(uid)
        else:
            self._conditions = ()

    def _take_over(self, uid: str) -> None:
        """Go on with the object that is there, unless it goes with an earlier Node of this name."""
        target = f"{PATH}/{self._node}"
        found = self._client.get(target)
        try:
            meta = _OBJECT.decode(found).metadata
            before = decode_node_state(found).conditions
        except ValueError as error:
            raise Unavailable(200, "Unreadable", str(error), where=target) from error
        owners = {owner.uid for owner in meta.ownerReferences}
        if owners and uid not in owners:
            raise Unavailable(200, "LeftOver", "it belongs to an earlier Node of this name", where=target)
        self._conditions = before

    def _note_failure(self, error: KubeError) -> None:
        with self._lock:
            first, self.error = not self.error, str(error)
            self._schedule.failed(time.monotonic(), error.retry_after, random.random())  # noqa: S311  no secret
            stopped = self._stopped
        if first and not stopped:
            log.warning("the node's state could not be written", node=self._node, reason=str(error))
