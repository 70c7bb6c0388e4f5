"""The options of `podbgpd` that say where Kubernetes is, alike for agent, reflector and controller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, TypeVar

import click

from bgpd.config import Config
from bgpd.kube.options import DEFAULT_NAMESPACE, KubeOptions, node_name

C = TypeVar("C", bound=Callable[..., None])


class KubeWords(TypedDict):
    """What click makes of them."""

    kubeconfig: str | None
    server: str | None
    node: str | None
    namespace: str
    state_dir: Path


_OPTIONS = (
    click.option(
        "--kubernetes",
        is_flag=True,
        help="Take the intent from Kubernetes; FILE then has the host's settings.",
    ),
    click.option(
        "--kubeconfig", type=click.Path(), metavar="FILE", help="Credentials; default: this pod's own."
    ),
    click.option(
        "--server", metavar="URL", help="The API server's address, where its ClusterIP does not work yet."
    ),
    click.option("--node", metavar="NAME", help="The Node that this host is; default: $NODE_NAME, hostname."),
    click.option(
        "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Where podbgp's Secrets are."
    ),
    click.option(
        "--state-dir",
        type=click.Path(path_type=Path),
        default=Path("/var/lib/podbgp"),
        show_default=True,
        help="Where the last intent is kept.",
    ),
)


def kube_options(command: C) -> C:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def kube_from(host: Config, words: KubeWords) -> KubeOptions:
    """The options' values, checked; ConfigError says what is wrong."""
    return KubeOptions(
        host=host,
        node=node_name(words["node"]),
        kubeconfig=words["kubeconfig"],
        server=words["server"],
        namespace=words["namespace"],
        state_folder=words["state_dir"],
    )
