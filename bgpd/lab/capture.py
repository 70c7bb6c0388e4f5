"""What really crosses the fabric: packets as they are between the nodes, read on the wire.

Owns packet sockets in the fabric's namespaces, which every packet between two nodes passes.  It shows that
pods' packets travel as they are, without another header around them and with their own addresses.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import NamedTuple, Self

from bgpd.lab import netns
from bgpd.lab.icmp import ECHO_REQUEST
from bgpd.lab.plan import Address

ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
ETH_P_IPV6 = 0x86DD
PING = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
BUFFER = 8 << 20
MOST_PACKETS = 100_000
"""A drain stops there, however fast packets arrive."""

TUNNELS = {4: "IP in IP", 41: "IPv6 in IP", 47: "GRE", 50: "ESP", 94: "IPIP", 115: "L2TP"}
TUNNEL_PORTS = {4789: "VXLAN", 8472: "VXLAN", 6081: "Geneve", 51820: "WireGuard"}


class Ping(NamedTuple):
    """An echo request as seen on the wire."""

    source: Address
    target: Address


@dataclass
class Capture:
    """Reads every packet that enters the given namespaces, from `with` until its end."""

    namespaces: tuple[str, ...]
    pings: set[Ping] = field(default_factory=set)
    tunnels: Counter[str] = field(default_factory=Counter)
    """Encapsulated packets by kind; must stay empty."""
    _sockets: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> Self:
        for namespace in self.namespaces:
            packets = netns.open_socket(
                namespace, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)
            )
            packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            packets.setblocking(False)
            self._sockets.append(packets)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for packets in self._sockets:
            packets.close()

    def drain(self) -> None:
        """Read what has arrived."""
        for packets in self._sockets:
            for _ in range(MOST_PACKETS):
                try:
                    packet, (_device, protocol, direction, *_rest) = packets.recvfrom(256)
                except BlockingIOError:
                    break
                if direction == socket.PACKET_OUTGOING:
                    continue  # seen when it came in
                if protocol == ETH_P_IP:
                    self._read_ipv4(packet)
                elif protocol == ETH_P_IPV6:
                    self._read_ipv6(packet)

    def _read_ipv4(self, packet: bytes) -> None:
        if len(packet) < 20:
            return
        start = (packet[0] & 0x0F) * 4
        source, target = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
        self._read(4, packet[9], packet[start:], source, target)

    def _read_ipv6(self, packet: bytes) -> None:
        if len(packet) < 40:
            return
        source, target = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
        self._read(6, packet[6], packet[40:], source, target)

    def _read(self, version: int, protocol: int, body: bytes, source: Address, target: Address) -> None:
        if protocol in TUNNELS:
            self.tunnels[TUNNELS[protocol]] += 1
        elif protocol == socket.IPPROTO_UDP and len(body) >= 8:
            (port,) = struct.unpack_from("!H", body, 2)
            if port in TUNNEL_PORTS:
                self.tunnels[TUNNEL_PORTS[port]] += 1
        elif protocol == PING[version] and body[:1] == bytes([ECHO_REQUEST[version]]):
            self.pings.add(Ping(source, target))
