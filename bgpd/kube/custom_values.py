"""What people and the controller say in podbgp.dev/v1alpha1, as values that need no further checking.

`custom.py` makes them from JSON, and nothing else does.  Addresses are packed, prefixes parsed, and every
absent field has its default, so that two values are equal exactly when they mean the same.  All kinds are
cluster-scoped: their namespace is "".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from bgpd.config import MaxPrefixes
from bgpd.config_values import Community
from bgpd.kube.selector import EVERYTHING, LabelSelector
from bgpd.node.cni import PodInterface
from bgpd.node.readiness import Quorum
from routes.prefix import Address, Family, Prefix
from routes.route_policy import RoutePolicy

CLUSTER_NAME = "default"
"""Of the one BGPCluster."""


class Topology(StrEnum):
    MESH = "mesh"
    REFLECTOR = "reflector"
    FABRIC = "fabric"


class ReflectorMode(StrEnum):
    ELECTED = "Elected"
    DEDICATED = "Dedicated"


class Phase(StrEnum):
    """Of a reflector."""

    STARTING = "Starting"
    ACTIVE = "Active"
    DRAINING = "Draining"


class Speakers(StrEnum):
    """Who has a BGPPeer's session."""

    NODES = "Nodes"
    REFLECTORS = "Reflectors"


class AddressKind(StrEnum):
    """Of a Service's addresses."""

    CLUSTER_IP = "ClusterIP"
    EXTERNAL_IP = "ExternalIP"
    LOAD_BALANCER_IP = "LoadBalancerIP"


class SecretKey(NamedTuple):
    """Where a password is, in podbgp's own namespace."""

    name: str
    key: str = "password"


@dataclass(frozen=True, slots=True)
class Policies:
    """Names of BGPPolicies, in the order in which they are asked."""

    imports: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of `status.conditions`."""

    type: str
    status: str
    reason: str
    message: str
    last_transition: datetime
    observed_generation: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What every kind's status has."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


# -- BGPCluster ---------------------------------------------------------------------------------------


class AsnRange(NamedTuple):
    """AS numbers of nodes that have one each; both ends are included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds."""

    hold_time: int = 90
    connect_retry: int = 5
    restart_time: int = 120
    route_hold_time: int = 10
    deferral_time: int = 180


@dataclass(frozen=True, slots=True)
class ReflectorPlan:
    """Which reflectors there are to be."""

    mode: ReflectorMode = ReflectorMode.ELECTED
    count: int = 2


@dataclass(frozen=True, slots=True)
class Pods:
    """How pods are wired."""

    interface: PodInterface = PodInterface.PTP
    mtu: int = 0
    """0: the uplink's."""
    host_ports: bool = True
    bandwidth: bool = True
    masquerade: bool = False


@dataclass(frozen=True, slots=True)
class Readiness:
    """When a node counts as part of the network."""

    peers: Quorum = Quorum.MAJORITY
    settle_time: int = 5


@dataclass(frozen=True, slots=True)
class Reflector:
    """One that the agents peer with."""

    node: str
    uid: str
    addresses: tuple[Address, ...]
    router_id: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class ClusterStatus(Status):
    reflectors: tuple[Reflector, ...] = ()
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class BgpCluster:
    """The cluster's routed network."""

    name: str
    uid: str
    generation: int
    asn: int
    topology: Topology
    pod_cidrs: tuple[Prefix, ...]
    service_cidrs: tuple[Prefix, ...] = ()
    password_secret: SecretKey | None = None
    node_asns: AsnRange | None = None
    timers: Timers = Timers()
    multipath: int = 16
    reflectors: ReflectorPlan = ReflectorPlan()
    """Only topology `reflector` asks."""
    policies: Policies = Policies()
    pods: Pods = Pods()
    readiness: Readiness = Readiness()
    status: ClusterStatus = ClusterStatus()

    namespace = ""


# -- BGPPeer ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BgpPeer:
    """A router outside; either `address` or `gateway` is there."""

    name: str
    uid: str
    generation: int
    asn: int
    address: Address | None = None
    interface: str = ""
    """That a link-local address is on."""
    gateway: Family | None = None
    """Peer with the node's default gateway in this family."""
    port: int = 179
    speakers: Speakers = Speakers.NODES
    nodes: LabelSelector = EVERYTHING
    password_secret: SecretKey | None = None
    ttl_security: int = 0
    multihop: int = 0
    passive: bool = False
    hold_time: int | None = None
    """None: the BGPCluster's."""
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    max_prefixes: MaxPrefixes | None = None
    allow_as_in: int = 0
    enforce_first_as: bool = True
    add_path: bool = False
    graceful_restart: bool = True
    extended_next_hop: bool = True
    policies: Policies = Policies()
    description: str = ""
    status: Status = Status()

    namespace = ""


# -- BGPPolicy ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BgpPolicy:
    """Rules in order, and what happens where none decides."""

    name: str
    uid: str
    generation: int
    policy: RoutePolicy
    """What paths are judged by; it has the object's name."""
    status: Status = Status()

    namespace = ""


# -- BGPAdvertisement and BGPAddressPool --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceScope:
    """Which Services."""

    labels: LabelSelector = EVERYTHING
    namespaces: frozenset[str] = frozenset()
    """Empty: all of them."""

    def holds(self, namespace: str, labels: Mapping[str, str]) -> bool:
        return (not self.namespaces or namespace in self.namespaces) and self.labels.matches(labels)


EVERY_SERVICE = ServiceScope()


@dataclass(frozen=True, slots=True)
class AdvertisementStatus(Status):
    services: int = 0


@dataclass(frozen=True, slots=True)
class BgpAdvertisement:
    """Which Services' addresses are announced, by whom and how."""

    name: str
    uid: str
    generation: int
    addresses: frozenset[AddressKind]
    scope: ServiceScope = EVERY_SERVICE
    nodes: LabelSelector = EVERYTHING
    communities: tuple[Community, ...] = ()
    local_pref: int | None = None
    length_ipv4: int = 32
    length_ipv6: int = 128
    status: AdvertisementStatus = AdvertisementStatus()

    namespace = ""


class AddressRange(NamedTuple):
    """Addresses of one family; both ends are included."""

    first: Address
    last: Address

    @property
    def size(self) -> int:
        return int.from_bytes(self.last, "big") - int.from_bytes(self.first, "big") + 1


@dataclass(frozen=True, slots=True)
class PoolStatus(Status):
    total: int = 0
    allocated: int = 0


@dataclass(frozen=True, slots=True)
class BgpAddressPool:
    """Addresses for LoadBalancer Services."""

    name: str
    uid: str
    generation: int
    ranges: tuple[AddressRange, ...]
    auto_assign: bool = True
    scope: ServiceScope = EVERY_SERVICE
    avoid_edges: bool = False
    status: PoolStatus = PoolStatus()

    namespace = ""
