"""Values as people write them: communities, AS paths, next hops, times and states in words."""

from __future__ import annotations

from api.convert import address_to_text, identifier_to_text
from routes.path import PathAttributes, PeerKind
from routes.view import FibView, NextHopView, PathView

KIND = {PeerKind.LOCAL: "local", PeerKind.EBGP: "eBGP", PeerKind.IBGP: "iBGP"}
WELL_KNOWN_COMMUNITIES = {
    0xFFFF0000: "graceful-shutdown",
    0xFFFF029A: "blackhole",
    0xFFFFFF01: "no-export",
    0xFFFFFF02: "no-advertise",
    0xFFFFFF03: "no-export-subconfed",
    0xFFFFFF04: "no-peer",
}


def duration(seconds: float) -> str:
    """A stretch of time in its two largest units: `5s`, `3m 20s`, `2h 5m`, `12d 4h`."""
    total = max(0, int(seconds))
    minutes, second = divmod(total, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour}h"
    if hours:
        return f"{hours}h {minute}m"
    return f"{minutes}m {second}s" if minutes else f"{second}s"


def size(count: int) -> str:
    """Bytes in a unit of which there are few: `812 B`, `4.2 kB`, `17 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.1f} {unit}" if unit != "B" and value < 10 else f"{value:.0f} {unit}"


def community(value: int) -> str:
    """A community as `65001:7`, or by its well-known name."""
    return WELL_KNOWN_COMMUNITIES.get(value) or f"{value >> 16}:{value & 0xFFFF}"


def large_community(value: tuple[int, int, int]) -> str:
    """A large community as `65001:1:2`."""
    return ":".join(map(str, value))


def attributes(value: PathAttributes) -> str:
    """Every attribute that is there but the next hop, in a sentence."""
    parts = []
    if value.link_local is not None:
        parts.append(f"link-local next hop {address_to_text(value.link_local)}")
    parts.append(f"AS path {value.as_path}" if value.as_path.segments else "empty AS path")
    parts.append(f"origin {value.origin.name}")
    if value.local_pref is not None:
        parts.append(f"local preference {value.local_pref}")
    if value.med is not None:
        parts.append(f"MED {value.med}")
    if value.communities:
        parts.append(f"communities {' '.join(map(community, value.communities))}")
    if value.extended_communities:
        parts.append(f"extended communities {' '.join(raw.hex() for raw in value.extended_communities)}")
    if value.large_communities:
        parts.append(f"large communities {' '.join(map(large_community, value.large_communities))}")
    if value.originator_id is not None:
        parts.append(f"originator ID {identifier_to_text(value.originator_id)}")
    if value.cluster_list:
        parts.append(f"cluster list {' '.join(map(identifier_to_text, value.cluster_list))}")
    if value.atomic_aggregate:
        parts.append("atomic aggregate")
    if value.aggregator is not None:
        asn, bgp_id = value.aggregator
        parts.append(f"aggregated by AS {asn} ({identifier_to_text(bgp_id)})")
    parts.extend(
        f"attribute {u.code} (flags {u.flags:#04x}) {u.value.hex() or 'empty'}" for u in value.unknown
    )
    return ", ".join(parts)


def path_next_hop(view: PathView) -> str:
    """A path's next hop; `self` for what this speaker originates and has not given one yet."""
    own = view.path.source.kind is PeerKind.LOCAL and view.to is None
    return "self" if own else address_to_text(view.attributes.next_hop)


def next_hop(hop: NextHopView) -> str:
    """A kernel next hop as `ip route` writes it."""
    gateway = "" if hop.gateway is None else f"via {address_to_text(hop.gateway)} "
    return f"{gateway}dev {hop.interface or f'#{hop.ifindex}'}{' onlink' if hop.onlink else ''}"


def fib_state(entry: FibView) -> str:
    """Whether the kernel has it."""
    if entry.held:
        return "held"
    return "installed" if entry.installed else "not installed"


def path_state(view: PathView) -> str:
    """What became of a path, in a word or two."""
    if view.best:
        return "best"
    if view.multipath:
        return "equal cost"
    if not view.accepted:
        return "refused"
    return f"lost at {view.lost_at}" if view.lost_at else "not selected"


def path_mark(view: PathView) -> str:
    """The same as a mark: `>` best, `=` equal cost, `x` refused; `s` after it: stale."""
    mark = ">" if view.best else "=" if view.multipath else "" if view.accepted else "x"
    return mark + "s" if view.stale else mark
