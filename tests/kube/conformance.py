"""What podbgp relies on an API server for, as checks that every API server must pass.

The same checks run against the stand-in (tests/e2e), the real kube-apiserver, and any cluster that is named
by a kubeconfig (tests/kube): where they differ, the stand-in is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bgpd.kube.client import Conflict, Gone, Invalid, KubeError, NotFound
from bgpd.kube.errors import error_for
from bgpd.kube.watch import Batch, Resource, Watch
from tests.kube.api_servers import (
    LEASES,
    MAPS,
    NODES,
    PODS,
    SERVICES,
    TAINT,
    ApiServer,
    Json,
    at,
    eventually,
    load,
)

CHECKS: list[Callable[[ApiServer], None]] = []


def check(function: Callable[[ApiServer], None]) -> Callable[[ApiServer], None]:
    CHECKS.append(function)
    return function


def ready(name: str, status: str) -> dict[str, object]:
    return {"type": name, "status": status, "reason": "Said", "message": "so"}


@check
def says_that_it_is_ready_and_what_it_serves(server: ApiServer) -> None:
    assert server.client.text("/readyz") == "ok"
    assert at(load(server.client.get("/version")), "major") == "1"
    resources = at(load(server.client.get("/api/v1")), "resources")
    assert isinstance(resources, list)
    assert {"nodes", "nodes/status", "services", "pods"} <= {at(one, "name") for one in resources}
    assert at(load(server.client.get("/apis/coordination.k8s.io")), "kind") == "APIGroup"


@check
def creates_a_name_once(server: ApiServer) -> None:
    made = server.create(MAPS, "once", data={"a": "1"})
    assert at(made, "metadata", "uid")
    assert at(made, "metadata", "creationTimestamp")
    with pytest.raises(Conflict) as refusal:
        server.create(MAPS, "once")
    assert refusal.value.reason == "AlreadyExists"


@check
def refuses_a_name_that_is_none(server: ApiServer) -> None:
    with pytest.raises(Invalid):
        server.client.create(MAPS, {"metadata": {"name": "Not_a_name"}})


@check
def finds_nothing_where_nothing_is(server: ApiServer) -> None:
    missing = (
        f"{NODES}/{server.name('none')}", "/apis/podbgp.example/v1/nothings",
        "/api/v1/nothings",
    )  # fmt: skip
    for path in missing:
        with pytest.raises(NotFound):
            server.client.get(path)
    with pytest.raises(NotFound):
        server.client.create(
            f"/api/v1/namespaces/{server.name('none')}/configmaps", {"metadata": {"name": "a"}}
        )


@check
def takes_a_replacement_of_the_version_that_is_there(server: ApiServer) -> None:
    first = server.create(MAPS, "put", data={"a": "1"})
    path = f"{MAPS}/{server.name('put')}"
    second = load(server.client.replace(path, {**first, "data": {"a": "2"}}))
    assert at(second, "data", "a") == "2"
    assert at(second, "metadata", "resourceVersion") != at(first, "metadata", "resourceVersion")
    with pytest.raises(Conflict) as refusal:
        server.client.replace(path, {**first, "data": {"a": "3"}})
    assert refusal.value.reason == "Conflict"


@check
def gives_one_of_two_the_lease(server: ApiServer) -> None:
    free = server.create(LEASES, "lease", spec={"leaseDurationSeconds": 15})
    path = f"{LEASES}/{server.name('lease')}"

    def take(holder: str) -> bytes:
        spec = {"leaseDurationSeconds": 15, "holderIdentity": holder}
        return server.client.replace(path, {**free, "spec": spec})

    take("first")
    with pytest.raises(Conflict):
        take("second")
    assert at(server.get(LEASES, "lease"), "spec", "holderIdentity") == "first"


@check
def writes_nothing_where_nothing_changes(server: ApiServer) -> None:
    made = server.create(MAPS, "same", data={"a": "1"})
    patched = load(server.client.patch(f"{MAPS}/{server.name('same')}", {"data": {"a": "1"}}))
    assert at(patched, "metadata", "resourceVersion") == at(made, "metadata", "resourceVersion")


@check
def writes_nothing_in_a_dry_run(server: ApiServer) -> None:
    body = {"metadata": {"name": server.name("dry")}}
    server.client.create(MAPS, body, dry_run=True)
    with pytest.raises(NotFound):
        server.get(MAPS, "dry")
    server.create(MAPS, "wet", data={"a": "1"})
    path = f"{MAPS}/{server.name('wet')}"
    assert at(load(server.client.patch(path, {"data": {"a": "2"}}, dry_run=True)), "data", "a") == "2"
    server.client.delete(path, dry_run=True)
    assert at(server.get(MAPS, "wet"), "data", "a") == "1"


@check
def merges_and_removes_by_merge_patch(server: ApiServer) -> None:
    server.create(MAPS, "merge", data={"a": "1", "b": "2"})
    path = f"{MAPS}/{server.name('merge')}"
    patched = load(server.client.patch(path, {"data": {"a": None, "c": "3"}}, "merge"))
    assert at(patched, "data") == {"b": "2", "c": "3"}


@check
def merges_conditions_by_type_and_replaces_taints(server: ApiServer) -> None:
    server.node("strategic")
    path = f"{NODES}/{server.name('strategic')}"
    for condition in (ready("A", "True"), ready("B", "True"), ready("A", "False")):
        patch = {"status": {"conditions": [condition]}}
        server.client.patch(path, patch, "strategic", subresource="status")
    conditions = at(server.get(NODES, "strategic"), "status", "conditions")
    assert isinstance(conditions, list)
    said = {at(one, "type"): at(one, "status") for one in conditions if at(one, "type") in ("A", "B")}
    assert said == {"A": "False", "B": "True"}
    startup = {"key": "podbgp.dev/not-ready", "effect": "NoSchedule"}
    server.client.patch(path, {"spec": {"taints": [startup]}}, "strategic")
    assert "podbgp.dev/not-ready" in taints(server, "strategic")
    assert TAINT["key"] not in taints(server, "strategic")


def taints(server: ApiServer, name: str) -> set[object]:
    found = at(server.get(NODES, name), "spec", "taints")
    return {at(taint, "key") for taint in found} if isinstance(found, list) else set()


@check
def patches_by_json_patch_if_its_tests_hold(server: ApiServer) -> None:
    server.create(MAPS, "json", data={"a": "1"})
    path = f"{MAPS}/{server.name('json')}"
    change = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "replace", "path": "/data/a", "value": "2"},
        {"op": "add", "path": "/metadata/annotations", "value": {"podbgp.dev/x": "y"}},
    ]
    patched = load(server.client.patch(path, change, "json"))
    assert (at(patched, "data", "a"), at(patched, "metadata", "annotations", "podbgp.dev/x")) == ("2", "y")
    with pytest.raises(Invalid):
        server.client.patch(path, change, "json")
    assert at(server.get(MAPS, "json"), "data", "a") == "2"


@check
def keeps_status_and_spec_apart(server: ApiServer) -> None:
    server.create(SERVICES, "status", spec={"type": "LoadBalancer", "ports": [{"port": 80}]})
    path = f"{SERVICES}/{server.name('status')}"
    ingress = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}
    server.client.patch(path, {"status": ingress})
    assert not at(server.get(SERVICES, "status"), "status", "loadBalancer")
    both = {"status": ingress, "spec": {"loadBalancerIP": "192.0.2.9"}}
    server.client.patch(path, both, subresource="status")
    found = server.get(SERVICES, "status")
    assert at(found, "status") == ingress
    assert at(found, "spec", "loadBalancerIP") is None


@check
def gives_services_addresses_and_ports(server: ApiServer) -> None:
    made = server.create(SERVICES, "ports", spec={"type": "NodePort", "ports": [{"port": 80}]})
    ports = at(made, "spec", "ports")
    assert isinstance(ports, list)
    assert at(ports[0], "protocol") == "TCP"
    assert isinstance(at(ports[0], "nodePort"), int)
    assert at(made, "spec", "clusterIP")
    with pytest.raises(Invalid):
        server.client.patch(f"{SERVICES}/{server.name('ports')}", {"spec": {"clusterIP": "10.96.250.250"}})


@check
def never_changes_pod_cidrs(server: ApiServer) -> None:
    server.node("cidr", spec={"podCIDR": "10.200.1.0/24", "podCIDRs": ["10.200.1.0/24"]})
    patch = {"spec": {"podCIDR": "10.200.2.0/24", "podCIDRs": ["10.200.2.0/24"]}}
    with pytest.raises(Invalid):
        server.client.patch(f"{NODES}/{server.name('cidr')}", patch)


@check
def keeps_owners(server: ApiServer) -> None:
    node = server.node("owner")
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": server.name("owner"),
        "uid": at(node, "metadata", "uid"),
    }
    server.create(MAPS, "owned", metadata={"ownerReferences": [owner]})
    assert at(server.get(MAPS, "owned"), "metadata", "ownerReferences") == [owner]


@check
def deletes_only_the_object_that_was_meant(server: ApiServer) -> None:
    first = str(at(server.create(MAPS, "again"), "metadata", "uid"))
    path = f"{MAPS}/{server.name('again')}"
    server.client.delete(path, uid=first)
    second = str(at(server.create(MAPS, "again"), "metadata", "uid"))
    assert first != second
    with pytest.raises(Conflict):
        server.client.delete(path, uid=first)
    assert at(server.get(MAPS, "again"), "metadata", "uid") == second


@check
def waits_for_finalizers(server: ApiServer) -> None:
    server.create(MAPS, "final", metadata={"finalizers": ["podbgp.dev/hold"]})
    path = f"{MAPS}/{server.name('final')}"
    server.client.delete(path)
    assert at(server.get(MAPS, "final"), "metadata", "deletionTimestamp")
    server.client.patch(path, {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        server.get(MAPS, "final")


@check
def keeps_a_pod_until_its_kubelet_lets_go(server: ApiServer) -> None:
    spec = {
        "nodeName": server.name("nowhere"), "containers": [{"name": "c", "image": "registry.invalid/none"}],
        "automountServiceAccountToken": False, "tolerations": [{"operator": "Exists"}],
    }  # fmt: skip
    server.node("nowhere")
    server.create("/api/v1/namespaces/default/serviceaccounts", "account")
    server.create(PODS, "pod", spec={**spec, "serviceAccountName": server.name("account")})
    path = f"{PODS}/{server.name('pod')}"
    server.client.delete(path)
    assert at(server.get(PODS, "pod"), "metadata", "deletionTimestamp")
    server.client.delete(path, grace=0)
    with pytest.raises(NotFound):
        server.get(PODS, "pod")


@check
def lists_in_pages_of_one_version(server: ApiServer) -> None:
    for number in range(5):
        server.create(MAPS, f"page{number}")
    query = {"labelSelector": f"podbgp.dev/run={server.prefix}"}
    pages = [load(page.body) for page in server.client.pages(MAPS, query, limit=2)]
    assert [len(items(page)) for page in pages] == [2, 2, 1]
    assert {at(page, "kind") for page in pages} == {"ConfigMapList"}
    assert len({at(page, "metadata", "resourceVersion") for page in pages}) == 1
    names = [at(item, "metadata", "name") for page in pages for item in items(page)]
    assert names == [server.name(f"page{number}") for number in range(5)]


def items(page: dict[str, object]) -> list[object]:
    found = at(page, "items")
    assert isinstance(found, list)
    return found


@check
def hides_later_changes_from_later_pages(server: ApiServer) -> None:
    for number in range(3):
        server.create(MAPS, f"frozen{number}", data={"a": "1"})
    query = {"labelSelector": f"podbgp.dev/run={server.prefix}"}
    pages = server.client.pages(MAPS, query, limit=1)
    next(pages)
    server.client.patch(f"{MAPS}/{server.name('frozen2')}", {"data": {"a": "2"}})
    server.client.delete(f"{MAPS}/{server.name('frozen1')}")
    rest = [items(load(page.body))[0] for page in pages]
    assert [(at(one, "metadata", "name"), at(one, "data", "a")) for one in rest] == [
        (server.name("frozen1"), "1"), (server.name("frozen2"), "1"),
    ]  # fmt: skip


@check
def refuses_a_continue_token_that_is_none(server: ApiServer) -> None:
    with pytest.raises(KubeError) as refusal:
        server.client.get(MAPS, limit=1, **{"continue": "!"})
    assert refusal.value.status in (400, 410)


@check
def selects_by_labels(server: ApiServer) -> None:
    for name, labels in {"a": {"x": "1"}, "b": {"x": "2", "y": "1"}, "c": {}}.items():
        server.create(MAPS, name, labels=labels)
    table = {
        "x=1": ["a"], "x==2": ["b"], "x!=1": ["b", "c"], "x in (1,2)": ["a", "b"], "x notin (1)": ["b", "c"],
        "x": ["a", "b"], "!x": ["c"], "x,y=1": ["b"], "x in (3)": [],
    }  # fmt: skip
    assert {selector: server.listed(MAPS, labels=selector) for selector in table} == table


@check
def selects_by_fields(server: ApiServer) -> None:
    for name in ("one", "two"):
        server.node(name)
    assert server.listed(NODES, fieldSelector=f"metadata.name={server.name('one')}") == ["one"]
    assert server.listed(NODES, fieldSelector=f"metadata.name!={server.name('one')}") == ["two"]
    assert server.listed("/api/v1/pods", fieldSelector=f"spec.nodeName={server.name('one')}") == []


@check
def tells_a_watcher_what_happened_since(server: ApiServer) -> None:
    version = server.version(MAPS)
    server.create(MAPS, "w", data={"a": "1"})
    path = f"{MAPS}/{server.name('w')}"
    server.client.patch(path, {"data": {"a": "2"}})

    def later() -> None:
        server.client.delete(path)
        server.create(MAPS, "w", data={"a": "2"})

    found = server.events(MAPS, 4, later, resourceVersion=version)
    assert [event.type for event in found] == ["ADDED", "MODIFIED", "DELETED", "ADDED"]
    versions = [int(str(event.get("metadata", "resourceVersion"))) for event in found]
    assert versions == sorted(set(versions))
    assert versions[0] > int(version)
    assert (
        found[2].get("metadata", "uid") == found[0].get("metadata", "uid") != found[3].get("metadata", "uid")
    )
    assert {event.get("kind") for event in found} == {"ConfigMap"}


@check
def tells_a_watcher_what_enters_and_leaves_its_selection(server: ApiServer) -> None:
    version = server.version(MAPS)
    server.create(MAPS, "s", labels={"in": "yes"})
    path = f"{MAPS}/{server.name('s')}"
    for value in ("no", "yes"):
        server.client.patch(path, {"metadata": {"labels": {"in": value}}})
    selector = f"podbgp.dev/run={server.prefix},in=yes"
    found = server.events(MAPS, 3, resourceVersion=version, labelSelector=selector)
    assert [event.type for event in found] == ["ADDED", "DELETED", "ADDED"]


@check
def begins_a_watch_without_version_with_what_is_there(server: ApiServer) -> None:
    server.create(MAPS, "there")
    found = server.events(MAPS, 1)
    assert (found[0].type, found[0].get("metadata", "name")) == ("ADDED", server.name("there"))


@check
def watches_one_object_by_its_name(server: ApiServer) -> None:
    for name in ("mine", "other"):
        server.node(name)
    version = server.version(NODES)
    for name in ("other", "mine"):
        server.client.patch(f"{NODES}/{server.name(name)}", {"metadata": {"labels": {"x": "1"}}})
    selector = f"metadata.name={server.name('mine')}"
    found = server.events(NODES, 1, resourceVersion=version, fieldSelector=selector)
    assert found[0].get("metadata", "name") == server.name("mine")


@check
def moves_a_watcher_on_by_bookmarks(server: ApiServer) -> None:
    """A bookmark comes before the watch ends, if anything of the kind has changed (1.20), selected or not.

    The real server has two seconds for it, which it misses when it has no CPU, and sometimes uses for two.
    """
    for attempt in range(4):
        version = server.version(MAPS)
        marks = during_a_change_of_another(server, version, f"unselected{attempt}")
        if marks:
            break
    assert len(marks) in (1, 2), marks
    assert {(at(mark, "type"), at(mark, "object", "kind")) for mark in marks} == {("BOOKMARK", "ConfigMap")}
    assert int(str(at(marks[0], "object", "metadata", "resourceVersion"))) > int(version)


def during_a_change_of_another(server: ApiServer, version: str, name: str) -> list[Json]:
    """What a short watch that selects nothing says while something else is created."""
    query: dict[str, str | int | bool] = {"resourceVersion": version, "allowWatchBookmarks": True}
    stream = server.client.stream(MAPS, {**query, "labelSelector": "podbgp.dev/run=nobody"}, timeout=4)
    next(stream)
    server.create(MAPS, name)
    return [load(line) for lines in stream for line in lines]


@check
def ends_a_watch_in_good_order_when_its_time_is_over(server: ApiServer) -> None:
    version = server.version(MAPS)
    selector = {"resourceVersion": version, "labelSelector": "podbgp.dev/run=nobody"}
    assert list(server.client.watch(MAPS, selector, timeout=1)) == []


@check
def says_gone_where_history_is_forgotten(server: ApiServer) -> None:
    """As the answer or inside the stream: both are seen in the wild."""
    server.create(MAPS, "old")
    server.forget_history()
    with pytest.raises(Gone):
        follow(server, "1")


def follow(server: ApiServer, version: str) -> None:
    """Watch from a version; raises what the server says about it."""
    for line in server.client.watch(MAPS, {"resourceVersion": version}, timeout=5):
        event = load(line)
        assert at(event, "type") == "ERROR"
        assert at(event, "object", "kind") == "Status"
        code = at(event, "object", "code")
        assert isinstance(code, int)
        raise error_for(code, str(at(event, "object", "reason")), "in the stream")


@check
def takes_events_about_an_object(server: ApiServer) -> None:
    node = server.node("about")
    involved = {
        "kind": "Node",
        "name": server.name("about"),
        "uid": at(node, "metadata", "uid"),
        "apiVersion": "v1",
    }
    path = "/api/v1/namespaces/default/events"
    server.create(
        path, "event", involvedObject=involved, reason="Tried", message="to say something", type="Warning",
        source={"component": "podbgp"}, count=1,
    )  # fmt: skip
    assert server.listed(path, fieldSelector=f"involvedObject.name={server.name('about')}") == ["event"]


@check
def serves_a_kind_that_is_defined(server: ApiServer) -> None:
    path, group = define_widgets(server)
    made = server.create(path, "w", **widget(group, size=1, unknown="pruned"), status={"seen": 1})
    assert at(made, "spec") == {"size": 1, "mode": "Plain"}
    assert "status" not in made
    assert at(made, "metadata", "generation") == 1
    mine = f"{path}/{server.name('w')}"
    with pytest.raises(KubeError) as refusal:
        server.client.patch(mine, {"spec": {"size": 2}}, "strategic")
    assert refusal.value.status == 415
    status = load(
        server.client.patch(mine, {"status": {"seen": 2}, "spec": {"size": 9}}, subresource="status")
    )
    assert (at(status, "status", "seen"), at(status, "spec", "size")) == (2, 1)
    assert at(status, "metadata", "generation") == 1
    spec = load(server.client.patch(mine, {"status": {"seen": 3}, "spec": {"size": 2}}))
    assert (at(spec, "status", "seen"), at(spec, "spec", "size")) == (2, 2)
    assert at(spec, "metadata", "generation") == 2
    metadata = {"name": server.name("w")}
    with pytest.raises(Invalid):
        server.client.replace(mine, {**widget(group, size=3), "metadata": metadata})
    listed = load(server.client.get(path))
    assert at(listed, "kind") == "WidgetList"
    assert {at(item, "kind") for item in items(listed)} == {"Widget"}


@check
def refuses_what_a_schema_refuses(server: ApiServer) -> None:
    path, group = define_widgets(server)
    bad: list[dict[str, object]] = [
        {}, {"size": "1"}, {"size": 0}, {"size": 11}, {"size": 1, "mode": "Fancy"},
        {"size": 1, "names": ["A"]}, {"size": 1, "names": ["a", "b", "c"]}, {"size": 1, "names": "a"},
        {"size": 1, "names": [1]},
    ]  # fmt: skip
    for spec in bad:
        with pytest.raises(Invalid) as refusal:
            server.client.create(path, {**widget(group, **spec), "metadata": {"name": server.name("bad")}})
        assert refusal.value.status == 422
    server.create(path, "good", **widget(group, size=10, mode="Striped", names=["a", "b"]))


WIDGET_SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object", "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 10},
                "mode": {"type": "string", "enum": ["Plain", "Striped"], "default": "Plain"},
                "names": {"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^[a-z]+$"}},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}  # fmt: skip
WIDGETS = "conformance.podbgp.dev"


def define_widgets(server: ApiServer) -> tuple[str, str]:
    """Define the kind Widget in a group of this check's own; (the path of its collection, the group)."""
    group = f"{server.prefix}.{WIDGETS}"
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    version = {
        "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": WIDGET_SCHEMA},
    }  # fmt: skip
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    spec = {"group": group, "scope": "Cluster", "names": names, "versions": [version]}
    server.client.create(definitions, {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"}, "spec": spec,
    })  # fmt: skip
    server.made.append(f"{definitions}/widgets.{group}")
    path = f"/apis/{group}/v1/widgets"
    assert eventually(lambda: bool(server.client.get(path)))
    return path, group


