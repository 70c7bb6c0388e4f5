"""What the lab shows of Services: every way into a cluster works over the routed network.

Connections are made by a client behind the fabric router, which is in no way part of the cluster, and judged
by which pod answered and whom that pod saw; paths by the router's own kernel.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network

import msgspec

from bgpd.kube.objects import decode_service
from bgpd.lab.command import LabError
from bgpd.lab.kube_ask import Reply, ask, look_up
from bgpd.lab.kube_cluster import KubeCluster, eventually
from bgpd.lab.kube_fabric import ROUTER_ADDRESSES, TOR, Outside
from bgpd.lab.kube_pods import DNS_IMAGE, INGRESS_IMAGE
from bgpd.lab.netns import run_in
from bgpd.lab.plan import FIRST_ROUTER_ASN, Address
from bgpd.lab.present import Presenter

POOLS = ("203.0.113.0/26", "2001:db8:113::/120")
OWN_CLASS = {"podbgp.dev/load-balancer-class": "podbgp.dev/bgp"}
"""What `loadBalancerClass` says, where the API server does not know that field yet (before 1.21)."""
HOST_PORT = 8088
CLOSED_PORT = 81
DNS_PORTS = ((53, "UDP", 5353),)
NAME = "web.default.svc"
TRIES = 80
"""Connections that are made until every endpoint has answered."""
IN_A_ROW = 8
"""Connections without an error, after which kube-proxy has heard of a Service on all nodes that are used."""
REFUSED_WITHIN = 1.0
MOST_FORWARDED = 8
"""Packets that the router may forward for one that is refused; one that goes round is forwarded 60 times."""
FAMILY_NAMES = {4: "IPv4", 6: "IPv6"}


@dataclass(frozen=True, slots=True)
class Balanced:
    """A LoadBalancer Service and the addresses that it was given."""

    name: str
    app: str
    local: bool
    addresses: tuple[Address, ...]
    cluster_addresses: tuple[Address, ...]
    node_port: int


def outside_of(cluster: KubeCluster) -> Outside:
    """The router and the client; LabError where there are none."""
    if cluster.outside is None:
        raise LabError("this lab has no router")
    return cluster.outside


def announce_services(cluster: KubeCluster) -> None:
    """What the cluster's owner writes once: the router, a pool of addresses, and what is announced.

    Each node peers with the router, which so has every node's path: from a reflector it would hear one.
    """
    families = 2 if cluster.network.plan.dual_stack else 1
    for number, address in enumerate(ROUTER_ADDRESSES[:families]):
        peer = {"address": str(address), "asn": FIRST_ROUTER_ASN, "speakers": "Nodes"}
        cluster.apply("BGPPeer", f"{TOR}-{number}" if number else TOR, peer)
    cluster.apply("BGPAddressPool", "public", {"ranges": list(POOLS[:families])})
    cluster.apply("BGPAdvertisement", "all", {"addresses": ["ClusterIP", "ExternalIP", "LoadBalancerIP"]})


# -- making them --------------------------------------------------------------------------------------


def balance(cluster: KubeCluster, name: str, app: str, *, local: bool, within: float = 30.0) -> Balanced:
    """A LoadBalancer Service in front of an app's pods, once it has its addresses."""
    cluster.create_service(name, app, "LoadBalancer", annotations=OWN_CLASS, local=local)
    families = 2 if cluster.network.plan.dual_stack else 1

    def look() -> Balanced | None:
        raw = cluster.api.get(f"/api/v1/namespaces/default/services/{name}")
        service = decode_service(raw)
        given = sorted((ip_address(address) for address in service.ingress), key=lambda each: each.version)
        if len(given) < families:
            return None
        inside = tuple(ip_address(each) for each in service.cluster_ips)
        return Balanced(name, app, local, tuple(given), inside, _node_port(raw))

    return eventually(look, f"Service {name} has its addresses", within)


class _Port(msgspec.Struct):
    nodePort: int = 0  # noqa: N815 - as in the API


class _Spec(msgspec.Struct):
    ports: list[_Port]


class _Service(msgspec.Struct):
    spec: _Spec


def _node_port(raw: bytes) -> int:
    return msgspec.json.decode(raw, type=_Service).spec.ports[0].nodePort


