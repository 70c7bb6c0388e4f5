"""`podbgp`: the words and options of the client's command line.

What the commands do is in `commands.py`, which is loaded last: `--help` and mistakes answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import click

from api.listen import DEFAULT_LISTEN, parse_api_address
from routes.path import PeerName
from routes.prefix import Family, Prefix, host_prefix, parse_address
from routes.view import Match, RouteQuery, Table

if TYPE_CHECKING:
    from api.commands import Commands

Command = TypeVar("Command", bound=Callable[..., None])

TABLES = """adj-in-pre: as received; adj-in-post: what import policy accepted; loc-rib: what was selected;
adj-out: what peers were told; fib: the kernel."""


@dataclass(slots=True)
class Options:
    """The options that every command has."""

    api: str = field(default_factory=lambda: os.environ.get("PODBGP_API") or DEFAULT_LISTEN)
    output: str = "table"

    def commands(self) -> Commands:
        """The commands' code."""
        try:
            parse_api_address(self.api)
        except ValueError as error:
            raise click.UsageError(f"PODBGP_API: {error}") from None
        # gRPC logs every failed connection to standard error, where our own sentence is to be read.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from api.commands import Commands  # noqa: PLC0415 -- gRPC and rich take 0.2 s to load

        return Commands(self.api, self.output)


