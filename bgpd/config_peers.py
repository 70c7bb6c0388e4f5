"""`[[peers]]`: the neighbours that this speaker has sessions with.

Checks each peer by itself, against `[speaker]`, and against the others.  The secret of a session is only
ever in its own file (TCP MD5, RFC 2385): it is read here and never shown.
"""

from __future__ import annotations

from pathlib import Path

from bgpd import config_values as values
from bgpd.config import Endpoint, MaxPrefixes, PeerConfig, SpeakerConfig
from bgpd.config_export import add_paths, read_export
from bgpd.config_policies import Known, read_policy_names
from bgpd.config_source import read_regular
from bgpd.config_table import Table
from routes.path import PeerKind, PeerName
from routes.prefix import Address, Family, family_of, format_address, is_link_local

MAX_PASSWORD = 80
"""TCP_MD5SIG_MAXKEYLEN (linux/tcp.h)."""

_NO_ADDRESS = Address(bytes(4))
_OTHERS_MAY_READ = 0o004
_OF_REFLECTOR = ("client", "next_hop_self", "add_paths", "export")


def read_peers(
    tables: list[Table], speaker: SpeakerConfig, folder: Path, known: Known, *, reflector: bool = False
) -> tuple[PeerConfig, ...]:
    """All peers, of a reflector or an agent; `folder` is what a relative `password_file` starts from, and
    `known` are the policies of the file."""
    peers = [_peer(table, speaker, folder, known) for table in tables]
    first: dict[PeerName, int] = {}
    for at, (table, peer) in enumerate(zip(tables, peers, strict=True)):
        _check(table, peer, speaker)
        if reflector:
            _check_client(table, peer)
        else:
            _check_of_agent(table)
        if table.sound("address") and first.setdefault(peer.name, at) != at:
            table.wrong("address", f"is the same neighbour as peers[{first[peer.name]}]")
    return tuple(peers)


def _peer(table: Table, speaker: SpeakerConfig, folder: Path, known: Known) -> PeerConfig:
    address, interface = table.required("address", values.peer_address, (_NO_ADDRESS, ""))
    asn = table.required("asn", values.asn, 0)
    kind = PeerKind.IBGP if asn == speaker.asn else PeerKind.EBGP
    name = PeerName(format_address(address) + (f"%{interface}" if interface else ""))
    default = PeerConfig(name, address, asn, kind)
    policies = read_policy_names(table, known, kind)
    return PeerConfig(
        name=name,
        address=address,
        asn=asn,
        kind=kind,
        interface=interface,
        port=table.optional("port", values.integer(1, 65535), default.port),
        source_address=table.optional("source_address", values.unicast(), None),
        password=read_password(table, folder),
        ttl_security=table.optional("ttl_security", values.integer(0, 254), default.ttl_security),
        multihop=table.optional("multihop", values.integer(0, 255), default.multihop),
        passive=table.optional("passive", values.boolean, default.passive),
        hold_time=table.optional("hold_time", values.hold_time, speaker.hold_time),
        families=read_families(table, default.families),
        max_prefixes=read_max_prefixes(table),
        allowas_in=table.optional("allowas_in", values.integer(0, 10), default.allowas_in),
        enforce_first_as=table.optional("enforce_first_as", values.boolean, default.enforce_first_as),
        add_path=table.optional("add_path", values.boolean, default.add_path),
        graceful_restart=table.optional("graceful_restart", values.boolean, speaker.graceful_restart),
        extended_next_hop=table.optional("extended_next_hop", values.boolean, default.extended_next_hop),
        shutdown=table.optional("shutdown", values.boolean, default.shutdown),
        description=table.optional("description", values.one_line(200), default.description),
        client=table.optional("client", values.boolean, default.client),
        next_hop_self=table.optional("next_hop_self", values.boolean, default.next_hop_self),
        add_paths=table.optional("add_paths", add_paths, default.add_paths),
        export=read_export(table, kind),
        import_policies=policies.imports,
        export_policies=policies.exports,
    )


def read_families(table: Table, default: tuple[Family, ...]) -> tuple[Family, ...]:
    names = {str(family): family for family in Family}
    chosen = table.distinct("families", values.choice(*names))
    if "families" not in table:
        return default
    if not chosen:
        table.wrong("families", 'must have "ipv4", "ipv6" or both')
    return tuple(names[name] for name in chosen)


