"""The boundary to ExaBGP: bytes become our plain values here, and our values bytes.

ExaBGP's classes read and write OPEN with its capabilities, path attributes, prefixes and the small
messages.  What it accepts unchecked is checked in `errors7606`, `nlri` and here: RFC 4271 section 6 and
RFC 7606 decide between a reset, treat-as-withdraw and leaving an attribute out.  Nothing of ExaBGP leaves
this module: its objects are mutable, some are shared, and its version 6 removes most of them.
Never decides about routes, never touches a socket, and never raises on what a peer sent.
"""

from __future__ import annotations

import os
import pwd
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from bgpd.bgp.errors7606 import (
    OPTIONAL,
    PARTIAL,
    TRANSITIVE,
    Action,
    Attr,
    Finding,
    Section,
    UpdateError,
    canonical_flags,
    check_section,
    split_body,
)
from bgpd.bgp.fastpack import pack_common
from bgpd.bgp.fastpath import FastPath
from bgpd.bgp.framing import (
    EXTENDED_LIMIT,
    HEADER_SIZE,
    KEEPALIVE,
    NOTIFICATION,
    OPEN,
    STANDARD_LIMIT,
    UPDATE,
    SessionResetError,
    message_end,
)
from bgpd.bgp.message import (
    EndOfRib,
    Keepalive,
    Message,
    Notification,
    Open,
    RouteRefresh,
    Update,
)
from bgpd.bgp.nlri import UNICAST, assemble, frame_routes, judge
from bgpd.bgp.notifications import Code, OpenError
from bgpd.bgp.packing import announcements, pack_prefixes, reach_header, withdrawals
from bgpd.bgp.parameters import broken_open, capability_list, decode_route_refresh
from bgpd.errors import InvariantError
from routes.path import (
    Aggregator,
    AsPath,
    AsSegment,
    Origin,
    PathAttributes,
    PeerKind,
    SegmentKind,
    UnknownAttribute,
)
from routes.peer import Capabilities, GracefulRestart, Negotiated
from routes.prefix import Address, Family, Prefix, format_router_id

# ExaBGP reads its settings when it is imported: it refuses to load where its default user `nobody` does
# not exist, and a file of its own on this host must not change how we decode.
os.environ["exabgp_daemon_user"] = pwd.getpwuid(0).pw_name  # noqa: SIM112 - its own spelling
os.environ["EXABGP_ENVFILE"] = ""

from exabgp.bgp import message as xmessage
from exabgp.bgp.message import open as xopen
from exabgp.bgp.message.direction import Direction
from exabgp.bgp.message.open import capability as xcapability
from exabgp.bgp.message.open.capability.extended import ExtendedMessage as XExtendedMessage
from exabgp.bgp.message.refresh import RouteRefresh as XRouteRefresh
from exabgp.bgp.message.update import attribute as xattribute
from exabgp.bgp.message.update.attribute import community as xcommunity
from exabgp.bgp.message.update.nlri import NLRI as XNLRI
from exabgp.environment import getenv as xgetenv
from exabgp.logger import log as xlog
from exabgp.protocol.family import AFI, SAFI
from exabgp.protocol.ip import IPv4 as XIPv4

xgetenv()
xlog.disable()  # it has no logger until it is set up, and would raise in the middle of decoding

_AFI = {Family.IPV4: AFI.ipv4, Family.IPV6: AFI.ipv6}
_CODE = xcapability.Capability.CODE
_KNOWN_CAPABILITIES = frozenset(
    (
        _CODE.MULTIPROTOCOL,
        _CODE.ROUTE_REFRESH,
        _CODE.NEXTHOP,
        _CODE.EXTENDED_MESSAGE,
        _CODE.GRACEFUL_RESTART,
        _CODE.FOUR_BYTES_ASN,
        _CODE.ADD_PATH,
        _CODE.ENHANCED_ROUTE_REFRESH,
    )
)
_ADD_PATH_RECEIVE, _ADD_PATH_SEND = 1, 2
_RESTART_BIT, _NOTIFICATION_BIT, _FORWARDING_BIT = 0x8, 0x4, 0x80
_EXABGP_ERRORS = (xmessage.Notify, ValueError, IndexError, struct.error)
"""What its parsers raise on bad input: NOTIFICATIONs by design, the others where a check is missing."""


