"""A BGP speaker on a real socket that reads only as much as it is told to: a reflector's client in tests."""

from __future__ import annotations

import asyncio
import socket

from bgpd.bgp import codec
from bgpd.bgp.message import Open, RouteRefresh
from bgpd.bgp.negotiate import Endpoints, agree
from bgpd.config import PeerConfig
from routes.path import PathAttributes, PeerKind, PeerName, Source
from routes.peer import Capabilities, GracefulRestart
from routes.prefix import Family, Prefix, parse_address
from routes.reflection import Role
from tests.fakes.reflected import Heard
from tests.fakes.reflection_model import ASN

PATIENCE = 10.0
BOTH = frozenset(Family)


class WireClient:
    """One speaker, from its own address.  `connect`, then `read` or `read_all`, `announce`, `withdraw`."""

    def __init__(
        self,
        address: str,
        number: int,
        role: Role = Role.CLIENT,
        *,
        add_paths: int = 0,
        enhanced: bool = True,
        families: frozenset[Family] = BOTH,
        receive_buffer: int = 0,
        graceful: bool = False,
    ) -> None:
        self.address = address
        self.role = role
        self.add_paths = add_paths
        self.families = families
        internal = role is not Role.EXTERNAL
        self.asn = ASN if internal else 65100 + number
        kind = PeerKind.IBGP if internal else PeerKind.EBGP
        self.source = Source(PeerName(address), kind, self.asn, number, parse_address(address))
        restart = GracefulRestart(
            30, notification=True, families=tuple((family, True) for family in sorted(families))
        )
        self.open = Open(
            self.asn,
            90,
            number,
            Capabilities(
                families=families,
                four_octet_asn=self.asn,
                route_refresh=True,
                enhanced_route_refresh=enhanced,
                add_path_receive=families if add_paths else frozenset(),
                graceful_restart=restart if graceful else None,
            ),
        )
        self._receive_buffer = receive_buffer
        self._socket: socket.socket | None = None

    @property
    def up(self) -> bool:
        return self._socket is not None

    async def connect(self, host: str, port: int) -> None:
        """Establish a session; whatever was known is forgotten.

        Tried again where the reflector still has the session before, or is asked too often.
        """
        async with asyncio.timeout(PATIENCE):
            while not self.up:
                try:
                    await self._try(host, port)
                except ConnectionResetError:
                    self.close()
                    await asyncio.sleep(0.02)

    async def _try(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._socket = sock = socket.socket()
        sock.setblocking(False)
        if self._receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((self.address, 0))
        await loop.sock_connect(sock, (host, port))
        sock.send(codec.encode_open(self.open))
        theirs = await self._next_open(codec.Decoder())
        reflector = PeerConfig(PeerName(host), parse_address(host), ASN, self.source.kind)
        ends = Endpoints(self.source.address, 0, parse_address(host), port)
        self.heard = Heard(agree(reflector, self.open, theirs, ends))
        self.send(codec.encode_keepalive())
        while not self.heard.keepalives:  # only then may UPDATEs be sent
            await asyncio.sleep(0)
            self.read()
            if not self.up:
                raise ConnectionResetError(f"the reflector said {self.heard.notification}")

    async def _next_open(self, decoder: codec.Decoder) -> Open:
        """Their OPEN, which comes alone: their KEEPALIVE answers ours."""
        assert self._socket is not None
        data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        message = next(iter(decoder.feed(data)), None)
        if not isinstance(message, Open):
            raise ConnectionResetError(f"the reflector said {message}")
        return message

    def send(self, data: bytes) -> None:
        assert self._socket is not None
        sent = self._socket.send(data)
        assert sent == len(data), "a test's UPDATEs fit the socket"

    def announce(self, attributes: PathAttributes, *prefixes: Prefix) -> None:
        for data in codec.encode_updates(attributes, prefixes, (), self.heard.negotiated):
            self.send(data)

    def withdraw(self, *prefixes: Prefix) -> None:
        for data in codec.encode_updates(None, (), prefixes, self.heard.negotiated):
            self.send(data)

    def end_of_rib(self) -> None:
        for family in self.families:
            self.send(codec.encode_end_of_rib(family, self.heard.negotiated))

    def refresh(self, family: Family) -> None:
        self.send(codec.encode_route_refresh(RouteRefresh(family)))

    def read(self, size: int = 1 << 16) -> int:
        """Take what has come, up to `size` bytes; how many that were."""
        if self._socket is None:
            return 0
        try:
            data = self._socket.recv(size)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            data = b""
        self.heard.feed(data)
        if not data:
            self.close()
        return len(data)

    def close(self) -> None:
        """The session is lost, without a word."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
