"""FRR as a router in a namespace: zebra and bgpd with folders of their own.

Owns FRR's processes and the configuration of a lab's top-of-rack router.  FRR runs as user frr, so its
folder belongs to that user; every socket and file of it lies there, since the usual ones under
/var/run/frr would be shared by all.  Graceful restart stays in helper mode, FRR's default: an agent that
is killed keeps its paths, and a killed router loses its own at once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bgpd.lab.command import LabError, find_tool, run
from bgpd.lab.plan import Router
from bgpd.lab.process import Process, wait_for_socket

DAEMONS = Path("/usr/lib/frr")
USER = "frr"


class Frr:
    """zebra and bgpd in one namespace."""

    def __init__(self, name: str, namespace: str, folder: Path, config: str) -> None:
        self.name = name
        self.namespace = namespace
        self.folder = folder
        self.config = config
        self.zebra = self._daemon("zebra", ["-z", str(self._zebra_socket)])
        self.bgpd = self._daemon("bgpd", ["-z", str(self._zebra_socket), "-p", "179"])

    @property
    def _zebra_socket(self) -> Path:
        return self.folder / "zserv.api"

    def start(self) -> None:
        """Start both daemons and return when they answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {"zebra.conf": "frr defaults datacenter\n", "bgpd.conf": self.config}
        for name, text in files.items():
            (self.folder / name).write_text(text)
        for owned in (self.folder, *(self.folder / name for name in files)):
            shutil.chown(owned, USER, USER)
        self.zebra.start()
        wait_for_socket(self.zebra, self._zebra_socket)
        self.start_bgp()

    def start_bgp(self) -> None:
        """Start bgpd again after `kill_bgp`."""
        self.bgpd.start()
        wait_for_socket(self.bgpd, self.folder / "bgpd.vty")

    def kill_bgp(self) -> None:
        """`kill -9` of the BGP daemon; zebra notices, and removes its routes."""
        self.bgpd.kill()

    def stop(self) -> None:
        """End both."""
        self.bgpd.kill()
        self.zebra.kill()

    def vtysh(self, *commands: str) -> str:
        """Run commands of FRR's own shell and return what it prints."""
        return run(self.shell_command(*commands))

    def shell_command(self, *commands: str) -> list[str]:
        """The command line that runs these commands; it needs no namespace."""
        argv = [find_tool("vtysh", "frr"), "--vty_socket", str(self.folder), "--config_dir", str(self.folder)]
        for command in commands:
            argv += ["-c", command]
        return argv

    def _daemon(self, daemon: str, extra: list[str]) -> Process:
        argv = [
            str(DAEMONS / daemon),
            *("-f", str(self.folder / f"{daemon}.conf"), "-i", str(self.folder / f"{daemon}.pid")),
            *("--vty_socket", str(self.folder), "-P", "0", "-u", USER, "-g", USER, "--log", "stdout"),
            *extra,
        ]
        return Process(f"{self.name} {daemon}", self.namespace, argv, self.folder.with_suffix(".log"))


def check_installed() -> None:
    """LabError when FRR is missing."""
    if not (DAEMONS / "bgpd").exists():
        raise LabError("FRR is not installed: apt-get install frr")


def router_config(router: Router) -> str:
    """The configuration of a top-of-rack router."""
    lines = [
        "frr defaults datacenter",
        f"hostname {router.name}",
        "log stdout informational",
        f"router bgp {router.asn}",
        f" bgp router-id {router.router_id}",
        " no bgp ebgp-requires-policy",
        " no bgp default ipv4-unicast",
        " bgp bestpath as-path multipath-relax",
        " timers bgp 10 30",  # these defaults say 3 and 9: too little for a machine that is busy with tests
    ]
    for session in router.sessions:
        lines += [
            f" neighbor {session.address} remote-as {session.asn}",
            f" neighbor {session.address} description {session.node}",
            f" neighbor {session.address} update-source {session.source}",
        ]
    for family in ("ipv4", "ipv6") if router.dual_stack else ("ipv4",):
        lines.append(f" address-family {family} unicast")
        lines += [f"  neighbor {session.address} activate" for session in router.sessions]
        lines.append(" exit-address-family")
    return "\n".join([*lines, "exit", ""])
