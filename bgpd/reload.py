"""What a changed configuration file means for a running daemon (SIGHUP), as a value.

Peers, ranges of clients, limits, advertised prefixes and aggregates, import rules, policies and the softer
FIB settings change at run time.  Who the speaker is, for whom it reflects and which kernel entries are its
own do not: a change there is refused as a whole, with the keys named, and the daemon goes on with what it
has.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from bgpd.config import ClientRange, Config, FibConfig, PeerConfig, ReflectorConfig
from bgpd.errors import ConfigError
from routes.path import PeerName

_FIB_LIVE = frozenset({"multipath", "resolve_via_default", "onlink", "hold_time", "deferral_time"})
"""`[fib]` keys that may change at run time; the others say which entries are ours and how they look."""

_REFLECTOR_LIVE = frozenset({"clients", "aggregates", "deferral_time"})
"""`[reflector]` keys that may change at run time.  Paths that left with the old cluster ID could loop."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What to do, beside taking the new configuration."""

    removed: tuple[PeerName, ...]
    added: tuple[PeerConfig, ...]
    changed: tuple[PeerConfig, ...]


def plan_reload(old: Config, new: Config) -> Reload:
    """The difference between two configurations; ConfigError names the keys that need a restart."""
    if new.role != old.role:
        raise ConfigError(
            f"{new.path}: {'has no' if new.reflector is None else 'has'} [reflector], and this daemon runs "
            f"the {old.role} role; start the other one with: podbgpd {new.role} --config {new.path}"
        )
    check_policies(new)
    fixed = [f"speaker.{f.name}" for f in fields(old.speaker) if _differs(old.speaker, new.speaker, f.name)]
    fixed += [
        f"fib.{f.name}"
        for f in fields(FibConfig)
        if f.name not in _FIB_LIVE and _differs(old.fib, new.fib, f.name)
    ]
    fixed += [
        f"reflector.{f.name}"
        for f in fields(ReflectorConfig)
        if old.reflector and f.name not in _REFLECTOR_LIVE and _differs(old.reflector, new.reflector, f.name)
    ]
    fixed += [
        key
        for key, name in (("api.listen", "api_listen"), ("metrics.listen", "metrics_listen"))
        if _differs(old, new, name)
    ]
    if fixed:
        keys = ", ".join(fixed)
        raise ConfigError(f"{new.path}: {keys}: can't change while the daemon runs; restart it instead")
    before = {peer.name: peer for peer in old.peers}
    after = {peer.name: peer for peer in new.peers}
    return Reload(
        removed=tuple(name for name in before if name not in after),
        added=tuple(peer for name, peer in after.items() if name not in before),
        changed=tuple(peer for name, peer in after.items() if name in before and peer != before[name]),
    )


def check_policies(config: Config) -> None:
    """ConfigError when a peer or range names a policy that is not there; of a file this is known already."""
    users: list[PeerConfig | ClientRange] = [*config.peers]
    users += () if config.reflector is None else config.reflector.clients
    for user in users:
        config.named_policies((*user.import_policies, *user.export_policies))


def _differs(old: object, new: object, name: str) -> bool:
    return bool(getattr(old, name) != getattr(new, name))
