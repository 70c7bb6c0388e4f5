"""Which service addresses a node announces: stories about one node, n1."""

from __future__ import annotations

import pytest

from bgpd.kube.custom_values import AddressKind
from bgpd.kube.objects import EndpointSlice, Service
from bgpd.kube.service_claims import Limits, Rule
from bgpd.kube.services import MOST_CLAIMS, ServiceAnnouncements
from routes.own_path import OwnPath
from routes.path import GRACEFUL_SHUTDOWN
from routes.prefix import Family, Prefix
from tests.fakes.service_objects import addresses, advertisement, endpoints, pool, prefixes, service

POOL = pool("public", "203.0.113.0/24", "fd00:1::/64")
LIMITS = Limits(
    prefixes("10.96.0.0/12 fd00:96::/108"), [POOL], prefixes("10.244.0.0/16"), addresses("203.0.113.250")
)
EVERYTHING = advertisement("all")


def node(*facts: Service | EndpointSlice, limits: Limits = LIMITS) -> ServiceAnnouncements:
    """n1, which knows these facts and announces everything."""
    announcements = ServiceAnnouncements("n1", limits)
    announcements.advertisements_replaced([EVERYTHING])
    tell(announcements, *facts)
    return announcements


def tell(announcements: ServiceAnnouncements, *facts: Service | EndpointSlice) -> None:
    for fact in facts:
        if isinstance(fact, Service):
            announcements.service_changed(fact)
        else:
            announcements.slice_changed(fact)


def told(announcements: ServiceAnnouncements) -> str:
    return " ".join(map(str, sorted(announcements.announced)))


def rules(announcements: ServiceAnnouncements, name: str, namespace: str = "default") -> list[Rule]:
    return [verdict.rule for verdict in announcements.explain((namespace, name))]


def balanced(
    name: str = "web", address: str = "203.0.113.7", *, local: bool = False, created: float = 0.0
) -> Service:
    return service(name, ingress=address, local=local, created=created)


LOCAL = balanced(local=True)
WEB = "203.0.113.7/32"
CLUSTER = "10.96.0.10/32"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ([service("web")], CLUSTER),
        ([service("web", internal_local=True)], ""),
        ([service("web", internal_local=True), endpoints("web", "n2")], ""),
        ([service("web", internal_local=True), endpoints("web", "n1")], CLUSTER),
        ([balanced()], CLUSTER),
        ([balanced(), endpoints("web", "n2:dead")], CLUSTER),
        ([balanced(), endpoints("web", "n2")], f"{CLUSTER} {WEB}"),
        ([balanced(), endpoints("web", "n2:leaving")], f"{CLUSTER} {WEB}"),
        ([balanced(), endpoints("web", "n2", namespace="other")], CLUSTER),
        ([LOCAL, endpoints("web", "n2")], CLUSTER),
        ([LOCAL, endpoints("web", "n1:dead", "n2")], CLUSTER),
        ([LOCAL, endpoints("web", "n1", "n2")], f"{CLUSTER} {WEB}"),
        ([LOCAL, endpoints("web", "n2"), endpoints("web", "n1", name="web-2")], f"{CLUSTER} {WEB}"),
        ([service("web", external="203.0.113.7"), endpoints("web", "n2")], f"{CLUSTER} {WEB}"),
        ([service("web", external="203.0.113.7", local=True), endpoints("web", "n2")], CLUSTER),
        ([service("web", "", external="203.0.113.7"), endpoints("web", "n1")], ""),
        ([service("web", kind="ExternalName", external="203.0.113.7"), endpoints("web", "n1")], ""),
    ],
)
def test_an_address_is_announced_where_its_packets_reach_an_endpoint(
    facts: list[Service | EndpointSlice], expected: str
) -> None:
    assert told(node(*facts)) == expected


def test_endpoints_of_the_other_family_do_not_count() -> None:
    both = service("web", "10.96.0.10 fd00:96::a", ingress="203.0.113.7 fd00:1::7", local=True)
    announcements = node(both, endpoints("web", "n1", family=Family.IPV6))
    assert told(announcements) == f"{CLUSTER} fd00:1::7/128 fd00:96::a/128"


@pytest.mark.parametrize(
    ("claimed", "rule"),
    [
        (service("web", external="198.51.100.1"), Rule.OUTSIDE_POOLS),
        (service("web", external="10.96.0.1"), Rule.IN_SERVICE_RANGES),
        (service("web", external="203.0.113.250"), Rule.NODE_ADDRESS),
        (service("web", external="10.244.3.3"), Rule.POD_ADDRESS),
        (service("web", ingress="198.51.100.1"), Rule.OUTSIDE_POOLS),
        (
            service("web", ingress="203.0.113.7", load_balancer_class="example.com/other"),
            Rule.OTHER_CONTROLLER,
        ),
        (service("web", "192.168.0.1"), Rule.OUTSIDE_SERVICE_RANGES),
    ],
)
def test_a_service_cannot_have_an_address_announced_that_nobody_gave_it(claimed: Service, rule: Rule) -> None:
    announcements = node(claimed, endpoints("web", "n1"))
    assert rule in rules(announcements, "web")
    assert told(announcements) in {CLUSTER, ""}


