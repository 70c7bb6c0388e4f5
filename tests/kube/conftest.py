"""What the tests with real Kubernetes components stand on (`make test-e2e`).

`kubeconfig` and `api` are a real API server, the lab's own or the cluster that --kubeconfig names; never one
that the environment names.  Whatever needs the lab's own control plane uses the fixture `control_plane`,
and what needs the controllers too, `controllers` or `network`.  What this machine or that cluster can't give
is not selected, and the report's head says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.kube.client import KubeClient
from bgpd.kube.options import DEFAULT_NAMESPACE
from bgpd.lab.control_plane import CONTROLLERS, ControlPlane
from bgpd.lab.kube_components import Components, find_components
from bgpd.lab.process import Process
from bgpd.lab.workspace import Workspace, claim
from tests.kube.pod_network import PodNetwork

CONTROLLED = {"controllers", "network", "acceptance"}
"""Fixtures that need kube-controller-manager and kube-proxy, which envtest's folders do not have."""
OWN = {"control_plane", "own_namespace", "workspace", *CONTROLLED}
"""Fixtures that only the lab's own control plane can give."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kubeconfig", type=Path, default=None, help="test against this cluster, not the lab's own"
    )


def pytest_report_header(config: pytest.Config) -> str:
    given = config.getoption("kubeconfig")
    if given is not None:
        return f"kubernetes: the cluster of {given}; tests of the lab's own control plane are not selected"
    found = find_components()
    version = ".".join(map(str, found.version))
    left_out = "" if _whole(found) else "; without controllers, their tests are not selected"
    return f"kubernetes: {found.apiserver}, version {version}{left_out}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only what can run there."""
    if config.getoption("kubeconfig") is not None:
        missing = OWN
    else:
        missing = set() if _whole(find_components()) else CONTROLLED
    left_out = [item for item in items if missing & set(getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _whole(found: Components) -> bool:
    return found.controller_manager is not None and found.proxy is not None


@pytest.fixture(scope="session")
def workspace() -> Iterator[Workspace]:
    """One lab for all tests of a run."""
    claimed = claim("kube")
    yield claimed
    claimed.remove()


@pytest.fixture(scope="session")
def control_plane(workspace: Workspace) -> Iterator[ControlPlane]:
    """The lab's own control plane; with controllers where the machine has them."""
    components = find_components()
    controllers = CONTROLLERS if components.controller_manager else ()
    with ControlPlane(workspace, components=components, controllers=controllers) as control:
        yield control
        _show(control.etcd, control.apiserver, control.controller_manager)


@pytest.fixture(scope="session")
def own_namespace(control_plane: ControlPlane) -> str:
    """Our namespace, made once: without a namespace controller nobody could finish deleting it."""
    client = control_plane.client()
    client.create("/api/v1/namespaces", {"metadata": {"name": DEFAULT_NAMESPACE}})
    client.close()
    return DEFAULT_NAMESPACE


@pytest.fixture(scope="session")
def controllers(control_plane: ControlPlane) -> ControlPlane:
    """The control plane, where it has controllers."""
    assert control_plane.controller_manager is not None
    return control_plane


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest) -> Path:
    """Of the API server that is tested against."""
    given: Path | None = request.config.getoption("kubeconfig")
    if given is not None:
        return given
    control: ControlPlane = request.getfixturevalue("control_plane")
    return control.outside_kubeconfig()


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[KubeClient]:
    """A client of it, with all rights."""
    client = KubeClient.load(str(kubeconfig))
    yield client
    client.close()


@pytest.fixture(scope="session")
def network(controllers: ControlPlane, workspace: Workspace) -> Iterator[PodNetwork]:
    """Two nodes with a fake kubelet and a real kube-proxy each, routes between them, and a scheduler."""
    with PodNetwork(controllers, workspace) as built:
        yield built
        _show(*built.processes)


def _show(*processes: Process | None) -> None:
    """pytest prints it only for what failed."""
    for process in processes:
        if process is not None:
            sys.stderr.write(f"--- the end of the log of {process.name}\n{process.tail()}\n")
