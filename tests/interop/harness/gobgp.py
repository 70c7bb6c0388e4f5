"""GoBGP: configured through its file, changed and read through its client, which speaks gRPC on loopback."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bgpd.lab.command import LabError, find_tool
from bgpd.lab.netns import run_in
from bgpd.lab.process import Process
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import (
    Announcement,
    Neighbor,
    SeenPath,
    Speaker,
    family_of,
    wait_until,
)

STATES = ("unknown", "idle", "connect", "active", "opensent", "openconfirm", "established")
ORIGINS = ("igp", "egp", "incomplete")


class _State(msgspec.Struct):
    session_state: int = 0


class _Neighbor(msgspec.Struct):
    state: _State


class _Segment(msgspec.Struct):
    asns: list[int] = []


class _LargeCommunity(msgspec.Struct):
    ASN: int
    LocalData1: int
    LocalData2: int


class _Attribute(msgspec.Struct):
    """Its shape depends on the type; only what that type has is there."""

    type: int
    value: msgspec.Raw = msgspec.Raw(b"0")
    as_paths: list[_Segment] = []
    nexthop: str = ""
    metric: int | None = None
    communities: list[int] = []


class _Path(msgspec.Struct):
    attrs: list[_Attribute]
    best: bool = False


class GobgpSpeaker(Speaker):
    """gobgpd."""

    daemon = "gobgp"
    can_refresh = False  # `softresetin` only runs its own import policy again

    def __init__(self, host: LanHost, asn: int, neighbors: tuple[Neighbor, ...] = ()) -> None:
        super().__init__(host, asn, neighbors)
        self._file = host.folder / "gobgpd.toml"
        self._started = False
        self.process = Process(
            f"gobgpd of {host.name}",
            host.namespace,
            [find_tool("gobgpd", "gobgpd"), "-f", str(self._file), "--pprof-disable"],
            host.folder / "gobgpd.log",
        )

    def start(self) -> None:
        self._file.write_text(self.text or "\n".join(self._config()))
        if self._started and "-r" not in self.process.argv:
            self.process.argv.append("-r")  # it restarts: only then are its R and F bits set
        self._started = True
        self.process.start()
        wait_until(self._answers, 10, "gobgpd answers")
        self.apply(tuple(self.announced.values()), ())

    def kill(self) -> None:
        self.process.kill()

    def apply(self, announced: tuple[Announcement, ...], withdrawn: tuple[Announcement, ...]) -> None:
        if not self.process.running:
            return
        for announcement in announced:
            self._ask(*_rib(announcement, "add"), *self._attributes(announcement))
        for gone in withdrawn:
            self._ask(*_rib(gone, "del"))

    def state(self, neighbor: str) -> str:
        output = self._ask("-j", "neighbor", neighbor)
        return STATES[msgspec.json.decode(output, type=_Neighbor).state.session_state]

    def refresh(self, neighbor: str) -> None:
        raise NotImplementedError

    def shut_down(self, neighbor: str, message: str) -> None:
        self._ask("neighbor", neighbor, "shutdown", "--reason", message)

    def shutdown_heard(self, neighbor: str) -> str:
        del neighbor  # only its log has it
        return self.process.tail()

    def paths(self, prefix: str) -> list[SeenPath]:
        output = self._ask("-j", "global", "rib", prefix, "-a", family_of(prefix))
        found = msgspec.json.decode(output, type=dict[str, list[_Path]])
        return [_seen(prefix, path) for path in found.get(prefix, [])]

    def _ask(self, *words: str) -> str:
        return run_in(self.host.namespace, [find_tool("gobgp", "gobgpd"), *words])

    def _answers(self) -> bool:
        self.process.must_run()
        try:
            self._ask("global")
        except LabError:
            return False
        return True

    def _attributes(self, announcement: Announcement) -> Iterable[str]:
        yield from (
            "nexthop",
            announcement.next_hop or self.host.address(announcement.family),
            "origin",
            "igp",
        )
        if announcement.med is not None:
            yield from ("med", str(announcement.med))
        if announcement.local_pref is not None:
            yield from ("local-pref", str(announcement.local_pref))
        if announcement.communities:
            yield from ("community", ",".join(announcement.communities))
        if announcement.large_communities:
            yield from ("large-community", ",".join(announcement.large_communities))
        if announcement.prepend:
            yield from ("aspath", " ".join(map(str, announcement.prepend)))

    def _config(self) -> Iterable[str]:
        yield from ("[global.config]", f"as = {self.asn}", f'router-id = "{self.router_id}"')
        for neighbor in self.neighbors:
            yield "[[neighbors]]"
            yield "[neighbors.config]"
            yield f'neighbor-address = "{neighbor.address}"'
            yield f"peer-as = {neighbor.asn}"
            if neighbor.password:
                yield f'auth-password = "{neighbor.password}"'
            yield "[neighbors.transport.config]"
            yield f'local-address = "{neighbor.local_address}"'
            yield f"passive-mode = {str(neighbor.passive).lower()}"
            yield "[neighbors.timers.config]"
            yield from ("connect-retry = 1", "idle-hold-time-after-reset = 1")
            yield f"hold-time = {neighbor.hold_time}"
            if neighbor.ttl_security:
                yield from ("[neighbors.ttl-security.config]", "enabled = true", "ttl-min = 255")
            if neighbor.multihop:
                yield from ("[neighbors.ebgp-multihop.config]", "enabled = true")
                yield f"multihop-ttl = {neighbor.multihop}"
            if neighbor.graceful_restart:
                yield from ("[neighbors.graceful-restart.config]", "enabled = true")
                yield f"restart-time = {neighbor.restart_time}"
            if neighbor.client:
                yield from ("[neighbors.route-reflector.config]", "route-reflector-client = true")
                yield f'route-reflector-cluster-id = "{self.cluster_id or self.router_id}"'
            for family in neighbor.families:
                yield from ("[[neighbors.afi-safis]]", "[neighbors.afi-safis.config]")
                yield f'afi-safi-name = "{family}-unicast"'
                if neighbor.graceful_restart:
                    yield from ("[neighbors.afi-safis.mp-graceful-restart.config]", "enabled = true")


def _rib(announcement: Announcement, verb: str) -> list[str]:
    return ["global", "rib", verb, "-a", announcement.family, announcement.prefix]


def _seen(prefix: str, path: _Path) -> SeenPath:
    by_type = {attribute.type: attribute for attribute in path.attrs}
    absent = _Attribute(0)
    next_hop = by_type.get(3) or by_type.get(14) or absent
    large = msgspec.json.decode(by_type[32].value, type=list[_LargeCommunity]) if 32 in by_type else []
    return SeenPath(
        prefix=prefix,
        next_hop=next_hop.nexthop,
        as_path=tuple(asn for segment in by_type.get(2, absent).as_paths for asn in segment.asns),
        origin=ORIGINS[msgspec.json.decode(by_type[1].value, type=int)],
        med=by_type.get(4, absent).metric,
        local_pref=msgspec.json.decode(by_type[5].value, type=int) if 5 in by_type else None,
        communities=frozenset(f"{c >> 16}:{c & 0xFFFF}" for c in by_type.get(8, absent).communities),
        large_communities=frozenset(f"{c.ASN}:{c.LocalData1}:{c.LocalData2}" for c in large),
        originator_id=msgspec.json.decode(by_type[9].value, type=str) if 9 in by_type else "",
        cluster_list=msgspec.json.decode(by_type[10].value, type=tuple[str, ...]) if 10 in by_type else (),
        best=path.best,
    )
