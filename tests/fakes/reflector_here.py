"""A whole reflector in this process, on the loopback, on a port that the kernel chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import structlog
from structlog.testing import capture_logs

from bgpd.config import (
    ClientRange,
    Config,
    Endpoint,
    ImportConfig,
    PeerConfig,
    ReflectorConfig,
    SpeakerConfig,
)
from bgpd.log import Logger
from bgpd.process import Leaving
from bgpd.reflector import Reflector
from bgpd.throttle import Throttle
from routes.path import PeerKind, PeerName
from routes.prefix import Prefix, parse_address
from tests.fakes.reflection_model import ALLOW, ASN, CLUSTER_ID, ROUTER_ID

HOST = "127.0.0.1"


def client_range(text: str, **fields: object) -> ClientRange:
    """A range of our own AS, without a state that outlives the test."""
    return ClientRange(Prefix.parse(text), **{"asn": ASN, "max_sessions": 100, **fields})  # type: ignore[arg-type] # named by the caller


def passive_peer(address: str, asn: int = ASN, **fields: object) -> PeerConfig:
    """A `[[peers]]` entry that waits to be connected to."""
    kind = PeerKind.IBGP if asn == ASN else PeerKind.EBGP
    config = PeerConfig(PeerName(address), parse_address(address), asn, kind, passive=True)
    return replace(config, **fields)  # type: ignore[arg-type] # named by the caller


def reflector_config(
    folder: Path, *clients: ClientRange, peers: tuple[PeerConfig, ...] = (), state_file: str = ""
) -> Config:
    """What `[import] allow` of the model admits, and an API that nobody else has."""
    return Config(
        "reflector.toml",
        SpeakerConfig(ASN, ROUTER_ID, (Endpoint(parse_address(HOST), 0),)),
        peers=peers,
        imports=ImportConfig(ALLOW),
        reflector=ReflectorConfig(CLUSTER_ID, clients, state_file=state_file),
        api_listen=f"unix://{folder}/api.sock",
    )


@contextmanager
def logged() -> Iterator[list[MutableMapping[str, object]]]:
    """What is logged meanwhile, as the daemon logs; none is left out because of what came before."""
    structlog.configure(wrapper_class=Logger)
    try:
        with capture_logs() as lines, patch("bgpd.daemon.repeated", Throttle(structlog.get_logger())):
            yield lines
    finally:
        structlog.reset_defaults()


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[tuple[Reflector, int]]:
    """The reflector and its port; it is stopped at the end, and nothing of it may have failed."""
    async with asyncio.TaskGroup() as tasks:
        reflector = Reflector(config, tasks)
        await reflector.start()
        try:
            (port,) = reflector.daemon.listener.ports
            yield reflector, port
        finally:
            reflector.leave(Leaving(None))
            await reflector.finish()
