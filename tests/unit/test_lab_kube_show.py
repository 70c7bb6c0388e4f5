"""What the Kubernetes lab shows, and how it judges: kubectl's columns, and connections that a router tore."""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address

import pytest

from bgpd.lab.command import LabError
from bgpd.lab.kube_dialer import Dialled
from bgpd.lab.kube_drain_story import moments, torn
from bgpd.lab.kube_table import cell, columns, lines, table
from bgpd.lab.probe import RouteEvent

CLUSTER = {
    "metadata": {"name": "default"},
    "spec": {"asn": 65000, "topology": "reflector"},
    "status": {
        "nodes": 3,
        "reflectors": [{"node": "node1"}, {"node": "node3"}],
        "conditions": [
            {"type": "Accepted", "status": "True"},
            {"type": "ReflectorsReady", "status": "False"},
        ],
    },
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".spec.asn", "65000"),
        (".status.reflectors[*].node", "node1 node3"),
        ('.status.conditions[?(@.type=="Accepted")].status', "True"),
        ('.status.conditions[?(@.type=="Nonsense")].status', ""),
        (".status.missing.deeper", ""),
        (".spec[*]", ""),
    ],
)
def test_a_cell_is_what_kubectl_prints(path: str, expected: str) -> None:
    assert cell(CLUSTER, path) == expected


def test_a_list_is_printed_as_json() -> None:
    assert cell({"status": {"podCIDRs": ["10.244.1.0/24"]}}, ".status.podCIDRs") == '["10.244.1.0/24"]'


def test_a_path_that_no_column_has_is_refused() -> None:
    with pytest.raises(LabError, match=r"\.\.deep"):
        cell(CLUSTER, "..deep")


def test_the_columns_are_those_of_the_definition() -> None:
    rows = table("bgpclusters", [CLUSTER])
    assert rows[0] == ["NAME", "AS", "TOPOLOGY", "NODES", "ACCEPTED", "REFLECTING"]
    assert rows[1] == ["default", "65000", "reflector", "3", "True", "False"]
    assert lines(rows)[1] == "default   65000   reflector   3       True       False"
    assert "Ready" in [name for name, _ in columns("bgpnodestates")]


AT = "2026-11-25T10:00:00.500000"
CHANGE = datetime.fromisoformat(AT).timestamp()


def test_only_changes_of_the_very_address_count() -> None:
    events = [
        RouteEvent(AT, False, "203.0.113.1 nhid 20 via 192.0.2.11 dev fabric0"),
        RouteEvent(AT, False, "203.0.113.10 nhid 20 via 192.0.2.11 dev fabric0"),
        RouteEvent(AT, True, "2001:db8:113::1 nhid 21 via 2001:db8::11 dev fabric0"),
    ]
    assert moments(events, ip_address("203.0.113.1")) == [CHANGE]
    assert moments(events, ip_address("2001:db8:113::1")) == [CHANGE]
    assert moments(events, ip_address("203.0.113.2")) == []


@pytest.mark.parametrize(
    ("begun", "spent", "opened", "expected"),
    [
        (-0.1, 0.2, True, True),
        (-0.1, 0.2, False, False),
        (-1.0, 0.2, True, False),
        (0.2, 0.1, True, False),
    ],
    ids=["open meanwhile", "refused", "over before", "begun after"],
)
def test_a_connection_is_torn_only_if_it_was_open_as_the_route_changed(
    begun: float, spent: float, opened: bool, expected: bool
) -> None:
    connection = Dialled("web", CHANGE + begun, spent, "", "reset", opened)
    assert torn(connection, [CHANGE]) is expected
