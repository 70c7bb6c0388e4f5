"""`podbgpd lab --kubernetes` on the stand-in API server: it proves what it says, and leaves nothing."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgpd.lab import netns
from bgpd.lab.workspace import labs, remove_all
from tests.interop.harness.speaker import wait_until

PROJECT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "bgpd", "lab", "--kubernetes", "--stand-in"]
NAME = re.compile(r"podbgp (lab-[0-9a-f]{4})")
TIMEOUT = 120.0

Run = Callable[..., "Lab"]


class Lab:
    """One lab, as somebody runs it."""

    def __init__(self, log: Path, options: tuple[str, ...]) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *options], stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=PROJECT
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def name(self) -> str:
        found = NAME.search(self.output)
        assert found, self.output
        return found[1]

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.output, TIMEOUT, lambda: f"{text!r} in {self.output}")

    def wait(self) -> int:
        return self.process.wait(TIMEOUT)

    @property
    def left(self) -> list[str]:
        """What it left behind."""
        return netns.existing(f"{self.name}-") + [name for name in labs() if name == self.name]


@pytest.fixture
def run_lab(tmp_path: Path) -> Iterator[Run]:
    started: list[Lab] = []

    def run(*options: str) -> Lab:
        started.append(Lab(tmp_path / f"{len(started)}.log", options))
        return started[-1]

    yield run
    for lab in started:
        lab.process.kill()
        lab.process.wait(TIMEOUT)
        if NAME.search(lab.output) and lab.left:
            remove_all(lab.name)


def test_it_proves_a_cluster_with_elected_reflectors(run_lab: Run) -> None:
    lab = run_lab("--short")
    assert lab.wait() == 0, lab.output
    for said in (
        "a stand-in API server, without controllers and services",
        "every pod reaches every pod    12 of 12",
        "the source stays unchanged     12 of 12",
        "deleted node3 is gone everywhere",
        "everything was proved",
    ):
        assert said in lab.output, lab.output
    assert "NO" not in re.findall(r"^  (yes|NO) ", lab.output, re.MULTILINE)
    assert lab.left == []


def test_a_mesh_keeps_its_promises_when_a_node_is_drained(run_lab: Run) -> None:
    lab = run_lab("--topology", "mesh")
    assert lab.wait() == 0, lab.output
    assert re.search(r"yes  no ping is lost +\d{3,} pings answered, 0 lost", lab.output), lab.output
    assert "uncordoned, it is back" in lab.output
    assert lab.left == []


def test_it_leaves_nothing_when_it_is_interrupted(run_lab: Run) -> None:
    lab = run_lab("--short")
    lab.wait_for("nodes that are marked as usable: 0 of 3")
    lab.process.send_signal(signal.SIGTERM)
    assert lab.wait() == 128 + signal.SIGTERM, lab.output
    assert lab.left == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--nodes", "2"), "2 nodes: use 3 to 20"),
        (("--fabric", "frr"), "--kubernetes: only --topology"),
        (("--light-nodes", "5"), "--kubernetes: only --topology"),
        (("--topology", "fabric"), "'fabric' is not one of"),
    ],
)
def test_what_it_can_not_build_is_refused(run_lab: Run, options: tuple[str, ...], said: str) -> None:
    lab = run_lab(*options)
    assert lab.wait() != 0
    assert said in lab.output
