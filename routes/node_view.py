"""What is shown of a Kubernetes Node by its daemon, and of the Services that it announces, each with reasons.

Plain values between the daemon, the API and its clients: nothing is decided here, and nothing of Kubernetes
is known but names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from routes.prefix import Address, Prefix


class IntentSource(Enum):
    """Where a daemon's intent comes from."""

    FILE = "file"
    KUBERNETES = "kubernetes"


class ApiServerNews(NamedTuple):
    """How current the daemon's knowledge of the cluster is."""

    synced: bool
    """Everything that is needed was heard of at least once."""
    stale: bool
    """The API server is not heard from: what is known stays in use."""
    age: float
    """Seconds since that was heard from which was heard from least recently; 0 while all is well."""
    error: str
    """What is wrong, in a sentence; empty when nothing is."""


class IntentProblem(NamedTuple):
    """Something of the cluster's objects that is not taken as it is written."""

    kind: str
    name: str
    reason: str
    text: str


class UnreadableObject(NamedTuple):
    """An object whose last good state stays in use, because the present one can't be read."""

    name: str
    text: str


class NodeReadiness(NamedTuple):
    """Whether the node takes pods (`bgpd/node/readiness.py`)."""

    can_forward: bool
    ready: bool
    reasons: tuple[str, ...]


class NodeDrain(NamedTuple):
    """What the node announces while it is drained (`bgpd/node/drain.py`)."""

    graceful_shutdown: bool
    announce_services: bool
    announce_pods: bool
    reason: str


class NodeReflector(NamedTuple):
    """The reflector that an elected node's agent runs beside itself."""

    wanted: bool
    running: bool


@dataclass(frozen=True, slots=True)
class NodeHost:
    """What an agent does for its node beside routing."""

    readiness: NodeReadiness
    drain: NodeDrain
    cni_written: bool
    cni_file: str
    reflector: NodeReflector
    trouble: tuple[str, ...] = ()
    """What the host refused, and what is in the way, each in a sentence."""


@dataclass(frozen=True, slots=True)
class ClusterKnown:
    """What the daemon knows of its cluster, and takes of that."""

    node: str
    api_server: ApiServerNews
    waits: str = ""
    """Why changes of the cluster are not taken now, in a sentence; empty when they are."""
    problems: tuple[IntentProblem, ...] = ()
    """The first of them."""
    problem_count: int = 0
    unreadable: tuple[UnreadableObject, ...] = ()
    """The first of them."""
    unreadable_count: int = 0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The node as its daemon sees it."""

    role: str
    config_path: str
    cluster: ClusterKnown | None = None
    """None: the file is all of the intent."""
    host: NodeHost | None = None
    """Of an agent with Kubernetes alone."""

    @property
    def source(self) -> IntentSource:
        """Where the intent comes from."""
        return IntentSource.FILE if self.cluster is None else IntentSource.KUBERNETES


class ServiceQuery(NamedTuple):
    """Which Services are asked for; what is empty selects everything."""

    namespace: str = ""
    name: str = ""
    after: tuple[str, str] | None = None
    """Only what follows this namespace and name."""

    def matches(self, key: tuple[str, str]) -> bool:
        """Whether a Service, by namespace and name, is asked for."""
        if self.after is not None and key <= self.after:
            return False
        return self.namespace in ("", key[0]) and self.name in ("", key[1])


@dataclass(frozen=True, slots=True)
class ServiceVerdict:
    """Why one address of a Service is announced from this node, or is not."""

    namespace: str
    name: str
    address: Address | None
    """None: the Service has none that could be announced."""
    kind: str
    announced: bool
    rule: str
    prefixes: tuple[Prefix, ...]
    text: str
