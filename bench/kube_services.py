"""What a change costs among 10,000 Services with 50,000 endpoints: a node's announcements, and the pools.

    python -m bench.kube_services [--services N] [--endpoints N] [--changes N]

CPU time of this process with garbage collection on; building is from objects that are decoded already.  Exit
code 1: a change took longer than the target, 5 ms, at its 99th percentile.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from random import Random

from bgpd.kube.custom_values import AddressKind, AddressRange, BgpAddressPool, BgpAdvertisement
from bgpd.kube.objects import LOAD_BALANCER_CLASS, Endpoint, EndpointSlice, Service
from bgpd.kube.pools import Allocator
from bgpd.kube.service_claims import Limits
from bgpd.kube.services import ServiceAnnouncements
from routes.prefix import Address, Family, Prefix

TARGET = 0.005
"""Seconds of CPU for one change."""
NODES = 500
POOL = BgpAddressPool("public", "", 1, (AddressRange(Address(b"\xcb\0\0\0"), Address(b"\xcb\0\xff\xff")),))
LIMITS = Limits([Prefix.parse("10.96.0.0/12")], [POOL], [Prefix.parse("10.244.0.0/14")])
ADVERTISEMENTS = (
    BgpAdvertisement("cluster", "", 1, frozenset({AddressKind.CLUSTER_IP}), length_ipv4=12),
    BgpAdvertisement("balanced", "", 1, frozenset({AddressKind.LOAD_BALANCER_IP}), communities=(1,)),
)


def service(number: int, *, balanced: bool = True, local: bool | None = None) -> Service:
    """One of many: ClusterIP and LoadBalancer IP, every second one with the policy Local."""
    return Service(
        f"s{number}",
        f"ns{number % 100}",
        f"uid{number}",
        {"app": f"a{number}"},
        type="LoadBalancer" if balanced else "ClusterIP",
        cluster_ips=(Address((0x0A600000 + number).to_bytes(4, "big")),),
        load_balancer_class=LOAD_BALANCER_CLASS,
        ingress=(Address((0xCB000000 + number).to_bytes(4, "big")),) if balanced else (),
        external_local=bool(number % 2) if local is None else local,
        ports=frozenset({("TCP", 80)}),
        created=float(number),
    )


def endpoints(number: int, count: int, random: Random) -> EndpointSlice:
    """A slice with endpoints anywhere, some on the node that is measured (n0)."""
    found = tuple(Endpoint(f"n{random.randrange(NODES)}", True, True, False) for _ in range(count))
    return EndpointSlice(f"s{number}-x", f"ns{number % 100}", "", f"s{number}", Family.IPV4, found)


def timed(calls: Iterable[Callable[[], object]]) -> list[float]:
    """CPU seconds of each call."""
    taken = []
    for call in calls:
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return taken


def report(what: str, taken: list[float]) -> bool:
    """Print the line of a kind of change; whether it met the target."""
    ordered = sorted(taken)
    p99 = ordered[int(len(ordered) * 0.99)]
    median, worst = statistics.median(ordered), ordered[-1]
    print(f"{what:<44}{median * 1e3:>10.3f}{p99 * 1e3:>10.3f}{worst * 1e3:>10.3f}")
    return p99 < TARGET


def announcements(count: int, each: int, changes: int) -> bool:
    """A node's announcements."""
    random = Random(1)
    services = [service(number) for number in range(count)]
    slices = [endpoints(number, each, random) for number in range(count)]
    node = ServiceAnnouncements("n0", LIMITS)
    start = time.process_time()
    node.advertisements_replaced(ADVERTISEMENTS)
    for known, found in zip(services, slices, strict=True):
        node.slice_changed(found)
        node.service_changed(known)
    built = time.process_time() - start
    print(f"announcements: {count} Services, {count * each} endpoints, built in {built:.2f} s of CPU")
    print(f"{'':<44}{'median ms':>10}{'p99 ms':>10}{'worst ms':>10}")
    picked = [random.randrange(count) for _ in range(changes)]
    moved = [endpoints(number, each, random) for number in picked]
    flipped = [service(number, local=bool(step % 2)) for step, number in enumerate(picked)]
    rows: dict[str, Sequence[Callable[[], object]]] = {
        "an endpoint slice changes": [partial(node.slice_changed, found) for found in moved],
        "a Service changes its traffic policy": [partial(node.service_changed, one) for one in flipped],
        "a Service is deleted and comes back": [
            partial(_come_back, node, services[number]) for number in picked
        ],
        "explain a Service": [partial(node.explain, services[number].key) for number in picked],
    }
    met = [report(what, timed(calls)) for what, calls in rows.items()]
    return all(met)


def allocation(count: int, changes: int) -> bool:
    """The pools, from which every Service has an address, and some wait."""
    random = Random(2)
    services = [replace(service(number), ingress=()) for number in range(count)]
    first = POOL.ranges[0].first
    last = Address((int.from_bytes(first, "big") + count - 1).to_bytes(4, "big"))
    small = replace(POOL, ranges=(AddressRange(first, last),))
    start = time.process_time()
    allocator = Allocator([small], services)
    built = time.process_time() - start
    waiting = [replace(service(number), ingress=()) for number in range(count, count + count // 10)]
    allocator.apply(waiting)
    kept = [replace(one, ingress=allocator.assignments[one.key]) for one in services]
    start = time.process_time()
    Allocator([small], kept)
    again = time.process_time() - start
    print(f"pools: {count} Services, allocated in {built:.2f} s of CPU, after a restart in {again:.2f} s")
    print(f"{'':<44}{'median ms':>10}{'p99 ms':>10}{'worst ms':>10}")
    gone = [services[number] for number in random.sample(range(count), min(changes, count // 20))]
    moved = [replace(one, ports=frozenset({("TCP", 443)})) for one in kept[: min(changes, count)]]
    rows: dict[str, Sequence[Callable[[], object]]] = {
        "a Service changes its ports": [partial(allocator.apply, [one]) for one in moved],
        "a Service goes, one that waited is served": [
            partial(allocator.apply, (), [one.key]) for one in gone
        ],
        "a Service comes, and has to wait": [partial(allocator.apply, [one]) for one in gone],
    }
    met = [report(what, timed(calls)) for what, calls in rows.items()]
    return all(met)


def _come_back(node: ServiceAnnouncements, one: Service) -> None:
    node.service_deleted(one.key)
    node.service_changed(one)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=50_000)
    parser.add_argument("--changes", type=int, default=2_000)
    options = parser.parse_args()
    gc.collect()
    met = announcements(options.services, options.endpoints // options.services, options.changes)
    met &= allocation(options.services, options.changes)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
