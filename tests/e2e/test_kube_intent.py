"""What changes in a cluster reaches its nodes without a restart, or by one in place."""

from __future__ import annotations

import base64
import time

from bgpd.lab import netns
from tests.e2e.kube_stories import ASN, NAMESPACE, SOON, Cluster, Member, begin_again
from tests.interop.harness.speaker import wait_until

BEFORE_A_RESTART = 10.5
"""An agent begins again in place at the earliest this long after it began."""


def does(member: Member, text: str) -> bool:
    """Whether the intent that an agent keeps has this in it."""
    return text in (member.folder / "state" / "agent-intent.json").read_text()


def mature(*members: Member) -> None:
    """Wait until these may begin again in place."""
    for member in members:
        time.sleep(max(0.0, member.status().started + BEFORE_A_RESTART - time.time()))


# -- nodes --------------------------------------------------------------------------------------------


def test_a_node_that_is_deleted_and_created_again(mesh: Cluster) -> None:
    first, last = mesh.members[0], mesh.members[2]
    own = mesh.prefixes(last.name)
    begun = time.monotonic()
    mesh.server.delete("Node", last.name)
    wait_until(lambda: not own & first.learned(), 5.0, "its routes are gone everywhere in 5 s")
    assert time.monotonic() - begun < 5.0
    wait_until(lambda: "the Node was deleted" in last.warnings(), SOON, "it says why")
    mesh.create_node(last.name, *map(str, last.node.addresses))
    mesh.wait_up()


def test_two_nodes_with_one_prefix_keep_what_they_have_alone(mesh: Cluster) -> None:
    first = mesh.members[0]
    own = sorted(map(str, mesh.prefixes(first.name)))
    mesh.create_node("twin", "192.0.2.99", cidrs=tuple(own))
    wait_until(lambda: "is also the podCIDR of node twin" in first.warnings(), SOON, "it is reported")
    mesh.server.delete("Node", "twin")
    wait_until(lambda: "podCIDR" not in first.warnings(), SOON, "it is over")
    mesh.wait_up()


def test_a_node_whose_addresses_disappear_keeps_its_sessions(mesh: Cluster) -> None:
    last = mesh.members[2]
    addresses = mesh.addresses(last.name)
    with mesh.undisturbed():
        mesh.set_addresses(last.name)
        wait_until(lambda: "status.addresses is empty" in last.warnings(), SOON, "it is reported")
        time.sleep(1.0)
        mesh.set_addresses(last.name, *addresses)
        wait_until(lambda: "status.addresses" not in last.warnings(), SOON, "it is over")


def test_a_changed_address_is_followed_by_the_same_process(mesh: Cluster) -> None:
    last = mesh.members[2]
    before, pid = mesh.addresses(last.name), last.agent.pid
    mature(last)
    netns.batch(last.namespace, ["address add 192.0.2.213/24 dev fabric0"])
    mesh.set_addresses(last.name, "192.0.2.213", *before[1:])
    for member in mesh.members[:2]:
        wait_until(lambda: "192.0.2.213" in member.established(), SOON, "a session to the new address")  # noqa: B023
    mesh.wait_up()
    assert last.agent.pid == pid
    last.agent.must_run()
    mature(last)
    mesh.set_addresses(last.name, *before)
    mesh.wait_sessions(2)
    mesh.wait_up()


# -- the cluster --------------------------------------------------------------------------------------


def test_a_cluster_that_is_deleted_changes_nothing(mesh: Cluster) -> None:
    with mesh.undisturbed():
        mesh.server.delete("BGPCluster", "default")
        wait_until(lambda: all("no BGPCluster" in each.warnings() for each in mesh.members), SOON, "reported")
        time.sleep(1.0)
        mesh.make_cluster("mesh")
        wait_until(lambda: not any("no BGPCluster" in each.warnings() for each in mesh.members), SOON, "over")


def test_another_as_number_loses_no_route(mesh: Cluster) -> None:
    mature(*mesh.members)
    pids = [each.agent.pid for each in mesh.members]
    with mesh.recorded() as lost:
        mesh.change_cluster(asn=65001)
        mesh.wait_as(65001)
        mesh.wait_sessions(2)
        time.sleep(11.0)  # routes that nobody announces any more would be held for ten seconds
        mesh.wait_up()
        mesh.change_cluster(asn=ASN)
        mesh.wait_as(ASN)
        mesh.wait_sessions(2)
        time.sleep(11.0)
        mesh.wait_up()
        gone = lost()
        assert not gone, f"{gone}\n{mesh.logs()}"
    assert [each.agent.pid for each in mesh.members] == pids


def test_from_a_mesh_to_reflectors_and_back_loses_no_route(mesh: Cluster) -> None:
    mature(*mesh.members)
    mesh.elect("node1", "node2")
    mesh_of = {
        each.name: {other.address for other in mesh.members if other is not each} for each in mesh.members
    }
    with mesh.recorded() as lost:
        mesh.change_cluster(topology="reflector")
        reflectors = {each.address for each in mesh.members[:2]}
        mesh.wait_sessions_with({each.name: reflectors for each in mesh.members})
        time.sleep(11.0)
        mesh.wait_up()
        mesh.change_cluster(topology="mesh")
        mesh.wait_sessions_with(mesh_of)
        time.sleep(11.0)
        mesh.wait_up()
        gone = lost()
        assert not gone, f"{gone}\n{mesh.logs()}"


# -- passwords ----------------------------------------------------------------------------------------


def secret(text: str) -> dict[str, object]:
    data = {"password": base64.b64encode(text.encode()).decode()}
    meta = {"name": "nodes", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}


def test_a_password_comes_and_changes_without_a_restart_and_a_missing_one_fails_closed(mesh: Cluster) -> None:
    pids = [each.agent.pid for each in mesh.members]
    mesh.server.create(secret("first"))
    mesh.change_cluster(passwordSecret={"name": "nodes"})
    wait_until(lambda: all(does(each, '"first"') for each in mesh.members), SOON, "all use the password")
    mesh.wait_sessions(2)
    mesh.server.patch("Secret", "nodes", {"data": secret("second")["data"]}, namespace=NAMESPACE)
    wait_until(lambda: all(does(each, '"second"') for each in mesh.members), SOON, "all use the new one")
    mesh.wait_sessions(2)
    mesh.wait_up()
    assert [each.agent.pid for each in mesh.members] == pids
    with mesh.undisturbed():
        mesh.server.delete("Secret", "nodes", NAMESPACE)
        wait_until(lambda: "last password serves" in mesh.members[0].warnings(), SOON, "it is reported")
        time.sleep(1.0)
    last = mesh.members[2]
    begin_again(last)
    wait_until(lambda: "no session without it" in last.warnings(), SOON, "it says what it lacks")
    assert last.established() == {}
    mesh.server.create(secret("third"))
    mesh.wait_sessions(2)
    mesh.wait_up()


def test_a_password_between_nodes_and_reflectors_comes_and_changes_and_no_route_is_lost(
    reflected: Cluster,
) -> None:
    with reflected.recorded() as lost:
        for text in ("first", "second"):
            if text == "first":
                reflected.server.create(secret(text))
                reflected.change_cluster(passwordSecret={"name": "nodes"})
            else:
                reflected.server.patch("Secret", "nodes", {"data": secret(text)["data"]}, namespace=NAMESPACE)
            wait_until(lambda: all(does(each, f'"{text}"') for each in reflected.members), SOON, text)  # noqa: B023  asked at once
            reflected.wait_sessions(2)
            reflected.wait_up()
        gone = lost()
        assert not gone, f"{gone}\n{reflected.logs()}"
