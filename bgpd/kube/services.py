"""Which service addresses this node announces, and why it does not announce the others.

A node announces an address when packets to it, arriving here, reach an endpoint:

- a ClusterIP on every node, also without endpoints (kube-proxy answers there with an ICMP error, and the
  path does not flap with the pods); with `internalTrafficPolicy: Local` where an endpoint is;
- an ExternalIP or LoadBalancer IP on every node while any endpoint is usable: a path withdrawn lets another
  site of the same address take over, an ICMP error would not; with `externalTrafficPolicy: Local` where an
  endpoint is.

A node whose only endpoints are terminating announces them as going (RFC 8326): new connections go where
endpoints stay, and come here while there is no such node.

An address belongs to the namespace with the first claim to it (ClusterIPs before LoadBalancer IPs before
ExternalIPs, then the older Service): other namespaces' claims count for nothing, so that nobody draws
another's packets away.  Where Services of one namespace share an address, and one of them delivers only
locally, nodes without an endpoint of that one keep quiet.  Local addresses are never aggregated: the
aggregate would draw packets here for addresses that this node drops.

Owns what is announced, and what it takes to keep it up at the cost of what changed.  Pure: facts in,
differences out; must never know where they come from.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from bgpd.kube.custom_values import AddressKind, BgpAdvertisement
from bgpd.kube.objects import EndpointSlice, Service
from bgpd.kube.service_claims import Claim, Limits, Rule, claims_of
from bgpd.kube.service_endpoints import EndpointsSeen, Here, ServiceKey, SliceKey
from bgpd.kube.service_paths import NO_CHANGES, Changes, Contribution, Offer, ServicePaths
from bgpd.kube.service_verdicts import Verdict, sentence
from bgpd.node.nft import Port
from routes.own_path import OwnPath
from routes.prefix import Address, Prefix, family_of

MOST_CLAIMS = 64
"""Services that may share one address; more are refused, and cost nothing."""
MOST_LOCAL_PORTS = 20_000
"""More are treated like closed ones: whoever may write Services must not fill a node's packet filter."""


class _Known:
    """A Service, and what follows from it alone."""

    __slots__ = ("claims", "offers", "service")

    def __init__(self, service: Service, offers: Iterable[Offer], limits: Limits) -> None:
        self.service = service
        self.offers = tuple(offer for offer in offers if offer.is_for(service))
        self.claims = tuple(claim for claim in claims_of(service, limits) if claim.refusal is None)

    def local_ports(self) -> Iterable[Port]:
        """Of the addresses at which only this node's endpoints are reached from here."""
        for claim in self.claims:
            if claim.local:
                for protocol, number in self.service.ports:
                    yield Port(claim.address, protocol, number)


