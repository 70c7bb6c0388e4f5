"""A cluster of the lab, whichever API server it has: the real one, or the stand-in.

Both live in a namespace of their own, which nodes reach over the management network and this process through
a door on the loopback address.  What differs is who serves, and who is known: the real one checks
certificates and rights, the stand-in takes everybody for an administrator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from bgpd.kube.client import KubeClient
from bgpd.lab.kube_certificates import ADMIN, Identity
from bgpd.lab.plan import Network, Node


class Access(Protocol):
    """A way to an API server: what the stand-ins for kubelet and scheduler need."""

    @property
    def namespace(self) -> str:
        """The network namespace that the API server lives in."""

    @property
    def folder(self) -> Path:
        """Where its processes keep their logs."""

    def kubeconfig(self, identity: Identity = ADMIN) -> Path:
        """A kubeconfig for this identity, for a process in the lab's namespaces."""


class Cluster(Access, Protocol):
    """A control plane that serves."""

    @property
    def description(self) -> str:
        """What it is, for whoever looks at the lab."""

    @property
    def pod_networks(self) -> tuple[Network, ...]:
        """Nodes get their prefixes out of these."""

    def attach(self, node: Node) -> None:
        """Give a node that is already built its way to the API server."""

    def outside_kubeconfig(self, identity: Identity = ADMIN) -> Path:
        """For a process of this machine outside the lab's namespaces, while this one runs."""

    def client(self, identity: Identity = ADMIN, *, timeout: float = 20.0) -> KubeClient:
        """A client for this process; the caller closes it."""
