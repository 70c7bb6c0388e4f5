"""The harness itself: the daemons peer with each other, and what one announces the other shows.

If one of these fails, an interop test of ours that uses the same daemon says nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.conftest import MakeSpeaker
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import Announcement, Neighbor, SeenPath, Speaker

PAIRS = [("frr", "bird"), ("bird", "gobgp"), ("gobgp", "openbgpd"), ("openbgpd", "frr")]
PREFIXES = {"ipv4": "10.1.0.0/24", "ipv6": "fd00:1::/64"}


def peer(
    make: MakeSpeaker,
    lan: list[LanHost],
    daemons: tuple[str, str],
    family: str,
    *,
    ibgp: bool,
    password: str = "",
) -> tuple[Speaker, Speaker]:
    """Two daemons with an established session; neither announces anything yet."""
    asns = (65001, 65001 if ibgp else 65002)
    left, right = (
        make(
            daemons[own],
            lan[own],
            asns[own],
            Neighbor(
                lan[other].address(family),
                asns[other],
                lan[own].address(family),
                families=(family,),
                password=password,
                ttl_security=bool(password),
            ),
        )
        for own, other in ((0, 1), (1, 0))
    )
    left.start()
    right.start()
    left.wait_established()
    right.wait_established()
    return left, right


@pytest.mark.parametrize(
    ("family", "ibgp"), [("ipv4", False), ("ipv6", True)], ids=["ebgp-ipv4", "ibgp-ipv6"]
)
@pytest.mark.parametrize("daemons", PAIRS, ids="-".join)
def test_what_one_announces_the_other_shows(
    make_speaker: MakeSpeaker, lan: list[LanHost], daemons: tuple[str, str], family: str, ibgp: bool
) -> None:
    left, right = peer(make_speaker, lan, daemons, family, ibgp=ibgp)
    prefix = PREFIXES[family]
    for source, sink, host in ((left, right, lan[0]), (right, left, lan[1])):
        source.announce(
            Announcement(prefix, med=5, communities=("65000:1",), large_communities=("65000:1:2",))
        )
        path = sink.wait_best(prefix, from_neighbor(host.address(family)))
        assert path.as_path == (() if ibgp else (source.asn,))
        assert (path.med, path.communities) == (5, frozenset({"65000:1"}))
        assert (path.large_communities, path.origin) == (frozenset({"65000:1:2"}), "igp")

        source.announce(Announcement(prefix, med=6))
        assert sink.wait_best(prefix, lambda seen: seen.med == 6).communities == frozenset()

        source.withdraw(prefix)
        sink.wait_gone(prefix)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_passwords_and_ttl_security(make_speaker: MakeSpeaker, lan: list[LanHost], family: str) -> None:
    left, right = peer(make_speaker, lan, ("frr", "bird"), family, ibgp=False, password="sesame")
    left.announce(Announcement(PREFIXES[family]))
    assert right.wait_best(PREFIXES[family]).next_hop == lan[0].address(family)


def from_neighbor(address: str) -> Callable[[SeenPath], bool]:
    """Whether a path leads to this address."""

    def is_from(path: SeenPath) -> bool:
        return path.next_hop == address

    return is_from
