"""A whole reflector on real sockets against the naive model: a few dozen rounds of churn.

The same as test_update_groups, in small numbers and with everything real but the clients: the listener, the
sessions, the kernel's buffers.  Clients read little at a time, with small receive buffers, or not at all for
a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from routes.prefix import Family, Prefix
from routes.reflection import Role
from tests.fakes.reflection_model import PREFIXES, VERSIONS, Model, announcement
from tests.fakes.reflector_here import HOST, client_range, logged, passive_peer, reflector_config, running
from tests.fakes.sessions import run
from tests.fakes.wire_client import WireClient

ROUNDS = 40
STEPS = 25
SETTLED_WITHIN = 10.0


class Churn:
    """The clients of one reflector, and the model."""

    def __init__(self, random: Random, port: int) -> None:
        self.random = random
        self.port = port
        self.clients = [
            WireClient("127.1.0.1", 1),
            WireClient("127.1.0.2", 2, enhanced=False, receive_buffer=2304),
            WireClient("127.1.0.3", 3, families=frozenset({Family.IPV4})),
            WireClient("127.1.1.4", 4, add_paths=3),
            WireClient("127.1.1.5", 5, add_paths=3, receive_buffer=2304),
            WireClient("127.1.2.6", 6, Role.NON_CLIENT),
            WireClient("127.1.2.7", 7, Role.NON_CLIENT, enhanced=False),
            WireClient("127.1.3.8", 8, Role.EXTERNAL),
        ]
        self.model = Model(3, {})

    def close(self) -> None:
        for client in self.clients:
            client.close()

    async def step(self) -> None:
        client = self.random.choice(self.clients)
        if not client.up:
            await client.connect(HOST, self.port)
            return
        match self.random.randrange(12):
            case 0 | 1 | 2 | 3:
                self.announce(client)
            case 4 | 5:
                some = self._some_prefixes(client)
                client.withdraw(*some)
                for nlri in some:
                    self.model.announced.pop((client, nlri), None)
            case 6 | 7:
                client.read(self.random.choice((1, 50, 1000)))
            case 8:
                client.refresh(self.random.choice(sorted(client.families)))
            case 9:
                client.close()
                self.model.forget(client)
            case _:
                await asyncio.sleep(self.random.choice((0, 0, 0.002)))

    def _some_prefixes(self, client: WireClient) -> list[Prefix]:
        some = self.random.sample(PREFIXES, self.random.randint(1, len(PREFIXES)))
        return [nlri for nlri in some if nlri.family in client.families]

    def announce(self, client: WireClient) -> None:
        some, version = self._some_prefixes(client), self.random.randrange(VERSIONS)
        for family in client.families:
            told = announcement(client, family, version)
            mine = [nlri for nlri in some if nlri.family is family]
            if mine:
                client.announce(told.attributes, *mine)
                self.model.announced |= {(client, nlri): told for nlri in mine}

    async def settle(self) -> None:
        """All that is up reads everything until its table is right, and stays right."""
        up = {client for client in self.clients if client.up}
        try:
            async with asyncio.timeout(SETTLED_WITHIN):
                while wrong := self.wrong():
                    await asyncio.sleep(0.002)
                    for client in self.clients:
                        client.read()
                        assert client.up or client not in up, f"{client.address}: {client.heard.notification}"
        except TimeoutError:
            raise AssertionError(f"not settled: {wrong}") from None

    def wrong(self) -> list[str]:
        """The peers whose tables are not what the model says."""
        up = [client for client in self.clients if client.up]
        return [
            f"{client.address}: {nlri}"
            for client in up
            for nlri in PREFIXES
            if self._held(client, nlri) != Counter(self.model.expected(client, nlri)) or client.heard.stale
        ]

    @staticmethod
    def _held(client: WireClient, nlri: Prefix) -> Counter[object]:
        return Counter(told for (each, _), told in client.heard.table.items() if each == nlri)


@pytest.mark.parametrize("seed", range(3))
def test_rounds_of_churn_leave_every_table_right(tmp_path: Path, seed: int) -> None:
    async def churn() -> None:
        peers = (
            passive_peer("127.1.2.6"),
            passive_peer("127.1.2.7"),
            passive_peer("127.1.3.8", asn=65108),
        )
        ranges = client_range("127.1.0.0/24"), client_range("127.1.1.0/24", add_paths=3)
        async with running(reflector_config(tmp_path, *ranges, peers=peers)) as (_, port):
            with closing(Churn(Random(seed), port)) as world:
                for _ in range(ROUNDS):
                    for _ in range(STEPS):
                        await world.step()
                    await world.settle()

    with logged():
        run(churn)
