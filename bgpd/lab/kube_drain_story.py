"""What the lab shows of a node that is emptied: cordoned, drained, and taken back.

Pods ping one that stays on the node, and a client behind the router opens a TCP connection every 20 ms to
each of some Services whose endpoints move to other nodes meanwhile.  No ping and no connection may be lost.

A router's ECMP hash knows no connections: when a path leaves or joins, connections that are just open may be
carried to another node, which does not know them.  That is the router's doing, whatever announces the path,
so a connection that broke exactly while the router changed its route for that address is counted by itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from itertools import count
from typing import Self

from bgpd.lab.kube_cluster import KubeCluster, eventually
from bgpd.lab.kube_dialer import SLOW, Dialer, Dialled, Target
from bgpd.lab.kube_services_story import Balanced, nodes_for, outside_of, wait_for_route
from bgpd.lab.kube_story import Pings, client_of, pods_of
from bgpd.lab.netns import run_in
from bgpd.lab.plan import Address
from bgpd.lab.present import Presenter
from bgpd.lab.probe import RouteEvent, RouteMonitor
from bgpd.node.drain import SHUTDOWN_TIME

PORT = 80
SETTLE = 1.0
"""Seconds that each state is left to last, so that it can do harm."""
JUST = 0.05
"""Seconds around a route's change in which the packets of an open connection take both ways."""
MOST_TORN = 5
"""Connections that are open at one moment, on a busy machine."""
GONE_WITHIN = 10.0
MOST_SHOWN = 10

_numbers = count()


def drain(
    cluster: KubeCluster, name: str, stays: str, watchers: Sequence[str], services: Sequence[Balanced],
    out: Presenter,
) -> bool:  # fmt: skip
    """Cordon a node, move the Services' endpoints away, and take it back; whether nobody noticed.

    `stays` is a pod on it that is not moved, pinged to and from the pods `watchers` and, where there is one,
    from the client.
    """
    (kept,) = pods_of(cluster, [stays])
    others = [*pods_of(cluster, watchers), *client_of(cluster)]
    pairs = [pair for other in others for pair in ((kept, other), (other, kept))]
    with ExitStack() as stack:
        record = stack.enter_context(Connections(cluster, services)) if services else None

        def act() -> None:
            _empty(cluster, name, services, out)

        good = Pings(cluster, pairs).during(act, "no ping is lost", out)
        if record is not None:
            good = record.judge(out) and good
    good = _last_pod_goes(cluster, name, stays, out) and good
    return _back(cluster, name, services, out) and good


def _empty(cluster: KubeCluster, name: str, services: Sequence[Balanced], out: Presenter) -> None:
    begun = time.monotonic()
    cluster.cordon(name)
    out.say(f"kubectl cordon {name}")
    for app in dict.fromkeys(service.app for service in services):
        for pod in [pod for pod, node in cluster.ready_pods(app).items() if node == name]:
            _move(cluster, app, pod, out)
    time.sleep(max(0.0, begun + SHUTDOWN_TIME + SETTLE - time.monotonic()))
    for service in services:
        names = nodes_for(cluster, service, without=[name])
        for address in service.addresses:
            wait_for_route(cluster, address, names)
    if services:
        out.say(f"after {time.monotonic() - begun:.1f} s the router sends no Service's packets to {name}")


def _move(cluster: KubeCluster, app: str, pod: str, out: Presenter) -> None:
    """Evict a pod as `kubectl drain` does.

    Its successor is created as it is told to end; under a PodDisruptionBudget, which the only endpoint of a
    Service needs, before that, and the pod ends when it is ready.
    """
    begun = time.monotonic()
    successor = f"{pod}-{next(_numbers)}"
    only = len(cluster.ready_pods(app)) == 1
    if not only:
        cluster.delete_pod(pod)
    cluster.create_pod(successor, app=app)
    cluster.pod_addresses(successor)
    if only:
        cluster.delete_pod(pod)
    eventually(lambda: not cluster.exists(f"/api/v1/namespaces/default/pods/{pod}"), f"the end of pod {pod}")
    spent, node = time.monotonic() - begun, cluster.ready_pods(app)[successor]
    out.say(f"pod {pod} of {app} is gone after {spent:.1f} s, {successor} serves on {node}")


