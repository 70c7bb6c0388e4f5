"""The container runtime's part of CNI: running a node's plugins for a pod, as containerd and CRI-O do it.

Implements the runtime's side of the CNI specification (0.3.1 and 0.4.0, which Debian's plugins speak): the
first file of the folder in lexical order, its plugins one after the other for ADD and backwards for DEL, each
with the result of the one before it, and with port mappings only for those that say that they can.  What was
added is remembered in a file, so that DEL gets the same configuration and result, also after a restart.

It runs in the node's network namespace, since the plugins act on the one that they are started in.  It must
never repair what the configuration says: what a real runtime refuses is refused here, and beyond that only
a host-local without a folder of its own, because all nodes of a lab share one file system.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import TypeVar

import msgspec

from bgpd.lab.command import SYSTEM_FOLDERS, LabError
from bgpd.lab.kube_components import CNI_PLUGINS
from bgpd.lab.netns import NETNS_FOLDER
from bgpd.lab.plan import Address

SUFFIXES = (".conf", ".conflist", ".json")
INTERFACE = "eth0"
TIMEOUT = 30.0
MOST_BYTES = 1 << 20

Json = dict[str, object]
T = TypeVar("T")


class CniError(LabError):
    """A plugin, or the configuration, did not do what it must; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The network side of a pod: the namespace that its containers share."""

    container: str
    """The runtime's identifier."""
    netns: str
    """Name of the network namespace."""
    pod_namespace: str
    pod: str
    ports: tuple[Mapping[str, str | int], ...] = ()
    """As in the capability portMappings: hostPort, containerPort, protocol, hostIP."""


class _Address(msgspec.Struct):
    address: str
    interface: int | None = None


class _Interface(msgspec.Struct):
    name: str = ""
    sandbox: str = ""


class _Result(msgspec.Struct):
    ips: list[_Address] = []
    interfaces: list[_Interface] = []


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""
    details: str = ""


class _Network(msgspec.Struct):
    name: str
    cniVersion: str  # noqa: N815 - as in the file
    plugins: list[Json]


class _Added(msgspec.Struct):
    """What is remembered of an ADD."""

    network: _Network
    result: Json


def find_configuration(folder: Path) -> Path | None:
    """The file that a runtime takes: the first in lexical order with one of its suffixes."""
    if not folder.is_dir():
        return None
    names = sorted(entry.name for entry in folder.iterdir())
    return next((folder / name for name in names if _is_configuration(name)), None)


