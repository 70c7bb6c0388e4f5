"""What deploy/ installs: it hangs together, asks for no more than the code uses, and names what exists."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import yaml

from bgpd import metrics_server
from bgpd.cli import main
from bgpd.config_file import load_host
from bgpd.kube import custom, events, lease, objects, options, reflector_metrics, resources
from bgpd.kube.custom_fields import DNS_SUBDOMAIN
from bgpd.kube.watch import Resource
from tests.fakes import crd_server
from tests.fakes.crd_server import Json, Schema

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
BASE = KUBERNETES / "base"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
KUSTOMIZATIONS = sorted(path.parent for path in DEPLOY.rglob("kustomization.yaml"))
MANIFESTS = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")
CRDS = {crd.kind: crd for crd in map(crd_server.load, sorted((DEPLOY / "crds").glob("bgp*.yaml")))}
DECODERS = {
    "BGPCluster": custom.decode_cluster,
    "BGPPeer": custom.decode_peer,
    "BGPPolicy": custom.decode_policy,
    "BGPAdvertisement": custom.decode_advertisement,
    "BGPAddressPool": custom.decode_pool,
}


class Object(NamedTuple):
    """One manifest, and the file that it is in."""

    file: Path
    value: Schema

    @property
    def kind(self) -> str:
        return str(self.value["kind"])

    @property
    def name(self) -> str:
        return str(cast(Schema, self.value["metadata"])["name"])

    def at(self, path: str) -> Json:
        value: Json = self.value
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        return value


@cache
def objects_in(file: Path) -> list[Object]:
    return [Object(file, value) for value in yaml.safe_load_all(file.read_text()) if value]


def rendered(folder: Path) -> Iterator[Object]:
    """What a kustomization brings, without its changes of images."""
    kustomization = cast(Schema, yaml.safe_load((folder / "kustomization.yaml").read_text()))
    for resource in cast("list[str]", kustomization["resources"]):
        path = (folder / resource).resolve()
        yield from rendered(path) if path.is_dir() else objects_in(path)


ALL = [found for file in MANIFESTS for found in objects_in(file)]
WORKLOADS = [found for found in ALL if found.kind in ("DaemonSet", "Deployment")]


def pod_of(workload: Object) -> Schema:
    return cast(Schema, workload.at("spec.template.spec"))


def containers_of(workload: Object) -> list[Schema]:
    pod = pod_of(workload)
    return cast(
        "list[Schema]",
        [*cast("list[Json]", pod.get("initContainers", [])), *cast("list[Json]", pod["containers"])],
    )


# -- kustomizations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_kustomization_names_files_that_exist_and_all_of_them(folder: Path) -> None:
    kustomization = cast(Schema, yaml.safe_load((folder / "kustomization.yaml").read_text()))
    named = cast("list[str]", kustomization["resources"])
    for resource in named:
        path = folder / resource
        assert (path / "kustomization.yaml" if path.is_dir() else path).is_file(), resource
    beside = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert beside <= set(named), "a manifest that nothing installs"
    for generator in cast("list[Schema]", kustomization.get("configMapGenerator", [])):
        assert all((folder / name).is_file() for name in cast("list[str]", generator["files"]))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_has_one_cluster_and_no_object_twice(overlay: str) -> None:
    found = list(rendered(KUBERNETES / "overlays" / overlay))
    keys = [(each.kind, each.name) for each in found]
    assert len(keys) == len(set(keys))
    assert keys.count(("BGPCluster", custom.CLUSTER_NAME)) == 1
    assert {f"{kind}" for kind in CRDS} <= {str(each.at("spec.names.kind")) for each in found}


def test_every_topology_has_an_overlay() -> None:
    topologies = {str(each.at("spec.topology")) for each in ALL if each.kind == "BGPCluster"}
    assert topologies == set(custom.Topology)


@pytest.mark.parametrize(
    "found", ALL, ids=lambda found: f"{found.file.parent.name}-{found.kind}-{found.name}"
)
def test_object_is_named_and_labelled_like_the_others(found: Object) -> None:
    assert re.fullmatch(DNS_SUBDOMAIN, found.name)
    if found.kind in CRDS:
        assert crd_server.admit(CRDS[found.kind], found.value) == []
        DECODERS[found.kind](json.dumps(found.value).encode())
        return
    assert cast(Schema, found.at("metadata.labels"))["app.kubernetes.io/name"] == "podbgp"
    if found.kind not in ("Namespace", "ClusterRole", "ClusterRoleBinding"):
        assert found.at("metadata.namespace") == options.DEFAULT_NAMESPACE


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_examples_name_policies_and_secrets_that_are_explained(overlay: str) -> None:
    found = list(rendered(KUBERNETES / "overlays" / overlay))
    policies = {each.name for each in found if each.kind == "BGPPolicy"}
    for peer in (each for each in found if each.kind == "BGPPeer"):
        named = cast("dict[str, list[str]]", peer.at("spec.policies") or {})
        assert {name for names in named.values() for name in names} <= policies
        if secret := peer.at("spec.passwordSecret"):
            assert f"create secret generic {cast(Schema, secret)['name']}" in peer.file.read_text()


# -- pods ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda found: found.name)
def test_pods_come_up_in_an_empty_cluster(workload: Object) -> None:
    pod = pod_of(workload)
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "Default", "the cluster's DNS is a pod on the network that is not there yet"
    assert str(pod["priorityClassName"]).startswith("system-")
    tolerated = {str(each.get("key")) for each in cast("list[Schema]", pod["tolerations"])}
    assert (
        tolerated == {"None"}
        or {
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/network-unavailable",
            objects.STARTUP_TAINT,
        }
        <= tolerated
    )
    (main,) = cast("list[Schema]", pod["containers"])
    assert {"configMapRef": {"name": "podbgp-api-server", "optional": True}} in cast(
        "list[Json]", main["envFrom"]
    )


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda found: found.name)
def test_containers_have_no_more_rights_than_they_need(workload: Object) -> None:
    for container in containers_of(workload):
        security = cast(Schema, container["securityContext"])
        assert security["readOnlyRootFilesystem"] is True
        assert cast(Schema, container["resources"])["limits"]
        if container["name"] == "sysctls":
            assert security["privileged"] is True
            assert container["args"] == ["sysctls", "--apply"]
            assert "volumeMounts" not in container
            continue
        assert "privileged" not in security
        assert security["allowPrivilegeEscalation"] is False
        capabilities = cast("dict[str, list[str]]", security["capabilities"])
        assert capabilities["drop"] == ["ALL"]
        wanted = {"agent": {"NET_ADMIN", "NET_BIND_SERVICE"}, "reflector": {"NET_BIND_SERVICE"}}
        assert set(capabilities.get("add", [])) == wanted.get(str(container["name"]), set())


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda found: found.name)
def test_probes_ask_where_the_host_settings_let_the_daemon_listen(workload: Object) -> None:
    (main,) = cast("list[Schema]", pod_of(workload)["containers"])
    settings = _settings(workload, main)
    port = int(settings["metrics"]["listen"].rpartition(":")[2])
    for probe, path in (
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ):
        asked = cast(Schema, cast(Schema, main[probe])["httpGet"])
        assert (asked["host"], asked["port"], asked["path"]) == ("127.0.0.1", port, path)
        assert path in metrics_server.PATHS
    ports = {str(each["name"]): each["containerPort"] for each in cast("list[Schema]", main["ports"])}
    assert ports["metrics"] == port
    (service,) = (each for each in ALL if each.kind == "Service" and each.name == f"{workload.name}-metrics")
    assert cast("list[Schema]", service.at("spec.ports"))[0]["port"] == port
    labels = cast(Schema, workload.at("spec.template.metadata.labels"))
    assert service.at("spec.selector") == labels == workload.at("spec.selector.matchLabels")


def _settings(workload: Object, container: Schema) -> dict[str, dict[str, str]]:
    """The host's settings in the file that `--config` names."""
    (path,) = (
        a.removeprefix("--config=") for a in cast("list[str]", container["args"]) if a.startswith("--config=")
    )
    volumes = cast("list[Schema]", pod_of(workload)["volumes"])
    maps = {str(cast(Schema, each["configMap"])["name"]) for each in volumes if "configMap" in each}
    (config_map,) = (each for each in ALL if each.kind == "ConfigMap" and each.name in maps)
    text = str(cast(Schema, config_map.value["data"])[Path(path).name])
    return tomllib.loads(text)


