"""The one nftables table that is ours: masquerade to the outside, and an end for closed service ports.

Owns `table inet podbgp`.  It must never touch another table: kube-proxy's rules, in nftables or iptables,
stay as they are, and what is decided here is decided behind theirs, when an address that they know has
already been translated.

- `outside`: packets of this node's pods to what is outside the cluster leave with the node's address.
  Inside the cluster's ranges a pod's address is never translated.
- `services`: a packet that is to be forwarded and still has a service's address was translated by nobody:
  its port is closed.  The router would send it back here until its TTL ends, so it is rejected.  What
  connection tracking calls invalid is dropped instead, because a reset would end a connection that lives.
  An open port of a Service that delivers only to this node's endpoints is not closed: kube-proxy has not
  heard of the endpoint yet, or the router not yet that it went.  It is dropped too: its sender tries again.
- `own`: the same for what the node itself sends; on the loopback device IPVS has the service's address.

`table_text` is pure.  `PacketFilter` replaces the table in one transaction, and only when it differs;
its calls block for one or two runs of nft(8) with a time limit.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bgpd.node.errors import HostError
from routes.prefix import Address, Family, Prefix, family_of, format_address

TABLE = "podbgp"
TIMEOUT = 20.0
"""Seconds for one run; thousands of elements take tenths of one."""
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MARK = "made_of_"
"""Begins the name of an empty chain, which goes on with the digest: nft 1.0 lists no comments of tables."""
MOST_ELEMENTS = 100_000
SET_TYPE = {Family.IPV4: "ipv4_addr", Family.IPV6: "ipv6_addr"}
NAMED = {Family.IPV4: "4", Family.IPV6: "6"}
MATCH = {Family.IPV4: "ip", Family.IPV6: "ip6"}


class Port(NamedTuple):
    """A port of a Service's address."""

    address: Address
    protocol: str
    """As Kubernetes names it: TCP, UDP or SCTP."""
    number: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What the table is to do."""

    pod_prefixes: tuple[Prefix, ...] = ()
    """This node's."""
    cluster: tuple[Prefix, ...] = ()
    """Where pods are seen with their own address: pod and service ranges, address pools, node addresses."""
    masquerade: bool = False
    services: tuple[Prefix, ...] = ()
    """Service addresses, or ranges of them, that this node announces."""

    local_ports: tuple[Port, ...] = ()
    """Of Services that deliver only to this node's endpoints."""

    @property
    def empty(self) -> bool:
        """Nothing is to be done: there must be no table."""
        return not (self.masquerade and self.pod_prefixes) and not self.services


class Shape(NamedTuple):
    """How much of what a table holds: what somebody else changed shows here."""

    digest: str
    """Of the text that made it."""
    rules: int
    elements: int


