"""Where it is measured: one namespace with an API server, the daemons, and addresses for every Node.

Owns: the namespace, the processes in it, and what they are told.  The API server is the stand-in or, where
`make kube` has built it, the real kube-apiserver.  172.16.0.0/12 is local there, so that a speaker can come
from any Node's address; nothing outside the namespace is touched.

Whoever measures does so in a thread that is in the namespace (`measured`), so that every socket is there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import yaml

from bench.agent.topology import run, within
from bench.kube import objects
from bench.reflector.processes import ROOT, Running
from bgpd.kube.client import Conflict, KubeClient, KubeError
from bgpd.lab.control_plane import API_PORT, ControlPlane
from bgpd.lab.stand_in_api_server import kubeconfig_for
from bgpd.lab.workspace import claim

STAND_IN_PORT = 8001
GROUP = "/apis/podbgp.dev/v1alpha1"
NODES = "/api/v1/nodes"
CLUSTER = f"{GROUP}/bgpclusters/default"
PATIENCE = 120.0
FOLDERS = {
    "BGPCluster": f"{GROUP}/bgpclusters", "BGPPeer": f"{GROUP}/bgppeers", "Node": NODES,
    "BGPAdvertisement": f"{GROUP}/bgpadvertisements", "BGPAddressPool": f"{GROUP}/bgpaddresspools",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
}  # fmt: skip

T = TypeVar("T")


class StandIn:
    """The stand-in API server of a site (`bench/kube/stand_in.py`)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input: IO[bytes] = process.stdin
        self._output: IO[bytes] = process.stdout
        self._answer()

    def ask(self, **what: int) -> objects.Json:
        """Have it do something; what it was asked by its clients so far."""
        self._input.write(json.dumps(what).encode() + b"\n")
        self._input.flush()
        return self._answer()

    def _answer(self) -> objects.Json:
        line = self._output.readline()
        if not line:
            raise RuntimeError("the stand-in API server ended")
        found = json.loads(line)
        assert isinstance(found, dict)
        return found


@dataclass
class Site:
    """One namespace, ready to measure in."""

    namespace: str
    folder: Path
    kubeconfig: Path
    api_port: int
    description: str
    client: KubeClient
    stand_in: StandIn | None
    """None: a real API server."""

    def create(self, value: objects.Json) -> None:
        """Create an object of a kind that the benchmarks use, or make it like this."""
        folder = FOLDERS[str(value["kind"])]
        metadata = value["metadata"]
        assert isinstance(metadata, dict)
        try:
            self.client.create(folder, value)
        except Conflict:
            self.client.patch(f"{folder}/{metadata['name']}", value)

    def populate(self, count: int) -> float:
        """Create that many Nodes; the bytes of all as JSON."""
        if self.stand_in is not None:
            self.stand_in.ask(nodes=count)
        else:
            for number in range(count):
                self.create(objects.node(number))
        return sum(len(page.body) for page in self.client.pages(NODES))

    def define(self, topology: str) -> None:
        """Our kinds, and a BGPCluster of this topology."""
        for file in sorted((ROOT / "deploy/crds").glob("bgp*.yaml")):
            self.create(yaml.safe_load(file.read_text()))
        eventually(lambda: self._served(f"{GROUP}/bgpclusters"))
        eventually(lambda: self._served(f"{GROUP}/bgpnodestates"))
        if not self._served("/api/v1/namespaces/podbgp-system"):
            self.client.create("/api/v1/namespaces", {"metadata": {"name": "podbgp-system"}})
        self.create(objects.cluster(topology))

    def _served(self, path: str) -> bool:
        try:
            self.client.get(path)
        except KubeError:
            return False
        return True

    def reflected_by(self, *addresses: str) -> None:
        """Have agents peer with these reflectors."""
        self.client.patch(CLUSTER, objects.reflectors(addresses), subresource="status")

    @contextmanager
    def daemon(self, *argv: str, config: str = "") -> Iterator[Running]:
        """One of ours, from its start to `kill -9`."""
        role = argv[0]
        folder = self.folder / f"{role}-{time.monotonic_ns()}"
        folder.mkdir()
        settings = folder / "host.toml"
        with_api = "" if role == "controller" else f'[api]\nlisten = "unix:{folder}/api.sock"\n'
        settings.write_text(f'{with_api}[log]\nformat = "json"\n{config}')
        command = [sys.executable, "-m", "bgpd", *argv, "--config", str(settings),
                   "--kubeconfig", str(self.kubeconfig)]  # fmt: skip
        if role != "controller":
            command += ["--kubernetes", "--state-dir", str(folder / "state")]
        if role == "agent":
            command += ["--cni-dir", str(folder / "cni"), "--cni-data-dir", str(folder / "cni-data")]
        log = folder / "log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *command],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            yield Running(process, log)
        finally:
            process.kill()
            process.wait()

    def first_request(self, daemon: Running) -> float:
        """perf_counter when it first had a connection to the API server, within 2 ms; called at its start."""
        wanted = f":{self.api_port:04X} 01 "
        ours = tcp_table().count(wanted)
        return seen(daemon, lambda: tcp_table().count(wanted) > ours)

    def listens(self, daemon: Running) -> float:
        """perf_counter when it listened for BGP, which it does once it has its intent."""
        return seen(daemon, lambda: ":00B3 00000000:0000 0A " in tcp_table())


