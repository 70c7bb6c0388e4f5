"""Prefixes on the wire, and what one UPDATE says of them.

Owns the framing of NLRI fields, MP_REACH_NLRI and MP_UNREACH_NLRI, which next hops are usable, and how the
parts of one UPDATE become `Update` values: withdrawals first, one value for each family, next hop and path
ID, everything withdrawn when the attributes are wrong.  Never reads an attribute's value.
RFC 4271 section 4.3, RFC 4760, RFC 7606 sections 3 and 5, RFC 7911 section 3, RFC 2545, RFC 8950.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from bgpd.bgp.errors7606 import (
    Action,
    Attr,
    Finding,
    RawAttribute,
    Section,
    UpdateError,
    check_mandatory,
    reset,
)
from bgpd.bgp.message import Update
from routes.path import PathAttributes
from routes.peer import Negotiated
from routes.prefix import Address, Family, Prefix, format_address, is_link_local

UNICAST: Final = 1
_UNSPECIFIED = bytes(16)
_LOOPBACK = bytes(15) + b"\x01"
_ERRORS_SHOWN = 4
"""One UPDATE can hold a thousand errors; the first ones tell the story."""


class Reach(NamedTuple):
    """MP_REACH_NLRI, framed."""

    family: Family | None
    """None: an address family that this session does not carry."""
    label: str
    next_hop: bytes
    nlri: bytes


def parse_reach(raw: RawAttribute, negotiated: Negotiated) -> Reach:
    """Frame MP_REACH_NLRI (RFC 4760 section 3); a next hop of a wrong size hides the NLRI (section 7.11)."""
    value = raw.value
    if len(value) < 5 or len(value) < 5 + value[3]:
        reset(UpdateError.OPTIONAL_ATTRIBUTE, f"MP_REACH_NLRI of {len(value)} bytes is cut short", raw.wire)
    family, label = _family(value, negotiated)
    next_hop, nlri = value[4 : 4 + value[3]], value[5 + value[3] :]
    if family is None:
        return Reach(None, label, next_hop, nlri)
    sizes = {Family.IPV6: (16, 32), Family.IPV4: (4,)}[family]
    if family in negotiated.extended_next_hop:
        sizes = (4, 16, 32) if family is Family.IPV4 else sizes
    if len(next_hop) not in sizes:
        text = f"the next hop in MP_REACH_NLRI for {family} has {len(next_hop)} bytes"
        reset(UpdateError.OPTIONAL_ATTRIBUTE, text, raw.wire)
    if not nlri:
        reset(UpdateError.OPTIONAL_ATTRIBUTE, "MP_REACH_NLRI announces nothing", raw.wire)
    return Reach(family, label, next_hop, nlri)


def parse_unreach(raw: RawAttribute, negotiated: Negotiated) -> tuple[Family | None, str, bytes]:
    """Family, its name, and the NLRI of MP_UNREACH_NLRI (RFC 4760 section 4)."""
    if len(raw.value) < 3:
        text = f"MP_UNREACH_NLRI of {len(raw.value)} bytes is cut short"
        reset(UpdateError.OPTIONAL_ATTRIBUTE, text, raw.wire)
    family, label = _family(raw.value, negotiated)
    return family, label, raw.value[3:]


def _family(value: bytes, negotiated: Negotiated) -> tuple[Family | None, str]:
    afi, safi = int.from_bytes(value[:2], "big"), value[2]
    if safi == UNICAST and afi in (Family.IPV4, Family.IPV6):
        family = Family(afi)
        return (family if family in negotiated.families else None), str(family)
    return None, f"AFI {afi} SAFI {safi}"


def split_nlri(data: bytes, family: Family, add_path: bool) -> list[bytes] | None:
    """The single prefixes of a packed NLRI field, path IDs included; None when it is broken (section 5.3)."""
    longest = 32 if family is Family.IPV4 else 128
    path_id_size = 4 if add_path else 0
    pieces = []
    position, end = 0, len(data)
    while position < end:
        length_at = position + path_id_size
        if length_at >= end or data[length_at] > longest:
            return None
        after = length_at + 1 + (data[length_at] + 7 >> 3)
        pieces.append(data[position:after])
        position = after
    return pieces if position == end else None


class NextHop(NamedTuple):
    """Where a path leads, as `PathAttributes` has it."""

    address: Address
    link_local: Address | None


def read_next_hop(raw: bytes) -> NextHop | None:
    """The next hop of 4, 16 or 32 bytes; None when no packet can be sent there.

    The global half of a 32-byte next hop is `::` or repeats the link-local one when the peer has no
    global address on the link (BIRD and FRR do either); the link-local half may be filled with anything
    when the two speakers share no link.
    """
    if len(raw) == 32:
        link_local = Address(raw[16:]) if is_link_local(Address(raw[16:])) else None
        first = Address(raw[:16])
        if link_local is not None and (first == bytes(16) or is_link_local(first)):
            return NextHop(link_local, link_local)
        return NextHop(first, link_local) if _usable(first) else None
    address = Address(raw)
    return NextHop(address, None) if _usable(address) else None


def _usable(address: Address) -> bool:
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224
    return address[0] != 0xFF and address not in (_UNSPECIFIED, _LOOPBACK)


class Announced(NamedTuple):
    """Prefixes of one family and next hop, still as they were on the wire."""

    family: Family
    next_hop: NextHop | None
    pieces: list[bytes]
    error: str = ""
    """Why these, and only these, count as withdrawn."""


class Routes(NamedTuple):
    """What the fields of one UPDATE hold, framed."""

    withdrawn: list[tuple[Family, list[bytes]]]
    announced: list[Announced]
    reachable: bool
    """Whether there are announced prefixes at all, of a family of this session or not (section 5.2)."""
    in_nlri_field: bool


def frame_routes(withdrawn: bytes, nlri: bytes, section: Section, negotiated: Negotiated) -> Routes:
    """Frame the four places that can hold prefixes; resets when one can't be parsed (section 3 i and j)."""
    routes = Routes([], [], bool(nlri) or Attr.MP_REACH_NLRI in section.known, bool(nlri))
    if withdrawn or nlri:
        _frame_ipv4_fields(withdrawn, nlri, section, negotiated, routes)
    if unreach := section.known.get(Attr.MP_UNREACH_NLRI):
        family, label, data = parse_unreach(unreach, negotiated)
        if family is None:
            _ignored(label, section)
        elif data:
            routes.withdrawn.append((family, _pieces_of(unreach, data, family, negotiated)))
    if reach := section.known.get(Attr.MP_REACH_NLRI):
        family, label, raw_next_hop, data = parse_reach(reach, negotiated)
        if family is None:
            _ignored(label, section)
        else:
            pieces = _pieces_of(reach, data, family, negotiated)
            routes.announced.append(_announced(family, raw_next_hop, pieces))
    return routes