def _session(four_octet: bool, internal: bool) -> xcapability.Negotiated:
    """What ExaBGP's classes ask of a session."""
    session = xcapability.Negotiated({"capability": {"aigp": None}})
    session.asn4 = four_octet
    session.local_as, session.peer_as = xopen.ASN(1), xopen.ASN(1 if internal else 2)
    return session


_SESSIONS = {(wide, inside): _session(wide, inside) for wide in (False, True) for inside in (False, True)}


def _session_of(negotiated: Negotiated) -> xcapability.Negotiated:
    return _SESSIONS[negotiated.four_octet, negotiated.kind is PeerKind.IBGP]


# ---- OPEN (RFC 4271 section 4.2, RFC 5492) ----


def encode_open(message: Open) -> bytes:
    """OPEN with one capability a parameter, AS_TRANS where the AS number has four octets."""
    ours = message.capabilities
    pairs = [(_AFI[family], SAFI.unicast) for family in sorted(ours.families)]
    capabilities = xcapability.Capabilities()
    if pairs:
        capabilities[_CODE.MULTIPROTOCOL] = xcapability.MultiProtocol(pairs)
    if ours.route_refresh:
        capabilities[_CODE.ROUTE_REFRESH] = xcapability.RouteRefresh()
    if ours.extended_next_hop:
        triples = [(_AFI[family], SAFI.unicast, AFI.ipv6) for family in sorted(ours.extended_next_hop)]
        capabilities[_CODE.NEXTHOP] = xcapability.NextHop(triples)
    if ours.extended_message:
        capabilities[_CODE.EXTENDED_MESSAGE] = XExtendedMessage()
    if ours.graceful_restart:
        capabilities[_CODE.GRACEFUL_RESTART] = _restart_capability(ours.graceful_restart)
    if ours.four_octet_asn is not None:
        capabilities[_CODE.FOUR_BYTES_ASN] = xcapability.ASN4(ours.four_octet_asn)
    if ours.add_path_send or ours.add_path_receive:
        capabilities[_CODE.ADD_PATH] = _add_path_capability(ours)
    if ours.enhanced_route_refresh:
        capabilities[_CODE.ENHANCED_ROUTE_REFRESH] = xcapability.EnhancedRouteRefresh()
    return bytes(
        xmessage.Open(
            xopen.Version(4),
            xopen.ASN(message.asn),
            xopen.HoldTime(message.hold_time),
            xopen.RouterID(format_router_id(message.bgp_id)),
            capabilities,
        ).message()
    )


def _restart_capability(restart: GracefulRestart) -> xcapability.Graceful:
    # ExaBGP names only the R bit of the four flags, and packs whatever flags it is given.
    flags = _RESTART_BIT * restart.restarting | _NOTIFICATION_BIT * restart.notification
    families = [
        (_AFI[family], SAFI.unicast, _FORWARDING_BIT * forwarding) for family, forwarding in restart.families
    ]
    return xcapability.Graceful().set(flags, restart.restart_time, families)


def _add_path_capability(ours: Capabilities) -> xcapability.AddPath:
    capability = xcapability.AddPath()
    for family in sorted(ours.add_path_send | ours.add_path_receive):
        bits = _ADD_PATH_SEND * (family in ours.add_path_send)
        bits |= _ADD_PATH_RECEIVE * (family in ours.add_path_receive)
        capability.add_path(_AFI[family], SAFI.unicast, bits)
    return capability