HOST_SETTINGS = [
    (found, name, text)
    for found in ALL
    if found.kind == "ConfigMap"
    for name, text in cast("dict[str, str]", found.value["data"]).items()
]


@pytest.mark.parametrize("setting", HOST_SETTINGS, ids=lambda setting: f"{setting[0].name}-{setting[1]}")
def test_host_settings_are_such_as_a_daemon_takes(setting: tuple[Object, str, str], tmp_path: Path) -> None:
    _, name, text = setting
    file = tmp_path / name
    file.write_text(text)
    config = load_host(str(file), name.removesuffix(".toml"))
    assert config.log_format == "json"
    assert config.metrics_listen is not None


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda found: found.name)
def test_command_line_is_one_that_podbgpd_takes(workload: Object) -> None:
    for container in containers_of(workload):
        name, *arguments = cast("list[str]", container.get("args", [""]))
        if name:
            known = {option for parameter in main.commands[name].params for option in parameter.opts}
            assert {argument.partition("=")[0] for argument in arguments} <= known


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda found: found.name)
def test_variables_are_read_by_the_code_or_the_command_line(workload: Object) -> None:
    options_module = (ROOT / "bgpd/kube/options.py").read_text()
    for container in containers_of(workload):
        for variable in cast("list[Schema]", container.get("env", [])):
            used = (
                f"$({variable['name']})" in str(container["args"])
                or f'"{variable["name"]}"' in options_module
            )
            assert used, variable["name"]


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda found: found.name)
def test_volumes_are_mounted_and_mounts_have_volumes(workload: Object) -> None:
    volumes = {str(each["name"]) for each in cast("list[Schema]", pod_of(workload)["volumes"])}
    mounted = {
        str(mount["name"])
        for container in containers_of(workload)
        for mount in cast("list[Schema]", container.get("volumeMounts", []))
    }
    assert volumes == mounted


