"""Services, slices, pools and advertisements in few words, for tests that tell stories about them."""

from __future__ import annotations

from bgpd.kube.custom_values import AddressKind, AddressRange, BgpAddressPool, BgpAdvertisement, ServiceScope
from bgpd.kube.objects import LOAD_BALANCER_CLASS, Endpoint, EndpointSlice, Service
from bgpd.kube.selector import LabelSelector
from routes.prefix import Address, Family, Prefix, parse_address

READY, LEAVING, DEAD = "ready", "leaving", "dead"


def addresses(text: str) -> tuple[Address, ...]:
    return tuple(map(parse_address, text.split()))


def prefixes(text: str) -> tuple[Prefix, ...]:
    return tuple(map(Prefix.parse, text.split()))


def service(
    name: str,
    cluster: str = "10.96.0.10",
    *,
    external: str = "",
    ingress: str | None = None,
    namespace: str = "default",
    local: bool = False,
    internal_local: bool = False,
    created: float = 0.0,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    load_balancer_class: str | None = LOAD_BALANCER_CLASS,
    load_balancer_ip: str = "",
    families: tuple[Family, ...] = (Family.IPV4,),
    policy: str = "SingleStack",
    ports: tuple[int, ...] = (80,),
    selector: dict[str, str] | None = None,
    kind: str = "",
) -> Service:
    """A Service; one with `ingress`, even "", is of type LoadBalancer."""
    balanced = ingress is not None
    return Service(
        name,
        namespace,
        f"uid-{namespace}-{name}",
        labels or {},
        {f"podbgp.dev/{key}": text for key, text in (annotations or {}).items()},
        type=kind or ("LoadBalancer" if balanced else "ClusterIP"),
        cluster_ips=addresses(cluster),
        external_ips=addresses(external),
        load_balancer_ip=load_balancer_ip,
        load_balancer_class=load_balancer_class if balanced else None,
        ingress=addresses(ingress or ""),
        external_local=local,
        internal_local=internal_local,
        families=families,
        family_policy=policy,
        ports=frozenset(("TCP", port) for port in ports),
        selector=selector or {"app": name},
        created=created,
    )


def endpoints(
    of: str, *where: str, name: str = "", namespace: str = "default", family: Family = Family.IPV4
) -> EndpointSlice:
    """A slice with endpoints such as `n1` (ready), `n1:leaving` (serving, terminating), `n1:dead`."""
    found = []
    for text in where:
        node, _, state = text.partition(":")
        ready = state in {"", READY}
        found.append(Endpoint(node, ready, serving=ready or state == LEAVING, terminating=state == LEAVING))
    return EndpointSlice(name or f"{of}-1", namespace, "", of, family, tuple(found))


def pool(name: str, *ranges: str, auto: bool = True, edges: bool = False, **scope: object) -> BgpAddressPool:
    """A pool of `first-last` spans or prefixes."""
    found = []
    for text in ranges:
        first, _, last = text.partition("-")
        if last:
            found.append(AddressRange(parse_address(first), parse_address(last)))
        else:
            prefix = Prefix.parse(text)
            size = len(prefix.address)
            end = int.from_bytes(prefix.address, "big") | (1 << size * 8 - prefix.length) - 1
            found.append(AddressRange(prefix.address, Address(end.to_bytes(size, "big"))))
    return BgpAddressPool(name, f"uid-{name}", 1, tuple(found), auto, _scope(**scope), avoid_edges=edges)


def advertisement(
    name: str,
    *kinds: AddressKind,
    nodes: dict[str, str] | None = None,
    communities: tuple[int | tuple[int, int, int], ...] = (),
    local_pref: int | None = None,
    ipv4: int = 32,
    ipv6: int = 128,
    **scope: object,
) -> BgpAdvertisement:
    """An advertisement of these kinds of addresses, of all without any."""
    return BgpAdvertisement(
        name,
        f"uid-{name}",
        1,
        frozenset(kinds or AddressKind),
        _scope(**scope),
        LabelSelector(tuple((nodes or {}).items())),
        communities,
        local_pref,
        ipv4,
        ipv6,
    )


def _scope(labels: object = None, namespaces: object = ()) -> ServiceScope:
    chosen = labels if isinstance(labels, dict) else {}
    named = namespaces if isinstance(namespaces, tuple) else ()
    return ServiceScope(LabelSelector(tuple(chosen.items())), frozenset(named))