def _decode_open(body: bytes) -> Open:
    """OPEN, refused where RFC 4271 section 6.2 says so whoever the peer is."""
    version, my_as, hold_time, bgp_id = struct.unpack("!BHHI", body[:9])
    if version != 4:
        raise SessionResetError(Code.OPEN, OpenError.VERSION, f"BGP version {version}", b"\x00\x04")
    capabilities = _read_capabilities(body[9:])
    asn = my_as if capabilities.four_octet_asn is None else capabilities.four_octet_asn
    if asn == 0 or my_as == 0:
        raise SessionResetError(Code.OPEN, OpenError.BAD_PEER_AS, "AS 0 in OPEN (RFC 7607)")
    if hold_time in (1, 2):
        text = f"hold time {hold_time} is neither 0 nor at least 3"
        raise SessionResetError(Code.OPEN, OpenError.HOLD_TIME, text)
    if bgp_id == 0:
        raise SessionResetError(Code.OPEN, OpenError.BAD_BGP_ID, "BGP identifier 0.0.0.0 in OPEN (RFC 6286)")
    return Open(asn, hold_time, bgp_id, capabilities)


def _read_capabilities(parameters: bytes) -> Capabilities:
    theirs = xcapability.Capabilities()
    unknown: dict[int, None] = {}
    for code, value in capability_list(parameters):
        # ExaBGP also knows host and software names, and ends a session over a bad character in one.
        if code not in _KNOWN_CAPABILITIES:
            unknown[code] = None
            continue
        try:
            theirs[code] = xcapability.Capability.unpack(code, theirs, value)
        except _EXABGP_ERRORS:
            raise broken_open(f"capability {code} can't be parsed") from None
    add_path = theirs.get(_CODE.ADD_PATH, {})
    return Capabilities(
        families=_families(theirs[_CODE.MULTIPROTOCOL])
        if _CODE.MULTIPROTOCOL in theirs
        else frozenset({Family.IPV4}),
        four_octet_asn=int(theirs[_CODE.FOUR_BYTES_ASN]) if _CODE.FOUR_BYTES_ASN in theirs else None,
        route_refresh=_CODE.ROUTE_REFRESH in theirs,
        enhanced_route_refresh=_CODE.ENHANCED_ROUTE_REFRESH in theirs,
        extended_message=_CODE.EXTENDED_MESSAGE in theirs,
        extended_next_hop=_families(
            (afi, safi) for afi, safi, hop in theirs.get(_CODE.NEXTHOP, ()) if hop == AFI.ipv6
        ),
        # RFC 7911 section 4: any other value than 1, 2 and 3 is ignored.
        add_path_send=_families(pair for pair, bits in add_path.items() if bits in (2, 3)),
        add_path_receive=_families(pair for pair, bits in add_path.items() if bits in (1, 3)),
        graceful_restart=_read_restart(theirs.get(_CODE.GRACEFUL_RESTART)),
        unknown=tuple(unknown),
    )


def _read_restart(capability: xcapability.Graceful | None) -> GracefulRestart | None:
    if capability is None:
        return None
    return GracefulRestart(
        restart_time=int(capability.restart_time),
        restarting=bool(capability.restart_flag & _RESTART_BIT),
        notification=bool(capability.restart_flag & _NOTIFICATION_BIT),
        families=tuple(
            (Family(afi), bool(flags & _FORWARDING_BIT))
            for (afi, safi), flags in capability.items()
            if safi == UNICAST and afi in _AFI
        ),
    )


def _families(pairs: Iterable[tuple[int, int]]) -> frozenset[Family]:
    return frozenset(Family(afi) for afi, safi in pairs if safi == UNICAST and afi in _AFI)


# ---- the small messages ----


def encode_keepalive() -> bytes:
    """KEEPALIVE."""
    return bytes(xmessage.KeepAlive().message())


def encode_notification(notification: Notification) -> bytes:
    """NOTIFICATION, its data cut to what a message holds."""
    code, subcode, data = notification
    return bytes(xmessage.Notify(code, subcode, data[: STANDARD_LIMIT - 21]).message())


