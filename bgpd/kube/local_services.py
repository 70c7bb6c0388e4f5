"""The Services of a cluster as one node announces them: followed only where an advertisement is for it.

Owns the tables and feeds `ServiceAnnouncements` with what changes in them.
"""

from __future__ import annotations

from collections.abc import Callable

from bgpd.kube import resources
from bgpd.kube.custom_values import BgpAddressPool, BgpCluster
from bgpd.kube.following import Following, Table
from bgpd.kube.objects import EndpointSlice, Node, Service
from bgpd.kube.service_claims import Limits
from bgpd.kube.services import ServiceAnnouncements
from bgpd.kube.watch import Batch


class LocalServices:
    """What this node announces of Services."""

    def __init__(self, following: Following, node: str, changed: Callable[[], None]) -> None:
        """`changed` is called when what is announced may be something else."""
        self._following = following
        self._changed = changed
        self.announcements = ServiceAnnouncements(node)
        self.advertisements = following.follow(resources.ADVERTISEMENTS, self._advertisements_changed)
        self._pools: Table[BgpAddressPool] | None = None
        self._services: Table[Service] | None = None
        self._slices: Table[EndpointSlice] | None = None
        self.limits = Limits()
        """Where service addresses may lie."""
        self._facts: tuple[object, ...] = ()
        self._version = ""
        self._waits = False
        """For the version, with an advertisement that is for this node."""

    @property
    def synced(self) -> bool:
        """Whether all that is followed was heard of."""
        tables = (self.advertisements, self._pools, self._services, self._slices)
        return not self._waits and all(table is None or table.synced for table in tables)

    @property
    def note(self) -> str:
        """Why what is known may not be all Services, in a sentence; empty when it is."""
        if not self.advertisements.synced:
            return "the BGPAdvertisements were not heard of yet"
        if self._waits or not self.synced:
            return "not all Services and EndpointSlices were heard of yet"
        if self._services is None:
            return "no BGPAdvertisement selects this node (nodeSelector), so its agent follows no Services"
        return ""

    def learn_version(self, version: str) -> None:
        """Which version of EndpointSlices the API server has; nothing is announced before that is known."""
        self._version = version
        self._changed()

    def look(self, cluster: BgpCluster, node: Node) -> None:
        """Follow Services if an advertisement is for this node, and take what its objects allow."""
        wanted = any(each.nodes.matches(node.labels) for each in self.advertisements.values.values())
        self._waits = wanted and not self._version
        if wanted and self._services is None and self._version:
            self._pools = self._following.follow(resources.POOLS, lambda _: self._changed())
            self._services = self._following.follow(resources.SERVICES, self._services_changed)
            self._slices = self._following.follow(
                resources.endpoint_slices(self._version), self._slices_changed
            )
        elif not wanted:
            self._follow_nothing()
        self.announcements.node_labels_replaced(node.labels)
        facts = (cluster.service_cidrs, tuple(self.pools), cluster.pod_cidrs, node.addresses)
        if facts != self._facts:
            self._facts = facts
            self.limits = Limits(*facts)
            self.announcements.limits_replaced(self.limits)

    @property
    def pools(self) -> list[BgpAddressPool]:
        """The address pools, where Services are announced."""
        return [] if self._pools is None else self._pools.in_order()

    def _follow_nothing(self) -> None:
        if self._slices is not None:
            for gone in self._slices.values.values():
                self.announcements.slice_deleted((gone.namespace, gone.name))
            self._following.drop(self._slices)
        if self._services is not None:
            for service in self._services.values.values():
                self.announcements.service_deleted(service.key)
            self._following.drop(self._services)
        if self._pools is not None:
            self._following.drop(self._pools)
        self._pools = self._services = self._slices = None

    def _advertisements_changed(self, _: object) -> None:
        self.announcements.advertisements_replaced(self.advertisements.in_order())
        self._changed()

    def _services_changed(self, batch: Batch[Service]) -> None:
        for service in batch.deleted:
            self.announcements.service_deleted(service.key)
        for service in batch.changed:
            self.announcements.service_changed(service)
        self._changed()

    def _slices_changed(self, batch: Batch[EndpointSlice]) -> None:
        for gone in batch.deleted:
            self.announcements.slice_deleted((gone.namespace, gone.name))
        for changed in batch.changed:
            self.announcements.slice_changed(changed)
        self._changed()
