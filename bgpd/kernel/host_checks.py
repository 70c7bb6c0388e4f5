"""Checks the host's settings that a router needs, and names the command that mends each.

Owns which kernel parameters matter and why.  It must never change one: the host is the operator's.
Judging is a pure function of the values read (`judge`); `read_settings` reads /proc/sys of the network
namespace that the process is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from routes.prefix import Family
from routes.view import HostWarning

PROC_SYS = Path("/proc/sys/net")
STRICT = 1
"""rp_filter: a packet must arrive on the link that the route to its source leads over."""

GLOBAL_KEYS = (
    "ipv4.ip_forward",
    "ipv6.conf.all.forwarding",
    "ipv4.conf.all.rp_filter",
    "ipv4.conf.all.ignore_routes_with_linkdown",
    "ipv6.conf.all.ignore_routes_with_linkdown",
    "ipv4.fib_multipath_hash_policy",
    "ipv6.fib_multipath_hash_policy",
    "ipv4.neigh.default.gc_thresh3",
    "ipv6.neigh.default.gc_thresh3",
)
LINK_KEYS = ("rp_filter", "ignore_routes_with_linkdown")


class Usage(NamedTuple):
    """What the agent does with the host."""

    families: frozenset[Family]
    """Of the prefixes that it announces or installs."""
    links: tuple[str, ...]
    """The names of the links that next hops are on; empty: not known."""
    multipath: int
    """The most next hops of one entry."""
    next_hops: Mapping[Family, int]
    """How many distinct neighbours entries lead to, by the family of their address."""


def read_settings(links: Iterable[str], root: Path = PROC_SYS) -> dict[str, int]:
    """The values of all that is judged; what does not exist on this host is left out."""
    keys = [*GLOBAL_KEYS, *(f"ipv4.conf.{quoted(link)}.{key}" for link in links for key in LINK_KEYS)]
    settings: dict[str, int] = {}
    for key in keys:
        try:
            settings[key] = int((root / proc_path(key)).read_text())
        except (OSError, ValueError):
            continue
    return settings


def quoted(link: str) -> str:
    """A link's name as sysctl(8) takes it: dots separate, so a dot in a name is written as a slash."""
    return link.replace(".", "/")


def proc_path(key: str) -> str:
    """Where a setting is below /proc/sys/net, by its name without `net.`."""
    return "/".join(part.replace("/", ".") for part in key.split("."))


def judge(settings: Mapping[str, int], usage: Usage) -> list[HostWarning]:
    """What is wrong with these settings for this use."""
    warnings = [
        *_forwarding(settings, usage),
        *_reverse_path(settings, usage),
        *_link_down(settings, usage),
    ]
    for family in sorted(usage.families):
        warnings += _hash_policy(settings, usage, family)
    for family in sorted(usage.next_hops):
        warnings += _neighbours(settings, usage, family)
    return warnings


def check_host(usage: Usage) -> list[HostWarning]:
    """Read this host's settings and judge them for this use."""
    return judge(read_settings(usage.links), usage)


def _mend(key: str, value: int) -> str:
    return f"sysctl -w net.{key}={value}"


def _forwarding(settings: Mapping[str, int], usage: Usage) -> Iterable[HostWarning]:
    keys = {Family.IPV4: "ipv4.ip_forward", Family.IPV6: "ipv6.conf.all.forwarding"}
    for family in sorted(usage.families):
        if settings.get(keys[family]) == 0:
            subject = f"{family} forwarding is off: packets of pods stop at this node"
            yield HostWarning(subject, f"net.{keys[family]} = 0", _mend(keys[family], 1))


def _reverse_path(settings: Mapping[str, int], usage: Usage) -> Iterable[HostWarning]:
    """The kernel uses the higher of `all` and the link's own value, so 2 (loose) in `all` mends each link."""
    key = "ipv4.conf.all.rp_filter"
    if Family.IPV4 not in usage.families or usage.multipath < 2 or len(usage.links) < 2:
        return
    every = settings.get(key, 0)
    strict = [
        link
        for link in usage.links
        if max(every, settings.get(f"ipv4.conf.{quoted(link)}.rp_filter", 0)) == STRICT
    ]
    if strict:
        subject = (
            "strict rp_filter drops what arrives over another link than the answer would take, as with ECMP"
        )
        yield HostWarning(subject, f"rp_filter = 1 on {', '.join(strict)}", _mend(key, 2))


def _link_down(settings: Mapping[str, int], usage: Usage) -> Iterable[HostWarning]:
    for family in sorted(usage.families):
        key = f"{family}.conf.all.ignore_routes_with_linkdown"
        if settings.get(key) != 0:
            continue
        if (
            family is Family.IPV4
            and usage.links
            and all(
                settings.get(f"ipv4.conf.{quoted(link)}.ignore_routes_with_linkdown", 0)
                for link in usage.links
            )
        ):
            continue
        subject = f"{family} routes over a link without carrier stay in use until this agent has removed them"
        yield HostWarning(subject, f"net.{key} = 0", _mend(key, 1))


def _hash_policy(settings: Mapping[str, int], usage: Usage, family: Family) -> Iterable[HostWarning]:
    key = f"{family}.fib_multipath_hash_policy"
    if usage.multipath > 1 and settings.get(key) == 0:
        subject = f"{family} ECMP hashes addresses only: all connections of two pods take one path"
        yield HostWarning(subject, f"net.{key} = 0", _mend(key, 1))


def neighbour_limit(count: int) -> int:
    """A neighbour table that is large enough for so many: twice as many, as a power of two."""
    return 1 << (2 * count - 1).bit_length()


def _neighbours(settings: Mapping[str, int], usage: Usage, family: Family) -> Iterable[HostWarning]:
    """Half is kept free: pods and other neighbours of the node share the table."""
    key, count = f"{family}.neigh.default.gc_thresh3", usage.next_hops[family]
    limit = settings.get(key)
    if limit is not None and 2 * count > limit:
        enough = neighbour_limit(count)
        subject = f"the {family} neighbour table is small for {count} next hops: packets would be dropped"
        yield HostWarning(subject, f"net.{key} = {limit}", _mend(key, enough))
