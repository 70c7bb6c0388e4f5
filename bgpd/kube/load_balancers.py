"""LoadBalancer Services and their addresses, from what the allocator decided to what is written and said.

Only the leader allocates: a standby would decide otherwise than the leader whose writes it has not seen yet.
Whoever begins to lead starts from the Services' statuses, which are the memory of all allocation.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from bgpd.kube.address_ranges import AddressRanges
from bgpd.kube.custom_values import BgpAddressPool
from bgpd.kube.events import Regarding
from bgpd.kube.objects import Service, decode_service
from bgpd.kube.pool_demand import is_ours
from bgpd.kube.pools import Allocator, Plan
from bgpd.kube.write_queue import Write, WriteQueue
from routes.prefix import Address, Prefix, format_address

ServiceKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Said:
    """An Event to be said."""

    about: Regarding
    reason: str
    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class PoolInputs:
    """What allocation follows from, beside the Services."""

    pools: tuple[BgpAddressPool, ...] = ()
    kept_out: tuple[Prefix, ...] = ()
    nodes: frozenset[Address] = field(default_factory=frozenset)


class LoadBalancers:
    """The Services of one cluster."""

    def __init__(self, queue: WriteQueue) -> None:
        self._queue = queue
        self._allocator: Allocator | None = None
        self._services: dict[ServiceKey, Service] = {}
        self._inputs = PoolInputs()
        self._said: list[Said] = []
        self.pool_problems: dict[str, tuple[str, str]] = {}
        """By pool: reason and text."""
        self.more = False
        """Whether `go_on` has something to do."""

    def begin(self, services: Mapping[ServiceKey, Service], inputs: PoolInputs) -> None:
        """Lead: allocate from now on."""
        self._services, self._inputs = dict(services), inputs
        self.pool_problems.clear()
        self._allocator = Allocator(inputs.pools, services.values(), inputs.kept_out, inputs.nodes)
        self._take(self._allocator.first)
        self._release_leftovers()

    def _release_leftovers(self) -> None:
        """Services that stopped being LoadBalancers while nobody led keep addresses of ours no longer."""
        ranges = AddressRanges(ends for pool in self._inputs.pools for ends in pool.ranges)
        for service in self._services.values():
            left = [each for each in service.ingress if each in ranges]
            if left and service.type != "LoadBalancer":
                kept = tuple(each for each in service.ingress if each not in left)
                self._put(service, kept, still=_is_not_ours)

    def end(self) -> None:
        """Lead no longer."""
        self._allocator, self.more = None, False
        self._services.clear()
        self._said.clear()

    def changed(self, changed: Iterable[Service], deleted: Iterable[Service]) -> None:
        if self._allocator is None:
            return
        gone = []
        for service in deleted:
            known = self._services.get(service.key)
            if known is not None and known.uid == service.uid:
                del self._services[service.key]
                self._queue.drop(path_of(service.key))
                gone.append(service.key)
        news = tuple(changed)
        self._services.update((service.key, service) for service in news)
        plan = self._allocator.apply(news, gone)
        for service in news:  # as it should be, unless the plan says otherwise
            self._queue.drop(path_of(service.key))
        self._take(plan)

    def inputs_are(self, inputs: PoolInputs) -> None:
        """Pools, ranges or Nodes' addresses may be others."""
        if self._allocator is not None and inputs != self._inputs:
            self._inputs = inputs
            self._take(self._allocator.pools_replaced(inputs.pools, inputs.kept_out, inputs.nodes))

    def go_on(self) -> None:
        """Serve more of those that wait."""
        if self._allocator is not None and self.more:
            self._take(self._allocator.apply())

    def usage(self) -> Mapping[str, tuple[int, int]]:
        """Addresses in use, and in all, by pool."""
        return self._allocator.usage if self._allocator is not None else {}

    def take_said(self) -> list[Said]:
        said, self._said = self._said, []
        return said

    def _take(self, plan: Plan) -> None:
        self.more = plan.more
        for key, addresses in plan.assignments.items():
            service = self._services[key]
            self._put(service, addresses, still=_is_ours)
            new = [format_address(each) for each in addresses if each not in service.ingress]
            if new:
                self._said.append(Said(about(service), "AddressAllocated", ", ".join(new)))
        for key, addresses in plan.releases.items():
            if (former := self._services.get(key)) is not None:
                kept = tuple(each for each in former.ingress if each not in addresses)
                self._put(former, kept, still=_is_not_ours)
        for kind, namespace, name in plan.solved:
            if kind == "BGPAddressPool":
                self.pool_problems.pop(name, None)
            else:  # before anybody was told
                self._said = [each for each in self._said if not _tells(each, namespace, name)]
        for problem in plan.problems:
            kind, namespace, name = problem.about
            if kind == "BGPAddressPool":
                self.pool_problems[name] = (problem.reason.value, problem.text)
            elif (troubled := self._services.get((namespace, name))) is not None:
                self._said.append(Said(about(troubled), problem.reason.value, problem.text, bad=True))

    def _put(self, service: Service, addresses: tuple[Address, ...], still: Callable[[bytes], bool]) -> None:
        ingress = [{"ip": format_address(each)} for each in addresses]
        status = {"loadBalancer": {"ingress": ingress or None}}
        self._queue.put(Write(path_of(service.key), service.uid, status, still))


def path_of(key: ServiceKey) -> str:
    return f"/api/v1/namespaces/{key[0]}/services/{key[1]}"


def about(service: Service) -> Regarding:
    return Regarding("v1", "Service", service.name, service.uid, service.namespace)


def _is_ours(raw: bytes) -> bool:
    return is_ours(decode_service(raw))


def _is_not_ours(raw: bytes) -> bool:
    return not _is_ours(raw)


def _tells(said: Said, namespace: str, name: str) -> bool:
    """Whether it is about what is wrong with this Service."""
    return said.bad and (said.about.namespace, said.about.name) == (namespace, name)
