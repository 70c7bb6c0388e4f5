"""The reflector's bench sees what a reflector does wrong, and judges as the targets are written.

A load generator that takes a wrong delivery for a right one is worse than none.  No speed is asserted here.
The tests of the C programs run in network namespaces of their own and need root and a compiler.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from bench.agent.feeder import KEEPALIVE, OPEN, UPDATE, message
from bench.agent.topology import DAEMON_ADDRESS, Cores, Topology, within
from bench.reflector.figures import Results
from bench.reflector.generator import Generator, Phase, generator
from bench.reflector.measure import (
    ANNOUNCE,
    BURST,
    CHURN,
    COLD,
    CONNECT,
    JOIN,
    LOSE,
    Bench,
    Cell,
    Figure,
    Limits,
    Outcome,
    Run,
)  # fmt: skip
from bench.reflector.network import network
from bench.reflector.processes import running
from bench.reflector.programs import Programs, compile_into
from bench.reflector.report import markdown
from bench.reflector.run import CELLS, QUICK, measure_cell, parse
from bench.reflector.speakers import FLOOR, OURS, SPEAKERS, Speaker, Start
from bench.reflector.targets import targets

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("cc") is None, reason="network namespaces and a C compiler"
)
ONE_CORE = Cores(feeder=min(os.sched_getaffinity(0)), daemon=None)
MED, LOCAL_PREF = b"\x80\x04\x04", b"\x40\x05\x04\x00\x00\x00\x64"


def phase(name: str, seconds: float, **values: object) -> Phase:
    """A phase that went well, but for `values`."""
    plain = {
        field: 0
        for field in Phase.__dataclass_fields__
        if field not in ("steps", "withdraw", "announce", "joined")
    }
    return Phase(**{**plain, "phase": name, "ok": True, "seconds": seconds, **values})  # type: ignore[arg-type]


def outcome(cpu: float = 1.0, peak: float = 50.0, **phases: float) -> Outcome:
    figures = {name: [Figure(phase(name, seconds, bytes=1_000), cpu)] for name, seconds in phases.items()}
    return Outcome([Run(figures, peak)])


# --- what is judged


@pytest.mark.parametrize(("ours", "theirs", "met"), [(1.0, 2.0, True), (1.01, 2.0, False)])
@pytest.mark.parametrize("cell", [Cell(500, 1), Cell(1_000, 1), Cell(2_000, 1)])
def test_half_of_the_fastest_rivals_time(cell: Cell, ours: float, theirs: float, met: bool) -> None:
    results = Results(
        outcomes={cell: {
            FLOOR: outcome(announce=ours / 2),
            OURS: outcome(announce=ours, cpu=ours),
            "bird3": outcome(announce=9.0, cpu=9.0),
            "frr10": outcome(announce=theirs, cpu=theirs),
        }}
    )  # fmt: skip
    verdicts = {target.text: target.met for target in targets(results)}
    assert verdicts[f"{cell}: full convergence, wall at most 0.5 times the fastest"] is met
    assert verdicts[f"{cell}: full convergence, CPU at most 0.5 times the fastest"] is met
    assert ("**missed**" in markdown(results)) is not met


def test_the_floor_is_no_rival_and_a_stopped_rival_sets_no_bound() -> None:
    cell = Cell(100, 1)
    stopped = Outcome([Run()], {ANNOUNCE: "> 10 x"})
    results = Results(
        outcomes={cell: {FLOOR: outcome(announce=0.1), OURS: outcome(announce=1.0), "bird2": stopped}}
    )
    assert [target.text for target in targets(results)] == [f"{cell}: every delivery right, no session lost"]
    assert "| bird2 | 0 |  | > 10 x |" in markdown(results)


def test_a_figure_of_several_turns_is_the_median_of_all_times_that_it_was_measured() -> None:
    turns = [[3.0, 1.0, 9.0], [2.0], [4.0]]
    runs = [Run({BURST: [Figure(phase(BURST, seconds), 1.0) for seconds in turn]}, 1.0) for turn in turns]
    results = Results(outcomes={Cell(7, 1): {OURS: Outcome(runs)}})
    assert results.seconds(Cell(7, 1), OURS, BURST) == 3.0
    assert len(results.phases(Cell(7, 1), OURS)) == 5


@pytest.mark.parametrize("fault", ["own", "lost", "wrong_originator"])
def test_one_wrong_delivery_of_ours_misses_a_target(fault: str) -> None:
    figure = Figure(phase(ANNOUNCE, 1.0, **{fault: 1}), 1.0)
    results = Results(outcomes={Cell(7, 1): {OURS: Outcome([Run({ANNOUNCE: [figure]}, 1.0)])}})
    assert [target.met for target in targets(results)] == [False]


def test_the_limit_is_ten_times_the_fastest_but_never_too_short() -> None:
    limits = Limits(120.0)
    assert (limits.seconds(ANNOUNCE), limits.text(ANNOUNCE)) == (120.0, "> 120 s")
    limits.learn(Figure(phase(ANNOUNCE, 5.0), 1.0))
    limits.learn(Figure(phase(ANNOUNCE, 7.0), 1.0))
    assert (limits.seconds(ANNOUNCE), limits.text(ANNOUNCE)) == (50.0, "> 10 x")
    limits.learn(Figure(phase(COLD, 0.01), 1.0))
    assert limits.seconds(COLD) == 3.0
    limits.learn(Figure(phase(BURST, 20.0), 1.0))
    assert (limits.seconds(BURST), limits.text(BURST)) == (120.0, "> 120 s")


def test_command_line() -> None:
    plan, _ = parse(["--all"])
    assert plan.cells == CELLS
    assert [speaker.name for speaker in plan.speakers] == list(SPEAKERS)
    assert parse(["--quick"])[0].cells == QUICK
    plan, folder = parse(["--cell", "500x1", "--speaker", "frr10", "--output", "/x"])
    assert (plan.cells, [speaker.name for speaker in plan.speakers], folder) == (
        (Cell(500, 1),),
        ["frr10"],
        Path("/x"),
    )
    with pytest.raises(SystemExit):
        parse(["--cell", "500"])


def test_speakers_take_turns_and_slow_or_failing_ones_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def measure(_bench: Bench, speaker: Speaker, _cell: Cell, into: Outcome, limits: Limits) -> None:
        turns.append(speaker.name)
        if speaker.name == "gobgp3":
            raise RuntimeError("it does not start")
        seconds = 3.0 if speaker.name == "frr10" else 0.1
        into.runs += outcome(announce=seconds, cold=0.1).runs
        if speaker.name == "bird2":
            into.stopped[BURST] = limits.text(BURST)

    monkeypatch.setattr("bench.reflector.run.measure", measure)
    names = [FLOOR, OURS, "frr10", "bird2", "gobgp3"]
    results, plan = Results(), parse(["--runs", "3"])[0]
    bench = Bench(cast("Topology", None), cast("Programs", None), plan.rounds)
    measure_cell(bench, plan, Cell(100, 1), names, results)
    assert turns == [*names, FLOOR, OURS, FLOOR, OURS]
    assert len(results.outcome(Cell(100, 1), OURS).figures(ANNOUNCE)) == 3
    assert results.failures == ["gobgp3, 100x1: it does not start"]


# --- what is seen


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return compile_into(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def net() -> Iterator[Topology]:
    with network(ONE_CORE) as net:
        yield net


@needs_root
def test_every_phase_against_the_floor(programs: Programs, net: Topology, tmp_path: Path) -> None:
    """The floor reflects rightly, so whatever is found wrong here is wrong in the generator."""
    clients, each = 20, 1_500  # 1,500 prefixes take two messages
    argv = SPEAKERS[FLOOR].command(Start(tmp_path, programs, clients))
    with (
        running(argv, {}, net, tmp_path / "floor.log") as floor,
        generator(net, programs.loadgen, clients, each, 8, tmp_path / "log") as driven,
    ):
        floor.wait_until_it_listens()
        assert driven.phase(CONNECT, 20).up == clients
        converged = driven.phase(ANNOUNCE, 20)
        joined = driven.phase(JOIN, 1, 20)
        churned = driven.phase(CHURN, 3, 20)
        others = [driven.phase(name, 10, 20) for name in (BURST, LOSE)]
        for found in (converged, joined, churned, *others):
            assert found.ok
            assert (found.missing, found.faults()) == (0, {})
        assert converged.announced == clients * (clients - 1) * each
        assert converged.bytes == clients * (clients - 1) * (each * 4 + 2 * (23 + 28 + 14))
        assert joined.announced == clients * each
        assert (len(churned.withdraw), len(churned.announce)) == (3, 3)
        assert floor.peak() > 0


def attributes(client: int, **wrong: int) -> bytes:
    """What a reflector sends of a client's path; `wrong` replaces single values."""
    address = 0x0A010001 + client
    value = {"next_hop": address, "med": client, "originator": address, "cluster": 0x0A000002, **wrong}
    return (
        b"\x40\x01\x01\x00\x40\x02\x00\x40\x03\x04" + struct.pack("!I", value["next_hop"])
        + MED + struct.pack("!I", value["med"]) + LOCAL_PREF
        + b"\x80\x09\x04" + struct.pack("!I", value["originator"])
        + b"\x80\x0a\x04" + struct.pack("!I", value["cluster"])
    )  # fmt: skip


