"""Leader election against an API server that hangs, restarts, and lets others write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgpd.kube import lease
from bgpd.kube.client import KubeClient
from bgpd.kube.lease import LeaseHolder
from bgpd.lab.stand_in_api_server import StandInApiServer

pytestmark = pytest.mark.alone
NAMESPACE = "podbgp-system"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same proportions, ten times as fast."""
    for name, value in {"DURATION": 2, "RENEW_DEADLINE": 1.0, "RETRY": 0.2}.items():
        monkeypatch.setattr(lease, name, value)


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with StandInApiServer() as server:
        yield server


Start = Callable[[str], LeaseHolder]


@pytest.fixture
def start(server: StandInApiServer, tmp_path: Path) -> Iterator[Start]:
    started = []

    def start(identity: str) -> LeaseHolder:
        client = KubeClient.load(server.kubeconfig(tmp_path / identity), timeout=0.3)
        holder = LeaseHolder(client, NAMESPACE, "podbgp-controller", identity)
        holder.start()
        started.append(holder)
        return holder

    yield start
    for holder in started:
        holder.stop()


def eventually(check: Callable[[], bool], seconds: float = 8.0) -> float:
    begun = time.monotonic()
    while not check():
        assert time.monotonic() < begun + seconds, "it does not come"
        time.sleep(0.01)
    return time.monotonic() - begun


def test_the_first_leads_and_the_second_follows_when_it_leaves(
    server: StandInApiServer, start: Start
) -> None:
    one = start("one")
    eventually(one.leads)
    two = start("two")
    time.sleep(1.5)
    assert one.leads()
    assert not two.leads()
    assert two.holder == "one"
    one.stop()
    assert not one.leads()
    assert eventually(two.leads) < 1.0, "it was given up, so nobody has to wait"
    spec = server.get("Lease", "podbgp-controller", NAMESPACE)["spec"]
    assert isinstance(spec, dict)
    assert spec["holderIdentity"] == "two"


def test_an_api_server_that_hangs_ends_it_and_its_return_brings_one_back(
    server: StandInApiServer, start: Start
) -> None:
    one, two = start("one"), start("two")
    eventually(lambda: one.leads() or two.leads())
    server.hang()
    assert eventually(lambda: not one.leads() and not two.leads()) < 1.5
    server.resume()
    eventually(lambda: one.leads() or two.leads())
    assert one.leads() != two.leads()


def test_who_is_written_over_stops_at_once(server: StandInApiServer, start: Start) -> None:
    one = start("one")
    eventually(one.leads)
    server.patch("Lease", "podbgp-controller", {"spec": {"holderIdentity": "x"}}, namespace=NAMESPACE)
    assert eventually(lambda: not one.leads()) < 0.9
    assert eventually(one.leads) > 1.0, "the other had its time"


def test_a_deleted_lease_ends_it_and_is_made_again(server: StandInApiServer, tmp_path: Path) -> None:
    told: list[bool] = []
    client = KubeClient.load(server.kubeconfig(tmp_path / "one"), timeout=0.3)
    one = LeaseHolder(client, NAMESPACE, "podbgp-controller", "one", told.append)
    one.start()
    eventually(one.leads)
    server.delete("Lease", "podbgp-controller", NAMESPACE)
    eventually(lambda: told == [True, False, True])
    one.stop()
    assert told == [True, False, True, False]


def test_who_is_stopped_while_the_api_server_hangs_does_not_wait_long(
    server: StandInApiServer, start: Start
) -> None:
    one = start("one")
    eventually(one.leads)
    server.hang()
    begun = time.monotonic()
    one.stop(wait=2.0)
    assert time.monotonic() - begun < 2.0
    assert not one.leads()