def _last_pod_goes(cluster: KubeCluster, name: str, stays: str, out: Presenter) -> bool:
    """The node's prefix stays while a pod is there, and goes with the last one."""
    prefix = cluster.pod_prefixes(name)[0]
    seen_from = next(node for node in cluster.nodes.values() if node.name != name).node.namespace
    argv = ["ip", "route", "show", "exact", str(prefix)]
    kept = bool(run_in(seen_from, argv))
    out.verdict("its prefix stays for its pod", kept, f"{prefix} is in the other nodes' kernels")
    for pod in cluster.pods_on(name):
        cluster.delete_pod(pod)
    eventually(lambda: not cluster.pods_on(name), f"the end of {stays} and all others on {name}")
    begun = time.monotonic()
    eventually(lambda: not run_in(seen_from, argv), f"the withdrawal of {prefix}", GONE_WITHIN)
    out.verdict("and goes with the last one", good=True, text=f"after {time.monotonic() - begun:.1f} s")
    return kept


def _back(cluster: KubeCluster, name: str, services: Sequence[Balanced], out: Presenter) -> bool:
    """Uncordon: everything is announced again."""
    cluster.cordon(name, cordoned=False)
    begun = time.monotonic()
    prefix = str(cluster.pod_prefixes(name)[0])
    seen_from = next(node for node in cluster.nodes.values() if node.name != name).node.namespace
    argv = ["ip", "route", "show", "exact", prefix]
    eventually(lambda: bool(run_in(seen_from, argv)), f"{prefix} again", GONE_WITHIN)
    for service in services:
        for address in service.addresses:
            wait_for_route(cluster, address, nodes_for(cluster, service))
    spent = time.monotonic() - begun
    out.verdict("uncordoned, it is back", good=True, text=f"all its paths after {spent:.1f} s")
    return True


# -- connections --------------------------------------------------------------------------------------


class Connections:
    """New connections to each Service every 20 ms, and what the router's kernel did meanwhile."""

    def __init__(self, cluster: KubeCluster, services: Sequence[Balanced]) -> None:
        outside = outside_of(cluster)
        self._targets: dict[str, Target] = {}
        for number, service in enumerate(services):  # one family for each, by turns
            address = service.addresses[number % len(service.addresses)]
            policy = "Local" if service.local else "Cluster"
            self._targets[f"{service.app}, {policy}, IPv{address.version}"] = Target(address, PORT)
        self._dialer = Dialer(outside.client_namespace, self._targets)
        log = cluster.workspace.folder / f"story-routes-{next(_numbers)}.log"
        self._monitor = RouteMonitor(outside.router_namespace, log)

    def __enter__(self) -> Self:
        self._monitor.start()
        self._dialer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._dialer.__exit__(None, None, None)
        self._monitor.process.kill()

    def judge(self, out: Presenter) -> bool:
        """Whether none failed but those that the router tore."""
        done = self._dialer.stop()
        events = self._monitor.stop()
        good = True
        for name, target in self._targets.items():
            mine = [each for each in done if each.target == name]
            changes = moments(events, target.address)
            lost = [each for each in mine if each.error and not torn(each, changes)]
            cut = sum(bool(each.error) for each in mine) - len(lost)
            answers = ", ".join(sorted({each.pod for each in mine if each.pod}))
            right = not lost and len(mine) > 0 and cut <= MOST_TORN * len(changes)
            text = f"{name}: {len(mine)} opened, {len(lost)} lost, answered by {answers}{_more(mine, cut)}"
            out.verdict("no new connection is lost", right, text)
            failed = [each for each in mine if each.error]
            for each in failed[:MOST_SHOWN]:
                how = "open" if each.opened else "not open"
                out.say(f"     {_clock(each.at)}, {how}, after {each.spent:.3f} s: {each.error}")
            if failed:
                out.say(
                    f"     the router changed this route at {', '.join(map(_clock, changes)) or 'no time'}"
                )
            good = good and right
        return good


def _more(mine: Sequence[Dialled], cut: int) -> str:
    late = [each.spent for each in mine if not each.error and each.spent > SLOW]
    slow = f", {len(late)} repeated a packet (slowest {max(late):.1f} s)" if late else ""
    return f"{slow}, {cut} torn as the router changed its route" if cut else slow


def moments(events: Sequence[RouteEvent], address: Address) -> list[float]:
    """When the router's route for an address was another: seconds since the epoch."""
    found = [event for event in events if f" {address} " in f" {event.text} "]
    return [datetime.fromisoformat(event.at).timestamp() for event in found]


def torn(connection: Dialled, changes: Sequence[float]) -> bool:
    """Whether the router changed its route while this connection was open, and it was reset."""
    return connection.opened and any(
        connection.at - JUST <= moment <= connection.at + connection.spent + JUST for moment in changes
    )


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - for the person here
