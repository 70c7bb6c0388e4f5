"""Import policy: each rule by its name."""

from __future__ import annotations

import pytest

from routes.node_prefixes import KnownNode, NodePrefixes
from routes.own_path import OwnPath
from routes.path import (
    EMPTY_AS_PATH,
    GRACEFUL_SHUTDOWN,
    AsPath,
    AsSegment,
    Origin,
    PathAttributes,
    PeerKind,
    PeerName,
    SegmentKind,
    Source,
)
from routes.policy import AllowEntry, ImportPolicy, PeerImport, is_martian_next_hop
from routes.prefix import Prefix, parse_address, parse_router_id
from routes.route_policy import Action, PrefixRange, RouteMatch, RoutePolicy, RouteRule, RouteSet

OWN_ID, CLUSTER = parse_router_id("192.0.2.11"), parse_router_id("192.0.2.99")
IBGP = Source(PeerName("192.0.2.1"), PeerKind.IBGP, 65000, 1, parse_address("192.0.2.1"))
EBGP = Source(PeerName("192.0.2.2"), PeerKind.EBGP, 64512, 2, parse_address("192.0.2.2"))


def sequence(*asns: int) -> AsPath:
    return AsPath.of((AsSegment(SegmentKind.SEQUENCE, asns),)) if asns else EMPTY_AS_PATH


def attributes(next_hop: str = "192.0.2.1", as_path: AsPath = EMPTY_AS_PATH) -> PathAttributes:
    return PathAttributes(Origin.IGP, as_path, parse_address(next_hop))


def entry(text: str, ge: int | None = None, le: int | None = None) -> AllowEntry:
    prefix = Prefix.parse(text)
    size = len(prefix.address) * 8
    return AllowEntry(prefix, prefix.length if ge is None else ge, size if le is None else le)


def policy(*allow: AllowEntry, **peers: PeerImport) -> ImportPolicy:
    return ImportPolicy(
        asn=65000,
        router_id=OWN_ID,
        allow=allow or [entry("10.244.0.0/16"), entry("fd00:10:244::/48")],
        own_paths=[OwnPath(Prefix.parse("10.244.1.0/24")), OwnPath(Prefix.parse("fd00:10:244:1::/64"))],
        own_addresses=[parse_address("192.0.2.11")],
        cluster_id=CLUSTER,
        peers={EBGP.peer: peers["ebgp"]} if peers else None,
    )


@pytest.mark.parametrize(
    ("nlri", "rule"),
    [
        ("10.244.2.0/24", "allow 10.244.0.0/16"),
        ("10.244.0.0/16", "allow 10.244.0.0/16"),
        ("10.244.2.7/32", "allow 10.244.0.0/16"),
        ("fd00:10:244:2::/64", "allow fd00:10:244::/48"),
        ("10.0.0.0/8", "not-allowed"),
        ("10.245.0.0/24", "not-allowed"),
        ("fd00:10:245::/64", "not-allowed"),
        ("0.0.0.0/0", "default-not-allowed"),
        ("::/0", "default-not-allowed"),
        ("10.244.1.0/24", "own-prefix"),
        ("10.244.1.7/32", "own-prefix"),
        ("fd00:10:244:1::5/128", "own-prefix"),
        ("0.1.0.0/16", "martian"),
        ("127.0.0.1/32", "martian"),
        ("224.0.0.0/24", "martian"),
        ("255.255.255.255/32", "martian"),
        ("::1/128", "martian"),
        ("::ffff:10.244.2.0/120", "martian"),
        ("fe80::/64", "martian"),
        ("ff02::/16", "martian"),
        ("192.0.2.0/24", "not-allowed"),
    ],
)
def test_the_rule_for_a_prefix(nlri: str, rule: str) -> None:
    verdict = policy().judge(IBGP, attributes(), Prefix.parse(nlri))
    assert verdict.rule == rule
    assert verdict.accepted == rule.startswith("allow")
    assert policy().admits(IBGP.peer)[len(Prefix.parse(nlri).address)](Prefix.parse(nlri)) == verdict.accepted


