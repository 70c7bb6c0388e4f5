"""Debian 13's daemons on an older machine: a folder with them, made once, and the way to run one in it.

Owns: the folder (outside the tree, since it is a cache of packages) and the mounts that a process sees in
it, which live in that process's own mount namespace.  Must never mount anything where others see it, nor
show the folder this machine's /dev: package scripts write and remove there.
`python -m bench.reflector.trixie` makes the folder; the bench does so as well when it is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.agent.topology import run

ROOT = Path(os.environ.get("PODBGP_BENCH_ROOT", "/var/cache/podbgp-bench/trixie"))
SUITE = "trixie"
PACKAGES = ("frr", "bird3", "gobgpd", "openbgpd", "procps")
COMPLETE = ".complete"
"""The file that is written last, so that half a folder is never used."""

ENTER = """set -e
mount -t proc proc "$0/proc"
mount -t tmpfs -o mode=755 tmpfs "$0/dev"
mknod -m 666 "$0/dev/null" c 1 3
mknod -m 666 "$0/dev/zero" c 1 5
mknod -m 666 "$0/dev/full" c 1 7
mknod -m 666 "$0/dev/random" c 1 8
mknod -m 666 "$0/dev/urandom" c 1 9
mkdir "$0/dev/shm" "$0/dev/pts"
ln -s /proc/self/fd "$0/dev/fd"
if [ -n "$1" ]; then
  mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$0/run"
  mkdir -p -m 777 "$0/run/openbgpd" "$0/run/frr" "$0/run/bird"
  mkdir -p "$0$1"
  mount --bind "$1" "$0$1"
fi
root="$0"
shift
exec chroot "$root" "$@"
"""
"""Run in a mount namespace of its own: $0 is the folder, $1 a run's folder or empty, the rest a command."""


def enter(argv: list[str], folder: Path | None = None) -> list[str]:
    """The command line that runs `argv` inside, as the same process, with `folder` at its own path."""
    shown = "" if folder is None else str(folder)
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, str(ROOT), shown, *argv]


def available() -> bool:
    """Whether the folder is there and whole."""
    return (ROOT / COMPLETE).exists()


def source() -> str:
    """Where this machine itself gets Debian's packages from."""
    lines = run(
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME)",
        "Created-By: Packages",
        "Origin: Debian",
    )
    for line in lines.splitlines():
        uri, _, codename = line.partition(" ")
        if codename and "-" not in codename:
            return uri
    raise RuntimeError("apt knows no source of Debian's packages; run apt-get update")


def make() -> None:
    """Make the folder; takes a minute or two, once."""
    if available():
        return
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    own_mounts = ["unshare", "--mount", "--propagation", "private"]
    run(*own_mounts, "debootstrap", "--variant=minbase", SUITE, str(ROOT), source())
    policy = ROOT / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # nothing may start when it is installed
    policy.chmod(0o755)
    shutil.copy("/etc/resolv.conf", ROOT / "etc/resolv.conf")
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"]
    run(*enter([*quiet, "apt-get", "-qq", "update"]))
    run(*enter([*quiet, "apt-get", "-qq", "-y", "--no-install-recommends", "install", *PACKAGES]))
    (ROOT / COMPLETE).touch()


def version(package: str) -> str:
    """The installed version of a package."""
    found = subprocess.run(
        ["dpkg-query", f"--admindir={ROOT}/var/lib/dpkg", "-W", "-f", "${Version}", package],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if found.returncode or not found.stdout:
        raise RuntimeError(f"{package} is not in {ROOT}: python -m bench.reflector.trixie")
    return found.stdout


if __name__ == "__main__":
    make()
