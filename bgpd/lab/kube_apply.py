"""Bringing objects to an API server as `kubectl apply` would, as far as the lab needs it.

Owns the paths of the kinds that the lab and deploy/ use.  What is there already is replaced.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import yaml

from bgpd.kube.client import Conflict, KubeClient, KubeError
from bgpd.lab.command import LabError

Json = dict[str, object]

PLURALS = {
    "Namespace": "namespaces",
    "Node": "nodes",
    "Pod": "pods",
    "Service": "services",
    "Secret": "secrets",
    "ConfigMap": "configmaps",
    "ServiceAccount": "serviceaccounts",
    "DaemonSet": "daemonsets",
    "Deployment": "deployments",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "NetworkPolicy": "networkpolicies",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "CustomResourceDefinition": "customresourcedefinitions",
    "BGPCluster": "bgpclusters",
    "BGPPeer": "bgppeers",
    "BGPPolicy": "bgppolicies",
    "BGPAdvertisement": "bgpadvertisements",
    "BGPAddressPool": "bgpaddresspools",
}
PATIENCE = 15.0
"""Seconds until a kind that was just defined must be served."""


def documents(path: Path) -> Iterator[Json]:
    """The objects in a file of YAML."""
    for document in yaml.safe_load_all(path.read_text()):
        if document is not None:
            yield document


def path_of(body: Mapping[str, object]) -> str:
    """Where objects like this one are created."""
    kind, version, meta = str(body["kind"]), str(body["apiVersion"]), body["metadata"]
    if kind not in PLURALS or not isinstance(meta, dict):
        raise LabError(f"the lab knows no kind {kind}; it knows {', '.join(PLURALS)}")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    space = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
    return f"{root}{space}/{PLURALS[kind]}"


def apply(client: KubeClient, body: Json) -> Json:
    """Create the object, or replace its spec; what the server made of it."""
    path = path_of(body)
    meta = body["metadata"]
    name = meta["name"] if isinstance(meta, dict) else ""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return _decoded(client.create(path, body))
        except Conflict:
            return _decoded(client.patch(f"{path}/{name}", body))
        except KubeError as error:
            # A kind that was just defined is not served at once.
            if error.status != 404 or time.monotonic() > end:
                raise
            time.sleep(0.1)


def apply_all(client: KubeClient, bodies: Iterable[Json]) -> None:
    """Apply them in order."""
    for body in bodies:
        apply(client, body)


def _decoded(raw: bytes) -> Json:
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise LabError("the API server answered with something that is no object")
    return value
