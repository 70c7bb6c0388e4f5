"""`podbgpd lab` as an operator runs it: a process, what it prints, and what it leaves."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bgpd.lab import netns
from bgpd.lab.workspace import ROOT, labs, remove_all
from tests.interop.harness.speaker import wait_until

PROJECT = Path(__file__).parents[2]
LAB = (sys.executable, "-m", "bgpd", "lab")
NAME = re.compile(r"podbgp (lab-[0-9a-f]{4})")
TIMEOUT = 120.0


class Lab:
    """One lab."""

    def __init__(self, log: Path, options: Sequence[str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*LAB, *options], stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=PROJECT
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
        folder = [str(ROOT / self.name)] if (ROOT / self.name).exists() else []
        return netns.existing(self.name) + folder

    def end(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)
        name = NAME.search(self.output)
        if name and name[1] in labs():
            remove_all(name[1])


StartLab = Callable[..., Lab]


@contextmanager
def started_labs(folder: Path, options: Sequence[str]) -> Iterator[StartLab]:
    """Starts labs with these options and more; none outlives the context."""
    started: list[Lab] = []

    def start(*more: str) -> Lab:
        started.append(Lab(folder / f"lab{len(started)}.log", (*options, *more)))
        return started[-1]

    try:
        yield start
    finally:
        for lab in started:
            lab.end()
