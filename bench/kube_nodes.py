"""What watching 5,000 Nodes costs: the first list, memory, a change, and heartbeats that mean nothing.

    python -m bench.kube_nodes [--nodes N] [--changes N] [--kubeconfig FILE]

The API server is the stand-in, in a process of its own, with Nodes as large as real ones (11 KB: conditions,
50 images, managed fields); with --kubeconfig it is a real one, whose Nodes are used as they are and get a
label.  Memory is that of this process, which has imported what an agent imports.  Exit code 1: a target was
missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import bgpd.agent  # noqa: F401 - its memory is part of the figure
from bgpd.kube.client import KubeClient
from bgpd.kube.objects import Node, decode_node
from bgpd.kube.watch import Batch, Resource, Watch

NODES = "/api/v1/nodes"
LIST_TARGET, MEMORY_TARGET, CHANGE_TARGET = 3.0, 120, 0.020
"""Seconds, MB, seconds (median)."""
CONDITIONS = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "Ready")


def large_node(number: int) -> dict[str, object]:
    """A Node as a kubelet keeps it."""
    name, high, low = f"node-{number:05}.cluster.example", number // 256, number % 256
    images = [
        {"names": [f"registry.example.com/team/{k}@sha256:{'ab' * 32}", f"registry.example.com/team/{k}:v1"],
         "sizeBytes": k << 20} for k in range(50)
    ]  # fmt: skip
    when = {"lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    conditions = [
        {
            "type": kind,
            "status": str(kind == "Ready"),
            "reason": f"Kubelet{kind}",
            "message": "is well",
            **when,
        }
        for kind in CONDITIONS
    ]
    said: dict[str, object] = {"f:status": {}, "f:reason": {}, "f:message": {}, "f:lastHeartbeatTime": {}}
    managed = {f'k:{{"type":"{kind}"}}': said for kind in CONDITIONS}
    fields = [
        {"manager": one, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
         "fieldsV1": {"f:status": {"f:conditions": managed}}} for one in ("kubelet", "manager")
    ]  # fmt: skip
    cidrs = [f"10.{high}.{low}.0/24", f"fd00:{number:x}::/64"]
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{number % 3}"}
    addresses = [f"172.16.{high}.{low}", f"fd01::{number:x}"]
    return {
        "apiVersion": "v1", "kind": "Node", "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "metadata": {"name": name, "labels": labels, "managedFields": fields},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address} for address in addresses],
            "conditions": conditions, "images": images,
        },
    }  # fmt: skip


def serve(count: int, kubeconfig: Path, pipe: Connection) -> None:
    """The stand-in, until its parent says that it is enough; a number asks for that many heartbeats."""
    from bgpd.lab.stand_in_api_server import StandInApiServer  # noqa: PLC0415 - not in the measured process

    with StandInApiServer() as server:
        server.create_many([large_node(number) for number in range(count)])
        server.kubeconfig(kubeconfig)
        pipe.send("ready")
        while beats := pipe.recv():
            for number in range(beats):
                beat = {"type": "Ready", "status": "True", "lastHeartbeatTime": str(time.time())}
                name = f"node-{number % count:05}.cluster.example"
                patch = {"status": {"conditions": [beat]}}
                server.patch("Node", name, patch, subresource="status", patch_type="strategic")
            pipe.send("done")


class Watched:
    """The Nodes, as an agent in topology mesh or a reflector holds them."""

    def __init__(self, client: KubeClient) -> None:
        self.nodes: dict[str, Node] = {}
        self.heard: list[float] = []
        self.synced = threading.Event()
        self.watch = Watch(client, Resource(NODES, "Node", decode_node), self._hear)
        self.watch.start()

    def _hear(self, batch: Batch[Node]) -> None:
        for node in batch.changed:
            self.nodes[node.uid] = node
        self.heard.append(time.perf_counter())
        if batch.synced:
            self.synced.set()


def changes(client: KubeClient, watched: Watched, count: int) -> list[float]:
    """Seconds from the start of a PATCH to the callback, one at a time."""
    took = []
    names = [node.name for node in watched.nodes.values()]
    for number in range(count):
        before, begun = len(watched.heard), time.perf_counter()
        label = {"podbgp.dev/bench": str(time.time_ns())}
        client.patch(f"{NODES}/{names[number % len(names)]}", {"metadata": {"labels": label}})
        while len(watched.heard) == before:
            time.sleep(0.0002)
        took.append(watched.heard[before] - begun)
    return took


def megabytes() -> tuple[int, int]:
    """(resident now, at its peak)"""
    status = Path("/proc/self/status").read_text()
    now = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(now.split()[1]) >> 10, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def measure(kubeconfig: Path, count: int, pipe: Connection | None) -> bool:
    """Print the figures; whether all targets are met."""
    client = KubeClient.load(str(kubeconfig))
    print(f"before: {megabytes()[0]} MB resident")
    begun, used = time.perf_counter(), time.process_time()
    watched = Watched(client)
    watched.synced.wait(120)
    listed, used = time.perf_counter() - begun, time.process_time() - used
    resident, peak = megabytes()
    print(f"first list: {len(watched.nodes)} Nodes in {listed:.2f} s, {used:.2f} s of CPU")
    print(f"memory: {resident} MB resident, {peak} MB at the peak")
    took = sorted(changes(client, watched, count))
    median = statistics.median(took)
    print(f"change to callback: median {median * 1e3:.1f} ms, 99% {took[len(took) * 99 // 100] * 1e3:.1f} ms")
    if pipe is not None:
        heartbeats(watched, pipe)
    watched.watch.stop()
    client.close()
    return listed <= LIST_TARGET and peak < MEMORY_TARGET and median <= CHANGE_TARGET


def heartbeats(watched: Watched, pipe: Connection) -> None:
    """One of each Node: what they cost, and that nobody hears of them."""
    count, used = len(watched.nodes), time.process_time()
    events, heard = watched.watch.status().events, len(watched.heard)
    pipe.send(count)
    pipe.recv()
    while watched.watch.status().events < events + count:
        time.sleep(0.01)
    used = time.process_time() - used
    print(f"{count} heartbeats: {used:.2f} s of CPU, {len(watched.heard) - heard} callbacks")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--kubeconfig", type=Path)
    given = parser.parse_args(arguments)
    if given.kubeconfig is not None:
        return int(not measure(given.kubeconfig, given.changes, None))
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = context.Pipe()
        kubeconfig = Path(folder) / "kubeconfig"
        server = context.Process(target=serve, args=(given.nodes, kubeconfig, theirs), daemon=True)
        server.start()
        ours.recv()
        size = sum(len(json.dumps(large_node(n))) for n in range(100)) / 100
        print(f"stand-in API server with {given.nodes} Nodes of {size / 1000:.1f} KB")
        met = measure(kubeconfig, given.changes, ours)
        ours.send(0)
        server.join(10)
    return int(not met)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
