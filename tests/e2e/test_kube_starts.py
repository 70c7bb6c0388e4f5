"""A start or a restart finds what it needs, whatever the API server can say at that moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bgpd.lab.process import wait_for_socket
from tests.e2e.kube_stories import SOON, Cluster, Member, begin_again
from tests.interop.harness.speaker import wait_until

SERVICE = "203.0.113.77/32"


@contextmanager
def away(of: Cluster) -> Iterator[None]:
    of.server.down()
    try:
        yield
    finally:
        of.server.up()


def stored(member: Member) -> bool:
    """Whether there is an intent that each of its daemons can begin with."""
    roles = ("agent", "reflector") if member.reflector.socket.exists() else ("agent",)
    return all((member.folder / "state" / f"{role}-intent.json").exists() for role in roles)


def wait_stored(*members: Member) -> None:
    """Return when these would begin with what they do now."""
    wait_until(lambda: all(map(stored, members)), SOON, "an intent is stored")
    time.sleep(6)  # a newer one is stored within five seconds


def end_without_intent(member: Member) -> None:
    """Kill -9, and leave nothing to begin with."""
    member.agent.kill()
    member.log.unlink()
    (member.folder / "state" / "agent-intent.json").unlink()


# -- starting without the API server ------------------------------------------------------------------


def test_all_nodes_of_a_mesh_start_while_the_api_server_is_away(mesh: Cluster) -> None:
    mesh.announce("203.0.113.77")
    wait_until(lambda: all(each.knows(SERVICE) for each in mesh.members), SOON, "the service is announced")
    wait_stored(*mesh.members)
    with mesh.recorded() as lost:
        with away(mesh):
            begin_again(*mesh.members)
            mesh.wait_sessions(2)
            mesh.wait_up()
            for member in mesh.members:
                assert member.says("started from the stored intent")
                assert member.knows(SERVICE)
            wait_until(
                lambda: all("not heard from for" in each.warnings() for each in mesh.members),
                SOON,
                "age is shown",
            )
        wait_until(
            lambda: not any("not heard from for" in each.warnings() for each in mesh.members),
            SOON,
            "age is gone",
        )
        assert not lost()
    mesh.withdraw()
    wait_until(lambda: not any(each.knows(SERVICE) for each in mesh.members), SOON, "it is withdrawn")


def test_reflectors_start_too_while_the_api_server_is_away(reflected: Cluster) -> None:
    wait_stored(*reflected.members)
    with reflected.recorded() as lost:
        with away(reflected):
            begin_again(*reflected.members)
            reflected.wait_sessions(2)
            reflected.wait_up()
            assert [each.reflector.status().role for each in reflected.members[:2]] == ["reflector"] * 2
        assert not lost()


def test_a_node_that_never_was_there_waits_for_the_api_server(mesh: Cluster) -> None:
    member = mesh.members[2]
    with away(mesh):
        end_without_intent(member)
        member.agent.start()
        wait_until(lambda: member.says("waiting for the cluster's intent"), SOON, "it says what it waits for")
        member.agent.must_run()
    wait_for_socket(member.agent, member.socket, SOON)
    mesh.wait_sessions(2)
    mesh.wait_up()


def test_an_agent_that_comes_back_without_its_node_withdraws(mesh: Cluster) -> None:
    member = mesh.members[2]
    own = mesh.prefixes(member.name)
    member.agent.kill()
    mesh.server.delete("Node", member.name)
    begin_again(member)
    wait_until(lambda: not own & member.own(), SOON, "its own entries are gone")
    wait_until(lambda: not own & mesh.members[0].learned(), SOON, "others have dropped it")
    mesh.create_node(member.name, *map(str, member.node.addresses))
    mesh.wait_up()


# -- an API server of which a part is missing ---------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404])
def test_services_that_may_not_be_read_hold_up_nothing_else(mesh: Cluster, status: int) -> None:
    """RBAC that was forgotten, or a kind that is not served."""
    first = mesh.members[0]
    mesh.server.faults.fail_next(1000, status, matching="/services?")
    mesh.announce("203.0.113.78")
    wait_until(lambda: f"/api/v1/services: {status}" in first.warnings(), SOON, "it is shown")
    mesh.make("BGPPeer", "other", {"address": "192.0.2.120", "asn": 64512})
    wait_until(lambda: "192.0.2.120" in first.peers(), SOON, "the new router is taken")
    begin_again(first)
    mesh.wait_sessions(2)
    mesh.server.faults.clear()
    wait_until(lambda: all(each.knows("203.0.113.78/32") for each in mesh.members), SOON, "it is announced")
    mesh.withdraw()
    mesh.server.delete("BGPPeer", "other")
    wait_until(lambda: not first.knows("203.0.113.78/32"), SOON, "it is withdrawn")


def test_definitions_that_come_after_the_agents_are_waited_for(mesh: Cluster) -> None:
    last = mesh.members[2]
    end_without_intent(last)
    mesh.server.faults.fail_next(1000, 404, matching="/podbgp.dev/")
    last.agent.start()
    wait_until(lambda: last.says("waiting for the cluster's intent"), SOON, "it waits")
    assert last.says("404")
    mesh.server.faults.clear()
    mesh.wait_sessions(2)  # while it waits, its API answers and its kernel keeps the routes
    mesh.wait_up()


def test_an_agent_starts_behind_a_slow_api_server(mesh: Cluster) -> None:
    last = mesh.members[2]
    wait_stored(last)
    mesh.server.faults.delay = 8.0
    with mesh.recorded() as lost:
        begin_again(last)
        assert last.says("started from the stored intent")
        mesh.wait_sessions(2)
        mesh.wait_up()
        mesh.server.faults.clear()
        assert not lost()