def tcp_table() -> str:
    """The TCP sockets of the namespace that the calling thread is in."""
    return Path("/proc/thread-self/net/tcp").read_text()


def seen(daemon: Running, what: Callable[[], bool], every: float = 0.002) -> float:
    """perf_counter when it became true."""
    end = time.monotonic() + PATIENCE
    while not what():
        daemon.check()
        if time.monotonic() > end:
            raise RuntimeError(f"nothing happened for {PATIENCE:g} s: {daemon.tail()}")
        time.sleep(every)
    return time.perf_counter()


def eventually(what: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {PATIENCE:g} s")
        time.sleep(0.05)


@contextmanager
def site(*, real: bool) -> Iterator[Site]:
    """A namespace with an API server; call what measures by `within(site.namespace, ...)`."""
    with ExitStack() as stack:
        workspace = claim("bench-kube")
        stack.callback(workspace.remove)
        folder = workspace.folder
        if real:
            control = stack.enter_context(ControlPlane(workspace, controllers=()))
            namespace, kubeconfig = control.namespace, control.kubeconfig()
            port, description = API_PORT, control.description
            stand_in = None
        else:
            namespace = workspace.namespace("site")
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            kubeconfig = folder / "kubeconfig"
            kubeconfig.write_text(json.dumps(kubeconfig_for(f"http://127.0.0.1:{STAND_IN_PORT}")))
            port, description = STAND_IN_PORT, "the stand-in API server, in a process of its own"
            stand_in = StandIn(stack.enter_context(_stand_in(namespace)))
        _add_addresses(namespace)
        client = KubeClient.load(str(kubeconfig))
        stack.callback(client.close)
        yield Site(namespace, folder, kubeconfig, port, description, client, stand_in)


@contextmanager
def _stand_in(namespace: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-m", "bench.kube.stand_in",
         f"127.0.0.1:{STAND_IN_PORT}"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _add_addresses(namespace: str) -> None:
    """Every Node's address is local; that of Node 0 is on a device, where the agent looks for its uplink."""
    run("ip", "-n", namespace, "link", "add", "uplink0", "type", "veth", "peer", "name", "fabric0")
    for device in ("uplink0", "fabric0"):
        run("ip", "-n", namespace, "link", "set", device, "up")
    run("ip", "-n", namespace, "addr", "add", f"{objects.node_address(0)}/12", "dev", "uplink0")
    run("ip", "-n", namespace, "route", "add", "local", "172.16.0.0/12", "dev", "lo")


def measured(real: bool, work: Callable[[Site], T]) -> T:
    """Make a site, do the work in its namespace, and leave nothing."""
    with site(real=real) as here:
        return within(here.namespace, lambda: work(here))
