"""The real `podbgpd reflector` in a namespace, as interop tests see it: its API and its log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from routes.path import PeerName
from routes.prefix import Prefix
from routes.view import PathView, RouteQuery, Table
from tests.interop.agent import Agent, peer
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import Announcement, Neighbor, SeenPath, Speaker, wait_until

ASN = 65000
CLUSTER_ID = "10.9.9.9"
"""Ours, unless a test says otherwise: no router ID, so that neither can pass for the other."""
ALLOW = ("10.0.0.0/8", "fd00::/16")
RANGES = ("192.0.2.0/24", "2001:db8::/64")


class Reflector(Agent):
    """One reflector; `start`, then `kill` at the end of the test."""

    def __init__(self, host: LanHost, text: str, password: str = "") -> None:
        super().__init__(host, text, password)
        argv = self.process.argv
        argv[argv.index("agent")] = "reflector"

    def told(self, prefix: str, name: str) -> list[PathView]:
        """What the peer is told of a prefix, and what not."""
        query = RouteQuery(Table.ADJ_OUT, peer=PeerName(name), prefix=Prefix.parse(prefix))
        return list(self.client.paths(query))


def clients(text: str = RANGES[0], **keys: str | int | Sequence[str]) -> str:
    """One `[[reflector.clients]]` section."""
    section = peer(text, ASN, **keys).replace("[[peers]]", "[[reflector.clients]]")
    return section.replace("address =", "range =", 1)


def config(host: LanHost, *sections: str, cluster_id: str = CLUSTER_ID, allow: Sequence[str] = ALLOW) -> str:
    """A reflector's file."""
    entries = ", ".join(f'"{each}"' for each in allow)
    return "\n".join(
        [
            "[speaker]",
            f"asn = {ASN}",
            f'router_id = "{host.ipv4}"',
            'listen = ["0.0.0.0:179", "[::]:179"]',
            "connect_retry = 0.3",
            "connect_retry_max = 0.6",
            "[reflector]",
            f'cluster_id = "{cluster_id}"',
            'state_file = ""',
            "[import]",
            f"allow = [{entries}]",
            "[api]",
            f'listen = "unix://{host.folder}/api.sock"',
            "[log]",
            'format = "json"',
            *sections,
        ]
    )


def toward(host: LanHost, other: LanHost, **keys: object) -> Neighbor:
    """The iBGP neighbour of a daemon on `host` that is on `other`."""
    fields = {"asn": ASN, **keys}
    return Neighbor(other.ipv4, local_address=host.ipv4, families=("ipv4",), **fields)  # type: ignore[arg-type] # named by the caller


def wait_reflected(
    speaker: Speaker, prefix: str, good: Callable[[SeenPath], bool] = lambda _: True
) -> SeenPath:
    """The path that came through a reflector, best or not, as soon as it satisfies `good`."""
    found: list[SeenPath] = []

    def look() -> bool:
        found[:] = [seen for seen in speaker.paths(prefix) if seen.originator_id and good(seen)]
        return bool(found)

    wait_until(look, 10, lambda: f"{speaker.daemon}: {prefix} is reflected; it has {speaker.paths(prefix)}")
    return found[0]


def check_reflected(
    seen: SeenPath, announced: Announcement, source: LanHost, clusters: Iterable[str] = (CLUSTER_ID,)
) -> None:
    """As RFC 4456 has it: what the source said is kept, what reflectors add is there."""
    assert seen.next_hop == (announced.next_hop or source.ipv4)
    assert seen.as_path == announced.prepend
    assert seen.origin == "igp"
    assert (seen.med or 0) == (announced.med or 0)
    assert seen.local_pref == (100 if announced.local_pref is None else announced.local_pref)
    assert seen.communities == set(announced.communities)
    assert seen.large_communities == set(announced.large_communities)
    assert seen.originator_id == source.ipv4
    assert seen.cluster_list == tuple(clusters)