@pytest.mark.parametrize(
    ("allow", "accepted", "refused"),
    [
        (
            entry("10.244.0.0/16", 24, 26),
            ["10.244.2.0/24", "10.244.2.0/26"],
            ["10.244.0.0/16", "10.244.2.0/27"],
        ),
        (entry("10.244.0.0/16", 0, 32), ["10.244.0.0/16"], ["10.0.0.0/8"]),
        (entry("0.0.0.0/0", 0, 32), ["0.0.0.0/0"], ["10.244.2.0/24", "0.0.0.0/1", "::/0"]),
        (entry("::/0", 0, 128), ["::/0"], ["fd00::/64", "0.0.0.0/0"]),
        (entry("0.0.0.0/1", 1, 32), ["10.0.0.0/8", "0.0.0.0/1"], ["127.0.0.0/24", "0.0.0.0/8", "0.0.0.0/0"]),
        (entry("192.0.2.0/24"), ["192.0.2.0/24"], []),
    ],
)
def test_what_an_entry_admits(allow: AllowEntry, accepted: list[str], refused: list[str]) -> None:
    rules = policy(allow)
    for text in accepted:
        assert rules.judge(IBGP, attributes(), Prefix.parse(text)).accepted, text
    for text in refused:
        assert not rules.judge(IBGP, attributes(), Prefix.parse(text)).accepted, text


@pytest.mark.parametrize(
    ("source", "given", "rule"),
    [
        (IBGP, attributes(as_path=sequence(64512, 65000)), "as-loop"),
        (EBGP, attributes(as_path=sequence(64512, 65000)), "as-loop"),
        (EBGP, attributes(as_path=sequence(64513, 64512)), "first-as"),
        (EBGP, attributes(), "first-as"),
        (IBGP, attributes()._replace(originator_id=OWN_ID), "originator-loop"),
        (IBGP, attributes()._replace(cluster_list=(1, CLUSTER)), "cluster-loop"),
        (IBGP, attributes("192.0.2.11"), "own-next-hop"),
        (IBGP, attributes("127.0.0.1"), "martian-next-hop"),
        (IBGP, attributes("::ffff:192.0.2.1"), "martian-next-hop"),
        (IBGP, attributes()._replace(communities=(5, GRACEFUL_SHUTDOWN)), "graceful-shutdown"),
        (EBGP, attributes(as_path=sequence(64512))._replace(originator_id=OWN_ID), "allow 10.244.0.0/16"),
    ],
)
def test_the_rule_for_attributes(source: Source, given: PathAttributes, rule: str) -> None:
    assert policy().judge(source, given, Prefix.parse("10.244.2.0/24")).rule == rule


def test_nodes_that_share_an_as_need_allowas_in() -> None:
    once, twice = (
        attributes(as_path=sequence(64512, 65000)),
        attributes(as_path=sequence(64512, 65000, 65000)),
    )
    rules = policy(ebgp=PeerImport(allowas_in=1))
    assert rules.judge(EBGP, once, Prefix.parse("10.244.2.0/24")).accepted
    assert rules.judge(EBGP, twice, Prefix.parse("10.244.2.0/24")).rule == "as-loop"


def test_a_route_server_does_not_put_its_own_as_first() -> None:
    rules = policy(ebgp=PeerImport(enforce_first_as=False))
    assert rules.judge(EBGP, attributes(as_path=sequence(7)), Prefix.parse("10.244.2.0/24")).accepted


def test_another_as_can_not_set_what_is_ours() -> None:
    given = attributes(as_path=sequence(64512))._replace(local_pref=500, originator_id=5, cluster_list=(6,))
    imported = policy().judge(EBGP, given, Prefix.parse("10.244.2.0/24")).attributes
    assert (imported.local_pref, imported.originator_id, imported.cluster_list) == (None, None, ())
    assert policy().judge(IBGP, given, Prefix.parse("10.244.2.0/24")).attributes is given


@pytest.mark.parametrize("source", [IBGP, EBGP])
def test_graceful_shutdown_is_the_last_resort(source: Source) -> None:
    given = attributes(as_path=sequence(64512))._replace(local_pref=500, communities=(GRACEFUL_SHUTDOWN,))
    verdict = policy().judge(source, given, Prefix.parse("10.244.2.0/24"))
    assert verdict.attributes.local_pref == 0
    assert "10.244.0.0/16" in verdict.text


def test_a_refusal_speaks_to_a_person() -> None:
    verdict = policy().judge(EBGP, attributes(as_path=sequence(64512, 65000)), Prefix.parse("10.244.2.0/24"))
    assert verdict.text == "the AS path [64512 65000] contains our own AS 65000 once"
    verdict = policy().judge(IBGP, attributes(), Prefix.parse("10.244.1.7/32"))
    assert verdict.text == "10.244.1.7/32 lies in our own prefix 10.244.1.0/24"


