"""A whole reflector in this process: what it passes on, when it says End-of-RIB, whom it remembers."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bgpd.config import ClientRange, Config
from bgpd.errors import ConfigError
from bgpd.reflector import Reflector
from routes.node_prefixes import KnownNode, NodePrefixes
from routes.path import EMPTY_AS_PATH, Origin, PathAttributes, UnknownAttribute
from routes.prefix import Family, Prefix, parse_address
from routes.reflection import Role
from routes.route_policy import Action, PrefixRange, RouteMatch, RoutePolicy, RouteRule, RouteSet
from tests.fakes.reflection_model import CLUSTER_ID
from tests.fakes.reflector_here import HOST, client_range, logged, passive_peer, reflector_config, running
from tests.fakes.sessions import run, until
from tests.fakes.wire_client import WireClient

V4 = frozenset({Family.IPV4})
POD, OTHER = Prefix.parse("10.1.0.0/24"), Prefix.parse("10.2.0.0/24")
RANGE = client_range("127.1.0.0/24")


def path(client: WireClient, **fields: object) -> PathAttributes:
    own = parse_address(f"10.99.0.{client.source.bgp_id}")
    return PathAttributes(Origin.IGP, EMPTY_AS_PATH, own, local_pref=100)._replace(**fields)  # type: ignore[arg-type] # named by the caller


def client(number: int, **fields: object) -> WireClient:
    return WireClient(f"127.1.0.{number}", number, families=V4, **fields)  # type: ignore[arg-type] # named by the caller


@asynccontextmanager
async def connected(config: Config, *clients: WireClient) -> AsyncIterator[Reflector]:
    """A reflector with these clients, whose sockets are read all the time."""
    async with running(config) as (reflector, port):
        for each in clients:
            await each.connect(HOST, port)
        reading = asyncio.create_task(_read(clients))
        try:
            yield reflector
        finally:
            reading.cancel()
            for each in clients:
                each.close()


async def _read(clients: tuple[WireClient, ...]) -> None:
    while True:
        for each in clients:
            each.read()
        await asyncio.sleep(0.001)


def remembering(folder: Path, *names: str, deferral_time: float = 30) -> Config:
    """A reflector that knew these clients in its previous life."""
    (folder / "clients").write_text(json.dumps({"clients": names}))
    config = reflector_config(folder, RANGE, state_file=str(folder / "clients"))
    assert config.reflector is not None
    return replace(config, reflector=replace(config.reflector, deferral_time=deferral_time))


def test_unknown_transitive_attributes_and_the_next_hop_pass_unchanged(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = client(1), client(2)
        async with connected(reflector_config(tmp_path, RANGE), one, two):
            sent = path(one, med=7, unknown=(UnknownAttribute(0xC0, 211, b"\1\2\3"),))
            one.announce(sent, POD)
            await until(lambda: (POD, 0) in two.heard.table)
            got = two.heard.table[POD, 0]
            (unknown,) = got.unknown
            assert (unknown.code, unknown.value) == (211, b"\1\2\3")
            assert got._replace(unknown=sent.unknown) == sent._replace(
                originator_id=1, cluster_list=(CLUSTER_ID,)
            )
            assert one.heard.table == {}

    with logged():
        run(test)


def test_end_of_rib_waits_for_the_clients_that_were_there(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = client(1, graceful=True), client(2, graceful=True)
        async with connected(remembering(tmp_path, one.address, two.address), one, two) as reflector:
            one.announce(path(one), POD)
            one.end_of_rib()
            await until(lambda: (POD, 0) in two.heard.table)
            assert reflector.daemon.convergence.waiting_for == (two.address,)
            assert one.heard.end_of_rib == two.heard.end_of_rib == []
            two.announce(path(two), OTHER)
            two.end_of_rib()
            await until(lambda: bool(one.heard.end_of_rib and two.heard.end_of_rib))
            assert (OTHER, 0) in one.heard.table
            assert one.heard.end_of_rib == [Family.IPV4]

    with logged():
        run(test)


def test_end_of_rib_comes_without_a_client_that_never_returns(tmp_path: Path) -> None:
    async def test() -> None:
        one = client(1, graceful=True)
        config = remembering(tmp_path, one.address, "127.1.0.9", deferral_time=0.3)
        async with connected(config, one) as reflector:
            one.end_of_rib()
            await until(lambda: one.heard.end_of_rib == [Family.IPV4])
            assert reflector.daemon.convergence.waiting_for == ("127.1.0.9",)

    with logged() as lines:
        run(test)
    (line,) = (line for line in lines if line["event"] == "initial convergence complete")
    assert line["missing"] == ("127.1.0.9",)


def test_who_is_there_at_the_end_is_remembered(tmp_path: Path) -> None:
    async def test() -> None:
        one = client(1)
        config = reflector_config(tmp_path, RANGE, state_file=str(tmp_path / "clients"))
        async with connected(config, one):
            pass

    with logged():
        run(test)
    assert json.loads((tmp_path / "clients").read_text()) == {"clients": ["127.1.0.1"]}


def test_an_entry_wins_over_its_range(tmp_path: Path) -> None:
    async def test() -> None:
        one, two, other = client(1), client(2), client(3)
        peers = (passive_peer(two.address), passive_peer(other.address))
        async with connected(reflector_config(tmp_path, RANGE, peers=peers), one, two, other) as reflector:
            two.announce(path(two), POD)
            await until(lambda: (POD, 0) in one.heard.table)
            assert reflector.out.roles[two.source.peer] is Role.NON_CLIENT
            one.announce(path(one), OTHER)
            await until(lambda: (OTHER, 0) in other.heard.table)
            assert (POD, 0) not in other.heard.table, "from a non-client to a non-client"

    with logged():
        run(test)


def test_the_f_bit_is_always_set(tmp_path: Path) -> None:
    async def test() -> None:
        one = client(1, graceful=True)
        async with connected(reflector_config(tmp_path, RANGE), one):
            restart = one.heard.negotiated.graceful_restart
            assert restart is not None
            assert restart.forwarding(Family.IPV4)

    with logged():
        run(test)


def test_more_sessions_than_descriptors_are_an_error_that_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)

    async def test() -> None:
        wide = client_range("127.1.0.0/24", max_sessions=5000)
        async with asyncio.TaskGroup() as tasks:
            with pytest.raises(ConfigError, match=r"max_sessions: 5000 sessions need \d+ file descriptors"):
                await Reflector(reflector_config(tmp_path, wide), tasks).start()

    with logged():
        run(test)


def test_a_file_without_the_section_is_no_reflectors(tmp_path: Path) -> None:
    async def test() -> None:
        async with asyncio.TaskGroup() as tasks:
            with pytest.raises(ConfigError, match="reflector: is missing"):
                Reflector(replace(reflector_config(tmp_path), reflector=None), tasks)

    run(test)


MARK = RouteRule("mark", Action.ACCEPT, set=RouteSet(local_pref=300, add_communities=(7,)))
NO_OTHER = RouteRule("no-other", Action.REJECT, RouteMatch(prefixes=(PrefixRange(OTHER, 24, 32),)))


def test_policies_of_a_range_change_what_its_clients_hold_without_a_reset(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = client(1), client(2)
        marked = replace(RANGE, export_policies=("out",))
        base = reflector_config(tmp_path, RANGE)
        async with connected(base, one, two) as reflector:

            def take(policies: tuple[RoutePolicy, ...], clients: ClientRange) -> None:
                assert base.reflector is not None
                ranges = replace(base.reflector, clients=(clients,))
                assert reflector.replace_config(replace(base, policies=policies, reflector=ranges))

            one.announce(path(one), POD, OTHER)
            await until(lambda: len(two.heard.table) == 2)
            take((RoutePolicy("out", (NO_OTHER, MARK)),), marked)
            await until(
                lambda: set(two.heard.table) == {(POD, 0)} and two.heard.table[POD, 0].local_pref == 300
            )
            (shown,) = reflector.view.told(OTHER, two.source.peer)
            assert (shown.accepted, shown.reason) == (False, "policy out rule no-other rejects it")
            (shown,) = reflector.view.told(POD, two.source.peer)
            assert (shown.accepted, shown.rule) == (True, "policy out rule mark")
            take((RoutePolicy("out", (MARK,)),), marked)
            await until(lambda: len(two.heard.table) == 2)
            take((RoutePolicy("in", (NO_OTHER,), Action.ACCEPT),), replace(RANGE, import_policies=("in",)))
            await until(
                lambda: set(two.heard.table) == {(POD, 0)} and two.heard.table[POD, 0].local_pref == 100
            )
            await until(lambda: reflector.out.groups.idle)
            assert one.up and two.up  # noqa: PT018 - neither was reset
            assert [peer.session.counters.flaps for peer in reflector.daemon.peers.values()] == [0, 0]

    with logged():
        run(test)


def test_what_resets_the_clients_of_a_range_takes_no_pod_off_the_network(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = client(1, graceful=True), client(2, graceful=True)
        base = reflector_config(tmp_path, RANGE)
        async with connected(base, one, two) as reflector:
            one.announce(path(one), POD)
            await until(lambda: (POD, 0) in two.heard.table)
            assert base.reflector is not None
            # As a password does, which the clients learn a moment later.
            later = replace(base.reflector, clients=(replace(RANGE, hold_time=60),))
            assert reflector.replace_config(replace(base, reflector=later))
            await until(lambda: not one.up and not two.up)
            assert POD in reflector.daemon.rib.loc_rib(Family.IPV4).selected
            assert (POD, 0) in two.heard.table

    with logged():
        run(test)


def test_clients_of_addresses_that_left_are_closed_and_their_paths_withdrawn(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = client(1), client(2)
        both = replace(RANGE, members=frozenset((one.source.address, two.source.address)))
        base = reflector_config(tmp_path, both)
        async with connected(base, one, two) as reflector:
            one.announce(path(one), POD)
            await until(lambda: (POD, 0) in two.heard.table)
            assert base.reflector is not None
            left = replace(base.reflector, clients=(replace(both, members=frozenset((two.source.address,))),))
            assert reflector.replace_config(replace(base, reflector=left))
            await until(lambda: not two.heard.table and not one.up)
            assert two.up

    with logged():
        run(test)


def test_a_peer_whose_policies_become_others_than_its_neighbours_is_not_reset(tmp_path: Path) -> None:
    """It leaves their update group, and comes back to it."""

    async def test() -> None:
        one, two, three = client(1), client(2), client(3)
        entries = tuple(passive_peer(each.address, client=True) for each in (one, two, three))
        base = replace(
            reflector_config(tmp_path, peers=entries),
            policies=(RoutePolicy("out", (NO_OTHER, MARK)),),
        )
        async with connected(base, one, two, three) as reflector:
            one.announce(path(one), POD, OTHER)
            await until(lambda: len(two.heard.table) == len(three.heard.table) == 2)
            narrowed = replace(entries[1], export_policies=("out",))
            assert reflector.replace_config(replace(base, peers=(entries[0], narrowed, entries[2])))
            await until(
                lambda: set(two.heard.table) == {(POD, 0)} and two.heard.table[POD, 0].local_pref == 300
            )
            assert {len(group.members) for group in reflector.out.groups} == {1, 2}
            one.withdraw(POD)
            await until(lambda: not two.heard.table and len(three.heard.table) == 1)
            one.announce(path(one), POD)
            assert reflector.replace_config(base)
            await until(lambda: len(two.heard.table) == len(three.heard.table) == 2)
            assert [len(group.members) for group in reflector.out.groups] == [3]
            assert [peer.session.counters.flaps for peer in reflector.daemon.peers.values()] == [0, 0, 0]

    with logged():
        run(test)


def test_a_pod_prefix_is_passed_on_for_its_node_alone_and_for_as_long_as_there_is_one(tmp_path: Path) -> None:
    """A hijacker is refused and told of; a node that is deleted loses its path at once, and no other does."""

    async def test() -> None:
        one, two, thief = client(1), client(2), client(3)
        node = KnownNode("one", (POD,), frozenset((path(one).next_hop,)))
        nodes = NodePrefixes([Prefix.parse("10.0.0.0/8")], [node])
        nodes.set(KnownNode("two", (OTHER,), frozenset((path(two).next_hop,))))
        async with connected(reflector_config(tmp_path, RANGE), one, two, thief) as reflector:
            reflector.verify_against(nodes)
            thief.announce(path(thief), POD, Prefix.parse("10.1.0.7/32"), Prefix.parse("10.9.0.0/24"))
            two.announce(path(two), OTHER)
            one.announce(path(one), POD, Prefix.parse("10.1.0.8/32"))
            await until(lambda: len(thief.heard.table) == 3)
            assert set(two.heard.table) == {(POD, 0), (Prefix.parse("10.1.0.8/32"), 0)}
            assert two.heard.table[POD, 0].originator_id == 1
            reflector.rejudge(nodes.remove("one"))
            await until(lambda: not two.heard.table and set(thief.heard.table) == {(OTHER, 0)})
            reflector.rejudge(nodes.set(node._replace(addresses=frozenset((path(thief).next_hop,)))))
            await until(lambda: two.heard.table.keys() == {(POD, 0), (Prefix.parse("10.1.0.7/32"), 0)})
            assert two.heard.table[POD, 0].originator_id == 3

    with logged() as lines:
        run(test)
    refused = {line["reason"] for line in lines if line["event"] == "path refused"}
    assert "10.9.0.0/24 lies in the pod ranges and belongs to no node" in refused