class ServiceAnnouncements:
    """What one node announces of the cluster's Services; each change is answered with the difference."""

    def __init__(self, node: str, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._labels: Mapping[str, str] = {}
        self._advertisements: tuple[BgpAdvertisement, ...] = ()
        self._offers: dict[tuple[object, ...], Offer] = {}
        """Those for this node, by what they mean."""
        self._services: dict[ServiceKey, _Known] = {}
        self._endpoints = EndpointsSeen(node)
        self._claims: dict[Address, list[Claim]] = {}
        self._contributed: dict[Address, tuple[Contribution, ...]] = {}
        self._paths = ServicePaths()
        self._ports: list[Port] = []
        """Those of `local_ports`, in order."""
        self._port_users: Counter[Port] = Counter()
        """How many Services have each."""

    # -- what is asked ----------------------------------------------------------------------------

    @property
    def announced(self) -> Mapping[Prefix, OwnPath]:
        """All that is announced now."""
        return self._paths.announced

    @property
    def services(self) -> Collection[ServiceKey]:
        """The Services that are known."""
        return self._services.keys()

    @property
    def local_ports(self) -> tuple[Port, ...]:
        """Ports at which a packet is for this node's endpoints alone, whether or not there is one now."""
        return tuple(self._ports[:MOST_LOCAL_PORTS])

    def local_endpoints(self) -> int:
        """Usable endpoints on this node of the Services that it announces: what a drain waits for."""
        keys = {claim.service for address in self._contributed for claim in self._claims[address]}
        return sum(map(self._endpoints.here, keys))

    def explain(self, key: ServiceKey) -> tuple[Verdict, ...]:
        """Why each address of a Service is announced from this node, or is not."""
        known = self._services.get(key)
        if known is None:
            return (Verdict.of_none(f"no Service {'/'.join(key)} is known"),)
        claims = claims_of(known.service, self._limits)
        if not claims:
            text = "it has no ClusterIP (headless or ExternalName), so kube-proxy serves no address of it"
            return (Verdict.of_none(text),)
        return tuple(self._verdict(known, claim) for claim in claims)

    def _verdict(self, known: _Known, claim: Claim) -> Verdict:
        rule = claim.refusal or self._rules(claim.address).get(claim, Rule.TOO_MANY_CLAIMS)
        prefixes: tuple[Prefix, ...] = ()
        if rule in {Rule.ANNOUNCED, Rule.GOING}:
            contributions = self._contributions_of(claim, rule, self._local(claim.address))
            prefixes = tuple(sorted({prefix for prefix, _ in contributions}))
            rule = Rule.DRAINED if self._paths.withdrawn else Rule.GOING if self._paths.going else rule
        elif rule is Rule.NO_ADVERTISEMENT and any(
            claim.kind in each.addresses and each.scope.holds(*_selected(known.service))
            for each in self._advertisements
        ):
            rule = Rule.OTHER_NODES
        first = self._claims.get(claim.address, [claim])[0]
        announced = rule in {Rule.ANNOUNCED, Rule.GOING}
        text = sentence(rule, claim, first.service, prefixes)
        return Verdict(claim.address, claim.kind, announced, rule, prefixes if announced else (), text)

    # -- what changes -----------------------------------------------------------------------------

    def service_changed(self, service: Service) -> Changes:
        """A Service is new or another."""
        before = self._services.get(service.key)
        if before is not None and before.service == service:
            return NO_CHANGES
        return self._settle(self._put(before, _Known(service, self._offers.values(), self._limits)))

    def service_deleted(self, key: ServiceKey) -> Changes:
        """A Service is gone."""
        before = self._services.get(key)
        return self._settle(self._put(before, None)) if before is not None else NO_CHANGES

    def slice_changed(self, changed: EndpointSlice) -> Changes:
        """An EndpointSlice is new or another."""
        return self._endpoints_changed(self._endpoints.changed(changed))

    def slice_deleted(self, key: SliceKey) -> Changes:
        """An EndpointSlice, by namespace and name, is gone."""
        return self._endpoints_changed(self._endpoints.deleted(key))

    def advertisements_replaced(self, advertisements: Sequence[BgpAdvertisement]) -> Changes:
        """These are all the BGPAdvertisements there are."""
        self._advertisements = tuple(sorted(advertisements, key=lambda each: each.name))
        return self._offers_changed()

    def node_labels_replaced(self, labels: Mapping[str, str]) -> Changes:
        """This node's labels, by which advertisements select it."""
        self._labels = labels
        return self._offers_changed()

    def limits_replaced(self, limits: Limits) -> Changes:
        """Where service addresses may lie."""
        before, self._limits = self._limits, limits
        return NO_CHANGES if limits.same_claims_as(before) else self._all_again()

    def drain_replaced(self, *, going: bool, withdrawn: bool) -> Changes:
        """Announce everything as going (GRACEFUL_SHUTDOWN, least preferred), or nothing at all."""
        if (going, withdrawn) == (self._paths.going, self._paths.withdrawn):
            return NO_CHANGES
        self._paths.going, self._paths.withdrawn = going, withdrawn
        return self._paths.settle()

    # -- how it is kept up ------------------------------------------------------------------------

    def _offers_changed(self) -> Changes:
        """Settle what changed advertisements select, or selected, and of that the kinds that they name."""
        here = {_meaning(each): each for each in self._advertisements if each.nodes.matches(self._labels)}
        before = self._offers
        self._offers = {
            meaning: before[meaning] if meaning in before else Offer(each) for meaning, each in here.items()
        }
        touched: set[Address] = set()
        for known in self._services.values() if before.keys() != here.keys() else ():
            offers = tuple(offer for offer in self._offers.values() if offer.is_for(known.service))
            if offers != known.offers:
                kinds = {kind for offer in {*offers} ^ {*known.offers} for kind in offer.kinds}
                known.offers = offers
                touched.update(claim.address for claim in known.claims if claim.kind in kinds)
        return self._settle(touched) if touched else NO_CHANGES

    def _all_again(self) -> Changes:
        touched: set[Address] = set()
        for known in list(self._services.values()):
            again = _Known(known.service, self._offers.values(), self._limits)
            touched.update(self._put(known, again))
        return self._settle(touched)

    def _put(self, before: _Known | None, now: _Known | None) -> set[Address]:
        touched: set[Address] = set()
        self._put_local_ports(before, now)
        for claim in before.claims if before is not None else ():
            claims = self._claims[claim.address]
            claims.remove(claim)
            if not claims:
                del self._claims[claim.address]
            touched.add(claim.address)
        if now is None:
            if before is not None:
                del self._services[before.service.key]
            return touched
        self._services[now.service.key] = now
        for claim in now.claims:
            insort(self._claims.setdefault(claim.address, []), claim)
            touched.add(claim.address)
        return touched

    def _put_local_ports(self, before: _Known | None, now: _Known | None) -> None:
        """Several Services may have a port, as those that share an address by mistake."""
        for port in now.local_ports() if now is not None else ():
            self._port_users[port] += 1
            if self._port_users[port] == 1:
                insort(self._ports, port)
        for port in before.local_ports() if before is not None else ():
            self._port_users[port] -= 1
            if not self._port_users[port]:
                del self._port_users[port]
                del self._ports[bisect_left(self._ports, port)]

    def _endpoints_changed(self, services: Iterable[ServiceKey]) -> Changes:
        touched: set[Address] = set()
        for key in services:
            if (known := self._services.get(key)) is not None:
                touched.update(claim.address for claim in known.claims)
        return self._settle(touched) if touched else NO_CHANGES

    def _settle(self, addresses: Iterable[Address]) -> Changes:
        touched: set[Prefix] = set()
        for address in addresses:
            before = self._contributed.pop(address, ())
            now = self._contributions(address)
            if now:
                self._contributed[address] = now
            if now != before:
                touched.update(self._paths.replace(before, now))
        return self._paths.settle(touched) if touched else NO_CHANGES

    def _contributions(self, address: Address) -> tuple[Contribution, ...]:
        if address not in self._claims:
            return ()
        local = self._local(address)
        return tuple(
            contribution
            for claim, rule in self._rules(address).items()
            if rule in {Rule.ANNOUNCED, Rule.GOING}
            for contribution in self._contributions_of(claim, rule, local)
        )

    def _contributions_of(self, claim: Claim, rule: Rule, local: bool) -> Iterable[Contribution]:
        address = claim.address
        size = len(address)
        ranges = self._limits.ranges_of(claim.kind)
        for offer in self._services[claim.service].offers:
            if claim.kind in offer.kinds:
                length = size * 8 if local else offer.length(size)
                yield ranges.block(address, length), offer.terms(going=rule is Rule.GOING)

    def _local(self, address: Address) -> bool:
        """Whether a Service of those that own the address delivers only locally."""
        claims = self._claims[address]
        owner = claims[0].service[0]
        return any(claim.local and claim.service[0] == owner for claim in islice(claims, MOST_CLAIMS))

    def _rules(self, address: Address) -> dict[Claim, Rule]:
        """What decides about each claim to an address."""
        claims = self._claims[address]
        owner = claims[0].service[0]
        rules: dict[Claim, Rule] = {}
        for position, claim in enumerate(claims):
            if position >= MOST_CLAIMS:
                break
            rules[claim] = self._rule(claim) if claim.service[0] == owner else Rule.OTHER_NAMESPACE
        if Rule.NO_LOCAL_ENDPOINT in rules.values():
            for claim, rule in rules.items():
                if rule in {Rule.ANNOUNCED, Rule.GOING}:
                    rules[claim] = Rule.SHARED_WITH_LOCAL
        return rules

    def _rule(self, claim: Claim) -> Rule:
        """What decides about a claim by itself, its namespace's right to the address given."""
        reach = self._endpoints.reach(claim.service, family_of(claim.address))
        if claim.local and reach.here is Here.NOTHING:
            return Rule.NO_LOCAL_ENDPOINT if reach.anywhere else Rule.NO_ENDPOINT
        if not reach.anywhere and claim.kind is not AddressKind.CLUSTER_IP:
            return Rule.NO_ENDPOINT
        if not any(claim.kind in offer.kinds for offer in self._services[claim.service].offers):
            return Rule.NO_ADVERTISEMENT
        return Rule.GOING if claim.local and reach.here is Here.TERMINATING else Rule.ANNOUNCED


def _selected(service: Service) -> tuple[str, Mapping[str, str]]:
    return service.namespace, service.labels


def _meaning(advertisement: BgpAdvertisement) -> tuple[object, ...]:
    """An advertisement without its status, which the controller writes, and its generation."""
    return (
        advertisement.name,
        advertisement.addresses,
        advertisement.scope,
        advertisement.communities,
        advertisement.local_pref,
        advertisement.length_ipv4,
        advertisement.length_ipv6,
    )