def test_an_external_ip_needs_a_pool_that_is_for_its_namespace() -> None:
    limits = Limits(pools=[pool("shop", "203.0.113.0/24", namespaces=("shop",))])
    there = service("web", external="203.0.113.7", namespace="shop")
    here = service("web", external="203.0.113.7")
    stranger = node(here, endpoints("web", "n1"), limits=limits)
    assert rules(stranger, "web")[1:] == [Rule.POOL_REFUSES]
    assert told(node(there, endpoints("web", "n1", namespace="shop"), limits=limits)) == WEB


def test_another_namespace_cannot_draw_away_the_packets_of_an_address() -> None:
    mine = balanced(local=True, created=2.0)
    thief = service("thief", "10.96.0.66", external="203.0.113.7 10.96.0.10", namespace="evil", created=1.0)
    announcements = node(mine, thief, endpoints("web", "n2"), endpoints("thief", "n1", namespace="evil"))
    assert told(announcements) == f"{CLUSTER} 10.96.0.66/32"
    assert Rule.OTHER_NAMESPACE in rules(announcements, "thief", "evil")
    announcements.service_deleted(mine.key)
    assert told(announcements) == f"10.96.0.66/32 {WEB}"


def test_services_that_share_an_address_announce_it_while_one_of_them_lives() -> None:
    web, mail = balanced("web"), balanced("mail")
    announcements = node(web, mail, endpoints("web", "n2"), endpoints("mail", "n2"))
    assert WEB in told(announcements)
    announcements.service_deleted(web.key)
    assert WEB in told(announcements)
    announcements.slice_deleted(("default", "mail-1"))
    assert WEB not in told(announcements)


def test_a_node_keeps_quiet_about_a_shared_address_of_which_it_would_drop_a_part() -> None:
    announcements = node(
        balanced("web"), balanced("mail", local=True), endpoints("web", "n1"), endpoints("mail", "n2")
    )
    assert WEB not in told(announcements)
    assert rules(announcements, "web")[1] is Rule.SHARED_WITH_LOCAL
    announcements.slice_changed(endpoints("mail", "n1"))
    assert WEB in told(announcements)


def test_claims_beyond_the_bound_are_refused() -> None:
    many = [balanced(f"s{number:03}", created=number) for number in range(MOST_CLAIMS + 1)]
    announcements = node(*many, endpoints("s064", "n1"))
    assert WEB not in told(announcements)
    assert rules(announcements, "s064")[1] is Rule.TOO_MANY_CLAIMS
    announcements.service_deleted(("default", "s000"))
    assert WEB in told(announcements)


def test_terminating_endpoints_serve_where_no_others_do_and_the_path_says_that_it_goes() -> None:
    announcements = node(LOCAL, endpoints("web", "n1", "n2"))
    leaving = announcements.slice_changed(endpoints("web", "n1:leaving", "n2"))
    assert leaving.announce == (
        OwnPath(Prefix.parse(WEB), False, (GRACEFUL_SHUTDOWN,), (), local_pref=0, med=0xFFFFFFFF),
    )
    gone = announcements.slice_changed(endpoints("web", "n2"))
    assert gone.withdraw == (Prefix.parse(WEB),)


def test_several_advertisements_of_one_address_are_united() -> None:
    announcements = node(balanced(), endpoints("web", "n2"))
    lb = AddressKind.LOAD_BALANCER_IP
    announcements.advertisements_replaced(
        [
            advertisement("b", lb, communities=(2, 1), local_pref=50),
            advertisement("a", lb, communities=(3, (1, 2, 3))),
            advertisement("other", lb, communities=(9,), local_pref=900, labels={"app": "mail"}),
            advertisement("elsewhere", lb, communities=(9,), nodes={"zone": "b"}),
        ]
    )
    assert list(announcements.announced.values()) == [
        OwnPath(Prefix.parse(WEB), False, (1, 2, 3), ((1, 2, 3),), local_pref=50)
    ]


def test_an_advertisement_is_for_the_nodes_that_it_selects() -> None:
    announcements = node(service("web"))
    announcements.advertisements_replaced([advertisement("zone-b", nodes={"zone": "b"})])
    assert rules(announcements, "web") == [Rule.OTHER_NODES]
    assert told(announcements) == ""
    changes = announcements.node_labels_replaced({"zone": "b"})
    assert [str(path.nlri) for path in changes.announce] == [CLUSTER]
    announcements.advertisements_replaced([])
    assert rules(announcements, "web") == [Rule.NO_ADVERTISEMENT]


@pytest.mark.parametrize(
    ("ranges", "length", "expected"),
    [
        ("203.0.113.0/24", 24, "203.0.113.0/24"),
        ("203.0.113.0/24", 26, "203.0.113.0/26"),
        ("203.0.113.0/24", 16, "203.0.113.0/24"),
        ("203.0.113.6-203.0.113.20", 24, "203.0.113.6/31"),
        ("203.0.113.7-203.0.113.7", 24, "203.0.113.7/32"),
    ],
)
def test_an_aggregate_never_has_an_address_that_no_pool_has(ranges: str, length: int, expected: str) -> None:
    announcements = node(balanced(), endpoints("web", "n2"), limits=Limits(pools=[pool("public", ranges)]))
    announcements.advertisements_replaced([advertisement("all", ipv4=length)])
    assert told(announcements) == expected


