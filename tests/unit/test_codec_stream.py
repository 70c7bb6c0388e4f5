"""Message headers, OPEN and the small messages: what is accepted, and what ends the session how."""

from __future__ import annotations

import pytest

from bgpd.bgp.codec import (
    Decoder,
    encode_end_of_rib,
    encode_keepalive,
    encode_notification,
    encode_open,
    encode_route_refresh,
    encode_updates,
)
from bgpd.bgp.framing import KEEPALIVE, NOTIFICATION, OPEN, ROUTE_REFRESH, UPDATE, frame
from bgpd.bgp.message import (
    EndOfRib,
    Keepalive,
    Malformed,
    Message,
    Notification,
    Open,
    RefreshKind,
    RouteRefresh,
    Update,
)
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
from routes.prefix import Family, Prefix, parse_address, parse_router_id
from tests.property.bgp_messages import attribute, session, update

MARKER = "ff" * 16
BOTH = frozenset(Family)
IPV4 = frozenset({Family.IPV4})


def decoded(data: bytes, negotiated: Negotiated | None = None) -> list[Message]:
    decoder = Decoder()
    decoder.negotiated = negotiated
    return decoder.feed(data)


def error(messages: list[Message]) -> tuple[int, int, bytes]:
    (only,) = messages
    assert isinstance(only, Malformed), only
    assert only.text
    return only.notification.code, only.notification.subcode, only.notification.data


HEADERS = {
    "marker": (b"\xff" * 15 + b"\xfe\0\x13\4", 1, b""),
    "length 18": (b"\xff" * 16 + b"\0\x12\4", 2, b"\0\x12"),
    "length 4097": (b"\xff" * 16 + b"\x10\1\2", 2, b"\x10\1"),
    "KEEPALIVE of 20": (frame(KEEPALIVE, b"\0"), 2, b"\0\x14"),
    "OPEN of 28": (frame(OPEN, bytes(9)), 2, b"\0\x1c"),
    "UPDATE of 22": (frame(UPDATE, bytes(3)), 2, b"\0\x16"),
    "NOTIFICATION of 20": (frame(NOTIFICATION, bytes(1)), 2, b"\0\x14"),
    "type 0": (frame(0, b""), 3, b"\0"),
    "type 6": (frame(6, b""), 3, b"\6"),
}


@pytest.mark.parametrize(("data", "subcode", "quoted"), HEADERS.values(), ids=HEADERS)
def test_header_errors(data: bytes, subcode: int, quoted: bytes) -> None:
    assert error(decoded(data, session())) == (1, subcode, quoted)


def test_a_wrong_length_is_found_before_the_message_arrives() -> None:
    assert error(decoded(b"\xff" * 16 + b"\xff\xff\2", session())) == (1, 2, b"\xff\xff")


def test_extended_messages_need_to_be_offered_and_spare_open_and_keepalive() -> None:
    padding = attribute(0xC0, 99, bytes(5000))
    message = update(padding, withdrawn=b"\x08\x0a")
    offered = session(extended_message=True)
    assert len(decoded(message, offered)) == 1
    assert error(decoded(message, session()))[:2] == (1, 2)
    assert error(decoded(frame(OPEN, bytes(5000)), offered))[:2] == (1, 2)


OLD_HEADER = "04fde8005a0a000001"


def opened(parameters: str, fixed: str = OLD_HEADER) -> list[Message]:
    return decoded(frame(OPEN, bytes.fromhex(fixed + parameters)))


