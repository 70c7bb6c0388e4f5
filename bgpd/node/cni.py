"""The CNI configuration of the node: how the container runtime wires pods, with the standard plugins.

Owns the file `10-podbgp.conflist`, and what is in it (CNI specification 0.4.0, which Debian's plugins know).
Its presence is what tells the kubelet that pods may start here, so it is written when the node can forward
(`readiness.py`) and never half: a new file takes the place of the old one.  It must never touch a file of
another name, nor remove one of this name that somebody else's network wrote.

`cni_conflist` is pure; `CniFile` acts, and blocks for a few system calls.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bgpd.atomic_file import replace_file
from bgpd.node.errors import HostError
from routes.prefix import Family, Prefix
from routes.view import HostWarning

CNI_VERSION = "0.4.0"
NETWORK_NAME = "podbgp"
"""host-local keeps its leases in a folder of this name, so it must never change."""
FILE_NAME = "10-podbgp.conflist"
BRIDGE = "podbgp0"
SUFFIXES = (".conf", ".conflist", ".json")
"""What container runtimes read; the first file in lexical order wins."""
MOST_BYTES = 1 << 20
MOST_FILES = 1_000

LONGEST = {Family.IPV4: 30, Family.IPV6: 126}
"""Of a prefix that host-local can give addresses from."""
SMALLEST_MTU = {Family.IPV4: 576, Family.IPV6: 1280}
"""Below these a link does not carry the protocol (RFC 791, RFC 8200 section 5)."""
LARGEST_MTU = 65_535
DEFAULT_ROUTE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}


class PodInterface(StrEnum):
    """How a pod hangs on its node."""

    PTP = "ptp"
    """A link of its own and a host route: packets between pods of a node are routed."""
    BRIDGE = "bridge"
    """A port of one bridge: packets between pods of a node are switched."""


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """What the pods of this node get."""

    prefixes: tuple[Prefix, ...]
    """The node's own: one, or one of each family."""
    mtu: int
    """Of the pods' links: the uplink's, since nothing is wrapped."""
    interface: PodInterface = PodInterface.PTP
    host_ports: bool = True
    bandwidth: bool = True
    """Whether the limits of the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth apply."""
    data_folder: str = ""
    """Where host-local remembers its leases; empty: where it always does."""


def faults(settings: PodNetwork) -> tuple[str, ...]:
    """Why pods can't be wired like this; empty when they can."""
    found = [] if settings.prefixes else ["the node has no pod prefix (spec.podCIDRs): nothing to give pods"]
    families = [prefix.family for prefix in settings.prefixes]
    for family in sorted(set(families)):
        if families.count(family) > 1:
            found.append(
                f"{families.count(family)} pod prefixes are {family}: a pod gets one address of each"
            )
        if not SMALLEST_MTU[family] <= settings.mtu <= LARGEST_MTU:
            limits = f"{SMALLEST_MTU[family]} to {LARGEST_MTU}"
            found.append(f"MTU {settings.mtu} of the pods' links: {family} needs {limits}")
    for prefix in settings.prefixes:
        if prefix.length > LONGEST[prefix.family]:
            longest = LONGEST[prefix.family]
            found.append(f"pod prefix {prefix} has no room for pods: /{longest} or shorter is needed")
    return tuple(found)


def cni_conflist(settings: PodNetwork) -> dict[str, object]:
    """The configuration list for these settings; HostError when there is none."""
    if found := faults(settings):
        raise HostError("; ".join(found))
    plugins = [_wiring(settings)]
    if settings.host_ports:
        plugins.append({"type": "portmap", "snat": True, "capabilities": {"portMappings": True}})
    if settings.bandwidth:
        plugins.append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    return {"cniVersion": CNI_VERSION, "name": NETWORK_NAME, "plugins": plugins}


def _wiring(settings: PodNetwork) -> dict[str, object]:
    """The first plugin: the link, without any translation of addresses."""
    common: dict[str, object] = {"mtu": settings.mtu, "ipMasq": False, "ipam": _addresses(settings)}
    if settings.interface is PodInterface.PTP:
        return {"type": "ptp", **common}
    # isDefaultGateway makes the default routes; beside host-local's own the plugin ends with "file exists".
    return {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "hairpinMode": True,  # a pod must reach itself through its service
        "promiscMode": False,
        **common,
    }


def _addresses(settings: PodNetwork) -> dict[str, object]:
    ipam: dict[str, object] = {
        "type": "host-local",
        "ranges": [[{"subnet": str(prefix)}] for prefix in settings.prefixes],
    }
    if settings.interface is PodInterface.PTP:
        ipam["routes"] = [{"dst": DEFAULT_ROUTE[prefix.family]} for prefix in settings.prefixes]
    if settings.data_folder:
        ipam["dataDir"] = settings.data_folder
    return ipam


def conflist_text(settings: PodNetwork) -> str:
    """The same as the text of the file; equal settings give equal text."""
    return json.dumps(cni_conflist(settings), indent=2) + "\n"


def _shown(path: Path) -> str:
    """A path as text, also one that is no UTF-8: it goes to logs and to the API server."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class CniFile:
    """Our configuration in the folder that the container runtime reads, usually /etc/cni/net.d."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE_NAME

    def write(self, settings: PodNetwork) -> bool:
        """Make the file say this; whether it had to be written.  HostError when it can't be."""
        text = conflist_text(settings)
        if self._text() == text:
            return False
        try:
            replace_file(self.path, text.encode())
        except OSError as error:
            raise HostError(f"CNI configuration {self.path} can't be written: {error.strerror}") from error
        return True

    def remove(self) -> bool:
        """Remove the file if this network wrote it; whether it did.  HostError when it can't be."""
        if not self.is_ours():
            return False
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"CNI configuration {self.path} can't be removed: {error.strerror}") from error
        return True

    def is_ours(self) -> bool:
        """Whether the file is there and describes our network."""
        try:
            value: object = json.loads(self._text())
        except ValueError:
            return False
        return isinstance(value, dict) and value.get("name") == NETWORK_NAME

    def rivals(self) -> tuple[HostWarning, ...]:
        """Other configurations that the container runtime would take instead of ours."""
        try:
            with os.scandir(self.folder) as entries:
                names = sorted(entry.name for _, entry in zip(range(MOST_FILES), entries, strict=False))
        except OSError:
            return ()  # without a folder there is nobody
        return tuple(
            HostWarning(
                "another CNI configuration comes first: pods are not wired by podbgp",
                (path := _shown(self.folder / name)),
                f"rm {shlex.quote(path)}",
            )
            for name in names
            if name.endswith(SUFFIXES) and not name.startswith(".") and name < FILE_NAME
        )

    def _text(self) -> str:
        """What the file says; empty when there is none, or none that could be ours."""
        try:
            with self.path.open("rb") as handle:
                return handle.read(MOST_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""
