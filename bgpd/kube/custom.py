"""podbgp.dev/v1alpha1, from the raw JSON of one object to a value, or to the sentence why not.

The API server checks objects against deploy/crds when they are written, but not those of before an upgrade,
not with CEL before version 1.25, and nobody should have to believe it: whatever a schema or a rule of it
refuses is refused here as well, and what it can't express (host bits, overlaps) too.  A refused object is a
ValueError that names kind, object, field, value and what is valid; the caller keeps the last good one.
Unknown fields are left alone, as the API server does.  This module must never guess at a value.

Here are the six kinds' decoders and values for everybody else to import; BGPCluster and BGPPeer are read
here, the others in the modules beside it.
"""

from __future__ import annotations

from bgpd import config_values as values
from bgpd.config import MaxPrefixes
from bgpd.kube import custom_fields as fields
from bgpd.kube import custom_shared as shared
from bgpd.kube import custom_wire as wire
from bgpd.kube.custom_fields import Place
from bgpd.kube.custom_policy import decode_policy
from bgpd.kube.custom_services import decode_advertisement, decode_pool
from bgpd.kube.custom_state import BgpNodeState, decode_node_state
from bgpd.kube.custom_values import (
    CLUSTER_NAME,
    AddressKind,
    AddressRange,
    AsnRange,
    BgpAddressPool,
    BgpAdvertisement,
    BgpCluster,
    BgpPeer,
    BgpPolicy,
    ClusterStatus,
    Condition,
    Phase,
    Pods,
    Policies,
    Readiness,
    Reflector,
    ReflectorMode,
    ReflectorPlan,
    SecretKey,
    ServiceScope,
    Speakers,
    Timers,
    Topology,
)
from bgpd.kube.selector import LabelSelector
from bgpd.node.cni import PodInterface
from bgpd.node.readiness import Quorum
from routes.policy import MARTIANS
from routes.prefix import Address, Family, Prefix

__all__ = [
    "CLUSTER_NAME",
    "AddressKind",
    "AddressRange",
    "AsnRange",
    "BgpAddressPool",
    "BgpAdvertisement",
    "BgpCluster",
    "BgpNodeState",
    "BgpPeer",
    "BgpPolicy",
    "Condition",
    "LabelSelector",
    "Phase",
    "Policies",
    "Reflector",
    "ReflectorMode",
    "SecretKey",
    "ServiceScope",
    "Speakers",
    "Topology",
    "decode_advertisement",
    "decode_cluster",
    "decode_node_state",
    "decode_peer",
    "decode_policy",
    "decode_pool",
]

_MOST_RANGES = 16
_MOST_REFLECTORS = 8
_MOST_STATUS_REFLECTORS = 16
_MOST_ADDRESSES = 8
_MOST_NODES = 100_000
_SMALLEST_MTU = 1280
_NOT_TWICE = "; a node has one AS number, and the range must leave out 23456, AS_TRANS (RFC 6793)"
_HAS_NO_HOP = "makes no sense for a router on the link"


# -- BGPCluster ---------------------------------------------------------------------------------------


def decode_cluster(raw: bytes) -> BgpCluster:
    form = shared.read(raw, wire.CLUSTER, "BGPCluster")
    at, spec = shared.place("BGPCluster", form.metadata), form.spec
    if at.name != CLUSTER_NAME:
        Place(at.kind, at.name, "metadata").wrong("name", at.name, "there is one BGPCluster, called default")
    topology = at.one("topology", spec.topology, shared.enum_of(Topology))
    if spec.reflectors is not None and topology is not Topology.REFLECTOR:
        at.wrong("topology", topology, "has no reflectors; leave spec.reflectors out")
    return BgpCluster(
        name=at.name,
        uid=form.metadata.uid,
        generation=form.metadata.generation,
        asn=at.one("asn", spec.asn, values.asn),
        topology=topology,
        pod_cidrs=_ranges(at, "podCIDRs", spec.pod_cidrs, 1),
        service_cidrs=_ranges(at, "serviceCIDRs", spec.service_cidrs, 0),
        password_secret=shared.secret_of(at, "passwordSecret", spec.password_secret),
        node_asns=_node_asns(at, topology, spec.node_asns),
        timers=_timers(at.inside("timers"), spec.timers),
        multipath=at.one("multipath", spec.multipath, values.integer(1, 128)),
        reflectors=_plan(at.inside("reflectors"), spec.reflectors),
        policies=shared.policies_of(at, spec.policies),
        pods=_pods(at.inside("pods"), spec.pods),
        readiness=_readiness(at.inside("readiness"), spec.readiness),
        status=_cluster_status(at, form.status),
    )


