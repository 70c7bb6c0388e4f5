"""The real API server, and any cluster named by --kubeconfig, give what podbgp relies on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bgpd.kube.client import KubeClient
from bgpd.lab.control_plane import ControlPlane
from tests.kube.api_servers import ApiServer, api_server
from tests.kube.conformance import CHECKS


@pytest.fixture
def forget_history(request: pytest.FixtureRequest) -> Callable[[], None]:
    """The lab's own API server forgets with a restart; a cluster of any age has forgotten its beginning."""
    if request.config.getoption("kubeconfig") is not None:
        return lambda: None
    control: ControlPlane = request.getfixturevalue("control_plane")

    def restart() -> None:
        control.apiserver.kill()
        control.start()

    return restart


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_api_server(
    check: Callable[[ApiServer], None], api: KubeClient, forget_history: Callable[[], None]
) -> None:
    with api_server(api, forget_history) as server:
        check(server)
