"""How long the reflector's API takes to answer while thousands of clients connect and converge.

    python -m bench.reflector.api_delay [CLIENTS]

Owns: who asks what.  One client asks for the status all the time, one lists all peers, one explains a prefix,
and one watches peers, on the load generator's core, while the generator runs its phases.  Sessions that were
lost are a failure: whoever asks must cost no session.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from api.v1 import control_pb2, peer_pb2, route_pb2
from api.v1.control_pb2_grpc import ControlServiceStub
from api.v1.peer_pb2_grpc import PeerServiceStub
from api.v1.route_pb2_grpc import RouteServiceStub
from bench.agent.topology import Topology, default_cores
from bench.reflector.generator import Phase, generator
from bench.reflector.network import network
from bench.reflector.processes import running
from bench.reflector.programs import Programs, compile_into
from bench.reflector.speakers import OURS, SPEAKERS, Start

CLIENTS = 5000
LIMIT = 120.0
PAUSE = 0.01
PHASES: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("connect", ()),
    ("announce", ()),
    ("settle", (0.3,)),
    ("burst", (10,)),
    ("lose", (10,)),
    ("settle", (5.0,)),
)
"""The last one shows how fast answers are while nothing else happens."""
PREFIX = "32.0.0.0/24"
"""The generator's first client announces it."""


class Askers:
    """Clients of the API that ask without an end, and how long each answer took."""

    def __init__(self, api: str) -> None:
        self._api = api
        self._end = threading.Event()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._ask, args=asked, daemon=True)
            for asked in (
                ("GetStatus", _status),
                ("ExplainRoute", _explain),
                ("ListPeers, all", _peers),
                ("ListPeers, first message", _first_peers),
                ("WatchPeers, snapshot", _watch),
            )
        ]

    def _ask(self, name: str, ask: Callable[[grpc.Channel], object]) -> None:
        with grpc.insecure_channel(self._api) as channel:
            while not self._end.is_set():
                began = time.perf_counter()
                try:
                    ask(channel)
                except grpc.RpcError as error:
                    self.failures.append(f"{name}: {error}")
                self.seconds[name].append(time.perf_counter() - began)
                time.sleep(PAUSE)

    @contextmanager
    def asking(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in self._threads:
                thread.join(LIMIT)

    def taken(self) -> dict[str, list[float]]:
        """What was measured since the last call."""
        taken, self.seconds = self.seconds, defaultdict(list)
        return taken


def _status(channel: grpc.Channel) -> object:
    return ControlServiceStub(channel).GetStatus(control_pb2.GetStatusRequest())


def _explain(channel: grpc.Channel) -> object:
    return RouteServiceStub(channel).ExplainRoute(route_pb2.ExplainRouteRequest(target=PREFIX))


def _peers(channel: grpc.Channel) -> object:
    return sum(len(each.peers) for each in PeerServiceStub(channel).ListPeers(peer_pb2.ListPeersRequest()))


def _first_peers(channel: grpc.Channel) -> object:
    call = PeerServiceStub(channel).ListPeers(peer_pb2.ListPeersRequest())
    first = next(iter(call), None)
    call.cancel()  # type: ignore[no-untyped-call]  # the stubs forget it
    return first


def _watch(channel: grpc.Channel) -> object:
    call = PeerServiceStub(channel).WatchPeers(peer_pb2.WatchPeersRequest())
    for event in call:
        if event.end_of_snapshot:
            break
    call.cancel()  # type: ignore[no-untyped-call]  # the stubs forget it
    return None


def show(phase: Phase, taken: dict[str, list[float]]) -> None:
    print(f"{phase.phase}: {phase.seconds:.3f} s, {phase.up} up, {phase.lost} lost")
    for name, seconds in sorted(taken.items()):
        ordered = sorted(seconds)
        if not ordered:
            continue
        median, p99, most = (ordered[int(at * (len(ordered) - 1))] * 1000 for at in (0.5, 0.99, 1))
        print(
            f"  {name:<26} {len(ordered):>5} answers, ms: median {median:.1f}, p99 {p99:.1f}, max {most:.1f}"
        )


def measure(net: Topology, programs: Programs, clients: int) -> Iterable[str]:
    """Run the phases; what went wrong."""
    failures: list[str] = []
    with TemporaryDirectory(prefix="bch-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        speaker = SPEAKERS[OURS]
        argv = speaker.command(Start(folder, programs, clients))
        with running(argv, speaker.environment, net, folder / "speaker.log") as state:
            state.wait_until_it_listens()
            askers = Askers(f"unix://{folder}/api.sock")
            log = folder / "generator.log"
            with generator(net, programs.loadgen, clients, 1, speaker.window, log) as load, askers.asking():
                for words, values in PHASES:
                    phase = load.phase(words, *values, LIMIT)
                    show(phase, askers.taken())
                    if phase.lost or not phase.ok:
                        failures.append(f"{words}: {phase.lost} sessions lost, {phase.missing} missing")
            state.check()
            failures += askers.failures
    return failures


def main(arguments: list[str]) -> int:
    clients = int(arguments[0]) if arguments else CLIENTS
    cores = default_cores()
    os.sched_setaffinity(0, {cores.feeder})
    with TemporaryDirectory(prefix="bch-") as folder, network(cores) as net:
        Path(folder).chmod(0o755)
        failures = list(measure(net, compile_into(Path(folder)), clients))
    print("\n".join(failures[:5]), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
