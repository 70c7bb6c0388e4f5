"""How many Services each BGPAdvertisement selects, kept up at the cost of what changes.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bgpd.kube.custom_values import AddressKind, BgpAdvertisement
from bgpd.kube.objects import Service

ServiceKey = tuple[str, str]


class AdvertisedServices:
    """Advertisements by name, and the Services that each is for."""

    def __init__(self) -> None:
        self._advertisements: dict[str, BgpAdvertisement] = {}
        self._selected: dict[str, set[ServiceKey]] = {}

    def count(self, name: str) -> int:
        return len(self._selected.get(name, ()))

    def advertisements_replaced(
        self, advertisements: Mapping[str, BgpAdvertisement], services: Iterable[Service]
    ) -> None:
        """These are all of them; `services` is read only where one selects others than before."""
        others = [name for name in self._advertisements if name not in advertisements]
        for name in others:
            del self._selected[name]
        before, self._advertisements = self._advertisements, dict(advertisements)
        changed = [
            each
            for name, each in advertisements.items()
            if name not in before or _selects(before[name]) != _selects(each)
        ]
        if not changed:
            return
        every = list(services)
        for each in changed:
            self._selected[each.name] = {service.key for service in every if _is_for(each, service)}

    def service_changed(self, service: Service) -> None:
        for name, each in self._advertisements.items():
            if _is_for(each, service):
                self._selected[name].add(service.key)
            else:
                self._selected[name].discard(service.key)

    def service_deleted(self, key: ServiceKey) -> None:
        for selected in self._selected.values():
            selected.discard(key)


def _selects(advertisement: BgpAdvertisement) -> tuple[object, ...]:
    return advertisement.addresses, advertisement.scope


def _is_for(advertisement: BgpAdvertisement, service: Service) -> bool:
    """Whether it is for this Service, and the Service has an address of a kind that it announces."""
    if not advertisement.scope.holds(service.namespace, service.labels):
        return False
    kinds = advertisement.addresses
    return bool(
        (AddressKind.CLUSTER_IP in kinds and service.cluster_ips)
        or (AddressKind.EXTERNAL_IP in kinds and service.external_ips)
        or (AddressKind.LOAD_BALANCER_IP in kinds and service.ingress and service.type == "LoadBalancer")
    )
