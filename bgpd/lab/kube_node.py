"""A node of the lab's cluster: the kubelet's stand-in, our agent, and perhaps kube-proxy.

Owns the agent's command line, which is that of deploy/ but for the folders.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from bgpd.lab import netns
from bgpd.lab.control_plane import ControlPlane
from bgpd.lab.fake_kubelet import FakeKubelet
from bgpd.lab.kube_certificates import service_account
from bgpd.lab.kube_proxy import KubeProxy
from bgpd.lab.kube_stand_in import StandInControlPlane
from bgpd.lab.plan import Node
from bgpd.lab.process import Process
from bgpd.lab.workspace import Workspace

NAMESPACE = "podbgp-system"
AGENT = service_account(NAMESPACE, "podbgp-agent")

Control = ControlPlane | StandInControlPlane


class KubeNode:
    """A node of the cluster: its kubelet's stand-in, its agent, and perhaps kube-proxy."""

    def __init__(self, node: Node, control: Control, workspace: Workspace, zone: str) -> None:
        self.node = node
        self.name = node.name
        self.folder = workspace.folder / node.name
        self.socket = self.folder / "agent.sock"
        self.reflector_socket = self.folder / "reflector.sock"
        self.kubelet = FakeKubelet(control, node, workspace, zone=zone)
        self.proxy: KubeProxy | None = None
        self.agent = Process(
            f"agent of {node.name}", node.namespace, self._command(control), self.folder / "agent.log"
        )

    def kill_agent(self) -> int:
        """`kill -9` the agent and the reflector beside it, if there is one; how many those were."""
        children = [pid for pid in netns.pids(self.node.namespace) if _parent_of(pid) == self.agent.pid]
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.agent.kill()
        return 1 + len(children)

    def _command(self, control: Control) -> list[str]:
        """The agent's command line; its two files are only of where its APIs listen."""
        host, reflector = self.folder / "agent.toml", self.folder / "reflector.toml"
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, socket in ((host, self.socket), (reflector, self.reflector_socket)):
            path.write_text(f'[api]\nlisten = "unix://{socket}"\n')
        return [
            *(sys.executable, "-m", "bgpd", "agent", "--kubernetes", "--node", self.name),
            *("--config", str(host), "--reflector-config", str(reflector)),
            *("--kubeconfig", str(control.kubeconfig(AGENT)), "--state-dir", str(self.folder / "state")),
            *("--cni-dir", str(self.kubelet.cni_folder), "--cni-data-dir", str(self.kubelet.leases_folder)),
        ]


def _parent_of(pid: int) -> int:
    """The process that started one; 0 when it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(after_name.split()[1])
