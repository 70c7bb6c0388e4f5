"""What the stand-in API server and the controllers behind it give out: addresses, ports, prefixes of pods."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from bgpd.lab.stand_in_api_server_json import Json, text


class Allocations:
    """Nothing is given twice; the prefixes of a Node that is gone are given to the next."""

    def __init__(self, pod_ranges: tuple[str, ...], service_range: str) -> None:
        self._pods = tuple(_subnets(pods) for pods in pod_ranges)
        self._returned: list[list[str]] = []
        self._services = ipaddress.ip_network(service_range).hosts()
        self._ports = iter(range(30000, 32768))

    def pod_cidrs(self) -> list[str]:
        """As nodeipam: a /24 (IPv6: a /64) of each range; nothing where one of them is used up."""
        if self._returned:
            return self._returned.pop(0)
        cidrs = [next(pods, "") for pods in self._pods]
        return [] if "" in cidrs else cidrs

    def give_back(self, cidrs: list[str]) -> None:
        if cidrs and self._pods:
            self._returned.append(cidrs)

    def complete_service(self, spec: Json) -> None:
        """The defaults of a Service's spec, its ClusterIP and its node ports."""
        kind = spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        if kind == "ExternalName":
            return
        if not text(spec, "clusterIP"):
            spec["clusterIP"] = str(next(self._services))
        address = text(spec, "clusterIP")
        spec.setdefault("clusterIPs", [address])
        spec.setdefault("ipFamilies", ["IPv6" if ":" in address else "IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("internalTrafficPolicy", "Cluster")
        outside = kind in ("NodePort", "LoadBalancer")
        if outside:
            spec.setdefault("externalTrafficPolicy", "Cluster")
        ports = spec.get("ports")
        for port in ports if isinstance(ports, list) else []:
            if isinstance(port, dict):
                port.setdefault("protocol", "TCP")
                port.setdefault("targetPort", port.get("port"))
                if outside and not port.get("nodePort"):
                    port["nodePort"] = next(self._ports)


def _subnets(cidr: str) -> Iterator[str]:
    pods = ipaddress.ip_network(cidr)
    for subnet in pods.subnets(new_prefix=24 if pods.version == 4 else 64):
        yield str(subnet)