@pytest.mark.parametrize(
    ("next_hop", "link_local", "martian"),
    [
        ("0.0.0.0", None, True),
        ("127.9.9.9", None, True),
        ("224.0.0.5", None, True),
        ("255.255.255.255", None, True),
        ("192.0.2.1", None, False),
        ("::", None, True),
        ("::", "fe80::1", False),
        ("::1", None, True),
        ("::ffff:192.0.2.1", "fe80::1", True),
        ("ff02::1", None, True),
        ("fe80::1", None, False),
        ("fd00::1", None, False),
        ("64:ff9b::1", None, False),
    ],
)
def test_martian_next_hops(next_hop: str, link_local: str | None, martian: bool) -> None:
    beside = None if link_local is None else parse_address(link_local)
    assert is_martian_next_hop(parse_address(next_hop), beside) is martian


# -- nodes and policies --

NODES = NodePrefixes(
    [Prefix.parse("10.244.0.0/16")],
    [KnownNode("one", (Prefix.parse("10.244.2.0/24"),), frozenset([parse_address("192.0.2.1")]))],
)
NARROW = RoutePolicy(
    "narrow",
    (
        RouteRule(
            "hosts", Action.REJECT, RouteMatch(prefixes=(PrefixRange(Prefix.parse("10.0.0.0/8"), 32, 32),))
        ),
        RouteRule("mark", Action.CONTINUE, set=RouteSet(local_pref=300)),
    ),
    Action.ACCEPT,
)


def rules(*policies: RoutePolicy, nodes: NodePrefixes | None = None) -> ImportPolicy:
    return ImportPolicy(
        asn=65000,
        router_id=OWN_ID,
        allow=[entry("10.244.0.0/16")],
        own_paths=[OwnPath(Prefix.parse("10.244.1.0/24")), OwnPath(Prefix.parse("10.244.9.9/32"), False)],
        peers={source.peer: PeerImport(policies=policies) for source in (IBGP, EBGP)},
        nodes=nodes,
    )


@pytest.mark.parametrize(
    ("nlri", "next_hop", "rule"),
    [
        ("10.244.2.0/24", "192.0.2.1", "allow 10.244.0.0/16"),
        ("10.244.2.0/24", "192.0.2.7", "node-mismatch"),
        ("10.244.3.0/24", "192.0.2.1", "node-mismatch"),
        ("10.244.1.0/24", "192.0.2.1", "own-prefix"),
        ("10.9.0.0/24", "192.0.2.1", "not-allowed"),
        ("10.244.3.0/24", "127.0.0.1", "martian-next-hop"),
    ],
)
def test_over_ibgp_a_pod_prefix_is_its_nodes_alone(nlri: str, next_hop: str, rule: str) -> None:
    verdict = rules(nodes=NODES).judge(IBGP, attributes(next_hop), Prefix.parse(nlri))
    assert (verdict.rule, verdict.accepted) == (rule, rule.startswith("allow"))


def test_over_ebgp_nodes_are_not_asked() -> None:
    path = attributes("192.0.2.7", AsPath.of((AsSegment(SegmentKind.SEQUENCE, (EBGP.asn,)),)))
    assert rules(nodes=NODES).judge(EBGP, path, Prefix.parse("10.244.3.0/24")).accepted


def test_a_service_address_of_ours_is_anybodys() -> None:
    assert rules().judge(IBGP, attributes(), Prefix.parse("10.244.9.9/32")).accepted


@pytest.mark.parametrize(
    ("nlri", "communities", "rule", "local_pref"),
    [
        ("10.244.2.0/24", (), "policy narrow default", 300),
        ("10.244.2.7/32", (), "policy narrow rule hosts", None),
        ("10.245.0.0/24", (), "not-allowed", None),
        ("10.244.1.0/24", (), "own-prefix", None),
        ("10.244.2.0/24", (GRACEFUL_SHUTDOWN,), "policy narrow default", 0),
    ],
)
def test_a_policy_narrows_and_modifies_and_admits_nothing(
    nlri: str, communities: tuple[int, ...], rule: str, local_pref: int | None
) -> None:
    path = attributes()._replace(communities=communities)
    verdict = rules(NARROW).judge(IBGP, path, Prefix.parse(nlri))
    assert (verdict.rule, verdict.attributes.local_pref) == (rule, local_pref)
    assert verdict.accepted == (local_pref is not None)
    if verdict.accepted:
        assert "admitted by the import entry 10.244.0.0/16; policy narrow rule mark" in verdict.text


def test_without_policies_and_nodes_nothing_more_is_asked() -> None:
    assert rules().rest(IBGP) is None
    assert rules(nodes=NODES).rest(EBGP) is None
    assert rules(nodes=NODES).rest(IBGP) is not None
