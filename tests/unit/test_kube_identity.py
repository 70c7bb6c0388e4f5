"""Router IDs of Nodes, and values that more than one of them claims."""

from __future__ import annotations

import pytest

from bgpd.kube.identity import Claims, PrefixClaims, derived_router_id, reflector_router_id_of, router_id_of
from bgpd.kube.objects import Node
from routes.prefix import Prefix, parse_address, parse_router_id


def test_a_node_is_known_by_its_ipv4_address() -> None:
    node = Node("n", "u", addresses=(parse_address("2001:db8::1"), parse_address("192.0.2.7")))
    assert router_id_of(node) == parse_router_id("192.0.2.7")


def test_an_ipv6_only_node_is_known_by_its_uid() -> None:
    one = Node("n", "0b6f", addresses=(parse_address("2001:db8::1"),))
    again = Node("n", "77aa", addresses=one.addresses)
    assert router_id_of(one) == derived_router_id("agent/0b6f") != router_id_of(again)
    assert router_id_of(one) != reflector_router_id_of("0b6f"), "two speakers on one Node"
    assert 0 < reflector_router_id_of("0b6f") < 1 << 32


def test_who_holds_the_same_value_is_told_and_so_is_its_end() -> None:
    claims = Claims[int]()
    assert claims.claim("a", [1]) == {"a"}
    assert claims.claim("b", [1, 2]) == {"a", "b"}
    assert claims.conflicts("a") == [(1, "b")]
    assert claims.claim("a", []) == {"a", "b"}
    assert claims.conflicts("b") == []


def prefixes(*texts: str) -> list[Prefix]:
    return [Prefix.parse(text) for text in texts]


HELD = {
    "wide": ["10.0.0.0/16"],
    "narrow": ["10.0.1.0/24", "fd00::/64"],
    "other": ["10.1.0.0/24"],
}


@pytest.mark.parametrize("order", [["other", "wide", "narrow"], ["other", "narrow", "wide"]])
def test_a_prefix_inside_another_is_a_conflict_whoever_came_first(order: list[str]) -> None:
    claims = PrefixClaims()
    for holder in order:
        touched = claims.claim(holder, prefixes(*HELD[holder]))
    assert touched == {"narrow", "wide"}
    wide, narrow = Prefix.parse("10.0.0.0/16"), Prefix.parse("10.0.1.0/24")
    assert claims.conflicts("wide") == [(wide, "narrow", narrow)]
    assert claims.conflicts("narrow") == [(narrow, "wide", wide)]
    assert claims.conflicts("other") == []
    assert claims.claim("wide", []) == {"wide", "narrow"}
    assert claims.conflicts("narrow") == []


def test_the_same_prefix_is_a_conflict() -> None:
    claims = PrefixClaims()
    claims.claim("a", prefixes("10.0.0.0/24"))
    assert claims.claim("b", prefixes("10.0.0.0/24")) == {"a", "b"}
    assert [other for _, other, _ in claims.conflicts("a")] == ["b"]
