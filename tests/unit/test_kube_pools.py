"""LoadBalancer addresses: who gets which, who keeps which, and what is said to those who get none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bgpd.kube.objects import Service
from bgpd.kube.pool_problems import Trouble
from bgpd.kube.pool_space import MOST_REMEMBERED
from bgpd.kube.pools import MOST_RETRIES, Allocator, Plan, allocate
from routes.prefix import Family, format_address
from tests.fakes.service_objects import addresses, pool, prefixes, service

PUBLIC = pool("public", "203.0.113.0/30")
BOTH = (Family.IPV4, Family.IPV6)


def want(name: str, ingress: str = "", *, created: float = 0.0, **annotations: str) -> Service:
    notes = {key.replace("_", "-"): text for key, text in annotations.items()}
    return service(name, ingress=ingress, created=created, annotations=notes)


def shown(plan: Plan | Allocator) -> dict[str, str]:
    return {name: " ".join(map(format_address, held)) for (_, name), held in sorted(plan.assignments.items())}


def reasons(plan: Plan | Allocator) -> dict[str, Trouble]:
    return {problem.about[2]: problem.reason for problem in plan.problems}


def written(one: Service, plan: Plan) -> Service:
    """The Service after the plan was written into its status."""
    return replace(one, ingress=plan.assignments.get(one.key, one.ingress))


def test_the_oldest_is_served_first_and_exhaustion_is_said() -> None:
    ages = {"b": 2.0, "a": 3.0, "c": 1.0, "d": 4.0, "e": 9.0, "f": 8.0}
    plan = allocate([want(name, created=age) for name, age in ages.items()], [PUBLIC])
    assert shown(plan) == {"c": "203.0.113.0", "b": "203.0.113.1", "a": "203.0.113.2", "d": "203.0.113.3"}
    assert reasons(plan) == {"e": Trouble.EXHAUSTED, "f": Trouble.EXHAUSTED}


def test_who_waited_longest_is_served_when_an_address_comes_free() -> None:
    services = [want(name, created=number) for number, name in enumerate("abcdef")]
    allocator = Allocator([PUBLIC], services)
    plan = allocator.apply(deleted=[("default", "b")])
    assert shown(plan) == {"e": "203.0.113.1"}
    assert plan.solved == (("Service", "default", "e"),)
    assert reasons(allocator) == {"f": Trouble.EXHAUSTED}
    wider = allocator.pools_replaced([PUBLIC, pool("more", "198.51.100.0/32")])
    assert shown(wider)["f"] == "198.51.100.0"


@pytest.mark.parametrize(
    ("one", "ours"),
    [
        (service("web", ingress=""), True),
        (service("web"), False),
        (service("web", ingress="", load_balancer_class=None), False),
        (service("web", ingress="", load_balancer_class="example.com/other"), False),
        (
            service("web", ingress="", load_balancer_class=None,
                    annotations={"load-balancer-class": "podbgp.dev/bgp"}),
            True,
        ),
        (
            service("web", ingress="", load_balancer_class="example.com/other",
                    annotations={"load-balancer-class": "podbgp.dev/bgp"}),
            False,
        ),
    ],
)  # fmt: skip
def test_only_services_of_our_class_get_addresses(one: Service, ours: bool) -> None:
    assert bool(allocate([one], [PUBLIC]).assignments) == ours


def test_a_restart_renumbers_nothing_whatever_became_of_the_pools() -> None:
    services = [want("a", "203.0.113.2"), want("b", "203.0.113.0"), want("c")]
    earlier = pool("a-new-one", "198.51.100.0/24")
    allocator = Allocator([PUBLIC, earlier], services)
    assert shown(allocator.first) == {"c": "198.51.100.0"}
    assert shown(allocator)["a"] == "203.0.113.2"
    assert not reasons(allocator)


def test_a_pool_that_shrinks_leaves_addresses_where_they_are_and_says_so() -> None:
    allocator = Allocator([PUBLIC], [want("a", "203.0.113.3")])
    plan = allocator.pools_replaced([pool("public", "203.0.113.0/31")])
    assert not plan.assignments
    assert reasons(plan) == {"a": Trouble.OUTSIDE}
    assert allocator.pools_replaced([PUBLIC]).solved == (("Service", "default", "a"),)
    assert shown(allocator) == {"a": "203.0.113.3"}


def test_two_statuses_with_one_address_leave_it_to_the_older() -> None:
    plan = allocate(
        [want("young", "203.0.113.1", created=2), want("old", "203.0.113.1", created=1)], [PUBLIC]
    )
    assert shown(plan) == {"young": "203.0.113.0"}


@pytest.mark.parametrize(
    ("asked", "expected", "reason"),
    [
        ({"addresses": "203.0.113.3"}, "203.0.113.3", None),
        ({"addresses": " 203.0.113.3 "}, "203.0.113.3", None),
        ({"addresses": "198.51.100.1"}, "", Trouble.OUTSIDE),
        ({"addresses": "203.0.113.0"}, "", Trouble.TAKEN),
        ({"addresses": "192.0.2.1"}, "", Trouble.POOL_REFUSES),
        ({"addresses": "web"}, "", Trouble.BAD_REQUEST),
        ({"addresses": "203.0.113.2,203.0.113.3"}, "", Trouble.BAD_REQUEST),
        ({"addresses": "fd00::1"}, "", Trouble.BAD_REQUEST),
        ({"addresses": "203.0.113.3" + " " * 300}, "", Trouble.BAD_REQUEST),
        ({"address_pool": "extra"}, "192.0.2.128", None),
        ({"address_pool": "extra", "addresses": "203.0.113.3"}, "", Trouble.OUTSIDE),
        ({"address_pool": "shop"}, "", Trouble.POOL_REFUSES),
        ({"address_pool": "none"}, "", Trouble.NO_POOL),
        ({"address_pool": "clash"}, "", Trouble.NO_POOL),
    ],
)
def test_a_service_may_ask_for_an_address_or_a_pool(
    asked: dict[str, str], expected: str, reason: Trouble | None
) -> None:
    pools = [
        PUBLIC,
        pool("clash", "198.51.100.0/24"),
        pool("extra", "192.0.2.128/25", auto=False),
        pool("shop", "192.0.2.0/25", namespaces=("shop",)),
    ]
    services = [want("holder", "203.0.113.0"), want("web", created=1, **asked)]
    plan = allocate(services, pools, kept_out=prefixes("198.51.100.0/28"))
    assert shown(plan).get("web", "") == expected
    assert reasons(plan).get("web") == reason
    assert reasons(plan)["clash"] is Trouble.KEPT_OUT


def test_the_field_of_the_api_asks_as_well_and_the_annotation_wins() -> None:
    one = replace(want("web"), load_balancer_ip="203.0.113.2")
    assert shown(allocate([one], [PUBLIC])) == {"web": "203.0.113.2"}
    both = replace(want("web", addresses="203.0.113.3"), load_balancer_ip="203.0.113.2")
    assert shown(allocate([both], [PUBLIC])) == {"web": "203.0.113.3"}


def test_who_asks_for_a_taken_address_keeps_its_own_and_gets_it_when_it_is_free() -> None:
    allocator = Allocator([PUBLIC], [want("a", "203.0.113.1"), want("b", "203.0.113.2")])
    plan = allocator.apply([want("b", "203.0.113.2", addresses="203.0.113.1")])
    assert not plan.assignments
    assert reasons(plan) == {"b": Trouble.TAKEN}
    assert shown(allocator.apply(deleted=[("default", "a")])) == {"b": "203.0.113.1"}


def test_pools_that_choose_services_are_asked_before_those_for_all() -> None:
    pools = [pool("a", "198.51.100.0/24"), pool("z", "203.0.113.0/24", labels={"tier": "gold"})]
    gold = replace(want("gold"), labels={"tier": "gold"})
    assert shown(allocate([gold, want("tin")], pools)) == {"gold": "203.0.113.0", "tin": "198.51.100.0"}


@pytest.mark.parametrize(
    ("policy", "pools", "expected", "reason"),
    [
        ("RequireDualStack", ("203.0.113.0/30", "fd00:1::/64"), "203.0.113.0 fd00:1::", None),
        ("RequireDualStack", ("203.0.113.0/30",), "", Trouble.NO_POOL),
        ("RequireDualStack", ("203.0.113.0/30", "fd00:1::5/128"), "", Trouble.EXHAUSTED),
        ("PreferDualStack", ("203.0.113.0/30",), "203.0.113.0", None),
        ("PreferDualStack", ("203.0.113.0/30", "fd00:1::5/128"), "203.0.113.0", Trouble.EXHAUSTED),
        ("PreferDualStack", ("fd00:1::/64",), "fd00:1::", None),
        ("PreferDualStack", (), "", Trouble.NO_POOL),
    ],
)
def test_dual_stack_is_all_or_as_much_as_there_is(
    policy: str, pools: tuple[str, ...], expected: str, reason: Trouble | None
) -> None:
    six = service("six", ingress="fd00:1::5", families=(Family.IPV6,))
    dual = service("dual", ingress="", families=BOTH, policy=policy, created=1)
    plan = allocate([six, dual], [pool(f"p{number}", text) for number, text in enumerate(pools)])
    assert shown(plan).get("dual", "") == expected
    assert reasons(plan).get("dual") == reason


def test_a_dual_stack_service_that_becomes_single_stack_gives_one_address_back() -> None:
    allocator = Allocator([PUBLIC, pool("six", "fd00:1::/64")])
    dual = service("web", ingress="", families=BOTH, policy="PreferDualStack")
    dual = written(dual, allocator.apply([dual]))
    single = replace(dual, families=(Family.IPV4,), family_policy="SingleStack")
    assert shown(allocator.apply([single])) == {"web": "203.0.113.0"}
    assert allocator.usage["six"] == (0, 2**64)


SHARED = {"sharing-key": "mail"}


@pytest.mark.parametrize(
    ("second", "shares"),
    [
        (service("b", ingress="", ports=(25,), annotations=SHARED), True),
        (service("b", ingress="", ports=(80,), annotations=SHARED), False),
        (service("b", ingress="", ports=(25,), annotations={"sharing-key": "other"}), False),
        (service("b", ingress="", ports=(25,)), False),
        (service("b", ingress="", ports=(25,), annotations=SHARED, namespace="other"), False),
        (service("b", ingress="", ports=(25,), annotations=SHARED, local=True), False),
    ],
)
def test_services_share_an_address_only_where_both_say_so_and_both_can_be_served(
    second: Service, shares: bool
) -> None:
    first = service("a", ingress="", ports=(80,), annotations=SHARED, created=-1)
    plan = shown(allocate([first, second], [PUBLIC]))
    assert plan["a"] == "203.0.113.0"
    assert (plan["b"] == plan["a"]) == shares


@pytest.mark.parametrize(("selector", "shares"), [({"app": "a"}, True), ({"app": "b"}, False)])
def test_local_services_share_an_address_only_in_front_of_the_same_pods(
    selector: dict[str, str], shares: bool
) -> None:
    first = service("a", ingress="", ports=(80,), annotations=SHARED, local=True)
    second = service("b", ingress="", ports=(81,), annotations=SHARED, local=True, selector=selector)
    plan = shown(allocate([first, second], [PUBLIC]))
    assert (plan["b"] == plan["a"]) == shares


def test_a_service_that_takes_a_port_of_its_neighbour_costs_the_younger_the_address() -> None:
    first = service("a", ingress="", ports=(80,), annotations=SHARED)
    second = service("b", ingress="", ports=(25,), annotations=SHARED, created=1)
    allocator = Allocator([PUBLIC], [first, second])
    plan = allocator.apply([replace(written(first, allocator.first), ports=frozenset({("TCP", 25)}))])
    assert shown(plan) == {"b": "203.0.113.1"}


def test_an_address_is_not_used_again_at_once() -> None:
    allocator = Allocator([PUBLIC])
    given = []
    for number in range(6):
        name = f"s{number}"
        given.append(shown(allocator.apply([want(name)]))[name])
        allocator.apply(deleted=[("default", name)])
    assert [text[-1] for text in given] == ["0", "1", "2", "3", "0", "1"]


def test_a_huge_range_costs_no_more_than_a_small_one_and_remembers_no_more() -> None:
    allocator = Allocator([pool("six", "fd00:1::/32")])
    for number in range(MOST_REMEMBERED + 10):
        one = service(f"s{number}", ingress="", families=(Family.IPV6,))
        assert allocator.apply([one]).assignments
        allocator.apply(deleted=[one.key])
    assert allocator.usage == {"six": (0, 2**96)}


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        (("203.0.113.0/31",), ["203.0.113.1"]),
        (("203.0.112.254-203.0.113.1",), ["203.0.112.254", "203.0.113.1"]),
        (("203.0.113.255/32", "203.0.113.9/32"), ["203.0.113.9"]),
    ],
)
def test_edges_are_left_out_unless_somebody_asks_for_one(
    ranges: tuple[str, ...], expected: list[str]
) -> None:
    edgy = pool("public", *ranges, edges=True)
    many = [want(f"s{number}") for number in range(4)]
    assert list(shown(allocate(many, [edgy])).values()) == expected
    edge = ranges[0].split("/")[0] if "/" in ranges[0] else "203.0.112.255"
    asking = Allocator([edgy], [want("a", addresses=edge), *many])
    assert shown(asking)["a"] == edge
    assert asking.usage["public"] == (len(expected) + 1, len(expected))


def test_a_nodes_address_is_never_given_out() -> None:
    allocator = Allocator([PUBLIC], (), (), addresses("203.0.113.0 203.0.113.2 192.0.2.1"))
    plan = allocator.apply([want("a"), want("b"), want("c")])
    assert shown(plan) == {"a": "203.0.113.1", "b": "203.0.113.3"}


def test_of_overlapping_pools_the_first_by_name_is_used_and_the_other_said_to_overlap() -> None:
    plan = allocate([want("a")], [pool("b", "203.0.113.0/24"), pool("a", "203.0.113.128/25")])
    assert shown(plan) == {"a": "203.0.113.128"}
    assert reasons(plan) == {"b": Trouble.OVERLAP}


def test_a_service_that_is_not_ours_any_more_gives_its_address_back() -> None:
    allocator = Allocator([PUBLIC], [want("a", "203.0.113.1")])
    other = service("a", ingress="203.0.113.1", load_balancer_class="example.com/other")
    plan = allocator.apply([other])
    assert plan.releases == {("default", "a"): addresses("203.0.113.1")}
    assert shown(allocator.apply([want("b", addresses="203.0.113.1")])) == {"b": "203.0.113.1"}


def test_a_service_made_anew_is_another_one() -> None:
    allocator = Allocator([PUBLIC], [want("a", "203.0.113.1")])
    plan = allocator.apply([replace(want("a"), uid="another", created=5.0)])
    assert shown(plan) == {"a": "203.0.113.0"}


def test_a_late_answer_of_the_watch_changes_nothing() -> None:
    allocator = Allocator([PUBLIC])
    one = want("a")
    assert shown(allocator.apply([one])) == {"a": "203.0.113.0"}
    relabelled = replace(one, labels={"x": "y"})
    assert shown(allocator.apply([relabelled])) == {"a": "203.0.113.0"}
    assert not allocator.apply([replace(relabelled, ingress=addresses("203.0.113.0"))]).assignments


def test_a_plan_is_taken_back_before_the_watch_tells_that_it_was_written() -> None:
    """Else the write under way would leave two Services with one address until the watch is back."""
    allocator = Allocator([pool("one", "203.0.113.0/32")])
    older = want("a", created=1.0, sharing_key="k")
    younger = replace(want("b", created=2.0, sharing_key="k"), ports=frozenset({("TCP", 25)}))
    assert shown(allocator.apply([older, younger])) == {"a": "203.0.113.0", "b": "203.0.113.0"}
    alone = replace(older, annotations={}, ingress=addresses("203.0.113.0"))
    assert shown(allocator.apply([alone])) == {"b": ""}
    assert not allocator.apply([replace(younger, ingress=())]).assignments


def test_a_service_that_waits_for_a_pool_moves_there_when_it_comes() -> None:
    allocator = Allocator([PUBLIC], [want("a", "203.0.113.0", address_pool="late")])
    assert reasons(allocator) == {"a": Trouble.NO_POOL}
    assert shown(allocator) == {"a": "203.0.113.0"}
    plan = allocator.pools_replaced([PUBLIC, pool("late", "198.51.100.0/32")])
    assert shown(plan) == {"a": "198.51.100.0"}
    assert plan.solved == (("Service", "default", "a"),)


def test_many_that_wait_are_served_in_several_turns() -> None:
    waiting = [want(f"s{number:04}", created=number) for number in range(MOST_RETRIES + 100)]
    allocator = Allocator([pool("none", "198.51.100.0/32")], [want("holder", "198.51.100.0"), *waiting])
    asking = [
        replace(one, annotations={"podbgp.dev/sharing-key": "k", "podbgp.dev/addresses": "198.51.100.0"})
        for one in waiting
    ]
    allocator.apply(asking)
    plan = allocator.apply(deleted=[("default", "holder")])
    assert shown(plan) == {"s0000": "198.51.100.0"}
    assert plan.more
    assert not allocator.apply().more
