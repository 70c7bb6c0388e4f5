"""`python -m bench`: every benchmark, one after the other, or the ones named.

Each is a program of its own with options of its own; this runs them with their defaults, so that one command
repeats all that README.md quotes.  Exit code 1: one of them missed a target or failed.
"""

from __future__ import annotations

import subprocess
import sys

PROGRAMS = {
    "agent": ("bench.agent.run", "--all"),
    "install": ("bench.install",),
    "codec": ("bench.codec",),
    "reflector": ("bench.reflector.run", "--all"),
    "kube": ("bench.kube.run",),
    "kube-services": ("bench.kube_services",),
}


def main(names: list[str]) -> int:
    """Run the benchmarks called `names`, all without any."""
    unknown = [name for name in names if name not in PROGRAMS]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    codes = []
    for name in names or PROGRAMS:
        print(f"== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", *PROGRAMS[name]], check=False).returncode)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
