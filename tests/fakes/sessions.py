"""Speakers on real sockets, for tests of sessions: each has a listener and one peer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random

from bgpd.bgp.listener import Listener
from bgpd.bgp.session import LocalState, PeerSession, RoutingMessage, SessionClosed
from bgpd.config import Endpoint, PeerConfig, SpeakerConfig
from bgpd.event_loop import EventLoop
from routes.path import PeerKind, PeerName
from routes.prefix import parse_address


class Recorder:
    """A `SessionHandler` that remembers."""

    def __init__(self) -> None:
        self.up = 0
        self.closed: list[SessionClosed] = []
        self.messages: list[RoutingMessage] = []
        self.batches = 0

    def session_established(self, session: PeerSession) -> None:
        assert session.negotiated is not None
        assert session.source is not None
        self.up += 1

    def messages_received(self, session: PeerSession, messages: list[RoutingMessage]) -> None:
        assert session.source is not None
        self.batches += 1
        self.messages += messages

    def session_closed(self, session: PeerSession, closed: SessionClosed) -> None:
        assert session.negotiated is not None
        self.closed.append(closed)


class Speaker:
    """One address on the loopback, listening on a port that the kernel chooses."""

    def __init__(self, address: str, asn: int = 65000, router_id: int = 0) -> None:
        self.address = address
        packed = parse_address(address)
        router_id = router_id or int.from_bytes(packed[-4:], "big")
        self.config = SpeakerConfig(asn, router_id, connect_retry=0.2, connect_retry_max=0.5)
        self.recorder = Recorder()
        self.local = LocalState()
        self.listener = Listener([Endpoint(packed, 0)])
        self.listener.start()
        (self.port,) = self.listener.ports
        self.sessions: list[PeerSession] = []

    def peer_with(self, other: Speaker, **fields: object) -> PeerSession:
        """A session with `other`; `fields` are those of `PeerConfig`."""
        kind = PeerKind.IBGP if other.config.asn == self.config.asn else PeerKind.EBGP
        settings: dict[str, object] = {
            "name": PeerName(other.address),
            "address": parse_address(other.address),
            "asn": other.config.asn,
            "kind": kind,
            "port": other.port,
            "source_address": parse_address(self.address),
            **fields,
        }
        config = PeerConfig(**settings)  # type: ignore[arg-type] # named by the caller
        session = PeerSession(config, self.config, self.recorder, self.local, random=Random(1))
        self.sessions.append(session)
        self.listener.add(session)
        return session

    async def close(self) -> None:
        self.listener.close()
        for session in self.sessions:
            await session.stop(None)


@asynccontextmanager
async def closing(*speakers: Speaker) -> AsyncIterator[None]:
    """Close these at the end, also of a test that fails."""
    try:
        yield
    finally:
        for speaker in speakers:
            await speaker.close()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, "waited in vain"
        await asyncio.sleep(0.005)


def run(test: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run an asynchronous test; what a callback raises fails it."""

    async def main() -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        await test()
        await asyncio.sleep(0)
        assert faults == []

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(main())