OPENS = {
    "version 3": ("03fde8005a0a000001", "00", (1, b"\0\4")),
    "AS 0": ("040000005a0a000001", "00", (2, b"")),
    "AS 0 in the capability": (OLD_HEADER, "08" + "0206" + "410400000000", (2, b"")),
    "hold time 2": ("04fde800020a000001", "00", (6, b"")),
    "BGP identifier 0": ("04fde8005a00000000", "00", (3, b"")),
    "parameters longer than the message": (OLD_HEADER, "05", (0, b"")),
    "bytes behind the parameters": (OLD_HEADER, "0000", (0, b"")),
    "parameter 1": (OLD_HEADER, "02" + "0100", (4, b"")),
    "parameter cut short": (OLD_HEADER, "02" + "0208", (0, b"")),
    "half a parameter": (OLD_HEADER, "01" + "02", (0, b"")),
    "capability cut short": (OLD_HEADER, "04" + "0202" + "4104", (0, b"")),
    "AS number of 2 bytes": (OLD_HEADER, "06" + "0204" + "4102fde8", (0, b"")),
    "multiprotocol of 3 bytes": (OLD_HEADER, "07" + "0205" + "0103000100", (0, b"")),
    "graceful restart of 1 byte": (OLD_HEADER, "05" + "0203" + "400100", (0, b"")),
    "ADD-PATH of 3 bytes": (OLD_HEADER, "07" + "0205" + "4503000101", (0, b"")),
}


@pytest.mark.parametrize(("fixed", "parameters", "answer"), OPENS.values(), ids=OPENS)
def test_open_errors(fixed: str, parameters: str, answer: tuple[int, bytes]) -> None:
    code, subcode, data = error(opened(parameters, fixed))
    assert code == 2
    assert (subcode, data) == answer


def capabilities_of(messages: list[Message]) -> Capabilities:
    (only,) = messages
    assert isinstance(only, Open), only
    return only.capabilities


def test_an_open_without_capabilities_is_ipv4_with_two_octets() -> None:
    assert opened("00") == [Open(65000, 90, parse_router_id("10.0.0.1"), Capabilities(families=IPV4))]


def test_several_capabilities_in_one_parameter_and_several_parameters() -> None:
    ipv4, ipv6, refresh = "010400010001", "010400020001", "4600"
    together = capabilities_of(opened("10" + "020e" + ipv4 + ipv6 + refresh))
    apart = capabilities_of(opened("14" + "0206" + ipv4 + "0206" + ipv6 + "0202" + refresh))
    assert together == apart == Capabilities(families=BOTH, enhanced_route_refresh=True)


def test_extended_parameters() -> None:
    """RFC 9072: lengths of two bytes, announced by a parameter type of 255."""
    parameter = bytes.fromhex("02" + "0006" + "010400020001")
    body = bytes.fromhex(OLD_HEADER + "ffff") + len(parameter).to_bytes(2, "big") + parameter
    assert capabilities_of(decoded(frame(OPEN, body))).families == frozenset({Family.IPV6})


def test_a_strange_host_name_does_not_end_the_session() -> None:
    assert capabilities_of(opened("06" + "0204" + "4902" + "01ff")).unknown == (73,)


def test_add_path_with_undefined_directions_is_ignored() -> None:
    theirs = capabilities_of(opened("0c" + "020a" + "4508" + "00010104" + "00020103"))
    assert (theirs.add_path_send, theirs.add_path_receive) == (frozenset({Family.IPV6}),) * 2


def test_families_other_than_unicast_are_left_out() -> None:
    assert (
        capabilities_of(opened("10" + "020e" + "010400010002" + "010400190046" + "0200")).families
        == frozenset()
    )


EVERYTHING = Open(
    4200000000,
    90,
    parse_router_id("192.0.2.1"),
    Capabilities(
        families=BOTH,
        four_octet_asn=4200000000,
        route_refresh=True,
        enhanced_route_refresh=True,
        extended_message=True,
        extended_next_hop=IPV4,
        add_path_send=IPV4,
        add_path_receive=BOTH,
        graceful_restart=GracefulRestart(120, True, True, ((Family.IPV4, True), (Family.IPV6, False))),
    ),
)


