"""The lab runs CNI plugins as a container runtime does; those here only write down what they are asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bgpd.lab.kube_cni import CniError, CniRuntime, Sandbox, find_configuration

RECORDER = """#!/bin/sh
input=$(cat)
printf '{{"plugin": "{name}", "command": "%s", "netns": "%s", "args": "%s", "input": %s}}\\n' \
    "$CNI_COMMAND" "$CNI_NETNS" "$CNI_ARGS" "$input" >>"{log}"
{end}
"""
SUCCEED = """[ "$CNI_COMMAND" = DEL ] || printf '{result}'"""
FAIL = """[ "$CNI_COMMAND" = DEL ] && exit
printf '{{"code": 7, "msg": "no room", "details": "all addresses are taken"}}'; exit 1"""
WIRED = {
    "cniVersion": "0.4.0",
    "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/lab-web"}],
    "ips": [{"version": "4", "address": "10.244.1.2/24", "interface": 1}],
}
MAPPED = {**WIRED, "dns": {"domain": "mapped"}}
POD = Sandbox("c0ffee", "lab-web", "default", "web", ({"hostPort": 80, "containerPort": 8080},))

Json = dict[str, object]
Calls = Callable[[], list[Json]]


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    """What the plugins were asked, in order."""
    log = tmp_path / "calls"
    log.touch()
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def runtime(folder: Path, *plugins: Json, last_fails: bool = False) -> CniRuntime:
    """Plugins that answer, the first as one that wires, the second as one that changes the result."""
    programs, configuration = folder / "bin", folder / "net.d"
    programs.mkdir()
    configuration.mkdir()
    for index, plugin in enumerate(plugins):
        fails = last_fails and index == len(plugins) - 1
        end = FAIL.format() if fails else SUCCEED.format(result=json.dumps(MAPPED if index else WIRED))
        program = programs / str(plugin["type"])
        program.write_text(RECORDER.format(name=plugin["type"], log=folder / "calls", end=end))
        program.chmod(0o755)
    content = {"cniVersion": "0.4.0", "name": "podbgp", "plugins": plugins}
    (configuration / "10-podbgp.conflist").write_text(json.dumps(content))
    return CniRuntime(configuration, folder / "results", programs)


WIRE: Json = {"type": "wire", "mtu": 1500}
MAP: Json = {"type": "map", "capabilities": {"portMappings": True}}


def test_a_pod_is_wired_by_one_plugin_after_the_other(tmp_path: Path, calls: Calls) -> None:
    addresses = runtime(tmp_path, WIRE, MAP).add(POD)
    first, second = calls()
    assert [str(address) for address in addresses] == ["10.244.1.2"]
    assert (first["command"], first["plugin"], first["netns"]) == ("ADD", "wire", "/run/netns/lab-web")
    assert "K8S_POD_NAME=web" in str(first["args"])
    assert first["input"] == {"type": "wire", "mtu": 1500, "name": "podbgp", "cniVersion": "0.4.0"}
    assert second["input"] == {
        "type": "map",
        "name": "podbgp",
        "cniVersion": "0.4.0",
        "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080}]},
        "prevResult": WIRED,
    }


def test_it_is_unwired_backwards_with_what_it_was_wired_with(tmp_path: Path, calls: Calls) -> None:
    wiring = runtime(tmp_path, WIRE, MAP)
    wiring.add(POD)
    (tmp_path / "net.d" / "10-podbgp.conflist").unlink()
    restarted = CniRuntime(tmp_path / "net.d", tmp_path / "results", tmp_path / "bin")
    assert [str(address) for address in restarted.addresses(POD)] == ["10.244.1.2"]
    restarted.delete(POD)
    deleted = calls()[2:]
    assert [(call["command"], call["plugin"]) for call in deleted] == [("DEL", "map"), ("DEL", "wire")]
    assert all(isinstance(call["input"], dict) and call["input"]["prevResult"] == MAPPED for call in deleted)
    restarted.delete(POD)
    assert len(calls()) == 4
    assert restarted.addresses(POD) == ()


def test_a_plugin_that_fails_leaves_nothing_wired(tmp_path: Path, calls: Calls) -> None:
    wiring = runtime(tmp_path, WIRE, MAP, last_fails=True)
    with pytest.raises(CniError, match=r"ADD of map for web: no room all addresses are taken \(code 7\)"):
        wiring.add(POD)
    assert [(call["command"], call["plugin"]) for call in calls()] == [
        ("ADD", "wire"), ("ADD", "map"), ("DEL", "map"), ("DEL", "wire"),
    ]  # fmt: skip
    assert wiring.addresses(POD) == ()


@pytest.mark.parametrize(
    ("plugin", "complaint"),
    [
        ({"type": "../../bin/sh"}, "is no name of a program"),
        ({}, "is no name of a program"),
        ({"type": "ptp", "ipam": {"type": "host-local"}}, "host-local needs a dataDir"),
    ],
)
def test_a_configuration_that_can_not_work_here_is_refused(
    tmp_path: Path, plugin: Json, complaint: str
) -> None:
    configuration = tmp_path / "net.d"
    configuration.mkdir()
    content = {"cniVersion": "0.4.0", "name": "podbgp", "plugins": [plugin]}
    (configuration / "10-podbgp.conflist").write_text(json.dumps(content))
    with pytest.raises(CniError, match=complaint):
        CniRuntime(configuration, tmp_path / "results").add(POD)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ([], None),
        (["10-podbgp.conflist"], "10-podbgp.conflist"),
        (["10-podbgp.conflist", "05-other.conf"], "05-other.conf"),
        ([".10-podbgp.conflist.new", "README"], None),
        ([".05-hidden.conflist", "20-late.json"], "20-late.json"),
    ],
)
def test_the_first_configuration_wins(tmp_path: Path, names: list[str], taken: str | None) -> None:
    for name in names:
        (tmp_path / name).touch()
    found = find_configuration(tmp_path)
    assert (found and found.name) == taken
    assert CniRuntime(tmp_path, tmp_path).ready == (taken is not None)


def test_a_node_without_a_configuration_wires_nothing(tmp_path: Path) -> None:
    with pytest.raises(CniError, match="the node is not ready"):
        CniRuntime(tmp_path / "missing", tmp_path).add(POD)