def read_max_prefixes(table: Table) -> MaxPrefixes | None:
    """A bare number is the limit alone."""
    limit = values.integer(1, 10_000_000)
    if not table.holds_table("max_prefixes"):
        bare = table.optional("max_prefixes", limit, 0)
        return MaxPrefixes(bare) if bare else None
    inner = table.table("max_prefixes")
    default = MaxPrefixes(0)
    return MaxPrefixes(
        limit=inner.required("limit", limit, 0),
        warn_percent=inner.optional("warn_percent", values.integer(1, 100), default.warn_percent),
        action=inner.optional("action", values.choice("warn", "drop", "reset"), default.action),
        idle_time=inner.optional("idle_time", values.seconds(1, 86400), default.idle_time),
    )


def read_password(table: Table, folder: Path) -> str:
    """The one line that a password file holds."""
    written = table.optional("password_file", values.one_line(4096), "")
    if "password_file" not in table or not table.sound("password_file"):
        return ""
    try:
        content = read_regular(folder / written, limit=4096)
        password = content.data.decode("utf-8").removesuffix("\n")
    except OSError as problem:
        table.wrong("password_file", f"can't be read: {problem.strerror}")
    except UnicodeDecodeError:
        table.wrong("password_file", "does not hold UTF-8 text")
    else:
        if content.mode & _OTHERS_MAY_READ:
            table.doubtful(
                "password_file", f"everyone may read the password; mend it with: chmod o= {folder / written}"
            )
        if fault := _password_fault(password):
            table.wrong("password_file", fault)
        return password
    return ""


def _password_fault(password: str) -> str:
    if not password:
        return "is empty"
    if not password.isprintable():
        return "has more than one line, or unprintable characters (a carriage return, perhaps)"
    if (size := len(password.encode())) > MAX_PASSWORD:
        return f"holds {size} bytes; TCP MD5 takes at most {MAX_PASSWORD}"
    return ""


def _check(table: Table, peer: PeerConfig, speaker: SpeakerConfig) -> None:
    """What several keys say together."""
    if table.sound("ttl_security", "multihop") and peer.ttl_security and peer.multihop:
        table.wrong(
            "multihop", "and ttl_security exclude each other (RFC 5082); ttl_security = N allows N hops"
        )
    if peer.multihop and peer.interface:
        table.wrong("multihop", "makes no sense for a link-local address, which is on the link")
    if peer.multihop and peer.kind is PeerKind.IBGP and table.sound("asn"):
        table.doubtful("multihop", "changes nothing for an iBGP peer, which may be any number of hops away")
    if peer.passive and not speaker.listen:
        table.wrong(
            "passive", "waits for the peer to connect, but speaker.listen has no address to connect to"
        )
    if table.sound("address"):
        _check_addresses(table, peer, speaker)


def _check_client(table: Table, peer: PeerConfig) -> None:
    if peer.client and peer.kind is PeerKind.EBGP and table.sound("client", "asn"):
        table.wrong("client", "is for iBGP peers (RFC 4456), and asn is another than speaker.asn")


def _check_of_agent(table: Table) -> None:
    """An agent passes nothing on, so it has nothing to do with these."""
    for key in _OF_REFLECTOR:
        if key in table:
            table.wrong(key, "is only for a reflector, whose file has [reflector]")


def _check_addresses(table: Table, peer: PeerConfig, speaker: SpeakerConfig) -> None:
    if Endpoint(peer.address, peer.port) in speaker.listen:
        table.wrong("address", "is this speaker itself: speaker.listen has the same address and port")
    source = peer.source_address
    if source is None or not table.sound("source_address"):
        return
    if source == peer.address:
        table.wrong("source_address", "is the address of the peer; it must be one of this node's own")
    elif family_of(source) is not family_of(peer.address):
        table.wrong("source_address", f"must be an address of the peer's family, {family_of(peer.address)}")
    elif is_link_local(source) != is_link_local(peer.address):
        table.wrong("source_address", "and the peer's address must both be link-local, or neither")