def nodes_for(cluster: KubeCluster, service: Balanced, without: Iterable[str] = ()) -> list[str]:
    """The nodes that should announce a Service: all of them, or those with a ready endpoint."""
    names = cluster.ready_pods(service.app).values() if service.local else cluster.nodes
    return sorted({*names} - {*without})


# -- the router's view --------------------------------------------------------------------------------


def router_next_hops(cluster: KubeCluster, address: Address) -> set[Address]:
    """Where the router's kernel sends packets for an address that has a route of its own."""
    prefix = str(ip_network(address))
    argv = ["ip", "-json", f"-{address.version}", "route", "show", "exact", prefix]
    text = run_in(outside_of(cluster).router_namespace, argv)
    hops: set[Address] = set()
    for route in json.loads(text or "[]"):
        gateways = [route, *route.get("nexthops", ())]
        hops |= {ip_address(each["gateway"]) for each in gateways if "gateway" in each}
    return hops


def wait_for_route(
    cluster: KubeCluster, address: Address, nodes: Iterable[str], within: float = 30.0
) -> None:
    """Until the router sends an address's packets to exactly these nodes."""
    links = _link_addresses(cluster, address.version)
    wanted = {links[name] for name in nodes}

    def look() -> bool:
        found = router_next_hops(cluster, address)
        if found != wanted:
            raise LabError(f"the router sends them to {sorted(map(str, found)) or 'nobody'}")
        return True

    eventually(look, f"packets for {address} go to {', '.join(map(str, sorted(wanted, key=str)))}", within)


def _link_addresses(cluster: KubeCluster, version: int) -> dict[str, Address]:
    return {
        name: own
        for name, node in cluster.nodes.items()
        for own in node.node.addresses
        if own.version == version
    }


def shown_paths(cluster: KubeCluster, service: Balanced, out: Presenter) -> bool:
    """Whether the router has an address as a host route over the right nodes, in each family."""
    names = nodes_for(cluster, service)
    policy = "Local" if service.local else "Cluster"
    try:
        for address in service.addresses:
            wait_for_route(cluster, address, names)
    except LabError as error:
        out.verdict(f"{policy}: ECMP at the router", good=False, text=str(error))
        return False
    shown = " and ".join(str(ip_network(address)) for address in service.addresses)
    out.verdict(f"{policy}: ECMP at the router", good=True, text=f"{shown} over {', '.join(names)}")
    return True


# -- connections --------------------------------------------------------------------------------------


def settled(namespace: str, address: Address, port: int, protocol: str = "TCP") -> Reply:
    """Wait until connections succeed one after the other; the last one's answer."""

    def look() -> Reply:
        replies = [ask(namespace, address, port, protocol) for _ in range(IN_A_ROW)]
        return replies[-1]

    return eventually(look, f"answers from {address} port {port}", 30.0)


def reach_all(
    cluster: KubeCluster, title: str, address: Address, port: int, expected: set[str], out: Presenter, *,
    protocol: str = "TCP", unchanged: bool = False,
) -> bool:  # fmt: skip
    """Connect until every endpoint has answered; whether each did, and saw what it should."""
    namespace = outside_of(cluster).client_namespace
    settled(namespace, address, port, protocol)
    seen: Counter[str] = Counter()
    errors, translated = 0, 0
    for _ in range(TRIES):
        try:
            reply = ask(namespace, address, port, protocol)
        except LabError:
            errors += 1
            continue
        seen[reply.pod] += 1
        translated += not reply.untranslated
        if set(seen) >= expected:
            break
    good = set(seen) == expected and not errors and not (unchanged and translated)
    told = ", ".join(f"{name} {number}x" for name, number in sorted(seen.items()))
    failed = f", {errors} failed" if errors else ""
    whom = "" if not unchanged else ", which see another address" if translated else ", which see the client"
    out.verdict(title, good, f"{address} port {port}: {told or 'nobody'} answered{whom}{failed}")
    return good


