"""What everybody follows: only what is named, and of what is deleted under its users the last state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from bgpd.config import Config, SpeakerConfig
from bgpd.kube.custom_values import BgpCluster, BgpPolicy, Policies, SecretKey, Topology
from bgpd.kube.drain_watch import DrainWatch
from bgpd.kube.following import Following, Named, Settle, Table
from bgpd.kube.intent import agent_intent, reflector_intent
from bgpd.kube.known import Batch
from bgpd.kube.objects import Node, Pod, Secret
from bgpd.kube.options import KubeOptions
from bgpd.kube.tables import ClusterTables
from bgpd.kube.watch import Resource
from bgpd.node.drain import IN_SERVICE, SHUTDOWN_TIME
from bgpd.reload import check_policies
from routes.prefix import Prefix, parse_address
from routes.route_policy import Action, RoutePolicy

T = TypeVar("T", bound=Named)
KEY = SecretKey("nodes", "password")
OPTIONS = KubeOptions(host=Config("", SpeakerConfig(0, 0)), node="n1")
NODE = Node("n1", "uid1", addresses=(parse_address("192.0.2.1"),), pod_cidrs=(Prefix.parse("10.244.1.0/24"),))
OTHER = Node(
    "n2", "uid2", addresses=(parse_address("192.0.2.2"),), pod_cidrs=(Prefix.parse("10.244.2.0/24"),)
)
CLUSTER = BgpCluster("default", "c", 1, 65000, Topology.MESH, (Prefix.parse("10.244.0.0/16"),))


class FollowingByHand:
    """Hands out tables that a test feeds, by the kind of object."""

    def __init__(self) -> None:
        self.tables: dict[str, Table[Named]] = {}

    def follow(
        self, resource: Resource[T], changed: Callable[[Batch[T]], None], settle: Settle[T] | None = None
    ) -> Table[T]:
        table = Table(changed, settle)
        self.tables[resource.kind] = table  # type: ignore[assignment]
        return table

    def drop(self, table: Table[Named]) -> None:
        self.tables = {kind: each for kind, each in self.tables.items() if each is not table}

    def feed(self, kind: str, *values: Named, gone: tuple[Named, ...] = ()) -> None:
        self.tables[kind].take(Batch(changed=values, deleted=gone))


def tables_of(cluster: BgpCluster) -> tuple[FollowingByHand, ClusterTables]:
    by_hand = FollowingByHand()
    tables = ClusterTables(OPTIONS, cast("Following", by_hand), lambda: None)
    by_hand.feed("Node", NODE)
    by_hand.feed("BGPPeer")
    by_hand.feed("BGPCluster", cluster)
    tables.follow_what_is_named()
    return by_hand, tables


def reasons(tables: ClusterTables) -> list[tuple[str, str]]:
    return [(problem.kind, problem.name) for problem in tables.kept()]


def test_a_deleted_secret_keeps_its_sessions_and_one_that_never_was_starts_none() -> None:
    by_hand, tables = tables_of(replace(CLUSTER, password_secret=KEY))
    assert not tables.synced
    by_hand.feed("Secret")
    assert tables.synced
    assert tables.password(KEY) is None
    secret = Secret("nodes", "podbgp-system", "s1", {"password": b"first\n"})
    by_hand.feed("Secret", secret)
    assert tables.password(KEY) == "first"
    for unusable in (b"", b"\xff", b"two\nlines", b"x" * 81):
        by_hand.feed("Secret", replace(secret, data={"password": unusable}))
        assert (tables.password(KEY), reasons(tables)) == ("first", [("Secret", "nodes")])
    by_hand.feed("Secret", gone=(secret,))
    assert (tables.password(KEY), reasons(tables)) == ("first", [("Secret", "nodes")])
    by_hand.feed("Secret", replace(secret, uid="s2", data={"password": b"second"}))
    assert (tables.password(KEY), reasons(tables)) == ("second", [])


def test_a_password_that_nothing_names_any_more_is_forgotten() -> None:
    by_hand, tables = tables_of(replace(CLUSTER, password_secret=KEY))
    by_hand.feed("Secret", Secret("nodes", "podbgp-system", "s1", {"password": b"first"}))
    assert tables.password(KEY) == "first"
    by_hand.feed("BGPCluster", CLUSTER)
    tables.follow_what_is_named()
    assert "Secret" not in by_hand.tables
    assert tables.password(KEY) is None


def test_a_cluster_that_is_lost_and_made_again_before_its_secret_ends_no_session() -> None:
    lost = replace(CLUSTER, password_secret=KEY)
    by_hand, tables = tables_of(lost)
    secret = Secret("nodes", "podbgp-system", "s1", {"password": b"first"})
    by_hand.feed("Secret", secret)
    assert tables.password(KEY) == "first"
    by_hand.feed("BGPCluster", gone=(lost,))
    tables.follow_what_is_named()
    by_hand.feed("Secret", gone=(secret,))
    by_hand.feed("BGPCluster", replace(lost, uid="again"))
    tables.follow_what_is_named()
    assert tables.password(KEY) == "first"


def test_a_deleted_policy_judges_on_until_nothing_names_it() -> None:
    by_hand, tables = tables_of(replace(CLUSTER, policies=Policies(imports=("strict",))))
    strict = BgpPolicy("strict", "p1", 1, RoutePolicy("strict", default=Action.REJECT))
    by_hand.feed("BGPPolicy", strict)
    by_hand.feed("BGPPolicy", gone=(strict,))
    tables.follow_what_is_named()
    found = tables.facts({}, (NODE, OTHER))
    assert found is not None
    assert [peer.shutdown for peer in agent_intent(found).config.peers] == [False]
    assert reasons(tables) == [("BGPPolicy", "strict")]
    by_hand.feed("BGPCluster", CLUSTER)
    tables.follow_what_is_named()
    assert reasons(tables) == []
    assert "BGPPolicy" not in by_hand.tables


def test_without_the_policy_that_the_cluster_names_there_is_no_session_and_no_crash() -> None:
    by_hand, tables = tables_of(replace(CLUSTER, policies=Policies(exports=("lost",))))
    by_hand.feed("BGPPolicy")
    found = tables.facts({}, (NODE, OTHER))
    assert found is not None
    for made in (agent_intent(found), reflector_intent(found)):
        assert [problem.reason for problem in made.problems] == ["UnknownPolicy"]
        check_policies(made.config)
    assert all(peer.shutdown for peer in agent_intent(found).config.peers)
    reflector = reflector_intent(found).config.reflector
    assert reflector is not None
    assert [clients.members for clients in reflector.clients] == [frozenset(), frozenset()]


def test_a_node_that_never_had_an_address_makes_no_intent() -> None:
    by_hand, tables = tables_of(CLUSTER)
    assert tables.facts({}) is not None
    by_hand.feed("Node", gone=(NODE,))
    by_hand.feed("Node", replace(NODE, uid="uid9", addresses=()))
    assert tables.node is not None
    assert tables.facts({}) is None


def test_pods_are_followed_only_while_the_node_leaves_and_unknown_ones_count() -> None:
    by_hand = FollowingByHand()
    drain = DrainWatch(cast("Following", by_hand), "n1", lambda: None)
    assert drain.look(NODE, 0.0, lambda: 0) is IN_SERVICE
    assert by_hand.tables == {}
    cordoned = replace(NODE, unschedulable=True)
    assert drain.look(cordoned, 10.0, lambda: 0).announce_pods
    late = 10.0 + SHUTDOWN_TIME
    assert drain.look(cordoned, late, lambda: 0).announce_pods, "nothing is withdrawn by guess"
    pod = Pod("web", "default", "p1", node="n1")
    by_hand.feed("Pod", pod, replace(pod, name="proxy", uid="p2", host_network=True))
    assert drain.look(cordoned, late, lambda: 0).announce_pods
    by_hand.feed("Pod", gone=(pod,))
    assert not drain.look(cordoned, late, lambda: 0).announce_pods
    assert not drain.look(None, late, lambda: 0).announce_services
    assert drain.look(NODE, late, lambda: 0) is IN_SERVICE
    assert by_hand.tables == {}
