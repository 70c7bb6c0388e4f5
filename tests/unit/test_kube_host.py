"""What is left of a node's set-up when its agent ends, and whence its pods get addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from bgpd.config_file import load_host
from bgpd.kube import host as host_module
from bgpd.kube.agent import own_prefixes
from bgpd.kube.client import KubeClient
from bgpd.kube.host import Host
from bgpd.kube.options import KubeOptions
from bgpd.node.cni import CniFile, PodNetwork
from bgpd.node.errors import HostError
from routes.prefix import Prefix
from tests.unit.test_kube_intent import node

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
