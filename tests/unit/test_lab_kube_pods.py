"""What the lab's stand-in for a kubelet reads of pods; their objects may come from anybody."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from bgpd.lab.kube_pods import (
    DNS_IMAGE,
    ECHO_IMAGE,
    MOST_ARGUMENT,
    MOST_ARGUMENTS,
    MOST_GRACE,
    LabPod,
    read_pods,
    running_status,
)

Json = dict[str, object]
PORTS = [{"containerPort": 8080, "hostPort": 80}, {"containerPort": 53, "protocol": "UDP"}]
DELETED: Json = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


def wire(metadata: Json | None = None, spec: Json | None = None, status: Json | None = None) -> Json:
    container = {"name": "main", "image": ECHO_IMAGE, "ports": PORTS}
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "abcd-1", **(metadata or {})},
        "spec": {"containers": [container], **(spec or {})},
        "status": {"phase": "Pending", **(status or {})},
    }


def read(*pods: object) -> list[LabPod]:
    found, version = read_pods(json.dumps({"metadata": {"resourceVersion": "7"}, "items": pods}).encode())
    assert version == "7"
    return list(found.values())


def test_a_pod_is_read_with_its_ports() -> None:
    (pod,) = read(wire())
    assert pod.command_line == ["web", "8080/TCP", "53/UDP"]
    sandbox = pod.sandbox("lab-3f9c-node1")
    assert (sandbox.netns, sandbox.container) == ("lab-3f9c-node1-web-abcd", "abcd1")
    assert sandbox.ports == ({"hostPort": 80, "containerPort": 8080, "protocol": "tcp"},)
    assert pod.path == "/api/v1/namespaces/default/pods/web"


def test_arguments_are_data_and_few() -> None:
    container = {"name": "main", "image": DNS_IMAGE, "args": ["x" * 1000, *"y" * 100]}
    (pod,) = read(wire(spec={"containers": [container]}))
    name, dashes, *arguments = pod.command_line
    assert (name, dashes, len(arguments)) == ("web", "--", MOST_ARGUMENTS)
    assert arguments[0] == "x" * MOST_ARGUMENT


def test_two_pods_of_one_name_never_share_a_namespace() -> None:
    before, after = read(wire(), wire({"uid": "ef01-2"}))
    assert before.sandbox("lab").netns != after.sandbox("lab").netns


@pytest.mark.parametrize(
    "stranger",
    [
        wire({"name": "../../etc"}),
        wire({"uid": "a/b"}),
        wire({"namespace": "-x"}),
        wire(spec={"hostNetwork": True}),
        wire(spec={"containers": []}),
        wire(spec={"containers": "none"}),
        {"metadata": {"name": 7}},
        "no object",
    ],
)
def test_one_that_is_not_for_the_lab_hides_no_other(stranger: object) -> None:
    assert [pod.name for pod in read(stranger, wire())] == ["web"]


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (wire(), (False, False, 30.0)),
        (wire({**DELETED, "deletionGracePeriodSeconds": 2}), (True, False, 2.0)),
        (wire({**DELETED, "deletionGracePeriodSeconds": 9e9}), (True, False, MOST_GRACE)),
        (wire(status={"phase": "Succeeded"}), (False, True, 30.0)),
    ],
)
def test_the_end_of_a_pod_is_seen(pod: Json, expected: tuple[bool, bool, float]) -> None:
    (found,) = read(pod)
    assert (found.deleting, found.over, found.grace) == expected


@pytest.mark.parametrize(("ready", "value"), [(True, "True"), (False, "False")])
def test_a_running_pod_is_reported_with_all_its_addresses(ready: bool, value: str) -> None:
    (pod,) = read(wire())
    addresses = [ip_address("10.244.1.2"), ip_address("fd00:10:244:1::2")]
    status = running_status(pod, [ip_address("192.0.2.11")], addresses, ready=ready)["status"]
    assert isinstance(status, dict)
    assert (status["hostIP"], status["podIP"]) == ("192.0.2.11", "10.244.1.2")
    assert [each["ip"] for each in status["podIPs"]] == ["10.244.1.2", "fd00:10:244:1::2"]
    conditions = {each["type"]: each["status"] for each in status["conditions"]}
    assert conditions == {"Initialized": "True", "Ready": value, "ContainersReady": value}
