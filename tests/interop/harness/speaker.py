"""What the tests ask of a real BGP daemon, whichever it is.

Each daemon's module turns these values into its own configuration, and what its own client prints into
`SeenPath`.  Prefixes and addresses are text in their usual form, since that is what the clients speak.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from typing import ClassVar

from tests.interop.harness.lan import LanHost

FAMILIES = ("ipv4", "ipv6")


@dataclass(frozen=True)
class Neighbor:
    """A session, from the daemon's side."""

    address: str
    asn: int
    local_address: str
    families: tuple[str, ...] = FAMILIES
    password: str = ""
    ttl_security: bool = False
    """The neighbour is one hop away, and packets from further away are dropped (RFC 5082)."""
    multihop: int = 0
    passive: bool = False
    extended_next_hop: bool = False
    """Announce IPv4 prefixes with an IPv6 next hop (RFC 8950), over an IPv6 session."""
    hold_time: int = 90
    graceful_restart: bool = False
    """Ask to have its routes kept while it restarts (RFC 4724), with forwarding state preserved."""
    restart_time: int = 60
    """For so many seconds."""
    client: bool = False
    """It is a client of the daemon, which is a route reflector (RFC 4456)."""
    add_path: bool = False
    """Ask it for several paths to each prefix (RFC 7911)."""


@dataclass(frozen=True)
class Announcement:
    """A prefix of the daemon's own, with the attributes that it is announced with."""

    prefix: str
    med: int | None = None
    local_pref: int | None = None
    communities: tuple[str, ...] = ()
    """As `65000:1`."""
    large_communities: tuple[str, ...] = ()
    """As `65000:1:2`."""
    prepend: tuple[int, ...] = ()
    """AS numbers in front of the empty path."""
    next_hop: str = ""
    """Another than its own address."""

    @property
    def family(self) -> str:
        return family_of(self.prefix)


@dataclass(frozen=True)
class SeenPath:
    """One path in the daemon's RIB, as its own client shows it."""

    prefix: str
    next_hop: str
    as_path: tuple[int, ...] = ()
    origin: str = ""
    """`igp`, `egp` or `incomplete`."""
    med: int | None = None
    local_pref: int | None = None
    communities: frozenset[str] = frozenset()
    large_communities: frozenset[str] = frozenset()
    originator_id: str = ""
    cluster_list: tuple[str, ...] = ()
    best: bool = False


class Speaker(ABC):
    """A BGP daemon in a namespace."""

    daemon: ClassVar[str]
    carries_other_family: ClassVar[bool] = True
    """Whether it can announce IPv6 prefixes over an IPv4 session, and the other way round."""
    can_refresh: ClassVar[bool] = True
    """Whether its client can make it send a route refresh."""

    def __init__(self, host: LanHost, asn: int, neighbors: tuple[Neighbor, ...] = ()) -> None:
        self.host = host
        self.asn = asn
        self.neighbors = neighbors
        self.announced: dict[str, Announcement] = {}
        self.text = ""
        """A configuration to start with instead of its own."""
        self.cluster_id = ""
        """As a route reflector, where it is not the router ID."""

    @property
    def router_id(self) -> str:
        return self.host.ipv4

    @property
    def reflects(self) -> bool:
        return any(neighbor.client for neighbor in self.neighbors)

    @abstractmethod
    def start(self) -> None:
        """Start it with its neighbours and announcements; returns when it answers."""

    @abstractmethod
    def kill(self) -> None:
        """`kill -9`."""

    def announce(self, *announcements: Announcement) -> None:
        """Announce these, instead of what was announced for the same prefixes; also while it runs."""
        self.announced |= {announcement.prefix: announcement for announcement in announcements}
        self.apply(tuple(announcements), ())

    def withdraw(self, *prefixes: str) -> None:
        """Withdraw prefixes; also while it runs."""
        gone = tuple(self.announced.pop(prefix) for prefix in prefixes)
        self.apply((), gone)

    @abstractmethod
    def apply(self, announced: tuple[Announcement, ...], withdrawn: tuple[Announcement, ...]) -> None:
        """Make the running daemon follow `self.announced`; does nothing before it was started."""

    @abstractmethod
    def state(self, neighbor: str) -> str:
        """The session's state in its own client's words, lower case; empty when there is none."""

    @abstractmethod
    def refresh(self, neighbor: str) -> None:
        """Ask the neighbour for all of its routes again (RFC 2918)."""

    @abstractmethod
    def shut_down(self, neighbor: str, message: str) -> None:
        """End the session for good, with a message to the neighbour's operator (RFC 9003)."""

    @abstractmethod
    def shutdown_heard(self, neighbor: str) -> str:
        """What it shows or logs of a session that the neighbour ended; contains the message."""

    @abstractmethod
    def paths(self, prefix: str) -> list[SeenPath]:
        """Every path to exactly this prefix that it holds."""

    def best_path(self, prefix: str) -> SeenPath | None:
        """The path that it selected."""
        return next((path for path in self.paths(prefix) if path.best), None)

    def is_established(self, neighbor: str) -> bool:
        return self.state(neighbor) == "established"

    def wait_established(self, *neighbors: str, timeout: float = 20) -> None:
        """Return when the sessions with these, or with all, are up."""
        for address in neighbors or tuple(neighbor.address for neighbor in self.neighbors):
            wait_until(
                partial(self.is_established, address), timeout, f"{self.daemon}: session with {address}"
            )

    def wait_best(
        self, prefix: str, good: Callable[[SeenPath], bool] | None = None, timeout: float = 10
    ) -> SeenPath:
        """The selected path of a prefix, as soon as there is one that satisfies `good`."""
        found: list[SeenPath] = []

        def look() -> bool:
            path = self.best_path(prefix)
            if path is not None:
                found.append(path)
            return path is not None and (good is None or good(path))

        wait_until(look, timeout, lambda: f"{self.daemon}: path to {prefix}; last seen: {found[-1:]}")
        return found[-1]

    def wait_gone(self, prefix: str, timeout: float = 10) -> None:
        """Return when it holds no path to the prefix."""
        wait_until(lambda: not self.paths(prefix), timeout, f"{self.daemon}: {prefix} is withdrawn")


def wait_until(good: Callable[[], bool], timeout: float, what: str | Callable[[], str]) -> None:
    """Ask again and again; AssertionError names what did not come true."""
    end = time.monotonic() + timeout
    while not good():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.05)


def family_of(prefix: str) -> str:
    """`ipv4` or `ipv6`."""
    return f"ipv{ip_network(prefix).version}"
