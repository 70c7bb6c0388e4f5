"""The reflectors that are compared, each behind the same interface, and the floor.

Owns: how each is started, from its committed configuration.  A speaker listens on 10.0.0.2, takes every
address of the clients' range as an iBGP client, keeps its routes to itself (no kernel), and knows nothing
of the number of clients; nothing else may differ between them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.agent.topology import run
from bench.reflector import trixie
from bench.reflector.programs import Programs

CONFIGURATIONS = Path(__file__).parent / "configurations"
FRR = "/usr/lib/frr/bgpd"
FILES = 20_000
OURS = "podbgp"
FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Start:
    """What a speaker may need to know to be started."""

    folder: Path
    """Of this run alone; every user may write there."""
    programs: Programs
    clients: int


@dataclass(frozen=True, slots=True)
class Speaker:
    """One implementation with one configuration."""

    name: str
    version: Callable[[], str]
    """Its own words, or its package's; OSError or RuntimeError when it is not there."""
    command: Callable[[Start], list[str]]
    settings: str
    environment: dict[str, str] = field(default_factory=dict)
    window: int = 256
    """Connections on their way at once: what its accept queue holds; beyond it, SYNs are lost for seconds."""
    rival: bool = True


def configuration(name: str, folder: Path, **values: str) -> str:
    """Write a committed configuration with its places filled in, and return its path."""
    text = (CONFIGURATIONS / name).read_text().replace("@RUN@", str(folder))
    for place, value in values.items():
        text = text.replace(f"@{place.upper()}@", value)
    path = folder / name
    path.write_text(text)
    path.chmod(0o600 if name == "openbgpd.conf" else 0o644)  # OpenBGPD refuses a file that others can read
    return str(path)


def _frr(start: Start, coalesce: str) -> list[str]:
    wait = "coalesce-time 0" if coalesce == "0" else "coalesce-time as by default"
    line = "coalesce-time 0" if coalesce == "0" else "!"
    path = configuration("frr.conf", start.folder, coalesce=wait, coalesce_line=line)
    folder = str(start.folder)
    return [FRR, "-f", path, "-i", f"{folder}/bgpd.pid", "--vty_socket", folder, "-P", "0", "-Z", "-n",
            "-l", "10.0.0.2", "--limit-fds", str(FILES)]  # fmt: skip


def _bird(start: Start, threads: str) -> list[str]:
    comment = "3: one thread" if threads else "2: has no threads"
    path = configuration("bird.conf", start.folder, threads=threads, threads_comment=comment)
    folder = str(start.folder)
    return ["bird", "-f", "-c", path, "-s", f"{folder}/bird.ctl", "-P", f"{folder}/bird.pid"]


def _gobgp(start: Start) -> list[str]:
    path = configuration("gobgp.toml", start.folder)
    return [
        "gobgpd",
        "-f",
        path,
        "-l",
        "error",
        "--pprof-disable",
        "--api-hosts",
        f"unix://{start.folder}/gobgp.sock",
    ]


def _openbgpd(start: Start) -> list[str]:
    return ["bgpd", "-d", "-f", configuration("openbgpd.conf", start.folder)]


def _podbgp(start: Start) -> list[str]:
    return [sys.executable, "-m", "bgpd", "reflector", "--config", configuration("podbgp.toml", start.folder)]


def _floor(start: Start) -> list[str]:
    return [str(start.programs.floor), str(start.clients)]


def _package(name: str) -> str:
    return run("dpkg-query", "-W", "-f", "${Version}", name)


def _inside(command: Callable[[Start], list[str]]) -> Callable[[Start], list[str]]:
    return lambda start: trixie.enter(command(start), start.folder)


def _podbgp_version() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bgpd", "reflector", "--help"], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError("this podbgpd has no reflector")
    return run(sys.executable, "-m", "bgpd", "--version").strip()


_GO = {"GOMAXPROCS": "1", "GOGC": "400"}
_ONE_GROUP = "one peer group, listen range, no zebra"

SPEAKERS: dict[str, Speaker] = {
    speaker.name: speaker
    for speaker in (
        Speaker(FLOOR, lambda: "floor.c", _floor, "shared log, no RIB", rival=False),
        Speaker(OURS, _podbgp_version, _podbgp, "podbgp.toml", rival=False),
        Speaker("frr10", lambda: trixie.version("frr"), _inside(lambda start: _frr(start, "0")),
                f"frr.conf: {_ONE_GROUP}, coalesce-time 0"),
        Speaker("frr10-default", lambda: trixie.version("frr"), _inside(lambda start: _frr(start, "")),
                f"frr.conf: {_ONE_GROUP}, coalesce-time as by default"),
        Speaker("frr8", lambda: _package("frr"), lambda start: _frr(start, "0"),
                f"frr.conf: {_ONE_GROUP}, coalesce-time 0"),
        Speaker("bird3", lambda: trixie.version("bird3"), _inside(lambda start: _bird(start, "threads 1;")),
                "bird.conf: neighbor range, threads 1, no kernel", window=8),
        Speaker("bird2", lambda: _package("bird2"), lambda start: _bird(start, ""),
                "bird.conf: neighbor range, no kernel", window=8),
        Speaker("openbgpd8", lambda: trixie.version("openbgpd"), _inside(_openbgpd),
                "openbgpd.conf: group with a range, fib-update no", window=5),
        Speaker("gobgp3", lambda: trixie.version("gobgpd"), _inside(_gobgp),
                "gobgp.toml: dynamic neighbors, GOMAXPROCS=1, GOGC=400", _GO),
    )
}  # fmt: skip
"""In the order in which they run: the fast ones first, since they set the time limit of the others."""
