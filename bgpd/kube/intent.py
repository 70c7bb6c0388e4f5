"""From Kubernetes objects to the configuration of an agent or a reflector.

What a TOML file says to a node by itself, the cluster's objects say to all nodes: both become the same
`Config`, which is checked, compared and taken in the same way.  Pure: facts in, an `Intent` out, with a
`Problem` for each thing that is left out, because nothing is guessed and nothing advertised blindly.

This module must never read an API server, a file or the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from bgpd.config import (
    AgentConfig,
    AllowEntry,
    ClientRange,
    Config,
    Endpoint,
    ImportConfig,
    MaxPrefixes,
    PeerConfig,
    ReflectorConfig,
    SpeakerConfig,
)
from bgpd.kube.address_ranges import AddressRanges
from bgpd.kube.custom_values import (
    BgpAddressPool,
    BgpCluster,
    BgpPeer,
    Policies,
    SecretKey,
    Speakers,
    Topology,
)
from bgpd.kube.identity import reflector_router_id_of, router_id_of
from bgpd.kube.objects import Node
from bgpd.node.drain import IN_SERVICE, DrainPlan
from routes.node_prefixes import KnownNode, NodePrefixes
from routes.own_path import OwnPath
from routes.path import PeerKind, PeerName
from routes.prefix import Address, Family, Prefix, family_of, format_address, is_link_local
from routes.route_policy import Action, PrefixRange, RouteMatch, RoutePolicy, RouteRule

BGP_PORT = 179
MOST_NODES_IN_MESH = 200
"""A mesh of N nodes has N * (N - 1) / 2 sessions: beyond this size the topology is refused."""
MOST_PATHS = 16
"""Of one prefix, with ADD-PATH (RFC 7911)."""
MOST_OF_A_NODE = MaxPrefixes(100_000, action="drop")
"""In each family, of a reflector's client: far more than there are Services, and memory holds it."""
NOTHING = RoutePolicy("podbgp:nothing")
"""What reflectors import from routers unless a BGPPeer names policies.  (No object can have such a name.)"""
PODS_ONLY = "podbgp:pods-only"
"""Name of the policy of what nodes are told: service addresses are the fabric's business, kube-proxy serves
them on each node, and 5,000 nodes need not hear of every Service."""


class Problem(NamedTuple):
    """Something of the cluster's objects that is not taken as it is written."""

    kind: str
    name: str
    reason: str
    """In CamelCase, for a condition or an event."""
    text: str


class Meant(NamedTuple):
    """A session, and the object that asks for it."""

    kind: str
    name: str
    peer: PeerConfig


class Gateway(NamedTuple):
    """A default route's next hop."""

    address: Address
    interface: str


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What the intent of one process follows from."""

    base: Config
    """Settings of the host: API, metrics, log, FIB."""
    node: Node
    cluster: BgpCluster
    peers: Sequence[BgpPeer] = ()
    policies: Mapping[str, RoutePolicy] = field(default_factory=dict)
    nodes: Sequence[Node] = ()
    """All of them, in a mesh and for a reflector."""
    passwords: Callable[[SecretKey], str | None] = lambda _: None
    gateways: Mapping[Family, Gateway] = field(default_factory=dict)
    pools: Sequence[BgpAddressPool] = ()
    drain: DrainPlan = IN_SERVICE


@dataclass(frozen=True, slots=True)
class Intent:
    """What a process should do, and what could not be taken."""

    config: Config
    problems: tuple[Problem, ...] = ()
    services: tuple[OwnPath, ...] = ()
    """What an agent announces beside the configuration's prefixes."""
    reflects: bool = False
    """Whether an agent has a reflector beside it."""
    pod_ranges: tuple[Prefix, ...] = ()
    nodes: tuple[KnownNode, ...] = ()
    """Who may announce what in these ranges, where all Nodes are known: kept with the rest, so that who
    starts while the API server is away believes no more than before."""

    def node_prefixes(self) -> NodePrefixes | None:
        """What other nodes' paths are held against; None where that is not known."""
        return NodePrefixes(self.pod_ranges, self.nodes) if self.nodes else None


# -- the agent ----------------------------------------------------------------------------------------


