"""The two programs, as an operator calls them."""

from __future__ import annotations

import subprocess
import sys
from subprocess import CompletedProcess

from bgpd.lab import netns
from bgpd.lab.topology import Agent
from tests.e2e.network import Asked

TIMEOUT = 60.0


def podbgp(asked: Asked, *words: str) -> str:
    """What the client prints; it must succeed."""
    argv = [sys.executable, "-c", "from api.cli import main; main(prog_name='podbgp')", "--api", asked.api]
    done = subprocess.run([*argv, *words], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def podbgpd(agent: Agent, *words: str) -> CompletedProcess[str]:
    """The daemon's program on a node, with its agent's file."""
    argv = [sys.executable, "-m", "bgpd", *words, "--config", str(agent.config)]
    return subprocess.run(
        netns.in_namespace(agent.node.namespace, argv),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
