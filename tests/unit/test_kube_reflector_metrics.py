"""An agent relays the metrics of the reflector beside it, and has an empty page while there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from http import HTTPStatus
from pathlib import Path

import pytest

from bgpd.config import Config, Endpoint, SpeakerConfig
from bgpd.kube import reflector_metrics
from bgpd.kube.options import KubeOptions
from bgpd.kube.reflector_child import ReflectorChild
from bgpd.kube.reflector_metrics import PATH, ReflectorMetrics
from bgpd.metrics_server import MetricsServer
from routes.prefix import parse_address
from tests.unit.test_metrics import exchange

ANYWHERE = Endpoint(parse_address("127.0.0.1"), 0)
ASK = f"GET {PATH} HTTP/1.1\r\n\r\n".encode()
Answer = tuple[int, bytes]


def rendered(text: bytes) -> Callable[[], Generator[None, None, bytes]]:
    def render() -> Generator[None, None, bytes]:
        yield
        return text

    return render


def relayed(
    folder: Path, body: bytes = b"all\n", *, wanted: bool = True, running: bool = True, serves: bool = True
) -> Answer:
    """What who scrapes the agent is told of a reflector with these metrics."""

    async def run() -> Answer:
        reflector = MetricsServer(rendered(body), str)
        await reflector.start(ANYWHERE)
        file = folder / "reflector.toml"
        file.write_text(f'[metrics]\nlisten = "0.0.0.0:{reflector.port}"\n')
        if not serves:
            await reflector.close()
        child = ReflectorChild(KubeOptions(Config("", SpeakerConfig(0, 0)), "n1"))
        child.want(wanted=wanted)
        child.running = running
        agent = MetricsServer(rendered(b"own"), str, pages={PATH: ReflectorMetrics(child, str(file))})
        await agent.start(ANYWHERE)
        try:
            return await exchange(agent.port, ASK)
        finally:
            await agent.close()
            await reflector.close()

    return asyncio.run(run())


def test_a_node_that_reflects_shows_its_reflector(tmp_path: Path) -> None:
    assert relayed(tmp_path) == (200, b"all\n")


@pytest.mark.parametrize("running", [True, False])
def test_a_node_that_does_not_reflect_has_an_empty_page(tmp_path: Path, running: bool) -> None:
    assert relayed(tmp_path, wanted=False, running=running) == (200, b"")


def test_a_reflector_that_should_run_is_missed(tmp_path: Path) -> None:
    assert relayed(tmp_path, running=False)[0] == HTTPStatus.SERVICE_UNAVAILABLE
    status, text = relayed(tmp_path, serves=False)
    assert status == HTTPStatus.BAD_GATEWAY
    assert text.startswith(b"the reflector does not answer: ")


def test_an_answer_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector_metrics, "MOST_BYTES", 1000)
    assert relayed(tmp_path, bytes(2000))[0] == HTTPStatus.BAD_GATEWAY


def test_without_settings_there_is_nothing_to_relay() -> None:
    child = ReflectorChild(KubeOptions(Config("", SpeakerConfig(0, 0)), "n1"))
    child.want(wanted=True)
    assert asyncio.run(ReflectorMetrics(child, None)()) == (HTTPStatus.OK, b"")
