"""`podbgpd`: starts the agent or the reflector, checks a file, builds the lab, removes what is left.

Turns a command line into one call and an exit code, and an error into a sentence: 0 is success, 1 a failure
at run time, 2 a mistake in the command line or the configuration.  What a command needs is imported when it
runs, so that `podbgpd check` neither waits for gRPC nor needs it.  `podbgp`, the client, is api/cli.py.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Never, TypeVar, Unpack

import click
from click.core import ParameterSource

from api.listen import parse_api_address
from bgpd.config import Config, Problem, wrong_role
from bgpd.config_file import load, load_host
from bgpd.config_table import InvalidConfigError
from bgpd.errors import ConfigError, PodbgpError
from bgpd.kube.command import KubeWords, kube_from, kube_options
from bgpd.kube.controller_command import controller
from bgpd.node.sysctls_command import sysctls
from bgpd.version import version
from routes.path import PeerKind
from routes.prefix import format_router_id

DEFAULT_CONFIG = "/etc/podbgp/agent.toml"
DEFAULT_REFLECTOR_CONFIG = "/etc/podbgp/reflector.toml"

FAILED = 1
UNUSABLE = 2

CAP_NET_ADMIN = 12
"""Bit of a capability set (linux/capability.h)."""


Command = TypeVar("Command", bound=Callable[..., None])


class _Commands(click.Group):
    """Errors of ours end in their sentence and exit code instead of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except InvalidConfigError as problem:
            _report(problem.problems)
            _fail(_count(len(problem.problems), "error"), UNUSABLE)
        except ConfigError as problem:
            _fail(str(problem), UNUSABLE)
        except PodbgpError as problem:
            _fail(str(problem), FAILED)


def _config_option(default: str) -> Callable[[Command], Command]:
    return click.option(
        "--config",
        "path",
        metavar="FILE",
        default=default,
        show_default=True,
        type=click.Path(),
        help="The configuration, in TOML.",
    )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="podbgpd", message="%(prog)s %(version)s")
def main() -> None:
    """BGP for native pod routing: the daemon of a node, and the route reflector."""


main.add_command(sysctls)


main.add_command(controller)


@main.command()
@_config_option(DEFAULT_CONFIG)
@kube_options
@click.option(
    "--reflector-config",
    type=click.Path(),
    metavar="FILE",
    help="With --kubernetes: settings of the reflector that this node may be elected for.",
)
@click.option(
    "--cni-dir",
    type=click.Path(path_type=Path),
    default=Path("/etc/cni/net.d"),
    show_default=True,
    help="With --kubernetes: where the container runtime finds its networks.",
)
@click.option(
    "--cni-data-dir",
    default="",
    metavar="DIRECTORY",
    help="With --kubernetes: where pods' addresses are remembered; default: as the host-local plugin does.",
)
def agent(
    path: str,
    *,
    kubernetes: bool,
    reflector_config: str | None,
    cni_dir: Path,
    cni_data_dir: str,
    **kube: Unpack[KubeWords],
) -> None:
    """Run the node agent in the foreground.

    SIGHUP reads the file again.  SIGTERM ends it and keeps the kernel's routes: `podbgp shutdown --flush`
    is the way to leave for good.
    """
    if kubernetes:
        host = load_host(_given(path), "agent")
        if reflector_config is not None:
            load_host(reflector_config, "reflector")  # a mistake in it should not wait for an election
        options = replace(
            kube_from(host, kube),
            reflector_config=reflector_config,
            cni_folder=cni_dir,
            cni_data_folder=cni_data_dir,
        )
        _need_net_admin("change the kernel's routes")
        _begin(host)
        from bgpd.kube.agent import run as follow  # noqa: PLC0415  as below, and the Kubernetes client

        sys.exit(follow(options))
    config = _load_for("agent", path)
    _need_net_admin("change the kernel's routes")
    _begin(config)
    from bgpd.agent import run  # noqa: PLC0415  imports gRPC, pyroute2 and ExaBGP: 40 MB and half a second

    sys.exit(run(config))