def update(client: int, **wrong: int) -> bytes:
    block = attributes(client, **wrong)
    body = b"\x00\x00" + struct.pack("!H", len(block)) + block + b"\x18\x20\x00" + bytes([client])
    return message(UPDATE, body)


WITHDRAWAL = message(UPDATE, b"\x00\x04\x18\x20\x00\x01\x00\x00")
RIGHT = update(1)


@needs_root
@pytest.mark.parametrize(
    ("sent", "ok", "seen"),
    [
        (RIGHT, True, {}),
        (RIGHT + RIGHT, True, {"duplicates": 1}),
        (RIGHT + WITHDRAWAL + RIGHT, True, {"withdrawn": 1, "duplicates": 0}),
        (RIGHT + WITHDRAWAL, False, {"withdrawn": 1, "missing": 1}),
        (WITHDRAWAL + RIGHT, True, {"needless": 1}),
        (update(0) + RIGHT, True, {"own": 1}),
        (update(1, next_hop=0x0A000002), False, {"wrong_next_hop": 1, "missing": 1}),
        (update(1, originator=0x0A000002), True, {"wrong_originator": 1}),
        (update(1, cluster=1), True, {"wrong_cluster_list": 1}),
        (update(1, med=7), True, {"wrong_attributes": 1}),
        (RIGHT[:-1] + b"\x07", False, {"malformed": 1, "lost": 1}),
    ],
)
def test_what_a_reflector_does_wrong_is_seen(
    programs: Programs, net: Topology, tmp_path: Path, sent: bytes, ok: bool, seen: dict[str, int]
) -> None:
    """Two clients; the second is served rightly, the first gets `sent`."""
    with (
        reflector(net, {1: sent, 2: update(0)}),
        generator(net, programs.loadgen, 2, 1, 2, tmp_path / "log") as driven,
    ):
        assert driven.phase(CONNECT, 10).ok
        found = driven.phase(ANNOUNCE, 0.3 if not ok else 10)
        assert found.ok is ok
        assert {name: getattr(found, name) for name in seen} == seen
        assert ok or "lost" in seen or driven_on(driven)


