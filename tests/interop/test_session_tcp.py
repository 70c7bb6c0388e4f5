"""Our sessions against BIRD over a real link: MD5, TTL security, link-local peers, both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Self

import pytest

from bgpd.bgp.listener import Listener
from bgpd.bgp.notifications import Cease, cease
from bgpd.bgp.session import LocalState, PeerSession
from bgpd.config import Endpoint, PeerConfig, SpeakerConfig
from bgpd.lab import netns
from bgpd.lab.workspace import claim
from routes.path import PeerKind, PeerName
from routes.peer import SessionState
from routes.prefix import parse_address
from tests.fakes.sessions import Recorder, until
from tests.interop.harness.bird import BirdSpeaker
from tests.interop.harness.lan import DEVICE, LanHost, build_lan
from tests.interop.harness.speaker import Announcement, Neighbor, wait_until

StartBird = Callable[..., BirdSpeaker]

OUR_AS = 65000
LINK_LOCAL = {"ours": "fe80::a", "bird": "fe80::b"}


@pytest.fixture
def lan() -> Iterator[tuple[LanHost, LanHost]]:
    workspace = claim("ses")
    try:
        ours, bird = build_lan(workspace, "ours", "bird")
        for host in (ours, bird):
            address = netns.add_address(DEVICE, f"{LINK_LOCAL[host.name]}/64")
            netns.batch(host.namespace, [address])
        yield ours, bird
    finally:
        workspace.remove()


def in_host(host: LanHost, test: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run an asynchronous test with its sockets in a host's namespace."""
    faults: list[BaseException] = []

    def main() -> None:
        try:
            asyncio.run(test())
        except BaseException as fault:  # noqa: BLE001 - carried to the test's own thread
            faults.append(fault)

    netns.call_in(host.namespace, main)
    if faults:
        raise faults[0]


def peer_config(address: str, asn: int, **fields: object) -> PeerConfig:
    host, _, zone = address.partition("%")
    config = PeerConfig(
        name=PeerName(address),
        address=parse_address(host),
        asn=asn,
        kind=PeerKind.IBGP if asn == OUR_AS else PeerKind.EBGP,
        interface=zone,
    )
    return replace(config, **fields)  # type: ignore[arg-type] # a table of fields


class Us:
    """Our speaker: a listener on both families, and one session."""

    def __init__(self, config: PeerConfig) -> None:
        speaker = SpeakerConfig(OUR_AS, 0xC0000201, connect_retry=0.5, connect_retry_max=1.0)
        self.recorder = Recorder()
        self.session = PeerSession(config, speaker, self.recorder, LocalState())
        everywhere = [Endpoint(parse_address(text), 179) for text in ("0.0.0.0", "::")]
        self.listener = Listener(everywhere)
        self.listener.start()
        self.listener.add(self.session)
        self.session.start()

    def established(self) -> bool:
        return self.session.state is SessionState.ESTABLISHED

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        await self.session.stop(cease(Cease.ADMIN_SHUTDOWN))


CASES: dict[str, tuple[str, int, dict[str, object]]] = {
    "ibgp-ipv4-md5": ("ipv4", OUR_AS, {"password": "s3cret"}),
    "ibgp-ipv6-md5": ("ipv6", OUR_AS, {"password": "s3cret"}),
    "ebgp-ipv4-ttl": ("ipv4", 65001, {"ttl_security": 1}),
    "ebgp-ipv6-ttl-md5": ("ipv6", 4200000001, {"ttl_security": 1, "password": "s3cret"}),
    "ibgp-we-are-passive": ("ipv4", OUR_AS, {"passive": True, "password": "s3cret"}),
    "ebgp-link-local": ("link-local", 65001, {}),
    "ebgp-link-local-passive-md5": ("link-local", 65001, {"passive": True, "password": "s3cret"}),
}


def addresses(family: str, ours: LanHost, bird: LanHost) -> tuple[str, str]:
    if family == "link-local":
        return f"{LINK_LOCAL['ours']}%{DEVICE}", f"{LINK_LOCAL['bird']}%{DEVICE}"
    return ours.address(family), bird.address(family)


