"""What is left of a node's set-up when its agent ends, and whence its pods get addresses."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest

from bgpd.agent import Agent
from bgpd.config_file import load_host
from bgpd.kube import host as host_module
from bgpd.kube.agent import own_prefixes
from bgpd.kube.client import KubeClient
from bgpd.kube.host import Host, HostPlan
from bgpd.kube.options import KubeOptions
from bgpd.node.cni import CniFile, PodNetwork
from bgpd.node.errors import HostError
from bgpd.node.nft import Rules
from routes.prefix import Prefix
from tests.unit.test_kube_intent import cluster, node

PODS = (Prefix.parse("10.244.1.0/24"),)


class Filter:
    """A packet filter that refuses to go."""

    asked = 0

    def remove(self) -> bool:
        Filter.asked += 1
        raise HostError("nft: busy")


class Client:
    """An API client of which nothing is asked."""

    def close(self) -> None:
        """It has nothing open."""


@pytest.mark.parametrize("flush", [False, True])
def test_pods_go_on_without_their_agent_unless_it_leaves_for_good(
    flush: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "PacketFilter", Filter)
    monkeypatch.setattr(Filter, "asked", 0)
    file = CniFile(tmp_path)
    file.write(PodNetwork(PODS, 1500))

    async def main() -> None:
        host = Host(
            KubeOptions(load_host(None, "agent"), "n1", cni_folder=tmp_path), cast("KubeClient", Client())
        )
        host.close(flush=flush)
        await asyncio.to_thread(host._worker.shutdown)  # noqa: SLF001  as the interpreter does at its end

    asyncio.run(main())
    assert (file.path.exists(), Filter.asked) == (not flush, int(flush))


@pytest.mark.parametrize(
    ("announced", "in_use", "whence"),
    [
        (PODS, False, PODS),
        ((), False, ()),  # another Node has it as well: no pod may start here
        ((), True, node(1).pod_cidrs),  # but those that run keep their network
    ],
)
def test_no_pod_gets_an_address_that_may_not_be_announced(
    announced: tuple[Prefix, ...], in_use: bool, whence: tuple[Prefix, ...]
) -> None:
    assert own_prefixes(announced, node(1), in_use=in_use) == whence


class SlowFilter:
    """One with thousands of services to write."""

    def __init__(self) -> None:
        self.written: list[Rules] = []

    def apply(self, rules: Rules) -> bool:
        self.written.append(rules)
        time.sleep(0.02)
        return True


def test_services_that_change_all_the_time_do_not_keep_the_packet_filter_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second of changes costs what its share is, and the last one is not forgotten."""
    slow = SlowFilter()
    monkeypatch.setattr(host_module, "PacketFilter", lambda: slow)
    monkeypatch.setattr(host_module, "LOOK_EVERY", 0.02)
    services = [Prefix.parse(f"203.0.113.{number}/32") for number in range(50)]

    async def main() -> None:
        options = KubeOptions(load_host(None, "agent"), "n1", cni_folder=tmp_path)
        host = Host(options, cast("KubeClient", Client()))
        now: list[Prefix] = []

        def wanted() -> tuple[Agent, HostPlan] | None:
            return cast("Agent", None), HostPlan(node(1), cluster(), PODS, tuple(now))

        async def look(agent: Agent, wanted: HostPlan) -> None:
            del agent
            await asyncio.to_thread(host._apply_filter, wanted)  # noqa: SLF001  the step that is meant

        monkeypatch.setattr(host, "_look", look)
        keeping = asyncio.create_task(host.keep(wanted))
        for service in services:
            now.append(service)
            host.poke()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while slow.written[-1].services != tuple(services):  # noqa: ASYNC110 - a worker writes it
                await asyncio.sleep(0.01)
        keeping.cancel()
        host.close()

    asyncio.run(main())
    assert len(slow.written) < 8