def test_an_aggregate_stands_while_one_of_its_addresses_does_and_local_ones_stand_beside_it() -> None:
    announcements = node(
        balanced("web", "203.0.113.7"), endpoints("web", "n2"),
        balanced("mail", "203.0.113.8"), endpoints("mail", "n2"),
        balanced("game", "203.0.113.9", local=True), endpoints("game", "n1"),
    )  # fmt: skip
    announcements.advertisements_replaced([advertisement("all", AddressKind.LOAD_BALANCER_IP, ipv4=25)])
    assert told(announcements) == "203.0.113.0/25 203.0.113.9/32"
    assert not announcements.service_deleted(("default", "web"))
    assert announcements.service_deleted(("default", "mail")).withdraw == (Prefix.parse("203.0.113.0/25"),)
    assert told(announcements) == "203.0.113.9/32"


def test_a_drain_announces_everything_as_going_and_then_nothing() -> None:
    announcements = node(balanced(), endpoints("web", "n1", "n2"))
    going = announcements.drain_replaced(going=True, withdrawn=False)
    assert [path.communities for path in going.announce] == [(GRACEFUL_SHUTDOWN,)] * 2
    assert announcements.local_endpoints() == 1
    assert len(announcements.drain_replaced(going=True, withdrawn=True).withdraw) == 2
    assert rules(announcements, "web") == [Rule.DRAINED, Rule.DRAINED]
    tell(announcements, service("late", "10.96.0.11"))
    back = announcements.drain_replaced(going=False, withdrawn=False)
    assert [path.communities for path in back.announce] == [()] * 3


def test_what_means_nothing_new_changes_nothing() -> None:
    announcements = node(balanced(), endpoints("web", "n1", "n2"))
    joined = Limits(
        prefixes("10.96.0.0/12 fd00:96::/108"), [POOL], prefixes("10.244.0.0/16"),
        addresses("203.0.113.250 192.0.2.77"),
    )  # fmt: skip
    assert not announcements.service_changed(balanced())
    assert not announcements.slice_changed(endpoints("web", "n2", "n1", "n1"))
    assert not announcements.limits_replaced(joined)
    assert not announcements.advertisements_replaced([EVERYTHING])
    assert not announcements.slice_deleted(("default", "never"))
    assert not announcements.service_deleted(("default", "never"))


def test_a_pool_that_shrinks_ends_the_announcement_and_growing_back_restores_it() -> None:
    announcements = node(balanced(), endpoints("web", "n2"))
    shrunk = Limits(LIMITS.service_ranges.prefixes(), [pool("public", "203.0.113.128/25")])
    assert announcements.limits_replaced(shrunk).withdraw == (Prefix.parse(WEB),)
    assert [path.nlri for path in announcements.limits_replaced(LIMITS).announce] == [Prefix.parse(WEB)]


def test_explain_says_what_is_announced_and_what_would_have_to_change() -> None:
    announcements = node(service("web", external="198.51.100.1"), endpoints("web", "n2"))
    texts = [verdict.text for verdict in announcements.explain(("default", "web"))]
    assert texts[0] == "ClusterIP 10.96.0.10 is announced as 10.96.0.10/32"
    assert texts[1].startswith("ExternalIP 198.51.100.1 is not announced: no BGPAddressPool has it")
    assert announcements.explain(("default", "none"))[0].text == "no Service default/none is known"


def test_closed_ports_are_guarded_in_the_ranges_without_nodes() -> None:
    limits = Limits(prefixes("10.96.0.0/16"), [pool("p", "192.0.2.0/29")], (), addresses("192.0.2.2"))
    assert " ".join(map(str, limits.guarded())) == ("10.96.0.0/16 192.0.2.0/31 192.0.2.3/32 192.0.2.4/30")


def local_ports(announcements: ServiceAnnouncements) -> list[int]:
    assert {port.address for port in announcements.local_ports} <= {*addresses("203.0.113.7")}
    return [port.number for port in announcements.local_ports]


def test_ports_of_local_services_are_known_with_and_without_an_endpoint_here() -> None:
    announcements = node(LOCAL, balanced("other", "203.0.113.8"), endpoints("web", "n2"))
    assert local_ports(announcements) == [80]
    tell(announcements, service("web", ingress="203.0.113.7", local=True, ports=(80, 443)))
    assert local_ports(announcements) == [80, 443]
    tell(announcements, balanced())
    assert local_ports(announcements) == []
    tell(announcements, LOCAL)
    announcements.service_deleted(("default", "web"))
    assert local_ports(announcements) == []


def test_ports_of_one_service_do_not_fill_the_packet_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bgpd.kube.services.MOST_LOCAL_PORTS", 3)
    announcements = node(service("web", ingress="203.0.113.7", local=True, ports=tuple(range(1, 10))))
    assert local_ports(announcements) == [1, 2, 3]