def ways_in(cluster: KubeCluster, services: Iterable[Balanced], host: str, out: Presenter) -> bool:
    """LoadBalancer, ClusterIP, NodePort and HostPort, in each family; `host` is the pod with the HostPort."""
    good = []
    for service in services:
        pods, policy = set(cluster.ready_pods(service.app)), "Local" if service.local else "Cluster"
        for address in service.addresses:
            title = f"LoadBalancer, {policy}, {FAMILY_NAMES[address.version]}"
            good.append(reach_all(cluster, title, address, 80, pods, out, unchanged=service.local))
        if service.local:
            continue
        for address in service.cluster_addresses:
            title = f"ClusterIP, {FAMILY_NAMES[address.version]}"
            good.append(reach_all(cluster, title, address, 80, pods, out))
        for address in next(iter(cluster.nodes.values())).node.addresses:
            title = f"NodePort, {FAMILY_NAMES[address.version]}"
            good.append(reach_all(cluster, title, address, service.node_port, pods, out))
    node = cluster.nodes[cluster.ready_pods(host)[host]].node
    for address in node.addresses:
        title = f"HostPort, {FAMILY_NAMES[address.version]}"
        good.append(reach_all(cluster, title, address, HOST_PORT, {host}, out, unchanged=True))
    return all(good)


def ingress(cluster: KubeCluster, name: str, behind: Balanced, out: Presenter) -> bool:
    """An HTTP proxy behind a LoadBalancer of its own, which asks a Service and tells it who the client is."""
    backend = f"{behind.cluster_addresses[0]}:80"
    if behind.cluster_addresses[0].version == 6:
        backend = f"[{behind.cluster_addresses[0]}]:80"
    cluster.create_pod(name, image=INGRESS_IMAGE, arguments=[backend])
    cluster.pod_addresses(name)
    front = balance(cluster, name, name, local=True)
    address, client = front.addresses[0], outside_of(cluster)
    wait_for_route(cluster, address, nodes_for(cluster, front))
    pods = set(cluster.ready_pods(behind.app))
    good = reach_all(cluster, "Ingress behind LoadBalancer", address, 80, pods, out, protocol="HTTP")
    told = ask(client.client_namespace, address, 80, "HTTP").forwarded_for
    known = told == str(client.client_addresses[0])
    out.verdict("and the client is known", known, f"the proxy says that it asks for {told or 'nobody'}")
    return good and known


def names_are_found(cluster: KubeCluster, pod: str, behind: Balanced, out: Presenter) -> bool:
    """A pod looks a Service up at the ClusterIPs of the cluster's DNS server."""
    zone = [f"{NAME}={address}" for address in behind.cluster_addresses]
    cluster.create_pod("dns", image=DNS_IMAGE, arguments=zone, ports=("5353/UDP",))
    raw = json.dumps(cluster.create_service("dns", "dns", ports=DNS_PORTS))
    servers = [ip_address(each) for each in decode_service(raw.encode()).cluster_ips]
    cluster.pod_addresses("dns")
    namespace = cluster.pod_namespace(pod)
    good = True
    for server in servers:
        for address in behind.cluster_addresses:
            found = eventually(
                partial(look_up, namespace, server, NAME, address.version),
                f"the answer of the DNS server at {server}",
            )
            good = good and found == [address]
    shown = " and ".join(map(str, servers))
    out.verdict("pods look names up", good, f"{pod} found {NAME} at {shown}")
    return good


def closed_port_is_refused(cluster: KubeCluster, address: Address, out: Presenter) -> bool:
    """A port that no Service has is refused at once, and its packet does not go round until it dies."""
    client = outside_of(cluster)
    good = True
    for protocol in ("TCP", "UDP"):
        before, begun = _forwarded(client, address.version), time.monotonic()
        try:
            ask(client.client_namespace, address, CLOSED_PORT, protocol)
            how = "answered"
        except LabError as error:
            how = str(error)
        spent = time.monotonic() - begun
        forwarded = _forwarded(client, address.version) - before
        right = "refused" in how and spent < REFUSED_WITHIN and forwarded <= MOST_FORWARDED
        text = f"{address} port {CLOSED_PORT}: after {spent * 1000:.0f} ms, the router forwarded {forwarded}"
        out.verdict(f"a closed {protocol} port is refused", right, f"{text} packets")
        if "refused" not in how:
            out.say(f"     {how}")
        good = good and right
    return good


def _forwarded(client: Outside, version: int) -> int:
    """How many packets the router has forwarded."""
    if version == 6:
        text = run_in(client.router_namespace, ["cat", "/proc/net/snmp6"])
        return int(dict(line.split() for line in text.splitlines())["Ip6OutForwDatagrams"])
    lines = run_in(client.router_namespace, ["cat", "/proc/net/snmp"]).splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    return int(values[names.index("ForwDatagrams")])
