"""The kernel parameters that the agent needs on its host, and setting them where that is allowed.

Owns the list with its reasons, and `podbgpd sysctls [--apply]`, which a privileged init container runs so
that the agent itself needs no such privilege.  It must never lower a value that may be higher, and never
touch one that the list does not name.  `bgpd/kernel/host_checks.py` warns of the same while the agent runs.

`needed` is pure; `check` reads and `apply` writes /proc/sys of the network namespace that the process is in.
A host that refuses is a value, not an error: the report then names what the operator has to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import click

from bgpd.kernel.host_checks import PROC_SYS, STRICT, neighbour_limit, proc_path, quoted
from routes.prefix import Family

PODS_OF_A_NODE = 256
"""Neighbours of a node that are no nodes: its pods, with room to spare."""
LEAST_NEIGHBOURS = (128, 512, 1024)
"""gc_thresh1 to 3 as the kernel has them at start."""
LOOSE = 2
ROUTER_ADVERTISEMENTS_AND_FORWARDING = 2


class Sysctl(NamedTuple):
    """A parameter, the value that is needed, and why."""

    name: str
    """As sysctl(8) takes it."""
    value: int
    why: str
    at_least: bool = False
    """A higher value is as good."""
    only_instead_of: frozenset[int] = frozenset()
    """Only these values are wrong; empty: all others are."""
    or_higher_in: str = ""
    """Another parameter that overrules this one where it is higher."""

    def satisfied_by(self, value: int) -> bool:
        """Whether this value will do."""
        if self.only_instead_of:
            return value not in self.only_instead_of
        return value >= self.value if self.at_least else value == self.value


class State(StrEnum):
    """What is with a parameter."""

    RIGHT = "right"
    WRONG = "wrong"
    SET = "set"
    """It was wrong and is right now."""
    REFUSED = "refused"
    """It is wrong, and the host does not let us set it."""
    ABSENT = "absent"
    """This kernel, or network namespace, does not have it."""


class Outcome(NamedTuple):
    """What was found, and done."""

    sysctl: Sysctl
    state: State
    before: str
    """The value that was found; empty if absent."""
    error: str = ""

    @property
    def sentence(self) -> str:
        name, value = self.sysctl.name, self.sysctl.value
        if self.state is State.ABSENT:
            return f"{name}: not here"
        if self.state is State.RIGHT:
            return f"{name} = {self.before}"
        if self.state is State.SET:
            return f"{name} = {value} (was {self.before}): {self.sysctl.why}"
        refused = f" ({self.error})" if self.error else ""
        return f"{name} = {self.before}{refused}; needed: sysctl -w {name}={value}: {self.sysctl.why}"


def needed(
    nodes: int, families: Iterable[Family], links: Sequence[str] = (), *, bridge: bool = False
) -> tuple[Sysctl, ...]:
    """What a node of a cluster of so many nodes needs, in the order in which it is to be set.

    `links` are the uplinks; `bridge`: pods hang on a bridge instead of links of their own.
    """
    found: list[Sysctl] = []
    for family in sorted(set(families)):
        found += _ipv4(links) if family is Family.IPV4 else _ipv6(nodes, links)
        found += _routing(family)
        found += _neighbours(nodes, family)
        if bridge:
            name = "iptables" if family is Family.IPV4 else "ip6tables"
            why = "answers between pods on one bridge pass kube-proxy's rules, as the requests did"
            found.append(Sysctl(f"net.bridge.bridge-nf-call-{name}", 1, why))
    return tuple(found)


def _ipv4(links: Sequence[str]) -> list[Sysctl]:
    # The kernel uses the higher of `all` and the link's own value.
    strict = "strict reverse-path checks drop what arrives over another link than the answer takes"
    every, wrong = "net.ipv4.conf.all.rp_filter", frozenset((STRICT,))
    return [
        Sysctl(every, LOOSE, strict, only_instead_of=wrong),
        *(
            Sysctl(
                f"net.ipv4.conf.{quoted(link)}.rp_filter",
                LOOSE,
                strict,
                only_instead_of=wrong,
                or_higher_in=every,
            )
            for link in links
        ),
        Sysctl("net.ipv4.ip_forward", 1, "packets of pods are forwarded"),
        Sysctl(
            "net.ipv4.nexthop_compat_mode",
            0,
            "a change of a shared next hop is one notification, not one for each route",
        ),
    ]


def _ipv6(nodes: int, links: Sequence[str]) -> list[Sysctl]:
    # Before forwarding: turning that on drops the default routes that came by router advertisement.
    keep = "the uplink still takes its default route from router advertisements, once it forwards"
    accept = [
        Sysctl(
            f"net.ipv6.conf.{quoted(link)}.accept_ra",
            ROUTER_ADVERTISEMENTS_AND_FORWARDING,
            keep,
            only_instead_of=frozenset((1,)),
        )
        for link in links
    ]
    room = max(4_096, neighbour_limit(nodes + PODS_OF_A_NODE))
    return [
        *accept,
        Sysctl("net.ipv6.conf.all.forwarding", 1, "packets of pods are forwarded"),
        Sysctl(
            "net.ipv6.route.max_size", room, "before Linux 6.3 it bounds destinations in use", at_least=True
        ),
    ]


def _routing(family: Family) -> list[Sysctl]:
    return [
        Sysctl(
            f"net.{family}.fib_multipath_hash_policy",
            1,
            "connections between two pods spread over all paths",
            at_least=True,
        ),
        Sysctl(
            f"net.{family}.conf.all.ignore_routes_with_linkdown",
            1,
            "a path over a link without carrier is left at once",
            at_least=True,
        ),
    ]


def _neighbours(nodes: int, family: Family) -> list[Sysctl]:
    """The kernel keeps one table for all namespaces, and shows its limits in the first alone."""
    most = max(LEAST_NEIGHBOURS[2], neighbour_limit(nodes + PODS_OF_A_NODE))
    limits = (max(LEAST_NEIGHBOURS[0], most // 4), max(LEAST_NEIGHBOURS[1], most // 2), most)
    why = f"{nodes} nodes and the pods of this one may all be neighbours"
    return [
        Sysctl(f"net.{family}.neigh.default.gc_thresh{number}", limit, why, at_least=True)
        for number, limit in reversed(list(enumerate(limits, start=1)))
    ]


def check(sysctls: Iterable[Sysctl], root: Path = PROC_SYS) -> tuple[Outcome, ...]:
    """How each of them is, and nothing is changed."""
    return tuple(_look(sysctl, root) for sysctl in sysctls)


def apply(sysctls: Iterable[Sysctl], root: Path = PROC_SYS) -> tuple[Outcome, ...]:
    """Set those that are wrong."""
    return tuple(_set(_look(sysctl, root), root) for sysctl in sysctls)


def _look(sysctl: Sysctl, root: Path) -> Outcome:
    try:
        text = _read(sysctl.name, root)
        right = sysctl.satisfied_by(int(text))
        if not right and sysctl.or_higher_in:
            right = int(_read(sysctl.or_higher_in, root)) >= sysctl.value
    except (OSError, ValueError):
        return Outcome(sysctl, State.ABSENT, "")
    return Outcome(sysctl, State.RIGHT if right else State.WRONG, text)


def _set(found: Outcome, root: Path) -> Outcome:
    if found.state is not State.WRONG:
        return found
    try:
        _file(found.sysctl.name, root).write_text(f"{found.sysctl.value}\n", encoding="ascii")
    except OSError as error:
        return found._replace(state=State.REFUSED, error=error.strerror or str(error))
    return found._replace(state=State.SET)


def _read(name: str, root: Path) -> str:
    return _file(name, root).read_text(encoding="ascii").strip()


def _file(name: str, root: Path) -> Path:
    return root / proc_path(name.removeprefix("net."))


def run(sysctls: Iterable[Sysctl], *, change: bool = False, output: str = "text") -> int:
    """`podbgpd sysctls`: show, or set and show what was done; exit code 1: something is still wrong."""
    outcomes = apply(sysctls) if change else check(sysctls)
    bad = [outcome for outcome in outcomes if outcome.state in (State.WRONG, State.REFUSED)]
    if output == "json":
        click.echo(json.dumps([_plain(outcome) for outcome in outcomes], indent=2))
    else:
        for outcome in outcomes:
            click.echo(f"{outcome.state:<8} {outcome.sentence}")
    return 1 if bad else 0


def _plain(outcome: Outcome) -> dict[str, str | int | bool]:
    sysctl = outcome.sysctl
    return {
        "name": sysctl.name,
        "state": outcome.state.value,
        "found": outcome.before,
        "needed": sysctl.value,
        "atLeast": sysctl.at_least,
        "why": sysctl.why,
        "error": outcome.error,
    }
