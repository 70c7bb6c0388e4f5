"""Nodes that come, change and go: verdicts equal those of a list that is searched naively."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from routes.node_prefixes import KnownNode, NodePrefixes
from routes.prefix import Address, Prefix

RANGES = [Prefix.parse("10.0.0.0/12"), Prefix.parse("fd00::/56")]
ADDRESSES = [Address(bytes((192, 0, 2, n))) for n in range(3)]


def cut(text: str, bits: int, value: int, length: int) -> Prefix:
    base = Prefix.parse(text)
    size = len(base.address)
    host = size * 8 - length
    number = int.from_bytes(base.address, "big") | value << (size * 8 - bits)
    return Prefix(Address((number >> host << host).to_bytes(size, "big")), length)


prefixes = st.one_of(
    st.builds(cut, st.just("10.0.0.0/8"), st.just(18), st.integers(0, 7), st.integers(10, 18)),
    st.builds(cut, st.just("fd00::/32"), st.just(64), st.integers(0, 7), st.integers(54, 64)),
)
nodes = st.builds(
    KnownNode,
    st.sampled_from("abcd"),
    st.lists(prefixes, max_size=3).map(tuple),
    st.frozensets(st.sampled_from(ADDRESSES), max_size=2),
)


def too_wide(prefix: Prefix, claimed: set[Prefix]) -> bool:
    alike = sum((each.family, each.length) == (prefix.family, prefix.length) for each in claimed)
    return sum(prefix.contains(each) for each in claimed - {prefix}) > alike


def naive(known: dict[str, KnownNode], nlri: Prefix, next_hop: Address) -> bool:
    """Whether a path is refused."""
    if not any(each.contains(nlri) for each in RANGES):
        return False
    claimed = {each for node in known.values() for each in node.prefixes}
    counted = {each for each in claimed if not too_wide(each, claimed)}
    owners = [
        node
        for node in known.values()
        if any(each in counted and each.contains(nlri) for each in node.prefixes)
    ]
    return len(owners) != 1 or next_hop not in owners[0].addresses


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(nodes, st.sampled_from("abcd")), max_size=12),
    st.lists(st.tuples(prefixes, st.sampled_from(ADDRESSES)), min_size=1, max_size=8),
)
def test_verdicts_equal_the_naive_ones_and_only_what_is_named_changes(
    steps: list[KnownNode | str], asked: list[tuple[Prefix, Address]]
) -> None:
    known: dict[str, KnownNode] = {}
    made = NodePrefixes(RANGES)
    before = [made.why_refused(*each) for each in asked]
    for step in steps:
        if isinstance(step, KnownNode):
            known[step.name] = step
            touched = made.set(step)
        else:
            known.pop(step, None)
            touched = made.remove(step)
        now = [made.why_refused(*each) for each in asked]
        assert [bool(text) for text in now] == [naive(known, *each) for each in asked]
        for (nlri, _), old, new in zip(asked, before, now, strict=True):
            assert old == new or any(each.contains(nlri) for each in touched)
        before = now
    assert len(made) == len(known)
