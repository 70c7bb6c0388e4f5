"""The packet filter's text, and how a table that somebody changed is recognised."""

from __future__ import annotations

import json

import pytest

from bgpd.node.errors import HostError
from bgpd.node.nft import (
    MARK,
    MOST_ELEMENTS,
    PacketFilter,
    Port,
    Rules,
    Shape,
    expected_shape,
    read_shape,
    replacing,
    table_text,
    without_covered,
)
from routes.prefix import Address, Prefix

P = Prefix.parse
PODS = (P("10.244.1.0/24"), P("fd00:10:244:1::/64"))
CLUSTER = (P("10.244.0.0/16"), P("10.96.0.0/12"), P("192.0.2.11"), P("fd00:10::/32"))
SERVICE = P("203.0.113.7")
V6 = P("2001:db8::7")


def test_nothing_wanted_is_no_table() -> None:
    for rules in (Rules(), Rules(PODS, CLUSTER), Rules((), CLUSTER, masquerade=True)):
        assert table_text(rules) == ""
        assert replacing(table_text(rules)).splitlines() == [
            "add table inet podbgp",
            "delete table inet podbgp",
        ]


def test_only_what_is_asked_for_is_in_the_table() -> None:
    masquerade = table_text(Rules(PODS, CLUSTER, masquerade=True))
    assert "ip saddr @pods4 ip daddr != @cluster4 masquerade" in masquerade
    assert "reject" not in masquerade
    guard = table_text(Rules(PODS, CLUSTER, services=(SERVICE,)))
    assert "elements = { 203.0.113.7/32 }" in guard
    assert "masquerade" not in guard


def test_a_family_without_pods_is_never_masqueraded() -> None:
    text = table_text(Rules(PODS[:1], CLUSTER, masquerade=True))
    assert text.count("masquerade fully-random") == 1


def test_an_invalid_packet_is_dropped_before_a_reset_could_end_its_connection() -> None:
    lines = table_text(Rules(services=(SERVICE,))).splitlines()
    assert lines.index("ct state invalid drop") < lines.index("meta l4proto tcp reject with tcp reset")


def test_an_open_port_of_a_local_service_is_dropped_and_a_closed_one_refused() -> None:
    ports = (Port(SERVICE.address, "TCP", 80), Port(SERVICE.address, "UDP", 53), Port(V6.address, "TCP", 80))
    lines = table_text(Rules(services=(SERVICE, V6), local_ports=ports)).splitlines()
    assert "elements = { 203.0.113.7 . tcp . 80, 203.0.113.7 . udp . 53 }" in lines
    assert "elements = { 2001:db8::7 . tcp . 80 }" in lines
    drops = [number for number, line in enumerate(lines) if "@local" in line and line.endswith(" drop")]
    assert len(drops) == 2
    assert max(drops) < lines.index("meta l4proto tcp reject with tcp reset")
    assert "@local" not in table_text(Rules(services=(SERVICE,)))


def test_only_our_own_table_is_named() -> None:
    text = replacing(table_text(Rules(PODS, CLUSTER, True, (SERVICE,))))
    named = [line for line in text.splitlines() if "table" in line]
    assert {line.split()[-1] if line[-1] != "{" else line.split()[-2] for line in named} == {"podbgp"}
    assert "flush ruleset" not in text


def test_intervals_of_a_set_never_overlap() -> None:
    given = [P("10.0.0.0/8"), P("10.1.0.0/16"), P("10.1.2.3"), P("11.0.0.0/8"), P("fd00::/8"), P("fd00::1")]
    assert without_covered(reversed(given)) == [P("10.0.0.0/8"), P("11.0.0.0/8"), P("fd00::/8")]


def listing(shape: Shape) -> str:
    items: list[dict[str, object]] = [{"metainfo": {}}, {"table": {"name": "podbgp"}}]
    items.append({"chain": {"name": f"{MARK}{shape.digest}"}})
    items.append({"set": {"name": "services4", "elem": ["192.0.2.1"] * shape.elements}})
    items += [{"rule": {}}] * shape.rules
    return json.dumps({"nftables": items})


def test_a_table_that_somebody_changed_has_another_shape() -> None:
    shape = expected_shape(table_text(Rules(PODS, CLUSTER, True, (SERVICE,))))
    assert shape[1:] == (9, 7)
    assert read_shape(listing(shape)) == shape
    for changed in (shape._replace(rules=8), shape._replace(elements=8), shape._replace(digest="0")):
        assert read_shape(listing(changed)) != shape


@pytest.mark.parametrize("listed", ["", "[]", "{}", '{"nftables": 1}', "nft: no such thing"])
def test_what_is_no_listing_is_an_error_that_shows_it(listed: str) -> None:
    with pytest.raises(HostError, match="nft printed no"):
        read_shape(listed)


def test_a_set_without_bound_is_refused() -> None:
    services = tuple(Prefix(Address(number.to_bytes(4, "big")), 32) for number in range(MOST_ELEMENTS + 1))
    with pytest.raises(HostError, match=r"100001 addresses.*up to 100000"):
        PacketFilter().apply(Rules(services=services))
