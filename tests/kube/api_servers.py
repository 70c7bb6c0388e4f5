"""An API server as the conformance checks see it: a client, names of its own, and how to ask for things."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from bgpd.kube.client import KubeClient, KubeError, NotFound

Json = dict[str, object]
NODES, PODS = "/api/v1/nodes", "/api/v1/namespaces/default/pods"
MAPS, SERVICES = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/services"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
TAINT = {"key": "podbgp.dev/conformance", "effect": "NoSchedule"}


class Event(msgspec.Struct):
    type: str
    about: Json = msgspec.field(name="object")

    def get(self, *path: str) -> object:
        return at(self.about, *path)


@dataclass
class ApiServer:
    """`prefix` begins the name of everything that a check makes; `cleanup` removes it."""

    client: KubeClient
    prefix: str
    forget_history: Callable[[], None] = lambda: None
    made: list[str] = field(default_factory=list)

    def name(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def create(self, path: str, name: str, **parts: object) -> Json:
        """Create an object of the collection at `path`, with this run's label."""
        labels = {"podbgp.dev/run": self.prefix, **dict(_json(parts.pop("labels", {})))}
        metadata = {**_json(parts.pop("metadata", {})), "name": self.name(name), "labels": labels}
        made = load(self.client.create(path, {"metadata": metadata, **parts}))
        self.made.append(f"{path}/{self.name(name)}")
        return made

    def node(self, name: str, **parts: object) -> Json:
        """A Node on which a scheduler of a real cluster puts nothing."""
        spec = {"unschedulable": True, "taints": [TAINT], **_json(parts.pop("spec", {}))}
        return self.create(NODES, name, spec=spec, **parts)

    def get(self, path: str, name: str) -> Json:
        return load(self.client.get(f"{path}/{self.name(name)}"))

    def listed(self, path: str, **query: str | int) -> list[str]:
        """The names, without the prefix, of what a list with this run's label gives."""
        labels = ",".join(filter(None, [f"podbgp.dev/run={self.prefix}", str(query.pop("labels", ""))]))
        items = load(self.client.get(path, labelSelector=labels, **query))["items"]
        assert isinstance(items, list)
        return sorted(str(at(item, "metadata", "name")).removeprefix(f"{self.prefix}-") for item in items)

    def version(self, path: str) -> str:
        return str(at(load(self.client.get(path, limit=1)), "metadata", "resourceVersion"))

    def events(
        self, path: str, count: int, doing: Callable[[], object] = lambda: None, **query: str | bool
    ) -> list[Event]:
        """The first `count` events of a watch with this run's label, which `doing` makes."""
        query.setdefault("labelSelector", f"podbgp.dev/run={self.prefix}")
        found: list[Event] = []
        stream = self.client.stream(path, query, timeout=20, idle=20)
        next(stream)
        doing()
        for lines in stream:
            found += [msgspec.json.decode(line, type=Event) for line in lines]
            if len(found) >= count:
                break
        return found[:count]

    def cleanup(self) -> None:
        for path in reversed(self.made):
            try:
                self.client.patch(path, {"metadata": {"finalizers": None}}, "merge")
                self.client.delete(path, grace=0)
            except NotFound:
                continue
        self.made.clear()


@contextmanager
def api_server(client: KubeClient, forget_history: Callable[[], None] = lambda: None) -> Iterator[ApiServer]:
    """One check's view of it."""
    server = ApiServer(client, f"conf-{time.monotonic_ns() % 10**10:x}", forget_history)
    try:
        yield server
    finally:
        server.cleanup()


def eventually(true: Callable[[], bool], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if true():
                return True
        except KubeError:
            pass  # not yet: a kind that was just defined
        time.sleep(0.05)
    return False


def load(body: bytes) -> Json:
    return _json(json.loads(body))


def at(value: object, *path: str) -> object:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _json(value: object) -> Json:
    assert isinstance(value, dict)
    return value