def test_open_bytes() -> None:
    expected = (
        MARKER + "0065" + "01" + "04" + "5ba0" + "005a" + "c0000201" + "48"
        "0206010400010001" "0206010400020001"  # multiprotocol
        "02020200"  # route refresh
        "0208050600010001" "0002"  # IPv6 next hops for IPv4
        "02020600"  # extended message
        "020c400ac078" "00010180" "00020100"  # graceful restart: R, N, 120 seconds, F for IPv4
        "02064104fa56ea00"  # AS number
        "020a4508" "00010103" "00020101"  # ADD-PATH: both ways for IPv4, receive for IPv6
        "02024600"  # enhanced route refresh
    )  # fmt: skip
    assert encode_open(EVERYTHING).hex() == expected
    assert decoded(encode_open(EVERYTHING)) == [EVERYTHING]


SMALL = {
    "KEEPALIVE": (encode_keepalive(), "001304", Keepalive()),
    "NOTIFICATION": (
        encode_notification(Notification(6, 2, b"\2hi")),
        "00180306020268" + "69",
        Notification(6, 2, b"\2hi"),
    ),
    "ROUTE-REFRESH": (
        encode_route_refresh(RouteRefresh(Family.IPV6)),
        "00170500020001",
        RouteRefresh(Family.IPV6),
    ),
    "BoRR": (
        encode_route_refresh(RouteRefresh(Family.IPV4, RefreshKind.BEGIN)),
        "00170500010101",
        RouteRefresh(Family.IPV4, RefreshKind.BEGIN),
    ),
    "EoR IPv4": (encode_end_of_rib(Family.IPV4, session()), "00170200000000", EndOfRib(Family.IPV4)),
    "EoR IPv6": (
        encode_end_of_rib(Family.IPV6, session()),
        "001e0200000007900f0003000201",
        EndOfRib(Family.IPV6),
    ),
}


@pytest.mark.parametrize(("data", "expected", "message"), SMALL.values(), ids=SMALL)
def test_small_messages(data: bytes, expected: str, message: Message) -> None:
    assert data.hex() == MARKER + expected
    assert decoded(data, with_refresh()) == [message]


def with_refresh(enhanced: bool = True) -> Negotiated:
    plain = session()
    return Negotiated(
        **{
            name: getattr(plain, name)
            for name in Negotiated.__dataclass_fields__
            if name != "enhanced_route_refresh"
        },
        enhanced_route_refresh=enhanced,
    )


@pytest.mark.parametrize(
    ("body", "enhanced", "answer"),
    [
        ("00010301", True, []),  # an unknown subtype is ignored
        ("00010101", False, [RouteRefresh(Family.IPV4)]),  # a reserved byte, ignored
        ("00190046", True, []),  # another family
    ],
)
def test_route_refresh_is_lenient(body: str, enhanced: bool, answer: list[Message]) -> None:
    assert decoded(frame(ROUTE_REFRESH, bytes.fromhex(body)), with_refresh(enhanced)) == answer


def test_route_refresh_of_a_wrong_length() -> None:
    begin = frame(ROUTE_REFRESH, b"\0\1\1\1\0")
    assert error(decoded(begin, with_refresh())) == (7, 1, begin)
    assert error(decoded(frame(ROUTE_REFRESH, b"\0\1\0"), with_refresh())) == (1, 2, b"\0\x16")


def test_a_long_notification_is_cut() -> None:
    assert len(encode_notification(Notification(3, 1, bytes(9000)))) == 4096


def test_an_update_before_the_session_stands_is_an_fsm_error() -> None:
    assert error(decoded(update(b""))) == (5, 1, b"")
    opening, broken = decoded(encode_open(EVERYTHING) + update(b""))
    assert isinstance(opening, Open)
    assert error([broken]) == (5, 2, b"")


POD, POD6 = Prefix.parse("10.244.1.0/24"), Prefix.parse("fd00:10:244:1::/64")
PATH = AsPath.of((AsSegment(SegmentKind.SEQUENCE, (70000, 65001)),))
FULL = PathAttributes(
    Origin.EGP,
    PATH,
    parse_address("10.0.0.9"),
    med=7,
    local_pref=100,
    atomic_aggregate=True,
    aggregator=Aggregator(70000, parse_router_id("192.0.2.9")),
    communities=(0xFDE80001, 0xFFFF0000),
    extended_communities=(bytes.fromhex("0002fde800000005"),),
    large_communities=((65000, 1, 2),),
    originator_id=parse_router_id("192.0.2.7"),
    cluster_list=(1, 2),
    unknown=(UnknownAttribute(0xE0, 99, b"xyz"),),
)
FULL_BYTES = (
    "40010101" "40020a02020001117000" "00fde9" "40030" "40a000009" "80040400000007" "40050400000064" "400600"
    "c0070800011170c0000209" "c00808fde80001ffff0000" "800904c0000207" "800a080000000100000002"
    "c010080002fde800000005" "c0200c0000fde80000000100000002" "e06303" "78797a"
)  # fmt: skip


