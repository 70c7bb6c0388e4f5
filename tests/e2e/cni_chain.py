"""What a container runtime does with a CNI configuration list: each plugin in turn, given the last's result.

Stands in for containerd and CRI-O in the tests of what podbgp writes; the plugins are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bgpd.lab import netns
from bgpd.lab.command import find_tool

PLUGINS = Path("/usr/lib/cni")


@dataclass(frozen=True)
class Pod:
    """A pod as the plugins left it."""

    namespace: str
    addresses: tuple[str, ...]


class CniChain:
    """Wires pods of one node, whose namespace is given."""

    def __init__(self, node: str, conflist: str) -> None:
        self.node = node
        self.conf = cast("dict[str, object]", json.loads(conflist))

    def add(self, namespace: str, ports: Sequence[Mapping[str, object]] = ()) -> Pod:
        """Wire a pod whose namespace exists."""
        result: dict[str, object] = {}
        for plugin in self._plugins(ports):
            result = json.loads(self._call("ADD", namespace, plugin | _previous(result)))
        ips = cast("list[dict[str, str]]", result["ips"])
        return Pod(namespace, tuple(each["address"].partition("/")[0] for each in ips))

    def remove(self, namespace: str) -> None:
        """Take a pod's wires away, and give its addresses back."""
        for plugin in reversed(self._plugins(())):
            self._call("DEL", namespace, plugin)

    def _plugins(self, ports: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
        plugins = cast("list[dict[str, object]]", self.conf["plugins"])
        common = {key: self.conf[key] for key in ("cniVersion", "name")}
        mapped = {"runtimeConfig": {"portMappings": list(ports)}}
        return [
            plugin | common | (mapped if plugin["type"] == "portmap" and ports else {}) for plugin in plugins
        ]

    def _call(self, command: str, namespace: str, plugin: Mapping[str, object]) -> str:
        settings = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": namespace,
            "CNI_NETNS": str(netns.NETNS_FOLDER / namespace),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        argv = [find_tool("env", "coreutils"), *(f"{key}={value}" for key, value in settings.items())]
        return netns.run_in(self.node, [*argv, str(PLUGINS / str(plugin["type"]))], text=json.dumps(plugin))


def _previous(result: Mapping[str, object]) -> dict[str, object]:
    return {"prevResult": result} if result else {}