def _is_configuration(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith(".")


class CniRuntime:
    """Wires and unwires the pods of one node."""

    def __init__(self, configuration: Path, memory: Path, plugins: Path = CNI_PLUGINS) -> None:
        """`configuration` and `memory` are folders."""
        self.configuration = configuration
        self._memory = memory
        self._plugins = plugins

    @property
    def ready(self) -> bool:
        """Whether there is a configuration: what a runtime calls NetworkReady."""
        return find_configuration(self.configuration) is not None

    def add(self, sandbox: Sandbox) -> tuple[Address, ...]:
        """Wire a pod, and return its addresses; on an error nothing is left of it."""
        network = self._load()
        result: Json = {}
        try:
            for plugin in network.plugins:
                output = self._run("ADD", network, plugin, sandbox, result)
                result = _decode(output, f"the result of {plugin['type']}", Json)
        except CniError:
            self._delete(sandbox, network, {})
            raise
        self._memory.mkdir(parents=True, exist_ok=True)
        self._record(sandbox).write_bytes(msgspec.json.encode(_Added(network, result)))
        return _addresses(result)

    def delete(self, sandbox: Sandbox) -> None:
        """Unwire a pod; one that was never wired is none of our business."""
        record = self._record(sandbox)
        if not record.exists():
            return
        added = _decode(record.read_bytes(), str(record), _Added)
        self._delete(sandbox, added.network, added.result)
        record.unlink()

    def addresses(self, sandbox: Sandbox) -> tuple[Address, ...]:
        """What a pod that was wired before has; empty for one that was not."""
        record = self._record(sandbox)
        if not record.exists():
            return ()
        return _addresses(_decode(record.read_bytes(), str(record), _Added).result)

    def _delete(self, sandbox: Sandbox, network: _Network, result: Json) -> None:
        for plugin in reversed(network.plugins):
            self._run("DEL", network, plugin, sandbox, result)

    def _record(self, sandbox: Sandbox) -> Path:
        return self._memory / f"{sandbox.container}.json"

    def _load(self) -> _Network:
        path = find_configuration(self.configuration)
        if path is None:
            raise CniError(f"there is no CNI configuration in {self.configuration}: the node is not ready")
        content = path.read_bytes()[:MOST_BYTES]
        if path.suffix == ".conflist":
            network = _decode(content, str(path), _Network)
        else:
            plugin = _decode(content, str(path), Json)
            network = _Network(str(plugin.get("name", "")), str(plugin.get("cniVersion", "")), [plugin])
        _check(network, path)
        return network

    def _run(self, command: str, network: _Network, plugin: Json, sandbox: Sandbox, previous: Json) -> bytes:
        kind = str(plugin["type"])
        program = self._plugins / kind
        document = _plugin_input(network, plugin, sandbox, previous)
        try:
            done = subprocess.run(  # noqa: S603 - a program of the plugins' own folder, as the runtime does it
                [str(program)],
                input=msgspec.json.encode(document),
                env=_environment(command, sandbox, self._plugins),
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CniError(f"CNI plugin {program} for {sandbox.pod}: {error}") from error
        if done.returncode != 0:
            raise CniError(
                f"CNI {command} of {kind} for {sandbox.pod}: {_complaint(done.stdout, done.stderr)}"
            )
        return done.stdout


def _check(network: _Network, path: Path) -> None:
    if not network.name or not network.plugins:
        raise CniError(f"{path}: a CNI network has a name and at least one plugin")
    for plugin in network.plugins:
        kind = plugin.get("type")
        if not isinstance(kind, str) or not kind or "/" in kind:
            raise CniError(f"{path}: plugin type {kind!r} is no name of a program")
        ipam = plugin.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") == "host-local" and not ipam.get("dataDir"):
            raise CniError(
                f"{path}: host-local needs a dataDir here, since the nodes of a lab share /var/lib/cni"
            )


def _plugin_input(network: _Network, plugin: Json, sandbox: Sandbox, previous: Json) -> Json:
    """What a plugin reads: its own part, the network, what the runtime may tell it, what came before."""
    capabilities = plugin.get("capabilities")
    document = {key: value for key, value in plugin.items() if key != "capabilities"}
    document |= {"name": network.name, "cniVersion": network.cniVersion}
    if isinstance(capabilities, dict) and capabilities.get("portMappings") and sandbox.ports:
        document["runtimeConfig"] = {"portMappings": list(sandbox.ports)}
    if previous:
        document["prevResult"] = previous
    return document


def _environment(command: str, sandbox: Sandbox, plugins: Path) -> dict[str, str]:
    names = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": sandbox.pod_namespace,
        "K8S_POD_NAME": sandbox.pod,
        "K8S_POD_INFRA_CONTAINER_ID": sandbox.container,
    }
    return {
        "PATH": os.environ.get("PATH", "") + f":{SYSTEM_FOLDERS}",  # portmap looks for iptables
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": sandbox.container,
        "CNI_NETNS": str(NETNS_FOLDER / sandbox.netns),
        "CNI_IFNAME": INTERFACE,
        "CNI_PATH": str(plugins),
        "CNI_ARGS": ";".join(f"{name}={value}" for name, value in names.items()),
    }


def _complaint(output: bytes, errors: bytes) -> str:
    """What a plugin that failed says, by the specification on its standard output."""
    try:
        said = msgspec.json.decode(output, type=_Error)
    except msgspec.MsgspecError:
        return (output + errors).decode(errors="replace").strip()[-500:] or "no reason given"
    return " ".join(part for part in (said.msg, said.details, f"(code {said.code})") if part)


def _addresses(result: Json) -> tuple[Address, ...]:
    """The addresses of the pod's own interface."""
    read = msgspec.convert(result, _Result)
    inside = [index for index, interface in enumerate(read.interfaces) if interface.sandbox]
    own: Sequence[_Address] = [ip for ip in read.ips if ip.interface is None or ip.interface in inside]
    return tuple(ip_interface(ip.address).ip for ip in own)


def _decode(content: bytes, what: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise CniError(f"{what} can't be read: {error}") from error
