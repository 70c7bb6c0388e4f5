"""The real `podbgpd agent` in a namespace, as interop tests see it: its API, its log and its kernel routes.

Configured by text, as an operator would; read only from outside, through gRPC, the log file and `ip`.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec

from api.client import Client, UnreachableError
from bgpd.lab.kernel_routes import KernelRoute, kernel_routes
from bgpd.lab.netns import ip_tool
from bgpd.lab.process import Process
from routes.path import PeerName
from routes.peer import FamilyCounts, PeerStatus, SessionState
from routes.prefix import Family, Prefix
from routes.view import FibView, PathView, RouteQuery, Table
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import family_of, wait_until

ASN = 65000
OWN = ("10.1.0.0/24", "fd00:1::/64")
"""What our agent advertises, unless a test says otherwise."""
ALLOW = ("10.0.0.0/8", "fd00::/16")
PASSWORD_FILE = "peer.password"
METRIC = 20

Value = str | int | float | bool | Sequence[str] | Mapping[str, str | int]


def peer(address: str, asn: int, **keys: Value) -> str:
    """One `[[peers]]` section."""
    values: dict[str, Value] = {"address": address, "asn": asn, **keys}
    lines = ["[[peers]]", *(_line(key, value) for key, value in values.items())]
    return "\n".join([*lines, ""])


def config(
    host: LanHost,
    *peers: str,
    asn: int = ASN,
    advertise: Sequence[str] = OWN,
    allow: Sequence[str] = ALLOW,
    agent: Mapping[str, Value] | None = None,
    fib: Mapping[str, Value] | None = None,
) -> str:
    """An agent's file.  It connects again quickly, because tests wait for that."""
    sections: dict[str, Mapping[str, Value]] = {
        "speaker": {
            "asn": asn,
            "router_id": host.ipv4,
            "listen": ["0.0.0.0:179", "[::]:179"],
            "connect_retry": 0.3,
            "connect_retry_max": 0.6,
        },
        "agent": {"advertise": advertise, **(agent or {})},
        "import": {"allow": allow},
        "fib": {"hold_time": 1, **(fib or {})},
        "api": {"listen": f"unix://{host.folder}/api.sock"},
        "log": {"level": "info", "format": "json"},
    }
    text = [
        "\n".join([f"[{name}]", *(_line(key, value) for key, value in keys.items()), ""])
        for name, keys in sections.items()
    ]
    return "\n".join([*text, *peers])


def password_file(path: Path, password: str) -> None:
    """What `password_file` of a peer names."""
    path.touch(mode=0o600)
    path.write_text(f"{password}\n")


def _line(key: str, value: Value) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(_line(*item) for item in value.items())
        return f"{key} = {{ {inner} }}"
    return f"{key} = {msgspec.json.encode(value).decode()}"  # as TOML writes these too