def test_two_controllers_or_reflectors_are_never_gone_at_once() -> None:
    budgets = {each.name: each for each in ALL if each.kind == "PodDisruptionBudget"}
    for deployment in (each for each in WORKLOADS if each.kind == "Deployment"):
        budget = budgets.pop(deployment.name)
        assert budget.at("spec.selector") == deployment.at("spec.selector")
        assert cast(int, deployment.at("spec.replicas")) > cast(int, budget.at("spec.maxUnavailable"))
    assert not budgets


def test_agents_are_replaced_one_by_one() -> None:
    (agents,) = (each for each in WORKLOADS if each.kind == "DaemonSet")
    assert agents.at("spec.updateStrategy.rollingUpdate.maxUnavailable") == 1
    assert agents.at("spec.updateStrategy.rollingUpdate.maxSurge") is None  # two would want one port 179


# -- rights -------------------------------------------------------------------------------------------


def rights(account: str) -> dict[str, set[str]]:
    """Verbs by resource, from every role that is bound to an account."""
    found: dict[str, set[str]] = {}
    roles = {(each.kind, each.name): each for each in ALL if each.kind in ("Role", "ClusterRole")}
    for binding in (each for each in ALL if each.kind in ("RoleBinding", "ClusterRoleBinding")):
        subjects = cast("list[Schema]", binding.value["subjects"])
        if account in {str(subject["name"]) for subject in subjects}:
            role = roles[str(binding.at("roleRef.kind")), str(binding.at("roleRef.name"))]
            for rule in cast("list[dict[str, list[str]]]", role.value["rules"]):
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        found.setdefault(f"{group}/{resource}".lstrip("/"), set()).update(rule["verbs"])
    return found


LOOK = {"list", "watch"}
WRITTEN = ("bgpclusters", "bgppeers", "bgppolicies", "bgpadvertisements", "bgpaddresspools")
NEEDED = {
    # tables.py, agent.py, reflector.py (an elected one runs beside the agent), node_marks.py, node_state.py,
    # services and drain.
    "podbgp-agent": {
        "nodes": LOOK | {"get", "patch"},
        "nodes/status": {"patch"},
        "pods": LOOK,
        "services": LOOK,
        "discovery.k8s.io/endpointslices": LOOK,
        "secrets": LOOK,
        "podbgp.dev/bgpclusters": LOOK,
        "podbgp.dev/bgppeers": LOOK,
        "podbgp.dev/bgppolicies": LOOK,
        "podbgp.dev/bgpadvertisements": LOOK,
        "podbgp.dev/bgpaddresspools": LOOK,
        "podbgp.dev/bgpnodestates": {"get", "create"},
        "podbgp.dev/bgpnodestates/status": {"patch"},
    },
    "podbgp-reflector": {
        "nodes": LOOK,
        "secrets": LOOK,
        "podbgp.dev/bgpclusters": LOOK,
        "podbgp.dev/bgppeers": LOOK,
        "podbgp.dev/bgppolicies": LOOK,
        "podbgp.dev/bgpaddresspools": LOOK,
    },
    # status_writer.py reads each object right before it writes the status.
    "podbgp-controller": {
        "nodes": LOOK,
        "services": LOOK | {"get"},
        "services/status": {"patch"},
        "pods": LOOK,
        "secrets": LOOK,
        "coordination.k8s.io/leases": {"get", "create", "update"},
        "events.k8s.io/events": {"create", "patch"},
        "podbgp.dev/bgpnodestates": LOOK,
        **{f"podbgp.dev/{plural}": LOOK | {"get"} for plural in WRITTEN},
        **{f"podbgp.dev/{plural}/status": {"patch"} for plural in WRITTEN},
    },
}


@pytest.mark.parametrize("account", NEEDED)
def test_account_may_do_what_its_code_does_and_nothing_else(account: str) -> None:
    assert rights(account) == NEEDED[account]


