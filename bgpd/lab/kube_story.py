"""What the lab shows of a cluster's pods: that they reach each other, also while reflectors and nodes die.

Each act is a function: something is done to the cluster as `kubectl` would do it, and judged by packets and
by the kernels' tables.  It says what it saw and whether that is right.  Services are in
`kube_services_story`, cordon and drain in `kube_drain_story`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from ipaddress import ip_network
from itertools import count

from bgpd.kube.objects import decode_pod
from bgpd.lab import prove
from bgpd.lab.kube_cluster import KubeCluster, eventually
from bgpd.lab.kube_fabric import TOR
from bgpd.lab.netns import run_in
from bgpd.lab.present import Presenter
from bgpd.lab.probe import Pinger
from bgpd.lab.prove import Host

PROOF_TIME = 10.0
NODE_GONE = 5.0
"""Seconds in which a deleted Node's routes must be gone everywhere."""
LOOK = 1.0
"""Seconds that each state is left to last, so that it can do harm."""

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


def client_of(cluster: KubeCluster) -> list[Host]:
    """The client behind the router, where there is one, as an end of probes."""
    outside = cluster.outside
    if outside is None:
        return []
    return [Host("client", outside.client_namespace, "", outside.client_addresses)]


def reflectors_die_in_turn(cluster: KubeCluster, names: Sequence[str], out: Presenter) -> bool:
    """`kill -9` each elected reflector, agent and all, one after the other; whether nobody noticed."""
    hosts = [*pods_of(cluster, names), *client_of(cluster)]

    def act() -> None:
        for name in sorted(cluster.reflectors()):
            node = cluster.nodes[name]
            killed = node.kill_agent()
            out.say(f"kill -9 of the agent of {name}, and of {killed - 1} reflector beside it")
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
    gateway = cluster.nodes[name].node.addresses[0]
    cluster.stop_kubelet(name)  # a kubelet would register its Node again
    begun = time.monotonic()
    cluster.api.delete(f"/api/v1/nodes/{name}")

    def left() -> list[str]:
        namespaces = {node.name: node.node.namespace for node in others}
        if cluster.outside is not None:
            namespaces[TOR] = cluster.outside.router_namespace
        found = [
            f"{where}: {prefix}"
            for where, namespace in namespaces.items()
            for prefix in prefixes
            if run_in(namespace, ["ip", f"-{ip_network(prefix).version}", "route", "show", "exact", prefix])
        ]
        if cluster.outside is not None:  # Services' addresses too, which other nodes have as well
            text = run_in(cluster.outside.router_namespace, ["ip", "route"])
            found += [f"{TOR}: {line}" for line in text.splitlines() if f"via {gateway} " in f"{line} "]
        return found

    while (still := left()) and time.monotonic() - begun < 4 * NODE_GONE:
        time.sleep(0.05)
    spent = time.monotonic() - begun
    good = not still and spent <= NODE_GONE
    out.verdict(f"deleted {name} is gone everywhere", good, f"its routes were withdrawn in {spent:.2f} s")
    for line in still:
        out.say(f"     {line}")
    del cluster.nodes[name]
    return good
