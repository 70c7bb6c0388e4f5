"""What the controller says of the cluster and of each custom resource."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bgpd.kube.acceptance import Known, cluster_says, peer_says
from bgpd.kube.advertised_services import AdvertisedServices
from bgpd.kube.cluster_status import dedicated, reflectors_json, standing_from, topology_conditions
from bgpd.kube.custom_values import (
    AddressKind,
    BgpAdvertisement,
    BgpCluster,
    BgpPeer,
    ClusterStatus,
    Phase,
    Policies,
    ReflectorMode,
    ReflectorPlan,
    SecretKey,
    ServiceScope,
    Speakers,
    Topology,
)
from bgpd.kube.custom_values import Reflector as ReflectorSeen
from bgpd.kube.election import Reflector
from bgpd.kube.objects import Node, Pod, Service
from bgpd.kube.review import review
from routes.prefix import Prefix, parse_address

POD_RANGE = Prefix.parse("10.244.0.0/16")
R = Reflector("r", "uid-r", (parse_address("192.0.2.9"),), 1, Phase.ACTIVE)

# -- the cluster's status -------------------------------------------------------------------------------

CLUSTER = BgpCluster("default", "u", 1, 65000, Topology.REFLECTOR, (POD_RANGE,))


def test_dedicated_reflectors_are_where_their_pods_are() -> None:
    a = Node("a", "uid-a", addresses=(parse_address("192.0.2.97"),))
    pods = [
        Pod("r1", "ns", "p1", "a", host_network=True, ready=True),
        Pod("r2", "ns", "p2", "a", addresses=(parse_address("10.244.1.1"),)),
        Pod("r3", "ns", "p3", "a", host_network=True, deleting=True),
        Pod("r4", "ns", "p4", "a", host_network=True, phase="Failed"),
        Pod("r5", "ns", "p5", ""),
    ]
    found = dedicated(pods, {"a": a})
    assert [(each.uid, each.phase) for each in found] == [
        ("p1", Phase.ACTIVE), ("p2", Phase.STARTING), ("p3", Phase.DRAINING),
    ]  # fmt: skip
    assert found[0].addresses == a.addresses
    assert found[1].addresses == (parse_address("10.244.1.1"),)


def test_a_status_has_room_for_so_many_reflectors_and_those_that_leave_give_way() -> None:
    leaving = [replace(R, uid=f"d{number}", phase=Phase.DRAINING) for number in range(10)]
    serving = [replace(R, uid=f"a{number}") for number in range(9)]
    shown = [str(each["uid"]) for each in reflectors_json([*leaving, *serving])]
    assert len(shown) == 16
    assert {each.uid for each in serving} <= set(shown)


def test_who_begins_to_lead_goes_on_with_the_reflectors_there_are() -> None:
    seen = ReflectorSeen("a", "u", (parse_address("192.0.2.1"),), 7, Phase.DRAINING)
    cluster = replace(CLUSTER, status=ClusterStatus(reflectors=(seen,)))
    assert standing_from(cluster, 5.0).reflectors == (
        Reflector("a", "u", seen.addresses, 7, Phase.DRAINING, since=5.0),
    )


@pytest.mark.parametrize(
    ("cluster", "active", "nodes", "expected"),
    [
        (CLUSTER, 2, 9, "True AllActive"),
        (CLUSTER, 1, 9, "False SomeActive"),
        (CLUSTER, 1, 1, "True AllActive"),
        (CLUSTER, 0, 9, "False NoneActive"),
        (replace(CLUSTER, reflectors=ReflectorPlan(ReflectorMode.DEDICATED)), 1, 9, "True AllActive"),
        (replace(CLUSTER, topology=Topology.MESH), 0, 200, "True Fits"),
        (replace(CLUSTER, topology=Topology.MESH), 0, 201, "False MeshTooLarge"),
    ],
)
def test_the_topology_says_what_it_lacks(cluster: BgpCluster, active: int, nodes: int, expected: str) -> None:
    (said,) = topology_conditions(cluster, [R] * active, nodes)
    assert f"{said.status} {said.reason}" == expected


# -- custom resources -----------------------------------------------------------------------------------


def test_references_are_looked_for_and_secrets_not_heard_of_are_not_missing() -> None:
    secrets = {"s": frozenset({"password"}), "none": None}
    known = Known(frozenset({"p"}), frozenset({"broken"}), secrets, "ns", Topology.FABRIC)

    def found(policies: Policies, secret: SecretKey | None) -> str:
        return cluster_says(replace(CLUSTER, policies=policies, password_secret=secret), known)[1].message

    assert found(Policies(("p",)), SecretKey("s")) == ""
    assert found(Policies(("q",), ("broken",)), None) == (
        "policies: there is no BGPPolicy q; policies: BGPPolicy broken is invalid"
    )
    assert "no Secret none in namespace ns" in found(Policies(), SecretKey("none"))
    assert "no key other" in found(Policies(), SecretKey("s", "other"))
    assert found(Policies(), SecretKey("not-heard-of-yet")) == ""


def test_a_peer_of_reflectors_is_of_no_use_where_there_are_none() -> None:
    peer = BgpPeer("t", "u", 1, 65001, speakers=Speakers.REFLECTORS)
    known = Known(frozenset(), frozenset(), {}, "ns", Topology.FABRIC)
    assert peer_says(peer, known)[0].reason == "NotUsed"
    assert peer_says(peer, replace(known, topology=Topology.REFLECTOR))[0].reason == "Valid"
    assert peer_says(peer, replace(known, topology=None))[0].message == "there is no BGPCluster"


def test_an_object_that_can_not_be_read_keeps_its_name_and_what_was_said_of_it() -> None:
    def refuse(_raw: bytes) -> int:
        raise ValueError("spec.x: 1 is wrong")

    raw = b"""{"metadata": {"name": "a", "uid": "u", "generation": 4}, "status": {"observedGeneration": 3,
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Valid", "message": "",
        "lastTransitionTime": "2026-01-31T12:00:00Z"}]}}"""
    found = review(refuse)(raw)
    assert (found.name, found.uid, found.generation, found.value) == ("a", "u", 4, None)
    assert found.problem == "spec.x: 1 is wrong"
    assert found.observed_generation == 3
    assert found.conditions[0].last_transition == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert review(len)(b'{"metadata": {"name": "a"}, "status": 5}').conditions == ()
    with pytest.raises(ValueError, match="metadata"):
        review(len)(b"{}")


def test_services_are_counted_as_they_come_and_go() -> None:
    both = BgpAdvertisement("both", "u", 1, frozenset({AddressKind.CLUSTER_IP, AddressKind.EXTERNAL_IP}))
    shop = replace(both, name="shop", scope=ServiceScope(namespaces=frozenset({"shop"})))
    web = Service("web", "shop", "1", cluster_ips=(parse_address("10.96.0.1"),))
    headless = Service("db", "shop", "2")
    counted = AdvertisedServices()
    counted.advertisements_replaced({"both": both, "shop": shop}, [web, headless])
    assert (counted.count("both"), counted.count("shop"), counted.count("none")) == (1, 1, 0)
    counted.service_changed(replace(web, namespace="other", uid="3"))
    assert (counted.count("both"), counted.count("shop")) == (2, 1)
    counted.service_deleted(web.key)
    assert (counted.count("both"), counted.count("shop")) == (1, 0)
    counted.advertisements_replaced({"both": both}, [])
    assert (counted.count("both"), counted.count("shop")) == (1, 0)
