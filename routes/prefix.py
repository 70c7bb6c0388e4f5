"""Addresses and prefixes as plain values.

An address is its packed bytes in network order (4 for IPv4, 16 for IPv6): hashing and comparing are
one C call, byte order is numeric order, and the wire and netlink take it as it is.  Text exists only
at the edges.  A `Prefix` is a BGP NLRI (RFC 4271 section 4.3); its host bits are always zero.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple, NewType

Address = NewType("Address", bytes)
"""A packed IP address: 4 bytes are IPv4, 16 bytes are IPv6."""


class Family(IntEnum):
    """Address family of a prefix, numbered as the AFI (RFC 4760); the SAFI is always unicast."""

    IPV4 = 1
    IPV6 = 2

    def __str__(self) -> str:
        return "ipv4" if self is Family.IPV4 else "ipv6"


FAMILY_BY_SIZE = {4: Family.IPV4, 16: Family.IPV6}
"""Family of an address by the number of its bytes."""
ADDRESS_SIZE = {family: size for size, family in FAMILY_BY_SIZE.items()}
"""Bytes of an address by its family."""


class Prefix(NamedTuple):
    """A destination: network address (host bits zero) and length in bits."""

    address: Address
    length: int

    @property
    def family(self) -> Family:
        return FAMILY_BY_SIZE[len(self.address)]

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read `10.244.1.0/24` or `fd00::/64`; a bare address is a host prefix.

        Raises ValueError, with a sentence for the operator, for anything else, host bits included.
        """
        if "%" in text:  # the standard library takes a zone, and drops it
            raise ValueError(f"{text!r} has a zone, and a prefix has none")
        network = ipaddress.ip_network(text)
        return cls(Address(network.network_address.packed), network.prefixlen)

    def __str__(self) -> str:
        return f"{ipaddress.ip_address(self.address)}/{self.length}"

    def contains(self, other: Prefix) -> bool:
        """Whether `other` is this prefix or more specific."""
        mine, theirs = self.address, other.address
        if len(mine) != len(theirs) or other.length < self.length:
            return False
        shift = len(mine) * 8 - self.length
        return int.from_bytes(mine, "big") >> shift == int.from_bytes(theirs, "big") >> shift

    def covers(self, address: Address) -> bool:
        """Whether `address` lies in this prefix."""
        return self.contains(host_prefix(address))

    def covering(self) -> Iterator[Prefix]:
        """This prefix and every shorter one that contains it, longest first."""
        size = len(self.address)
        value, bits = int.from_bytes(self.address, "big"), size * 8
        for length in range(self.length, -1, -1):
            host = bits - length
            yield Prefix(Address((value >> host << host).to_bytes(size, "big")), length)


def family_of(address: Address) -> Family:
    """The family of a packed address."""
    return FAMILY_BY_SIZE[len(address)]


def host_prefix(address: Address) -> Prefix:
    """The /32 or /128 of an address."""
    return Prefix(address, len(address) * 8)


def parse_address(text: str) -> Address:
    """Pack an address given as text; ValueError, with a sentence, if it is none (zones are refused)."""
    parsed = ipaddress.ip_address(text)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None:
        raise ValueError(f"{text!r} has a zone where an address without one is needed")
    return Address(parsed.packed)


def format_address(address: Address) -> str:
    """The address as text."""
    return str(ipaddress.ip_address(address))


def parse_router_id(text: str) -> int:
    """A BGP identifier or cluster ID from dotted-quad text; ValueError if it is none or zero."""
    value = int(ipaddress.IPv4Address(text))
    if value == 0:
        raise ValueError("0.0.0.0 is no BGP identifier (RFC 6286)")
    return value


def format_router_id(value: int) -> str:
    """A BGP identifier or cluster ID as a dotted quad."""
    return str(ipaddress.IPv4Address(value))


def is_link_local(address: Address) -> bool:
    """Whether this is an IPv6 link-local address (fe80::/10)."""
    return len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80
