"""FRR: configured and read through vtysh."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import msgspec

from bgpd.lab.fabric_frr import Frr
from tests.interop.harness.lan import DEVICE, LanHost
from tests.interop.harness.speaker import FAMILIES, Announcement, Neighbor, SeenPath, Speaker, family_of


class _AsPath(msgspec.Struct, frozen=True):
    string: str = ""


class _Text(msgspec.Struct, frozen=True):
    string: str = ""


class _List(msgspec.Struct, frozen=True):
    values: tuple[str, ...] = msgspec.field(default=(), name="list")


class _NextHop(msgspec.Struct):
    ip: str
    scope: str = ""


class _Best(msgspec.Struct, frozen=True):
    overall: bool = False


class _Path(msgspec.Struct):
    aspath: _AsPath = _AsPath()
    origin: str = ""
    metric: int | None = None
    locPrf: int | None = None  # noqa: N815 - FRR's own name
    community: _Text = _Text()
    largeCommunity: _Text = _Text()  # noqa: N815 - FRR's own name
    originatorId: str = ""  # noqa: N815 - FRR's own name
    clusterList: _List = _List()  # noqa: N815 - FRR's own name
    bestpath: _Best = _Best()
    nexthops: list[_NextHop] = []


class _Paths(msgspec.Struct):
    paths: list[_Path] = []


class _Session(msgspec.Struct):
    bgpState: str = ""  # noqa: N815 - FRR's own name
    lastShutdownDescription: str = ""  # noqa: N815 - FRR's own name


class FrrSpeaker(Speaker):
    """zebra and bgpd of FRR."""

    daemon = "frr"

    def __init__(self, host: LanHost, asn: int, neighbors: tuple[Neighbor, ...] = ()) -> None:
        super().__init__(host, asn, neighbors)
        self.frr: Frr | None = None
        self._names = count(1)

    def start(self) -> None:
        self.frr = Frr(self.host.name, self.host.namespace, self.host.folder, self.text or self._config())
        self.frr.start()

    def kill(self) -> None:
        if self.frr:
            self.frr.stop()

    def apply(self, announced: tuple[Announcement, ...], withdrawn: tuple[Announcement, ...]) -> None:
        if self.frr is None:
            return
        lines = [line for announcement in announced for line in self._network(announcement)]
        for gone in withdrawn:
            lines += [f"router bgp {self.asn}", f"address-family {gone.family} unicast"]
            lines += [f"no network {gone.prefix}", "exit-address-family", "exit"]
        self.frr.vtysh("configure terminal", *lines)

    def state(self, neighbor: str) -> str:
        return self._session(neighbor).bgpState.lower()

    def refresh(self, neighbor: str) -> None:
        self._ask(f"clear bgp {_plain(neighbor)} soft in")

    def shut_down(self, neighbor: str, message: str) -> None:
        assert self.frr is not None
        session = f"neighbor {_plain(neighbor)} shutdown message {message}"
        self.frr.vtysh("configure terminal", f"router bgp {self.asn}", session)

    def shutdown_heard(self, neighbor: str) -> str:
        return self._session(neighbor).lastShutdownDescription

    def _session(self, neighbor: str) -> _Session:
        output = self._ask(f"show bgp neighbors {_plain(neighbor)} json")
        sessions = msgspec.json.decode(output, type=dict[str, _Session | bool | str])
        session = sessions.get(_plain(neighbor))
        return session if isinstance(session, _Session) else _Session()

    def paths(self, prefix: str) -> list[SeenPath]:
        output = self._ask(f"show bgp {family_of(prefix)} unicast {prefix} json")
        found = msgspec.json.decode(output, type=_Paths)
        return [self._seen(prefix, path) for path in found.paths]

    def _ask(self, command: str) -> str:
        assert self.frr is not None
        return self.frr.vtysh(command)

    @staticmethod
    def _seen(prefix: str, path: _Path) -> SeenPath:
        hops = sorted(path.nexthops, key=lambda hop: hop.scope == "link-local")
        return SeenPath(
            prefix=prefix,
            next_hop=hops[0].ip if hops else "",
            as_path=tuple(int(asn) for asn in path.aspath.string.split() if asn.isdigit()),
            origin=path.origin.lower(),
            med=path.metric,
            local_pref=path.locPrf,
            communities=frozenset(path.community.string.split()),
            large_communities=frozenset(path.largeCommunity.string.split()),
            originator_id=path.originatorId,
            cluster_list=path.clusterList.values,
            best=path.bestpath.overall,
        )

    def _config(self) -> str:
        lines = [
            "frr defaults traditional",
            "log stdout informational",
            f"router bgp {self.asn}",
            f"bgp router-id {self.router_id}",
            "no bgp ebgp-requires-policy",
            "no bgp default ipv4-unicast",
            "no bgp network import-check",
            *([f"bgp cluster-id {self.cluster_id}"] if self.cluster_id else []),
        ]
        for neighbor in self.neighbors:
            if neighbor.graceful_restart:
                lines += ["bgp graceful-restart", "bgp graceful-restart preserve-fw-state"]
                lines.append(f"bgp graceful-restart restart-time {neighbor.restart_time}")
        for neighbor in self.neighbors:
            lines += self._neighbor(neighbor)
        for family in FAMILIES:
            members = [_plain(neighbor.address) for neighbor in self.neighbors if family in neighbor.families]
            lines.append(f"address-family {family} unicast")
            lines += [f"neighbor {address} activate" for address in members]
            clients = [_plain(neighbor.address) for neighbor in self.neighbors if neighbor.client]
            lines += [
                f"neighbor {address} route-reflector-client" for address in clients if address in members
            ]
            lines.append("exit-address-family")
        lines.append("exit")
        for announcement in self.announced.values():
            lines += self._network(announcement)
        return "\n".join([*lines, ""])

    @staticmethod
    def _neighbor(neighbor: Neighbor) -> Iterable[str]:
        start = f"neighbor {_plain(neighbor.address)}"
        yield f"{start} remote-as {neighbor.asn}"
        if "%" in neighbor.address:
            yield f"{start} interface {DEVICE}"
        else:
            yield f"{start} update-source {neighbor.local_address}"
        yield f"{start} timers {max(1, neighbor.hold_time // 3)} {neighbor.hold_time}"
        yield f"{start} timers connect 1"
        if neighbor.password:
            yield f"{start} password {neighbor.password}"
        if neighbor.ttl_security:
            yield f"{start} ttl-security hops 1"
        if neighbor.multihop:
            yield f"{start} ebgp-multihop {neighbor.multihop}"
        if neighbor.passive:
            yield f"{start} passive"
        if neighbor.extended_next_hop:
            yield f"{start} capability extended-nexthop"

    def _network(self, announcement: Announcement) -> list[str]:
        """A new route map each time: FRR applies a changed one only after a delay."""
        name = f"announce-{next(self._names)}"
        lines = [f"route-map {name} permit 10"]
        if announcement.med is not None:
            lines.append(f"set metric {announcement.med}")
        if announcement.local_pref is not None:
            lines.append(f"set local-preference {announcement.local_pref}")
        if announcement.communities:
            lines.append(f"set community {' '.join(announcement.communities)}")
        if announcement.large_communities:
            lines.append(f"set large-community {' '.join(announcement.large_communities)}")
        if announcement.prepend:
            lines.append(f"set as-path prepend {' '.join(map(str, announcement.prepend))}")
        if announcement.next_hop:
            kind = "ip" if announcement.family == "ipv4" else "ipv6"
            lines.append(f"set {kind} next-hop {'global ' * (kind == 'ipv6')}{announcement.next_hop}")
        lines += ["exit", f"router bgp {self.asn}", f"address-family {announcement.family} unicast"]
        return [*lines, f"network {announcement.prefix} route-map {name}", "exit-address-family", "exit"]


def _plain(address: str) -> str:
    """Without the zone of a link-local address, which FRR wants on a line of its own."""
    return address.partition("%")[0]
