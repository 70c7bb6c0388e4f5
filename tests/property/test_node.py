"""Readiness and drain under any order of events: gates that never flap, and drains that never hide pods."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bgpd.node.cni import LARGEST_MTU, PodInterface, PodNetwork, conflist_text, faults
from bgpd.node.drain import SHUTDOWN_TIME, DrainFacts, plan
from bgpd.node.nft import Rules, expected_shape, table_text, without_covered
from bgpd.node.readiness import NOT_YET, PeerFacts, Quorum, ReadinessFacts, judge
from routes.prefix import Address, Prefix

SECONDS = st.floats(0, 20)
PEERS = st.builds(
    PeerFacts, st.sampled_from("abcdef"), st.booleans(), SECONDS, st.booleans(), st.booleans(), st.booleans()
)
FACTS = st.builds(
    ReadinessFacts,
    own_prefixes=st.integers(0, 2),
    peers=st.lists(PEERS, max_size=4, unique_by=lambda peer: peer.name).map(tuple),
    quorum=st.sampled_from(Quorum),
    settle_time=SECONDS,
    fib_pending=st.integers(0, 2),
    fib_failures=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    kernel_verified=st.booleans(),
    cni_written=st.booleans(),
    leaving=st.sampled_from((False, False, False, True)),
)


@given(st.lists(FACTS, max_size=12))
def test_an_open_gate_stays_open_until_the_node_leaves(story: list[ReadinessFacts]) -> None:
    before = NOT_YET
    for facts in story:
        now = judge(facts, before)
        assert now.can_forward or not now.ready
        if facts.leaving:
            assert not now.can_forward
        else:
            assert now.can_forward >= before.can_forward
            assert now.ready >= before.ready
        assert now.ready or now.reasons, "a closed gate always says why"
        before = now


@given(FACTS, PEERS)
def test_what_one_more_good_peer_tells_never_closes_a_gate(facts: ReadinessFacts, peer: PeerFacts) -> None:
    good = peer._replace(name="z", established=True, own_written=True, end_of_rib=True)
    if judge(facts).can_forward:
        assert judge(facts._replace(peers=(*facts.peers, good))).can_forward


@given(
    st.builds(
        DrainFacts,
        st.booleans(),
        st.booleans(),
        st.booleans(),
        SECONDS,
        st.integers(0, 3),
        st.integers(0, 3),
    )
)
def test_no_pod_of_a_node_that_exists_is_ever_hidden(facts: DrainFacts) -> None:
    drain = plan(facts)
    leaving = facts.unschedulable or facts.deleting
    if facts.exists and (facts.pods or not leaving or facts.leaving_for < SHUTDOWN_TIME):
        assert drain.announce_pods
    assert drain.graceful_shutdown is (leaving or not facts.exists)
    if not (drain.announce_pods and drain.announce_services):
        assert drain.graceful_shutdown, "nothing goes that was not announced as going"
    assert drain.reason


def _prefix(address: bytes, length: int) -> Prefix:
    bits = len(address) * 8
    shift = bits - min(length, bits)
    value = int.from_bytes(address, "big") >> shift << shift
    return Prefix(Address(value.to_bytes(len(address), "big")), bits - shift)


PREFIXES = st.one_of(
    st.builds(_prefix, st.binary(min_size=4, max_size=4), st.integers(0, 32)),
    st.builds(_prefix, st.binary(min_size=16, max_size=16), st.integers(0, 128)),
)


@given(st.lists(PREFIXES, max_size=20))
def test_the_intervals_of_a_set_are_disjoint_and_cover_the_same(prefixes: list[Prefix]) -> None:
    kept = without_covered(prefixes)
    for prefix in prefixes:
        assert sum(other.family is prefix.family and other.contains(prefix) for other in kept) == 1
    assert set(kept) <= set(prefixes)
    shape = expected_shape(table_text(Rules(services=tuple(prefixes))))
    assert shape.elements == len(kept)


@given(
    st.lists(PREFIXES, max_size=3),
    st.integers(0, LARGEST_MTU + 1),
    st.sampled_from(PodInterface),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_accepted_names_each_prefix_once_and_never_translates(
    prefixes: list[Prefix], mtu: int, interface: PodInterface, host_ports: bool, bandwidth: bool
) -> None:
    network = PodNetwork(tuple(prefixes), mtu, interface, host_ports, bandwidth)
    if faults(network):
        return
    wiring, *more = json.loads(conflist_text(network))["plugins"]
    assert wiring["ipMasq"] is False
    assert [each["subnet"] for (each,) in wiring["ipam"]["ranges"]] == [str(prefix) for prefix in prefixes]
    assert [each["type"] for each in more] == ["portmap"] * host_ports + ["bandwidth"] * bandwidth
