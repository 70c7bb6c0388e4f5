"""The real server on a real socket, over a fake daemon: what clients get, and what they can't do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice

import grpc
import pytest

from api.call import Bounds
from api.client import Client, ClientError, RoutesChanged, UnreachableError
from api.server import MAX_CONNECTIONS
from api.v1 import peer_pb2, route_pb2
from api.v1.peer_pb2_grpc import PeerServiceStub
from api.v1.route_pb2_grpc import RouteServiceStub
from routes.path import PeerName
from routes.peer import SessionState
from routes.prefix import Family, Prefix
from routes.view import Gate, Match, RouteChange, RouteQuery, Table
from tests.fakes.fake_daemon_view import (
    FakeDaemonView,
    ServedView,
    fib_view,
    path_view,
    peer_status,
    served,
)

LOC = RouteQuery(Table.LOC_RIB)
EVERYTHING = [
    "10.244.0.0/16",
    "10.244.1.0/24",
    "10.244.1.128/25",
    "10.244.2.0/24",
    "fd00:10:244::/48",
    "fd00:10:244:1::/64",
]


def prefix(text: str) -> Prefix:
    return Prefix.parse(text)


@pytest.fixture
def daemon() -> Iterator[ServedView]:
    view = FakeDaemonView()
    for nlri in reversed(EVERYTHING):
        view.put(Table.LOC_RIB, path_view(nlri))
    view.put(
        Table.ADJ_IN_PRE, path_view("10.244.1.0/24"), path_view("10.244.1.0/24", "192.0.2.2", best=False)
    )
    view.put(Table.ADJ_IN_PRE, path_view("0.0.0.0/0", best=False, reason="refused: a default route"))
    view.put(Table.ADJ_OUT, replace(path_view("10.244.9.0/24"), to=PeerName("192.0.2.2")))
    view.install(fib_view("10.244.1.0/24"), fib_view("10.244.9.0/24", None))
    for name in ("192.0.2.1", "192.0.2.2"):
        view.set_peer(peer_status(name))
    with served(view) as it:
        yield it


@pytest.fixture
def client(daemon: ServedView) -> Iterator[Client]:
    with Client(daemon.api) as it:
        yield it


def names(client: Client, query: RouteQuery) -> list[str]:
    return [str(view.path.nlri) for view in client.paths(query)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (LOC, EVERYTHING),
        (replace(LOC, family=Family.IPV6), EVERYTHING[4:]),
        (replace(LOC, prefix=prefix("10.244.1.0/24")), ["10.244.1.0/24"]),
        (replace(LOC, prefix=prefix("10.244.3.0/24")), []),
        (replace(LOC, prefix=prefix("10.244.1.0/24"), match=Match.LONGER), EVERYTHING[1:3]),
        (replace(LOC, prefix=prefix("10.244.1.0/24"), match=Match.SHORTER), EVERYTHING[:2]),
        (replace(LOC, prefix=prefix("10.244.1.200/32"), match=Match.LONGEST), ["10.244.1.128/25"]),
        (replace(LOC, prefix=prefix("10.244.3.1/32"), match=Match.LONGEST), ["10.244.0.0/16"]),
        (replace(LOC, peer=PeerName("192.0.2.2")), []),
        (replace(LOC, peer=PeerName("192.0.2.1"), family=Family.IPV6), EVERYTHING[4:]),
        (RouteQuery(Table.ADJ_IN_PRE, peer=PeerName("192.0.2.2")), ["10.244.1.0/24"]),
        (RouteQuery(Table.ADJ_OUT, peer=PeerName("192.0.2.2")), ["10.244.9.0/24"]),
        (RouteQuery(Table.ADJ_OUT, peer=PeerName("192.0.2.1")), []),
        (RouteQuery(Table.ADJ_IN_POST), []),
    ],
)
def test_filters_select(client: Client, query: RouteQuery, expected: list[str]) -> None:
    assert names(client, query) == expected


def test_the_fib_is_listed_with_its_next_hops(daemon: ServedView, client: Client) -> None:
    assert list(client.fib()) == [view for views in daemon.view.entries.values() for view in views]


def test_a_path_arrives_as_it_was(daemon: ServedView, client: Client) -> None:
    query = RouteQuery(Table.ADJ_IN_PRE, prefix=prefix("0.0.0.0/0"))
    assert list(client.paths(query)) == daemon.view.tables[Table.ADJ_IN_PRE][prefix("0.0.0.0/0")]


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_pages_add_up_to_the_whole_and_survive_removals(
    daemon: ServedView, client: Client, size: int
) -> None:
    seen: list[str] = []
    token = ""
    while True:
        paths, _, token = client.page(LOC, size, token)
        seen += [str(view.path.nlri) for view in paths]
        if not token:
            break
        # The prefix where the next page begins may be gone by then.
        if seen[-1] in map(str, daemon.view.tables[Table.LOC_RIB]):
            daemon.run(partial(daemon.view.drop, Table.LOC_RIB, seen[-1]))
    assert seen == EVERYTHING


def test_a_page_never_cuts_a_prefix_in_two(client: Client) -> None:
    paths, _, token = client.page(RouteQuery(Table.ADJ_IN_PRE, after=None), 2)
    assert [str(view.path.nlri) for view in paths] == ["0.0.0.0/0", "10.244.1.0/24", "10.244.1.0/24"]
    assert token == ""


def filtered(**fields: object) -> route_pb2.ListRoutesRequest:
    return route_pb2.ListRoutesRequest(filter=route_pb2.RouteFilter(**fields))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (filtered(table=9), "filter.table: 9 is unknown; valid are TABLE_ADJ_IN_PRE, "),
        (filtered(match=7, prefix="10.0.0.0/8"), "filter.match: 7 is unknown; valid are MATCH_EXACT, "),
        (filtered(match=2), "filter.match: MATCH_LONGER needs filter.prefix"),
        (filtered(family=3), "filter.family: 3 is unknown; valid are FAMILY_IPV4, FAMILY_IPV6"),
        (filtered(family=2, prefix="10.0.0.0/8"), "filter.family: ipv6 never holds filter.prefix 10.0.0.0/8"),
        (filtered(prefix="10.0.0.1/8"), "filter.prefix: '10.0.0.1/8' is neither prefix nor address ("),
        (filtered(prefix="fe80::1%eth0"), "a zone is no part of a route"),
        (filtered(prefix="x" * 9000), "... is no prefix: at most 64 characters are valid"),
        (filtered(table=5, peer="192.0.2.1"), "filter.peer: '192.0.2.1' selects nothing: the FIB"),
        (route_pb2.ListRoutesRequest(page_token="zzz"), "page_token: 'zzz' is neither"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_name(
    daemon: ServedView, request_: route_pb2.ListRoutesRequest, sentence: str
) -> None:
    with grpc.insecure_channel(daemon.api) as channel, pytest.raises(grpc.RpcError) as caught:
        list(RouteServiceStub(channel).ListRoutes(request_))
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("call", "code", "sentence"),
    [
        (lambda c: c.explain(""), grpc.StatusCode.INVALID_ARGUMENT, "target: is missing"),
        (lambda c: c.explain("pod"), grpc.StatusCode.INVALID_ARGUMENT, "target: 'pod' is neither"),
        (lambda c: c.shutdown(message="ä" * 128), grpc.StatusCode.INVALID_ARGUMENT, "message: has 256 bytes"),
        (lambda c: c.peers("192.0.2.9"), grpc.StatusCode.NOT_FOUND, "the peers are 192.0.2.1, 192.0.2.2"),
        (
            lambda c: next(c.watch_routes(replace(LOC, prefix=prefix("10.0.0.1/32"), match=Match.LONGEST))),
            grpc.StatusCode.INVALID_ARGUMENT,
            "MATCH_LONGEST can't be watched",
        ),
        (
            lambda c: list(c.paths(RouteQuery(Table.ADJ_OUT, peer=PeerName("local")))),
            grpc.StatusCode.NOT_FOUND,
            "filter.peer: 'local' is not configured",
        ),
    ],
)
def test_calls_that_can_not_be_answered_say_why(
    client: Client, call: Callable[[Client], object], code: grpc.StatusCode, sentence: str
) -> None:
    with pytest.raises(ClientError, match=sentence) as caught:
        call(client)
    assert caught.value.code is code


def test_peers_are_listed_one_or_all(daemon: ServedView, client: Client) -> None:
    assert client.peers() == list(daemon.view.peer_statuses.values())
    assert client.peers("192.0.2.2") == [daemon.view.peer_statuses[PeerName("192.0.2.2")]]


def test_an_address_is_explained_by_its_longest_match_and_a_prefix_by_itself(client: Client) -> None:
    address, exact, nothing = (
        client.explain("10.244.1.7"),
        client.explain("10.244.1.0/24"),
        client.explain("10.3.0.0/16"),
    )
    assert (address.nlri, address.failed, len(address.paths)) == (prefix("10.244.1.0/24"), None, 2)
    assert exact.target == prefix("10.244.1.0/24")
    assert (nothing.nlri, nothing.failed) == (None, Gate.ANNOUNCED)
    assert client.explain("8.8.8.8").failed is Gate.IMPORT


def test_status_arrives_as_it_was(daemon: ServedView, client: Client) -> None:
    assert client.status() == daemon.view.status()


def test_shutdown_reaches_the_daemon_and_reports(daemon: ServedView, client: Client) -> None:
    assert client.shutdown(flush=True, message="maintenance").entries_removed == 3
    assert daemon.view.shutdowns == [(True, "maintenance")]


def test_a_watch_is_a_snapshot_a_mark_and_then_changes(daemon: ServedView, client: Client) -> None:
    watch = client.watch_routes(LOC)
    snapshot = until_mark(watch)
    assert [str(change.nlri) for change in snapshot] == EVERYTHING
    daemon.run(lambda: daemon.view.put(Table.LOC_RIB, path_view("10.244.7.0/24")))
    assert states(next(watch)) == {"10.244.7.0/24": 1}
    daemon.run(lambda: daemon.view.drop(Table.LOC_RIB, "10.244.7.0/24"))
    assert states(next(watch)) == {"10.244.7.0/24": 0}
    daemon.run(
        lambda: daemon.view.put(
            Table.LOC_RIB, path_view("10.244.8.0/24"), path_view("10.244.8.0/24", "192.0.2.2")
        )
    )
    assert states(next(watch)) == {"10.244.8.0/24": 2}, "two changes of one prefix are one state"


def until_mark(watch: Iterator[RoutesChanged]) -> list[RouteChange]:
    seen: list[RouteChange] = []
    for event in watch:
        if event.end_of_snapshot:
            return seen
        seen += event.changes
    raise AssertionError("the watch ended before its mark")


def states(event: RoutesChanged) -> dict[str, int]:
    return {str(change.nlri): len(change.paths) + len(change.fib) for change in event.changes}


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (replace(LOC, prefix=prefix("10.244.0.0/16"), match=Match.LONGER), {"10.244.7.0/24": 1}),
        (replace(LOC, family=Family.IPV6), {"fd00:10:244:7::/64": 1}),
        (replace(LOC, peer=PeerName("192.0.2.2")), {"192.168.0.0/16": 1}),
    ],
)
def test_a_watch_hears_only_what_its_filter_selects(
    daemon: ServedView, client: Client, query: RouteQuery, told: dict[str, int]
) -> None:
    watch = client.watch_routes(query)
    until_mark(watch)
    news = [
        path_view("172.16.0.0/12"),
        path_view("10.244.7.0/24"),
        path_view("fd00:10:244:7::/64"),
        path_view("192.168.0.0/16", "192.0.2.2"),
    ]
    daemon.run(lambda: daemon.view.put(Table.LOC_RIB, *news))
    assert states(next(watch)) == told


def test_the_fib_can_be_watched(daemon: ServedView, client: Client) -> None:
    watch = client.watch_routes(RouteQuery(Table.FIB))
    assert len(until_mark(watch)) == 2
    daemon.run(lambda: daemon.view.install(fib_view("10.244.7.0/24", reason="the kernel refused it")))
    (change,) = next(watch).changes
    assert change.fib[0].reason == "the kernel refused it"


def test_peers_can_be_watched_until_they_are_removed(daemon: ServedView, client: Client) -> None:
    watch = client.watch_peers()
    first, mark = islice(watch, 2)
    assert [peer.name for peer in first.peers] == ["192.0.2.1", "192.0.2.2"]
    assert mark.end_of_snapshot
    daemon.run(lambda: daemon.view.set_peer(peer_status("192.0.2.2", SessionState.ACTIVE)))
    assert [peer.state for peer in next(watch).peers] == [SessionState.ACTIVE]
    daemon.run(lambda: daemon.view.remove_peer("192.0.2.2"))
    assert next(watch).removed == ("192.0.2.2",)


def test_a_watch_ends_with_a_reason_when_the_server_stops(daemon: ServedView, client: Client) -> None:
    watch = client.watch_routes(LOC)
    until_mark(watch)
    daemon.stop()
    with pytest.raises(ClientError, match="the daemon is shutting down"):
        list(watch)


def test_nobody_there_is_said_so(daemon: ServedView) -> None:
    daemon.stop()
    with (
        Client(daemon.api) as client,
        pytest.raises(UnreachableError, match="cannot reach podbgpd at unix:///"),
    ):
        client.status()


BIG = [path_view(f"10.{i >> 8}.{i & 255}.0/24") for i in range(20_000)]


def big_view() -> FakeDaemonView:
    view = FakeDaemonView()
    view.put(Table.LOC_RIB, *BIG)
    return view


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for 10 s"
        time.sleep(0.01)


def test_a_watcher_with_too_much_waiting_is_ended_and_forgotten() -> None:
    view = big_view()
    with served(view, Bounds(pending=100)) as daemon, Client(daemon.api) as client:
        watch = client.watch_routes(LOC)
        next(watch)  # and then it reads no more, while the snapshot fills its window
        feed = view.route_feed(Table.LOC_RIB)
        daemon.run(lambda: feed.publish(view.path.nlri for view in BIG))
        with pytest.raises(
            ClientError, match="more than 100 changes were waiting for this watcher"
        ) as caught:
            list(watch)
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        wait_until(lambda: not feed)


def test_a_client_that_takes_nothing_is_ended_and_holds_nothing() -> None:
    view = big_view()
    for i in range(40_000):
        view.put(Table.LOC_RIB, path_view(f"100.{64 + (i >> 10)}.{(i >> 2) & 255}.{(i & 3) << 6}/26"))
    with served(view, Bounds(stall_time=0.3, watches=1)) as daemon, Client(daemon.api) as client:
        stalled = client.watch_routes(LOC)
        next(stalled)
        wait_until(lambda: not view.route_feed(Table.LOC_RIB))
        other = client.watch_routes(replace(LOC, family=Family.IPV6))
        assert next(other).end_of_snapshot, "its place was free again, although it has not read its status"
        with pytest.raises(ClientError, match=r"the client took nothing for 0\.3 s"):
            list(stalled)


def test_the_number_of_watches_is_bounded() -> None:
    with served(FakeDaemonView(), Bounds(watches=2)) as daemon, Client(daemon.api) as client:
        routes, peers = client.watch_routes(LOC), client.watch_peers()
        assert next(routes).end_of_snapshot
        assert next(peers).end_of_snapshot
        with pytest.raises(ClientError, match="2 watches are open") as caught:
            next(client.watch_peers())
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        peers.close()
        wait_until(lambda: not daemon.view.peer_feed())
        assert next(client.watch_peers()).end_of_snapshot


def test_20_000_routes_are_listed_in_seconds() -> None:
    with served(big_view()) as daemon, Client(daemon.api) as client:
        start = time.monotonic()
        assert sum(1 for _ in client.paths(LOC)) == 20_000
        assert time.monotonic() - start < 5, "about 1 s on two cores; this bound only catches a collapse"


def test_connections_that_say_nothing_are_bounded_and_leave_room_when_they_go() -> None:
    with served(FakeDaemonView()) as daemon, ExitStack() as silent:
        path = daemon.api.removeprefix("unix://")
        for _ in range(MAX_CONNECTIONS):
            one = silent.enter_context(socket.socket(socket.AF_UNIX))
            one.settimeout(5)
            one.connect(path)
        with Client(daemon.api) as client, pytest.raises(UnreachableError):
            client.status()
        silent.close()
        wait_until(lambda: can_be_reached(daemon))


def can_be_reached(daemon: ServedView) -> bool:
    with Client(daemon.api) as client:
        try:
            return client.status().role == "agent"
        except UnreachableError:
            return False


def test_a_peer_that_changes_all_the_time_is_told_a_few_times_with_its_last_state(
    daemon: ServedView, client: Client
) -> None:
    events = client.watch_peers("192.0.2.1")
    while not next(events).end_of_snapshot:
        pass
    began = time.monotonic()
    for number in range(500):
        daemon.run(partial(daemon.view.set_peer, peer_status("192.0.2.1", description=str(number))))
    took = time.monotonic() - began
    told = 0
    for event in events:
        told += 1
        if event.peers[0].description == "499":
            break
    assert told <= took / 0.1 + 2


def test_thousands_of_peers_are_listed_in_small_messages() -> None:
    view = FakeDaemonView()
    for number in range(3000):
        view.set_peer(peer_status(f"10.0.{number >> 8}.{number & 255}"))
    with served(view) as daemon, grpc.insecure_channel(daemon.api) as channel:
        answers = list(PeerServiceStub(channel).ListPeers(peer_pb2.ListPeersRequest()))
    assert sum(len(answer.peers) for answer in answers) == 3000
    assert max(len(answer.peers) for answer in answers) == 50
