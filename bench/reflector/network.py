"""The network of the reflector's bench: the agent bench's two namespaces, and thousands of clients in one.

Owns: what lets one process stand for thousands of addresses.  The clients' namespace takes 10.1.0.0/16 as
local, so that an address costs no interface address; the reflector's reaches the range through one gateway,
so that no neighbour table overflows.  Both are inside the link's 10.0.0.0/12, so that every next hop is on
the connected subnet, whatever a speaker makes of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.agent.topology import FEEDER_ADDRESSES, Cores, Topology, run, topology

CLIENTS = "10.1.0.0/16"
RANGE = "10.0.0.0/12"
SYSCTLS = ("net.core.somaxconn=8192", "net.ipv4.tcp_max_syn_backlog=8192")


@contextmanager
def network(cores: Cores) -> Iterator[Topology]:
    """The two namespaces: `feeder` for the clients, `daemon` for the reflector."""
    with topology(cores) as net:
        run("ip", "-n", net.feeder, "route", "add", "local", CLIENTS, "dev", "lo")
        run("ip", "-n", net.daemon, "route", "add", CLIENTS, "via", FEEDER_ADDRESSES[0], "dev", net.device)
        run("ip", "netns", "exec", net.daemon, "sysctl", "-qw", *SYSCTLS)
        yield net