def widget(group: str, **spec: object) -> dict[str, object]:
    return {"apiVersion": f"{group}/v1", "kind": "Widget", "spec": spec}


@check
def keeps_our_watch_up_to_date(server: ApiServer) -> None:
    """The part that podbgp watches with, as a whole."""
    heard: list[Batch[str]] = []
    label = f"podbgp.dev/run={server.prefix}"
    resource = Resource(MAPS, "ConfigMap", data_of, label_selector=label)
    server.create(MAPS, "a", data={"v": "1"})
    watch = Watch(server.client, resource, heard.append)
    watch.start()
    try:
        assert eventually(lambda: heard == [Batch(("1",), (), synced=True)])
        server.client.patch(f"{MAPS}/{server.name('a')}", {"metadata": {"annotations": {"beat": "1"}}})
        server.client.patch(f"{MAPS}/{server.name('a')}", {"data": {"v": "2"}})
        assert eventually(lambda: heard[1:] == [Batch(("2",))])
        server.client.delete(f"{MAPS}/{server.name('a')}")
        server.create(MAPS, "a", data={"v": "2"})
        assert eventually(lambda: sum((batch.changed for batch in heard[2:]), ()) == ("2",))
        assert sum((batch.deleted for batch in heard[2:]), ()) == ("2",)
        assert watch.status().error == ""
    finally:
        watch.stop()


def data_of(body: bytes) -> str:
    return str(at(load(body), "data", "v"))
