"""A lab's plan: every name and address of it, for any size and fabric."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.config_file import load
from bgpd.lab import light_plan, pods
from bgpd.lab.agent_config import agent_config
from bgpd.lab.command import LabError
from bgpd.lab.plan import NODE_NETWORKS, POD_NETWORKS, Fabric, Plan, make_plan, with_one_more
from bgpd.lab.reflector_config import reflector_config

KEYWORDS = {"up", "down", "dev", "via", "src", "proto", "metric", "table", "scope", "type", "link", "lo"}

plans = st.builds(
    lambda fabric, nodes, count, dual: make_plan(
        "x-{}".format, fabric=fabric, nodes=nodes, pods_per_node=count, dual_stack=dual
    ),
    st.sampled_from(Fabric),
    st.integers(2, 12) | st.just(100),
    st.integers(1, 2),
    st.booleans(),
)


@settings(max_examples=25)
@given(plans)
def test_no_name_or_address_is_used_twice(plan: Plan) -> None:
    names = Counter(plan.namespaces)
    addresses = Counter(a for pod in plan.pods for a in pod.addresses)
    addresses += Counter(a for node in plan.nodes for a in node.gateways)
    addresses += Counter(a for node in plan.nodes if plan.routers for a in node.addresses)
    addresses += Counter(each.address for each in plan.reflectors)
    addresses += Counter(a for light in plan.light_nodes for a in light.next_hops)
    for node in plan.nodes:
        for link in node.uplinks:
            addresses += Counter(i.ip for i in link.addresses + link.far_addresses)
    assert max(names.values()) == 1
    assert max(addresses.values()) == 1


@settings(max_examples=25)
@given(plans)
def test_device_names_fit_the_kernel_and_are_no_keywords(plan: Plan) -> None:
    for node in plan.nodes:
        devices = [link.device for link in node.uplinks] + [pod.device for pod in node.pods]
        devices += [link.far_device for link in node.uplinks]
        assert all(len(device) <= 15 for device in devices)
        assert not KEYWORDS & set(devices)


@settings(max_examples=25)
@given(plans)
def test_each_node_behind_routers_has_an_as_number_of_its_own(plan: Plan) -> None:
    numbers = {node.asn for node in plan.nodes} | {router.asn for router in plan.routers}
    assert len(numbers) == (len(plan.nodes) + 2 if plan.routers else 1)


@settings(max_examples=25)
@given(plans)
def test_both_ends_of_a_session_agree(plan: Plan) -> None:
    mine = {(node.asn, s.source, s.address, s.asn) for node in plan.nodes for s in node.sessions}
    theirs = {(s.asn, s.address, s.source, router.asn) for router in plan.routers for s in router.sessions}
    mirrored = {(asn, address, source, own) for own, source, address, asn in mine}
    if plan.routers:
        assert theirs == mine
    elif plan.reflectors:
        assert {address for _, _, address, _ in mine} == {each.address for each in plan.reflectors}
        assert all(source in NODE_NETWORKS[0] for _, source, _, _ in mine)
    else:
        assert mirrored == mine


@settings(max_examples=25)
@given(plans)
def test_everything_lies_in_the_ranges_that_import_allows(plan: Plan) -> None:
    allowed = POD_NETWORKS + NODE_NETWORKS
    for node in plan.nodes:
        for network in plan.advertised(node):
            assert any(network.version == a.version and network.subnet_of(a) for a in allowed)  # type: ignore[arg-type]


@pytest.mark.parametrize("fabric", Fabric)
@pytest.mark.parametrize("dual_stack", [True, False])
def test_the_agent_accepts_the_file_that_it_is_given(
    fabric: Fabric, dual_stack: bool, tmp_path: Path
) -> None:
    plan = make_plan(str, fabric=fabric, dual_stack=dual_stack)
    for node in plan.nodes:
        path = tmp_path / f"{node.name}.toml"
        path.write_text(agent_config(plan, node, tmp_path / "api.sock"))
        config = load(str(path))
        assert len(config.peers) == len(node.sessions)
        assert len(config.agent.advertise) == len(plan.advertised(node))
        assert not config.warnings


@pytest.mark.parametrize("dual_stack", [True, False])
@pytest.mark.parametrize("light", [0, 3000])
def test_a_reflector_accepts_the_file_that_it_is_given(dual_stack: bool, light: int, tmp_path: Path) -> None:
    plan = make_plan(str, fabric=Fabric.REFLECTOR, light_nodes=light, dual_stack=dual_stack)
    for reflector in plan.reflectors:
        path = tmp_path / f"{reflector.name}.toml"
        path.write_text(reflector_config(plan, reflector, tmp_path / "api.sock", tmp_path / "memory.json"))
        config = load(str(path))
        assert config.role == "reflector"
        assert [peer.address for peer in config.peers if peer.client] == []
        assert len(config.peers) == 1
        assert config.reflector
        assert len(config.reflector.clients) == (2 if light else 1)
        assert not config.warnings


def test_one_range_serves_all_nodes_and_one_node_has_a_reflector_beside_its_agent() -> None:
    plan = make_plan(str, fabric=Fabric.REFLECTOR)
    shared = [each for each in plan.reflectors if each.node]
    assert [(each.namespace, each.address in plan.nodes[0].addresses) for each in shared] == [
        ("node1", False)
    ]
    for each in plan.reflectors:
        ranges = tomllib.loads(reflector_config(plan, each, Path("/x"), Path("/y")))["reflector"]["clients"]
        assert [clients["range"] for clients in ranges] == [str(NODE_NETWORKS[0])]


def test_the_agents_of_reflectors_listen_nowhere() -> None:
    plan = make_plan(str, fabric=Fabric.REFLECTOR)
    assert "listen" not in tomllib.loads(agent_config(plan, plan.nodes[0], Path("/x")))["speaker"]


@settings(max_examples=10)
@given(st.integers(2, 99), st.booleans())
def test_one_more_node_changes_no_file_of_another(nodes: int, dual_stack: bool) -> None:
    plan = make_plan(str, fabric=Fabric.REFLECTOR, nodes=nodes, dual_stack=dual_stack)
    more = with_one_more(plan, str)
    assert more == make_plan(str, fabric=Fabric.REFLECTOR, nodes=nodes + 1, dual_stack=dual_stack)
    for before, after in zip(plan.nodes, more.nodes, strict=False):
        assert agent_config(plan, before, Path("/x")) == agent_config(more, after, Path("/x"))
    for each in plan.reflectors:
        old, new = (reflector_config(p, each, Path("/x"), Path("/y")) for p in (plan, more))
        assert old == new


@pytest.mark.parametrize("fabric", [Fabric.MESH, Fabric.FRR])
def test_elsewhere_one_more_node_would_change_the_others(fabric: Fabric) -> None:
    with pytest.raises(LabError, match="changes the others' configuration"):
        with_one_more(make_plan(str, fabric=fabric), str)


def test_light_nodes_have_addresses_and_prefixes_of_their_own_in_their_networks() -> None:
    lights = light_plan.light_nodes(light_plan.MOST_LIGHT_NODES, 2)
    prefixes = Counter(network for light in lights for network in light.pod_networks)
    assert max(prefixes.values()) == 1
    assert len({a for light in lights for a in light.next_hops}) == 2 * len(lights)
    for light in lights:
        assert light.address in light_plan.NETWORK
        assert light.next_hops[1] in NODE_NETWORKS[1]
        for network, allowed in zip(light.pod_networks, light_plan.POD_NETWORKS, strict=True):
            assert network.subnet_of(allowed)  # type: ignore[arg-type]


def test_an_ipv4_lab_has_no_trace_of_ipv6() -> None:
    plan = make_plan(str, fabric=Fabric.FRR, dual_stack=False)
    text = agent_config(plan, plan.nodes[0], Path("/x"))
    assert tomllib.loads(text)["peers"][0]["families"] == ["ipv4"]
    assert "::" not in text
    commands = pods.pod_commands(plan.nodes[0], plan.pods[0]) + pods.node_commands(
        plan.nodes[0], plan.pods[0]
    )
    assert "::" not in " ".join(commands)


@pytest.mark.parametrize(
    ("nodes", "count", "said"),
    [
        (1, 1, "2 to 100 nodes, not 1"),
        (101, 1, "not 101"),
        (2, 0, "1 to 100 pods, not 0"),
        (2, 101, "not 101"),
    ],
)
def test_an_impossible_size_is_refused_in_words(nodes: int, count: int, said: str) -> None:
    with pytest.raises(LabError, match=said):
        make_plan(str, nodes=nodes, pods_per_node=count)


@pytest.mark.parametrize(
    ("fabric", "light", "said"),
    [
        (Fabric.REFLECTOR, 10_001, "up to 10000 light nodes, not 10001"),
        (Fabric.REFLECTOR, -1, "not -1"),
        (Fabric.MESH, 1, "clients of reflectors"),
    ],
)
def test_impossible_light_nodes_are_refused_in_words(fabric: Fabric, light: int, said: str) -> None:
    with pytest.raises(LabError, match=said):
        make_plan(str, fabric=fabric, light_nodes=light)