def agent_intent(facts: ClusterFacts) -> Intent:
    """What a node's agent does."""
    problems: list[Problem] = []
    cluster = facts.cluster
    speaker = _speaker(facts, router_id_of(facts.node), listen=cluster.topology is not Topology.REFLECTOR)
    own = own_prefixes(facts, problems)
    peers = _cluster_peers(facts, speaker, problems)
    peers += _fabric_peers(facts, speaker, Speakers.NODES, problems)
    ipv4, ipv6 = facts.node.addresses_of(Family.IPV4), facts.node.addresses_of(Family.IPV6)
    config = replace(
        facts.base,
        speaker=speaker,
        agent=AgentConfig(
            advertise=tuple(OwnPath(nlri) for nlri in own),
            drain=facts.drain.graceful_shutdown,
            next_hop_ipv4=ipv4[0] if ipv4 else None,
            next_hop_ipv6=ipv6[0] if ipv6 else None,
        ),
        peers=_once(peers, problems),
        imports=ImportConfig(tuple(_allow(nlri) for nlri in cluster.pod_cidrs)),
        fib=replace(
            facts.base.fib,
            multipath=cluster.multipath,
            hold_time=cluster.timers.route_hold_time,
            deferral_time=cluster.timers.deferral_time,
        ),
        policies=(*facts.policies.values(), pods_only(cluster)),
        reflector=None,
    )
    return Intent(config, tuple(problems))


def own_prefixes(facts: ClusterFacts, problems: list[Problem]) -> tuple[Prefix, ...]:
    """The Node's podCIDRs, as far as they may be advertised."""
    node = facts.node
    problems += [Problem("Node", node.name, "InvalidField", text) for text in node.problems]
    if not facts.drain.announce_pods:
        return ()
    if not node.pod_cidrs:
        text = "spec.podCIDRs is empty: start kube-controller-manager with --allocate-node-cidrs"
        problems.append(Problem("Node", node.name, "NoPodCIDR", text))
    kept = []
    for nlri in node.pod_cidrs:
        twin = next((n for n in facts.nodes if n.uid != node.uid and nlri in n.pod_cidrs), None)
        if not any(whole.contains(nlri) for whole in facts.cluster.pod_cidrs):
            text = f"{nlri} is in none of the podCIDRs of BGPCluster {facts.cluster.name}"
            problems.append(Problem("Node", node.name, "PodCIDROutsideCluster", text))
        elif twin is not None:
            text = f"{nlri} is also the podCIDR of node {twin.name}"
            problems.append(Problem("Node", node.name, "DuplicatePodCIDR", text))
        else:
            kept.append(nlri)
    return tuple(kept)


def pods_only(cluster: BgpCluster) -> RoutePolicy:
    """Accept what lies in the pod ranges, and nothing else."""
    ranges = tuple(PrefixRange(nlri, nlri.length, len(nlri.address) * 8) for nlri in cluster.pod_cidrs)
    return RoutePolicy(PODS_ONLY, (RouteRule("pods", Action.ACCEPT, RouteMatch(ranges)),))


def _speaker(facts: ClusterFacts, router_id: int, *, listen: bool) -> SpeakerConfig:
    cluster, timers = facts.cluster, facts.cluster.timers
    return SpeakerConfig(
        asn=node_asn(facts.node, cluster),
        router_id=router_id,
        listen=_everywhere(facts.node) if listen else (),
        hold_time=timers.hold_time,
        connect_retry=timers.connect_retry,
        restart_time=timers.restart_time,
    )


def _everywhere(node: Node) -> tuple[Endpoint, ...]:
    """All addresses of the families that the node has: the host may have the other one turned off."""
    sizes = sorted({len(address) for address in node.addresses}) or [4]
    return tuple(Endpoint(Address(bytes(size)), BGP_PORT) for size in sizes)


def node_asn(node: Node, cluster: BgpCluster) -> int:
    """The node's AS number: of its own in a fabric where `nodeASNs` is set, else the cluster's."""
    numbers = cluster.node_asns
    if cluster.topology is not Topology.FABRIC or numbers is None:
        return cluster.asn
    for nlri in node.pod_cidrs:
        for whole in cluster.pod_cidrs:
            if whole.contains(nlri):
                return min(numbers.first + _index(nlri, whole), numbers.last)
    return cluster.asn


def _index(nlri: Prefix, whole: Prefix) -> int:
    """Which of the equally long prefixes inside `whole` this is."""
    bits = len(nlri.address) * 8
    offset = int.from_bytes(nlri.address, "big") - int.from_bytes(whole.address, "big")
    return offset >> (bits - nlri.length)


