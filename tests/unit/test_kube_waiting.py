"""A daemon that waits for its first intent is alive, says so, is not ready, and stops when it is told to."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from api.client import Client, UnreachableError
from bgpd.config import Config, Endpoint, SpeakerConfig
from bgpd.kube.follower import settings_of
from bgpd.kube.waiting_view import NOT_FLUSHED
from bgpd.lab.stand_in_api_server import kubeconfig_for
from routes.prefix import parse_address

PATIENCE = 30.0
T = TypeVar("T")


class Answer(NamedTuple):
    status: int
    body: str


def free_port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def get(port: int, path: str) -> Answer:
    """Ask once it listens."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return Answer(answer.status, answer.read().decode())
        except HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode())
        except URLError:
            assert time.monotonic() < end, f"nothing listens at {port}"
            time.sleep(0.05)


class Waiting(NamedTuple):
    process: subprocess.Popen[bytes]
    port: int


@contextmanager
def waiting(folder: Path, *words: str, port: int = 0) -> Iterator[Waiting]:
    """A reflector whose API server is away."""
    metrics, away = port or free_port(), free_port()
    settings = folder / "reflector.toml"
    settings.write_text(
        f'[metrics]\nlisten = "127.0.0.1:{metrics}"\n[api]\nlisten = "unix://{folder}/api.sock"\n'
    )
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(kubeconfig_for(f"http://127.0.0.1:{away}")))
    command = [sys.executable, "-m", "bgpd", "reflector", "--kubernetes", "--node", "n1", *words]
    command += ["--kubeconfig", str(kubeconfig), "--config", str(settings), "--state-dir", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield Waiting(process, metrics)
        finally:
            process.kill()


def test_probes_are_answered_while_the_api_server_is_away(tmp_path: Path) -> None:
    with waiting(tmp_path) as (process, port):
        alive, ready = get(port, "/healthz"), get(port, "/readyz")
        assert alive.status == 200
        assert alive.body.startswith("ok, but not ready: waiting for the cluster's intent: ")
        assert ready.status == 503
        assert ready.body.startswith("waiting for the cluster's intent: ")
        metrics = get(port, "/metrics").body
        assert 'role="reflector"' in metrics
        assert "podbgp_initial_convergence_complete 0.0" in metrics
        assert "podbgp_kubernetes_stale_seconds" in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_the_api_says_what_is_waited_for(tmp_path: Path) -> None:
    with waiting(tmp_path) as (process, port):
        assert get(port, "/healthz").status == 200
        with Client(f"unix://{tmp_path}/api.sock") as client:
            node = once_it_answers(client.node)
            assert node.cluster is not None
            assert (node.role, node.cluster.node, node.host) == ("reflector", "n1", None)
            assert not node.cluster.api_server.synced
            assert node.cluster.waits
            assert node.cluster.waits in get(port, "/readyz").body
            assert (client.status().role, client.peers(), list(client.fib())) == ("reflector", [], [])
            assert client.explain("10.244.1.1").text.startswith("The daemon has not begun: waiting for")
            assert client.shutdown(flush=True).errors == (NOT_FLUSHED,)
        assert process.wait(PATIENCE) == 0


def once_it_answers(ask: Callable[[], T]) -> T:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except UnreachableError:
            assert time.monotonic() < end, "the API does not answer"
            time.sleep(0.1)


def test_a_reflector_that_waits_ends_with_its_agent(tmp_path: Path) -> None:
    with waiting(tmp_path, "--with-parent") as (process, port):
        assert get(port, "/healthz").status == 200
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        waiting(tmp_path, port=taken.getsockname()[1]) as (process, _),
    ):
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert "metrics.listen: " in said
    assert "address already in use" in said


def test_a_stored_intent_is_taken_with_the_host_settings_of_today() -> None:
    there = Endpoint(parse_address("127.0.0.1"), 9179)
    before = Config("old.toml", SpeakerConfig(65000, 1), metrics_listen=None, log_level="debug")
    today = Config("new.toml", SpeakerConfig(0, 0), api_listen="unix:///x", metrics_listen=there)
    taken = settings_of(today, before)
    assert taken.speaker == before.speaker
    assert (taken.path, taken.api_listen, taken.metrics_listen) == ("new.toml", "unix:///x", there)
    assert taken.log_level == "info"
