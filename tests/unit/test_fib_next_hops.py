"""What the agent remembers of next hops, and whom it tells when they resolve differently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from bgpd import fib_sync
from bgpd.config import FibConfig
from bgpd.fib_sync import FibSync
from bgpd.kernel.monitor import Monitor
from bgpd.kernel.netlink import Flushed, KernelSnapshot, Surroundings
from bgpd.meters import Meters
from routes.fib import Applied, Delta, Hop
from routes.next_hop import ForeignRoute, Link, RouteKind
from routes.path import EMPTY_AS_PATH, Origin, Path, PathAttributes, PeerKind, PeerName, Source
from routes.prefix import Address, Prefix, parse_address

LINKS = (Link(2, "eth0", up=True, lower_up=True), Link(3, "eth1", up=True, lower_up=True))
ROUTES = tuple(
    ForeignRoute(Prefix.parse(prefix), 0, 2, RouteKind.UNICAST, (Hop(None, ifindex),))
    for prefix, ifindex in (("192.0.2.0/25", 2), ("192.0.2.128/25", 3))
)
LEFT, RIGHT, NOWHERE = (parse_address(text) for text in ("192.0.2.1", "192.0.2.129", "203.0.113.1"))
SOURCE = Source(PeerName("p"), PeerKind.IBGP, 65000, 1, LEFT)


class FakeKernel:
    """Has the surroundings that the test set."""

    def __init__(self) -> None:
        self.links = LINKS

    def snapshot(self) -> KernelSnapshot:
        return KernelSnapshot({20: {}, 4278198272: {}}, self.links, (), ROUTES)

    def surroundings(self) -> Surroundings:
        return Surroundings(self.links, (), ROUTES)

    def apply(self, _: Delta) -> Applied:
        return Applied()

    def flush(self) -> Flushed:
        return Flushed(0, 0, ())

    def monitor(self) -> Monitor:
        raise NotImplementedError

    def close(self) -> None:
        pass


def path(next_hop: Address) -> Path:
    return Path(Prefix.parse("10.0.0.0/24"), PathAttributes(Origin.IGP, EMPTY_AS_PATH, next_hop), SOURCE)


def told(
    next_hops: Iterable[Address], change: Callable[[FakeKernel, FibConfig], FibConfig]
) -> list[set[Address] | None]:
    """What `on_next_hops` hears when these were asked for and then something changes."""

    async def play() -> list[set[Address] | None]:
        kernel = FakeKernel()
        heard: list[set[Address] | None] = []
        sync = FibSync(kernel, FibConfig(), Meters())
        sync.on_next_hops = heard.append
        sync.options_changed(sync.config)
        await asyncio.sleep(fib_sync.DEBOUNCE * 2)
        for next_hop in next_hops:
            sync.cost(path(next_hop))
        heard.clear()
        sync.options_changed(change(kernel, sync.config))
        await asyncio.sleep(fib_sync.DEBOUNCE * 2)
        await sync.stop(flush=False)
        return heard

    return asyncio.run(play())


def no_carrier(kernel: FakeKernel, config: FibConfig) -> FibConfig:
    kernel.links = (LINKS[0], LINKS[1]._replace(lower_up=False))
    return config


def other_source(_: FakeKernel, config: FibConfig) -> FibConfig:
    return replace(config, preferred_source_ipv4=LEFT)


def nothing(_: FakeKernel, config: FibConfig) -> FibConfig:
    return config


@pytest.mark.parametrize(
    ("change", "expected"),
    [(nothing, []), (no_carrier, [{RIGHT}]), (other_source, [{LEFT, RIGHT}])],
)
def test_whoever_decides_hears_of_next_hops_that_resolve_differently(
    change: Callable[[FakeKernel, FibConfig], FibConfig], expected: list[set[Address] | None]
) -> None:
    assert told((LEFT, RIGHT, NOWHERE), change) == expected


def test_when_next_hops_were_forgotten_everything_is_decided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fib_sync, "MEMO_LIMIT", 2)
    assert told((LEFT, RIGHT, NOWHERE), no_carrier) == [None]
