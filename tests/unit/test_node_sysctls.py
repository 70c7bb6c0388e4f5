"""Kernel parameters: which are needed, which are left alone, and what a host that refuses is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bgpd.kernel.host_checks import proc_path
from bgpd.node.sysctls import Outcome, State, Sysctl, apply, check, needed, run
from routes.prefix import Family

BOTH = tuple(Family)
FRESH = {
    "ipv4.ip_forward": 0,
    "ipv4.conf.all.rp_filter": 0,
    "ipv4.conf.eth1/5.rp_filter": 0,
    "ipv4.nexthop_compat_mode": 1,
    "ipv4.fib_multipath_hash_policy": 0,
    "ipv4.conf.all.ignore_routes_with_linkdown": 0,
    "ipv4.neigh.default.gc_thresh1": 128,
    "ipv4.neigh.default.gc_thresh2": 512,
    "ipv4.neigh.default.gc_thresh3": 1024,
    "ipv6.conf.all.forwarding": 0,
    "ipv6.conf.eth1/5.accept_ra": 1,
    "ipv6.fib_multipath_hash_policy": 0,
    "ipv6.conf.all.ignore_routes_with_linkdown": 0,
    "ipv6.route.max_size": 4096,
    "ipv6.neigh.default.gc_thresh1": 128,
    "ipv6.neigh.default.gc_thresh2": 512,
    "ipv6.neigh.default.gc_thresh3": 1024,
}


def host(root: Path, **changed: int) -> Path:
    """A /proc/sys/net."""
    for key, value in (FRESH | changed).items():
        path = root / proc_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def by_state(outcomes: tuple[Outcome, ...], state: State) -> list[str]:
    return [outcome.sysctl.name for outcome in outcomes if outcome.state is state]


def test_a_fresh_host_is_made_a_router_and_only_once(tmp_path: Path) -> None:
    sysctls = needed(3, BOTH, ["eth1.5"])
    root = host(tmp_path)
    assert by_state(check(sysctls, root), State.WRONG)
    first = apply(sysctls, root)
    assert not by_state(first, State.REFUSED)
    assert not by_state(first, State.ABSENT)
    assert (root / "ipv4/ip_forward").read_text() == "1\n"
    assert (root / "ipv6/conf/eth1.5/accept_ra").read_text() == "2\n"
    assert {outcome.state for outcome in apply(sysctls, root)} == {State.RIGHT}


def test_router_advertisements_are_kept_before_forwarding_would_drop_their_routes() -> None:
    names = [sysctl.name for sysctl in needed(3, BOTH, ["eth0"])]
    assert names.index("net.ipv6.conf.eth0.accept_ra") < names.index("net.ipv6.conf.all.forwarding")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ipv4.conf.all.rp_filter", 0),
        ("ipv4.conf.all.rp_filter", 2),
        ("ipv6.conf.eth1/5.accept_ra", 0),
        ("ipv4.fib_multipath_hash_policy", 3),
        ("ipv4.neigh.default.gc_thresh3", 1 << 20),
    ],
)
def test_what_is_as_good_stays(tmp_path: Path, key: str, value: int) -> None:
    root = host(tmp_path, **{key: value})
    apply(needed(3, BOTH, ["eth1.5"]), root)
    assert int((root / proc_path(key)).read_text()) == value


@pytest.mark.parametrize(
    ("every", "link", "set_to"), [(1, 0, (2, 0)), (0, 1, (0, 2)), (1, 1, (2, 1)), (2, 1, (2, 1))]
)
def test_no_uplink_checks_reverse_paths_strictly(
    tmp_path: Path, every: int, link: int, set_to: tuple[int, int]
) -> None:
    """The higher of `all` and the link's own value counts."""
    keys = ("ipv4.conf.all.rp_filter", "ipv4.conf.eth1/5.rp_filter")
    root = host(tmp_path, **dict(zip(keys, (every, link), strict=True)))
    apply(needed(3, BOTH, ["eth1.5"]), root)
    assert tuple(int((root / proc_path(key)).read_text()) for key in keys) == set_to


@pytest.mark.parametrize(("nodes", "limits"), [(1, (256, 512, 1024)), (5_000, (4096, 8192, 16384))])
def test_the_neighbour_table_grows_with_the_cluster(nodes: int, limits: tuple[int, int, int]) -> None:
    found = {sysctl.name: sysctl.value for sysctl in needed(nodes, BOTH)}
    for family in BOTH:
        assert tuple(found[f"net.{family}.neigh.default.gc_thresh{number}"] for number in (1, 2, 3)) == limits


def test_one_family_is_left_alone_where_it_is_not_used() -> None:
    assert not [sysctl for sysctl in needed(3, [Family.IPV4], ["eth0"]) if "ipv6" in sysctl.name]
    names = [sysctl.name for sysctl in needed(3, BOTH, bridge=True)]
    assert names.count("net.bridge.bridge-nf-call-iptables") == 1
    assert names.count("net.bridge.bridge-nf-call-ip6tables") == 1


def test_a_host_that_refuses_is_told_the_command(tmp_path: Path) -> None:
    """As in an unprivileged container, where /proc/sys is read-only: nobody may write this one."""
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "ipv4/ip_forward").symlink_to("/proc/sys/kernel/ngroups_max")
    (outcome,) = apply([Sysctl("net.ipv4.ip_forward", 1, "packets of pods are forwarded")], tmp_path)
    assert (outcome.state, outcome.before) == (State.REFUSED, "65536")
    assert "(Permission denied)" in outcome.sentence
    assert "sysctl -w net.ipv4.ip_forward=1: packets of pods are forwarded" in outcome.sentence


def test_the_command_says_what_is_wrong_and_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    possible = Sysctl("net.ipv4.ip_forward", 0, "read only", at_least=True)
    never = Sysctl("net.ipv4.ip_forward", 7, "no kernel has this")
    absent = Sysctl("net.ipv4.no_such_thing", 1, "")
    assert run([possible, absent]) == 0
    assert run([possible, never], output="json") == 1
    shown = capsys.readouterr().out
    assert "absent   net.ipv4.no_such_thing: not here" in shown
    parsed = json.loads(shown[shown.index("[") :])
    assert [each["state"] for each in parsed] == ["right", "wrong"]
    assert parsed[1]["needed"] == 7
