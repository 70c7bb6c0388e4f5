"""`podbgpd controller`: the command line of the controller, and nothing of what it does."""

from __future__ import annotations

import os
import sys

import click

from bgpd import config_values
from bgpd.config import Endpoint
from bgpd.config_file import load_host
from bgpd.kube.options import DEFAULT_NAMESPACE

LEVELS = ("debug", "info", "warning", "error")
FORMS = ("auto", "text", "json")


def _endpoint(_ctx: click.Context, _option: click.Parameter, written: str | None) -> Endpoint | None:
    if written is None:
        return None
    try:
        return config_values.endpoint(written)
    except ValueError as error:
        raise click.BadParameter(f"{written!r} {error}") from None


@click.command()
@click.option("--config", "path", type=click.Path(), metavar="FILE", help="[metrics] and [log], in TOML.")
@click.option("--kubeconfig", type=click.Path(), metavar="FILE", help="Credentials; default: this pod's own.")
@click.option(
    "--server", metavar="URL", help="The API server's address, where its ClusterIP does not work yet."
)
@click.option("--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Where podbgp runs.")
@click.option(
    "--metrics", callback=_endpoint, metavar="ADDRESS:PORT", help="Serve /metrics and /healthz there."
)
@click.option("--log-level", type=click.Choice(LEVELS), help="Instead of the file's, or info.")
@click.option("--log-format", type=click.Choice(FORMS), help="Instead of the file's, or auto.")
def controller(
    path: str | None,
    kubeconfig: str | None,
    server: str | None,
    namespace: str,
    metrics: Endpoint | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run the controller of a cluster in the foreground.

    It elects the reflectors, gives LoadBalancer Services their addresses and says on each object what is
    wrong with it.  Several may run; one of them leads.  It speaks no BGP.
    """
    host = load_host(path, "controller")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # gRPC's C core logs past Python, to standard error
    from bgpd import log  # noqa: PLC0415  commands that do not log need no structlog

    log.configure(log_level or host.log_level, log_format or host.log_format)
    log.log_problems("warning", host.warnings)
    from bgpd.kube.controller import ControllerOptions, run  # noqa: PLC0415  imports the kubernetes package

    sys.exit(run(ControllerOptions(kubeconfig, server, namespace, metrics or host.metrics_listen)))
