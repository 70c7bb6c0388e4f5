"""What keeps a process that watches all Nodes small: what is not imported, and memory that is given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

SMALL = """
import sys
import bgpd.kube.{role}
print([name for name in ("pyroute2", "bgpd.agent", "api.server") if name in sys.modules])
"""
APART = """
from bgpd.kube.heap import keep_large_blocks_apart
apart = {apart} and keep_large_blocks_apart()
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) >> 8  # megabytes, of pages of 4 KB
first = b"x" * (8 << 20)
del first  # from here on a C library that was told nothing takes large blocks from the heap
before, pages, small = resident(), [], []
for _ in range(32):
    pages.append(b"x" * (1 << 20))
    small.append(b"x" * 50_000)
pages.clear()
print(resident() - before < 8)
"""


def said(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(("role", "imported"), [("reflector", ["api.server"]), ("controller", [])])
def test_who_changes_no_routes_does_not_import_what_changes_them(role: str, imported: list[str]) -> None:
    assert said(SMALL.format(role=role)) == str(imported)


def test_large_blocks_go_back_to_the_kernel() -> None:
    assert said(APART.format(apart=True)) == "True"
