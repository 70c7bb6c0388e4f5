"""The load generator as the bench drives it: a command in, one phase's figures out.

Owns: the process and the reading of its lines; what a figure means is said in loadgen.c and loadgen.h.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from bench.agent.topology import Topology

MARGIN = 30.0
"""Seconds that the generator may be late with its answer; beyond them it is given up."""


@dataclass(frozen=True, slots=True)
class Phase:
    """What the clients saw in one phase."""

    phase: str
    ok: bool
    seconds: float
    up: int
    missing: int
    bytes: int
    messages: int
    updates: int
    announced: int
    withdrawn: int
    end_of_rib: int
    duplicates: int
    needless: int
    own: int
    wrong_next_hop: int
    wrong_originator: int
    wrong_cluster_list: int
    wrong_attributes: int
    malformed: int
    lost: int
    retries: int
    steps: tuple[float, ...] = ()
    withdraw: tuple[float, ...] = ()
    announce: tuple[float, ...] = ()
    joined: tuple[float, ...] = ()

    def faults(self) -> dict[str, int]:
        """What no reflector may do, and how often it was seen."""
        names = (
            "wrong_next_hop",
            "wrong_originator",
            "wrong_cluster_list",
            "wrong_attributes",
            "malformed",
            "lost",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name)}


def parse(line: str) -> Phase:
    """One line of the generator's; ValidationError when it is not what the bench knows."""
    return msgspec.json.decode(line, type=Phase)


class Generator:
    """A running load generator."""

    def __init__(self, process: subprocess.Popen[str], commands: IO[str], answers: IO[str]) -> None:
        self._process = process
        self._commands = commands
        self._answers = answers

    def phase(self, *words: str | float) -> Phase:
        """Run one phase; its last word is its time limit in seconds."""
        self._commands.write(" ".join(map(str, words)) + "\n")
        self._commands.flush()
        ready, _, _ = select.select([self._answers], [], [], 2 * float(words[-1]) + MARGIN)
        line = self._answers.readline() if ready else ""
        if not line:
            raise RuntimeError(f"the load generator gave no answer to {words}")
        return parse(line)


@contextmanager
def generator(
    net: Topology, program: Path, clients: int, prefixes_each: int, window: int, log: Path
) -> Iterator[Generator]:
    """Start the generator on its core in the clients' namespace; end it whatever happens."""
    pinned = ["prlimit", "--nofile=20000:20000", "taskset", "-c", str(net.cores.feeder)]
    there = ["ip", "netns", "exec", net.feeder]
    argv = [*pinned, *there, str(program), str(clients), str(prefixes_each), str(window)]
    with (
        log.open("a") as errors,
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
        ) as process,
    ):
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the load generator has no pipes")
        try:
            yield Generator(process, process.stdin, process.stdout)
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
