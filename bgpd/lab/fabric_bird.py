"""BIRD as a router in a namespace.

Owns BIRD's process and the configuration of a lab's top-of-rack router.  BIRD's default, `graceful
restart aware`, is kept: an agent that is killed keeps its paths, and a killed router loses its own.
"""

from __future__ import annotations

from pathlib import Path

from bgpd.lab.command import LabError, find_tool, run
from bgpd.lab.plan import Router
from bgpd.lab.process import Process, wait_for_socket


class Bird:
    """One BIRD in one namespace."""

    def __init__(self, name: str, namespace: str, folder: Path, config: str) -> None:
        self.name = name
        self.namespace = namespace
        self.folder = folder
        self.config = config
        self.process = Process(
            f"{name} bird",
            namespace,
            [
                find_tool("bird", "bird2"),
                *("-f", "-c", str(self._config_file), "-s", str(self.socket), "-P", str(folder / "bird.pid")),
            ],
            folder.with_suffix(".log"),
        )

    @property
    def socket(self) -> Path:
        return self.folder / "bird.ctl"

    @property
    def _config_file(self) -> Path:
        return self.folder / "bird.conf"

    def start(self) -> None:
        """Start it and return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._config_file.write_text(self.config)
        self.start_bgp()

    def start_bgp(self) -> None:
        """Start it again after `kill_bgp`."""
        self.process.start()
        wait_for_socket(self.process, self.socket)

    def kill_bgp(self) -> None:
        """`kill -9`; its kernel routes stay."""
        self.process.kill()

    def stop(self) -> None:
        """End it."""
        self.process.kill()

    def configure(self, config: str) -> None:
        """Replace the configuration of the running BIRD."""
        self.config = config
        self._config_file.write_text(config)
        said = self.birdc("configure")
        if "Reconfigured" not in said and "Reconfiguration in progress" not in said:
            raise LabError(f"{self.name}: {said}")

    def birdc(self, *words: str) -> str:
        """Run a command of BIRD's own client and return what it prints."""
        return run(self.shell_command(*words))

    def shell_command(self, *words: str) -> list[str]:
        """The command line that runs this command; it needs no namespace."""
        return [find_tool("birdc", "bird2"), "-s", str(self.socket), *words]


def check_installed() -> None:
    """LabError when BIRD is missing."""
    find_tool("bird", "bird2")


def router_config(router: Router) -> str:
    """The configuration of a top-of-rack router."""
    families = ("ipv4", "ipv6") if router.dual_stack else ("ipv4",)
    channels = " ".join(f"{family} {{ import all; export all; }};" for family in families)
    return "\n".join(
        [
            "log stderr all;",
            f"router id {router.router_id};",
            "protocol device {}",
            *(
                f"protocol kernel kernel_{family} {{ merge paths; {family} {{ import none; export all; }}; }}"
                for family in families
            ),
            f"template bgp node {{ local as {router.asn}; direct; {channels} }}",
            *(
                f"protocol bgp {session.node} from node {{ "
                f"neighbor {session.address} as {session.asn}; source address {session.source}; }}"
                for session in router.sessions
            ),
            "",
        ]
    )
