"""What the lab's stand-ins for Kubernetes components need of a cluster, whichever API server it has."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from bgpd.lab.kube_certificates import Identity


class Access(Protocol):
    """A way to an API server."""

    @property
    def namespace(self) -> str:
        """The network namespace that the control plane lives in."""

    @property
    def folder(self) -> Path:
        """Where its processes keep their logs."""

    def kubeconfig(self, identity: Identity) -> Path:
        """A kubeconfig for this identity, for processes in the lab's namespaces."""
