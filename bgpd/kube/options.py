"""What a daemon that takes its intent from Kubernetes is told on its command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bgpd.config import Config
from bgpd.errors import ConfigError

DEFAULT_NAMESPACE = "podbgp-system"


@dataclass(frozen=True, slots=True)
class KubeOptions:
    """Where the API server is, and where this host keeps things."""

    host: Config
    """Settings of the host that no object has: API, metrics, log, and which kernel routes are ours."""
    node: str
    kubeconfig: str | None = None
    """None: the service account of this pod."""
    server: str | None = None
    """Another address than the one that the credentials name, for a host where no ClusterIP works yet."""
    namespace: str = DEFAULT_NAMESPACE
    """podbgp's own: where the Secrets are."""
    state_folder: Path = Path("/var/lib/podbgp")
    cni_folder: Path = Path("/etc/cni/net.d")
    cni_data_folder: str = ""
    """Where host-local keeps its leases; empty: its own default."""
    reflector_config: str | None = None
    """Settings of the host for the reflector that this node may be elected for."""
    with_parent: bool = False
    """End when standard input ends."""


def node_name(given: str | None) -> str:
    """The name of the Node that this host is; ConfigError where nobody said it."""
    name = given or os.environ.get("NODE_NAME", "") or os.uname().nodename.lower()
    if not name or len(name) > 253 or name.strip("abcdefghijklmnopqrstuvwxyz0123456789.-"):
        raise ConfigError(
            f"--node {name[:60]!r} is no name of a Node: give the one that kubectl get nodes shows "
            "(in a pod: NODE_NAME from spec.nodeName)"
        )
    return name
