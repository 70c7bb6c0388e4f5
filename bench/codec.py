"""How long the codec takes for an UPDATE, by the fast path and by ExaBGP, in one run.

    python -m bench.codec [--rounds N]

Streams are encoded by the codec itself and fed in chunks of 256 KiB.  A figure is CPU time, the median of
the rounds, with garbage collection on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from bgpd.bgp.codec import Decoder, encode_updates
from routes.path import AsPath, AsSegment, Origin, PathAttributes, PeerKind, SegmentKind
from routes.peer import Negotiated
from routes.prefix import Address, Family, Prefix

CHUNK = 256 * 1024
SESSION = Negotiated(
    kind=PeerKind.IBGP,
    local_asn=65000,
    peer_asn=65000,
    peer_bgp_id=1,
    local_address=Address(b"\x0a\0\0\1"),
    peer_address=Address(b"\x0a\0\0\2"),
    ifindex=0,
    hold_time=90,
    families=frozenset(Family),
)
AS_PATH = AsPath.of((AsSegment(SegmentKind.SEQUENCE, (65010, 4200000001)),))


def attributes(number: int, next_hop: bytes) -> PathAttributes:
    """The attributes of path `number`, like no other's."""
    return PathAttributes(
        Origin.IGP, AS_PATH, Address(next_hop), med=number, local_pref=100, communities=(0xFDE80000 + number,)
    )


def ipv4(number: int) -> Prefix:
    """One of a million /24."""
    return Prefix(Address((10 * 65536 + number).to_bytes(3, "big") + b"\0"), 24)


def ipv6(number: int) -> Prefix:
    """One of a million /64."""
    return Prefix(Address(b"\xfd\0" + number.to_bytes(6, "big") + bytes(8)), 64)


def distinct_ipv4(count: int) -> bytes:
    """One prefix a message, each with its own MED, community and next hop."""
    return b"".join(
        b"".join(encode_updates(attributes(n, (0x0A800000 + n).to_bytes(4, "big")), [ipv4(n)], [], SESSION))
        for n in range(count)
    )


def distinct_ipv6(count: int) -> bytes:
    """The same over MP_REACH_NLRI."""
    return b"".join(
        b"".join(encode_updates(attributes(n, b"\xfd\1" + n.to_bytes(14, "big")), [ipv6(n)], [], SESSION))
        for n in range(count)
    )


def packed_ipv4(count: int) -> bytes:
    """As many prefixes in a message as fit."""
    shared = attributes(1, b"\x0a\x80\0\1")
    return b"".join(encode_updates(shared, [ipv4(n) for n in range(count)], [], SESSION))


def withdrawn_ipv4(count: int) -> bytes:
    """One withdrawn prefix a message."""
    return b"".join(b"".join(encode_updates(None, [], [ipv4(n)], SESSION)) for n in range(count))


def seconds(stream: bytes, fast: bool) -> float:
    """One pass through a new decoder."""
    decoder = Decoder(fast=fast)
    decoder.negotiated = SESSION
    started = time.process_time()
    for at in range(0, len(stream), CHUNK):
        decoder.feed(stream[at : at + CHUNK])
    return time.process_time() - started


CASES: dict[str, tuple[Callable[[int], bytes], int]] = {
    "IPv4, one prefix a message, all attributes distinct": (distinct_ipv4, 20_000),
    "IPv6, one prefix a message, all attributes distinct": (distinct_ipv6, 20_000),
    "IPv4, packed": (packed_ipv4, 100_000),
    "IPv4, withdrawn one by one": (withdrawn_ipv4, 20_000),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{'microseconds for each prefix':54} {'fast':>8} {'ExaBGP':>8}")
    for name, (build, count) in CASES.items():
        stream = build(count)
        figures = [
            statistics.median(seconds(stream, fast) for _ in range(rounds)) / count * 1e6
            for fast in (True, False)
        ]
        print(f"{name:54} {figures[0]:8.2f} {figures[1]:8.2f}")


if __name__ == "__main__":
    main()
