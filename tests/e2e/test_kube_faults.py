"""An API server that hangs, stops, answers nonsense or forgets changes nothing that works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest

from bgpd.lab.stand_in_api_server import Instead, StandInApiServer
from bgpd.lab.stand_in_api_server_json import text
from tests.e2e.kube_stories import SOON, Cluster, Member, cluster
from tests.interop.harness.speaker import wait_until

MANY = 5000
"""More requests than are made in one story."""
FIRST = "192.0.2.100"


class Fault(NamedTuple):
    name: str
    begin: Callable[[StandInApiServer], None]
    lasts: float = 3.0
    stale: bool = False
    """It lasts so long that what is known is shown as old."""
    with_reflectors: bool = False
    """Told of both topologies."""


def answers(instead: Instead) -> Callable[[StandInApiServer], None]:
    def begin(server: StandInApiServer) -> None:
        server.faults.answer_next(instead, count=MANY)
        server.cut_streams()

    return begin


def empty_lists(server: StandInApiServer) -> None:
    """A proxy, or an API server without its data, that says of everything that there is nothing."""
    for path, kind in (
        ("/nodes?", "Node"), ("/bgpclusters?", "BGPCluster"), ("/bgppeers?", "BGPPeer"),
        ("/bgppolicies?", "BGPPolicy"), ("/bgpadvertisements?", "BGPAdvertisement"),
        ("/bgpaddresspools?", "BGPAddressPool"),
    ):  # fmt: skip
        body = (
            f'{{"kind":"{kind}List","apiVersion":"v1","metadata":{{"resourceVersion":"99999"}},"items":[]}}'
        )
        server.faults.answer_next(Instead(200, body.encode()), count=MANY, matching=path)
    server.expire_watches()


def hang(server: StandInApiServer) -> None:
    server.hang()
    server.cut_streams()


def gone_by_status(server: StandInApiServer) -> None:
    server.faults.gone_by_status = True
    server.forget_history()
    server.cut_streams()


def forget(server: StandInApiServer) -> None:
    server.forget_history()
    server.cut_streams()


def slow(server: StandInApiServer) -> None:
    server.faults.delay = 1.0
    server.cut_streams()


HTML = Instead(200, b"<html>Sign in to the network</html>", "text/html")
FAULTS = (
    Fault("hangs with its watches open", StandInApiServer.hang),
    Fault("hangs", hang, 32.0, stale=True),  # a request is given up after 20 s
    Fault("cuts its streams", StandInApiServer.cut_streams),
    Fault("ends its streams before their time", StandInApiServer.end_streams),
    Fault("answers 500", answers(Instead(500)), 13.0, stale=True),
    Fault("answers 429", answers(Instead(429, retry_after=1))),
    Fault("answers 403", answers(Instead(403))),
    Fault("answers 404", answers(Instead(404))),
    Fault("answers with a page", answers(HTML)),
    Fault("answers with another kind", answers(Instead(200, b'{"kind":"Status","metadata":{}}'))),
    Fault("answers that there is nothing", empty_lists, with_reflectors=True),
    Fault("says 410 in its streams", StandInApiServer.expire_watches),
    Fault("says 410 to a watch", gone_by_status, with_reflectors=True),
    Fault("forgets its history", forget),
    Fault("comes back from an older backup", lambda server: server.restart(revision=5), with_reflectors=True),
    Fault("is away", StandInApiServer.down, 20.0, stale=True, with_reflectors=True),
    Fault("is slow", slow),
)


def mend(server: StandInApiServer) -> None:
    server.faults.clear()
    server.faults.gone_by_status = False
    server.resume()
    server.up()


@pytest.fixture(scope="module")
def mesh() -> Iterator[Cluster]:
    with cluster("mesh") as built:
        built.make("BGPPeer", "rack0", {"address": FIRST, "asn": 64512})
        yield built


@pytest.fixture(scope="module")
def reflected() -> Iterator[Cluster]:
    with cluster("reflector") as built:
        built.make("BGPPeer", "rack0", {"address": FIRST, "asn": 64512})
        yield built


def change(of: Cluster) -> tuple[str, str]:
    """A change that every agent must come to know: one router in place of another; both addresses."""
    (peer,) = of.server.list("BGPPeer")
    old = text(peer, "spec", "address")
    number = int(old.rpartition(".")[2]) + 1
    of.server.delete("BGPPeer", text(peer, "metadata", "name"))
    of.make("BGPPeer", f"rack{number}", {"address": f"192.0.2.{number}", "asn": 64512})
    return old, f"192.0.2.{number}"


def knows_the_change(member: Member, old: str, new: str) -> bool:
    peers = member.peers()
    return new in peers and old not in peers


def shows_its_age(of: Cluster) -> bool:
    return all("not heard from for" in daemon.warnings() for daemon in of.daemons)


def tell(of: Cluster, fault: Fault) -> None:
    """What works goes on, what changed meanwhile arrives, and between them the age is shown."""
    of.wait_up()
    with of.undisturbed():
        fault.begin(of.server)
        begun = time.monotonic()
        old, new = change(of)
        if fault.stale:
            wait_until(lambda: shows_its_age(of), fault.lasts, "the age is shown")
        time.sleep(max(0.0, begun + fault.lasts - time.monotonic()))
        mend(of.server)
        for member in of.members:
            changed = partial(knows_the_change, member, old, new)
            wait_until(changed, SOON, f"{member.name} has the new router in the old one's place")
        wait_until(lambda: not shows_its_age(of), SOON, "the age is gone")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_mesh_goes_on_and_what_changed_arrives(mesh: Cluster, fault: Fault) -> None:
    tell(mesh, fault)


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.with_reflectors], ids=lambda fault: fault.name
)
def test_reflectors_and_clients_go_on_and_what_changed_arrives(reflected: Cluster, fault: Fault) -> None:
    tell(reflected, fault)


def test_after_all_that_each_node_says_that_it_hears_from_the_api_server(mesh: Cluster) -> None:
    """A change of what was stale is written at the pace of what changes often, of 30 seconds."""
    for member in mesh.members:
        wait_until(
            lambda: mesh.condition(member.name, "APIServerReachable") == ("True", "Heard"),  # noqa: B023
            60.0,
            f"BGPNodeState {member.name}",
        )
