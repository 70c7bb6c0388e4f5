"""Strategies for UPDATEs: sound ones as daemons send them, and broken ones."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import strategies as st

from bgpd.bgp.framing import UPDATE, frame
from routes.path import (
    Aggregator,
    AsPath,
    AsSegment,
    Origin,
    PathAttributes,
    PeerKind,
    SegmentKind,
    UnknownAttribute,
)
from routes.peer import Capabilities, Negotiated
from routes.prefix import Address, Family, Prefix

U32 = st.integers(0, 2**32 - 1)
BOTH = frozenset(Family)
SOME_FAMILIES = st.sampled_from([frozenset(), frozenset({Family.IPV4}), frozenset({Family.IPV6}), BOTH])


def session(
    kind: PeerKind = PeerKind.IBGP,
    four_octet: bool = True,
    families: frozenset[Family] = BOTH,
    extended_next_hop: frozenset[Family] = frozenset(),
    add_path: frozenset[Family] = frozenset(),
    extended_message: bool = False,
) -> Negotiated:
    """A session that sends and receives what is asked for."""
    return Negotiated(
        kind=kind,
        local_asn=65000,
        peer_asn=65000 if kind is PeerKind.IBGP else 65001,
        peer_bgp_id=1,
        local_address=Address(b"\x0a\0\0\1"),
        peer_address=Address(b"\x0a\0\0\2"),
        ifindex=0,
        hold_time=90,
        families=families,
        four_octet=four_octet,
        extended_message=extended_message,
        extended_next_hop=extended_next_hop,
        add_path_receive=add_path,
        add_path_send=add_path,
        local_capabilities=Capabilities(extended_message=extended_message),
    )


SESSIONS = st.builds(
    session,
    st.sampled_from([PeerKind.IBGP, PeerKind.EBGP]),
    st.booleans(),
    SOME_FAMILIES,
    st.sampled_from([frozenset(), frozenset({Family.IPV4})]),
    SOME_FAMILIES,
    st.booleans(),
)


@st.composite
def prefixes(draw: st.DrawFn, family: Family) -> Prefix:
    bits = 32 if family is Family.IPV4 else 128
    length = draw(st.one_of(st.sampled_from([bits // 2, 24, bits]), st.integers(0, bits)))
    number = draw(st.integers(0, 2**bits - 1)) >> (bits - length) << (bits - length)
    return Prefix(Address(number.to_bytes(bits // 8, "big")), length)


def _no_sequences_side_by_side(segments: list[AsSegment]) -> bool:
    return all(SegmentKind.SET in (one.kind, two.kind) for one, two in pairwise(segments))


SEGMENTS = st.builds(
    AsSegment,
    st.sampled_from([SegmentKind.SEQUENCE, SegmentKind.SEQUENCE, SegmentKind.SET]),
    st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=4).map(tuple),
)
# RFC 6793 joins sequences side by side when it merges AS4_PATH.
AS_PATHS = st.lists(SEGMENTS, max_size=3).filter(_no_sequences_side_by_side).map(tuple).map(AsPath.of)
IPV4_HOPS = st.integers(1 << 24, (127 << 24) - 1).map(lambda n: Address(n.to_bytes(4, "big")))
GLOBAL_HOPS = st.binary(min_size=14, max_size=14).map(lambda tail: Address(b"\xfd\0" + tail))
LINK_LOCALS = st.binary(min_size=8, max_size=8).map(lambda tail: Address(b"\xfe\x80" + bytes(6) + tail))


@st.composite
def path_attributes(draw: st.DrawFn, internal: bool, ipv6_hop: bool) -> PathAttributes:
    """Whatever a peer of that kind may send, lists in ascending order as the decoder has them."""

    def ordered(elements: st.SearchStrategy[object], most: int) -> tuple[object, ...]:
        return tuple(sorted(draw(st.lists(elements, max_size=most)), key=repr))

    unknown = st.builds(
        UnknownAttribute, st.just(0xE0), st.integers(40, 250), st.binary(min_size=0, max_size=300)
    )
    return PathAttributes(
        origin=draw(st.sampled_from(Origin)),
        as_path=draw(AS_PATHS),
        next_hop=draw(GLOBAL_HOPS if ipv6_hop else IPV4_HOPS),
        link_local=draw(st.none() | LINK_LOCALS) if ipv6_hop else None,
        med=draw(st.none() | U32),
        local_pref=draw(U32) if internal else None,
        atomic_aggregate=draw(st.booleans()),
        aggregator=draw(st.none() | st.builds(Aggregator, st.integers(1, 2**32 - 1), U32)),
        communities=tuple(sorted(draw(st.lists(U32, max_size=5)))),
        extended_communities=tuple(sorted(draw(st.lists(st.binary(min_size=8, max_size=8), max_size=3)))),
        large_communities=tuple(sorted(draw(st.sets(st.tuples(U32, U32, U32), max_size=3)))),
        originator_id=draw(st.none() | U32) if internal else None,
        cluster_list=tuple(draw(st.lists(U32, max_size=3))) if internal else (),
        unknown=tuple(
            sorted(draw(st.lists(unknown, max_size=2, unique_by=lambda one: one.code)), key=lambda u: u.code)
        ),
    )


def attribute(flags: int, code: int, value: bytes, wide: bool = False) -> bytes:
    """One attribute on the wire."""
    if wide or len(value) > 255:
        return bytes((flags | 0x10, code)) + len(value).to_bytes(2, "big") + value
    return bytes((flags, code, len(value))) + value


def update(block: bytes, nlri: bytes = b"", withdrawn: bytes = b"") -> bytes:
    """One whole UPDATE."""
    fields = len(withdrawn).to_bytes(2, "big") + withdrawn + len(block).to_bytes(2, "big") + block
    return frame(UPDATE, fields + nlri)


class Sender:
    """Makes UPDATEs in the orders and encodings of real daemons, and a little beyond, from one seed.

    Drawing each byte from hypothesis would be a hundred times slower, and the space is large.
    """

    def __init__(self, seed: int, negotiated: Negotiated) -> None:
        self._random = random.Random(seed)
        self._negotiated = negotiated
        self._internal = negotiated.kind is PeerKind.IBGP
        self._strange = 0.0
        self._terse = self._chance(0.3)
        """Few attributes, so that messages repeat them."""

    def stream(self, count: int, strange: float) -> bytes:
        """Messages, of which a share of `strange` has something unusual in each of its parts."""
        self._strange = strange
        return b"".join(self._update() for _ in range(count))

    def broken(self, count: int) -> bytes:
        """The same with bytes changed, cut out or put in; the lengths in the headers are right."""
        messages = []
        for _ in range(count):
            body = bytearray(self.stream(1, 0.05)[19:])
            for _ in range(self._random.randint(0, 3)):
                self._damage(body)
            messages.append(frame(UPDATE, bytes(body) + bytes(max(0, 4 - len(body)))))
        return b"".join(messages)

    def _damage(self, body: bytearray) -> None:
        pick = self._random
        at = pick.randrange(len(body) or 1)
        how = pick.randrange(4)
        if how == 0 and body:
            body[at] ^= 1 << pick.randrange(8)
        elif how == 1 and body:
            body[at] = pick.choice([0, 1, 2, 3, 4, 8, 14, 15, 24, 32, 64, 128, 192, 255, pick.randrange(256)])
        elif how == 2:
            del body[at : at + pick.randint(1, 5)]
        else:
            body[at:at] = pick.randbytes(pick.randint(1, 5))

    def _odd(self) -> bool:
        return self._random.random() < self._strange

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _update(self) -> bytes:
        pick = self._random
        kind = pick.choice(["ipv4", "ipv4", "reach", "reach", "withdrawn", "unreach", "all"])
        if kind == "withdrawn":
            return update(b"", withdrawn=self._nlri(Family.IPV4))
        if kind == "unreach":
            family = pick.choice([Family.IPV6, Family.IPV6, Family.IPV4])
            nlri = b"" if self._chance(0.1) else self._nlri(family)
            gone = attribute(0x80, 15, bytes((0, family, 1)) + nlri, self._chance(0.5))
            return update(gone + attribute(0x40, 2, self._as_path()) * self._odd())
        head, tail = self._attributes(with_next_hop=kind != "reach" or self._odd())
        if kind != "ipv4":
            head, tail = self._place(head, tail, self._reach())
        block = head + tail
        if self._odd():
            pick.shuffle(block)
        if self._odd() and block:
            block.append(pick.choice(block))
        nlri = b"" if kind == "reach" else self._nlri(Family.IPV4)
        withdrawn = self._nlri(Family.IPV4) if kind == "all" and self._chance(0.5) else b""
        return update(b"".join(block), nlri, withdrawn)

    def _place(self, head: list[bytes], tail: list[bytes], reach: bytes) -> tuple[list[bytes], list[bytes]]:
        where = self._random.choice(["first", "middle", "last"])
        if where == "first":
            return [reach, *head], tail
        return ([*head, reach], tail) if where == "middle" else (head, [*tail, reach])

    def _attributes(self, *, with_next_hop: bool) -> tuple[list[bytes], list[bytes]]:
        pick, chance = self._random, self._chance
        large = attribute(0xC0, 32, self._many(12))
        parts = [
            (0.99, attribute(0x40, 1, bytes((3 if self._odd() else pick.randrange(3),)))),
            (0.99, attribute(0x40, 2, self._as_path(), chance(0.5))),
            (0.99 * with_next_hop, attribute(0x40, 3, self._ipv4_hop())),
            (0.5, attribute(0x80, 4, pick.choice([bytes(4), pick.randbytes(4)]))),
            (0.98 if self._internal else 0.02, attribute(0x40, 5, b"\0\0\0\x64")),
            (0.05, attribute(0x40, 6, b"")),
            (0.05, attribute(0xC0, 7, b"\0\0" + pick.randbytes(6 if self._negotiated.four_octet else 4))),
            (0.5, attribute(0xE0 if self._odd() else 0xC0, 8, self._many(4))),
            (0.2, large),
            (0.3 if self._internal else 0.02, attribute(0x80, 9, pick.randbytes(4))),
            (0.3 if self._internal else 0.02, attribute(0x80, 10, self._many(4))),
        ]
        behind = [
            (0.2, attribute(0xC0, 16, self._many(8))),
            (0.02, attribute(0xC0, 17, self._as_path(wide=True))),
            (0.02, attribute(0xC0, 18, pick.randbytes(8))),
            (0.2, large),
            (0.05, attribute(pick.choice([0xC0, 0x80, 0xD0, 0x40]), 99, pick.randbytes(3), wide=True)),
        ]
        rarely = 0.1 if self._terse else 1.0
        head = [part for share, part in parts if chance(share if share > 0.9 else share * rarely)]
        tail = [part for share, part in behind if chance(share * rarely) and part not in head]
        return head, tail

    def _many(self, size: int) -> bytes:
        count = self._random.randint(1, 20) if self._odd() else self._random.randint(1, 4)
        if self._chance(0.5):  # seen before
            return b"\1" * size
        values = [self._random.randbytes(size) for _ in range(count)]
        return b"".join(values + values[:1] if self._odd() else values) + b"\0" * self._odd()

    def _as_path(self, *, wide: bool = False) -> bytes:
        pick = self._random
        size = 4 if wide or self._negotiated.four_octet else 2
        segments = b""
        for _ in range(0 if self._terse else pick.choice([0, 1, 1, 1, 2])):
            asns = [pick.choice([1, 23456, 65001, 65002]) for _ in range(pick.randint(1, 4))]
            if self._odd():
                asns = pick.choice([[], [0], [7] * 20])
            kind = pick.randrange(6) if self._odd() else pick.choice([1, 2, 2, 2])
            segments += bytes((kind, len(asns))) + b"".join(asn.to_bytes(size, "big") for asn in asns)
        return segments

    def _ipv4_hop(self) -> bytes:
        first = self._random.choice([0, 127, 224, 255]) if self._odd() else 10
        return bytes((first,)) + self._random.randbytes(3)

    def _reach(self) -> bytes:
        pick = self._random
        family = pick.choice([Family.IPV6, Family.IPV6, Family.IPV4])
        size = pick.choice([0, 4, 24]) if self._odd() else pick.choice([16, 16, 32])
        near, far = b"\xfe\x80" + bytes(6) + pick.randbytes(8), b"\xfd\0" + pick.randbytes(14)
        hop = far + near
        if self._odd() or self._odd():
            halves = [near, far, bytes(16), bytes(15) + b"\1", b"\xff" * 16, pick.randbytes(16)]
            hop = pick.choice(halves) + pick.choice(halves)
        safi = 2 if self._odd() else 1
        nlri = b"" if self._odd() else self._nlri(family)
        value = bytes((0, family, safi, size)) + hop[:size] + b"\0" + nlri
        reach = bytearray(attribute(0x80, 14, value, self._chance(0.5)))
        if self._odd():  # a few bytes too long
            reach[3 if reach[0] & 0x10 else 2] |= 7
        return bytes(reach)

    def _nlri(self, family: Family) -> bytes:
        pick = self._random
        usual = [24, 16, 32] if family is Family.IPV4 else [48, 64, 128]
        count = pick.choice([1, 1, 2, 5, 20])
        lengths = [pick.choice(usual)] * count
        if self._chance(0.4):
            lengths = [pick.randint(0, usual[2] + self._odd()) for _ in lengths]
        path_id = 4 if family in self._negotiated.add_path_receive else 0
        pieces = [
            pick.choice([b"\0\0\0\1", b"\0\0\0\2"])[:path_id] + bytes((n,)) + pick.randbytes(n + 7 >> 3)
            for n in lengths
        ]
        return b"".join(pieces)
