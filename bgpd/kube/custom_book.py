"""The custom resources as the controller knows them, and whether each of them can be used.

There are few of them, so that all of one kind are looked at again when one changed.  Pure: what has to be
said of them goes to the status desk.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from typing import TypeVar

from bgpd.kube import cluster_status, resources
from bgpd.kube.acceptance import Known, accepted, peer_says
from bgpd.kube.advertised_services import AdvertisedServices
from bgpd.kube.conditions import Say
from bgpd.kube.custom_values import (
    BgpAddressPool,
    BgpAdvertisement,
    BgpCluster,
    BgpPeer,
    BgpPolicy,
    Topology,
)
from bgpd.kube.load_balancers import LoadBalancers
from bgpd.kube.objects import Secret
from bgpd.kube.review import Reviewed
from bgpd.kube.status_desk import StatusDesk
from bgpd.kube.watch import Batch

T = TypeVar("T")


class Watched(Enum):
    """What the controller watches, and must have heard of before it decides anything."""

    CLUSTERS = auto()
    PEERS = auto()
    POLICIES = auto()
    ADVERTISEMENTS = auto()
    POOLS = auto()
    NODE_STATES = auto()
    NODES = auto()
    SERVICES = auto()
    PODS = auto()


class CustomBook:
    """By kind and name."""

    def __init__(self, desk: StatusDesk) -> None:
        self._desk = desk
        self.clusters: dict[str, Reviewed[BgpCluster]] = {}
        self.peers: dict[str, Reviewed[BgpPeer]] = {}
        self.policies: dict[str, Reviewed[BgpPolicy]] = {}
        self.advertisements: dict[str, Reviewed[BgpAdvertisement]] = {}
        self.pools: dict[str, Reviewed[BgpAddressPool]] = {}
        self.secrets: dict[str, frozenset[str] | None] = {}
        """Of those heard of, the keys, or None where there is none; nobody here needs what they hold."""

    # -- what the watches say ---------------------------------------------------------------------

    def take(self, table: Watched, batch: Batch[Reviewed[T]]) -> None:
        known: dict[str, Reviewed[T]]
        known, path = self._of(table)
        for each in batch.deleted:
            if (found := known.get(each.name)) is not None and found.uid == each.uid:
                del known[each.name]
                self._desk.gone(f"{path}/{each.name}")
        for each in batch.changed:
            known[each.name] = each
            fields = {"observedGeneration": each.observed_generation, **_fields(each.value)}
            self._desk.seen(f"{path}/{each.name}", each.uid, each.generation, fields, each.conditions)

    def _of(self, table: Watched) -> tuple[dict[str, Reviewed[T]], str]:
        tables = {
            Watched.CLUSTERS: (self.clusters, resources.CLUSTERS.path),
            Watched.PEERS: (self.peers, resources.PEERS.path),
            Watched.POLICIES: (self.policies, resources.POLICIES.path),
            Watched.ADVERTISEMENTS: (self.advertisements, resources.ADVERTISEMENTS.path),
            Watched.POOLS: (self.pools, resources.POOLS.path),
        }
        return tables[table]  # type: ignore[return-value]  # each table has its own kind of value

    def take_secret(self, name: str, batch: Batch[Secret]) -> None:
        """Each is followed alone, so that only what is named is read."""
        found = [secret for secret in batch.changed if secret.name == name]
        self.secrets[name] = frozenset(found[-1].data) if found else None

    def forget_secret(self, name: str) -> None:
        self.secrets.pop(name, None)

    # -- what is asked ----------------------------------------------------------------------------

    @property
    def valid_advertisements(self) -> Mapping[str, BgpAdvertisement]:
        return {each.name: each.value for each in self.advertisements.values() if each.value is not None}

    @property
    def secrets_named(self) -> set[str]:
        """Secrets that the cluster or a peer needs."""
        keys = [each.value.password_secret for each in self.peers.values() if each.value is not None]
        keys += [each.value.password_secret for each in self.clusters.values() if each.value is not None]
        return {key.name for key in keys if key is not None}

    def known(self, namespace: str, topology: Topology | None) -> Known:
        """What references may name."""
        return Known(
            policies=frozenset(each.name for each in self.policies.values() if each.value is not None),
            invalid_policies=frozenset(each.name for each in self.policies.values() if each.value is None),
            secrets=self.secrets,
            namespace=namespace,
            topology=topology,
        )

    # -- what is said -----------------------------------------------------------------------------

    def accept(self, now: float, wall: datetime, known: Known) -> None:
        """Say of peers and policies whether they can be used."""
        for name, peer in self.peers.items():
            says = peer_says(peer.value, known) if peer.value is not None else [accepted(peer)]
            self._desk.want(now, wall, f"{resources.PEERS.path}/{name}", says, {})
        for name, policy in self.policies.items():
            self._desk.want(now, wall, f"{resources.POLICIES.path}/{name}", [accepted(policy)], {})

    def count(
        self, now: float, wall: datetime, balancers: LoadBalancers, advertised: AdvertisedServices
    ) -> None:
        """Say of advertisements and pools whether they can be used, and for how much they are."""
        for name, each in self.advertisements.items():
            services = {"services": advertised.count(name)} if each.value is not None else {}
            self._desk.want(now, wall, f"{resources.ADVERTISEMENTS.path}/{name}", [accepted(each)], services)
        usage = balancers.usage()
        for name, pool in self.pools.items():
            counts, problem = usage.get(name), balancers.pool_problems.get(name)
            refused = pool.value is not None and problem is not None
            says = [Say("Accepted", False, *problem)] if refused and problem else [accepted(pool)]
            fields: dict[str, object] = {}
            if counts is not None:
                fields = {"total": str(counts[1]), "allocated": counts[0]}
            self._desk.want(now, wall, f"{resources.POOLS.path}/{name}", says, fields)


def _fields(value: object) -> dict[str, object]:
    """What a status says beside its conditions."""
    if isinstance(value, BgpCluster):
        reflectors = cluster_status.reflectors_json(value.status.reflectors)
        return {"nodes": value.status.nodes, "reflectors": reflectors}
    if isinstance(value, BgpAdvertisement):
        return {"services": value.status.services}
    if isinstance(value, BgpAddressPool):
        return {"total": str(value.status.total), "allocated": value.status.allocated}
    return {}
