"""Running the host's own tools: the one place of the lab that starts a process and waits for it.

Owns the rule that every call is bounded in time, that nothing goes through a shell, and that a failure
carries what the tool said.  It must never be given text that came over a network.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from bgpd.errors import PodbgpError

TIMEOUT = 60.0
"""Seconds that any of these tools may take; all of them normally need milliseconds, but they share one lock
with everything else on the machine that changes routes or devices."""

SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the tools are; `/usr/sbin` is missing from the PATH of many login shells."""


class LabError(PodbgpError):
    """The lab can't be built, or did not do what it must; the text says what and why."""


def find_tool(name: str, package: str) -> str:
    """The full path of a tool; LabError names the Debian package that brings it."""
    found = shutil.which(name, path=SYSTEM_FOLDERS)
    if found is None:
        raise LabError(f"{name} is not installed: apt-get install {package}")
    return found


def run(argv: Sequence[str], *, text: str = "", timeout: float = TIMEOUT) -> str:
    """Run a tool to its end, give it `text` as input, and return what it prints; LabError if it fails."""
    done = _complete(argv, text, timeout)
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise LabError(f"{' '.join(argv)}: {said[-2000:]}")
    return done.stdout


def try_run(argv: Sequence[str], *, timeout: float = TIMEOUT) -> str:
    """Run a tool whose failure is an answer too, and return all that it prints."""
    done = _complete(argv, "", timeout)
    return done.stdout + done.stderr


def show(argv: Sequence[str], *, timeout: float = TIMEOUT) -> None:
    """Run a tool that prints for a person, straight to our own output."""
    try:
        done = subprocess.run(argv, timeout=timeout, check=False)  # noqa: S603 - as above
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no answer within {timeout:g} s") from error
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: ended with code {done.returncode}")


def _complete(argv: Sequence[str], text: str, timeout: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - fixed tools with arguments that the lab made itself
            argv, input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no answer within {timeout:g} s") from error