def encode_route_refresh(refresh: RouteRefresh) -> bytes:
    """ROUTE-REFRESH (RFC 2918), or a mark of RFC 7313."""
    return bytes(XRouteRefresh(_AFI[refresh.family], SAFI.unicast, refresh.kind).message())


def encode_end_of_rib(family: Family, negotiated: Negotiated) -> bytes:
    """The End-of-RIB marker of a family of this session (RFC 4724 section 2)."""
    if family not in negotiated.families:
        raise InvariantError(f"End-of-RIB for {family} on a session without it")
    return bytes(xmessage.EOR(_AFI[family], SAFI.unicast).message())


# ---- UPDATE, decoding ----


def _decode_update(body: bytes, negotiated: Negotiated) -> list[Update] | list[EndOfRib]:
    withdrawn, block, nlri = split_body(body)
    section = check_section(block, negotiated)
    routes = frame_routes(withdrawn, nlri, section, negotiated)
    if not (withdrawn or nlri or section.findings) and section.seen <= {Attr.MP_UNREACH_NLRI}:
        unreach = section.known.get(Attr.MP_UNREACH_NLRI)
        if not routes.withdrawn:
            family = Family(int.from_bytes(unreach.value[:2], "big")) if unreach else Family.IPV4
            return [EndOfRib(family)] if family in negotiated.families else []
    attributes = _read_attributes(section, negotiated)
    withdraw = judge(routes, section, negotiated)

    def read(family: Family, piece: bytes) -> tuple[int, Prefix]:
        return _read_prefix(family, piece, family in negotiated.add_path_receive)

    return assemble(routes, attributes, section.findings, withdraw, read)


def _read_prefix(family: Family, piece: bytes, add_path: bool) -> tuple[int, Prefix]:
    nlri, _ = XNLRI.unpack_nlri(_AFI[family], SAFI.unicast, piece, xmessage.Action.ANNOUNCE, add_path)
    length = int(nlri.cidr.mask)
    # Bits behind the length are irrelevant (RFC 4271 section 4.3); ExaBGP keeps them.
    size = len(nlri.cidr.ton())
    host_bits = size * 8 - length
    network = int.from_bytes(nlri.cidr.ton(), "big") >> host_bits << host_bits
    path_id = int.from_bytes(nlri.path_info.path_info, "big")
    return path_id, Prefix(Address(network.to_bytes(size, "big")), length)


def _read_attributes(section: Section, negotiated: Negotiated) -> PathAttributes:
    """The values, without a next hop; what can't be one adds a finding."""
    session = _session_of(negotiated)

    def value(code: Attr) -> xattribute.Attribute | None:
        raw = section.known.get(code)
        if raw is None:
            return None
        return xattribute.Attribute.unpack(code, canonical_flags(code), raw.value, Direction.IN, session)

    as_path, aggregator = _read_as_numbers(section, negotiated)
    med, local_pref = value(Attr.MULTI_EXIT_DISC), value(Attr.LOCAL_PREF)
    originator, clusters = value(Attr.ORIGINATOR_ID), value(Attr.CLUSTER_LIST)
    communities, large = value(Attr.COMMUNITIES), value(Attr.LARGE_COMMUNITIES)
    extended = section.known.get(Attr.EXTENDED_COMMUNITIES)
    return PathAttributes(
        origin=_read_origin(value(Attr.ORIGIN), section),
        as_path=as_path,
        next_hop=Address(b""),
        med=int(med.med) if med is not None else None,
        local_pref=int(local_pref.localpref) if local_pref is not None else None,
        atomic_aggregate=Attr.ATOMIC_AGGREGATE in section.known,
        aggregator=aggregator,
        communities=tuple(_number(one.community) for one in communities or ()),
        # ExaBGP rewrites some of these (it clears the high bits of a MAC mobility type), so it isn't asked.
        extended_communities=_sorted_pieces(extended.value, 8) if extended else (),
        large_communities=tuple(struct.unpack("!III", one.large_community) for one in large or ()),
        originator_id=_number(originator.ton()) if originator is not None else None,
        cluster_list=tuple(_number(one.ton()) for one in clusters.clusters) if clusters is not None else (),
        unknown=tuple(
            UnknownAttribute(OPTIONAL | TRANSITIVE | PARTIAL, raw.code, raw.value) for raw in section.unknown
        ),
    )


