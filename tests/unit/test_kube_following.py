"""Tables that watches feed, when the API server says that there is nothing any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from bgpd.kube import resources
from bgpd.kube.client import KubeClient
from bgpd.kube.custom_values import BgpPeer
from bgpd.kube.following import STALE_AFTER, Following, News, Table
from bgpd.kube.known_nodes import keep_addresses
from bgpd.kube.objects import Node
from bgpd.kube.watch import Batch, Pace
from bgpd.lab.stand_in_api_server import Instead, StandInApiServer
from routes.prefix import parse_address

GROUP = "podbgp.dev/v1alpha1"
PACE = Pace(first_wait=0.05, longest_wait=0.2, longest_wait_away=0.2, between_lists=0.1)
NOTHING = b'{"kind":"%sList","apiVersion":"v1","metadata":{"resourceVersion":"90"},"items":[]}'


def peer(name: str) -> dict[str, object]:
    spec = {"address": "192.0.2.1", "asn": 64512}
    return {"apiVersion": GROUP, "kind": "BGPPeer", "metadata": {"name": name}, "spec": spec}


def cluster() -> dict[str, object]:
    spec = {"asn": 65000, "topology": "mesh", "podCIDRs": ["10.244.0.0/16"]}
    return {"apiVersion": GROUP, "kind": "BGPCluster", "metadata": {"name": "default"}, "spec": spec}


async def until(good: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not good():  # noqa: ASYNC110  another thread makes it so
            await asyncio.sleep(0.01)


Story = Callable[[StandInApiServer, Following, Table[BgpPeer]], Coroutine[None, None, None]]


def told(tmp_path: Path, story: Story) -> None:
    """Tell a story of a process that follows BGPPeers a and b."""

    async def run(server: StandInApiServer) -> None:
        server.create_many([cluster(), peer("a"), peer("b")])
        client = KubeClient.load(server.kubeconfig(tmp_path / "kubeconfig"))
        following = Following(client, asyncio.get_running_loop(), PACE, witness=resources.has_cluster)
        try:
            table = following.follow(resources.PEERS, lambda _: None)
            await until(lambda: len(table.values) == 2)
            await story(server, following, table)
        finally:
            following.close()

    with StandInApiServer() as server:
        asyncio.run(run(server))


def names(table: Table[BgpPeer]) -> list[str]:
    return [each.name for each in table.in_order()]


def say_nothing(server: StandInApiServer) -> None:
    for path, kind in (("/bgppeers?", b"BGPPeer"), ("/bgpclusters?", b"BGPCluster")):
        server.faults.answer_next(Instead(200, NOTHING % kind), count=1000, matching=path)
    server.expire_watches()


def test_nothing_of_anything_is_believed_of_nothing(tmp_path: Path) -> None:
    async def story(server: StandInApiServer, _: Following, table: Table[BgpPeer]) -> None:
        say_nothing(server)
        await until(lambda: len(table.doubted) == 2)
        await asyncio.sleep(1.0)
        assert names(table) == ["a", "b"]
        server.delete("BGPPeer", "a")
        server.faults.clear()
        await until(lambda: names(table) == ["b"] and not table.doubted)

    told(tmp_path, story)


def test_the_last_one_goes_when_the_api_server_has_its_data(tmp_path: Path) -> None:
    async def story(server: StandInApiServer, _: Following, table: Table[BgpPeer]) -> None:
        server.down()
        server.delete("BGPPeer", "a")
        server.delete("BGPPeer", "b")
        server.forget_history()
        server.up()
        await until(lambda: not table.values)

    told(tmp_path, story)


def test_events_that_delete_the_last_one_are_believed_at_once(tmp_path: Path) -> None:
    async def story(server: StandInApiServer, _: Following, table: Table[BgpPeer]) -> None:
        server.delete("BGPCluster", "default")
        server.delete("BGPPeer", "a")
        server.delete("BGPPeer", "b")
        await until(lambda: not table.values)
        assert not table.doubted

    told(tmp_path, story)


def test_an_api_server_that_flaps_leaves_no_thread_and_no_socket_behind(tmp_path: Path) -> None:
    async def story(server: StandInApiServer, following: Following, table: Table[BgpPeer]) -> None:
        before = threading.active_count()
        for number in range(15):
            extra = following.follow(resources.POOLS, lambda _: None)
            server.cut_streams() if number % 2 else server.expire_watches()
            await asyncio.sleep(0.03)
            following.drop(extra)
        await until(lambda: server.watches == 1)
        workers = 8  # of the loop's executor, which end the watches
        await until(lambda: threading.active_count() <= before + workers)
        server.create(peer("c"))
        await until(lambda: names(table) == ["a", "b", "c"])

    told(tmp_path, story)


def test_what_was_on_its_way_when_a_table_was_dropped_is_nobodys(tmp_path: Path) -> None:
    async def story(_: StandInApiServer, following: Following, table: Table[BgpPeer]) -> None:
        (first, *_rest) = table.in_order()
        following.drop(table)
        table.take(Batch(deleted=(first,)))
        assert len(table.values) == 2

    told(tmp_path, story)


def test_how_old_the_news_are_and_why(tmp_path: Path) -> None:
    async def story(server: StandInApiServer, following: Following, _: Table[BgpPeer]) -> None:
        assert following.news() == News(synced=True, age=0.0, error="", malformed=())
        server.down()
        begun = time.monotonic()
        await until(lambda: following.news().age > 0.5)
        news = following.news()
        assert news.error
        assert news.age < time.monotonic() - begun + 1.0
        server.up()
        await until(lambda: not following.news().error)

    told(tmp_path, story)


@pytest.mark.parametrize(
    ("age", "error", "stale"), [(STALE_AFTER, "", False), (1.0, "away", False), (STALE_AFTER, "away", True)]
)
def test_a_moment_without_news_is_nobodys_business(age: float, error: str, stale: bool) -> None:
    assert News(synced=True, age=age, error=error, malformed=()).stale is stale


def test_a_node_without_addresses_keeps_its_last_ones() -> None:
    one, other = parse_address("192.0.2.1"), parse_address("192.0.2.2")
    table: Table[Node] = Table(lambda _: None, keep_addresses)
    for addresses, expected, problems in (
        ((one,), (one,), 0),
        ((), (one,), 1),
        ((), (one,), 1),
        ((other,), (other,), 0),
    ):
        table.take(Batch(changed=(Node("node1", "uid1", addresses=addresses),)))
        (node,) = table.values.values()
        assert (node.addresses, len(node.problems)) == (expected, problems)