def _cluster_peers(facts: ClusterFacts, speaker: SpeakerConfig, problems: list[Problem]) -> list[Meant]:
    """The other nodes, or the reflectors."""
    cluster = facts.cluster
    if cluster.topology is Topology.MESH:
        others = [node for node in facts.nodes if node.uid != facts.node.uid and not node.deleting]
        if len(others) >= MOST_NODES_IN_MESH:
            text = f"a mesh of {len(others) + 1} nodes: at most {MOST_NODES_IN_MESH}; use topology: reflector"
            problems.append(Problem("BGPCluster", cluster.name, "MeshTooLarge", text))
            return []
        targets = [(node.name, node.name, node.addresses) for node in others]
    elif cluster.topology is Topology.REFLECTOR:
        targets = [(r.node, f"reflector on {r.node}", r.addresses) for r in cluster.status.reflectors]
    else:
        targets = []
    secret = cluster.password_secret
    password = "" if secret is None else facts.passwords(secret)
    if password is None and secret is not None and targets:
        problems.append(_no_password("BGPCluster", cluster.name, secret))
    if _unknown_policies(facts, "BGPCluster", cluster.name, cluster.policies, problems):
        facts = replace(facts, cluster=replace(cluster, policies=Policies()))
        password = None
    made = ((name, _node_peer(facts, speaker, what, addrs, password)) for name, what, addrs in targets)
    return [Meant("Node", name, peer) for name, peer in made if peer is not None]


def _node_peer(
    facts: ClusterFacts, speaker: SpeakerConfig, what: str, addresses: Sequence[Address], password: str | None
) -> PeerConfig | None:
    """One session to a node, over the first family that both have addresses of."""
    tell = (PODS_ONLY,) if facts.cluster.topology is Topology.MESH else ()
    for address in addresses:
        source = facts.node.addresses_of(family_of(address))
        if source:
            return PeerConfig(
                name=PeerName(format_address(address)),
                address=address,
                asn=speaker.asn,
                kind=PeerKind.IBGP,
                source_address=source[0],
                password=password or "",
                shutdown=password is None,
                hold_time=speaker.hold_time,
                description=what,
                import_policies=facts.cluster.policies.imports,
                export_policies=(*tell, *facts.cluster.policies.exports),
            )
    return None


# -- the fabric ---------------------------------------------------------------------------------------


def _fabric_peers(
    facts: ClusterFacts, speaker: SpeakerConfig, speakers: Speakers, problems: list[Problem]
) -> list[Meant]:
    """The BGPPeers that are meant for this node."""
    chosen = [
        peer
        for peer in sorted(facts.peers, key=lambda peer: peer.name)
        if peer.speakers is speakers and peer.nodes.matches(facts.node.labels)
    ]
    made = ((peer.name, _fabric_peer(facts, speaker, peer, problems)) for peer in chosen)
    return [Meant("BGPPeer", name, peer) for name, peer in made if peer is not None]


def _fabric_peer(
    facts: ClusterFacts, speaker: SpeakerConfig, peer: BgpPeer, problems: list[Problem]
) -> PeerConfig | None:
    target = _target(facts, peer)
    if target is None:
        text = f"node {facts.node.name} has no {peer.gateway} default route"
        problems.append(Problem("BGPPeer", peer.name, "NoDefaultGateway", text))
        return None
    unknown = _unknown_policies(facts, "BGPPeer", peer.name, peer.policies, problems)
    secret = peer.password_secret
    password = "" if secret is None else facts.passwords(secret)
    if password is None and secret is not None:
        problems.append(_no_password("BGPPeer", peer.name, secret))
    if peer.passive and not speaker.listen:
        text = (
            "passive: with topology reflector the nodes do not listen; have them connect, or use Reflectors"
        )
        problems.append(Problem("BGPPeer", peer.name, "NotListening", text))
    zone = f"%{target.interface}" if is_link_local(target.address) else ""
    return PeerConfig(
        name=PeerName(format_address(target.address) + zone),
        address=target.address,
        asn=peer.asn,
        kind=PeerKind.IBGP if peer.asn == speaker.asn else PeerKind.EBGP,
        interface=target.interface if zone else "",
        port=peer.port,
        password=password or "",
        ttl_security=peer.ttl_security,
        multihop=peer.multihop,
        passive=peer.passive,
        hold_time=speaker.hold_time if peer.hold_time is None else peer.hold_time,
        families=peer.families,
        max_prefixes=peer.max_prefixes,
        allowas_in=peer.allow_as_in,
        enforce_first_as=peer.enforce_first_as,
        add_path=peer.add_path,
        graceful_restart=peer.graceful_restart,
        extended_next_hop=peer.extended_next_hop,
        shutdown=password is None or unknown,  # neither without its password nor without its policy
        description=peer.description or f"BGPPeer {peer.name}",
        import_policies=() if unknown else peer.policies.imports,
        export_policies=() if unknown else peer.policies.exports,
    )


def _unknown_policies(
    facts: ClusterFacts, kind: str, name: str, policies: Policies, problems: list[Problem]
) -> bool:
    """Whether any is named that is not there: there is no session without it."""
    unknown = [each for each in (*policies.imports, *policies.exports) if each not in facts.policies]
    if unknown:
        text = f"policies: there is no valid BGPPolicy {', '.join(unknown)}"
        problems.append(Problem(kind, name, "UnknownPolicy", text))
    return bool(unknown)


