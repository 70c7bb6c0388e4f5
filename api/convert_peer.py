"""Between core values and API messages: peers, sessions and the daemon as a whole.

The other half of `convert.py`, under the same rule: every pair is a round trip, proved by a property test.
Sets travel as sorted lists.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.convert import (
    FAMILY_FROM,
    FAMILY_TO,
    KIND_FROM,
    KIND_TO,
    TABLE_FROM,
    TABLE_TO,
    address_from_text,
    address_to_text,
    identifier_from_text,
    identifier_to_text,
    prefix_from_text,
    prefix_to_text,
    required_address,
)
from api.v1 import control_pb2 as control_pb
from api.v1 import path_pb2
from api.v1 import peer_pb2 as pb
from routes.duplicates import Duplicate
from routes.path import PeerName
from routes.peer import (
    Capabilities,
    Counters,
    FamilyCounts,
    GracefulRestart,
    LastError,
    Negotiated,
    PeerStatus,
    Reflection,
    SessionState,
)
from routes.prefix import Family
from routes.view import (
    Convergence,
    DaemonStatus,
    FibCount,
    GroupView,
    HostWarning,
    ShutdownReport,
    TableCount,
)

STATE_TO = {
    SessionState.IDLE: pb.SESSION_STATE_IDLE,
    SessionState.CONNECT: pb.SESSION_STATE_CONNECT,
    SessionState.ACTIVE: pb.SESSION_STATE_ACTIVE,
    SessionState.OPEN_SENT: pb.SESSION_STATE_OPEN_SENT,
    SessionState.OPEN_CONFIRM: pb.SESSION_STATE_OPEN_CONFIRM,
    SessionState.ESTABLISHED: pb.SESSION_STATE_ESTABLISHED,
}
STATE_FROM = {message: value for value, message in STATE_TO.items()}


def families_to_message(families: Iterable[Family]) -> list[path_pb2.Family.ValueType]:
    """A set of families, sorted."""
    return [FAMILY_TO[family] for family in sorted(families)]


def families_from_message(message: Iterable[path_pb2.Family.ValueType]) -> frozenset[Family]:
    """A set of families."""
    return frozenset(FAMILY_FROM[family] for family in message)


def graceful_to_message(value: GracefulRestart) -> pb.GracefulRestart:
    """The graceful restart capability."""
    return pb.GracefulRestart(
        restart_time=value.restart_time,
        restarting=value.restarting,
        notification=value.notification,
        families=[
            pb.ForwardingState(family=FAMILY_TO[family], preserved=preserved)
            for family, preserved in value.families
        ],
    )


def graceful_from_message(message: pb.GracefulRestart) -> GracefulRestart:
    """The graceful restart capability."""
    return GracefulRestart(
        restart_time=message.restart_time,
        restarting=message.restarting,
        notification=message.notification,
        families=tuple((FAMILY_FROM[f.family], f.preserved) for f in message.families),
    )


def capabilities_to_message(value: Capabilities) -> pb.Capabilities:
    """What an OPEN advertises."""
    graceful = value.graceful_restart
    return pb.Capabilities(
        families=families_to_message(value.families),
        four_octet_asn=value.four_octet_asn,
        route_refresh=value.route_refresh,
        enhanced_route_refresh=value.enhanced_route_refresh,
        extended_message=value.extended_message,
        extended_next_hop=families_to_message(value.extended_next_hop),
        add_path_send=families_to_message(value.add_path_send),
        add_path_receive=families_to_message(value.add_path_receive),
        graceful_restart=None if graceful is None else graceful_to_message(graceful),
        unknown=value.unknown,
    )


def capabilities_from_message(message: pb.Capabilities) -> Capabilities:
    """What an OPEN advertises."""
    graceful = message.graceful_restart if message.HasField("graceful_restart") else None
    return Capabilities(
        families=families_from_message(message.families),
        four_octet_asn=message.four_octet_asn if message.HasField("four_octet_asn") else None,
        route_refresh=message.route_refresh,
        enhanced_route_refresh=message.enhanced_route_refresh,
        extended_message=message.extended_message,
        extended_next_hop=families_from_message(message.extended_next_hop),
        add_path_send=families_from_message(message.add_path_send),
        add_path_receive=families_from_message(message.add_path_receive),
        graceful_restart=None if graceful is None else graceful_from_message(graceful),
        unknown=tuple(message.unknown),
    )


def negotiated_to_message(value: Negotiated) -> pb.Negotiated:
    """What both OPENs agree on."""
    graceful = value.graceful_restart
    return pb.Negotiated(
        kind=KIND_TO[value.kind],
        local_asn=value.local_asn,
        peer_asn=value.peer_asn,
        peer_bgp_id=identifier_to_text(value.peer_bgp_id),
        local_address=address_to_text(value.local_address),
        peer_address=address_to_text(value.peer_address),
        ifindex=value.ifindex,
        hold_time=value.hold_time,
        families=families_to_message(value.families),
        four_octet=value.four_octet,
        extended_message=value.extended_message,
        extended_next_hop=families_to_message(value.extended_next_hop),
        add_path_receive=families_to_message(value.add_path_receive),
        add_path_send=families_to_message(value.add_path_send),
        route_refresh=value.route_refresh,
        enhanced_route_refresh=value.enhanced_route_refresh,
        graceful_restart=None if graceful is None else graceful_to_message(graceful),
        local_capabilities=capabilities_to_message(value.local_capabilities),
        peer_capabilities=capabilities_to_message(value.peer_capabilities),
    )


def negotiated_from_message(message: pb.Negotiated) -> Negotiated:
    """What both OPENs agree on."""
    graceful = message.graceful_restart if message.HasField("graceful_restart") else None
    return Negotiated(
        kind=KIND_FROM[message.kind],
        local_asn=message.local_asn,
        peer_asn=message.peer_asn,
        peer_bgp_id=identifier_from_text(message.peer_bgp_id),
        local_address=required_address(message.local_address),
        peer_address=required_address(message.peer_address),
        ifindex=message.ifindex,
        hold_time=message.hold_time,
        families=families_from_message(message.families),
        four_octet=message.four_octet,
        extended_message=message.extended_message,
        extended_next_hop=families_from_message(message.extended_next_hop),
        add_path_receive=families_from_message(message.add_path_receive),
        add_path_send=families_from_message(message.add_path_send),
        route_refresh=message.route_refresh,
        enhanced_route_refresh=message.enhanced_route_refresh,
        graceful_restart=None if graceful is None else graceful_from_message(graceful),
        local_capabilities=capabilities_from_message(message.local_capabilities),
        peer_capabilities=capabilities_from_message(message.peer_capabilities),
    )


def counters_to_message(value: Counters) -> pb.Counters:
    """Message counters."""
    return pb.Counters(
        messages_in=value.messages_in,
        messages_out=value.messages_out,
        updates_in=value.updates_in,
        updates_out=value.updates_out,
        bytes_in=value.bytes_in,
        bytes_out=value.bytes_out,
        flaps=value.flaps,
    )


def counters_from_message(message: pb.Counters) -> Counters:
    """Message counters."""
    return Counters(
        messages_in=message.messages_in,
        messages_out=message.messages_out,
        updates_in=message.updates_in,
        updates_out=message.updates_out,
        bytes_in=message.bytes_in,
        bytes_out=message.bytes_out,
        flaps=message.flaps,
    )


def last_error_from_message(message: pb.LastError) -> LastError:
    """Why the last session ended."""
    sent = message.sent if message.HasField("sent") else None
    return LastError(message.text, message.at, sent, message.code, message.subcode)


def reflection_to_message(value: Reflection) -> pb.Reflection:
    """What a peer is to a reflector."""
    groups = [pb.PeerGroup(family=FAMILY_TO[family], name=name) for family, name in value.groups]
    return pb.Reflection(role=value.role, groups=groups, lag=value.lag)


def reflection_from_message(message: pb.Reflection) -> Reflection:
    """What a peer is to a reflector."""
    groups = tuple((FAMILY_FROM[group.family], group.name) for group in message.groups)
    return Reflection(message.role, groups, message.lag)


def group_to_message(value: GroupView) -> control_pb.UpdateGroup:
    """An update group."""
    return control_pb.UpdateGroup(
        name=value.name,
        family=FAMILY_TO[value.family],
        role=value.role,
        members=value.members,
        entries=value.entries,
        log_bytes=value.log_bytes,
        withdrawals=value.withdrawals,
        lag=value.lag,
    )


def group_from_message(message: control_pb.UpdateGroup) -> GroupView:
    """An update group."""
    return GroupView(
        message.name,
        FAMILY_FROM[message.family],
        message.role,
        message.members,
        message.entries,
        message.log_bytes,
        message.withdrawals,
        message.lag,
    )


def duplicate_to_message(value: Duplicate) -> control_pb.Duplicate:
    """A prefix of two clients."""
    return control_pb.Duplicate(nlri=prefix_to_text(value.nlri), first=value.first, second=value.second)


def duplicate_from_message(message: control_pb.Duplicate) -> Duplicate:
    """A prefix of two clients."""
    return Duplicate(prefix_from_text(message.nlri), PeerName(message.first), PeerName(message.second))


def peer_to_message(value: PeerStatus) -> pb.Peer:
    """Everything about one peer."""
    error, negotiated = value.last_error, value.negotiated
    return pb.Peer(
        name=value.name,
        kind=KIND_TO[value.kind],
        asn=value.asn,
        local_asn=value.local_asn,
        state=STATE_TO[value.state],
        admin_down=value.admin_down,
        local_address=address_to_text(value.local_address),
        peer_address=address_to_text(value.peer_address),
        local_port=value.local_port,
        peer_port=value.peer_port,
        bgp_id=identifier_to_text(value.bgp_id) if value.bgp_id else "",
        hold_time=value.hold_time,
        keepalive_time=value.keepalive_time,
        hold_remaining=value.hold_remaining,
        since=value.since,
        next_connect=value.next_connect,
        negotiated=None if negotiated is None else negotiated_to_message(negotiated),
        last_error=None if error is None else pb.LastError(**error._asdict()),
        counters=counters_to_message(value.counters),
        families=[
            pb.FamilyCounts(family=FAMILY_TO[family], **counts._asdict()) for family, counts in value.families
        ],
        not_announced=[
            pb.NotAnnounced(family=FAMILY_TO[family], reason=reason) for family, reason in value.not_announced
        ],
        end_of_rib=[FAMILY_TO[family] for family in value.end_of_rib],
        passive=value.passive,
        description=value.description,
        reflection=None if value.reflection is None else reflection_to_message(value.reflection),
    )


def peer_from_message(message: pb.Peer) -> PeerStatus:
    """Everything about one peer."""
    return PeerStatus(
        name=PeerName(message.name),
        kind=KIND_FROM[message.kind],
        asn=message.asn,
        local_asn=message.local_asn,
        state=STATE_FROM[message.state],
        admin_down=message.admin_down,
        local_address=address_from_text(message.local_address),
        peer_address=address_from_text(message.peer_address),
        local_port=message.local_port,
        peer_port=message.peer_port,
        bgp_id=identifier_from_text(message.bgp_id) if message.bgp_id else 0,
        hold_time=message.hold_time,
        keepalive_time=message.keepalive_time,
        hold_remaining=message.hold_remaining,
        since=message.since,
        next_connect=message.next_connect,
        negotiated=negotiated_from_message(message.negotiated) if message.HasField("negotiated") else None,
        last_error=last_error_from_message(message.last_error) if message.HasField("last_error") else None,
        counters=counters_from_message(message.counters),
        families=tuple(
            (FAMILY_FROM[f.family], FamilyCounts(f.received, f.accepted, f.advertised, f.stale))
            for f in message.families
        ),
        not_announced=tuple((FAMILY_FROM[n.family], n.reason) for n in message.not_announced),
        end_of_rib=tuple(FAMILY_FROM[family] for family in message.end_of_rib),
        passive=message.passive,
        description=message.description,
        reflection=reflection_from_message(message.reflection) if message.HasField("reflection") else None,
    )


def status_to_message(value: DaemonStatus) -> control_pb.GetStatusResponse:
    """The daemon as a whole."""
    return control_pb.GetStatusResponse(
        version=value.version,
        role=value.role,
        asn=value.asn,
        router_id=identifier_to_text(value.router_id),
        started=value.started,
        convergence=control_pb.Convergence(**value.convergence._asdict()),
        peers=value.peers,
        peers_established=value.peers_established,
        tables=[
            control_pb.TableCount(
                table=TABLE_TO[count.table],
                family=FAMILY_TO[count.family],
                prefixes=count.prefixes,
                paths=count.paths,
            )
            for count in value.tables
        ],
        fib=[
            control_pb.FibCount(
                family=FAMILY_TO[count.family],
                wanted=count.wanted,
                installed=count.installed,
                failed=count.failed,
                held=count.held,
            )
            for count in value.fib
        ],
        warnings=[control_pb.HostWarning(**warning._asdict()) for warning in value.warnings],
        config_path=value.config_path,
        config_error=value.config_error,
        groups=map(group_to_message, value.groups),
        duplicates=value.duplicates,
        first_duplicates=map(duplicate_to_message, value.first_duplicates),
    )


def status_from_message(message: control_pb.GetStatusResponse) -> DaemonStatus:
    """The daemon as a whole."""
    convergence = message.convergence
    return DaemonStatus(
        version=message.version,
        role=message.role,
        asn=message.asn,
        router_id=identifier_from_text(message.router_id),
        started=message.started,
        convergence=Convergence(
            convergence.complete,
            convergence.at,
            tuple(map(PeerName, convergence.waiting_for)),
            convergence.held_until,
        ),
        peers=message.peers,
        peers_established=message.peers_established,
        tables=tuple(
            TableCount(TABLE_FROM[c.table], FAMILY_FROM[c.family], c.prefixes, c.paths)
            for c in message.tables
        ),
        fib=tuple(
            FibCount(FAMILY_FROM[c.family], c.wanted, c.installed, c.failed, c.held) for c in message.fib
        ),
        warnings=tuple(HostWarning(w.subject, w.value, w.advice) for w in message.warnings),
        config_path=message.config_path,
        config_error=message.config_error,
        groups=tuple(map(group_from_message, message.groups)),
        duplicates=message.duplicates,
        first_duplicates=tuple(map(duplicate_from_message, message.first_duplicates)),
    )


def shutdown_to_message(value: ShutdownReport) -> control_pb.ShutdownResponse:
    """What leaving did."""
    return control_pb.ShutdownResponse(**value._asdict())


def shutdown_from_message(message: control_pb.ShutdownResponse) -> ShutdownReport:
    """What leaving did."""
    return ShutdownReport(
        message.sessions_closed, message.entries_removed, message.entries_left, tuple(message.errors)
    )