def table_text(rules: Rules) -> str:
    """What is in the table, as nft(8) reads it; empty when there must be none."""
    if rules.empty:
        return ""
    lines: list[str] = []
    if rules.masquerade and rules.pod_prefixes:
        lines += [*_sets("pods", rules.pod_prefixes), *_sets("cluster", rules.cluster)]
        lines += ["chain outside {", "type nat hook postrouting priority srcnat; policy accept;"]
        lines += _masquerade(rules)
        lines.append("}")
    if rules.services:
        lines += [
            *_sets("services", rules.services),
            *_port_sets(rules.local_ports),
            "chain services {",
            "type filter hook forward priority filter; policy accept;",
            *(f"{MATCH[family]} daddr @services{NAMED[family]} jump closed" for family in Family),
            "}",
            "chain own {",
            "type filter hook output priority filter; policy accept;",
            *(
                f'oifname != "lo" {MATCH[family]} daddr @services{NAMED[family]} jump closed'
                for family in Family
            ),
            "}",
            "chain closed {",
            "ct state invalid drop",
            *(
                f"{MATCH[family]} daddr . meta l4proto . th dport @local{NAMED[family]} drop"
                for family in (Family if rules.local_ports else ())
            ),
            "meta l4proto tcp reject with tcp reset",
            "reject with icmpx type port-unreachable",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _masquerade(rules: Rules) -> Iterable[str]:
    families = {prefix.family for prefix in rules.pod_prefixes}
    for family in sorted(families):
        match, number = MATCH[family], NAMED[family]
        yield (
            f'oifname != "lo" {match} saddr @pods{number} {match} daddr != @cluster{number} '
            "masquerade fully-random"
        )


def _sets(name: str, prefixes: Iterable[Prefix]) -> Iterable[str]:
    """One set a family; an empty one too, so that rules can name both."""
    disjoint = without_covered(prefixes)
    for family in Family:
        elements = [str(prefix) for prefix in disjoint if prefix.family is family]
        yield f"set {name}{NAMED[family]} {{"
        yield f"type {SET_TYPE[family]}; flags interval;"
        if elements:
            yield f"elements = {{ {', '.join(elements)} }}"
        yield "}"


def _port_sets(ports: Iterable[Port]) -> Iterable[str]:
    """One set a family, or none at all."""
    wanted = sorted(set(ports))
    for family in Family if wanted else ():
        elements = [
            f"{format_address(port.address)} . {port.protocol.lower()} . {port.number}"
            for port in wanted
            if family_of(port.address) is family
        ]
        yield f"set local{NAMED[family]} {{"
        yield f"type {SET_TYPE[family]} . inet_proto . inet_service;"
        if elements:
            yield f"elements = {{ {', '.join(elements)} }}"
        yield "}"


def without_covered(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Each prefix that lies in no other one, sorted: intervals of a set must not overlap."""
    kept: list[Prefix] = []
    for prefix in sorted(set(prefixes), key=lambda prefix: (prefix.family, prefix.address, prefix.length)):
        if not (kept and kept[-1].family is prefix.family and kept[-1].contains(prefix)):
            kept.append(prefix)
    return kept


def expected_shape(text: str) -> Shape:
    """What a table that this text made looks like when nobody changed it."""
    lines = text.splitlines()
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()[:32]
    rules = sum(line.endswith(("jump closed", "fully-random", "drop")) or "reject" in line for line in lines)
    elements = sum(line.count(",") + 1 for line in lines if line.startswith("elements"))
    return Shape(digest, rules, elements)


def replacing(text: str) -> str:
    """The transaction that puts this text in place of the table, whether or not there is one."""
    remove = f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
    if not text:
        return remove
    mark = f"chain {MARK}{expected_shape(text).digest} {{\n}}\n"
    return f"{remove}table inet {TABLE} {{\n{mark}{text}}}\n"


def read_shape(listed: str) -> Shape:
    """The shape of what `nft --json list table` printed; HostError if that is no such listing."""
    digest, rules, elements = "", 0, 0
    for item in map(_mapping, _objects(listed)):
        chain = str(_mapping(item.get("chain", {})).get("name", ""))
        if chain.startswith(MARK):
            digest = chain.removeprefix(MARK)
        rules += "rule" in item
        members = _mapping(item.get("set", {})).get("elem", [])
        elements += len(members) if isinstance(members, list) else 1
    return Shape(digest, rules, elements)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


class PacketFilter:
    """The table in the kernel, of the network namespace that the process is in."""

    def __init__(self) -> None:
        self._tool = shutil.which("nft", path=SYSTEM_FOLDERS)

    def apply(self, rules: Rules) -> bool:
        """Make the table do this; whether it had to be written.  HostError when the host refuses."""
        count = sum(map(len, (rules.services, rules.cluster, rules.pod_prefixes, rules.local_ports)))
        if count > MOST_ELEMENTS:
            raise HostError(f"{count} addresses for the packet filter: up to {MOST_ELEMENTS} are taken")
        text = table_text(rules)
        if self._tool is None and not text:
            return False  # without the tool there is no table of ours
        there = self._shape()
        if there == (expected_shape(text) if text else None):
            return False
        self._run(["--file", "-"], replacing(text))
        return True

    def remove(self) -> bool:
        """Take the table away; whether there was one."""
        return self.apply(Rules())

    def _shape(self) -> Shape | None:
        """What is there; None: no table of ours."""
        listed = self._run(["--json", "list", "tables", "inet"], "")
        tables = [_mapping(_mapping(item).get("table", {})) for item in _objects(listed)]
        if not any(table.get("name") == TABLE for table in tables):
            return None
        return read_shape(self._run(["--json", "list", "table", "inet", TABLE], ""))

    def _run(self, arguments: list[str], text: str) -> str:
        if self._tool is None:
            raise HostError(
                "nft is not installed, and masquerade and the guard of services need it (package nftables)"
            )
        try:
            done = subprocess.run(  # noqa: S603 - a fixed tool; the text is made of parsed prefixes alone
                [self._tool, *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostError(f"nft {' '.join(arguments)}: {error}") from error
        if done.returncode != 0:
            said = done.stderr.strip()[:500] or f"exit code {done.returncode}"
            raise HostError(f"nft {' '.join(arguments)}: {said}")
        return done.stdout


def _objects(listed: str) -> list[object]:
    """What `nft --json` printed."""
    try:
        items = _mapping(json.loads(listed)).get("nftables")
    except ValueError as error:
        raise HostError(f"nft printed no JSON: {listed[:100]!r}") from error
    if not isinstance(items, list):
        raise HostError(f"nft printed no list of objects: {listed[:100]!r}")
    return items