def _ranges(at: Place, field: str, written: list[str], least: int) -> tuple[Prefix, ...]:
    ranges = at.each(field, written, _range, _MOST_RANGES, least)
    return shared.disjoint(at, field, written, ranges)


def _range(value: object) -> Prefix:
    own = fields.prefix(value)
    if own.length == 0 or any(martian.contains(own) or own.contains(martian) for martian in MARTIANS):
        raise values.UnfitError(
            "is no range that a cluster can have (default, loopback, multicast, reserved)"
        )
    return own


def _node_asns(at: Place, topology: Topology, written: wire.NodeASNs | None) -> AsnRange | None:
    if written is None:
        return None
    if topology is not Topology.FABRIC:
        at.wrong("topology", topology, "has one AS; spec.nodeASNs is for fabric")
    inner = at.inside("nodeASNs")
    found = AsnRange(
        inner.one("first", written.first, values.asn), inner.one("last", written.last, values.asn)
    )
    if found.first > found.last:
        inner.wrong("first", found.first, f"must not be above last, {found.last}")
    if found.first < values.AS_TRANS < found.last:
        inner.wrong("first", found.first, f"to {found.last}{_NOT_TWICE}")
    return found


def _timers(at: Place, written: wire.Timers) -> Timers:
    return Timers(
        hold_time=at.one("holdTime", written.hold_time, values.hold_time),
        connect_retry=at.one("connectRetry", written.connect_retry, values.integer(1, 60)),
        restart_time=at.one("restartTime", written.restart_time, values.integer(1, 4095)),
        route_hold_time=at.one("routeHoldTime", written.route_hold_time, values.integer(0, 3600)),
        deferral_time=at.one("deferralTime", written.deferral_time, values.integer(1, 86400)),
    )


def _plan(at: Place, written: wire.Reflectors | None) -> ReflectorPlan:
    if written is None:
        return ReflectorPlan()
    return ReflectorPlan(
        at.one("mode", written.mode, shared.enum_of(ReflectorMode)),
        at.one("count", written.count, values.integer(1, _MOST_REFLECTORS)),
    )


def _pods(at: Place, written: wire.Pods) -> Pods:
    mtu = at.one("mtu", written.mtu, values.integer(0, 65535))
    if 0 < mtu < _SMALLEST_MTU:
        at.wrong("mtu", mtu, "must be 0 (the uplink's) or at least 1280 (RFC 8200)")
    return Pods(
        interface=at.one("interface", written.interface, shared.enum_of(PodInterface)),
        mtu=mtu,
        host_ports=written.host_ports,
        bandwidth=written.bandwidth,
        masquerade=written.masquerade,
    )


def _readiness(at: Place, written: wire.Readiness) -> Readiness:
    return Readiness(
        at.one("peers", written.peers, shared.enum_of(Quorum)),
        at.one("settleTime", written.settle_time, values.integer(0, 600)),
    )


def _cluster_status(spec: Place, written: wire.ClusterStatus) -> ClusterStatus:
    common, at = shared.status_of(spec, written), Place(spec.kind, spec.name, "status")
    at.count("reflectors", written.reflectors, _MOST_STATUS_REFLECTORS)
    reflectors = tuple(
        _reflector(at.inside(f"reflectors[{number}]"), each) for number, each in enumerate(written.reflectors)
    )
    at.each("reflectors", [each.uid for each in reflectors], values.text, _MOST_STATUS_REFLECTORS)
    nodes = at.one("nodes", written.nodes, values.integer(0, _MOST_NODES))
    return ClusterStatus(common.observed_generation, common.conditions, reflectors, nodes)