def test_every_account_is_used_and_known() -> None:
    accounts = {each.name for each in ALL if each.kind == "ServiceAccount"}
    assert accounts == set(NEEDED) == {str(pod_of(each)["serviceAccountName"]) for each in WORKLOADS}


def test_rights_are_those_of_the_paths_that_the_code_asks_for() -> None:
    followed = [value.path for value in vars(resources).values() if isinstance(value, Resource)]
    followed += [resources.secret("x", "y").path, resources.endpoint_slices("v1").path]
    granted = {name for needed in NEEDED.values() for name, verbs in needed.items() if verbs >= LOOK}
    assert granted == {_resource(path) for path in followed}
    assert _resource(lease.PATH) == "coordination.k8s.io/leases"
    assert _resource("/apis/events.k8s.io/v1/namespaces/default/events") in NEEDED["podbgp-controller"]
    assert events.CONTROLLER.startswith("podbgp.dev/")
    assert objects.STARTUP_TAINT in (BASE / "agent-rbac.yaml").read_text()


def _resource(path: str) -> str:
    group = path.split("/")[2] + "/" if path.startswith("/apis/") else ""
    return group + path.rpartition("/")[2]


# -- monitoring ---------------------------------------------------------------------------------------


def test_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((KUBERNETES / "monitoring/podbgp.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    known = _metrics()
    asked = {name for text in expressions for name in re.findall(r"\b(?:podbgp|process)_\w+", text)}
    assert len(asked) > 15
    assert asked <= known, asked - known


def _metrics() -> set[str]:
    """Names in docs/operations.md, which a test of its own holds to what the daemons export."""
    text = (ROOT / "docs/operations.md").read_text()
    names = set(re.findall(r"^\| `(podbgp_\w+)` \|", text, re.MULTILINE))
    histograms = set(re.findall(r"^\| `(podbgp_\w+)` \| histogram", text, re.MULTILINE))
    return (
        names
        | {f"{name}_bucket" for name in histograms}
        | {"process_resident_memory_bytes", "process_cpu_seconds_total"}
    )


def test_every_daemon_is_scraped_and_none_twice_under_one_name() -> None:
    endpoints = [
        (tuple(sorted(map(str, cast(Schema, monitor.at("spec.selector.matchLabels")).values()))), endpoint)
        for monitor in ALL
        if monitor.kind == "ServiceMonitor"
        for endpoint in cast("list[Schema]", monitor.at("spec.endpoints"))
    ]
    assert [(labels, each.get("path", "/metrics")) for labels, each in endpoints] == [
        (("podbgp",), "/metrics"),
        (("agent", "podbgp"), reflector_metrics.PATH),
    ]
    for _, each in endpoints:
        labels = {str(change["targetLabel"]) for change in cast("list[Schema]", each["relabelings"])}
        assert labels == {"node", "component"}
    beside = _host_settings("reflector.toml")["metrics"]["listen"]
    assert beside.startswith("127.0.0.1:"), "the agent relays it: nobody else needs to reach it"


def _host_settings(name: str) -> dict[str, dict[str, str]]:
    (text,) = (text for found, file, text in HOST_SETTINGS if (found.name, file) == ("podbgp-host", name))
    return tomllib.loads(text)


def test_panels_do_not_overlap_and_have_a_description() -> None:
    dashboard = json.loads((KUBERNETES / "monitoring/podbgp.json").read_text())
    places: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places, panel["title"]
        assert grid["x"] + grid["w"] <= 24
        places |= cells
        assert panel["type"] == "row" or panel["description"]


# -- the image ----------------------------------------------------------------------------------------


def test_image_is_built_from_locked_hashes_and_not_run_as_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    joined = text.replace("\\\n", " ")
    installs = re.findall(r"pip [^&]*install[^&]*", joined)
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["65532:65532"]
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *sources, _ = line.split()
        ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, f"{source} is not sent to the builder"


def test_manifests_and_image_are_of_one_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for workload in WORKLOADS:
        assert {str(each["image"]) for each in containers_of(workload)} == {f"podbgp:{version}"}


def test_plugins_that_a_host_has_stay_as_they_are(tmp_path: Path) -> None:
    script = (DEPLOY / "install-cni-plugins").read_text()
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name in ("ptp", "bridge", "host-local", "loopback", "portmap", "bandwidth"):
        (source / name).write_text(f"ours: {name}")
    (target / "ptp").write_text("the host's")
    done = subprocess.run(
        ["sh", "-c", script.replace("/usr/lib/cni", str(source)), "install", str(target)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "ptp: there already" in done.stdout
    assert (target / "ptp").read_text() == "the host's"
    assert (target / "bridge").read_text() == "ours: bridge"
    assert (target / "bridge").stat().st_mode & 0o777 == 0o755
    assert {path.name for path in target.iterdir()} == {path.name for path in source.iterdir()}