def _remember_api(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        try:
            parse_api_address(value)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from None
        context.ensure_object(Options).api = value


def _remember_output(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Options).output = value


def common(command: Command) -> Command:
    """`--api` and `--output`: they may stand before and after a command's name; the last one counts."""
    api = click.option(
        "--api",
        metavar="ADDRESS",
        expose_value=False,
        callback=_remember_api,
        help=f"Where the daemon's API is.  [env: PODBGP_API; default: {DEFAULT_LISTEN}]",
    )
    output = click.option(
        "--output",
        "-o",
        type=click.Choice(["table", "json", "jsonl"]),
        expose_value=False,
        callback=_remember_output,
        help="table: for people (the default); json: one document; jsonl: a document a line.",
    )
    return api(output(command))


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata  # noqa: PLC0415 -- needed for this answer alone

        try:
            version = metadata.version("podbgp")
        except metadata.PackageNotFoundError:  # run from a source tree that was never installed
            version = "0+source"
        click.echo(f"podbgp {version}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Ask a running podbgpd about peers, routes and its node, watch them, or shut it down."""
    context.ensure_object(Options)


@main.command()
@click.argument("name", required=False, default="")
@click.option("--all", "everyone", is_flag=True, help="All of them, however many.")
@common
@click.pass_obj
def peers(options: Options, name: str, everyone: bool) -> None:
    """List the peers, or show all about the peer NAME.

    Of very many, those are listed that are down or furthest behind.
    """
    options.commands().peers(name, everyone=everyone)


def selection(command: Command) -> Command:
    """The argument and options that select routes."""
    told = "Received from this peer; with --table adj-out, told to it."
    for option in (
        click.option("--family", type=click.Choice(["ipv4", "ipv6"]), help="One family alone."),
        click.option("--peer", metavar="NAME", help=told),
        click.option("--longest", "match", flag_value="longest", help="The longest that covers PREFIX."),
        click.option("--shorter", "match", flag_value="shorter", help="Also what PREFIX lies inside."),
        click.option("--longer", "match", flag_value="longer", help="Also what lies inside PREFIX."),
        click.option(
            "--table",
            "-t",
            type=click.Choice([table.value for table in Table]),
            default=Table.LOC_RIB.value,
            show_default=True,
            help=TABLES,
        ),
        click.argument("prefix", required=False),
    ):
        command = option(command)
    return command


def make_query(
    prefix: str | None, table: str, match: str | None, peer: str | None, family: str | None
) -> RouteQuery:
    """The query that argument and options describe."""
    if match and not prefix:
        raise click.UsageError(f"--{match} needs PREFIX")
    return RouteQuery(
        table=Table(table),
        peer=PeerName(peer) if peer else None,
        family={"ipv4": Family.IPV4, "ipv6": Family.IPV6}.get(family or ""),
        prefix=read_prefix(prefix) if prefix else None,
        match=Match(match) if match else Match.EXACT,
    )


def read_prefix(text: str) -> Prefix:
    """A prefix, or an address as its host prefix."""
    try:
        return Prefix.parse(text) if "/" in text else host_prefix(parse_address(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither prefix nor address: {error}") from None


@main.command()
@selection
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="About N routes at most.")
@common
@click.pass_obj
def routes(
    options: Options,
    prefix: str | None,
    table: str,
    match: str | None,
    peer: str | None,
    family: str | None,
    limit: int | None,
) -> None:
    """List routes.

    Of one table: all, or those that PREFIX (or an address) and the options select.
    """
    options.commands().routes(make_query(prefix, table, match, peer, family), limit or 0)


@main.command()
@click.argument("target", metavar="PREFIX_OR_ADDRESS")
@common
@click.pass_obj
def route(options: Options, target: str) -> None:
    """Explain why a destination is reached as it is, or is not."""
    read_prefix(target)
    options.commands().route(target)


@main.command()
@common
@click.pass_obj
def status(options: Options) -> None:
    """Show how the daemon and its host are."""
    options.commands().status()


@main.command()
@common
@click.pass_obj
def node(options: Options) -> None:
    """Show whether the Kubernetes Node takes pods, and what of the cluster is not taken.

    With the reasons, and how current what is known of the cluster is.
    """
    options.commands().node()


@main.command()
@click.argument("service", metavar="[NAMESPACE[/NAME]]", required=False, default="")
@click.option("--paths", is_flag=True, help="The announced prefixes instead, with their attributes.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="About N lines at most.")
@common
@click.pass_obj
def service(options: Options, service: str, paths: bool, limit: int | None) -> None:
    """Explain why addresses of Services are announced from this node, or are not.

    Of one Service, of all in a namespace, or of all.
    """
    namespace, slash, name = service.partition("/")
    if (slash and not namespace) or "/" in name:
        raise click.UsageError(f"{service!r} names no Service: valid are NAMESPACE/NAME and NAMESPACE")
    if not paths:
        options.commands().service(namespace, name, limit or 0)
    elif service:
        raise click.UsageError("--paths lists all: a prefix may stand for addresses of many Services")
    else:
        options.commands().service_paths(limit or 0)


@main.command()
@click.option("--flush", is_flag=True, help="Also remove the daemon's kernel routes.")
@click.option(
    "--message", default="", metavar="TEXT", help="Tell the peers why: at most 255 bytes (RFC 9003)."
)
@click.option("--yes", "-y", is_flag=True, help="Don't ask, even on a terminal.")
@common
@click.pass_obj
def shutdown(options: Options, flush: bool, message: str, yes: bool) -> None:
    """Leave for good: close the sessions, end the daemon.

    The peers drop our routes at once, unlike when the daemon is merely restarted.
    """
    if not yes and sys.stdin.isatty():
        fate = "removes its kernel routes" if flush else "leaves its kernel routes in place"
        click.confirm(f"This closes all sessions, {fate}, and ends the daemon. Go on?", abort=True, err=True)
    options.commands().shutdown(flush, message)


@main.group(invoke_without_command=True)
@common
@click.pass_context
def watch(context: click.Context) -> None:
    """Show what is there, then every change, until Ctrl-C.

    Without a further word: the routes that are selected.
    """
    if context.invoked_subcommand is None:
        context.ensure_object(Options).commands().watch_routes(RouteQuery(Table.LOC_RIB))


@watch.command("routes")
@selection
@common
@click.pass_obj
def watch_routes(
    options: Options, prefix: str | None, table: str, match: str | None, peer: str | None, family: str | None
) -> None:
    """Watch the routes of one table; PREFIX and options are those of `podbgp routes`."""
    query = make_query(prefix, table, match, peer, family)
    if query.match is Match.LONGEST:
        raise click.UsageError("--longest can't be watched; --shorter can")
    options.commands().watch_routes(query)


@watch.command("peers")
@click.argument("name", required=False, default="")
@common
@click.pass_obj
def watch_peers(options: Options, name: str) -> None:
    """Watch all peers, or the one called NAME."""
    options.commands().watch_peers(name)
