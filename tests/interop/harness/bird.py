"""BIRD: configured through its file, read through birdc's text, which is all that it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from bgpd.lab.fabric_bird import Bird
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import FAMILIES, Announcement, Neighbor, SeenPath, Speaker, family_of

ATTRIBUTE = re.compile(r"^\tBGP\.(\w+): ?(.*)$")
DEVICE_PROTOCOL = "protocol device { scan time 1; }"
"""BIRD 2.0 may sleep up to three seconds over work that it has; its shortest timer makes that one."""
PATH = re.compile(r"^\S* +(?:unicast|unreachable|blackhole) \[(\S+) [^\]]*\](.*)$")


class BirdSpeaker(Speaker):
    """BIRD."""

    daemon = "bird"

    def __init__(self, host: LanHost, asn: int, neighbors: tuple[Neighbor, ...] = ()) -> None:
        super().__init__(host, asn, neighbors)
        self.bird: Bird | None = None

    def start(self) -> None:
        self.bird = Bird(self.host.name, self.host.namespace, self.host.folder, self.text or self._config())
        if any(neighbor.graceful_restart for neighbor in self.neighbors):
            self.bird.process.argv.append("-R")  # it recovers: only then are its F bits set
        self.bird.start()

    def kill(self) -> None:
        if self.bird:
            self.bird.stop()

    def apply(self, announced: tuple[Announcement, ...], withdrawn: tuple[Announcement, ...]) -> None:
        del announced, withdrawn  # the file holds the whole state
        if self.bird:
            self.bird.configure(self._config())

    def state(self, neighbor: str) -> str:
        """BIRD shows the BGP state as the last word of a protocol's line."""
        for line in self._ask("show", "protocols", self._protocol(neighbor)).splitlines():
            words = line.split()
            if words and words[0] == self._protocol(neighbor):
                return words[5].lower() if len(words) > 5 else ""
        return ""

    def refresh(self, neighbor: str) -> None:
        self._ask("reload", "in", self._protocol(neighbor))

    def shut_down(self, neighbor: str, message: str) -> None:
        self._ask("disable", self._protocol(neighbor), f'"{message}"')

    def shutdown_heard(self, neighbor: str) -> str:
        return self._ask("show", "protocols", "all", self._protocol(neighbor))

    def paths(self, prefix: str) -> list[SeenPath]:
        table = "master4" if family_of(prefix) == "ipv4" else "master6"
        output = self._ask("show", "route", "table", table, "all", "where", "net", "=", prefix)
        return list(_parse_paths(prefix, output.splitlines()))

    def _ask(self, *words: str) -> str:
        assert self.bird is not None
        return self.bird.birdc(*words)

    def _protocol(self, neighbor: str) -> str:
        return f"peer{[known.address for known in self.neighbors].index(neighbor) + 1}"

    def _config(self) -> str:
        lines = ["log stderr all;", f"router id {self.router_id};", DEVICE_PROTOCOL]
        for family in FAMILIES:
            mine = [a for a in self.announced.values() if a.family == family]
            lines.append(f"protocol static own_{family} {{ {family};")
            lines += [f"  route {a.prefix} blackhole;" for a in mine]
            lines += ["}", *_export_filter(family, mine, reflects=self.reflects)]
        for neighbor in self.neighbors:
            lines += self._session(neighbor)
        return "\n".join([*lines, ""])

    def _session(self, neighbor: Neighbor) -> Iterable[str]:
        yield f"protocol bgp {self._protocol(neighbor.address)} {{"
        yield f"  local {neighbor.local_address} as {self.asn};"
        yield f"  neighbor {neighbor.address} as {neighbor.asn};"
        yield f"  {f'multihop {neighbor.multihop}' if neighbor.multihop else 'direct'};"
        yield f"  hold time {neighbor.hold_time};"
        yield "  connect delay time 1; connect retry time 2; error wait time 1, 4;"
        if neighbor.password:
            yield f'  password "{neighbor.password}";'
        if neighbor.ttl_security:
            yield "  ttl security on;"
        if neighbor.passive:
            yield "  passive on;"
        if neighbor.graceful_restart:
            yield f"  graceful restart on; graceful restart time {neighbor.restart_time};"
        if neighbor.client:
            yield f"  rr client; rr cluster id {self.cluster_id or self.router_id};"
        for family in neighbor.families:
            extended = "extended next hop on;" if neighbor.extended_next_hop and family == "ipv4" else ""
            add_path = " add paths rx;" if neighbor.add_path else ""
            yield f"  {family} {{ import all; export filter announce_{family}; {extended}{add_path} }};"
        yield "}"


def _export_filter(family: str, announced: list[Announcement], *, reflects: bool) -> Iterable[str]:
    """Attributes are set on export: to an eBGP peer BIRD sends no MED that was there before."""
    yield f"filter announce_{family} {{"
    if reflects:
        yield "  if source = RTS_BGP then accept;"
    yield "  if source != RTS_STATIC then reject;"
    for announcement in announced:
        if attributes := _attributes(announcement):
            yield f"  if net = {announcement.prefix} then {{ {attributes} }}"
    yield from ("  accept;", "}")


def _attributes(announcement: Announcement) -> str:
    lines = []
    if announcement.med is not None:
        lines.append(f"bgp_med = {announcement.med};")
    if announcement.local_pref is not None:
        lines.append(f"bgp_local_pref = {announcement.local_pref};")
    lines += [
        f"bgp_community.add(({community.replace(':', ',')}));" for community in announcement.communities
    ]
    lines += [
        f"bgp_large_community.add(({community.replace(':', ',')}));"
        for community in announcement.large_communities
    ]
    if announcement.next_hop:
        lines.append(f"bgp_next_hop = {announcement.next_hop};")
    lines += [f"bgp_path.prepend({asn});" for asn in reversed(announcement.prepend)]
    return " ".join(lines)


def _parse_paths(prefix: str, lines: list[str]) -> Iterator[SeenPath]:
    """Each path begins with a line that names its protocol; its attributes follow, indented."""
    protocol, best = "", False
    attributes: dict[str, str] = {}
    for line in [*lines, f"{prefix} unicast [end end]"]:
        if start := PATH.match(line):
            if "next_hop" in attributes:
                yield _seen(prefix, attributes, best=best)
            protocol, best = start[1], " * " in f"{start[2]} "
            attributes = {}
        elif (attribute := ATTRIBUTE.match(line)) and protocol:
            attributes[attribute[1]] = attribute[2]


def _seen(prefix: str, attributes: dict[str, str], *, best: bool) -> SeenPath:
    def number(name: str) -> int | None:
        return int(attributes[name]) if name in attributes else None

    next_hops = [address for address in attributes["next_hop"].split() if address != "::"]
    return SeenPath(
        prefix=prefix,
        next_hop=next_hops[0],  # beside a link-local address that came alone, BIRD shows `::`
        as_path=tuple(int(asn) for asn in attributes.get("as_path", "").split() if asn.isdigit()),
        origin=attributes.get("origin", "").lower(),
        med=number("med"),
        local_pref=number("local_pref"),
        communities=_communities(attributes.get("community", "")),
        large_communities=_communities(attributes.get("large_community", "")),
        originator_id=attributes.get("originator_id", ""),
        cluster_list=tuple(attributes.get("cluster_list", "").split()),
        best=best,
    )


def _communities(text: str) -> frozenset[str]:
    """`(65000,1) (65000,2)`, or with spaces after the commas."""
    return frozenset(":".join(re.findall(r"\d+", group)) for group in re.findall(r"\(([^)]*)\)", text))
