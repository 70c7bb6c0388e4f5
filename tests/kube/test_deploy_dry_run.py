"""A real API server takes what deploy/ installs, and judges the schemas' examples as the stand-in does.

Everything is sent with `dryRun=All`, but for what the rest needs to be there: the namespace and the
definitions of our resources, which this module makes and removes.  So it runs against the lab's own control
plane only.  What an API server of version 1.20 does not serve (PodDisruptionBudget v1), or only one with an
operator (ServiceMonitor), is left out by asking the server; what it does not know of a schema (CEL came in
1.25) it drops.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import yaml

from bgpd.kube.client import KubeClient
from bgpd.kube.errors import Invalid, KubeError, NotFound
from bgpd.kube.options import DEFAULT_NAMESPACE
from bgpd.lab.control_plane import ControlPlane
from tests.fakes import crd_server
from tests.fakes.crd_server import Json, Schema
from tests.kube.api_servers import eventually
from tests.unit.test_deploy import NEEDED

ROOT = Path(__file__).parents[2]
CRD_FILES = sorted((ROOT / "deploy/crds").glob("bgp*.yaml"))
CRDS = {file.stem: crd_server.load(file) for file in CRD_FILES}
MANIFESTS = [
    found
    for file in sorted((ROOT / "deploy/kubernetes").rglob("*.yaml"))
    if file.name != "kustomization.yaml"
    for found in cast("list[Schema]", list(yaml.safe_load_all(file.read_text())))
]
GROUP = "/apis/podbgp.dev/v1alpha1"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
UNSERVED = {("policy/v1", "PodDisruptionBudget"), ("monitoring.coreos.com/v1", "ServiceMonitor")}
CEL_VERSION = (1, 25)


def load(raw: bytes) -> Schema:
    return cast(Schema, json.loads(raw))


def _create(client: KubeClient, manifest: Schema) -> bool:
    return bool(client.create(DEFINITIONS, manifest))


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane, own_namespace: str) -> Iterator[KubeClient]:
    """The control plane with our definitions and namespace."""
    assert own_namespace
    client = control_plane.client()
    try:
        for crd in CRDS.values():
            # Another module's may still be on its way out.
            assert eventually(partial(_create, client, crd.manifest))
        assert eventually(lambda: all(client.get(f"{GROUP}/{plural}") for plural in CRDS))
        yield client
    finally:
        for path in (f"{DEFINITIONS}/{plural}.podbgp.dev" for plural in CRDS):
            try:
                client.delete(path)
            except NotFound:
                continue
        client.close()


@pytest.mark.parametrize("plural", CRDS)
def test_definition_is_accepted_without_complaint(server: KubeClient, plural: str) -> None:
    stored = load(server.get(f"{DEFINITIONS}/{plural}.podbgp.dev"))
    conditions = cast("list[dict[str, str]]", cast(Schema, stored["status"])["conditions"])
    assert {each["type"]: each["status"] for each in conditions} == {
        "NamesAccepted": "True",
        "Established": "True",
    }, conditions


def _path(server: KubeClient, manifest: Schema) -> str | None:
    """Where objects of this kind are; None where the server has no such kind."""
    version, kind = str(manifest["apiVersion"]), str(manifest["kind"])
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    try:
        served = cast("list[Schema]", load(server.get(root))["resources"])
    except NotFound:
        return None
    for resource in served:
        if resource["kind"] == kind and "/" not in str(resource["name"]):
            inside = f"/namespaces/{DEFAULT_NAMESPACE}" if resource["namespaced"] else ""
            return f"{root}{inside}/{resource['name']}"
    return None


def test_everything_that_deploy_installs_is_accepted(server: KubeClient) -> None:
    faults, unserved = [], set()
    for manifest in MANIFESTS:
        name = str(cast(Schema, manifest["metadata"])["name"])
        path = _path(server, manifest)
        if path is None:
            unserved.add((str(manifest["apiVersion"]), str(manifest["kind"])))
        elif name != DEFAULT_NAMESPACE:
            try:
                server.create(path, manifest, dry_run=True)
            except KubeError as error:
                faults.append(f"{manifest['kind']} {name}: {error}")
    assert faults == []
    assert unserved <= UNSERVED


RIGHTS = [found for found in MANIFESTS if "Role" in str(found["kind"]) or found["kind"] == "ServiceAccount"]
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
FORBIDDEN = {
    "secrets": ("list", "kube-system"),
    "nodes": ("delete", ""),
    "services": ("update", "default"),
    "pods": ("delete", DEFAULT_NAMESPACE),
    "rbac.authorization.k8s.io/clusterroles": ("escalate", ""),
    "podbgp.dev/bgpclusters": ("patch", ""),
}
"""What no account of ours may do, and where."""


@pytest.fixture
def granted(server: KubeClient) -> Iterator[KubeClient]:
    """With our roles and accounts, for real."""
    made = []
    try:
        for manifest in RIGHTS:
            path = _path(server, manifest)
            assert path is not None
            server.create(path, manifest)
            made.append(f"{path}/{cast(Schema, manifest['metadata'])['name']}")
        yield server
    finally:
        for path in made:
            server.delete(path)


@pytest.mark.parametrize("account", NEEDED)
def test_accounts_may_do_what_their_code_does(granted: KubeClient, account: str) -> None:
    def may(resource: str, verb: str, namespace: str) -> bool:
        name, part = resource.removesuffix("/status"), "status" if resource.endswith("/status") else ""
        group, _, kind = name.rpartition("/")
        asked = {"group": group, "resource": kind, "subresource": part, "verb": verb, "namespace": namespace}
        if kind == "leases" and verb != "create":
            asked["name"] = account
        spec = {"user": f"system:serviceaccount:{DEFAULT_NAMESPACE}:{account}", "resourceAttributes": asked}
        answer = load(granted.create(REVIEWS, {"spec": spec}))
        return bool(cast(Schema, answer["status"])["allowed"])

    for resource, verbs in NEEDED[account].items():
        namespace = DEFAULT_NAMESPACE if resource in ("secrets", "coordination.k8s.io/leases") else ""
        if account == "podbgp-controller" and resource == "pods":
            namespace = DEFAULT_NAMESPACE
        for verb in verbs:
            assert eventually(partial(may, resource, verb, namespace)), (resource, verb)
    for resource, (verb, namespace) in FORBIDDEN.items():
        assert not may(resource, verb, namespace), (resource, verb)


@pytest.mark.parametrize("plural", CRDS)
def test_good_examples_get_the_defaults_that_the_stand_in_gives(server: KubeClient, plural: str) -> None:
    for value in _examples(plural, "good"):
        made = load(server.create(f"{GROUP}/{plural}", _whole(plural, value), dry_run=True))
        wanted = cast(Schema, crd_server.defaulted(CRDS[plural].schema, value))
        assert made.get("spec") == wanted.get("spec")


@pytest.mark.parametrize("plural", CRDS)
def test_bad_examples_are_refused(server: KubeClient, plural: str) -> None:
    """Those that the schema refuses; those that CEL does where the server knows it."""
    version = load(server.get("/version"))
    knows_cel = (int(str(version["major"])), int(str(version["minor"]).rstrip("+"))) >= CEL_VERSION
    (first, *_) = _examples(plural, "good")
    for entry in cast("list[Schema]", _file(plural)["bad"]):
        change, rule = cast("dict[str, Json]", entry["change"]), str(entry["rule"])
        by_schema = rule.rpartition(" ")[2] in crd_server.KEYWORDS
        if (by_schema or knows_cel) and all(path.startswith("spec.") for path in change):
            with pytest.raises(Invalid):
                server.create(f"{GROUP}/{plural}", _whole(plural, _changed(first, change)), dry_run=True)


def _file(plural: str) -> Schema:
    return cast(Schema, yaml.safe_load((ROOT / f"tests/unit/crd_examples/{plural}.yaml").read_text()))


def _examples(plural: str, section: str) -> list[Schema]:
    return cast("list[Schema]", _file(plural)[section])


def _whole(plural: str, value: Schema) -> Schema:
    """With what every object has; UIDs and generations are the server's."""
    name = cast(Schema, value["metadata"])["name"]
    return {
        **value,
        "apiVersion": "podbgp.dev/v1alpha1",
        "kind": CRDS[plural].kind,
        "metadata": {"name": name},
    }


def _changed(value: Schema, change: dict[str, Json]) -> Schema:
    value = copy.deepcopy(value)
    for path, new in change.items():
        *steps, last = path.split(".")
        inner = value
        for step in steps:
            inner = cast(Schema, inner[step])
        if new is None:
            del inner[last]
        else:
            inner[last] = new
    return value
