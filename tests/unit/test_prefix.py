"""Prefixes and addresses: text at the edge, bytes inside."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routes.prefix import (
    Address,
    Family,
    Prefix,
    family_of,
    format_address,
    format_router_id,
    host_prefix,
    is_link_local,
    parse_address,
    parse_router_id,
)


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("10.244.1.0/24", Family.IPV4),
        ("0.0.0.0/0", Family.IPV4),
        ("fd00::/64", Family.IPV6),
        ("::/0", Family.IPV6),
    ],
)
def test_a_prefix_reads_back_as_it_was_written(text: str, family: Family) -> None:
    prefix = Prefix.parse(text)
    assert str(prefix) == text
    assert prefix.family is family


@pytest.mark.parametrize("text", ["10.244.1.1/24", "10.0.0.0/33", "fd00::1/64", "10.0.0", "", "fe80::1%eth0"])
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Prefix.parse(text)


def test_a_bare_address_is_a_host_prefix() -> None:
    assert (
        Prefix.parse("192.0.2.1") == host_prefix(parse_address("192.0.2.1")) == Prefix.parse("192.0.2.1/32")
    )


@pytest.mark.parametrize(
    ("outer", "inner", "contained"),
    [
        ("10.244.0.0/16", "10.244.0.0/16", True),
        ("10.244.0.0/16", "10.244.255.0/24", True),
        ("10.244.0.0/16", "10.245.0.0/24", False),
        ("10.244.0.0/16", "10.0.0.0/8", False),
        ("0.0.0.0/0", "255.255.255.255/32", True),
        ("0.0.0.0/0", "::/0", False),
        ("fd00::/48", "fd00:0:0:1::/64", True),
        ("fd00::/48", "fd00:0:1::/64", False),
    ],
)
def test_containment(outer: str, inner: str, contained: bool) -> None:
    assert Prefix.parse(outer).contains(Prefix.parse(inner)) is contained


def test_covers_an_address() -> None:
    assert Prefix.parse("10.244.1.0/24").covers(parse_address("10.244.1.9"))
    assert not Prefix.parse("10.244.1.0/24").covers(parse_address("10.244.2.9"))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_containment_equals_the_standard_library(one: int, length: int, two: int, other: int) -> None:
    first, second = (
        ipaddress.IPv4Network((one, length), strict=False),
        ipaddress.IPv4Network((two, other), False),
    )
    ours = Prefix.parse(str(first)), Prefix.parse(str(second))
    assert ours[0].contains(ours[1]) == second.subnet_of(first)
    assert [str(each) for each in ours[0].covering()] == [
        str(first.supernet(new_prefix=n)) for n in range(length, -1, -1)
    ]


def test_addresses_have_no_zone_here() -> None:
    assert parse_address("fe80::1") == bytes.fromhex("fe80" + "00" * 13 + "01")
    with pytest.raises(ValueError, match="zone"):
        parse_address("fe80::1%eth0")


@pytest.mark.parametrize("text", ["192.0.2.1", "fd00::1"])
def test_an_address_reads_back(text: str) -> None:
    assert format_address(parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"), [("fe80::1", True), ("febf::1", True), ("fec0::1", False), ("192.0.2.1", False)]
)
def test_link_local(text: str, expected: bool) -> None:
    assert is_link_local(parse_address(text)) is expected


def test_router_ids() -> None:
    assert format_router_id(parse_router_id("192.0.2.1")) == "192.0.2.1"
    with pytest.raises(ValueError, match=r"0\.0\.0\.0"):
        parse_router_id("0.0.0.0")


def test_families() -> None:
    assert [family_of(Address(bytes(size))) for size in (4, 16)] == [Family.IPV4, Family.IPV6]
    assert [str(family) for family in Family] == ["ipv4", "ipv6"]
