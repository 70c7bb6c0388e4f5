"""What the agent sets up on its host, on a node of the real kernel: pods, packet filter, parameters.

A node, a router behind its only link, a client behind that, and pods that the real CNI plugins wire.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import NamedTuple, Self

import pytest

from bgpd.lab import netns
from bgpd.lab.command import try_run
from bgpd.lab.kube_cni import CniRuntime, Sandbox
from bgpd.lab.topology import QUIET_IPV6
from bgpd.node.cni import CniFile, PodInterface, PodNetwork
from bgpd.node.nft import PacketFilter, Rules
from bgpd.node.sysctls import State, apply, check, needed
from bgpd.node.uplink import Uplink, read_uplink
from routes.prefix import Family, Prefix, parse_address

P = Prefix.parse
PODS = (P("10.244.1.0/24"), P("fd00:10:244:1::/64"))
CLUSTER = (P("10.244.0.0/16"), P("fd00:10:244::/48"), P("192.0.2.0/24"), P("2001:db8::/64"))
NODE = ("192.0.2.11", "2001:db8::11")
ROUTER = ("192.0.2.1", "2001:db8::1")
BEYOND = ("198.51.100.1", "2001:db8:9::1")
"""The router's addresses on the client's link."""
OUTSIDE = ("198.51.100.9", "2001:db8:9::9")
SERVICE = ("203.0.113.7", "2001:db8:7::7")
MTU = 1450
HTTP = 80


class Pod(NamedTuple):
    """A pod as the plugins left it."""

    namespace: str
    addresses: tuple[str, ...]


class Site(NamedTuple):
    """The namespaces, and what the node's agent looks after."""

    node: str
    router: str
    client: str
    pods: tuple[str, str]
    cni: CniFile


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    name = f"nh-{uuid.uuid4().hex[:6]}"
    names = [f"{name}-{role}" for role in ("node", "router", "client", "pod1", "pod2")]
    node, router, client, *pods = names
    netns.create(names)
    try:
        for each in names:
            netns.set_sysctls(each, QUIET_IPV6)
        netns.batch(
            node,
            [
                f"link add uplink type veth peer name tonode netns {router}",
                f"link set uplink mtu {MTU} up",
                *(netns.add_address("uplink", f"{a}/{n}") for a, n in zip(NODE, (24, 64), strict=True)),
            ],
        )
        netns.batch(router, _router_lines(client))
        netns.batch(client, _client_lines())
        netns.batch(node, [f"route add default via {gateway} dev uplink" for gateway in ROUTER])
        netns.set_sysctls(router, {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})
        netns.call_in(node, lambda: apply(needed(3, Family, ["uplink"])))
        yield Site(node, router, client, (pods[0], pods[1]), CniFile(tmp_path / "net.d"))
    finally:
        netns.remove(names)


def _router_lines(client: str) -> list[str]:
    addresses = [netns.add_address("tonode", f"{a}/{n}") for a, n in zip(ROUTER, (24, 64), strict=True)]
    routes = [f"route add {prefix} via {via}" for prefix, via in zip(PODS, NODE, strict=True)]
    routes += [f"route add {address} via {via}" for address, via in zip(SERVICE, NODE, strict=True)]
    beyond = [f"link add toclient type veth peer name eth0 netns {client}", "link set toclient up"]
    beyond += [netns.add_address("toclient", f"{a}/{n}") for a, n in zip(BEYOND, (24, 64), strict=True)]
    return [f"link set tonode mtu {MTU} up", *addresses, *routes, *beyond]


def _client_lines() -> list[str]:
    addresses = [netns.add_address("eth0", f"{a}/{n}") for a, n in zip(OUTSIDE, (24, 64), strict=True)]
    return ["link set eth0 up", *addresses, *(f"route add default via {gateway}" for gateway in BEYOND)]


def wire(site: Site, tmp_path: Path, interface: PodInterface = PodInterface.PTP) -> tuple[Pod, Pod]:
    """Two pods, wired by what the agent's file says; the first has a HostPort."""
    uplink = read_in(site)
    site.cni.write(PodNetwork(PODS, uplink.mtu, interface, data_folder=str(tmp_path / "leases")))
    runtime = CniRuntime(site.cni.folder, tmp_path / "memory")

    def add(sandbox: Sandbox) -> Pod:
        found = netns.call_in(site.node, lambda: runtime.add(sandbox))
        return Pod(sandbox.netns, tuple(map(str, found)))

    first, second = (sandbox_of(namespace) for namespace in site.pods)
    mapping: dict[str, str | int] = {"hostPort": 8080, "containerPort": HTTP, "protocol": "tcp"}
    return add(replace(first, ports=(mapping,))), add(second)


