"""A Kubernetes reflector that starts without the API server: it believes its clients no more than before."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bgpd.config_file import load_host
from bgpd.kube.client import KubeClient
from bgpd.kube.disk import IntentFile
from bgpd.kube.options import KubeOptions
from bgpd.kube.reflector import KubeReflector
from bgpd.kube.restart import Again
from routes.path import AsPath, Origin, PathAttributes, PeerKind, PeerName, Source
from routes.policy import Rule
from routes.prefix import Prefix, parse_address
from tests.fakes.stand_in_api_server import StandInApiServer, node
from tests.unit.test_kube_follower import fill, until

HOME, THIEF = parse_address("192.0.2.1"), parse_address("192.0.2.66")
POD = Prefix.parse("10.244.1.0/24")


def test_paths_are_held_against_the_nodes_of_the_stored_intent(tmp_path: Path) -> None:
    file = IntentFile(tmp_path / "intent.json")

    async def main(options: KubeOptions) -> list[str]:
        async with asyncio.TaskGroup() as tasks:
            before = KubeReflector(options, Again(), tasks)
            await until(lambda: before.synced)
            told = before.intent()
            assert told is not None
            file.store(told)
            stored = file.load()
            assert stored is not None
            again = KubeReflector(options, Again(), tasks)
            role = again.make(stored[0])
            for each in (before, again):
                each.following.close()
        rules = []
        for next_hop in (HOME, THIEF):
            source = Source(PeerName("a client"), PeerKind.IBGP, 65000, 7, next_hop)
            attributes = PathAttributes(Origin.IGP, AsPath.of(()), next_hop)
            rules.append(role.daemon.rib.policy.judge(source, attributes, POD).rule)
        return rules

    with StandInApiServer() as server:
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")
        client = KubeClient.load(kubeconfig)
        fill(client)
        client.create("/api/v1/nodes", node("thief", "192.0.2.66", pod_cidrs=("10.244.66.0/24",)))
        client.close()
        options = KubeOptions(load_host(None, "reflector"), "n1", kubeconfig=kubeconfig)
        assert asyncio.run(main(options)) == ["allow 10.244.0.0/16", Rule.NODE_MISMATCH]
