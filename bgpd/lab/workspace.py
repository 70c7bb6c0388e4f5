"""The name, folder and lifetime of one lab.

Owns /run/podbgp-lab.  Each lab holds a lock on its folder for as long as its process lives, so that
several can run side by side, and one that died (even by `kill -9`) is recognised by its free lock and
swept away by the next.  A lab that was told to stay is marked as kept, and is only removed on request.
It must never touch a namespace or folder that does not carry a lab's own name.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bgpd.lab import netns
from bgpd.lab.command import LabError

ROOT = Path("/run/podbgp-lab")
KEPT = "kept"
LOCK = "lock"


@dataclass
class Workspace:
    """A claimed lab: `lab-3f9c` is its name, folder and the beginning of each of its namespaces."""

    name: str
    folder: Path
    lock: IO[str]

    def namespace(self, role: str) -> str:
        """The namespace of one part of this lab."""
        return f"{self.name}-{role}"

    def keep(self) -> None:
        """Let the lab outlive this process."""
        (self.folder / KEPT).touch()

    def remove(self) -> None:
        """Kill what runs in this lab's namespaces, and delete them and its folder."""
        _remove(self.name)
        self.lock.close()


def claim(prefix: str = "lab") -> Workspace:
    """Sweep away what dead labs left, and claim a new name."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root: run this as root or with sudo")
    with _registry():
        _sweep()
        name = f"{prefix}-{secrets.token_hex(2)}"
        folder = ROOT / name
        folder.mkdir()  # an existing one is another lab's: fail rather than share
        lock = (folder / LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
    return Workspace(name, folder, lock)


def remove_all(name: str = "") -> list[str]:
    """Remove kept and dead labs, or just the named one; LabError when that one still runs."""
    removed = []
    with _registry():
        if name and not (ROOT / name).is_dir():
            raise LabError(f"there is no lab named {name}; there are: {', '.join(labs()) or 'none'}")
        for candidate in [name] if name else labs():
            if _is_dead(candidate):
                _remove(candidate)
                removed.append(candidate)
            elif name:
                owner = (ROOT / name / LOCK).read_text().strip()
                raise LabError(f"lab {name} is still running as process {owner}: end that with Ctrl-C")
    return removed


def labs() -> list[str]:
    """The labs that are there now."""
    return sorted(entry.name for entry in ROOT.iterdir() if entry.is_dir()) if ROOT.is_dir() else []


def _sweep() -> None:
    for name in labs():
        if not (ROOT / name / KEPT).exists() and _is_dead(name):
            with suppress(LabError):  # the next lab tries again; this one is not to fail for it
                _remove(name)


def _is_dead(name: str) -> bool:
    path = ROOT / name / LOCK
    if not path.exists():
        return True
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _remove(name: str) -> None:
    netns.remove(netns.existing(f"{name}-"))
    shutil.rmtree(ROOT / name, ignore_errors=True)


@contextmanager
def _registry() -> Iterator[None]:
    """Only one process at a time claims or removes labs."""
    ROOT.mkdir(mode=0o755, exist_ok=True)
    with (ROOT / ".registry").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
