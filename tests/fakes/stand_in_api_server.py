"""The stand-in API server where tests look for it; it lives in the lab, which uses it too.

Also a process: `python -m tests.fakes.stand_in_api_server --listen 127.0.0.1:8001`.
"""

from __future__ import annotations

from bgpd.lab.stand_in_api_server import Faults, Instead, StandInApiServer, main

__all__ = ["Faults", "Instead", "StandInApiServer", "node"]


def node(
    name: str,
    *addresses: str,
    pod_cidrs: tuple[str, ...] = (),
    labels: dict[str, str] | None = None,
) -> dict[str, object]:
    """A Node with these InternalIPs, as a kubelet would register it."""
    spec: dict[str, object] = {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)} if pod_cidrs else {}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels or {}}, "spec": spec,
        "status": {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]},
    }  # fmt: skip


if __name__ == "__main__":
    main()
