"""What everybody follows of a cluster, and what stays in use of what is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from bgpd.config_file import load_host
from bgpd.kube.custom_values import BgpCluster, ClusterStatus, Phase, Reflector, Topology
from bgpd.kube.following import Following, Named, Table
from bgpd.kube.options import KubeOptions
from bgpd.kube.tables import ClusterTables
from bgpd.kube.watch import Batch
from routes.prefix import parse_address
from tests.unit.test_kube_intent import cluster


class NoWatches:
    """Tables that nobody fills."""

    def follow(self, _: object, changed: Callable[[Batch[Named]], None], __: object = None) -> Table[Named]:
        return Table(changed)


REFLECTOR = Reflector("n1", "uid-1", (parse_address("192.0.2.1"),), 7, Phase.ACTIVE)
OTHER = replace(REFLECTOR, node="n2", uid="uid-2")


def reflected(uid: str, *reflectors: Reflector, topology: Topology = Topology.REFLECTOR) -> BgpCluster:
    return cluster(topology, uid=uid, status=ClusterStatus(reflectors=reflectors))


def test_a_cluster_that_is_made_again_keeps_its_reflectors_until_others_are_named() -> None:
    tables = ClusterTables(
        KubeOptions(load_host(None, "agent"), "n1"), cast("Following", NoWatches()), lambda: None
    )

    def now(*changed: BgpCluster, deleted: tuple[BgpCluster, ...] = ()) -> tuple[Reflector, ...]:
        tables.clusters.take(Batch(changed, deleted))
        return () if tables.cluster is None else tables.cluster.status.reflectors

    first, again = reflected("a", REFLECTOR), reflected("b")
    assert now(first) == (REFLECTOR,)
    assert now(deleted=(first,)) == ()
    assert now(again) == (REFLECTOR,)
    assert now(reflected("b", OTHER)) == (OTHER,)
    assert now(reflected("b", topology=Topology.MESH)) == ()
    assert now(again) == ()  # those of before the mesh have gone
