"""The JSON documents of `podbgp --output json`: stable, documented in docs/api.md, complete.

Keys are never renamed or removed within a major version; new ones may appear.  What is absent is null or
an empty list, so that every document of a kind has the same keys.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.convert import address_to_text, identifier_to_text, prefix_to_text
from api.text import community, large_community
from routes.path import PathAttributes, Source
from routes.peer import Capabilities, GracefulRestart, Negotiated, PeerStatus
from routes.prefix import Address, Family
from routes.view import (
    DaemonStatus,
    Explanation,
    FibView,
    PathView,
    RouteChange,
    ShutdownReport,
)

Document = dict[str, object]


def _address(value: Address | None) -> str | None:
    return None if value is None else address_to_text(value)


def _identifier(value: int | None) -> str | None:
    return None if value is None else identifier_to_text(value)


def _families(values: Iterable[Family]) -> list[str]:
    return [str(family) for family in sorted(values)]


def attributes_document(value: PathAttributes) -> Document:
    """Path attributes."""
    aggregator = value.aggregator
    return {
        "origin": value.origin.name.lower(),
        "as_path": str(value.as_path),
        "next_hop": address_to_text(value.next_hop),
        "link_local": _address(value.link_local),
        "med": value.med,
        "local_pref": value.local_pref,
        "atomic_aggregate": value.atomic_aggregate,
        "aggregator": None
        if aggregator is None
        else {"asn": aggregator.asn, "bgp_id": identifier_to_text(aggregator.bgp_id)},
        "communities": [community(c) for c in value.communities],
        "extended_communities": [raw.hex() for raw in value.extended_communities],
        "large_communities": [large_community(c) for c in value.large_communities],
        "originator_id": _identifier(value.originator_id),
        "cluster_list": [identifier_to_text(c) for c in value.cluster_list],
        "unknown": [{"flags": u.flags, "code": u.code, "value": u.value.hex()} for u in value.unknown],
    }


def source_document(value: Source) -> Document:
    """The session that a path was received on."""
    return {
        "peer": value.peer,
        "kind": value.kind.value,
        "asn": value.asn,
        "bgp_id": identifier_to_text(value.bgp_id),
        "address": address_to_text(value.address),
        "ifindex": value.ifindex,
    }


def path_document(view: PathView) -> Document:
    """One path with its fate."""
    changed = view.attributes != view.path.attributes
    return {
        "prefix": prefix_to_text(view.path.nlri),
        "attributes": attributes_document(view.attributes),
        "received_attributes": attributes_document(view.path.attributes) if changed else None,
        "source": source_document(view.path.source),
        "path_id": view.path.path_id,
        "accepted": view.accepted,
        "rule": view.rule,
        "best": view.best,
        "multipath": view.multipath,
        "lost_at": view.lost_at or None,
        "reason": view.reason or None,
        "stale": view.stale,
        "to": view.to,
        "group": view.group or None,
        "members": view.members,
    }


def fib_document(view: FibView) -> Document:
    """One kernel entry."""
    return {
        "prefix": prefix_to_text(view.nlri),
        "next_hops": [
            {
                "gateway": _address(hop.gateway),
                "ifindex": hop.ifindex,
                "interface": hop.interface,
                "onlink": hop.onlink,
            }
            for hop in view.next_hops
        ],
        "metric": view.metric,
        "installed": view.installed,
        "held": view.held,
        "reason": view.reason or None,
        "preferred_source": _address(view.preferred_source),
    }


def change_document(change: RouteChange) -> Document:
    """The state of one prefix, from a watch."""
    return {
        "event": "route",
        "prefix": prefix_to_text(change.nlri),
        "paths": [path_document(path) for path in change.paths],
        "fib": [fib_document(entry) for entry in change.fib],
    }


def explanation_document(value: Explanation) -> Document:
    """Why a destination is reached as it is."""
    return {
        "target": prefix_to_text(value.target),
        "prefix": None if value.nlri is None else prefix_to_text(value.nlri),
        "failed": None if value.failed is None else value.failed.value,
        "text": value.text,
        "paths": [path_document(path) for path in value.paths],
        "fib": [fib_document(entry) for entry in value.fib],
        "advertised_to": list(value.advertised_to),
        "more_specific": [path_document(path) for path in value.more_specific],
        "told": [
            each._asdict() | {"reason": each.reason or None, "not_back_to": list(each.not_back_to)}
            for each in value.told
        ],
        "reflected": value.reflected,
    }


def graceful_document(value: GracefulRestart | None) -> Document | None:
    """The graceful restart capability."""
    if value is None:
        return None
    return {
        "restart_time": value.restart_time,
        "restarting": value.restarting,
        "notification": value.notification,
        "families": [{"family": str(family), "forwarding": bit} for family, bit in value.families],
    }


def capabilities_document(value: Capabilities) -> Document:
    """What an OPEN advertised."""
    return {
        "families": _families(value.families),
        "four_octet_asn": value.four_octet_asn,
        "route_refresh": value.route_refresh,
        "enhanced_route_refresh": value.enhanced_route_refresh,
        "extended_message": value.extended_message,
        "extended_next_hop": _families(value.extended_next_hop),
        "add_path_send": _families(value.add_path_send),
        "add_path_receive": _families(value.add_path_receive),
        "graceful_restart": graceful_document(value.graceful_restart),
        "unknown": list(value.unknown),
    }


def negotiated_document(value: Negotiated | None) -> Document | None:
    """What both OPENs agree on, and what each said."""
    if value is None:
        return None
    return {
        "families": _families(value.families),
        "hold_time": value.hold_time,
        "four_octet": value.four_octet,
        "extended_message": value.extended_message,
        "extended_next_hop": _families(value.extended_next_hop),
        "add_path_send": _families(value.add_path_send),
        "add_path_receive": _families(value.add_path_receive),
        "route_refresh": value.route_refresh,
        "enhanced_route_refresh": value.enhanced_route_refresh,
        "graceful_restart": graceful_document(value.graceful_restart),
        "sent": capabilities_document(value.local_capabilities),
        "received": capabilities_document(value.peer_capabilities),
    }


def peer_document(value: PeerStatus) -> Document:
    """Everything about one peer."""
    error, counters, reflection = value.last_error, value.counters, value.reflection
    return {
        "name": value.name,
        "description": value.description,
        "kind": value.kind.value,
        "asn": value.asn,
        "local_asn": value.local_asn,
        "state": value.state.value,
        "since": value.since,
        "admin_down": value.admin_down,
        "passive": value.passive,
        "local_address": _address(value.local_address),
        "local_port": value.local_port,
        "peer_address": _address(value.peer_address),
        "peer_port": value.peer_port,
        "bgp_id": identifier_to_text(value.bgp_id) if value.bgp_id else None,
        "hold_time": value.hold_time,
        "hold_remaining": value.hold_remaining,
        "keepalive_time": value.keepalive_time,
        "next_connect": value.next_connect,
        "families": {str(family): counts._asdict() for family, counts in value.families},
        "end_of_rib": [str(family) for family in value.end_of_rib],
        "not_announced": {str(family): reason for family, reason in value.not_announced},
        "counters": {name: getattr(counters, name) for name in counters.__slots__},
        "last_error": None if error is None else error._asdict(),
        "negotiated": negotiated_document(value.negotiated),
        "reflection": None
        if reflection is None
        else {
            "role": reflection.role,
            "groups": {str(family): name for family, name in reflection.groups},
            "lag": reflection.lag,
        },
    }


def status_document(value: DaemonStatus) -> Document:
    """The daemon as a whole."""
    return {
        "version": value.version,
        "role": value.role,
        "asn": value.asn,
        "router_id": identifier_to_text(value.router_id),
        "started": value.started,
        "config_path": value.config_path,
        "config_error": value.config_error or None,
        "peers": value.peers,
        "peers_established": value.peers_established,
        "convergence": value.convergence._asdict(),
        "tables": [c._asdict() | {"table": c.table.value, "family": str(c.family)} for c in value.tables],
        "fib": [c._asdict() | {"family": str(c.family)} for c in value.fib],
        "warnings": [warning._asdict() for warning in value.warnings],
        "groups": [group._asdict() | {"family": str(group.family)} for group in value.groups],
        "duplicates": value.duplicates,
        "first_duplicates": [
            {"prefix": prefix_to_text(each.nlri), "peers": [each.first, each.second]}
            for each in value.first_duplicates
        ],
    }


def shutdown_document(value: ShutdownReport) -> Document:
    """What leaving did."""
    return value._asdict()