def _frame_ipv4_fields(
    withdrawn: bytes, nlri: bytes, section: Section, negotiated: Negotiated, routes: Routes
) -> None:
    if Family.IPV4 not in negotiated.families:
        _ignored(str(Family.IPV4), section)
        return
    add_path = Family.IPV4 in negotiated.add_path_receive
    gone, here = (split_nlri(data, Family.IPV4, add_path) for data in (withdrawn, nlri))
    if gone is None or here is None:
        field = "withdrawn routes" if gone is None else "NLRI"
        reset(UpdateError.NETWORK_FIELD, f"the field of {field} can't be parsed")
    if gone:
        routes.withdrawn.append((Family.IPV4, gone))
    if here:
        next_hop = section.known.get(Attr.NEXT_HOP)
        raw_next_hop = next_hop.value if next_hop else None
        routes.announced.append(_announced(Family.IPV4, raw_next_hop, here))


def _announced(family: Family, raw_next_hop: bytes | None, pieces: list[bytes]) -> Announced:
    next_hop = read_next_hop(raw_next_hop) if raw_next_hop is not None else None
    error = ""
    if raw_next_hop is not None and next_hop is None:
        error = f"next hop {format_address(Address(raw_next_hop[:16]))} is no address of a neighbour"
    return Announced(family, next_hop, pieces, error)


def _pieces_of(raw: RawAttribute, data: bytes, family: Family, negotiated: Negotiated) -> list[bytes]:
    pieces = split_nlri(data, family, family in negotiated.add_path_receive)
    if pieces is None:
        reset(UpdateError.OPTIONAL_ATTRIBUTE, f"the NLRI in {Attr(raw.code).name} can't be parsed", raw.wire)
    return pieces


def _ignored(label: str, section: Section) -> None:
    """RFC 4760 section 7 lets a speaker ignore a family; one that was not negotiated is."""
    text = f"{label}, which was not negotiated, is ignored"
    section.findings.append(Finding(Action.DISCARD, UpdateError.OPTIONAL_ATTRIBUTE, text))


def judge(routes: Routes, section: Section, negotiated: Negotiated) -> bool:
    """Whether what is announced counts as withdrawn; resets where that can't be trusted (section 5.2)."""
    if routes.announced:
        check_mandatory(section, negotiated, in_nlri_field=routes.in_nlri_field)
    worst = next((f for f in section.findings if f.action is Action.WITHDRAW), None)
    if worst and not routes.reachable and section.seen != {Attr.MP_UNREACH_NLRI}:
        reset(worst.subcode, f"{worst.text}, and no prefix says what is withdrawn", worst.data)
    return worst is not None


ReadPrefix = Callable[[Family, bytes], tuple[int, Prefix]]
"""Path ID and prefix of one piece."""


def assemble(
    routes: Routes, attributes: PathAttributes, findings: list[Finding], withdraw: bool, read: ReadPrefix
) -> list[Update]:
    """The `Update` values of one UPDATE.  A prefix that it both withdraws and announces ends announced."""
    updates = [
        Update(None, (), prefixes, path_id)
        for family, pieces in routes.withdrawn
        for path_id, prefixes in _by_path_id(family, pieces, read)
    ]
    general = "; ".join(finding.text for finding in findings[:_ERRORS_SHOWN])
    for group in routes.announced:
        error = "; ".join(filter(None, (group.error, general)))
        for path_id, prefixes in _by_path_id(group.family, group.pieces, read):
            if withdraw or group.error or group.next_hop is None:
                updates.append(Update(None, (), prefixes, path_id, error))
            else:
                hop, link_local = group.next_hop
                here = attributes._replace(next_hop=hop, link_local=link_local)
                updates.append(Update(here, prefixes, (), path_id, error))
    if general and not routes.announced:
        updates.append(Update(None, (), (), 0, general))
    return updates


def _by_path_id(
    family: Family, pieces: list[bytes], read: ReadPrefix
) -> Iterable[tuple[int, tuple[Prefix, ...]]]:
    found: dict[int, list[Prefix]] = {}
    for piece in pieces:
        path_id, prefix = read(family, piece)
        found.setdefault(path_id, []).append(prefix)
    return [(path_id, tuple(prefixes)) for path_id, prefixes in found.items()]
