"""Clients without an entry of their own: which range takes whom, how many, and when they are let go of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from time import process_time
from types import SimpleNamespace
from typing import TypeVar, cast

import pytest

from bgpd.bgp.listener import Listener
from bgpd.client_ranges import LINGER, ClientRanges
from bgpd.config import ClientRange, PeerConfig, SpeakerConfig
from bgpd.daemon import PeerState
from routes.path import PeerKind, PeerName
from routes.peer import Negotiated
from routes.policy import AllowEntry, MaxPrefixes, PeerImport
from routes.prefix import Address, Prefix, parse_address
from routes.route_policy import Action, RoutePolicy
from tests.fakes.reflector_here import client_range, logged

SPEAKER = SpeakerConfig(65000, 1)
WIDE = client_range("192.0.2.0/24")
NARROW = client_range("192.0.2.128/25", max_sessions=2)
V6 = client_range("2001:db8::/64")
UP = cast("Negotiated", object())


class FakeDaemon:
    """Peers that have no sockets."""

    def __init__(self) -> None:
        self.peers: dict[PeerName, PeerState] = {}
        self.keys: dict[Prefix, str] = {}
        self.stale: set[PeerName] = set()
        self.changed: list[PeerConfig] = []
        self.listener = cast("Listener", SimpleNamespace(set_range_keys=self._set_keys))

    def _set_keys(self, keys: dict[Prefix, str]) -> None:
        self.keys = keys

    def add_peer(self, config: PeerConfig) -> PeerState:
        assert config.range, "so that the range's key serves"
        session = SimpleNamespace(config=config, counters=SimpleNamespace(flaps=0))
        state = SimpleNamespace(config=config, session=session, negotiated=None)
        self.peers[config.name] = cast("PeerState", state)
        return self.peers[config.name]

    def remove_peer(self, name: PeerName) -> None:
        del self.peers[name]

    def change_peer(self, config: PeerConfig) -> None:
        self.peers[config.name].config = config
        self.changed.append(config)

    def has_stale(self, name: PeerName) -> bool:
        return name in self.stale


class Story:
    """The ranges, with a clock that the test sets."""

    def __init__(self, *ranges: ClientRange) -> None:
        self.daemon = FakeDaemon()
        self.imports: dict[PeerName, PeerImport] = {}
        self.now = 1000.0
        self.ranges = ClientRanges(ranges, SPEAKER, self.daemon, self.imports)
        self.ranges._loop = cast("asyncio.AbstractEventLoop", SimpleNamespace(time=lambda: self.now))  # noqa: SLF001 - the clock

    def admit(self, text: str) -> PeerConfig | None:
        session = self.ranges.admit(parse_address(text))
        return None if session is None else session.config

    def let_go_after(self, *seconds: float) -> None:
        for each in seconds:
            self.now += each
            self.ranges.let_go()


def told(story: Callable[[], None]) -> None:
    """Run a story inside a loop."""

    async def main() -> None:
        story()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("source", "taken_by"),
    [
        ("192.0.2.1", WIDE),
        ("192.0.2.129", NARROW),
        ("2001:db8::5", V6),
        ("192.0.3.1", None),
        ("2001:db8:1::5", None),
    ],
)
def test_the_most_specific_range_takes_a_stranger(source: str, taken_by: ClientRange | None) -> None:
    def story() -> None:
        here = Story(WIDE, V6, NARROW)
        config = here.admit(source)
        assert (config and config.range) == (taken_by and str(taken_by.range))

    told(story)


def test_what_a_range_says_is_what_its_clients_have() -> None:
    def story() -> None:
        allow, limit = (AllowEntry(Prefix.parse("10.0.0.0/8"), 8, 32),), MaxPrefixes(5)
        here = Story(
            replace(
                WIDE,
                password="key",
                ttl_security=1,
                hold_time=9,
                allow=allow,
                max_prefixes=limit,
                add_paths=3,
            )
        )
        config = here.admit("192.0.2.1")
        assert config is not None
        assert config.passive
        assert config.client
        assert (config.password, config.ttl_security, config.hold_time, config.add_paths) == ("key", 1, 9, 3)
        assert here.imports[config.name] == PeerImport(max_prefixes=limit, allow=allow, trusted=True)
        assert here.daemon.keys == {WIDE.range: "key"}

    told(story)


def test_a_range_of_another_as_has_external_peers_that_need_an_entry() -> None:
    def story() -> None:
        here = Story(replace(WIDE, asn=65001))
        config = here.admit("192.0.2.1")
        assert config is not None
        assert (config.kind, config.client) == (PeerKind.EBGP, False)
        assert not here.imports[config.name].trusted

    told(story)


def test_a_full_range_takes_nobody_until_somebody_is_let_go() -> None:
    def story() -> None:
        here = Story(NARROW, WIDE)
        assert here.admit("192.0.2.129")
        assert here.admit("192.0.2.130")
        with logged() as lines:
            assert here.admit("192.0.2.131") is None
        assert lines
        assert here.admit("192.0.2.1"), "another range is not full"
        here.let_go_after(0, LINGER)
        assert here.daemon.peers == {}
        assert here.imports == {}
        assert here.admit("192.0.2.131")

    told(story)


def test_who_is_up_or_has_stale_paths_is_kept() -> None:
    def story() -> None:
        here = Story(WIDE)
        up, stale, gone = (here.admit(f"192.0.2.{n}") for n in (1, 2, 3))
        assert up and stale and gone  # noqa: PT018 - none is None
        here.daemon.peers[up.name].negotiated = UP
        here.daemon.stale.add(stale.name)
        here.let_go_after(0, LINGER, LINGER)
        assert set(here.daemon.peers) == {up.name, stale.name}
        assert set(here.ranges.alive()) == {up.name, stale.name}

    told(story)


def test_a_client_that_comes_and_goes_is_remembered_with_its_haste() -> None:
    def story() -> None:
        here = Story(WIDE)
        config = here.admit("192.0.2.1")
        assert config is not None
        for _ in range(5):
            here.let_go_after(LINGER / 2)
            here.daemon.peers[config.name].session.counters.flaps += 1
        assert config.name in here.daemon.peers
        here.let_go_after(1, LINGER)
        assert config.name not in here.daemon.peers

    told(story)


C = TypeVar("C", ClientRange, PeerConfig)


def changed(config: C, change: dict[str, object]) -> C:
    return replace(config, **change)  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize("change", [{"hold_time": 9}, {"password": "new"}, {"add_paths": 2}])
def test_what_a_range_says_now_reaches_its_clients_and_removes_no_path(change: dict[str, object]) -> None:
    def story() -> None:
        here = Story(replace(WIDE, password="old"), V6)
        config, other = here.admit("192.0.2.1"), here.admit("2001:db8::5")
        assert config and other  # noqa: PT018 - none is None
        here.ranges.configure([changed(WIDE, {"password": "old", **change}), V6])
        assert here.daemon.changed == [changed(config, change)]
        assert set(here.daemon.peers) == {config.name, other.name}

    told(story)


@pytest.mark.parametrize("ranges", [[V6], [V6, replace(WIDE, asn=65001)]])
def test_clients_of_a_range_that_is_gone_or_another_as_go(ranges: list[ClientRange]) -> None:
    def story() -> None:
        here = Story(WIDE, V6)
        here.admit("192.0.2.1")
        kept = here.admit("2001:db8::5")
        assert kept is not None
        here.ranges.configure(ranges)
        assert set(here.daemon.peers) == {kept.name}

    told(story)


def members(*texts: str) -> frozenset[Address]:
    return frozenset(map(parse_address, texts))


def test_only_members_are_admitted_where_they_are_known() -> None:
    def story() -> None:
        here = Story(replace(WIDE, members=members("192.0.2.1", "192.0.2.2")))
        assert here.admit("192.0.2.1")
        assert here.admit("192.0.2.9") is None
        here.ranges.configure([replace(WIDE, members=frozenset())])
        assert here.daemon.peers == {}
        assert here.admit("192.0.2.1") is None

    told(story)


@pytest.mark.parametrize("before", [None, members("192.0.2.1", "192.0.2.2", "192.0.2.3")])
def test_a_client_that_is_no_member_any_more_is_closed_and_no_other(
    before: frozenset[Address] | None,
) -> None:
    def story() -> None:
        here = Story(replace(WIDE, members=before), V6)
        kept, gone, other = here.admit("192.0.2.1"), here.admit("192.0.2.2"), here.admit("2001:db8::5")
        assert kept and gone and other  # noqa: PT018 - none is None
        here.ranges.configure([replace(WIDE, members=members("192.0.2.1", "192.0.2.3")), V6])
        assert set(here.daemon.peers) == set(here.imports) == {kept.name, other.name}
        assert here.admit("192.0.2.2") is None
        assert here.admit("192.0.2.3")
        here.ranges.configure([WIDE, V6])
        assert here.admit("192.0.2.2")

    told(story)


def test_a_member_more_among_thousands_costs_little() -> None:
    def story() -> None:
        many = [Address(bytes((10, 0, n >> 8, n & 255))) for n in range(5000)]
        wide = client_range("10.0.0.0/16", max_sessions=6000, members=frozenset(many))
        here = Story(wide)
        for address in many:
            assert here.ranges.admit(address)
        took = []
        for gone in many[:5]:
            wide = replace(wide, members=frozenset(many) - {gone})
            many.remove(gone)
            began = process_time()
            here.ranges.configure([wide])
            took.append(process_time() - began)
        assert len(here.daemon.peers) == 4995
        assert min(took) < 0.005, took

    told(story)


def test_other_policies_reach_the_clients_that_are_there_without_a_reset() -> None:
    def story() -> None:
        here = Story(WIDE, V6)
        config, other = here.admit("192.0.2.1"), here.admit("2001:db8::5")
        assert config and other  # noqa: PT018 - none is None
        policy = RoutePolicy("p")
        changed = replace(WIDE, import_policies=("p",), export_policies=("q",))
        here.ranges.configure([changed, V6], lambda names: tuple(policy for _ in names))
        assert here.daemon.changed == [replace(config, import_policies=("p",), export_policies=("q",))]
        assert here.imports[config.name].policies == (policy,)
        assert here.imports[other.name].policies == ()
        again = RoutePolicy("p", default=Action.ACCEPT)
        here.ranges.configure([changed, V6], lambda names: tuple(again for _ in names))
        assert here.imports[config.name].policies == (again,)
        assert len(here.daemon.changed) == 1, "its names are the same"

    told(story)
