"""The real kube-proxy on a node of the lab: what turns a service's address into a pod's.

Owns its command line.  It works with iptables in the node's own namespace, translates the destination of
packets alone, and is told the pods' ranges, so that what pods send keeps its source address.  It leaves the
kernel's limits on tracked connections as they are: they belong to the whole machine.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from bgpd.lab.command import LabError, find_tool
from bgpd.lab.control_plane import ControlPlane
from bgpd.lab.kube_certificates import Identity
from bgpd.lab.plan import Node
from bgpd.lab.process import Process
from bgpd.lab.workspace import Workspace

IDENTITY = Identity("kube-proxy", "system:kube-proxy")
KEEP_LIMITS = (
    "--conntrack-max-per-core=0",
    "--conntrack-tcp-timeout-established=0",
    "--conntrack-tcp-timeout-close-wait=0",
)


class KubeProxy:
    """One node's kube-proxy; a context manager.  Its Node must be registered when it starts."""

    def __init__(self, control: ControlPlane, node: Node, workspace: Workspace) -> None:
        program = control.components.proxy
        if program is None:
            raise LabError(f"there is no kube-proxy beside {control.components.apiserver}: run `make kube`")
        for tool in ("iptables", "conntrack"):
            find_tool(tool, tool)
        self._control = control
        argv = [
            str(program),
            *(control.components.gates if control.dual_stack else []),
            f"--kubeconfig={control.authority.path(IDENTITY)}",
            f"--hostname-override={node.name}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={','.join(map(str, control.pod_networks))}",
            "--masquerade-all=false",
            "--iptables-min-sync-period=100ms",
            *KEEP_LIMITS,
        ]
        log = workspace.folder / node.name / "kube-proxy.log"
        self.process = Process(f"kube-proxy of {node.name}", node.namespace, argv, log)

    def __enter__(self) -> Self:
        self._control.kubeconfig(IDENTITY)
        self.process.log.parent.mkdir(parents=True, exist_ok=True)
        self.process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
