"""Which real Kubernetes components this machine has, and where.

Owns the search: `make kube` keeps what it built in one folder outside the tree, a folder of envtest
(KUBEBUILDER_ASSETS) takes precedence for kube-apiserver and etcd, and what a distribution installs is found
by name.  What is missing is an error that says what to do; nothing here may install or download anything.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bgpd.lab.command import LabError, find_tool, run

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
BUILT = Path("/var/cache/podbgp-kube/1.20.2/bin")
"""Where .ci/kube keeps what it builds."""
CNI_PLUGINS = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins puts them."""
_VERSION = re.compile(r"v(\d+)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Components:
    """Full paths; None for what is not there."""

    apiserver: Path
    etcd: Path
    version: tuple[int, int]
    """Of the API server: (1, 20)."""
    controller_manager: Path | None = None
    proxy: Path | None = None

    @property
    def gates(self) -> list[str]:
        """The arguments that switch two families on, where that is still an experiment (before 1.23)."""
        return ["--feature-gates=IPv6DualStack=true"] if self.version < (1, 23) else []


def find_components() -> Components:
    """What there is; LabError, with what to do, without an API server and an etcd."""
    assets = os.environ.get(ASSETS_VARIABLE, "")
    apiserver = _in_assets(assets, "kube-apiserver") if assets else _built("kube-apiserver")
    if apiserver is None:
        raise LabError(
            f"there is no kube-apiserver in {BUILT}: run `make kube` (once, some minutes, on Debian 12), "
            f"or set {ASSETS_VARIABLE} to a folder with kube-apiserver and etcd"
        )
    etcd = _in_assets(assets, "etcd") if assets else Path(find_tool("etcd", "etcd-server"))
    version = _version(apiserver)
    beside = apiserver.parent
    return Components(
        apiserver,
        etcd,
        version,
        _executable(beside / "kube-controller-manager"),
        _executable(beside / "kube-proxy"),
    )


def have_components() -> bool:
    """Whether the whole set is there: with services, and Nodes that get their prefixes."""
    try:
        found = find_components()
    except LabError:
        return False
    return None not in (found.controller_manager, found.proxy) and CNI_PLUGINS.is_dir()


def _in_assets(folder: str, name: str) -> Path:
    found = _executable(Path(folder) / name)
    if found is None:
        raise LabError(f"{ASSETS_VARIABLE} is {folder}, where there is no {name} that can be run")
    return found


def _built(name: str) -> Path | None:
    return _executable(BUILT / name)


def _executable(path: Path) -> Path | None:
    return path if os.access(path, os.X_OK) else None


def _version(apiserver: Path) -> tuple[int, int]:
    said = run([str(apiserver), "--version"])
    found = _VERSION.search(said)
    if found is None:
        raise LabError(f"{apiserver} --version says {said[:100]!r}, which is no version of Kubernetes")
    return int(found[1]), int(found[2])