def _read_origin(origin: xattribute.Origin | None, section: Section) -> Origin:
    if origin is None:
        return Origin.INCOMPLETE
    if origin.origin > Origin.INCOMPLETE:
        wire = section.known[Attr.ORIGIN].wire
        text = f"ORIGIN {origin.origin} is undefined"
        section.findings.append(Finding(Action.WITHDRAW, UpdateError.ORIGIN, text, wire))
        return Origin.INCOMPLETE
    return Origin(origin.origin)


def _read_as_numbers(section: Section, negotiated: Negotiated) -> tuple[AsPath, Aggregator | None]:
    """AS_PATH and AGGREGATOR, with what AS4_PATH and AS4_AGGREGATOR restore (RFC 6793 section 4.2.3)."""
    session = _session_of(negotiated)
    parts = xattribute.Attributes()
    for code in (Attr.AS_PATH, Attr.AS4_PATH, Attr.AGGREGATOR, Attr.AS4_AGGREGATOR):
        raw = section.known.get(code)
        if raw is None:
            continue
        action = Action.WITHDRAW if code is Attr.AS_PATH else Action.DISCARD
        try:
            part = xattribute.Attribute.unpack(code, canonical_flags(code), raw.value, Direction.IN, session)
        except _EXABGP_ERRORS:
            text = f"{code.name} can't be parsed"
            section.findings.append(Finding(action, UpdateError.AS_PATH, text, raw.wire))
            continue
        if part is None:  # an AS_PATH without segments
            continue
        if text := _as_number_fault(part, code, negotiated):
            section.findings.append(Finding(action, UpdateError.AS_PATH, text, raw.wire))
            continue
        parts[code] = part
    aggregated = Attr.AGGREGATOR in parts
    parts.reconcile_four_octet_as()
    path = parts.get(Attr.AS_PATH, xattribute.ASPath([]))
    by = parts.get(Attr.AGGREGATOR, parts.get(Attr.AS4_AGGREGATOR)) if aggregated else None
    segments = tuple(AsSegment(SegmentKind(segment.ID), tuple(map(int, segment))) for segment in path.aspath)
    aggregator = Aggregator(int(by.asn), _number(by.speaker.ton())) if by is not None else None
    return AsPath.of(segments), aggregator


def _as_number_fault(part: xattribute.Attribute, code: Attr, negotiated: Negotiated) -> str:
    if code in (Attr.AGGREGATOR, Attr.AS4_AGGREGATOR):
        return f"{code.name} has AS 0 (RFC 7607)" if part.asn == 0 else ""
    if not all(part.aspath):
        return f"{code.name} has an empty segment"
    if any(0 in segment for segment in part.aspath):
        return f"{code.name} has AS 0 (RFC 7607)"
    inside = (SegmentKind.CONFED_SEQUENCE, SegmentKind.CONFED_SET)
    if negotiated.kind is PeerKind.EBGP and any(segment.ID in inside for segment in part.aspath):
        return f"{code.name} has a confederation segment from outside (RFC 5065)"
    return ""


