"""The feeder of the node agent's bench says what its table claims, and the report judges as written.

A bench that feeds wrong bytes, or calls a missed target met, is worse than none.  No speed is asserted here.
"""

from __future__ import annotations

import pytest

from bench.agent.convergence import Sample
from bench.agent.feeder import END_OF_RIB, MARKER, Shape, Table, open_message
from bench.agent.latency import percentile
from bench.agent.report import Cell, Results, markdown, targets
from bgpd.bgp.codec import Decoder
from bgpd.bgp.message import EndOfRib, Open, Update
from routes.path import PeerKind
from routes.peer import Negotiated
from routes.prefix import Address, Family

NEGOTIATED = Negotiated(
    kind=PeerKind.IBGP,
    local_asn=65000,
    peer_asn=65000,
    peer_bgp_id=0x0A000001,
    local_address=Address(b"\x0a\x00\x00\x02"),
    peer_address=Address(b"\x0a\x00\x00\x01"),
    ifindex=2,
    hold_time=90,
    families=frozenset({Family.IPV4}),
)


def decoded(data: bytes) -> list[object]:
    decoder = Decoder()
    decoder.negotiated = NEGOTIATED
    return list(decoder.feed(data))


@pytest.mark.parametrize(("shape", "next_hops"), [("64", 64), ("distinct", 200)])
def test_table_is_what_it_claims(shape: Shape, next_hops: int) -> None:
    table = Table(200, shape)
    *updates, end = decoded(table.encode())
    assert end == EndOfRib(Family.IPV4)
    paths = [(u.announced, u.attributes) for u in updates if isinstance(u, Update) and not u.error]
    assert [nlri.address for (nlri,), _ in paths] == [table.prefix(index) for index in range(200)]
    attributes = [a for _, a in paths if a is not None]
    assert [a.next_hop for a in attributes] == [table.gateway(index) for index in range(200)]
    assert len(set(attributes)) == 200
    assert len({a.next_hop for a in attributes}) == next_hops


def test_a_change_moves_to_a_next_hop_of_the_table() -> None:
    table = Table(100, "64")
    changed, withdrawn = decoded(table.update(7, turn=1) + table.withdrawal(7))
    assert isinstance(changed, Update)
    assert changed.attributes is not None
    assert changed.attributes.next_hop == table.gateway(8) != table.gateway(7)
    assert isinstance(withdrawn, Update)
    assert withdrawn.withdrawn == changed.announced


def test_messages_are_framed() -> None:
    opened = open_message(b"\x0a\x00\x00\x01", hold_time=90)
    (message,) = Decoder().feed(opened)
    assert isinstance(message, Open)
    assert (message.asn, message.hold_time, message.bgp_id) == (65000, 90, 0x0A000001)
    assert len(END_OF_RIB) == 23
    assert END_OF_RIB.startswith(MARKER)


@pytest.mark.parametrize(("percent", "value"), [(50, 2.0), (75, 3.0), (99, 4.0), (100, 4.0)])
def test_percentile_is_the_nearest_rank(percent: float, value: float) -> None:
    assert percentile([3.0, 1.0, 4.0, 2.0], percent) == value


def run(seconds: float, memory: float = 50.0) -> list[Sample]:
    return [Sample(seconds, late=0.0, sent=0.0, cpu=seconds, memory=memory)]


@pytest.mark.parametrize(
    ("ours", "bird", "frr", "met"),
    [
        (1.0, 10.0, 10.0, [True, True]),
        (1.0, 9.9, 20.0, [False, True]),
        (1.0, 20.0, 9.9, [True, False]),
    ],
)
def test_distinct_next_hops_need_ten_times_the_speed(
    ours: float, bird: float, frr: float, met: list[bool]
) -> None:
    cell = Cell("distinct", 20_000)
    results = Results(convergence={cell: {"podbgp": run(ours, 131), "bird": run(bird), "frr": run(frr)}})
    found = targets(results)
    assert [target.met for target in found] == [*met, False]
    assert "**missed**" in markdown(results)


@pytest.mark.parametrize(("large", "met"), [(6.0, True), (6.1, False)])
def test_growth_is_held_to_six_times(large: float, met: bool) -> None:
    cells = {Cell("64", 20_000): {"podbgp": run(1.0)}, Cell("64", 100_000): {"podbgp": run(large)}}
    (growth,) = [target for target in targets(Results(convergence=cells)) if "100,000" in target.text]
    assert growth.met is met
