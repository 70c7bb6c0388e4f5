"""The JSON of podbgp.dev/v1alpha1, field by field, as msgspec reads it.

Names and nesting are those of deploy/crds, and a test holds the two equal: no field is in a schema that is
not read here.  Types are checked here and nothing else; `custom.py` turns these into values that can be used.
Null stands for absent where a field may be absent: the API server drops it before it validates (since 1.20).
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.json import Decoder


class Wire(Struct, rename="camel"):
    """A JSON object; names that camel case does not give are written out."""


class Meta(Wire):
    name: str = ""
    uid: str = ""
    generation: int = 0


class Requirement(Wire):
    key: str
    operator: str
    values: list[str] = field(default_factory=list)


class Selector(Wire):
    match_labels: dict[str, str] = field(default_factory=dict)
    match_expressions: list[Requirement] = field(default_factory=list)


class SecretKey(Wire):
    name: str
    key: str = "password"


class Policies(Wire):
    imports: list[str] = field(name="import", default_factory=list)
    exports: list[str] = field(name="export", default_factory=list)


class Condition(Wire):
    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int = 0


class Status(Wire):
    observed_generation: int = 0
    conditions: list[Condition] = field(default_factory=list)


# -- BGPCluster ---------------------------------------------------------------------------------------


class NodeASNs(Wire):
    first: int
    last: int


class Timers(Wire):
    hold_time: int = 90
    connect_retry: int = 5
    restart_time: int = 120
    route_hold_time: int = 10
    deferral_time: int = 180


class Reflectors(Wire):
    mode: str = "Elected"
    count: int = 2


class Pods(Wire):
    interface: str = "ptp"
    mtu: int = 0
    host_ports: bool = True
    bandwidth: bool = True
    masquerade: bool = False


class Readiness(Wire):
    peers: str = "Majority"
    settle_time: int = 5


class ClusterSpec(Wire):
    asn: int
    topology: str
    pod_cidrs: list[str] = field(name="podCIDRs")
    service_cidrs: list[str] = field(name="serviceCIDRs", default_factory=list)
    password_secret: SecretKey | None = None
    node_asns: NodeASNs | None = field(name="nodeASNs", default=None)
    timers: Timers = field(default_factory=Timers)
    multipath: int = 16
    reflectors: Reflectors | None = None
    policies: Policies = field(default_factory=Policies)
    pods: Pods = field(default_factory=Pods)
    readiness: Readiness = field(default_factory=Readiness)


class Reflector(Wire):
    node: str
    uid: str
    addresses: list[str]
    router_id: str = field(name="routerID")
    phase: str


class ClusterStatus(Status):
    reflectors: list[Reflector] = field(default_factory=list)
    nodes: int = 0


class Cluster(Wire):
    metadata: Meta
    spec: ClusterSpec
    status: ClusterStatus = field(default_factory=ClusterStatus)


# -- BGPPeer ------------------------------------------------------------------------------------------


class MaxPrefixes(Wire):
    limit: int
    action: str = "Reset"


class PeerSpec(Wire):
    asn: int
    description: str = ""
    address: str | None = None
    default_gateway: str | None = None
    port: int = 179
    speakers: str = "Nodes"
    node_selector: Selector | None = None
    password_secret: SecretKey | None = None
    ttl_security: int = 0
    multihop: int = 0
    passive: bool = False
    hold_time: int | None = None
    families: list[str] = field(default_factory=lambda: ["IPv4", "IPv6"])
    max_prefixes: MaxPrefixes | None = None
    allow_as_in: int = field(name="allowASIn", default=0)
    enforce_first_as: bool = field(name="enforceFirstAS", default=True)
    add_path: bool = False
    graceful_restart: bool = True
    extended_next_hop: bool = True
    policies: Policies = field(default_factory=Policies)


class Peer(Wire):
    metadata: Meta
    spec: PeerSpec
    status: Status = field(default_factory=Status)


# -- BGPPolicy ----------------------------------------------------------------------------------------


class PrefixRange(Wire):
    prefix: str
    ge: int | None = None
    le: int | None = None


class AsPath(Wire):
    contains: list[int] | None = None
    originated_by: list[int] | None = None
    neighbor: list[int] | None = None
    min_length: int | None = None
    max_length: int | None = None


class Match(Wire):
    prefixes: list[PrefixRange] | None = None
    as_path: AsPath | None = None
    communities: list[str] | None = None


class Set(Wire):
    local_pref: int | None = None
    med: int | None = None
    prepend: int | None = None
    add_communities: list[str] | None = None
    remove_communities: list[str] | None = None


class Rule(Wire):
    name: str
    action: str
    match: Match | None = None
    set: Set | None = None


class PolicySpec(Wire):
    default: str = "Reject"
    rules: list[Rule] = field(default_factory=list)


class Policy(Wire):
    metadata: Meta
    spec: PolicySpec
    status: Status = field(default_factory=Status)


# -- BGPAdvertisement ---------------------------------------------------------------------------------


class AggregationLength(Wire):
    ipv4: int = 32
    ipv6: int = 128


class AdvertisementSpec(Wire):
    addresses: list[str]
    service_selector: Selector | None = None
    namespaces: list[str] | None = None
    node_selector: Selector | None = None
    communities: list[str] = field(default_factory=list)
    local_pref: int | None = None
    aggregation_length: AggregationLength = field(default_factory=AggregationLength)


class AdvertisementStatus(Status):
    services: int = 0


class Advertisement(Wire):
    metadata: Meta
    spec: AdvertisementSpec
    status: AdvertisementStatus = field(default_factory=AdvertisementStatus)


# -- BGPAddressPool -----------------------------------------------------------------------------------


class PoolSpec(Wire):
    ranges: list[str]
    auto_assign: bool = True
    service_selector: Selector | None = None
    namespaces: list[str] | None = None
    avoid_edges: bool = False


class PoolStatus(Status):
    total: str = "0"
    allocated: int = 0


class Pool(Wire):
    metadata: Meta
    spec: PoolSpec
    status: PoolStatus = field(default_factory=PoolStatus)


# -- BGPNodeState -------------------------------------------------------------------------------------


class Session(Wire):
    peer: str
    asn: int
    state: str
    since: str | None = None
    families: list[str] = field(default_factory=list)
    received: int = 0
    advertised: int = 0
    reason: str = ""


class Routes(Wire):
    received: int = 0
    accepted: int = 0
    refused: int = 0
    installed: int = 0
    failed: int = 0
    held: int = 0


class Refusal(Wire):
    peer: str
    rule: str
    prefix: str
    text: str


class Drift(Wire):
    repaired: int = 0
    foreign: int = 0


class StateStatus(Wire):
    router_id: str | None = field(name="routerID", default=None)
    asn: int | None = None
    addresses: list[str] = field(default_factory=list)
    pod_cidrs: list[str] = field(name="podCIDRs", default_factory=list)
    version: str = ""
    sessions: list[Session] = field(default_factory=list)
    routes: Routes = field(default_factory=Routes)
    refusals: list[Refusal] = field(default_factory=list)
    drift: Drift = field(default_factory=Drift)
    conditions: list[Condition] = field(default_factory=list)


class NodeState(Wire):
    metadata: Meta
    status: StateStatus = field(default_factory=StateStatus)


# -- decoders, made before several threads read their first object ------------------------------------

CLUSTER = Decoder(Cluster)
PEER = Decoder(Peer)
POLICY = Decoder(Policy)
ADVERTISEMENT = Decoder(Advertisement)
POOL = Decoder(Pool)
NODE_STATE = Decoder(NodeState)
