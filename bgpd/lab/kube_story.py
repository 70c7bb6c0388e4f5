"""What the lab shows of a cluster: that its network keeps Kubernetes' promises, also while nodes come and go.

Each act is a function: something is done to the cluster as `kubectl` would do it, and judged by packets, by
the kernel's tables and by the router's.  It says what it saw and whether that is right.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, ip_address, ip_network
from itertools import count

from bgpd.kube.objects import decode_pod, decode_service
from bgpd.lab import prove
from bgpd.lab.command import LabError
from bgpd.lab.kube_ask import ask
from bgpd.lab.kube_cluster import KubeCluster, eventually
from bgpd.lab.kube_fabric import ROUTER_ADDRESSES
from bgpd.lab.netns import run_in
from bgpd.lab.plan import Address
from bgpd.lab.present import Presenter
from bgpd.lab.probe import Pinger
from bgpd.lab.prove import Host

PROOF_TIME = 10.0
NODE_GONE = 5.0
"""Seconds in which a deleted Node's routes must be gone everywhere."""
POOL = "203.0.113.0/26"
POOL_IPV6 = "2001:db8:113::/120"
HOST_PORT = 8088
CLOSED_PORT = 81
TRIES = 60
"""Connections that are made until every endpoint has answered."""
REFUSED_WITHIN = 1.0
LOOK = 1.0
TOR = "tor1"

_numbers = count()


# -- pods ---------------------------------------------------------------------------------------------


def pods_of(cluster: KubeCluster, names: Iterable[str]) -> list[Host]:
    """These pods, as ends of probes."""
    found = []
    for name in names:
        addresses = tuple(cluster.pod_addresses(name))
        node = decode_pod(cluster.api.get(f"/api/v1/namespaces/default/pods/{name}")).node
        found.append(Host(name, cluster.pod_namespace(name), node, addresses))
    return found


def every_pod_reaches_every_pod(cluster: KubeCluster, names: Sequence[str], out: Presenter) -> bool:
    """All pairs, by ping, and by TCP that tells whom the far end sees."""
    hosts = pods_of(cluster, names)
    asked = prove.probes(hosts, hosts)
    answers = prove.ping(asked, PROOF_TIME)
    reached = sum(answer.reached for answer in answers)
    out.verdict(
        "every pod reaches every pod", reached == len(asked), f"{reached} of {len(asked)} pings answered"
    )
    out.unanswered([answer for answer in answers if not answer.reached])
    told = prove.connect(asked, PROOF_TIME)
    unchanged = sum(answer.unchanged for answer in told)
    out.verdict("the source stays unchanged", unchanged == len(asked), f"{unchanged} of {len(asked)}: no NAT")
    out.unanswered([answer for answer in told if not answer.unchanged])
    return reached == unchanged == len(asked)


# -- services -----------------------------------------------------------------------------------------


def announce_services(cluster: KubeCluster) -> None:
    """What the cluster's owner writes once: the router, a pool of addresses, and what is announced."""
    families = 2 if cluster.network.plan.dual_stack else 1
    for number, address in enumerate(ROUTER_ADDRESSES[:families]):
        peer = {"address": str(address), "asn": 64601, "speakers": "Reflectors"}
        cluster.apply("BGPPeer", f"{TOR}-{number}" if number else TOR, peer)
    cluster.apply("BGPAddressPool", "public", {"ranges": [POOL, POOL_IPV6][:families]})
    kinds = ["ClusterIP", "ExternalIP", "LoadBalancerIP"]
    cluster.apply("BGPAdvertisement", "all", {"addresses": kinds})


def load_balancer_address(cluster: KubeCluster, name: str, within: float = 30.0) -> Address:
    """The IPv4 address that a Service was given."""

    def look() -> IPv4Address | None:
        service = decode_service(cluster.api.get(f"/api/v1/namespaces/default/services/{name}"))
        found = [IPv4Address(address) for address in service.ingress if len(address) == 4]
        return found[0] if found else None

    return eventually(look, f"Service {name} has an address", within)


def router_next_hops(cluster: KubeCluster, prefix: str) -> set[Address]:
    """Where the router's kernel sends packets for a prefix."""
    if cluster.outside is None:
        raise LabError("this lab has no router")
    version = ip_network(prefix).version
    text = run_in(
        cluster.outside.router_namespace, ["ip", "-json", f"-{version}", "route", "show", "exact", prefix]
    )
    hops: set[Address] = set()
    for route in json.loads(text or "[]"):
        gateways = [route, *route.get("nexthops", ())]
        hops |= {ip_address(each["gateway"]) for each in gateways if "gateway" in each}
    return hops


def wait_for_route(
    cluster: KubeCluster, address: Address, nodes: Iterable[str], within: float = 30.0
) -> None:
    """Until the router sends an address's packets to exactly these nodes."""
    wanted = {
        own for name in nodes for own in cluster.nodes[name].node.addresses if own.version == address.version
    }
    length = 32 if address.version == 4 else 128
    prefix = f"{address}/{length}"

    def look() -> bool:
        found = router_next_hops(cluster, prefix)
        if found != wanted:
            raise LabError(f"the router sends {prefix} to {sorted(map(str, found))}")
        return True

    eventually(look, f"{prefix} leads to {', '.join(map(str, sorted(wanted, key=str)))}", within)


