"""docs/peering.md: both ends of its FRR session come up, and the filter keeps other nodes' prefixes out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

import pytest
import yaml

from bgpd.config import Config, SpeakerConfig
from bgpd.kube import custom
from bgpd.kube.intent import ClusterFacts, agent_intent
from bgpd.kube.objects import Node
from routes.prefix import Prefix, parse_address
from tests.fakes.crd_server import Schema
from tests.interop.agent import Agent, config, peer
from tests.interop.conftest import MakeAgent, MakeSpeaker
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import Announcement, Neighbor, Speaker

PAGE = (Path(__file__).parents[2] / "docs" / "peering.md").read_text()
(ROUTER,) = re.findall(r"^```text\n! /etc/frr/frr.conf\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(CLUSTER,) = re.findall(r"^```yaml\n# cluster.yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PODS, SERVICE = "10.244.1.0/24", "203.0.113.5/32"
STOLEN = ("10.244.7.0/24", "203.0.113.0/30", "198.51.100.0/24")
NODE_ASN, ROUTER_ASN = 4200000002, 64512


def documented() -> Config:
    """What the page's objects make of the agent on its node."""
    manifests = {str(each["kind"]): json.dumps(each).encode() for each in _manifests()}
    policy = custom.decode_policy(manifests["BGPPolicy"])
    node = Node("node-1", "uid-1", pod_cidrs=(Prefix.parse(PODS),), addresses=(parse_address("192.0.2.1"),))
    facts = ClusterFacts(
        base=Config("the page", SpeakerConfig(1, 1)),
        node=node,
        cluster=custom.decode_cluster(manifests["BGPCluster"]),
        peers=[custom.decode_peer(manifests["BGPPeer"])],
        policies={policy.name: policy.policy},
        passwords=lambda key: "sesame" if key == custom.SecretKey("fabric") else None,
    )
    intent = agent_intent(facts)
    assert intent.problems == ()
    return intent.config


def _manifests() -> list[Schema]:
    return cast("list[Schema]", list(yaml.safe_load_all(CLUSTER)))


@pytest.fixture
def session(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost]
) -> tuple[Agent, Speaker, str, str]:
    """The agent as the page's objects configure it, but that it also announces what is not its own."""
    us, them = lan
    router = make_speaker("frr", them, ROUTER_ASN, Neighbor(us.ipv4, NODE_ASN, them.ipv4))
    announces = "router bgp 64512\n no bgp network import-check\n"  # what has no route here
    router.text = ROUTER.replace("router bgp 64512\n", announces)
    wanted = documented()
    (leaf,) = wanted.peers
    assert (wanted.speaker.asn, leaf.asn, leaf.ttl_security) == (NODE_ASN, ROUTER_ASN, 1)
    written = peer(
        str(leaf.name),
        leaf.asn,
        ttl_security=leaf.ttl_security,
        hold_time=leaf.hold_time,
        families=["ipv4"],
        password_file="peer.password",
    )
    text = config(us, written, asn=NODE_ASN, advertise=[PODS, SERVICE, *STOLEN], allow=["10.244.0.0/16"])
    agent = make_agent(us, text, leaf.password)
    router.start()
    agent.wait_ready()
    agent.wait_established(them.ipv4)
    return agent, router, us.ipv4, them.ipv4


def test_the_router_takes_a_nodes_own_prefix_and_no_others(
    session: tuple[Agent, Speaker, str, str],
) -> None:
    _, router, ours, _ = session
    seen = router.wait_best(PODS)
    assert (seen.next_hop, seen.as_path) == (ours, (NODE_ASN,))
    assert router.wait_best(SERVICE).as_path == (NODE_ASN,)
    assert [prefix for prefix in STOLEN if router.paths(prefix)] == []


def test_the_router_tells_the_node_of_other_pods_and_of_nothing_else(
    session: tuple[Agent, Speaker, str, str],
) -> None:
    agent, router, _, theirs = session
    router.apply((Announcement("198.51.100.0/24"), Announcement("10.244.9.0/24")), ())
    agent.wait_kernel("10.244.9.0/24", theirs)
    assert agent.paths("198.51.100.0/24", name=theirs) == []
