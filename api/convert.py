"""Between core values and API messages: routes, queries and explanations.

With `convert_peer.py` it is the only place that knows both sides.  Each pair of functions is a round trip
(value to message to value is the identity for every field, proved by tests/property/test_convert.py), so
that no attribute is ever lost on the way to a person.  Messages are only read here after protobuf parsed
them; text in them may still be nonsense, and then a function raises ValueError with a sentence.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from api.v1 import path_pb2 as pb
from api.v1 import route_pb2 as route_pb
from routes.path import (
    Aggregator,
    AsPath,
    AsSegment,
    Origin,
    Path,
    PathAttributes,
    PeerKind,
    PeerName,
    SegmentKind,
    Source,
    UnknownAttribute,
)
from routes.prefix import Address, Family, Prefix
from routes.view import (
    Explanation,
    FibView,
    Gate,
    Match,
    NextHopView,
    PathView,
    RouteChange,
    RouteQuery,
    Table,
    Told,
)

ORIGIN_TO = {
    Origin.IGP: pb.ORIGIN_IGP,
    Origin.EGP: pb.ORIGIN_EGP,
    Origin.INCOMPLETE: pb.ORIGIN_INCOMPLETE,
}
ORIGIN_FROM = {message: value for value, message in ORIGIN_TO.items()}
SEGMENT_TO = {
    SegmentKind.SET: pb.SEGMENT_KIND_SET,
    SegmentKind.SEQUENCE: pb.SEGMENT_KIND_SEQUENCE,
    SegmentKind.CONFED_SEQUENCE: pb.SEGMENT_KIND_CONFED_SEQUENCE,
    SegmentKind.CONFED_SET: pb.SEGMENT_KIND_CONFED_SET,
}
SEGMENT_FROM = {message: value for value, message in SEGMENT_TO.items()}
KIND_TO = {
    PeerKind.LOCAL: pb.PEER_KIND_LOCAL,
    PeerKind.EBGP: pb.PEER_KIND_EBGP,
    PeerKind.IBGP: pb.PEER_KIND_IBGP,
}
KIND_FROM = {message: value for value, message in KIND_TO.items()}
FAMILY_TO = {Family.IPV4: pb.FAMILY_IPV4, Family.IPV6: pb.FAMILY_IPV6}
FAMILY_FROM = {message: value for value, message in FAMILY_TO.items()}
TABLE_TO = {
    Table.ADJ_IN_PRE: route_pb.TABLE_ADJ_IN_PRE,
    Table.ADJ_IN_POST: route_pb.TABLE_ADJ_IN_POST,
    Table.LOC_RIB: route_pb.TABLE_LOC_RIB,
    Table.ADJ_OUT: route_pb.TABLE_ADJ_OUT,
    Table.FIB: route_pb.TABLE_FIB,
}
TABLE_FROM = {message: value for value, message in TABLE_TO.items()}
MATCH_TO = {
    Match.EXACT: route_pb.MATCH_EXACT,
    Match.LONGER: route_pb.MATCH_LONGER,
    Match.SHORTER: route_pb.MATCH_SHORTER,
    Match.LONGEST: route_pb.MATCH_LONGEST,
}
MATCH_FROM = {message: value for value, message in MATCH_TO.items()}
GATE_TO = {
    None: route_pb.GATE_UNSPECIFIED,
    Gate.ANNOUNCED: route_pb.GATE_ANNOUNCED,
    Gate.IMPORT: route_pb.GATE_IMPORT,
    Gate.NEXT_HOP: route_pb.GATE_NEXT_HOP,
    Gate.SELECTED: route_pb.GATE_SELECTED,
    Gate.KERNEL: route_pb.GATE_KERNEL,
}
GATE_FROM = {message: value for value, message in GATE_TO.items()}


def address_to_text(address: Address | None) -> str:
    """An address as the API writes it; empty for none."""
    if address is None:
        return ""
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)


def address_from_text(text: str) -> Address | None:
    """Reads what `address_to_text` wrote."""
    return required_address(text) if text else None


def required_address(text: str) -> Address:
    """Reads an address that has to be there."""
    try:
        return Address(inet_pton(AF_INET6 if ":" in text else AF_INET, text))
    except OSError:
        raise ValueError(f"{text!r} is no IP address") from None


def prefix_to_text(prefix: Prefix) -> str:
    """A prefix as the API writes it."""
    address, length = prefix
    return f"{inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)}/{length}"


def prefix_from_text(text: str) -> Prefix:
    """Reads what `prefix_to_text` wrote (host bits are taken on trust: `Prefix.parse` checks requests)."""
    address, _, length = text.partition("/")
    return Prefix(required_address(address), int(length))


def identifier_to_text(value: int) -> str:
    """A BGP identifier or cluster ID as a dotted quad."""
    return inet_ntop(AF_INET, value.to_bytes(4, "big"))


def identifier_from_text(text: str) -> int:
    """Reads what `identifier_to_text` wrote."""
    return int.from_bytes(required_address(text), "big")


def attributes_to_message(value: PathAttributes) -> pb.PathAttributes:
    """Path attributes."""
    message = pb.PathAttributes(
        origin=ORIGIN_TO[value.origin],
        as_path=[pb.AsSegment(kind=SEGMENT_TO[kind], asns=asns) for kind, asns in value.as_path.segments],
        next_hop=address_to_text(value.next_hop),
        med=value.med,
        local_pref=value.local_pref,
        communities=value.communities,
    )
    _rare_attributes_to_message(value, message)
    return message


def _rare_attributes_to_message(value: PathAttributes, message: pb.PathAttributes) -> None:
    message.atomic_aggregate = value.atomic_aggregate
    if value.link_local is not None:
        message.link_local = address_to_text(value.link_local)
    if value.aggregator is not None:
        asn, bgp_id = value.aggregator
        message.aggregator.CopyFrom(pb.Aggregator(asn=asn, bgp_id=identifier_to_text(bgp_id)))
    if value.extended_communities:
        message.extended_communities.extend(value.extended_communities)
    for administrator, data_1, data_2 in value.large_communities:
        message.large_communities.add(
            global_administrator=administrator, local_data_1=data_1, local_data_2=data_2
        )
    if value.originator_id is not None:
        message.originator_id = identifier_to_text(value.originator_id)
    if value.cluster_list:
        message.cluster_list.extend(map(identifier_to_text, value.cluster_list))
    for flags, code, raw in value.unknown:
        message.unknown.add(flags=flags, code=code, value=raw)


def attributes_from_message(message: pb.PathAttributes) -> PathAttributes:
    """Path attributes."""
    aggregator = message.aggregator
    return PathAttributes(
        origin=ORIGIN_FROM[message.origin],
        as_path=AsPath.of(tuple(AsSegment(SEGMENT_FROM[s.kind], tuple(s.asns)) for s in message.as_path)),
        next_hop=required_address(message.next_hop),
        link_local=address_from_text(message.link_local),
        med=message.med if message.HasField("med") else None,
        local_pref=message.local_pref if message.HasField("local_pref") else None,
        atomic_aggregate=message.atomic_aggregate,
        aggregator=Aggregator(aggregator.asn, identifier_from_text(aggregator.bgp_id))
        if message.HasField("aggregator")
        else None,
        communities=tuple(message.communities),
        extended_communities=tuple(message.extended_communities),
        large_communities=tuple(
            (c.global_administrator, c.local_data_1, c.local_data_2) for c in message.large_communities
        ),
        originator_id=identifier_from_text(message.originator_id) if message.originator_id else None,
        cluster_list=tuple(map(identifier_from_text, message.cluster_list)),
        unknown=tuple(UnknownAttribute(u.flags, u.code, u.value) for u in message.unknown),
    )


def source_to_message(value: Source) -> pb.Source:
    """The session that a path was received on."""
    return pb.Source(
        peer=value.peer,
        kind=KIND_TO[value.kind],
        asn=value.asn,
        bgp_id=identifier_to_text(value.bgp_id),
        address=address_to_text(value.address),
        ifindex=value.ifindex,
    )


def source_from_message(message: pb.Source) -> Source:
    """The session that a path was received on."""
    return Source(
        peer=PeerName(message.peer),
        kind=KIND_FROM[message.kind],
        asn=message.asn,
        bgp_id=identifier_from_text(message.bgp_id),
        address=required_address(message.address),
        ifindex=message.ifindex,
    )


def path_to_message(view: PathView) -> pb.Path:
    """One path with its fate."""
    path = view.path
    return pb.Path(
        nlri=prefix_to_text(path.nlri),
        attributes=attributes_to_message(path.attributes),
        policy_attributes=None
        if view.attributes == path.attributes
        else attributes_to_message(view.attributes),
        source=source_to_message(path.source),
        path_id=path.path_id,
        accepted=view.accepted,
        rule=view.rule,
        best=view.best,
        multipath=view.multipath,
        lost_at=view.lost_at,
        reason=view.reason,
        stale=view.stale,
        to="" if view.to is None else view.to,
        group=view.group,
        members=view.members,
    )


def path_from_message(message: pb.Path) -> PathView:
    """One path with its fate."""
    received = attributes_from_message(message.attributes)
    changed = message.HasField("policy_attributes")
    return PathView(
        path=Path(
            prefix_from_text(message.nlri), received, source_from_message(message.source), message.path_id
        ),
        attributes=attributes_from_message(message.policy_attributes) if changed else received,
        accepted=message.accepted,
        rule=message.rule,
        best=message.best,
        multipath=message.multipath,
        lost_at=message.lost_at,
        reason=message.reason,
        stale=message.stale,
        to=PeerName(message.to) if message.to else None,
        group=message.group,
        members=message.members,
    )


def fib_to_message(view: FibView) -> pb.FibEntry:
    """One kernel entry."""
    return pb.FibEntry(
        nlri=prefix_to_text(view.nlri),
        next_hops=[
            pb.NextHop(
                gateway=address_to_text(hop.gateway),
                ifindex=hop.ifindex,
                interface=hop.interface,
                onlink=hop.onlink,
            )
            for hop in view.next_hops
        ],
        metric=view.metric,
        installed=view.installed,
        held=view.held,
        reason=view.reason,
        preferred_source=address_to_text(view.preferred_source),
    )


def fib_from_message(message: pb.FibEntry) -> FibView:
    """One kernel entry."""
    return FibView(
        nlri=prefix_from_text(message.nlri),
        next_hops=tuple(
            NextHopView(address_from_text(hop.gateway), hop.ifindex, hop.interface, hop.onlink)
            for hop in message.next_hops
        ),
        metric=message.metric,
        installed=message.installed,
        held=message.held,
        reason=message.reason,
        preferred_source=address_from_text(message.preferred_source),
    )


def change_to_message(value: RouteChange) -> route_pb.RouteChange:
    """The state of one prefix in a watched table."""
    return route_pb.RouteChange(
        nlri=prefix_to_text(value.nlri),
        paths=map(path_to_message, value.paths),
        fib_entries=map(fib_to_message, value.fib),
    )


def change_from_message(message: route_pb.RouteChange) -> RouteChange:
    """The state of one prefix in a watched table."""
    return RouteChange(
        nlri=prefix_from_text(message.nlri),
        paths=tuple(map(path_from_message, message.paths)),
        fib=tuple(map(fib_from_message, message.fib_entries)),
    )


def explanation_to_message(value: Explanation) -> route_pb.ExplainRouteResponse:
    """Why a destination is reached as it is."""
    return route_pb.ExplainRouteResponse(
        target=prefix_to_text(value.target),
        nlri="" if value.nlri is None else prefix_to_text(value.nlri),
        failed=GATE_TO[value.failed],
        text=value.text,
        paths=map(path_to_message, value.paths),
        fib_entries=map(fib_to_message, value.fib),
        advertised_to=value.advertised_to,
        more_specific=map(path_to_message, value.more_specific),
        told=[route_pb.Told(**each._asdict()) for each in value.told],
        reflected=value.reflected,
    )


def explanation_from_message(message: route_pb.ExplainRouteResponse) -> Explanation:
    """Why a destination is reached as it is."""
    return Explanation(
        target=prefix_from_text(message.target),
        nlri=prefix_from_text(message.nlri) if message.nlri else None,
        failed=GATE_FROM[message.failed],
        text=message.text,
        paths=tuple(map(path_from_message, message.paths)),
        fib=tuple(map(fib_from_message, message.fib_entries)),
        advertised_to=tuple(map(PeerName, message.advertised_to)),
        more_specific=tuple(map(path_from_message, message.more_specific)),
        told=tuple(
            Told(
                each.group,
                PeerName(each.source),
                each.peers,
                each.reason,
                tuple(map(PeerName, each.not_back_to)),
            )
            for each in message.told
        ),
        reflected=message.reflected,
    )


def query_to_message(value: RouteQuery) -> route_pb.RouteFilter:
    """Which routes are asked for (`after` travels as the page token)."""
    return route_pb.RouteFilter(
        table=TABLE_TO[value.table],
        peer=value.peer or "",
        family=pb.FAMILY_UNSPECIFIED if value.family is None else FAMILY_TO[value.family],
        prefix="" if value.prefix is None else prefix_to_text(value.prefix),
        match=route_pb.MATCH_UNSPECIFIED if value.prefix is None else MATCH_TO[value.match],
    )