def reach_all(
    cluster: KubeCluster, title: str, address: Address, port: int, expected: set[str], out: Presenter,
    namespace: str = "",
) -> bool:  # fmt: skip
    """Connect again and again from the client until every endpoint has answered; whether each did."""
    if not namespace:
        if cluster.outside is None:
            raise LabError("this lab has no client outside")
        namespace = cluster.outside.client_namespace
    seen: Counter[str] = Counter()
    errors = 0
    for _ in range(TRIES):
        try:
            seen[ask(namespace, address, port).pod] += 1
        except LabError:
            errors += 1
        if set(seen) >= expected:
            break
    good = set(seen) == expected and not errors
    told = ", ".join(f"{name} {number}x" for name, number in sorted(seen.items()))
    failed = f", {errors} failed" if errors else ""
    out.verdict(title, good, f"{address} port {port}: answered by {told or 'nobody'}{failed}")
    return good


def closed_port_is_refused(cluster: KubeCluster, address: Address, out: Presenter) -> bool:
    """A port that no Service has is refused at once, and its packet does not go round until it dies."""
    if cluster.outside is None:
        raise LabError("this lab has no client outside")
    begun = time.monotonic()
    try:
        ask(cluster.outside.client_namespace, address, CLOSED_PORT)
        how = "answered"
    except LabError as error:
        how = str(error)
    spent = time.monotonic() - begun
    good = "refused" in how and spent < REFUSED_WITHIN
    out.verdict("a closed port is refused", good, f"port {CLOSED_PORT}, after {spent * 1000:.0f} ms")
    if not good:
        out.say(f"     {how}")
    return good


# -- coming and going ---------------------------------------------------------------------------------


class Pings:
    """Pings every 10 ms between pods, while something happens."""

    def __init__(self, cluster: KubeCluster, pairs: Iterable[tuple[Host, Host]]) -> None:
        self._pingers = [
            Pinger(
                f"{near.name} to {far.name}",
                near.namespace,
                address,
                cluster.workspace.folder / f"story-ping-{next(_numbers)}.log",
            )
            for near, far in pairs
            for address in far.addresses
        ]

    def during(self, act: Callable[[], None], title: str, out: Presenter) -> bool:
        """Whether nothing was lost while `act` ran, and a while longer."""
        with ExitStack() as stack:
            for pinger in self._pingers:
                stack.enter_context(pinger)
            act()
            time.sleep(LOOK)
            reports = [pinger.stop() for pinger in self._pingers]
        lost = sum(len(report.lost) for report in reports)
        answered = sum(report.answered for report in reports)
        out.verdict(title, not lost and answered > 0, f"{answered} pings answered, {lost} lost")
        for pinger, report in zip(self._pingers, reports, strict=True):
            if report.lost:
                out.say(f"     {pinger.process.name}: {len(report.lost)} lost")
        return not lost and answered > 0


def between(hosts: Sequence[Host]) -> list[tuple[Host, Host]]:
    """All ordered pairs on different nodes."""
    return [(near, far) for near in hosts for far in hosts if near.node != far.node]


def reflectors_die_in_turn(cluster: KubeCluster, names: Sequence[str], out: Presenter) -> bool:
    """`kill -9` each elected reflector, agent and all, one after the other; whether nobody noticed."""
    hosts = pods_of(cluster, names)

    def act() -> None:
        for name in sorted(cluster.reflectors()):
            node = cluster.nodes[name]
            node.agent.kill()
            out.say(f"kill -9 of the agent of {name}, and of the reflector beside it")
            time.sleep(LOOK)
            node.agent.start()
            cluster.wait_usable()
            eventually(cluster.sessions_complete, "all sessions are up again")
            time.sleep(LOOK)

    return Pings(cluster, between(hosts)).during(act, "no ping is lost while reflectors die", out)


def delete_node(cluster: KubeCluster, name: str, out: Presenter) -> bool:
    """Delete a Node; whether its routes are gone from every other node, and from the router, in time."""
    prefixes = [str(prefix) for prefix in cluster.pod_prefixes(name)]
    others = [node for node in cluster.nodes.values() if node.name != name]
    cluster.stop_kubelet(name)  # a kubelet would register its Node again
    begun = time.monotonic()
    cluster.api.delete(f"/api/v1/nodes/{name}")

    def left() -> list[str]:
        namespaces = {node.name: node.node.namespace for node in others}
        if cluster.outside is not None:
            namespaces[TOR] = cluster.outside.router_namespace
        return [
            f"{where}: {prefix}"
            for where, namespace in namespaces.items()
            for prefix in prefixes
            if run_in(namespace, ["ip", f"-{ip_network(prefix).version}", "route", "show", "exact", prefix])
        ]

    while (still := left()) and time.monotonic() - begun < 4 * NODE_GONE:
        time.sleep(0.05)
    spent = time.monotonic() - begun
    good = not still and spent <= NODE_GONE
    out.verdict(f"deleted {name} is gone everywhere", good, f"its routes were withdrawn in {spent:.2f} s")
    for line in still:
        out.say(f"     {line}")
    return good
