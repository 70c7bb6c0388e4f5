"""What real daemons sent, byte for byte: a change in how it is read is a change to notice.

Recorded from FRR 8.4 (bgpd without zebra), BIRD 2.0.12, GoBGP 3.10 and OpenBGPD 7.7, each with a few
static routes.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from bgpd.bgp.codec import Decoder
from bgpd.bgp.fastpath import FastPath
from bgpd.bgp.framing import OPEN, UPDATE, frame
from bgpd.bgp.message import EndOfRib, Message, Open, Update
from routes.path import PathAttributes, PeerKind
from routes.peer import Capabilities, GracefulRestart
from routes.prefix import Family, format_address, format_router_id
from tests.property.bgp_messages import session


class Case(NamedTuple):
    """One UPDATE."""

    daemon: str
    kind: PeerKind
    fast: bool
    """Whether it is read without ExaBGP."""
    body: str
    meaning: str


CASES = [
    Case(
        "BIRD 2.0.12",
        PeerKind.IBGP,
        True,
        ("00000027400101004002004003040a0000098004040000000740050400000064c00808fde80001fde80002100a01"),
        "10.1.0.0/16 via 10.0.0.9 [] IGP med=7 local_pref=100 65000:1 65000:2",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.IBGP,
        True,
        (
            "0000002f400101004002004003040a00000940050400000064c010080002fde800000005c0200c0000fde800"
            "00000100000002180a0203"
        ),
        "10.2.3.0/24 via 10.0.0.9 [] IGP local_pref=100 65000:1:2 0002fde800000005",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.IBGP,
        True,
        "00000015400101004002004003040a00000940050400000064180a0204180a0205",
        "10.2.4.0/24 10.2.5.0/24 via 10.0.0.9 [] IGP local_pref=100",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.IBGP,
        False,
        "00000000",
        "end of ipv4",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.IBGP,
        True,
        (
            "0000004b900e001c00020110fd0000000000000000000000000000090030fd01000000004001010040020080"
            "04040000000740050400000064c00804fde80001c0200c0000fde80000000100000002"
        ),
        "fd01::/48 via fd00::9 [] IGP med=7 local_pref=100 65000:1 65000:1:2",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.IBGP,
        True,
        (
            "00000030900e001e00020110fd0000000000000000000000000000090040fd02000000000000400101004002"
            "0040050400000064"
        ),
        "fd02::/64 via fd00::9 [] IGP local_pref=100",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.IBGP,
        False,
        "00000006800f03000201",
        "end of ipv6",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.IBGP,
        True,
        "000f100a01180a0203180a0204180a02050000",
        "- 10.1.0.0/16 10.2.3.0/24 10.2.4.0/24 10.2.5.0/24",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.IBGP,
        True,
        "00000017900f001300020130fd010000000040fd02000000000000",
        "- fd01::/48 fd02::/64",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.EBGP,
        True,
        "0000001f4001010040020602010000fde94003040a000009c00808fde80001fde80002100a01",
        "10.1.0.0/16 via 10.0.0.9 [65001] IGP 65000:1 65000:2",
    ),
    Case(
        "BIRD 2.0.12",
        PeerKind.EBGP,
        True,
        (
            "0000002e4001010040020602010000fde94003040a000009c010080002fde800000005c0200c0000fde80000"
            "000100000002180a0203"
        ),
        "10.2.3.0/24 via 10.0.0.9 [65001] IGP 65000:1:2 0002fde800000005",
    ),
    Case(
        "FRR 8.4",
        PeerKind.IBGP,
        False,
        (
            "0000002b40010100500200004003040a0000028004040000000040050400000064400600c007080000fde80a"
            "000002100a02"
        ),
        "10.2.0.0/16 via 10.0.0.2 [] IGP med=0 local_pref=100 atomic by 65000/10.0.0.2",
    ),
    Case(
        "FRR 8.4",
        PeerKind.IBGP,
        True,
        (
            "00000038900e001e0002011000000000000000000000ffff0a0000020040fd02000000000000400101005002"
            "00008004040000000040050400000064"
        ),
        "fd02::/64 via ::ffff:a00:2 [] IGP med=0 local_pref=100",
    ),
    Case(
        "FRR 8.4",
        PeerKind.IBGP,
        True,
        "0000001d40010100500200004003040a0000028004040000000040050400000064180a0204180a0205",
        "10.2.4.0/24 10.2.5.0/24 via 10.0.0.2 [] IGP med=0 local_pref=100",
    ),
    Case(
        "FRR 8.4",
        PeerKind.IBGP,
        True,
        (
            "0000003740010100500200004003040a0000028004040000000040050400000064c0200c0000fde800000001"
            "00000002c010080002fde800000005180a0203"
        ),
        "10.2.3.0/24 via 10.0.0.2 [] IGP med=0 local_pref=100 65000:1:2 0002fde800000005",
    ),
    Case(
        "FRR 8.4",
        PeerKind.IBGP,
        True,
        (
            "00000050900e001c0002011000000000000000000000ffff0a0000020030fd01000000004001010050020000"
            "8004040000000740050400000064c00808fde80001fde80002c0200c0000fde80000000100000002"
        ),
        "fd01::/48 via ::ffff:a00:2 [] IGP med=7 local_pref=100 65000:1 65000:2 65000:1:2",
    ),
    Case(
        "FRR 8.4",
        PeerKind.IBGP,
        True,
        (
            "0000003740010100500200004003040a0000028004040000000740050400000064c00808fde80001fde80002"
            "c0200c0000fde80000000100000002100a01"
        ),
        "10.1.0.0/16 via 10.0.0.2 [] IGP med=7 local_pref=100 65000:1 65000:2 65000:1:2",
    ),
    Case(
        "FRR 8.4",
        PeerKind.IBGP,
        True,
        "0007180a0204100a010000",
        "- 10.2.4.0/24 10.1.0.0/16",
    ),
    Case(
        "FRR 8.4",
        PeerKind.IBGP,
        True,
        "00000010900f000c00020140fd02000000000000",
        "- fd02::/64",
    ),
    Case(
        "FRR 8.4",
        PeerKind.EBGP,
        False,
        (
            "0000002a400101005002000602010000fde94003040a00000280040400000000400600c007080000fde90a00"
            "0002100a02"
        ),
        "10.2.0.0/16 via 10.0.0.2 [65001] IGP med=0 atomic by 65001/10.0.0.2",
    ),
    Case(
        "FRR 8.4",
        PeerKind.EBGP,
        True,
        (
            "00000037900e001e0002011000000000000000000000ffff0a0000020040fd02000000000000400101005002"
            "000602010000fde980040400000000"
        ),
        "fd02::/64 via ::ffff:a00:2 [65001] IGP med=0",
    ),
    Case(
        "GoBGP 3.10",
        PeerKind.IBGP,
        True,
        (
            "0000004a400101024002008004040000000740050400000064c00804fde80001800e1c00020110fd00000000"
            "00000000000000000000020030fd0100000000c0200c0000fde80000000100000002"
        ),
        "fd01::/48 via fd00::2 [] INCOMPLETE med=7 local_pref=100 65000:1 65000:1:2",
    ),
    Case(
        "GoBGP 3.10",
        PeerKind.IBGP,
        True,
        (
            "0000002f4001010240020040050400000064800e1e00020110fd0000000000000000000000000000020040fd"
            "02000000000000"
        ),
        "fd02::/64 via fd00::2 [] INCOMPLETE local_pref=100",
    ),
    Case(
        "GoBGP 3.10",
        PeerKind.IBGP,
        True,
        "00000015400101024002004003040a00000240050400000064180a0205180a0204",
        "10.2.5.0/24 10.2.4.0/24 via 10.0.0.2 [] INCOMPLETE local_pref=100",
    ),
    Case(
        "GoBGP 3.10",
        PeerKind.IBGP,
        True,
        ("00000027400101024002004003040a0000028004040000000740050400000064c00808fde80001fde80002100a01"),
        "10.1.0.0/16 via 10.0.0.2 [] INCOMPLETE med=7 local_pref=100 65000:1 65000:2",
    ),
    Case(
        "GoBGP 3.10",
        PeerKind.IBGP,
        True,
        (
            "0000002f400101024002004003040a00000240050400000064c010080002fde800000005c0200c0000fde800"
            "00000100000002180a0203"
        ),
        "10.2.3.0/24 via 10.0.0.2 [] INCOMPLETE local_pref=100 65000:1:2 0002fde800000005",
    ),
    Case(
        "GoBGP 3.10",
        PeerKind.IBGP,
        True,
        "0004180a02040000",
        "- 10.2.4.0/24",
    ),
    Case(
        "GoBGP 3.10",
        PeerKind.IBGP,
        True,
        "0000000f800f0c00020140fd02000000000000",
        "- fd02::/64",
    ),
    Case(
        "GoBGP 3.10",
        PeerKind.EBGP,
        True,
        (
            "000000494001010240020602010000fde980040400000007c00804fde80001800e1c00020110fd0000000000"
            "000000000000000000020030fd0100000000c0200c0000fde80000000100000002"
        ),
        "fd01::/48 via fd00::2 [65001] INCOMPLETE med=7 65000:1 65000:1:2",
    ),
    Case(
        "GoBGP 3.10",
        PeerKind.EBGP,
        True,
        "000000144001010240020602010000fde94003040a000002180a0205",
        "10.2.5.0/24 via 10.0.0.2 [65001] INCOMPLETE",
    ),
    Case(
        "OpenBGPD 7.7",
        PeerKind.IBGP,
        True,
        ("00000027400101004002004003040a0000028004040000000740050400000064c00808fde80001fde80002100a01"),
        "10.1.0.0/16 via 10.0.0.2 [] IGP med=7 local_pref=100 65000:1 65000:2",
    ),
    Case(
        "OpenBGPD 7.7",
        PeerKind.IBGP,
        True,
        (
            "0000002f400101004002004003040a00000240050400000064c010080002fde800000005c0200c0000fde800"
            "00000100000002180a0203"
        ),
        "10.2.3.0/24 via 10.0.0.2 [] IGP local_pref=100 65000:1:2 0002fde800000005",
    ),
    Case(
        "OpenBGPD 7.7",
        PeerKind.IBGP,
        True,
        "00000015400101004002004003040a00000240050400000064180a0204180a0205",
        "10.2.4.0/24 10.2.5.0/24 via 10.0.0.2 [] IGP local_pref=100",
    ),
    Case(
        "OpenBGPD 7.7",
        PeerKind.IBGP,
        False,
        (
            "0000004b400101004002008004040000000740050400000064c00804fde80001c0200c0000fde80000000100"
            "000002900e001c00020110000000000000000000000000000000010030fd0100000000"
        ),
        "- fd01::/48 !next hop ::1 is no address of a neighbour",
    ),
    Case(
        "OpenBGPD 7.7",
        PeerKind.IBGP,
        False,
        (
            "000000304001010040020040050400000064900e001e00020110000000000000000000000000000000010040"
            "fd02000000000000"
        ),
        "- fd02::/64 !next hop ::1 is no address of a neighbour",
    ),
    Case(
        "OpenBGPD 7.7",
        PeerKind.EBGP,
        True,
        ("000000264001010040020602010000fde94003040a00000280040400000007c00808fde80001fde80002100a01"),
        "10.1.0.0/16 via 10.0.0.2 [65001] IGP med=7 65000:1 65000:2",
    ),
    Case(
        "OpenBGPD 7.7",
        PeerKind.EBGP,
        True,
        (
            "0000002e4001010040020602010000fde94003040a000002c010080002fde800000005c0200c0000fde80000"
            "000100000002180a0203"
        ),
        "10.2.3.0/24 via 10.0.0.2 [65001] IGP 65000:1:2 0002fde800000005",
    ),
]


def shown(message: Message) -> str:
    if isinstance(message, EndOfRib):
        return f"end of {message.family}"
    assert isinstance(message, Update)
    if message.attributes is None:
        text = f"- {' '.join(map(str, message.withdrawn))}"
    else:
        text = f"{' '.join(map(str, message.announced))} {attributes_shown(message.attributes)}"
    return text + (f" !{message.error}" if message.error else "")


def attributes_shown(attributes: PathAttributes) -> str:
    parts = ["via", format_address(attributes.next_hop), f"[{attributes.as_path}]", attributes.origin.name]
    if attributes.med is not None:
        parts.append(f"med={attributes.med}")
    if attributes.local_pref is not None:
        parts.append(f"local_pref={attributes.local_pref}")
    if attributes.atomic_aggregate:
        parts.append("atomic")
    if attributes.aggregator:
        parts.append(f"by {attributes.aggregator.asn}/{format_router_id(attributes.aggregator.bgp_id)}")
    parts += [f"{community >> 16}:{community & 0xFFFF}" for community in attributes.communities]
    parts += [":".join(map(str, community)) for community in attributes.large_communities]
    parts += [community.hex() for community in attributes.extended_communities]
    return " ".join(parts)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "exabgp"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.daemon}: {case.meaning}"[:60])
def test_update_means_the_same(case: Case, fast: bool) -> None:
    decoder = Decoder(fast=fast)
    decoder.negotiated = session(case.kind)
    (message,) = decoder.feed(frame(UPDATE, bytes.fromhex(case.body)))
    assert shown(message) == case.meaning


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.daemon}: {case.meaning}"[:60])
def test_common_updates_take_the_fast_path(case: Case) -> None:
    message = frame(UPDATE, bytes.fromhex(case.body))
    taken = FastPath(session(case.kind), 4096).decode(message, 0, [])
    assert taken == (len(message) if case.fast else 0)


BOTH = frozenset(Family)
IPV4 = frozenset({Family.IPV4})
OPENS = {
    "BIRD 2.0.12": "04fde800f00a0000021e021c01040001000101040002000102004002007841040000fde846004700",
    "FRR 8.4": (
        "04fde800b40a0000025302060104000100010206010400020001020280000202020002024600020641040000"
        "fde802020600020a450800010101000201010205490301780002044002c0780210470e000101800000000002"
        "0180000000"
    ),
    "GoBGP 3.10": (
        "04fde8005a0a0000022402220200490402766d0001040001000101040002000141040000fde80506000100010002"
    ),
    "OpenBGPD 7.7": "04fde8005a0a0000021a021801040001000101040002000102004002800041040000fde8",
}
"""The body of each daemon's OPEN."""

