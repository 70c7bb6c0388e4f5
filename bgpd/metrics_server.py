"""The HTTP listener for Prometheus and for probes: `GET /metrics`, `/healthz` and `/readyz`.

A part of the daemon's event loop, so it may never hold it up: no threads, one answer for each
connection, and a bound on everything that a client can make grow (request size, connections, the time
to ask and to take the answer).  Metrics are rendered a slice in each turn of the loop, and once for all who
ask meanwhile.  It serves what `bgpd/metrics.py` renders and knows nothing of BGP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST

from bgpd.config import Endpoint
from routes.prefix import format_address

MOST_CONNECTIONS = 32
LONGEST_REQUEST = 8192
TIMEOUT = 10.0
"""Seconds for a whole exchange: the request, the answer, the close."""

Rendering = Generator[None, None, bytes]
"""Yields between slices, and returns the text."""
Page = Callable[[], Awaitable[tuple[HTTPStatus, bytes]]]
"""More metrics, which somebody else has; must end within the time of an exchange, and never raise."""
Finish = Callable[[bytes], None]
"""Takes the whole response."""

PATHS = ("/metrics", "/healthz", "/readyz")
_TEXT = "text/plain; charset=utf-8"


class MetricsServer:
    """`start` listens, `close` ends all at once."""

    def __init__(
        self,
        metrics: Callable[[], Rendering],
        unhealthy: Callable[[], str],
        *,
        unready: Callable[[], str] = str,
        pages: Mapping[str, Page] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        """`unhealthy` and `unready` say in a sentence why the daemon is that; empty when it is not.

        `pages` are served beside, by their paths.
        """
        self.answer_with(metrics, unhealthy, unready)
        self.endpoint: Endpoint | None = None
        """Where it was told to listen."""
        self._pages = pages or {}
        self._relayed: set[asyncio.Task[None]] = set()
        self._timeout = timeout
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._rendering: Rendering | None = None
        self._waiting: list[Finish] = []

    def answer_with(
        self, metrics: Callable[[], Rendering], unhealthy: Callable[[], str], unready: Callable[[], str]
    ) -> None:
        """Answer for another part of the daemon from now on; who asked already is answered by the old one."""
        self._metrics = metrics
        self._unhealthy = unhealthy
        self._unready = unready

    async def start(self, endpoint: Endpoint) -> None:
        """Listen; OSError when the address is not ours or the port is taken."""
        self.endpoint = endpoint
        loop = asyncio.get_running_loop()
        host = format_address(endpoint.address)
        self._server = await loop.create_server(
            lambda: _Connection(self._answer, self._connections, self._timeout),
            host,
            endpoint.port,
            backlog=MOST_CONNECTIONS,
        )

    async def close(self) -> None:
        if self._server is None:
            return
        self._end_rendering()
        for task in self._relayed:
            task.cancel()
        self._server.close()
        for connection in tuple(self._connections):
            connection.abort()
        await self._server.wait_closed()
        self._server = None

    @property
    def port(self) -> int:
        """Where it listens; of use when port 0 was asked for."""
        assert self._server is not None  # noqa: S101  a caller's mistake, not a state of the network
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _answer(self, method: str, path: str, finish: Finish) -> None:
        path = path.partition("?")[0]
        if path not in PATHS and path not in self._pages:
            finish(_response(HTTPStatus.NOT_FOUND, b"There are /metrics, /healthz and /readyz.\n"))
        elif method != "GET":
            finish(_response(HTTPStatus.METHOD_NOT_ALLOWED, b"", extra="Allow: GET\r\n"))
        elif path == "/metrics":
            self._waiting.append(finish)
            if self._rendering is None:
                self._rendering = self._metrics()
                self._render(self._rendering)
        elif path in self._pages:
            task = asyncio.ensure_future(self._relay(self._pages[path], finish))
            self._relayed.add(task)
            task.add_done_callback(self._relayed.discard)
        else:
            finish(self._probed(path))

    @staticmethod
    async def _relay(page: Page, finish: Finish) -> None:
        status, body = await page()
        finish(_response(status, body, CONTENT_TYPE_LATEST if status is HTTPStatus.OK else _TEXT))

    def _probed(self, path: str) -> bytes:
        """An unhealthy daemon is not ready either; one that is not ready may be healthy, and says both."""
        if reason := self._unhealthy():
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n".encode())
        if not (reason := self._unready()):
            return _response(HTTPStatus.OK, b"ok\n")
        if path == "/readyz":
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n".encode())
        return _response(HTTPStatus.OK, f"ok, but not ready: {reason}\n".encode())

    def _render(self, rendering: Rendering) -> None:
        """One slice; the last one answers everybody who has asked by now."""
        if rendering is not self._rendering:
            return
        try:
            next(rendering)
        except StopIteration as end:
            waiting = self._end_rendering()
            response = _response(HTTPStatus.OK, end.value, CONTENT_TYPE_LATEST)
            for finish in waiting:
                finish(response)
        except Exception:
            self._end_rendering()  # the next one who asks begins anew
            raise
        else:
            asyncio.get_running_loop().call_soon(self._render, rendering)

    def _end_rendering(self) -> list[Finish]:
        self._rendering = None
        waiting, self._waiting = self._waiting, []
        return waiting


def _response(status: HTTPStatus, body: bytes, content_type: str = _TEXT, extra: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{extra}\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One request, one answer, and the end."""

    def __init__(
        self, answer: Callable[[str, str, Finish], None], others: set[_Connection], timeout: float
    ) -> None:
        self._answer = answer
        self._others = others
        self._timeout = timeout
        self._received = bytearray()
        self._asked = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  what create_server promises
        self._transport = transport
        if len(self._others) >= MOST_CONNECTIONS:
            transport.abort()
            return
        self._others.add(self)
        self._deadline = asyncio.get_running_loop().call_later(self._timeout, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._asked:
            return
        self._received += data
        if b"\r\n\r\n" in self._received:
            self._asked = True
            self._reply()
        elif len(self._received) > LONGEST_REQUEST:
            self._asked = True
            self._finish(_response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b""))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the signature of asyncio.Protocol
        self._others.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _reply(self) -> None:
        words = self._received.partition(b"\r\n")[0].decode("latin-1").split(" ")
        self._received.clear()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._finish(_response(HTTPStatus.BAD_REQUEST, b""))
        else:
            self._answer(words[0], words[1], self._finish)

    def _finish(self, response: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(response)
            self._transport.close()