def test_update_bytes() -> None:
    """Withdrawals first; attributes in ascending order; MP_REACH_NLRI before them."""
    block = bytes.fromhex(FULL_BYTES)
    gone, here = encode_updates(FULL, [POD], [Prefix.parse("10.0.0.0/8")], session())
    assert gone == update(b"", withdrawn=b"\x08\x0a")
    assert here == update(block, b"\x18\x0a\xf4\x01")
    hop = parse_address("fd00::9")
    (over_ipv6,) = encode_updates(FULL._replace(next_hop=hop), [POD6], [], session())
    reach = attribute(0x80, 14, b"\0\2\1\x10" + hop + b"\0\x40" + POD6.address[:8])
    without_hop = block.replace(bytes.fromhex("4003040a000009"), b"")
    assert over_ipv6 == update(reach + without_hop)


def test_a_link_local_next_hop_makes_32_bytes() -> None:
    hop, near = parse_address("fd00::9"), parse_address("fe80::9")
    attributes = FULL._replace(next_hop=hop, link_local=near)
    (message,) = encode_updates(attributes, [POD6], [], session())
    assert b"\0\2\1\x20" + hop + near + b"\0\x40" in message


def test_ipv4_over_ipv6_needs_rfc_8950() -> None:
    attributes = FULL._replace(next_hop=parse_address("fd00::9"))
    (message,) = encode_updates(attributes, [POD], [], session(extended_next_hop=IPV4))
    assert b"\x80\x0e\x19\0\1\1\x10" in message
    with pytest.raises(InvariantError):
        encode_updates(attributes, [POD], [], session())
    with pytest.raises(InvariantError):
        encode_updates(FULL, [POD6], [], session())


def test_what_stays_inside_an_as_is_not_sent_out() -> None:
    (message,) = encode_updates(FULL, [POD], [], session(PeerKind.EBGP))
    block = bytes.fromhex(FULL_BYTES)
    for inside in ("40050400000064", "800904c0000207", "800a080000000100000002"):
        block = block.replace(bytes.fromhex(inside), b"")
    assert message == update(block, b"\x18\x0a\xf4\x01")


def test_an_old_peer_gets_as_trans_and_as4_path() -> None:
    attributes = PathAttributes(Origin.IGP, PATH, parse_address("10.0.0.9"), local_pref=100)
    (message,) = encode_updates(attributes, [POD], [], session(four_octet=False))
    assert attribute(0x40, 2, b"\2\2\x5b\xa0\xfd\xe9") in message
    assert attribute(0xC0, 17, b"\2\2\0\1\x11\x70\0\0\xfd\xe9") in message


def test_attributes_that_fill_a_message_need_an_extended_one_or_withdraw() -> None:
    large = FULL._replace(unknown=(UnknownAttribute(0xE0, 99, bytes(4200)),))
    (message,) = encode_updates(large, [POD], [], session(extended_message=True))
    assert 4200 < len(message) < 4500
    (message,) = encode_updates(large, [POD], [], session())
    assert decoded(message, session()) == [Update(None, (), (POD,))]


def test_end_of_rib_of_a_family_that_the_session_lacks_is_our_fault() -> None:
    with pytest.raises(InvariantError):
        encode_end_of_rib(Family.IPV6, session(families=IPV4))


def test_prefixes_without_attributes_are_our_fault() -> None:
    with pytest.raises(InvariantError):
        encode_updates(None, [POD], [], session())