@main.command()
@_config_option(DEFAULT_REFLECTOR_CONFIG)
@kube_options
@click.option("--with-parent", is_flag=True, help="End when standard input does: for the agent beside it.")
def reflector(path: str, *, kubernetes: bool, with_parent: bool, **kube: Unpack[KubeWords]) -> None:
    """Run a route reflector (RFC 4456) in the foreground.

    SIGHUP reads the file again.  SIGTERM ends it for a restart: clients with graceful restart keep what they
    know.  `podbgp shutdown` is the way to leave for good.
    """
    if kubernetes:
        host = load_host(_given(path), "reflector")
        options = replace(kube_from(host, kube), with_parent=with_parent)
        _begin(host)
        from bgpd.kube.reflector import run as follow  # noqa: PLC0415  as below, and the Kubernetes client

        sys.exit(follow(options))
    config = _load_for("reflector", path)
    _begin(config)
    from bgpd.reflector import run  # noqa: PLC0415  imports gRPC and ExaBGP

    sys.exit(run(config))


def _given(path: str) -> str | None:
    """The file if it was named, or is where it always is: with Kubernetes there need not be one."""
    source = click.get_current_context().get_parameter_source("path")
    return path if source is not ParameterSource.DEFAULT or Path(path).exists() else None


def _load_for(role: str, path: str) -> Config:
    """The configuration in a file, which must be that of this role."""
    config = load(path)
    if fault := wrong_role(config, role):
        raise ConfigError(fault)
    return config


def _load_to_flush(path: str) -> Config:
    """The configuration of an agent, or what its host alone decides where the rest came from Kubernetes."""
    if _given(path) is None:
        return load_host(None, "agent")
    try:
        return _load_for("agent", path)
    except InvalidConfigError as problem:
        try:
            return load_host(path, "agent")
        except InvalidConfigError:
            raise problem from None