def _target(facts: ClusterFacts, peer: BgpPeer) -> Gateway | None:
    if peer.address is not None:
        return Gateway(peer.address, peer.interface)
    return None if peer.gateway is None else facts.gateways.get(peer.gateway)


def _no_password(kind: str, name: str, secret: SecretKey) -> Problem:
    text = f"passwordSecret: no Secret {secret.name} has the key {secret.key}: no session without it"
    return Problem(kind, name, "NoPassword", text)


def _once(peers: Iterable[Meant], problems: list[Problem]) -> tuple[PeerConfig, ...]:
    """Each neighbour once: two BGPPeers may name the same router, and then the first one counts."""
    found: dict[PeerName, Meant] = {}
    for meant in peers:
        kind, name, peer = meant
        first = found.setdefault(peer.name, meant)
        if first is not meant:
            text = f"{peer.name} is already the neighbour of {first.kind} {first.name}"
            problems.append(Problem(kind, name, "Duplicate", text))
    return tuple(meant.peer for meant in found.values())


def _allow(nlri: Prefix) -> AllowEntry:
    return AllowEntry(nlri, nlri.length, len(nlri.address) * 8)


# -- the reflector ------------------------------------------------------------------------------------


def reflector_intent(facts: ClusterFacts) -> Intent:
    """What a reflector on this node does; its clients are the cluster's nodes."""
    problems: list[Problem] = []
    cluster = facts.cluster
    router_id = reflector_router_id_of(facts.node.uid)
    speaker = _speaker(facts, router_id, listen=True)
    secret = cluster.password_secret
    password = "" if secret is None else facts.passwords(secret)
    if password is None and secret is not None:
        problems.append(_no_password("BGPCluster", cluster.name, secret))
    policies = cluster.policies
    if _unknown_policies(facts, "BGPCluster", cluster.name, policies, problems):
        policies, password = Policies(), None
    known = frozenset(address for node in facts.nodes for address in node.addresses)
    ranges = (*cluster.pod_cidrs, *cluster.service_cidrs, *pool_prefixes(facts.pools))
    allow = tuple(_allow(nlri) for nlri in dict.fromkeys(ranges))
    clients = tuple(
        ClientRange(
            range=Prefix(Address(bytes(size)), 0),
            asn=speaker.asn,
            password=password or "",
            hold_time=speaker.hold_time,
            members=known if password is not None else frozenset(),
            max_prefixes=MOST_OF_A_NODE,
            allow=allow,
            import_policies=policies.imports,
            export_policies=(PODS_ONLY, *policies.exports),
        )
        for size in (4, 16)
    )
    config = replace(
        facts.base,
        speaker=speaker,
        peers=_once(_reflector_peers(facts, speaker, problems), problems),
        imports=ImportConfig(allow),
        reflector=ReflectorConfig(
            cluster_id=router_id,
            clients=clients,
            deferral_time=min(cluster.timers.deferral_time, 120.0),
            state_file=facts.base.reflector.state_file if facts.base.reflector else "",
        ),
        policies=(*facts.policies.values(), NOTHING, pods_only(cluster)),
    )
    return Intent(config, tuple(problems))


def _reflector_peers(facts: ClusterFacts, speaker: SpeakerConfig, problems: list[Problem]) -> list[Meant]:
    """Routers that can take several paths get them, and so spread a service's packets over its nodes."""
    paths = min(facts.cluster.multipath, MOST_PATHS)
    add_paths = paths if paths > 1 else 0
    return [
        Meant(
            kind,
            name,
            replace(peer, add_paths=add_paths, import_policies=peer.import_policies or (NOTHING.name,)),
        )
        for kind, name, peer in _fabric_peers(facts, speaker, Speakers.REFLECTORS, problems)
    ]


def client_addresses(facts: ClusterFacts) -> frozenset[Address]:
    """Where the sessions of Ready Nodes come from; those that are not may never come."""
    families = [family_of(address) for address in facts.node.addresses]
    found = set()
    for node in facts.nodes:
        if node.ready and not node.deleting:
            sources = (node.addresses_of(family) for family in families)
            found.update(next(([source[0]] for source in sources if source), []))
    return frozenset(found)


def pool_prefixes(pools: Iterable[BgpAddressPool]) -> tuple[Prefix, ...]:
    """The fewest prefixes that hold all addresses of the pools."""
    return AddressRanges(ends for pool in pools for ends in pool.ranges).prefixes()
