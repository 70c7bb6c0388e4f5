"""The client: every way in which an API server can fail becomes an error that says so, in bounded time."""

from __future__ import annotations

import datetime as dt
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubernetes.config import incluster_config

from bgpd.errors import ConfigError
from bgpd.kube.client import (
    Conflict,
    Gone,
    Invalid,
    KubeClient,
    KubeError,
    Nonsense,
    NotFound,
    Refused,
    Unavailable,
)
from bgpd.lab.stand_in_api_server import kubeconfig_for
from tests.fakes.stand_in_api_server import Instead, StandInApiServer, node

NODES = "/api/v1/nodes"
Reply = Callable[[socket.socket], None]


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with StandInApiServer() as running:
        yield running


@pytest.fixture
def client(server: StandInApiServer, tmp_path: Path) -> Iterator[KubeClient]:
    made = KubeClient.load(
        server.kubeconfig(tmp_path / "kubeconfig"), timeout=0.5, max_response=1 << 20, max_line=1 << 17
    )
    yield made
    made.close()


@contextmanager
def rude_server(reply: Reply) -> Iterator[tuple[str, list[str]]]:
    """A server that answers each connection's first request as it likes; (its URL, the requests)."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(65536).decode())
                try:
                    reply(connection)
                except OSError:
                    continue  # the client had enough

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def ok(body: bytes = b"{}", *more: str) -> bytes:
    head = ["HTTP/1.1 200 OK", "Content-Type: application/json", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*head, "", ""]).encode() + body


def kubeconfig(tmp_path: Path, url: str, **user: str) -> str:
    value = kubeconfig_for(url)
    value["users"] = [{"name": "podbgp-stand-in", "user": user}]
    path = tmp_path / "given"
    path.write_text(json.dumps(value))
    return str(path)


# -- what an answer means ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid), (401, Refused), (403, Refused), (404, NotFound), (409, Conflict), (410, Gone),
        (422, Invalid), (429, Unavailable), (500, Unavailable), (503, Unavailable), (504, Unavailable),
        (302, Nonsense), (418, KubeError),
    ],
)  # fmt: skip
def test_each_status_is_an_error_of_a_kind_and_is_asked_for_once(
    server: StandInApiServer, client: KubeClient, status: int, kind: type[KubeError]
) -> None:
    server.faults.fail_next(2, status)
    with pytest.raises(kind) as error:
        client.get(NODES)
    assert type(error.value) is kind
    assert error.value.status == status
    assert server.faults.pending == 1, "the client asked again by itself"


def test_the_time_to_wait_is_told(server: StandInApiServer, client: KubeClient) -> None:
    server.faults.fail_next(1, 429, retry_after=7)
    with pytest.raises(Unavailable) as error:
        client.get(NODES)
    assert error.value.retry_after == 7


def test_a_status_object_is_quoted(client: KubeClient) -> None:
    with pytest.raises(NotFound, match=r'/api/v1/nodes/n1: 404: NotFound: nodes "n1" not found'):
        client.get(f"{NODES}/n1")


@pytest.mark.parametrize(
    "instead",
    [
        Instead(content_type="text/html", body=b"<html>portal</html>"),
        Instead(body=b"x", endless=True),
    ],
    ids=["html", "endless"],
)
def test_what_no_api_server_says_is_nonsense(
    server: StandInApiServer, client: KubeClient, instead: Instead
) -> None:
    server.faults.answer_next(instead)
    with pytest.raises(Nonsense):
        client.get(NODES)


def test_an_answer_that_is_cut_is_none(server: StandInApiServer, client: KubeClient) -> None:
    server.faults.answer_next(Instead(body=b'{"kind":"NodeList"', cut=True))
    with pytest.raises(Unavailable):
        client.get(NODES)


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """It would take the token elsewhere."""
    elsewhere = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with rude_server(lambda connection: connection.sendall(elsewhere)) as (url, asked):
        client = KubeClient.load(kubeconfig(tmp_path, url, token="secret"), timeout=1.0)
        with pytest.raises(Nonsense):
            client.get(NODES)
        client.close()
    assert len(asked) == 1


# -- time ---------------------------------------------------------------------------------------------


def test_a_server_that_says_nothing_is_unavailable(server: StandInApiServer, client: KubeClient) -> None:
    server.hang()
    begun = time.monotonic()
    with pytest.raises(Unavailable) as error:
        client.get(NODES)
    assert (error.value.status, error.value.reason) == (0, "Timeout")
    assert time.monotonic() - begun < 3
    server.resume()


def test_a_server_that_is_away_is_unavailable(server: StandInApiServer, client: KubeClient) -> None:
    server.down()
    with pytest.raises(Unavailable) as error:
        client.get(NODES)
    assert error.value.status == 0


def test_an_answer_that_drips_has_an_end(tmp_path: Path) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(ok(b"", "X: y").replace(b"Content-Length: 0", b"Content-Length: 1000"))
        for _ in range(1000):
            connection.sendall(b" ")
            time.sleep(0.05)

    with rude_server(drip) as (url, _):
        client = KubeClient.load(kubeconfig(tmp_path, url), timeout=0.2)
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="Timeout"):
            client.get(NODES)
        assert time.monotonic() - begun < 3
        client.close()


@pytest.mark.parametrize("hanging", ["the answer", "a watch"])
def test_closing_ends_what_hangs(server: StandInApiServer, tmp_path: Path, hanging: str) -> None:
    client = KubeClient.load(server.kubeconfig(tmp_path / "kubeconfig"), timeout=60.0)
    if hanging == "the answer":
        server.hang()
    said: list[KubeError] = []

    def call() -> None:
        try:
            list(client.watch(NODES, {"resourceVersion": "1"}, timeout=60))
        except KubeError as error:
            said.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.3)
    client.close()
    thread.join(1.0)
    assert not thread.is_alive()
    assert [error.reason for error in said] == ["Closed"]
    with pytest.raises(Unavailable, match="Closed"):
        client.get(NODES)
    server.resume()


def test_closing_a_sibling_leaves_the_others(client: KubeClient) -> None:
    sibling = client.sibling()
    sibling.get(NODES)
    sibling.close()
    with pytest.raises(Unavailable):
        sibling.get(NODES)
    assert client.get(NODES)


# -- streams --------------------------------------------------------------------------------------------


def test_a_watch_that_is_cut_is_an_error_and_keeps_its_lines(
    server: StandInApiServer, client: KubeClient
) -> None:
    server.create(node("n1", "192.0.2.1"))
    lines = client.watch(NODES, {"resourceVersion": "0"}, timeout=30)
    assert b'"ADDED"' in next(lines)
    server.cut_streams()
    with pytest.raises(Unavailable):
        next(lines)


def test_a_watch_through_a_proxy_that_closes_its_connections(tmp_path: Path) -> None:
    event = b'{"type":"ADDED"}\n'
    with rude_server(lambda connection: connection.sendall(ok(event, "Connection: close"))) as (url, _):
        client = KubeClient.load(kubeconfig(tmp_path, url), timeout=1.0)
        assert list(client.watch(NODES, timeout=30)) == [event.strip()]
        client.close()


def test_a_quiet_watch_ends_after_its_idle_time(client: KubeClient) -> None:
    with pytest.raises(Unavailable, match="Timeout"):
        list(client.watch(NODES, {"resourceVersion": "1"}, timeout=30, idle=0.2))


@pytest.mark.parametrize(
    ("instead", "reason"),
    [(Instead(body=b"y" * 10, endless=True), "EndlessLine"), (Instead(body=b'{"type":"ADD'), "CutShort")],
    ids=["endless line", "no end of line"],
)
def test_a_stream_without_lines_is_nonsense(
    server: StandInApiServer, client: KubeClient, instead: Instead, reason: str
) -> None:
    server.faults.answer_next(instead, matching="watch=true")
    with pytest.raises(Nonsense) as error:
        list(client.watch(NODES, {"resourceVersion": "1"}, timeout=30))
    assert error.value.reason == reason


# -- pages ----------------------------------------------------------------------------------------------


def test_a_list_whose_history_is_lost_midway_begins_again(
    server: StandInApiServer, client: KubeClient
) -> None:
    server.create_many([node(f"n{number}", "192.0.2.1") for number in range(5)])
    pages = client.pages(NODES, limit=2)
    first = next(pages)
    server.forget_history()
    rest = list(pages)
    assert first.first
    assert [page.first for page in rest] == [True, False, False]


def test_a_list_that_expires_again_and_again_is_given_up(
    server: StandInApiServer, client: KubeClient
) -> None:
    server.faults.fail_next(50, 410)
    with pytest.raises(Gone):
        list(client.pages(NODES))
    assert server.faults.pending == 47


def test_a_list_without_end_is_nonsense(server: StandInApiServer, client: KubeClient) -> None:
    body = json.dumps({"kind": "NodeList", "metadata": {"continue": "again"}, "items": []}).encode()
    server.faults.answer_next(Instead(body=body), count=50)
    with pytest.raises(Nonsense, match="EndlessList"):
        list(client.pages(NODES))


# -- the way to the API server --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "text",
        "not: [yaml",
        "apiVersion: v1\nkind: Config\ncurrent-context: none\ncontexts: []\n",
    ],
)
def test_a_kubeconfig_that_is_none_is_the_operators_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"kubeconfig {path}"):
        KubeClient.load(str(path))


def test_the_environment_names_no_cluster(
    server: StandInApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$KUBECONFIG may name someone's live cluster."""
    monkeypatch.setenv("KUBECONFIG", server.kubeconfig(tmp_path / "live"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="--kubeconfig FILE"):
        KubeClient.load()


@pytest.mark.parametrize("server_url", ["192.0.2.1:6443", "ftp://192.0.2.1", "https://"])
def test_a_server_that_is_no_url_is_the_operators_error(tmp_path: Path, server_url: str) -> None:
    given = kubeconfig(tmp_path, "http://192.0.2.1")
    with pytest.raises(ConfigError, match=r"https://192\.0\.2\.1:6443"):
        KubeClient.load(given, server=server_url)


def test_a_pod_uses_its_token_at_the_given_server_and_follows_its_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package sets the ClusterIP back at each refresh: it must not be used where kube-proxy is not up."""
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    authority.write_text("not looked at: the server speaks plain HTTP")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with rude_server(lambda connection: connection.sendall(ok(b"{}", "Connection: close"))) as (url, asked):
        client = KubeClient.load(server=url, timeout=1.0)
        client.get(NODES)
        token.write_text("second\n")
        client.get(NODES)
        now = dt.datetime.now() + dt.timedelta(minutes=2)  # noqa: DTZ005 - as the package does
        clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: now), timedelta=dt.timedelta)
        monkeypatch.setattr(incluster_config, "datetime", clock)
        client.get(NODES)
        client.close()
    tokens = [line for request in asked for line in request.splitlines() if "bearer" in line.lower()]
    assert tokens == ["authorization: bearer first"] * 2 + ["authorization: bearer second"]