@pytest.fixture
def start_bird(lan: tuple[LanHost, LanHost]) -> Iterator[StartBird]:
    _, host = lan
    running: list[BirdSpeaker] = []

    def start(asn: int, ours: str, local: str, **fields: object) -> BirdSpeaker:
        neighbor = Neighbor(ours, OUR_AS, local.partition("%")[0])
        bird = BirdSpeaker(host, asn, (replace(neighbor, **fields),))  # type: ignore[arg-type] # a table of fields
        bird.announce(Announcement("198.51.100.0/24"), Announcement("2001:db8:1::/48"))
        running.append(bird)
        bird.start()
        return bird

    yield start
    for bird in running:
        bird.kill()


@pytest.mark.parametrize("case", CASES)
def test_a_session_with_bird_comes_up_and_carries_routes(
    case: str, lan: tuple[LanHost, LanHost], start_bird: StartBird
) -> None:
    ours, host = lan
    family, asn, fields = CASES[case]
    our_address, bird_address = addresses(family, ours, host)
    bird = start_bird(
        asn,
        our_address,
        bird_address,
        password=str(fields.get("password", "")),
        ttl_security=bool(fields.get("ttl_security")),
    )

    async def test() -> None:
        async with Us(peer_config(bird_address, asn, **fields)) as us:
            await until(us.established, 15)
            await until(lambda: len(us.recorder.messages) >= 2, 10)
            negotiated = us.session.negotiated
            assert negotiated is not None
            assert (negotiated.ifindex != 0) == (family == "link-local")
            wait_until(lambda: bird.is_established(our_address), 5, "BIRD has the session")
        wait_until(lambda: not bird.is_established(our_address), 5, "BIRD took our NOTIFICATION")

    in_host(ours, test)


@pytest.mark.parametrize(
    ("fields", "theirs"),
    [({"password": "right"}, {"password": "wrong"}), ({"ttl_security": 1}, {}), ({}, {"ttl_security": True})],
)
def test_a_mismatch_keeps_the_session_down(
    fields: dict[str, object],
    theirs: dict[str, object],
    lan: tuple[LanHost, LanHost],
    start_bird: StartBird,
) -> None:
    ours, host = lan
    bird = start_bird(65001, ours.ipv4, host.ipv4, **theirs)

    async def test() -> None:
        async with Us(peer_config(host.ipv4, 65001, **fields)) as us:
            await asyncio.sleep(4)
            # With TTL security on its side alone, BIRD takes what came before it has set its least TTL.
            assert us.recorder.up == 0 or "ttl_security" in theirs
            error = us.session.last_error
            if "password" in fields:
                assert error is not None
                assert "the peer may not have the same password" in error.text
            assert not bird.is_established(ours.ipv4)

    in_host(ours, test)


def test_a_killed_bird_is_lost_at_once_and_comes_back(
    lan: tuple[LanHost, LanHost], start_bird: StartBird
) -> None:
    ours, host = lan
    bird = start_bird(OUR_AS, ours.ipv4, host.ipv4, password="s3cret")

    async def test() -> None:
        async with Us(peer_config(host.ipv4, OUR_AS, password="s3cret")) as us:
            await until(us.established, 15)
            await asyncio.to_thread(bird.kill)
            await until(lambda: us.recorder.closed != [], 2)
            assert us.recorder.closed[0].notification is None
            await asyncio.to_thread(bird.start)
            await until(us.established, 15)

    in_host(ours, test)


def test_an_address_that_is_taken_can_not_be_listened_on(lan: tuple[LanHost, LanHost]) -> None:
    ours, _ = lan

    async def test() -> None:
        first = Listener([Endpoint(parse_address(ours.ipv4), 179)])
        first.start()
        with pytest.raises(
            Exception, match=r"cannot listen on 192\.0\.2\.1 port 179: Address already in use"
        ):
            Listener([Endpoint(parse_address(ours.ipv4), 179)]).start()
        first.close()

    in_host(ours, test)
