"""`podbgpd lab --kubernetes` on the stand-in API server: it proves what it says, and leaves nothing."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab_process import StartLab, started_labs


@pytest.fixture
def run_lab(tmp_path: Path) -> Iterator[StartLab]:
    with started_labs(tmp_path, ("--kubernetes", "--stand-in")) as start:
        yield start


def test_it_proves_a_cluster_with_elected_reflectors(run_lab: StartLab) -> None:
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


def test_a_mesh_keeps_its_promises_when_a_node_is_drained(run_lab: StartLab) -> None:
    lab = run_lab("--topology", "mesh")
    assert lab.wait() == 0, lab.output
    assert re.search(r"yes  no ping is lost +\d{3,} pings answered, 0 lost", lab.output), lab.output
    assert "uncordoned, it is back" in lab.output
    assert lab.left == []


def test_it_leaves_nothing_when_it_is_interrupted(run_lab: StartLab) -> None:
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
def test_what_it_can_not_build_is_refused(run_lab: StartLab, options: tuple[str, ...], said: str) -> None:
    lab = run_lab(*options)
    assert lab.wait() != 0
    assert said in lab.output
