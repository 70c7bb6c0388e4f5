"""From a TOML file to a checked `Config`.

Everything that can be said of a file without starting is said here, all at once: an operator who
fixes what `podbgpd check` reports has a file that loads.  Nothing is guessed and nothing ignored: an
unknown key, a prefix with host bits and a value that two keys contradict are errors.  What is legal but
probably not meant becomes a warning in the `Config`.  docs/configuration.md says the same in prose.

Only this module makes a `Config`.  It reads files (the configuration and its password files), and
touches nothing else of the host: no interface, address or route is looked at.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path

from api.listen import parse_api_address
from bgpd import config_values as values
from bgpd.config import (
    AgentConfig,
    ClientRange,
    Config,
    Endpoint,
    ImportConfig,
    PeerConfig,
    Problem,
    SpeakerConfig,
)
from bgpd.config_fib import read_fib
from bgpd.config_peers import read_peers
from bgpd.config_policies import Known, read_policies, warn_of_unused
from bgpd.config_prefixes import read_own_paths
from bgpd.config_reflector import REFLECTOR_API_LISTEN, read_reflector
from bgpd.config_source import read_regular
from bgpd.config_table import InvalidConfigError, Report, Table
from routes.path import PeerKind
from routes.prefix import Family

MAX_BYTES = 1 << 20
"""A configuration of a thousand peers is a tenth of this."""

_OTHER_FILE = (
    "[reflector] makes this one a reflector's; a node that has both runs two daemons, with a file each"
)
_NOT_OF_REFLECTOR = {
    "agent": f"is for an agent's file, and {_OTHER_FILE}",
    "fib": f"is for an agent's file (a reflector has no kernel routes), and {_OTHER_FILE}",
}


def load(path: str | os.PathLike[str]) -> Config:
    """Read and check a file; InvalidConfigError names everything that is wrong with it."""
    name = os.fspath(path)
    return parse(_text(name), name)


def parse(text: str, name: str) -> Config:
    """Check the text of a file called `name`; password files are relative to its folder."""
    report = Report(name, text)
    return _config(_root(text, report, name), report, name)


def load_host(path: str | os.PathLike[str] | None, role: str) -> Config:
    """Read what a host alone decides where all else comes from Kubernetes; None: the defaults.

    `role` is `agent` or `reflector`; only an agent has [fib].  InvalidConfigError as with `load`.
    """
    name = "" if path is None else os.fspath(path)
    text = "" if path is None else _text(name)
    report = Report(name, text)
    root = _root(text, report, name)
    for section in ("speaker", "peers", "agent", "reflector", "import", "policies"):
        if section in root:
            root.left_out(section, "comes from Kubernetes: see docs/kubernetes.md")
    config = _host(Config(name, SpeakerConfig(0, 0)), root, reflector=role == "reflector")
    if role == "agent":
        config = replace(config, fib=read_fib(root.table("fib")))
    return replace(config, warnings=report.finish())


def _text(name: str) -> str:
    try:
        data = read_regular(name, MAX_BYTES).data
    except OSError as problem:
        raise _unusable(name, f"can't be read: {problem.strerror}") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise _unusable(name, "is not UTF-8 text", data.count(b"\n", 0, problem.start) + 1) from None


def _root(text: str, report: Report, name: str) -> Table:
    try:
        root = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise _not_toml(name, text, problem) from None
    except (ValueError, RecursionError):  # a number of 5,000 digits, or a thousand brackets
        raise _unusable(name, "has a number that is too long, or is nested too deeply") from None
    return Table(root, (), report)


def _unusable(name: str, text: str, line: int = 0) -> InvalidConfigError:
    return InvalidConfigError((Problem(name, line, "", "", text),))


def _not_toml(name: str, text: str, problem: tomllib.TOMLDecodeError) -> InvalidConfigError:
    """The error of tomllib ends in `(at line 3, column 18)` or `(at end of document)`."""
    sentence, _, place = str(problem).rpartition(" (at ")
    lines = text.splitlines() or [""]
    number = place.removeprefix("line ").partition(",")[0]
    line = min(int(number), len(lines)) if number.isdecimal() else len(lines)
    shown = lines[line - 1].partition("=")[0].strip()[:60]
    hint = (
        f"; at {shown!r}: text, so also an address or a prefix, needs quotes"
        if "=" in lines[line - 1]
        else ""
    )
    return _unusable(name, f"is not valid TOML: {sentence}{hint}", line)


def _config(root: Table, report: Report, name: str) -> Config:
    folder = Path(name).parent
    is_reflector = "reflector" in root
    speaker = _speaker(root.table("speaker"))
    tables = root.tables("policies")
    policies = read_policies(tables)
    known = {policy.name: policy for policy in policies}
    peers = read_peers(root.tables("peers"), speaker, folder, known, reflector=is_reflector)
    config = Config(path=name, speaker=speaker, peers=peers, policies=policies)
    config = _host(config, root, reflector=is_reflector)
    config = _with_reflector(config, root, folder, known) if is_reflector else _with_agent(config, root)
    users: list[PeerConfig | ClientRange] = [*config.peers]
    users += () if config.reflector is None else config.reflector.clients
    used = {name for user in users for name in (*user.import_policies, *user.export_policies)}
    warn_of_unused(tables, policies, used)
    return replace(config, warnings=report.finish())


def _host(config: Config, root: Table, *, reflector: bool) -> Config:
    """With what every daemon has: API, metrics and log."""
    log = root.table("log")
    return replace(
        config,
        api_listen=_api_listen(root.table("api"), REFLECTOR_API_LISTEN if reflector else config.api_listen),
        metrics_listen=root.table("metrics").optional("listen", _maybe_endpoint, None),
        log_level=log.optional("level", values.choice("debug", "info", "warning", "error"), config.log_level),
        log_format=log.optional("format", values.choice("auto", "text", "json"), config.log_format),
    )


def _with_agent(config: Config, root: Table) -> Config:
    return replace(
        config,
        agent=_agent(root.table("agent")),
        imports=_import(root.table("import"), "the peers announce" if config.peers else ""),
        fib=read_fib(root.table("fib")),
    )


def _with_reflector(config: Config, root: Table, folder: Path, known: Known) -> Config:
    for section, reason in _NOT_OF_REFLECTOR.items():
        if section in root:
            root.left_out(section, reason)
    reflector = read_reflector(root.table("reflector"), config.speaker, config.peers, folder, known)
    external = any(peer.kind is PeerKind.EBGP for peer in config.peers) or any(
        clients.asn != config.speaker.asn for clients in reflector.clients
    )
    doubt = "eBGP peers announce" if external else ""
    return replace(config, reflector=reflector, imports=_import(root.table("import"), doubt))


def _maybe_endpoint(value: object) -> Endpoint | None:
    return values.endpoint(value)


def _speaker(table: Table) -> SpeakerConfig:
    asn = table.required("asn", values.asn, 0)
    router_id = table.required("router_id", values.router_id, 0)
    default = SpeakerConfig(asn, router_id)
    delay = values.seconds(0.1, 3600)
    speaker = SpeakerConfig(
        asn=asn,
        router_id=router_id,
        listen=table.distinct("listen", values.endpoint),
        hold_time=table.optional("hold_time", values.hold_time, default.hold_time),
        connect_retry=table.optional("connect_retry", delay, default.connect_retry),
        connect_retry_max=table.optional("connect_retry_max", delay, default.connect_retry_max),
        graceful_restart=table.optional("graceful_restart", values.boolean, default.graceful_restart),
        restart_time=table.optional("restart_time", values.integer(1, 4095), default.restart_time),
    )
    if (
        table.sound("connect_retry", "connect_retry_max")
        and speaker.connect_retry > speaker.connect_retry_max
    ):
        key = "connect_retry_max" if "connect_retry_max" in table else "connect_retry"
        table.wrong(
            key, f"must leave connect_retry_max ({speaker.connect_retry_max:g}) at least at connect_retry"
        )
    return speaker


def _agent(table: Table) -> AgentConfig:
    return AgentConfig(
        advertise=read_own_paths(table, "advertise", "it would make every address this node's own"),
        drain=table.optional("drain", values.boolean, AgentConfig().drain),
        next_hop_ipv4=table.optional("next_hop_ipv4", values.global_unicast(Family.IPV4), None),
        next_hop_ipv6=table.optional("next_hop_ipv6", values.global_unicast(Family.IPV6), None),
    )


def _import(table: Table, refused: str) -> ImportConfig:
    """`refused`: what the lack of a list would refuse; empty when there is nothing."""
    allow = table.distinct("allow", values.allow_entry)
    if refused and "allow" not in table:
        table.doubtful("allow", f"is missing: nothing that {refused} will be accepted")
    return ImportConfig(allow)


def _api_listen(table: Table, default: str) -> str:
    listen = table.optional("listen", values.api_listen, default)
    if table.sound("listen") and not parse_api_address(listen).path:
        table.doubtful(
            "listen",
            "has no access control: whoever reaches it reads all; and podbgp shutdown needs a Unix socket",
        )
    return listen
