"""OpenBGPD: configured through its file, read through bgpctl."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import msgspec

from bgpd.lab.command import find_tool, run
from bgpd.lab.process import Process, wait_for_socket
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import Announcement, Neighbor, SeenPath, Speaker

DAEMON = Path("/usr/sbin/bgpd")  # FRR has one of the same name elsewhere
CHROOT = Path("/run/openbgpd")
"""The home of its user, which its processes lock themselves into; only systemd would make it."""


class _Session(msgspec.Struct):
    state: str = ""


class _Sessions(msgspec.Struct):
    neighbors: list[_Session] = []


class _Attribute(msgspec.Struct):
    """Its shape depends on the type; only what that type has is there."""

    originator: str = ""
    cluster_list: list[str] = []


class _Path(msgspec.Struct):
    aspath: str = ""
    exit_nexthop: str = ""
    origin: str = ""
    metric: int | None = None
    localpref: int | None = None
    communities: list[str] = []
    large_communities: list[str] = []
    attributes: list[_Attribute] = []
    best: bool = False


class _Rib(msgspec.Struct):
    rib: list[_Path] = []


class OpenbgpdSpeaker(Speaker):
    """OpenBGPD's bgpd."""

    daemon = "openbgpd"
    carries_other_family = False

    def __init__(self, host: LanHost, asn: int, neighbors: tuple[Neighbor, ...] = ()) -> None:
        super().__init__(host, asn, neighbors)
        self._file = host.folder / "bgpd.conf"
        self._socket = host.folder / "bgpd.sock"
        self.process = Process(
            f"OpenBGPD of {host.name}",
            host.namespace,
            [str(DAEMON), "-d", "-f", str(self._file)],
            host.folder / "openbgpd.log",
        )

    def start(self) -> None:
        CHROOT.mkdir(mode=0o755, exist_ok=True)
        self._write_config()
        self._socket.unlink(missing_ok=True)
        self.process.start()
        wait_for_socket(self.process, self._socket)

    def kill(self) -> None:
        """Its parent and the three processes that do the work."""
        if self.process.running:
            pid = self.process.pid
            workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            self.process.kill()
            for worker in map(int, workers):
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

    def apply(self, announced: tuple[Announcement, ...], withdrawn: tuple[Announcement, ...]) -> None:
        del announced, withdrawn  # the file holds the whole state
        if self.process.running:
            self._write_config()
            self._ask("reload")

    def state(self, neighbor: str) -> str:
        sessions = msgspec.json.decode(self._ask("-j", "show", "neighbor", neighbor), type=_Sessions)
        return sessions.neighbors[0].state.lower() if sessions.neighbors else ""

    def refresh(self, neighbor: str) -> None:
        self._ask("neighbor", neighbor, "refresh")

    def shut_down(self, neighbor: str, message: str) -> None:
        self._ask("neighbor", neighbor, "down", message)

    def shutdown_heard(self, neighbor: str) -> str:
        return self._ask("show", "neighbor", neighbor)

    def paths(self, prefix: str) -> list[SeenPath]:
        rib = msgspec.json.decode(self._ask("-j", "show", "rib", "detail", prefix), type=_Rib)
        return [_seen(prefix, path) for path in rib.rib]

    def _ask(self, *words: str) -> str:
        return run([find_tool("bgpctl", "openbgpd"), "-s", str(self._socket), *words])

    def _write_config(self) -> None:
        self._file.touch(mode=0o600)  # it refuses a file that others can read
        lines = [f'socket "{self._socket}"', self.text] if self.text else self._config()
        self._file.write_text("\n".join([*lines, ""]))

    def _config(self) -> Iterable[str]:
        yield f"AS {self.asn}"
        yield f"router-id {self.router_id}"
        yield f'socket "{self._socket}"'
        yield from ("fib-update no", "connect-retry 1")
        addresses = dict.fromkeys(neighbor.local_address for neighbor in self.neighbors)
        yield from (f"listen on {address}" for address in addresses)
        yield from (_network(announcement) for announcement in self.announced.values())
        for neighbor in self.neighbors:
            yield f"neighbor {neighbor.address} {{"
            yield f"  remote-as {neighbor.asn}"
            yield f"  local-address {neighbor.local_address}"
            yield f"  holdtime {neighbor.hold_time}"
            for family, word in (("ipv4", "IPv4"), ("ipv6", "IPv6")):
                yield f"  announce {word} {'unicast' if family in _families(neighbor) else 'none'}"
            if neighbor.password:
                yield f'  tcp md5sig password "{neighbor.password}"'
            if neighbor.ttl_security:
                yield "  ttl-security yes"
            if neighbor.multihop:
                yield f"  multihop {neighbor.multihop}"
            if neighbor.passive:
                yield "  passive"
            if neighbor.client:
                yield f"  route-reflector {self.cluster_id or self.router_id}"
            yield "}"
        yield from ("allow from any", "allow to any")


def _families(neighbor: Neighbor) -> set[str]:
    """Only the session's own: for another, 7.7 on Linux announces the loopback address as next hop."""
    return {f"ipv{ip_address(neighbor.address).version}"} & set(neighbor.families)


def _network(announcement: Announcement) -> str:
    sets = []
    if announcement.med is not None:
        sets.append(f"metric {announcement.med}")
    if announcement.local_pref is not None:
        sets.append(f"localpref {announcement.local_pref}")
    sets += [f"community {community}" for community in announcement.communities]
    sets += [f"large-community {community}" for community in announcement.large_communities]
    if announcement.next_hop:
        sets.append(f"nexthop {announcement.next_hop}")
    if announcement.prepend:
        sets.append(f"prepend-self {len(announcement.prepend)}")  # it can prepend only its own AS
    return f"network {announcement.prefix}" + (f" set {{ {' '.join(sets)} }}" if sets else "")


def _seen(prefix: str, path: _Path) -> SeenPath:
    return SeenPath(
        prefix=prefix,
        next_hop=path.exit_nexthop,
        as_path=tuple(int(asn) for asn in path.aspath.split() if asn.isdigit()),
        origin=path.origin.lower(),
        med=path.metric,
        local_pref=path.localpref,
        communities=frozenset(path.communities),
        large_communities=frozenset(path.large_communities),
        originator_id="".join(attribute.originator for attribute in path.attributes),
        cluster_list=tuple(cluster for attribute in path.attributes for cluster in attribute.cluster_list),
        best=path.best,
    )
