"""The bench's C programs, compiled when they are needed: the load generator and the floor.

Owns: the compiler's command line.  What it makes lives in a folder that the caller removes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.agent.topology import run

SOURCES = Path(__file__).parent
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
LOADGEN = ("loadgen.c", "session.c", "table.c", "update.c")


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the compiled programs are."""

    loadgen: Path
    floor: Path


def compile_into(folder: Path) -> Programs:
    """Compile both; RuntimeError with the compiler's words when that fails."""
    programs = Programs(folder / "loadgen", folder / "floor")
    for output, names in ((programs.loadgen, LOADGEN), (programs.floor, ("floor.c",))):
        sources = [str(SOURCES / name) for name in names]
        run(os.environ.get("CC", "cc"), *FLAGS, "-o", str(output), *sources)
    return programs