SAID = {
    "BIRD 2.0.12": Capabilities(
        families=BOTH,
        four_octet_asn=65000,
        route_refresh=True,
        enhanced_route_refresh=True,
        graceful_restart=GracefulRestart(120),
        unknown=(71,),
    ),
    "FRR 8.4": Capabilities(
        families=BOTH,
        four_octet_asn=65000,
        route_refresh=True,
        enhanced_route_refresh=True,
        extended_message=True,
        add_path_receive=BOTH,
        graceful_restart=GracefulRestart(120, restarting=True, notification=True),
        unknown=(128, 73, 71),
    ),
    "GoBGP 3.10": Capabilities(
        families=BOTH,
        four_octet_asn=65000,
        route_refresh=True,
        extended_next_hop=IPV4,
        unknown=(73,),
    ),
    "OpenBGPD 7.7": Capabilities(
        families=BOTH,
        four_octet_asn=65000,
        route_refresh=True,
        graceful_restart=GracefulRestart(0, restarting=True),
    ),
}


@pytest.mark.parametrize("daemon", OPENS)
def test_open_means_the_same(daemon: str) -> None:
    (message,) = Decoder().feed(frame(OPEN, bytes.fromhex(OPENS[daemon])))
    assert isinstance(message, Open)
    assert (message.asn, format_router_id(message.bgp_id)) == (65000, "10.0.0.2")
    assert message.capabilities == SAID[daemon]