def _sorted_pieces(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(sorted(data[at : at + size] for at in range(0, len(data), size)))


def _number(packed: bytes) -> int:
    return int.from_bytes(packed, "big")


# ---- UPDATE, encoding ----


def encode_updates(
    attributes: PathAttributes | None,
    announced: Sequence[Prefix],
    withdrawn: Sequence[Prefix],
    negotiated: Negotiated,
    path_id: int = 0,
) -> list[bytes]:
    """Whole UPDATEs, withdrawals first; `path_id` counts in the families that ADD-PATH is sent in.

    Messages have at most 4,096 bytes unless one path's attributes need more and the peer takes it
    (RFC 8654).  A path whose attributes fit no message is withdrawn: the peer must not keep an older one.
    """
    messages: list[bytes] = []
    for family in Family:
        add_path_id = path_id.to_bytes(4, "big") if family in negotiated.add_path_send else b""
        gone = [add_path_id + packed for packed in pack_prefixes(withdrawn, family)]
        here = [add_path_id + packed for packed in pack_prefixes(announced, family)]
        told = _announcements(attributes, family, here, negotiated) if here else []
        if told is None:
            gone, told = gone + here, []
        messages += (*withdrawals(family, gone), *told)
    return messages


def _announcements(
    attributes: PathAttributes | None, family: Family, pieces: Sequence[bytes], negotiated: Negotiated
) -> list[bytes] | None:
    if attributes is None:
        raise InvariantError("prefixes to announce, and no attributes")
    by_ipv6 = len(attributes.next_hop) == 16
    if by_ipv6 != (family is Family.IPV6) and not (by_ipv6 and family in negotiated.extended_next_hop):
        raise InvariantError(f"{family} with the next hop {attributes.next_hop.hex()} on this session")
    reach = reach_header(attributes, family)
    block = pack_attributes(attributes, reach is None, negotiated.four_octet, negotiated.kind)
    return announcements(block, reach, pieces, extended=negotiated.extended_message)


def pack_attributes(attributes: PathAttributes, next_hop: bool, four_octet: bool, kind: PeerKind) -> bytes:
    """All but MP_REACH_NLRI, in the order of their codes; for eBGP without what stays inside an AS."""
    internal = kind is PeerKind.IBGP
    common = pack_common(attributes, next_hop=next_hop, internal=internal) if four_octet else None
    return pack_by_exabgp(attributes, next_hop, four_octet, internal) if common is None else common


@lru_cache(maxsize=512)
def pack_by_exabgp(attributes: PathAttributes, next_hop: bool, four_octet: bool, internal: bool) -> bytes:
    """The same for any attributes: the measure that `fastpack` is held to."""
    block = xattribute.Attributes()
    for one in _attributes(attributes, next_hop, internal):
        block.add(one)
    return bytes(block.pack(_SESSIONS[four_octet, internal], with_default=False))


def _attributes(attributes: PathAttributes, next_hop: bool, internal: bool) -> Iterator[xattribute.Attribute]:
    """ExaBGP's objects; it leaves LOCAL_PREF out for eBGP itself."""
    yield xattribute.Origin(attributes.origin)
    yield xattribute.ASPath(
        [_SEGMENTS[kind](map(xopen.ASN, asns)) for kind, asns in attributes.as_path.segments]
    )
    if next_hop:
        yield xattribute.NextHop.unpack(bytes(attributes.next_hop))
    if attributes.med is not None:
        yield xattribute.MED(attributes.med)
    if attributes.local_pref is not None:
        yield xattribute.LocalPreference(attributes.local_pref)
    if attributes.atomic_aggregate:
        yield xattribute.AtomicAggregate()
    if attributes.aggregator is not None:
        asn, bgp_id = attributes.aggregator
        yield xattribute.Aggregator(xopen.ASN(asn), _address(bgp_id))
    if attributes.communities:
        yield xattribute.Communities([xcommunity.Community(_packed(c)) for c in attributes.communities])
    if attributes.originator_id is not None and internal:
        yield xattribute.OriginatorID(format_router_id(attributes.originator_id))
    if attributes.cluster_list and internal:
        yield xattribute.ClusterList([_address(cluster) for cluster in attributes.cluster_list])
    if attributes.extended_communities:
        extended = [xcommunity.ExtendedCommunity(raw) for raw in attributes.extended_communities]
        yield xattribute.ExtendedCommunities(extended)
    if attributes.large_communities:
        large = [
            xcommunity.LargeCommunity(struct.pack("!III", *parts)) for parts in attributes.large_communities
        ]
        yield xattribute.LargeCommunities(large)
    for flags, code, value in attributes.unknown:
        yield xattribute.GenericAttribute(code, flags, value)


_SEGMENTS = {
    SegmentKind.SET: xattribute.SET,
    SegmentKind.SEQUENCE: xattribute.SEQUENCE,
    SegmentKind.CONFED_SEQUENCE: xattribute.CONFED_SEQUENCE,
    SegmentKind.CONFED_SET: xattribute.CONFED_SET,
}


def _address(number: int) -> XIPv4:
    return XIPv4.unpack(_packed(number))


def _packed(number: int) -> bytes:
    return number.to_bytes(4, "big")


# ---- the stream ----


class Decoder:
    """Bytes of one session in, messages out; keeps at most one incomplete message."""

    __slots__ = ("_broken", "_fast", "_fast_wanted", "_limit", "_needed", "_negotiated", "_opened", "_tail")

    def __init__(self, *, fast: bool = True) -> None:
        """`fast` off sends every UPDATE through ExaBGP: the measure that the fast path is held to."""
        self._tail = bytearray()
        self._needed = HEADER_SIZE
        self._negotiated: Negotiated | None = None
        self._limit = STANDARD_LIMIT
        self._opened = False
        self._broken = False
        self._fast_wanted = fast
        self._fast: FastPath | None = None

    @property
    def negotiated(self) -> Negotiated | None:
        """What both OPENs agree on; an UPDATE or ROUTE-REFRESH before it is known is an error."""
        return self._negotiated

    @negotiated.setter
    def negotiated(self, value: Negotiated | None) -> None:
        if value is self._negotiated:
            return
        self._negotiated = value
        self._fast = None
        # RFC 8654 section 4: what we offered to receive binds us, whatever the peer offered.
        offered = value is not None and value.local_capabilities.extended_message
        self._limit = EXTENDED_LIMIT if offered else STANDARD_LIMIT
        if value is not None and value.four_octet and self._fast_wanted:
            self._fast = FastPath(value, self._limit)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are now complete; nothing more after a `Malformed`, which comes last."""
        messages: list[Message] = []
        if self._broken:
            return messages
        tail = self._tail
        if tail:
            tail += data
            if len(tail) < self._needed:
                return messages
            data = bytes(tail)
            tail.clear()
        position = self._fast.decode(data, 0, messages) if self._fast is not None else 0
        if position == len(data):
            return messages
        try:
            position = self._decode_stream(data, position, messages)
        except SessionResetError as error:
            self._broken = True
            messages.append(error.malformed)
        else:
            if position < len(data):
                tail += data[position:]
        return messages

    def _decode_stream(self, stream: bytes, position: int, messages: list[Message]) -> int:
        """Decode whole messages, the first of which is no common UPDATE.

        Returns where the first incomplete one begins.
        """
        size = len(stream)
        while size - position >= HEADER_SIZE:
            end = message_end(stream, position, self._limit)
            if end > size:
                self._needed = end - position
                return position
            messages += self._decode(stream[position + 18], stream[position + HEADER_SIZE : end])
            position = end if self._fast is None else self._fast.decode(stream, end, messages)
        self._needed = HEADER_SIZE
        return position

    def _decode(self, kind: int, body: bytes) -> Iterable[Message]:
        if kind == OPEN:
            self._opened = True
            return [_decode_open(body)]
        if kind == KEEPALIVE:
            return [Keepalive()]
        if kind == NOTIFICATION:
            # Not through ExaBGP, which turns the data into text.
            return [Notification(body[0], body[1], body[2:])]
        if self._negotiated is None:
            # RFC 6608: which state we are in follows from whether the peer's OPEN was seen.
            text = "an UPDATE or ROUTE-REFRESH before the session is established"
            raise SessionResetError(Code.FSM, 2 if self._opened else 1, text)
        if kind == UPDATE:
            return _decode_update(body, self._negotiated)
        refresh = decode_route_refresh(body, self._negotiated)
        return [refresh] if refresh else []
