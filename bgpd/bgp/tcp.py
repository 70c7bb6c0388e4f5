"""The sockets of BGP: every option that a session needs, set before the first packet.

MD5 signatures (RFC 2385, `TCP_MD5SIG`), the generalised TTL security mechanism (RFC 5082, `IP_MINTTL` and
`IPV6_MINHOPCOUNT`), the TTL of eBGP, source addresses and link-local zones.  Linux only; the numbers that
Python's socket module lacks are from <linux/tcp.h>, <linux/in.h> and <linux/in6.h>.  All sockets are
non-blocking and closed on exec.  Nothing here waits or keeps state.
"""

from __future__ import annotations

import socket
import struct

from bgpd.bgp.negotiate import Endpoints
from bgpd.config import Endpoint, PeerConfig
from bgpd.errors import PeerError
from routes.path import PeerKind
from routes.prefix import Address, format_address, is_link_local

TCP_MD5SIG = 14
_TCP_MD5SIG_EXT = 32
_MD5_PREFIX = 1
TCP_MD5SIG_MAXKEYLEN = 80
TCP_SAVE_SYN = 27
TCP_SAVED_SYN = 28
IP_MINTTL = 21
IPV6_MINHOPCOUNT = 73

_MAPPED = b"\x00" * 10 + b"\xff\xff"
_BACKLOG = 65535
"""Thousands of clients return at once after a restart; the kernel cuts this to net.core.somaxconn."""
_MAX_TTL = 255
_DEFAULT_TTL = 64

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""What the socket module calls an address: `(host, port)`, for IPv6 with flow label and zone."""


def connecting_socket(config: PeerConfig) -> socket.socket:
    """A socket ready for `connect(peer_address(config))`; OSError where the kernel refuses an option."""
    sock = _stream_socket(config.address)
    try:
        _set_ttl(sock, config.address, outgoing_ttl(config))
        if config.ttl_security:
            set_least_ttl(sock, config.address, least_ttl(config))
        if config.password:
            set_md5(sock, config.address, config.password)
        if config.source_address is not None:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind(_socket_address(config.source_address, 0, config.interface))
    except BaseException:
        sock.close()
        raise
    return sock


def listening_socket(endpoint: Endpoint) -> socket.socket:
    """A socket that listens; OSError where the address is not ours or the port is taken."""
    sock = _stream_socket(endpoint.address)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if len(endpoint.address) == 16:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # For `_ttl_of_syn`: what came between a handshake and `prepare_accepted` has passed no other check.
        sock.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
        # The SYN-ACK must pass a peer's TTL security, and its peer is not known before accept.
        _set_ttl(sock, endpoint.address, _MAX_TTL)
        sock.bind(_socket_address(endpoint.address, endpoint.port, ""))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def prepare_accepted(sock: socket.socket, config: PeerConfig) -> None:
    """Options of a connection that `config`'s peer opened; PeerError if it came from too far away."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _set_ttl(sock, config.address, outgoing_ttl(config))
    if config.ttl_security:
        least, ttl = least_ttl(config), _ttl_of_syn(sock)
        set_least_ttl(sock, config.address, least)
        if ttl < least:
            raise PeerError(f"TTL security: a connection came with TTL {ttl}, and {least} is the least")
    if config.password:
        # The listener's key is inherited; but if the kernel had refused it there, anything was let in.
        set_md5(sock, config.address, config.password)


def peer_address(config: PeerConfig) -> SocketAddress:
    """Where to connect to."""
    return _socket_address(config.address, config.port, config.interface)


def outgoing_ttl(config: PeerConfig) -> int:
    """255 with TTL security; 1 for a direct eBGP neighbour; else far enough."""
    if config.ttl_security:
        return _MAX_TTL
    if config.kind is PeerKind.EBGP:
        return config.multihop or 1
    return _DEFAULT_TTL


def least_ttl(config: PeerConfig) -> int:
    """The least TTL that a packet from `ttl_security` hops away arrives with (RFC 5082 section 3)."""
    return _MAX_TTL + 1 - config.ttl_security


def set_least_ttl(sock: socket.socket, address: Address, ttl: int) -> None:
    """Let the kernel drop segments that came from further away; 0 takes all."""
    if len(address) == 4:
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, ttl)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT, ttl)


def set_md5(sock: socket.socket, peer: Address, password: str, prefix_length: int | None = None) -> None:
    """Sign and check every segment to and from `peer`; an empty password takes the key away again.

    With `prefix_length` the key is for all addresses of that prefix (Linux 4.13).
    """
    key = password.encode()
    if len(key) > TCP_MD5SIG_MAXKEYLEN:
        raise OSError(f"a TCP MD5 password has at most {TCP_MD5SIG_MAXKEYLEN} bytes, this has {len(key)}")
    # struct tcp_md5sig: sockaddr_storage, flags, prefix length, key length, ifindex, key.
    if len(peer) == 4:
        sockaddr = struct.pack("=HH4s", socket.AF_INET, 0, peer)
    else:
        sockaddr = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, peer, 0)
    if prefix_length is None:
        option = struct.pack("=128sBBHi80s", sockaddr, 0, 0, len(key), 0, key)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, option)
    else:
        option = struct.pack("=128sBBHi80s", sockaddr, _MD5_PREFIX, prefix_length, len(key), 0, key)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_MD5SIG_EXT, option)


def endpoints(sock: socket.socket, ifindex: int = 0) -> Endpoints:
    """Both ends of a connected socket; the zone of a link-local peer is its interface."""
    local, local_port, _ = _split(sock.getsockname())
    peer, peer_port, zone = _split(sock.getpeername())
    return Endpoints(local, local_port, peer, peer_port, zone or ifindex)


def accepted_from(address: SocketAddress) -> tuple[Address, int]:
    """The source of an accepted connection: a mapped address as IPv4, and the zone if link-local."""
    source, _, zone = _split(address)
    return source, zone


def _stream_socket(address: Address) -> socket.socket:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _ttl_of_syn(sock: socket.socket) -> int:
    """The TTL or hop limit that the handshake began with; the most there is if SYN cookies lost it."""
    header = sock.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 1024)
    if len(header) < 20:
        return _MAX_TTL
    return header[8] if header[0] >> 4 == 4 else header[7]


def _set_ttl(sock: socket.socket, address: Address, ttl: int) -> None:
    if len(address) == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)


def _socket_address(address: Address, port: int, interface: str) -> SocketAddress:
    text = format_address(address)
    if len(address) == 4:
        return text, port
    zone = socket.if_nametoindex(interface) if interface and is_link_local(address) else 0
    return text, port, 0, zone


def _split(address: SocketAddress) -> tuple[Address, int, int]:
    host, port, *rest = address
    host = host.partition("%")[0]
    if len(rest) < 2:
        return Address(socket.inet_pton(socket.AF_INET, host)), port, 0
    packed = socket.inet_pton(socket.AF_INET6, host)
    if packed.startswith(_MAPPED):
        return Address(packed[12:]), port, 0
    return Address(packed), port, rest[1]