def _begin(config: Config) -> None:
    """Have a log, with the file's warnings as its first lines."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # gRPC's C core logs past Python, to standard error

    from bgpd import log  # noqa: PLC0415  commands that do not log need no structlog

    log.configure(config.log_level, config.log_format)
    log.log_problems("warning", config.warnings)


@main.command()
@click.argument("path", metavar="FILE", type=click.Path())
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(path: str, output: str) -> None:
    """Say whether FILE is a valid configuration, of which role, and otherwise all that is wrong with it.

    Nothing is started and nothing changed.  Exit code 0: valid, 2: not.
    """
    try:
        config = load(path)
    except InvalidConfigError as problem:
        if output == "text":
            raise
        _write_json({"valid": False, "errors": _plain(problem.problems), "warnings": []})
        sys.exit(UNUSABLE)
    if output == "json":
        _write_json(
            {
                "valid": True,
                "role": config.role,
                "errors": [],
                "warnings": _plain(config.warnings),
                "summary": summary(config),
            }
        )
        return
    _report(config.warnings, "warning: ")
    click.echo(f"{path}: {summary(config)}")


@main.command()
@_config_option(DEFAULT_CONFIG)
def flush(path: str) -> None:
    """Remove the kernel routes that an agent left behind, and the packet filter if it followed Kubernetes.

    Only routes with the protocol, table and metrics of `[fib]` are removed, and only while no agent runs:
    a running one leaves with `podbgp shutdown --flush`.
    """
    config = _load_to_flush(path)
    if agent_answers(config.api_listen):
        raise PodbgpError(
            f"an agent answers at {config.api_listen}; end it and its routes with: podbgp shutdown --flush"
        )
    _need_net_admin("remove the kernel's routes")
    from bgpd.kernel.netlink import Kernel  # noqa: PLC0415  imports pyroute2

    fib = config.fib
    with Kernel(fib.table, fib.protocol, (fib.metric, fib.unreachable_metric)) as kernel:
        flushed = kernel.flush()
    click.echo(
        f"removed {_count(flushed.removed, 'route')} of protocol {fib.protocol} from table {fib.table}"
    )
    if not config.speaker.asn:
        from bgpd.node.nft import TABLE, PacketFilter  # noqa: PLC0415  as above

        if PacketFilter().remove():
            click.echo(f"removed the nftables table inet {TABLE}")
    if flushed.left:
        reasons = "; ".join(flushed.errors)
        raise PodbgpError(f"{_count(flushed.left, 'route')} could not be removed: {reasons}")


@main.command()
@click.option(
    "--fabric",
    type=click.Choice(["reflector", "mesh", "frr", "bird"]),
    default="reflector",
    show_default=True,
)
@click.option("--nodes", type=int, metavar="N", help="How many nodes.")
@click.option("--pods", type=int, metavar="N", help="How many pods on each node.")
@click.option("--light-nodes", type=int, metavar="N", help="N more, in one process and without a FIB.")
@click.option("--ipv4-only", is_flag=True, help="Without IPv6.")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long routes may take to arrive.")
@click.option("--keep", is_flag=True, help="Leave the network up and print the commands to explore it.")
@click.option(
    "--remove",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Remove the lab of that name, or all that are kept or dead.",
)
@click.option(
    "--compare",
    type=click.Choice(["overlay"]),
    help="Measure the same two pods over plain routes and over VXLAN instead.",
)
@click.option("--duration", type=float, metavar="SECONDS", help="Of the comparison's traffic in all.")
@click.option("--output", type=click.Choice(["text", "json"]), help="Of the comparison.")
@click.option("--kubernetes", is_flag=True, help="A Kubernetes cluster instead, from an empty API server.")
@click.option("--topology", type=click.Choice(["reflector", "mesh"]), help="Of the Kubernetes cluster.")
@click.option("--stand-in", is_flag=True, help="The stand-in API server, where the real one was built too.")
@click.option("--short", is_flag=True, help="Without the reflectors' death and the drain in Kubernetes.")
def lab(
    fabric: str,
    nodes: int | None,
    pods: int | None,
    light_nodes: int | None,
    ipv4_only: bool,
    timeout: float | None,
    keep: bool,
    remove: str | None,
    compare: str | None,
    duration: float | None,
    output: str | None,
    *,
    kubernetes: bool,
    topology: str | None,
    stand_in: bool,
    short: bool,
) -> None:
    """Build a routed pod network in network namespaces and prove that it works.

    reflector: the agents peer with two route reflectors, which are killed and come back.  mesh: with each
    other.  frr, bird: with two top-of-rack routers.

    With --kubernetes: a cluster whose nodes take their intent from an API server, the real one where
    `make kube` has run.
    """
    from bgpd.lab.run import LabOptions, remove_labs, run_lab  # noqa: PLC0415  rich, and the whole lab

    if remove is not None:
        sys.exit(remove_labs(remove))
    named = click.get_current_context().get_parameter_source("fabric") is not ParameterSource.DEFAULT
    if compare is not None:
        if any((keep, ipv4_only, nodes, pods, light_nodes, named, kubernetes)):
            raise click.UsageError("--compare builds its own two nodes: only --duration, --timeout, --output")
        sys.exit(_compare(duration, timeout, output))
    if duration is not None or output is not None:
        raise click.UsageError("--duration and --output belong to --compare")
    if kubernetes:
        if any((ipv4_only, pods, light_nodes, named)):
            raise click.UsageError(
                "--kubernetes: only --topology, --nodes, --stand-in, --short, --keep, --timeout"
            )
        sys.exit(_kubernetes(topology, nodes, timeout, keep=keep, stand_in=stand_in, short=short))
    if topology is not None or stand_in or short:
        raise click.UsageError("--topology, --stand-in and --short belong to --kubernetes")
    default = LabOptions()
    options = LabOptions(
        fabric=fabric,
        nodes=default.nodes if nodes is None else nodes,
        pods_per_node=default.pods_per_node if pods is None else pods,
        light_nodes=default.light_nodes if light_nodes is None else light_nodes,
        keep=keep,
        dual_stack=not ipv4_only,
        timeout=default.timeout if timeout is None else timeout,
    )
    sys.exit(run_lab(options))


def _kubernetes(
    topology: str | None, nodes: int | None, timeout: float | None, *, keep: bool, stand_in: bool, short: bool
) -> int:
    from bgpd.lab.kube_lab import KubeLabOptions, run_kube_lab  # noqa: PLC0415  rich, and the whole lab

    default = KubeLabOptions()
    return run_kube_lab(
        KubeLabOptions(
            topology=topology or default.topology,
            nodes=default.nodes if nodes is None else nodes,
            stand_in=stand_in,
            short=short,
            keep=keep,
            timeout=default.timeout if timeout is None else timeout,
        )
    )


def _compare(duration: float | None, timeout: float | None, output: str | None) -> int:
    from bgpd.lab.compare import CompareOptions, run_compare  # noqa: PLC0415  rich, and the whole lab

    default = CompareOptions()
    return run_compare(
        CompareOptions(
            duration=default.duration if duration is None else duration,
            timeout=default.timeout if timeout is None else timeout,
            output=output or default.output,
        )
    )


def summary(config: Config) -> str:
    """What a valid configuration amounts to, in a line."""
    kinds = [peer.kind for peer in config.peers]
    peers = (
        f"{_count(len(kinds), 'peer')} ({kinds.count(PeerKind.IBGP)} iBGP, {kinds.count(PeerKind.EBGP)} eBGP)"
    )
    who = f"AS {config.speaker.asn}, router ID {format_router_id(config.speaker.router_id)}"
    allowed = f"{_count(len(config.imports.allow), 'range')} allowed"
    reflector = config.reflector
    if reflector is None:
        own = _count(len(config.agent.advertise), "prefix", "prefixes")
        return f"valid for an agent: {who}, {peers}, {own} to advertise, {allowed}"
    clients = sum(peer.client for peer in config.peers)
    return (
        f"valid for a reflector: {who}, cluster ID {format_router_id(reflector.cluster_id)}, "
        f"{_count(len(reflector.clients), 'range')} of clients, {peers}, "
        f"{_count(clients, 'client')} among them, {allowed} from eBGP"
    )


def agent_answers(listen: str) -> bool:
    """Whether something accepts connections where the API of this configuration is."""
    where = parse_api_address(listen)
    family = socket.AF_UNIX if where.path else socket.AF_INET6 if ":" in where.host else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    with client:
        client.settimeout(2.0)
        try:
            client.connect(where.path or (where.host, where.port))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except TimeoutError:  # a full backlog: there is a listener
            return True
        except OSError as problem:
            raise PodbgpError(f"can't tell whether an agent runs: {listen}: {problem.strerror}") from None
    return True


def _need_net_admin(purpose: str) -> None:
    """Refuse early, with a sentence, what the kernel would refuse late with EPERM."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(effective.split()[1], 16) >> CAP_NET_ADMIN & 1:
        raise PodbgpError(
            f"the capability CAP_NET_ADMIN is needed to {purpose}: run this as root, or with "
            "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE (see deploy/systemd/podbgp-agent.service)"
        )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _plain(problems: tuple[Problem, ...]) -> list[dict[str, str | int]]:
    return [problem._asdict() for problem in problems]


def _report(problems: tuple[Problem, ...], prefix: str = "") -> None:
    for problem in problems:
        click.echo(f"{prefix}{problem}", err=True)


def _write_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def _fail(sentence: str, code: int) -> Never:
    click.echo(f"podbgpd: {sentence}", err=True)
    sys.exit(code)
