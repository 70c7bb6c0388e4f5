"""Watching: the API server may go, lie, forget or hang; what was known stays, and the news come through."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from bgpd.kube.client import KubeClient
from bgpd.kube.watch import Batch, Pace, Resource, Watch, on_loop
from tests.fakes.stand_in_api_server import Instead, StandInApiServer, node

NODES = "/api/v1/nodes"
FAST = Pace(
    watch=30.0, idle=10.0, first_wait=0.02, longest_wait=0.1, longest_wait_away=0.1, between_lists=0.0,
    longest_retry_after=5.0,
)  # fmt: skip


@dataclass(frozen=True)
class Address:
    """What these tests read of a Node."""

    name: str
    uid: str
    address: str


class _Wire(msgspec.Struct):
    metadata: dict[str, object]
    status: dict[str, list[dict[str, str]]]


def decode(body: bytes) -> Address:
    wire = msgspec.json.decode(body, type=_Wire)
    address = wire.status["addresses"][0]["address"]
    return Address(str(wire.metadata["name"]), str(wire.metadata["uid"]), address)


class Listener:
    """Who watches Nodes, and what it believes."""

    def __init__(self, client: KubeClient, pace: Pace = FAST, field_selector: str = "") -> None:
        self.batches: list[Batch[Address]] = []
        self.believed: dict[str, Address] = {}
        resource = Resource(NODES, "Node", decode, field_selector=field_selector)
        self.watch = Watch(client, resource, self._hear, pace)
        self.watch.start()

    def _hear(self, batch: Batch[Address]) -> None:
        for value in batch.deleted:
            del self.believed[value.uid]
        for value in batch.changed:
            self.believed[value.uid] = value
        self.batches.append(batch)

    @property
    def addresses(self) -> dict[str, str]:
        return {value.name: value.address for value in list(self.believed.values())}

    def comes_to(self, **addresses: str) -> bool:
        return eventually(lambda: self.addresses == addresses and self.well)

    @property
    def well(self) -> bool:
        status = self.watch.status()
        return status.synced and not status.error

    def says(self, text: str) -> bool:
        return eventually(lambda: text in self.watch.status().error)


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.005)
    return true()


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with StandInApiServer(bookmark_every=0.2) as running:
        running.create_many([node("a", "192.0.2.1"), node("b", "192.0.2.2")])
        yield running


@pytest.fixture
def client(server: StandInApiServer, tmp_path: Path) -> Iterator[KubeClient]:
    made = KubeClient.load(server.kubeconfig(tmp_path / "kubeconfig"), timeout=0.5, max_line=1 << 17)
    yield made
    made.close()


@pytest.fixture
def listener(client: KubeClient, server: StandInApiServer) -> Iterator[Listener]:
    """One that has heard of both Nodes, and watches."""
    made = Listener(client)
    assert made.comes_to(a="192.0.2.1", b="192.0.2.2")
    assert eventually(lambda: server.watches == 1)
    yield made
    server.resume()
    made.watch.stop()


def move(server: StandInApiServer, name: str, address: str) -> None:
    addresses = [{"type": "InternalIP", "address": address}]
    server.patch("Node", name, {"status": {"addresses": addresses}}, subresource="status")


# -- all is well ----------------------------------------------------------------------------------------


def test_an_empty_list_is_news_too(tmp_path: Path) -> None:
    with StandInApiServer() as empty:
        client = KubeClient.load(empty.kubeconfig(tmp_path / "kubeconfig"))
        listener = Listener(client)
        assert eventually(lambda: listener.batches == [Batch((), (), synced=True)])
        listener.watch.stop()
        client.close()


def test_a_long_list_comes_in_batches_of_which_the_last_says_that_it_is_whole(tmp_path: Path) -> None:
    with StandInApiServer() as server:
        server.create_many([node(f"n{number}", "192.0.2.1") for number in range(2100)])
        client = KubeClient.load(server.kubeconfig(tmp_path / "kubeconfig"))
        listener = Listener(client)
        assert eventually(lambda: listener.well)
        assert [(len(batch.changed), batch.synced) for batch in listener.batches] == [
            (1000, False), (1000, False), (100, True),
        ]  # fmt: skip
        assert server.load.requests["list", "nodes"] == 9
        listener.watch.stop()
        client.close()


def test_a_change_an_addition_and_a_deletion_are_heard(listener: Listener, server: StandInApiServer) -> None:
    move(server, "a", "192.0.2.11")
    server.create(node("c", "192.0.2.3"))
    server.delete("Node", "b")
    assert listener.comes_to(a="192.0.2.11", c="192.0.2.3")
    assert listener.watch.status().lists == 1


def test_a_heartbeat_is_no_news(listener: Listener, server: StandInApiServer) -> None:
    for beat in range(5):
        patch = {"status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": str(beat)}]}}
        server.patch("Node", "a", patch, subresource="status")
    assert eventually(lambda: listener.watch.status().events >= 5)
    assert len(listener.batches) == 1


def test_the_same_name_again_is_another_object(listener: Listener, server: StandInApiServer) -> None:
    before = next(value for value in listener.believed.values() if value.name == "a")
    server.delete("Node", "a")
    server.create(node("a", "192.0.2.1"))
    assert eventually(lambda: any(batch.deleted for batch in listener.batches))
    assert listener.comes_to(a="192.0.2.1", b="192.0.2.2")
    assert before.uid not in listener.believed


@pytest.mark.parametrize("moved_by", ["an event", "a bookmark"])
def test_a_watch_goes_on_from_what_it_heard_last(
    listener: Listener, server: StandInApiServer, moved_by: str
) -> None:
    """From before it would ask for all again, and soon for what is forgotten."""
    if moved_by == "an event":
        move(server, "a", "192.0.2.11")
        assert listener.comes_to(a="192.0.2.11", b="192.0.2.2")
    else:
        server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}})
        events = listener.watch.status().events
        assert eventually(lambda: listener.watch.status().events > events)
    server.cut_streams()
    assert eventually(lambda: server.load.requests["watch", "nodes"] == 2)
    assert f"resourceVersion={server.store.revision}&" in server.load.urls[-1]


def test_only_what_is_selected_is_heard(client: KubeClient, server: StandInApiServer) -> None:
    listener = Listener(client, field_selector="metadata.name=b")
    assert listener.comes_to(b="192.0.2.2")
    move(server, "a", "192.0.2.11")
    move(server, "b", "192.0.2.12")
    assert listener.comes_to(b="192.0.2.12")
    assert listener.watch.status().objects == 1
    listener.watch.stop()


# -- the API server goes and comes back -------------------------------------------------------------------


def away(server: StandInApiServer) -> None:
    """What happens while nobody listens: one Node goes, one comes again, one moves, one is new."""
    server.delete("Node", "b")
    server.delete("Node", "a")
    server.create(node("a", "192.0.2.11"))
    server.create(node("c", "192.0.2.3"))


def cut(server: StandInApiServer) -> None:
    server.cut_streams()
    away(server)


def end_early(server: StandInApiServer) -> None:
    server.end_streams()
    away(server)


def stop_and_start(server: StandInApiServer) -> None:
    server.down()
    away(server)
    server.up()


def stop_and_forget(server: StandInApiServer) -> None:
    server.down()
    away(server)
    server.forget_history()
    server.up()


def stop_and_forget_with_a_status(server: StandInApiServer) -> None:
    server.faults.gone_by_status = True
    stop_and_forget(server)


def expire(server: StandInApiServer) -> None:
    away(server)
    server.expire_watches()


def restore_an_older_backup(server: StandInApiServer) -> None:
    server.down()
    away(server)
    server.store.rewind(3)
    server.up()


def fail_for_a_while(server: StandInApiServer) -> None:
    server.faults.fail_next(2, 500)
    server.faults.fail_next(2, 429, retry_after=0)
    server.faults.fail_next(1, 503)
    cut(server)


def fail_after_forgetting(server: StandInApiServer) -> None:
    server.faults.fail_next(3, 500)
    expire(server)


def hang_and_forget(server: StandInApiServer) -> None:
    server.hang()
    server.cut_streams()
    away(server)
    server.forget_history()
    time.sleep(1.2)
    server.resume()


def slow_down(server: StandInApiServer) -> None:
    server.faults.delay = 0.2
    cut(server)


@pytest.mark.parametrize(
    "trouble",
    [
        cut, end_early, stop_and_start, stop_and_forget, stop_and_forget_with_a_status, expire,
        restore_an_older_backup, fail_for_a_while, fail_after_forgetting, hang_and_forget, slow_down,
    ],
    ids=lambda trouble: trouble.__name__,
)  # fmt: skip
def test_after_trouble_everything_is_right_again(
    listener: Listener, server: StandInApiServer, trouble: Callable[[StandInApiServer], None]
) -> None:
    first = set(listener.believed)
    trouble(server)
    assert listener.comes_to(a="192.0.2.11", c="192.0.2.3")
    assert not first & set(listener.believed), "the Node of the same name is another one"
    move(server, "c", "192.0.2.13")
    assert listener.comes_to(a="192.0.2.11", c="192.0.2.13"), "and it goes on from there"


def test_while_the_api_server_is_away_nothing_is_deleted(
    listener: Listener, server: StandInApiServer
) -> None:
    server.down()
    assert listener.says("NoAnswer")
    heard = listener.watch.status().last_heard
    time.sleep(0.3)
    assert listener.addresses == {"a": "192.0.2.1", "b": "192.0.2.2"}
    assert listener.watch.status().last_heard == heard, "its age must grow"
    assert listener.watch.status().synced
    server.up()
    assert listener.comes_to(a="192.0.2.1", b="192.0.2.2")
    assert len(listener.batches) == 1


def test_a_server_that_hangs_under_a_watch_is_noticed(client: KubeClient, server: StandInApiServer) -> None:
    listener = Listener(client, Pace(idle=0.5, first_wait=0.02, longest_wait_away=0.1))
    assert eventually(lambda: server.watches == 1)
    server.hang()
    move(server, "a", "192.0.2.11")
    assert listener.says("Timeout")
    assert listener.addresses == {"a": "192.0.2.1", "b": "192.0.2.2"}
    server.resume()
    assert listener.comes_to(a="192.0.2.11", b="192.0.2.2")
    listener.watch.stop()


def test_a_quiet_watch_is_asked_for_again_without_a_word(tmp_path: Path) -> None:
    with StandInApiServer() as quiet:
        client = KubeClient.load(quiet.kubeconfig(tmp_path / "kubeconfig"), timeout=0.5)
        listener = Listener(client, Pace(idle=0.1))
        assert eventually(lambda: quiet.load.requests["watch", "nodes"] > 3)
        assert quiet.load.requests["list", "nodes"] == 1
        assert listener.well
        listener.watch.stop()
        client.close()


def test_a_server_that_asks_for_time_gets_it(listener: Listener, server: StandInApiServer) -> None:
    server.faults.fail_next(1, 429, retry_after=1)
    begun = time.monotonic()
    server.cut_streams()
    assert listener.says("429")
    assert eventually(lambda: listener.well)
    assert time.monotonic() - begun >= 1.0


def test_a_broken_server_is_asked_less_and_less(listener: Listener, server: StandInApiServer) -> None:
    listener.watch.stop()
    client = listener.watch._client.sibling()  # noqa: SLF001 - the listener's own is closed
    server.load.requests.clear()
    server.faults.fail_next(10_000, 500)
    late = Listener(client, Pace(first_wait=0.1))
    time.sleep(1.0)
    asked = 10_000 - server.faults.pending
    assert 2 <= asked <= 6
    late.watch.stop()
    client.close()


# -- nonsense -------------------------------------------------------------------------------------------


def listing(**parts: object) -> bytes:
    whole = {"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": []}
    return json.dumps({**whole, **parts}).encode()


LISTS = {
    "html": Instead(content_type="text/html", body=b"<html>portal</html>"),
    "html that says it is JSON": Instead(body=b"<html>portal</html>"),
    "empty": Instead(body=b" "),
    "an empty object": Instead(body=b"{}"),
    "null": Instead(body=b"null"),
    "a number": Instead(body=b"1"),
    "not UTF-8": Instead(body=b'{"kind":"\xff\xfe"}'),
    "cut short": Instead(body=listing()[:-2], cut=True),
    "truncated": Instead(body=listing()[:-2]),
    "deep": Instead(body=b'{"kind":' + b"[" * 100_000),
    "without metadata": Instead(body=b'{"kind":"NodeList","items":[]}'),
    "without a version": Instead(body=listing(metadata={})),
    "without items": Instead(body=b'{"kind":"NodeList","metadata":{"resourceVersion":"9"}}'),
    "of another kind": Instead(body=listing(kind="PodList")),
    "a Status": Instead(body=b'{"kind":"Status","metadata":{},"status":"Failure","code":500}'),
    "not found": Instead(status=404, body=b"404 page not found\n", content_type="text/plain"),
    "forbidden": Instead(status=403, body=b'{"kind":"Status","reason":"Forbidden","code":403}'),
    "items that are none": Instead(body=listing(items={"a": 1})),
}


@pytest.mark.parametrize("instead", LISTS.values(), ids=LISTS.keys())
def test_a_list_that_is_none_deletes_nothing(
    listener: Listener, server: StandInApiServer, instead: Instead
) -> None:
    server.faults.answer_next(instead, count=2, matching="nodes?limit=250")
    server.expire_watches()
    assert eventually(lambda: server.faults.pending == 0)
    assert listener.comes_to(a="192.0.2.1", b="192.0.2.2")
    assert len(listener.batches) == 1


def event(kind: str, value: object) -> bytes:
    return json.dumps({"type": kind, "object": value}).encode() + b"\n"


STREAMS = {
    "html": Instead(content_type="text/html", body=b"<html>portal</html>"),
    "text": Instead(body=b"so sorry\n"),
    "no event": Instead(body=b"{}\n"),
    "another kind": Instead(body=event("DELETED", {"kind": "Pod", "metadata": {"uid": "u"}})),
    "an unknown event": Instead(body=event("RENAMED", {"kind": "Node", "metadata": {"uid": "u"}})),
    "an error without a code": Instead(body=event("ERROR", {})),
    "an error that is none": Instead(body=event("ERROR", "gone")),
    "500": Instead(body=event("ERROR", {"kind": "Status", "code": 500, "reason": "InternalError"})),
    "another history": Instead(
        body=event("BOOKMARK", {"kind": "Node", "metadata": {"resourceVersion": "1"}})
    ),
    "half an event": Instead(body=b'{"type":"DELETED","object":{'),
    "endless": Instead(body=b"x", endless=True),
    "an end at once": Instead(body=b"\n"),
}


@pytest.mark.parametrize("instead", STREAMS.values(), ids=STREAMS.keys())
def test_a_stream_of_nonsense_changes_nothing(
    listener: Listener, server: StandInApiServer, instead: Instead
) -> None:
    server.faults.answer_next(instead, count=2, matching="watch=true")
    server.cut_streams()
    assert eventually(lambda: server.faults.pending == 0)
    assert listener.comes_to(a="192.0.2.1", b="192.0.2.2")
    assert len(listener.batches) == 1
    move(server, "a", "192.0.2.11")
    assert listener.comes_to(a="192.0.2.11", b="192.0.2.2")


def test_another_kind_deletes_nothing_whatever_its_uid(listener: Listener, server: StandInApiServer) -> None:
    uid = next(iter(listener.believed))
    wrong = {"kind": "Pod", "metadata": {"uid": uid, "name": "a", "resourceVersion": "1000"}}
    server.faults.answer_next(Instead(body=event("DELETED", wrong)), matching="watch=true")
    server.cut_streams()
    assert eventually(lambda: server.faults.pending == 0)
    assert listener.comes_to(a="192.0.2.1", b="192.0.2.2")
    assert len(listener.batches) == 1


def test_what_was_on_a_page_before_the_list_began_again_is_not_believed(
    client: KubeClient, server: StandInApiServer
) -> None:
    ghost = node("ghost", "192.0.2.9")
    ghost["metadata"] = {"name": "ghost", "uid": "ghost", "resourceVersion": "2"}
    metadata = {"resourceVersion": "2", "continue": "Zm9yZ290dGVu"}
    page = Instead(body=listing(items=[ghost], metadata=metadata))
    server.faults.answer_next(page, matching="nodes?limit=250")
    listener = Listener(client)
    assert listener.comes_to(a="192.0.2.1", b="192.0.2.2")
    assert server.faults.pending == 0
    assert len(listener.batches) == 1
    listener.watch.stop()


def test_an_event_that_can_not_be_read_is_got_past(listener: Listener, server: StandInApiServer) -> None:
    """One that is too long, say, comes again with each watch from the version before it; a list does not."""
    before = server.store.revision
    move(server, "a", "192.0.2.11")
    assert listener.comes_to(a="192.0.2.11", b="192.0.2.2")
    here = f"resourceVersion={server.store.revision}&"
    server.faults.answer_next(Instead(body=b"x", endless=True), count=1000, matching=here)
    server.cut_streams()
    assert listener.says("EndlessLine")
    move(server, "b", "192.0.2.12")
    assert listener.comes_to(a="192.0.2.11", b="192.0.2.12")
    assert server.store.revision == before + 2


def test_a_malformed_object_is_reported_and_its_last_good_value_stays(
    listener: Listener, server: StandInApiServer
) -> None:
    server.patch("Node", "a", {"status": {"addresses": "none"}}, subresource="status")
    move(server, "b", "192.0.2.12")
    assert listener.comes_to(a="192.0.2.1", b="192.0.2.12")
    ((name, problem),) = listener.watch.status().malformed
    assert name == "a"
    assert "Expected `array`" in problem
    server.expire_watches()
    assert eventually(lambda: listener.watch.status().lists == 2)
    assert listener.comes_to(a="192.0.2.1", b="192.0.2.12")
    move(server, "a", "192.0.2.11")
    assert listener.comes_to(a="192.0.2.11", b="192.0.2.12")
    assert listener.watch.status().malformed == ()


def test_a_malformed_object_can_be_deleted(listener: Listener, server: StandInApiServer) -> None:
    server.patch("Node", "a", {"status": {"addresses": "none"}}, subresource="status")
    server.delete("Node", "a")
    assert listener.comes_to(b="192.0.2.2")
    assert listener.watch.status().malformed == ()


def test_where_an_object_has_no_name_nobody_is_taken_for_gone(
    listener: Listener, server: StandInApiServer
) -> None:
    body = listing(items=[{"metadata": {}}, 7], metadata={"resourceVersion": str(server.store.revision)})
    server.faults.answer_next(Instead(body=body), matching="nodes?limit=250")
    server.expire_watches()
    assert eventually(lambda: listener.watch.status().lists == 2)
    assert listener.addresses == {"a": "192.0.2.1", "b": "192.0.2.2"}


# -- the listener ---------------------------------------------------------------------------------------


def test_a_slow_listener_gets_the_last_state_and_lets_nothing_grow(
    client: KubeClient, server: StandInApiServer
) -> None:
    taken, heard = threading.Event(), list[Batch[Address]]()

    def hear(batch: Batch[Address]) -> threading.Event:
        heard.append(batch)
        return taken

    watch = Watch(client, Resource(NODES, "Node", decode), hear, FAST)
    watch.start()
    assert eventually(lambda: len(heard) == 1)
    for number in range(1, 200):
        move(server, "a", f"192.0.2.{number}")
    time.sleep(0.1)
    assert len(heard) == 1, "nothing comes before the first batch is taken"
    taken.set()
    assert eventually(lambda: heard[-1].changed[0].address == "192.0.2.199")
    assert len(heard) < 100
    watch.stop()


def test_the_event_loop_hears_one_batch_at_a_time(client: KubeClient, server: StandInApiServer) -> None:
    heard: list[Batch[Address]] = []

    async def listen() -> None:
        deliver = on_loop(asyncio.get_running_loop(), heard.append)
        watch = Watch(client, Resource(NODES, "Node", decode), deliver, FAST)
        watch.start()
        await asyncio.to_thread(eventually, lambda: len(heard) == 1)
        move(server, "a", "192.0.2.11")
        await asyncio.to_thread(eventually, lambda: len(heard) == 2)
        watch.stop(wait=0)

    asyncio.run(listen())
    assert heard[0].synced
    assert [value.address for value in heard[1].changed] == ["192.0.2.11"]


@pytest.mark.parametrize("state", ["watching", "hanging", "waiting", "delivering"])
def test_stopping_takes_no_time(client: KubeClient, server: StandInApiServer, state: str) -> None:
    never = threading.Event()
    server.faults.hanging = state == "hanging"
    if state == "waiting":
        server.faults.fail_next(1, 429, retry_after=60)
    deliver = (lambda _: never) if state == "delivering" else (lambda _: None)
    watch = Watch(client.sibling(), Resource(NODES, "Node", decode), deliver, Pace(longest_retry_after=60))
    watch.start()
    time.sleep(0.3)
    begun = time.monotonic()
    watch.stop(wait=5.0)
    assert time.monotonic() - begun < 1.0
    server.resume()


def test_an_error_of_ours_is_shown_and_nothing_is_taken_for_fresh(
    client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def wrong(body: bytes) -> Address:
        raise LookupError(len(body))

    watch = Watch(client, Resource(NODES, "Node", wrong), lambda _: None, FAST)
    watch.start()
    assert eventually(lambda: "error of podbgp itself" in watch.status().error)
    assert eventually(lambda: bool(reported))
    watch.stop()
