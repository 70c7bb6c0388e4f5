"""The metrics of the reflector beside an agent, relayed by the agent.

Which nodes reflect changes, and nobody writes it on pods or Nodes.  So who scrapes asks every agent, at the
port that it asks anyway: a node that does not reflect has an empty page instead of a closed port, and no
second port of the host is open to others.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from bgpd.config import Endpoint
from bgpd.config_file import load_host
from bgpd.kube.reflector_child import ReflectorChild
from routes.prefix import format_address, parse_address

PATH = "/metrics/reflector"
TIMEOUT = 8.0
"""Seconds for the whole exchange with the reflector: it renders 5,000 clients in slices."""
MOST_BYTES = 16 << 20
REQUEST = b"GET /metrics HTTP/1.0\r\n\r\n"

_LOOPBACK = {4: parse_address("127.0.0.1"), 16: parse_address("::1")}
"""Where a listener at the unspecified address is reached, by the size of an address."""

Answer = tuple[HTTPStatus, bytes]


class ReflectorMetrics:
    """Asks the reflector whenever the agent is asked."""

    def __init__(self, child: ReflectorChild, config: str | None) -> None:
        """`config`: the file with the reflector's settings of this host."""
        self._child = child
        self._endpoint = None if config is None else load_host(config, "reflector").metrics_listen

    async def __call__(self) -> Answer:
        if self._endpoint is None or not self._child.wanted:
            return HTTPStatus.OK, b""
        if not self._child.running:
            return HTTPStatus.SERVICE_UNAVAILABLE, b"this node is elected, and its reflector does not run\n"
        try:
            async with asyncio.timeout(TIMEOUT):
                return await _fetch(self._endpoint)
        except (OSError, TimeoutError) as error:
            return HTTPStatus.BAD_GATEWAY, f"the reflector does not answer: {error or 'too slow'}\n".encode()


async def _fetch(endpoint: Endpoint) -> Answer:
    """One exchange; the reflector closes the connection after its answer."""
    address = endpoint.address if any(endpoint.address) else _LOOPBACK[len(endpoint.address)]
    reader, writer = await asyncio.open_connection(format_address(address), endpoint.port)
    try:
        writer.write(REQUEST)
        answer = bytearray()
        while part := await reader.read(1 << 16):
            answer += part
            if len(answer) > MOST_BYTES:
                return HTTPStatus.BAD_GATEWAY, f"the reflector's metrics exceed {MOST_BYTES} bytes\n".encode()
    finally:
        writer.close()
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        return HTTPStatus.BAD_GATEWAY, b"the reflector did not answer with its metrics\n"
    return HTTPStatus.OK, body