class Agent:
    """One agent; `start`, then `kill` at the end of the test."""

    def __init__(self, host: LanHost, text: str, password: str = "") -> None:
        self.host = host
        self._file = host.folder / "agent.toml"
        self._file.write_text(text)
        if password:
            password_file(host.folder / PASSWORD_FILE, password)
        self._log = host.folder / "agent.log"
        self.process = Process(
            f"agent on {host.name}",
            host.namespace,
            [sys.executable, "-m", "bgpd", "agent", "--config", str(self._file)],
            self._log,
        )
        self._client: Client | None = None

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it; `wait_ready` returns when it answers."""
        self.process.start()

    def wait_ready(self) -> None:
        wait_until(self._answers, 20, lambda: f"the agent answers:\n{self.process.tail()}")

    def _answers(self) -> bool:
        self.process.must_run()
        socket = self.host.folder / "api.sock"
        if not socket.exists():
            return False
        client = Client(f"unix://{socket}")
        try:
            client.status()
        except UnreachableError:
            client.close()  # it would wait before it tries again
            return False
        self._client = client
        return True

    @property
    def client(self) -> Client:
        """Its API, once it is ready."""
        assert self._client is not None
        return self._client

    def reload(self, text: str) -> None:
        """Give it another file, and return when it has taken it."""
        taken = len(self.logged("configuration taken"))
        self._file.write_text(text)
        self.process.signal(signal.SIGHUP)
        wait_until(lambda: len(self.logged("configuration taken")) > taken, 5, "the configuration is taken")

    def kill(self) -> None:
        if self._client is not None:
            self._client.close()
        self.process.kill()

    # -- peers ------------------------------------------------------------------------------------

    def peer(self, name: str) -> PeerStatus:
        """The peer of this name, as the API shows it."""
        (status,) = self.client.peers(name)
        return status

    def is_established(self, name: str) -> bool:
        return self.peer(name).state is SessionState.ESTABLISHED

    def wait_established(self, name: str, timeout: float = 20) -> PeerStatus:
        wait_until(
            partial(self.is_established, name),
            timeout,
            lambda: f"our session with {name}: {self.peer(name)}\n{self.process.tail()}",
        )
        return self.peer(name)

    def counts(self, name: str, family: str) -> FamilyCounts:
        """Prefixes of one peer and family."""
        return dict(self.peer(name).families)[Family.IPV4 if family == "ipv4" else Family.IPV6]

    def wait_error(self, name: str, text: str, timeout: float = 10) -> PeerStatus:
        """The peer, as soon as its last error contains `text`."""
        wait_until(
            lambda: text in getattr(self.peer(name).last_error, "text", ""),
            timeout,
            lambda: f"last error {text!r} of {name}; it is {self.peer(name).last_error}",
        )
        return self.peer(name)

    # -- routes -----------------------------------------------------------------------------------

    def paths(self, prefix: str, table: Table = Table.ADJ_IN_PRE, name: str = "") -> list[PathView]:
        """The paths of exactly this prefix."""
        peer_name = PeerName(name) if name else None
        return list(self.client.paths(RouteQuery(table, peer=peer_name, prefix=Prefix.parse(prefix))))

    def wait_path(
        self, prefix: str, good: Callable[[PathView], bool] | None = None, timeout: float = 10
    ) -> PathView:
        """The first path of a prefix in the Adj-RIB-In, as soon as it satisfies `good`."""
        found: list[PathView] = []

        def look() -> bool:
            found[:] = self.paths(prefix)[:1]
            return bool(found) and (good is None or good(found[0]))

        wait_until(look, timeout, lambda: f"our path to {prefix}; last seen: {found}")
        return found[0]

    def wait_refused(self, prefix: str, rule: str) -> PathView:
        """The path that import refuses by this rule; nothing of it is in the kernel."""
        path = self.wait_path(prefix, lambda view: view.rule == rule)
        assert not path.accepted
        assert path.reason
        assert self.kernel(prefix) is None
        return path

    def wait_gone(self, prefix: str, timeout: float = 10) -> None:
        """Return when neither the API nor the kernel has the prefix."""
        wait_until(
            lambda: not self.paths(prefix) and self.kernel(prefix) is None and not self.fib(prefix),
            timeout,
            lambda: f"{prefix} is gone; {self.paths(prefix)} {self.fib(prefix)} {self.kernel(prefix)}",
        )

    def fib(self, prefix: str) -> list[FibView]:
        """Its kernel entries, as the API shows them."""
        return list(self.client.fib(RouteQuery(Table.FIB, prefix=Prefix.parse(prefix))))

    # -- the kernel, asked by `ip` ----------------------------------------------------------------

    def kernel(self, prefix: str) -> KernelRoute | None:
        """Our learned entry in the kernel."""
        version = 4 if family_of(prefix) == "ipv4" else 6
        for route in kernel_routes(self.host.namespace, version, prefix):
            if (route.protocol, route.metric) == ("179", METRIC):
                assert route.destination == ip_network(prefix)
                return route
        return None

    def wait_kernel(self, prefix: str, *gateways: str, timeout: float = 10) -> KernelRoute:
        """The kernel's entry, as soon as it has exactly these gateways and the API says that it is there."""
        wanted = {ip_address(gateway) for gateway in gateways}
        seen: list[KernelRoute | None] = []

        def look() -> bool:
            seen[:] = [self.kernel(prefix)]
            return seen[0] is not None and seen[0].gateways == wanted

        wait_until(
            look, timeout, lambda: f"{prefix} via {gateways} in the kernel: {seen}, {self.paths(prefix)}"
        )
        wait_until(lambda: any(entry.installed for entry in self.fib(prefix)), 2, "the API has it installed")
        assert seen[0] is not None
        return seen[0]

    # -- the log ----------------------------------------------------------------------------------

    def logged(self, event: str, **keys: str | int | bool) -> list[dict[str, object]]:
        """The lines of this event that have these values."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        events = [msgspec.json.decode(line, type=dict[str, object]) for line in lines if line.endswith("}")]
        return [
            line
            for line in events
            if line["event"] == event and all(line.get(key) == value for key, value in keys.items())
        ]

    def wait_logged(self, event: str, **keys: str | int | bool) -> dict[str, object]:
        wait_until(
            lambda: bool(self.logged(event, **keys)),
            5,
            lambda: f"log line {event} with {keys}:\n{self.process.tail()}",
        )
        return self.logged(event, **keys)[0]


class RouteMonitor:
    """`ip monitor route` in a namespace, from `start` on."""

    def __init__(self, host: LanHost) -> None:
        self.process = Process(
            f"monitor on {host.name}",
            host.namespace,
            [ip_tool(), "-o", "monitor", "route"],
            host.folder / "monitor.log",
        )

    def start(self) -> None:
        self.process.start()
        time.sleep(0.1)  # it says nothing when it is ready

    def deleted(self, prefix: str) -> list[str]:
        """The deletions of this prefix that the kernel told of."""
        lines = self.process.log.read_text().splitlines()
        return [line for line in lines if line.startswith("Deleted") and prefix in line.split()]

    def kill(self) -> None:
        self.process.kill()