def _reflector(at: Place, written: wire.Reflector) -> Reflector:
    return Reflector(
        node=at.one("node", written.node, fields.object_name),
        uid=at.one("uid", written.uid, fields.text(128, 1)),
        addresses=at.each("addresses", written.addresses, fields.address, _MOST_ADDRESSES, 1),
        router_id=at.one("routerID", written.router_id, values.router_id),
        phase=at.one("phase", written.phase, shared.enum_of(Phase)),
    )


# -- BGPPeer ------------------------------------------------------------------------------------------


def decode_peer(raw: bytes) -> BgpPeer:
    form = shared.read(raw, wire.PEER, "BGPPeer")
    at, spec = shared.place("BGPPeer", form.metadata), form.spec
    address, interface = at.maybe("address", spec.address, _router) or (None, "")
    peer = BgpPeer(
        name=at.name,
        uid=form.metadata.uid,
        generation=form.metadata.generation,
        asn=at.one("asn", spec.asn, values.asn),
        address=address,
        interface=interface,
        gateway=at.maybe("defaultGateway", spec.default_gateway, shared.family),
        port=at.one("port", spec.port, values.integer(1, 65535)),
        speakers=at.one("speakers", spec.speakers, shared.enum_of(Speakers)),
        nodes=shared.selector_of(at, "nodeSelector", spec.node_selector),
        password_secret=shared.secret_of(at, "passwordSecret", spec.password_secret),
        ttl_security=at.one("ttlSecurity", spec.ttl_security, values.integer(0, 254)),
        multihop=at.one("multihop", spec.multihop, values.integer(0, 255)),
        passive=spec.passive,
        hold_time=at.maybe("holdTime", spec.hold_time, values.hold_time),
        families=at.each("families", spec.families, shared.family, len(Family), 1),
        max_prefixes=_max_prefixes(at.inside("maxPrefixes"), spec.max_prefixes),
        allow_as_in=at.one("allowASIn", spec.allow_as_in, values.integer(0, 10)),
        enforce_first_as=spec.enforce_first_as,
        add_path=spec.add_path,
        graceful_restart=spec.graceful_restart,
        extended_next_hop=spec.extended_next_hop,
        policies=shared.policies_of(at, spec.policies),
        description=at.one("description", spec.description, values.one_line(200)),
        status=shared.status_of(at, form.status),
    )
    _check_peer(at, peer, spec)
    return peer


def _router(value: object) -> tuple[Address, str]:
    if len(values.text(value)) > 55:
        raise values.UnfitError("must be an IPv4 or IPv6 address")
    return values.peer_address(value)


def _max_prefixes(at: Place, written: wire.MaxPrefixes | None) -> MaxPrefixes | None:
    if written is None:
        return None
    action = at.one("action", written.action, values.choice("Warn", "Drop", "Reset"))
    return MaxPrefixes(at.one("limit", written.limit, values.integer(1, 10_000_000)), action=action.lower())


def _check_peer(at: Place, peer: BgpPeer, spec: wire.PeerSpec) -> None:
    """What several fields say together."""
    if peer.address is None and peer.gateway is None:
        at.wrong("address", None, "is missing: one of address and defaultGateway must be given")
    if peer.address is not None and peer.gateway is not None:
        at.wrong("defaultGateway", spec.default_gateway, "and address exclude each other")
    if peer.ttl_security and peer.multihop:
        at.wrong("multihop", peer.multihop, "and ttlSecurity exclude each other (RFC 5082)")
    if peer.multihop and (peer.interface or peer.gateway is not None):
        at.wrong("multihop", peer.multihop, _HAS_NO_HOP)
    if peer.speakers is Speakers.REFLECTORS and spec.node_selector is not None:
        at.wrong("speakers", peer.speakers, "are chosen by the BGPCluster; leave nodeSelector out")
