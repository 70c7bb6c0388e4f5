"""`podbgpd sysctls`: say which kernel parameters a node needs, and set them on request.

Owns the command's options.  The privileged init container of the DaemonSet runs it with `--apply` and does
nothing else; an operator runs it without, to see what would be changed and why.
"""

from __future__ import annotations

import sys

import click

from bgpd.node.sysctls import needed, run
from routes.prefix import Family

DEFAULT_NODES = 1_000
"""Makes room for 4,096 neighbours, which costs nothing until they exist."""
MOST_NODES = 100_000


@click.command()
@click.option("--apply", "change", is_flag=True, help="Set what is wrong; otherwise nothing is changed.")
@click.option(
    "--nodes",
    type=click.IntRange(1, MOST_NODES),
    default=DEFAULT_NODES,
    show_default=True,
    metavar="N",
    help="How many nodes the cluster may have: they may all be neighbours.",
)
@click.option(
    "--link",
    "links",
    multiple=True,
    metavar="NAME",
    help="An uplink, as often as there are; without, the links of the default routes.",
)
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), multiple=True, help="Without, both.")
@click.option("--bridge", is_flag=True, help="Pods hang on a bridge (spec.pods.interface of BGPCluster).")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def sysctls(
    change: bool, nodes: int, links: tuple[str, ...], family: tuple[str, ...], bridge: bool, output: str
) -> None:
    """Show the kernel parameters that a node needs, each with its value and why.

    Exit code 0: all are as they must be, 1: some are not.
    """
    families = [each for each in Family if not family or str(each) in family]
    wanted = needed(nodes, families, links or _default_links(), bridge=bridge)
    sys.exit(run(wanted, change=change, output=output))


def _default_links() -> tuple[str, ...]:
    from bgpd.kernel.uplinks import read_uplinks  # noqa: PLC0415  imports pyroute2

    found = read_uplinks()
    return tuple(link.name for link in found.links if link.ifindex in found.default_links)
