"""The speakers that are compared, each behind the same interface: the agent, BIRD and FRR.

Owns: how each is started with its committed configuration, and its processes.  A speaker connects to the
feeder and installs what it hears into its namespace's main table; nothing else may differ between them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Protocol

from bench.agent.kernel import flush
from bench.agent.topology import ASN, FEEDER_ADDRESSES, Topology, run

CONFIGURATIONS = Path(__file__).parent
ROOT = Path(__file__).parents[2]
"""Where `python -m bgpd` finds the agent, installed or not."""
FRR = Path("/usr/lib/frr")


class Speaker(Protocol):
    """One implementation."""

    name: ClassVar[str]
    socket: ClassVar[str]
    """What each process has to make before the next may start; empty when there is one process."""

    @staticmethod
    def version() -> str:
        """Its own words; OSError or RuntimeError when it is not there."""

    @staticmethod
    def commands(folder: Path, peers: int) -> list[list[str]]:
        """Write the configuration for that many of the feeder's addresses, and say what to run."""


class Podbgp:
    """This project's agent."""

    name: ClassVar[str] = "podbgp"
    socket: ClassVar[str] = ""

    @staticmethod
    def version() -> str:
        return run(sys.executable, "-m", "bgpd", "--version").strip()

    @staticmethod
    def commands(folder: Path, peers: int) -> list[list[str]]:
        text = _configuration("podbgp.toml").replace("@RUN@", str(folder))
        more = [f'[[peers]]\naddress = "{address}"\nasn = {ASN}\n' for address in FEEDER_ADDRESSES[1:peers]]
        path = folder / "podbgp.toml"
        path.write_text("\n".join([text, *more]))
        return [[sys.executable, "-m", "bgpd", "agent", "--config", str(path)]]


class Bird:
    """BIRD 2."""

    name: ClassVar[str] = "bird"
    socket: ClassVar[str] = ""

    @staticmethod
    def version() -> str:
        done = subprocess.run(["bird", "--version"], check=True, capture_output=True, text=True)
        return (done.stdout or done.stderr).strip()

    @staticmethod
    def commands(folder: Path, peers: int) -> list[list[str]]:
        more = [
            f"protocol bgp peer{number} from feed {{ neighbor {address} as {ASN}; }}\n"
            for number, address in enumerate(FEEDER_ADDRESSES[1:peers], start=2)
        ]
        path = folder / "bird.conf"
        path.write_text("".join([_configuration("bird.conf"), *more]))
        return [
            ["bird", "-f", "-c", str(path), "-s", str(folder / "bird.ctl"), "-P", str(folder / "bird.pid")]
        ]


class Frr:
    """FRR's bgpd and zebra."""

    name: ClassVar[str] = "frr"
    socket: ClassVar[str] = "zserv"

    @staticmethod
    def version() -> str:
        return "FRR " + run(str(FRR / "bgpd"), "--version").split()[2]

    @staticmethod
    def commands(folder: Path, peers: int) -> list[list[str]]:
        more = [f" neighbor {address} peer-group feed\n" for address in FEEDER_ADDRESSES[1:peers]]
        first = f" neighbor {FEEDER_ADDRESSES[0]} peer-group feed\n"
        text = _configuration("frr-bgpd.conf").replace(first, "".join([first, *more]))
        (folder / "bgpd.conf").write_text(text)
        (folder / "zebra.conf").write_text(_configuration("frr-zebra.conf"))
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "frr", "frr")

        def command(daemon: str) -> list[str]:
            return [
                str(FRR / daemon), "-f", str(folder / f"{daemon}.conf"), "-i", str(folder / f"{daemon}.pid"),
                "-z", str(folder / "zserv"), "--vty_socket", str(folder), "-P", "0",
            ]  # fmt: skip

        return [command("zebra"), command("bgpd")]


SPEAKERS: dict[str, type[Speaker]] = {speaker.name: speaker for speaker in (Podbgp, Bird, Frr)}


def _configuration(name: str) -> str:
    return (CONFIGURATIONS / name).read_text()


@dataclass(slots=True)
class Running:
    """A started speaker and its processes."""

    pids: list[int] = field(default_factory=list)
    log: Path = Path()
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def check(self) -> None:
        """Fail, with the end of its log, when one of its processes has ended."""
        for process in self._processes:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended: {self.log.read_text()[-3000:]}")

    def start(self, argv: list[str]) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._processes.append(process)
        self.pids.append(process.pid)

    def kill(self) -> None:
        """SIGKILL: what is left in the kernel others remove."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


@contextmanager
def running(speaker: type[Speaker], net: Topology, peers: int = 1) -> Iterator[Running]:
    """Start a speaker on its core, and stop it and remove its routes whatever happens."""
    with TemporaryDirectory(prefix="bch-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # FRR reads it as its own user
        state = Running(log=folder / "log")
        try:
            first, *others = speaker.commands(folder, peers)
            state.start(net.command(first))
            for argv in others:
                _wait_for(folder / speaker.socket, state)
                state.start(net.command(argv))
            yield state
        finally:
            state.kill()
            flush(net)
            net.renew()


def _wait_for(path: Path, state: Running) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        state.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} does not appear")
        time.sleep(0.05)
