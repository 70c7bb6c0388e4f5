"""`[reflector]` and `[[reflector.clients]]`: a route reflector, and who may be its client without an entry.

A range admits strangers by their address, so whatever would let in nobody, or more than was meant, is
said here: a range that no listening address can serve, one that stands in the file twice, a password that
the kernel would demand of others too (it looks keys up by prefix, RFC 2385).
"""

from __future__ import annotations

from pathlib import Path

from bgpd import config_values as values
from bgpd.config import AllowEntry, ClientRange, PeerConfig, ReflectorConfig, SpeakerConfig
from bgpd.config_export import add_paths, read_export
from bgpd.config_peers import read_families, read_max_prefixes, read_password
from bgpd.config_policies import Known, read_policy_names
from bgpd.config_prefixes import read_own_prefixes
from bgpd.config_table import Table
from routes.path import PeerKind
from routes.prefix import Family, Prefix, family_of

REFLECTOR_API_LISTEN = "unix:///run/podbgp-reflector/api.sock"
"""Not the agent's: a node may run both."""
MOST_SESSIONS = 50_000
MOST_RANGES = 1_000
_NOWHERE = Prefix.parse("0.0.0.0/0")
_NOT_UNICAST = tuple(map(Prefix.parse, ("224.0.0.0/4", "240.0.0.0/4", "ff00::/8")))
_LINK_LOCAL = Prefix.parse("fe80::/10")


def read_reflector(
    table: Table, speaker: SpeakerConfig, peers: tuple[PeerConfig, ...], folder: Path, known: Known
) -> ReflectorConfig:
    """The section and its ranges; `folder` is what a relative `password_file` starts from, and `known` are
    the policies of the file."""
    default = ReflectorConfig(speaker.router_id)
    ranges = table.tables("clients")
    clients = [_range(each, speaker, folder, known) for each in ranges]
    for at, (each, client) in enumerate(zip(ranges, clients, strict=True)):
        _check(each, client, speaker)
        _check_others(each, client, clients[:at], peers)
        if at == MOST_RANGES:
            each.wrong("range", f"is one too many: there may be {MOST_RANGES} ranges")
            break
    _check_aggregates(table, peers)
    if not clients and not any(peer.client for peer in peers):
        table.doubtful("clients", "is missing and no peer has client = true: nobody is a client")
    return ReflectorConfig(
        cluster_id=table.optional("cluster_id", values.router_id, default.cluster_id),
        clients=tuple(clients),
        aggregates=read_own_prefixes(table, "aggregates", "it would draw all traffic to the clients"),
        deferral_time=table.optional("deferral_time", values.seconds(1, 86400), default.deferral_time),
        state_file=table.optional("state_file", _state_file, default.state_file),
    )


def _check_aggregates(table: Table, peers: tuple[PeerConfig, ...]) -> None:
    """An aggregate names the speaker that makes it as the next hop (RFC 4271 section 9.2.2.2)."""
    passed_on = [peer.name for peer in peers if peer.kind is PeerKind.EBGP and not peer.next_hop_self]
    if "aggregates" in table and passed_on:
        table.wrong(
            "aggregates",
            "have this host's own address as next hop (RFC 4271 section 9.2.2.2): if it forwards, say so "
            f"with next_hop_self = true for the eBGP peer {passed_on[0]}; otherwise announce no aggregates",
        )


def _range(table: Table, speaker: SpeakerConfig, folder: Path, known: Known) -> ClientRange:
    asn = table.required("asn", values.asn, 0)
    default = ClientRange(_NOWHERE, asn)
    kind = PeerKind.IBGP if asn == speaker.asn else PeerKind.EBGP
    policies = read_policy_names(table, known, kind)
    return ClientRange(
        range=table.required("range", _client_range, _NOWHERE),
        asn=asn,
        password=read_password(table, folder),
        ttl_security=table.optional("ttl_security", values.integer(0, 254), default.ttl_security),
        families=read_families(table, default.families),
        hold_time=table.optional("hold_time", values.hold_time, speaker.hold_time),
        max_prefixes=read_max_prefixes(table),
        max_sessions=table.optional("max_sessions", values.integer(1, MOST_SESSIONS), default.max_sessions),
        allow=_allow(table),
        add_paths=table.optional("add_paths", add_paths, default.add_paths),
        export=read_export(table, kind),
        import_policies=policies.imports,
        export_policies=policies.exports,
    )


def _client_range(value: object) -> Prefix:
    """Where clients may connect from."""
    written = values.prefix(value)
    if any(each.contains(written) for each in _NOT_UNICAST):
        raise values.UnfitError("has no address that a client can have")
    if _LINK_LOCAL.contains(written):
        raise values.UnfitError("is link-local; such a client needs a [[peers]] entry, with its interface")
    return written


def _allow(table: Table) -> tuple[AllowEntry, ...] | None:
    entries = table.distinct("allow", values.allow_entry)
    if "allow" not in table:
        return None
    if not entries and table.sound("allow"):
        table.doubtful("allow", "is empty: nothing that these clients announce will be accepted")
    return entries


def _state_file(value: object) -> str:
    written = values.one_line(4096)(value)
    if written and not Path(written).is_absolute():
        raise values.UnfitError("must be an absolute path, or empty to remember nobody")
    return written


def _check(table: Table, client: ClientRange, speaker: SpeakerConfig) -> None:
    """What a range says together with `[speaker]`."""
    if not table.sound("range"):
        return
    family = client.range.family
    if not speaker.listen:
        table.wrong("range", "has clients that connect, but speaker.listen has no address to connect to")
    elif not any(family_of(endpoint.address) is family for endpoint in speaker.listen):
        table.wrong(
            "range", f"has clients that connect over {_shown(family)}, of which speaker.listen has no address"
        )
    if client.range.length == 0 and not client.password:
        table.doubtful("range", "admits everyone who reaches this host, and there is no password_file")
    if table.sound("asn") and client.asn != speaker.asn:
        table.doubtful(
            "asn",
            f"is another AS than ours ({speaker.asn}): these clients are external peers (eBGP), for which "
            "[import] allow counts, and nothing is reflected between them",
        )


def _check_others(
    table: Table, client: ClientRange, before: list[ClientRange], peers: tuple[PeerConfig, ...]
) -> None:
    """What a range says together with those before it in the file, and with the peers."""
    if not table.sound("range"):
        return
    for at, other in enumerate(before):
        if other.range == client.range:
            table.wrong("range", f"is the same as reflector.clients[{at}].range")
        elif not (client.password and other.password) and (
            (client.password and client.range.contains(other.range))
            or (other.password and other.range.contains(client.range))
        ):
            table.wrong(
                "range",
                f"and reflector.clients[{at}].range overlap, and one of them has a password: the kernel "
                "demands that of both, so give both a password_file",
            )
    names = [peer.name for peer in peers if not peer.password and client.range.covers(peer.address)]
    if client.password and names:
        table.doubtful(
            "password_file",
            f"is demanded of all that connect from {client.range}, also of the peer {names[0]}, "
            "which has no password_file",
        )


def _shown(family: Family) -> str:
    return str(family).replace("ip", "IP")
