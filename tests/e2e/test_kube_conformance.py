"""The stand-in API server answers as the real one does: the checks of tests/kube, run against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgpd.kube.client import KubeClient
from tests.fakes.stand_in_api_server import StandInApiServer
from tests.kube.api_servers import ApiServer, api_server
from tests.kube.conformance import CHECKS


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandInApiServer]:
    with StandInApiServer() as server:
        yield server


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_stand_in(check: Callable[[ApiServer], None], stand_in: StandInApiServer, tmp_path: Path) -> None:
    client = KubeClient.load(stand_in.kubeconfig(tmp_path / "kubeconfig"))
    try:
        with api_server(client, stand_in.forget_history) as server:
            check(server)
    finally:
        client.close()