def driven_on(driven: Generator) -> bool:
    """Whether the generator goes on after a phase that failed."""
    return driven.phase("settle", 0.1, 1).ok


@contextlib.contextmanager
def reflector(net: Topology, sends: dict[int, bytes]) -> Iterator[None]:
    """A reflector of canned messages, by the last byte of the client's address, after its UPDATE came."""

    def listen() -> socket.socket:
        listener = socket.create_server((DAEMON_ADDRESS, 179))
        listener.settimeout(10)
        return listener

    listener = within(net.daemon, listen)
    sockets: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            for _ in sends:
                sock, (address, _port) = listener.accept()
                sock.settimeout(10)
                sockets.append(sock)
                last = int(address.rpartition(".")[2])
                threads.append(start(lambda sock=sock, last=last: answer(sock, sends[last])))  # type: ignore[misc]

    threads: list[threading.Thread] = []
    acceptor = start(serve)
    try:
        yield
    finally:
        listener.close()
        acceptor.join(20)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(20)
        for sock in sockets:
            sock.close()


def start(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def answer(sock: socket.socket, sent: bytes) -> None:
    opened = struct.pack("!BHHIB", 4, 65000, 240, 0x0A000002, 0)
    with contextlib.suppress(OSError):
        sock.sendall(message(OPEN, opened) + message(KEEPALIVE, b""))
        received = b""
        while b"\x18\x20\x00" not in received:
            received += sock.recv(4096)
        sock.sendall(sent)
        sock.recv(1)