def sandbox_of(namespace: str) -> Sandbox:
    return Sandbox(namespace, namespace, "default", namespace)


def read_in(site: Site) -> Uplink:
    return netns.call_in(site.node, lambda: read_uplink([parse_address(NODE[0])], PODS))


def reached(source: str, target: str) -> bool:
    return "1 received" in try_run(netns.in_namespace(source, ["ping", "-n", "-c1", "-W3", target]))


class Listener:
    """Accepts TCP connections in a namespace and remembers who called."""

    def __init__(self, namespace: str, address: str) -> None:
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = netns.open_socket(namespace, self.family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, HTTP))
        self._socket.listen()
        self._socket.settimeout(5)

    def caller(self, namespace: str, address: str, port: int = HTTP) -> str:
        """Who is seen to call when a namespace connects to an address."""
        thread = Thread(target=connect, args=(namespace, address, port))
        thread.start()
        connection, (address, *_) = self._socket.accept()
        connection.close()
        thread.join()
        return str(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()


def connect(namespace: str, address: str, port: int = HTTP, timeout: float = 3.0) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.open_socket(namespace, family, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        client.connect((address, port))


@pytest.mark.parametrize("interface", list(PodInterface))
def test_pods_that_the_real_plugins_wire_reach_each_other_their_node_and_the_router(
    site: Site, tmp_path: Path, interface: PodInterface
) -> None:
    first, second = wire(site, tmp_path, interface)
    assert len(first.addresses) == 2
    for mine, other, outside in zip(first.addresses, second.addresses, ROUTER, strict=True):
        assert reached(site.node, mine)
        assert reached(first.namespace, other)
        assert reached(second.namespace, mine)
        assert reached(first.namespace, outside)
        with Listener(site.router, outside) as listener:
            assert listener.caller(first.namespace, outside) == mine
    links = netns.run_in(first.namespace, [netns.ip_tool(), "link", "show", "eth0"])
    assert f"mtu {MTU} " in links, "the uplink's, all of it"
    with Listener(first.namespace, first.addresses[0]) as listener:
        caller = listener.caller(site.router, NODE[0], 8080)
    assert caller == ROUTER[0], "a HostPort leads to the pod"


def test_pods_addresses_are_given_back(site: Site, tmp_path: Path) -> None:
    first, _ = wire(site, tmp_path)
    runtime = CniRuntime(site.cni.folder, tmp_path / "memory")
    netns.call_in(site.node, lambda: runtime.delete(sandbox_of(first.namespace)))
    leases = [path.name for path in (tmp_path / "leases" / "podbgp").iterdir() if path.name[0].isdigit()]
    assert first.addresses[0] not in leases


def test_only_what_leaves_the_cluster_is_masqueraded(site: Site, tmp_path: Path) -> None:
    first, _ = wire(site, tmp_path)
    rules = Rules(PODS, CLUSTER, masquerade=True)
    assert netns.call_in(site.node, lambda: PacketFilter().apply(rules))
    for mine, inside, outside, seen in zip(first.addresses, ROUTER, OUTSIDE, NODE, strict=True):
        with Listener(site.client, outside) as listener:
            assert listener.caller(first.namespace, outside) == seen
        with Listener(site.router, inside) as listener:
            assert listener.caller(first.namespace, inside) == mine
    assert netns.call_in(site.node, lambda: PacketFilter().remove())
    with Listener(site.client, OUTSIDE[0]) as listener:
        assert listener.caller(first.namespace, OUTSIDE[0]) == first.addresses[0]


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_closed_port_of_a_service_ends_at_once_and_an_open_one_works(
    site: Site, tmp_path: Path, backend: str
) -> None:
    """The service's rules are those of kube-proxy, in the tables that are not ours."""
    first, second = wire(site, tmp_path)
    for address, target, tool in zip(SERVICE, first.addresses, ("iptables", "ip6tables"), strict=True):
        to = f"[{target}]:{HTTP}" if ":" in target else f"{target}:{HTTP}"
        for chain in ("PREROUTING", "OUTPUT"):
            rule = f"-t nat -A {chain} -d {address} -p tcp --dport {HTTP} -j DNAT --to-destination {to}"
            netns.run_in(site.node, [f"/usr/sbin/{tool}-{backend}", *rule.split()])
    before = forwarded(site.node)
    with pytest.raises(OSError, match=r"timed out|No route|unreachable"):
        connect(site.client, SERVICE[0], HTTP + 1, timeout=0.5)
    assert forwarded(site.node) - before > 20, "unguarded, one SYN goes round until its TTL ends"

    services = tuple(P(address) for address in SERVICE)
    assert netns.call_in(site.node, lambda: PacketFilter().apply(Rules(services=services)))
    before = forwarded(site.node)
    with pytest.raises(ConnectionRefusedError):
        connect(site.client, SERVICE[0], HTTP + 1)
    assert forwarded(site.node) == before + 1, "one packet came, to be passed on, and none after it"
    for address, target in zip(SERVICE, first.addresses, strict=True):
        for caller in (site.client, site.node, second.namespace):
            with pytest.raises(ConnectionRefusedError):
                connect(caller, address, HTTP + 1)
            with Listener(first.namespace, target) as listener:
                assert listener.caller(caller, address)
    with netns.open_socket(site.client, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.connect((SERVICE[0], 53))
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


def forwarded(namespace: str) -> int:
    """IPv4 packets that the namespace passed on."""
    text = netns.call_in(namespace, lambda: Path("/proc/thread-self/net/snmp").read_text())
    names, values = (line.split() for line in text.splitlines() if line.startswith("Ip:"))
    return int(dict(zip(names, values, strict=True))["ForwDatagrams"])


def test_the_table_is_written_only_when_it_differs_and_mended_when_somebody_changed_it(site: Site) -> None:
    rules = Rules(PODS, CLUSTER, True, (P(SERVICE[0]),))
    netns.run_in(site.node, ["nft", "add table inet theirs"])

    def written(wanted: Rules) -> bool:
        return netns.call_in(site.node, lambda: PacketFilter().apply(wanted))

    assert [written(rules), written(rules)] == [True, False]
    netns.run_in(site.node, ["nft", "delete element inet podbgp services4 { 203.0.113.7/32 }"])
    assert [written(rules), written(rules)] == [True, False]
    netns.run_in(site.node, ["nft", "flush chain inet podbgp closed"])
    assert [written(rules), written(rules)] == [True, False]
    assert [written(Rules()), written(Rules())] == [True, False]
    assert netns.run_in(site.node, ["nft", "list", "tables"]).split() == ["table", "inet", "theirs"]


def test_the_parameters_that_a_namespace_has_are_set_and_said(site: Site) -> None:
    """The neighbour table's limits are shown in the first namespace alone."""
    netns.set_sysctls(site.node, {"net.ipv4.ip_forward": "0", "net.ipv4.conf.uplink.rp_filter": "1"})
    sysctls = needed(3, Family, ["uplink"])
    found = netns.call_in(site.node, lambda: apply(sysctls))
    states = {outcome.sysctl.name: outcome.state for outcome in found}
    assert {name for name, state in states.items() if state is State.SET} == {
        "net.ipv4.ip_forward",
        "net.ipv4.conf.uplink.rp_filter",
    }
    assert {name for name, state in states.items() if state is State.ABSENT} == {
        f"net.ipv{version}.neigh.default.gc_thresh{number}" for version in (4, 6) for number in (1, 2, 3)
    }
    after = netns.call_in(site.node, lambda: check(sysctls))
    assert {outcome.state for outcome in after} == {State.RIGHT, State.ABSENT}


def test_the_command_of_the_init_container_makes_a_fresh_host_a_router(site: Site) -> None:
    netns.set_sysctls(site.node, {"net.ipv6.conf.all.forwarding": "0", "net.ipv6.conf.uplink.accept_ra": "1"})
    shown = netns.in_namespace(site.node, [sys.executable, "-m", "bgpd", "sysctls", "--output", "json"])
    before = subprocess.run(shown, capture_output=True, text=True, timeout=60, check=False)
    assert before.returncode == 1
    wrong = {each["name"] for each in json.loads(before.stdout) if each["state"] == "wrong"}
    assert wrong == {"net.ipv6.conf.all.forwarding", "net.ipv6.conf.uplink.accept_ra"}
    said = netns.run_in(site.node, [sys.executable, "-m", "bgpd", "sysctls", "--apply"])
    assert "set      net.ipv6.conf.all.forwarding = 1 (was 0): packets of pods are forwarded" in said
    assert subprocess.run(shown, capture_output=True, timeout=60, check=False).returncode == 0


def test_the_uplink_is_found_with_and_without_the_nodes_address_on_it(site: Site) -> None:
    assert read_in(site)[:2] == (("uplink",), MTU)
    by_route = Uplink(("uplink",), MTU, "has a default route")
    assert netns.call_in(site.node, lambda: read_uplink([parse_address("192.0.2.99")])) == by_route
    netns.batch(site.node, [f"nexthop add id 7 via {ROUTER[0]} dev uplink", "route replace default nhid 7"])
    netns.batch(site.node, ["route del ::/0"])
    assert netns.call_in(site.node, lambda: read_uplink([])) == by_route, "as FRR installs its routes"
