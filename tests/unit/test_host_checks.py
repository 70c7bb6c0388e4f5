"""Host settings: what is said of each, and that the advice mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgpd.kernel.host_checks import Usage, judge, read_settings
from routes.prefix import Family

BOTH = frozenset(Family)
GOOD = {
    "ipv4.ip_forward": 1,
    "ipv6.conf.all.forwarding": 1,
    "ipv4.conf.all.rp_filter": 0,
    "ipv4.conf.all.ignore_routes_with_linkdown": 1,
    "ipv6.conf.all.ignore_routes_with_linkdown": 1,
    "ipv4.fib_multipath_hash_policy": 1,
    "ipv6.fib_multipath_hash_policy": 1,
    "ipv4.neigh.default.gc_thresh3": 1024,
    "ipv6.neigh.default.gc_thresh3": 1024,
}
USAGE = Usage(BOTH, ("eth0", "eth1.5"), 2, {Family.IPV4: 4, Family.IPV6: 4})


def test_a_good_host_has_no_warnings() -> None:
    assert judge(GOOD, USAGE) == []
    assert judge({}, USAGE) == [], "what a kernel does not have can't be wrong"


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("ipv4.ip_forward", 0, "sysctl -w net.ipv4.ip_forward=1"),
        ("ipv6.conf.all.forwarding", 0, "sysctl -w net.ipv6.conf.all.forwarding=1"),
        ("ipv4.conf.all.rp_filter", 1, "sysctl -w net.ipv4.conf.all.rp_filter=2"),
        ("ipv4.conf.eth1/5.rp_filter", 1, "sysctl -w net.ipv4.conf.all.rp_filter=2"),
        (
            "ipv4.conf.all.ignore_routes_with_linkdown",
            0,
            "sysctl -w net.ipv4.conf.all.ignore_routes_with_linkdown=1",
        ),
        (
            "ipv6.conf.all.ignore_routes_with_linkdown",
            0,
            "sysctl -w net.ipv6.conf.all.ignore_routes_with_linkdown=1",
        ),
        ("ipv4.fib_multipath_hash_policy", 0, "sysctl -w net.ipv4.fib_multipath_hash_policy=1"),
        ("ipv6.fib_multipath_hash_policy", 0, "sysctl -w net.ipv6.fib_multipath_hash_policy=1"),
        ("ipv4.neigh.default.gc_thresh3", 7, "sysctl -w net.ipv4.neigh.default.gc_thresh3=8"),
        ("ipv6.neigh.default.gc_thresh3", 4, "sysctl -w net.ipv6.neigh.default.gc_thresh3=8"),
    ],
)
def test_each_setting_is_judged_and_mended(key: str, value: int, advice: str) -> None:
    (warning,) = judge({**GOOD, key: value}, USAGE)
    assert warning.advice == advice
    assert f"= {value}" in warning.value
    mended, to = advice.removeprefix("sysctl -w net.").split("=")
    assert judge({**GOOD, key: value, mended: int(to)}, USAGE) == []


@pytest.mark.parametrize(
    ("key", "value", "usage"),
    [
        ("ipv6.conf.all.forwarding", 0, USAGE._replace(families=frozenset((Family.IPV4,)))),
        ("ipv4.conf.all.rp_filter", 2, USAGE),
        ("ipv4.conf.all.rp_filter", 1, USAGE._replace(links=("eth0",))),
        ("ipv4.conf.all.rp_filter", 1, USAGE._replace(multipath=1)),
        ("ipv4.fib_multipath_hash_policy", 0, USAGE._replace(multipath=1)),
        ("ipv4.neigh.default.gc_thresh3", 8, USAGE),
    ],
)
def test_what_does_no_harm_is_not_mentioned(key: str, value: int, usage: Usage) -> None:
    assert judge({**GOOD, key: value}, usage) == []


def test_settings_of_the_links_themselves_count() -> None:
    links = {f"ipv4.conf.{link}.ignore_routes_with_linkdown": 1 for link in ("eth0", "eth1/5")}
    assert judge({**GOOD, "ipv4.conf.all.ignore_routes_with_linkdown": 0, **links}, USAGE) == []


def test_settings_are_read_and_what_is_missing_is_left_out(tmp_path: Path) -> None:
    for path, text in {
        "ipv4/ip_forward": "0\n",
        "ipv4/conf/eth1.5/rp_filter": "1\n",
        "ipv4/fib_multipath_hash_policy": "no number",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert read_settings(("eth1.5",), tmp_path) == {"ipv4.ip_forward": 0, "ipv4.conf.eth1/5.rp_filter": 1}


def test_this_host_can_be_read() -> None:
    assert {"ipv4.ip_forward", "ipv4.neigh.default.gc_thresh3"} <= read_settings(("lo",)).keys()
