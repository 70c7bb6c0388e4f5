"""Single values of a configuration file: from what TOML gives to what the daemon works with.

Each parser takes one value and returns it checked, or raises UnfitError with a sentence that says what
is valid.  Where the mistake is a common one (a prefix with host bits, a number in quotes, an IPv6
address without brackets) the sentence has the corrected value.  Nothing here knows keys or files.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from api.listen import VALID, parse_api_address
from bgpd.config import AllowEntry, Endpoint
from routes.prefix import Address, Family, Prefix, is_link_local, parse_router_id
from routes.route_policy import PrefixRange

T = TypeVar("T")
Community = int | tuple[int, int, int]
"""A standard community (RFC 1997), or a large one (RFC 8092)."""
Parse = Callable[[object], T]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class UnfitError(ValueError):
    """A value that can't be used; the text continues a sentence that begins with the value."""


AS_TRANS = 23456
WELL_KNOWN_COMMUNITIES = {
    "no-export": 0xFFFFFF01,
    "no-advertise": 0xFFFFFF02,
    "no-export-subconfed": 0xFFFFFF03,
    "no-peer": 0xFFFFFF04,
    "graceful-shutdown": 0xFFFF0000,
    "blackhole": 0xFFFF029A,
}
"""Those of RFC 1997, RFC 3765, RFC 8326 and RFC 7999."""
_MAPPED = Prefix.parse("::ffff:0:0/96")
_ZONE = re.compile(r"[^\s/:%]{1,15}")


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise UnfitError("must be true or false, without quotes")
    return value


def text(value: object) -> str:
    if not isinstance(value, str):
        raise UnfitError("must be a string in quotes")
    return value


def integer(low: int, high: int, refused: Mapping[int, str] | None = None) -> Parse[int]:
    """Whole numbers from `low` to `high`, but for `refused`, each with its reason."""

    def parse(value: object) -> int:
        valid = f"an integer from {low} to {high}"
        if isinstance(value, str) and value.strip().isdecimal():
            raise UnfitError(f"must be {valid}, without quotes")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UnfitError(f"must be {valid}")
        if refused and value in refused:
            raise UnfitError(refused[value])
        return value

    return parse


def seconds(low: float, high: float) -> Parse[float]:
    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UnfitError(f"must be a number of seconds from {low:g} to {high:g}, without quotes")
        return float(value)

    return parse


def hold_time(value: object) -> int:
    """RFC 4271 section 4.2: zero, or at least three seconds."""
    if isinstance(value, bool) or not isinstance(value, int) or not (value == 0 or 3 <= value <= 65535):
        raise UnfitError("must be 0 (no hold timer) or an integer from 3 to 65535 (RFC 4271)")
    return value


def choice(*names: str) -> Parse[str]:
    def parse(value: object) -> str:
        if value not in names:
            raise UnfitError(f"must be one of {', '.join(map(quoted, names))}")
        return text(value)

    return parse


def one_line(longest: int) -> Parse[str]:
    def parse(value: object) -> str:
        line = text(value)
        if len(line) > longest or not line.isprintable():
            raise UnfitError(f"must be at most {longest} printable characters on one line")
        return line

    return parse


def quoted(value: str) -> str:
    return f'"{value}"'


asn = integer(
    1,
    4294967294,
    {AS_TRANS: "is AS_TRANS, which no speaker may have (RFC 6793); valid are 1 to 4294967294 without it"},
)


def router_id(value: object) -> int:
    written = text(value)
    try:
        return parse_router_id(written)
    except ValueError:
        raise UnfitError('must be an IPv4 address in quotes other than "0.0.0.0" (RFC 6286)') from None


def _ip(written: str) -> IpAddress:
    """An address without a zone, in one of the two families as such."""
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        if "/" in written:
            raise UnfitError("must be an address, without a /length") from None
        raise UnfitError("must be an IPv4 or IPv6 address (names are not resolved)") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise UnfitError('has a zone ("%"), which is not used here')
        if address.ipv4_mapped is not None:
            raise UnfitError(f'is an IPv4-mapped address; write "{address.ipv4_mapped}"')
    return address


def unicast(family: Family | None = None) -> Parse[Address]:
    """Something that one interface can have as its address."""

    def parse(value: object) -> Address:
        address = _ip(text(value))
        if family is not None and address.version != {Family.IPV4: 4, Family.IPV6: 6}[family]:
            raise UnfitError(f"must be an {str(family).replace('ip', 'IP')} address")
        if address.is_unspecified or address.is_multicast or address == ipaddress.IPv4Address(0xFFFFFFFF):
            raise UnfitError("must be a unicast address, of one host")
        return Address(address.packed)

    return parse


def global_unicast(family: Family) -> Parse[Address]:
    """A unicast address that means the same on every link."""

    def parse(value: object) -> Address:
        address = unicast(family)(value)
        if is_link_local(address):
            raise UnfitError("must not be a link-local address")
        return address

    return parse


def peer_address(value: object) -> tuple[Address, str]:
    """A neighbour's address and, for a link-local one, the interface that it is on."""
    written, percent, zone = text(value).partition("%")
    address = unicast()(written)
    if is_link_local(address):
        if not _ZONE.fullmatch(zone):
            example = f"{written}%eth0"
            raise UnfitError(f'is link-local and needs the interface that it is on, as in "{example}"')
    elif percent:
        raise UnfitError(f'has a zone, which only link-local addresses have; write "{written}"')
    return address, zone


def prefix(value: object) -> Prefix:
    """A destination with its length; host bits are a mistake, never silently dropped."""
    written = text(value)
    host, slash, length_text = written.partition("/")
    address = _ip(host)
    if not slash:
        raise UnfitError(f'has no length; for this one address write "{address}/{address.max_prefixlen}"')
    if not re.fullmatch("[0-9]{1,3}", length_text) or int(length_text) > address.max_prefixlen:
        raise UnfitError(f"must have a length from 0 to {address.max_prefixlen} after the slash")
    network = ipaddress.ip_network(f"{address}/{length_text}", strict=False)
    if network.network_address != address:
        raise UnfitError(f'has host bits set; the prefix is "{network}"')
    parsed = Prefix(Address(network.network_address.packed), network.prefixlen)
    if _MAPPED.contains(parsed):
        raise UnfitError("is in the IPv4-mapped range, which is never routed; write it as IPv4")
    return parsed


def allow_entry(value: object) -> AllowEntry:
    """A prefix, or `{prefix, ge, le}`."""
    if not isinstance(value, dict):
        if not isinstance(value, str):
            raise UnfitError(
                'must be a prefix, or a table as in { prefix = "10.244.0.0/16", ge = 24, le = 28 }'
            )
        admitted = prefix(value)
        return AllowEntry(admitted, admitted.length, len(admitted.address) * 8 if admitted.length else 0)
    if "prefix" not in value or not value.keys() <= {"prefix", "ge", "le"}:
        raise UnfitError("must have the key prefix, and may have ge and le, and no others")
    admitted = prefix(value["prefix"])
    if admitted.length == 0 and len(value) > 1:
        raise UnfitError(
            f"admits the default route alone; list the ranges that you want instead of {admitted}"
        )
    longest = len(admitted.address) * 8
    ge = part("ge", value.get("ge", admitted.length), integer(admitted.length, longest))
    le = part("le", value.get("le", longest if admitted.length else 0), integer(ge, longest))
    return AllowEntry(admitted, ge, le)


def prefix_range(value: object) -> PrefixRange:
    """A prefix alone, or `{prefix, ge, le}`: what is more specific too, as far as the lengths allow it."""
    if not isinstance(value, dict):
        if not isinstance(value, str):
            raise UnfitError(
                'must be a prefix, or a table as in { prefix = "10.244.0.0/16", ge = 24, le = 28 }'
            )
        alone = prefix(value)
        return PrefixRange(alone, alone.length, alone.length)
    if "prefix" not in value or not value.keys() <= {"prefix", "ge", "le"}:
        raise UnfitError("must have the key prefix, and may have ge and le, and no others")
    around = part("prefix", value["prefix"], prefix)
    longest = len(around.address) * 8
    ge = part("ge", value.get("ge", around.length), integer(around.length, longest))
    le = part("le", value.get("le", longest if "ge" in value else around.length), integer(ge, longest))
    return PrefixRange(around, ge, le)


def community(value: object) -> Community:
    """`65000:100`, `64512:1:2`, or the name of a well-known one."""
    written = text(value)
    if written in WELL_KNOWN_COMMUNITIES:
        return WELL_KNOWN_COMMUNITIES[written]
    parts = [int(part) for part in written.split(":") if re.fullmatch("[0-9]{1,10}", part)]
    if written.count(":") == len(parts) - 1:
        if len(parts) == 2 and max(parts) <= 0xFFFF:
            return parts[0] << 16 | parts[1]
        if len(parts) == 3 and max(parts) <= 0xFFFFFFFF:
            return parts[0], parts[1], parts[2]
        if len(parts) == 2 and max(parts) <= 0xFFFFFFFF:
            raise UnfitError(
                f'has a number above 65535; a large community has three numbers, as in "{written}:0"'
            )
    raise UnfitError(
        'must be a community as in "65000:100" (two numbers up to 65535), a large one as in "64512:1:2", '
        f"or one of {', '.join(map(quoted, WELL_KNOWN_COMMUNITIES))}"
    )


def communities(most: int) -> Parse[tuple[Community, ...]]:
    """A list of communities, standard and large ones as they come."""

    def parse(value: object) -> tuple[Community, ...]:
        return tuple(dict.fromkeys(listed(community, most)(value)))

    return parse


def standard(mixed: Iterable[Community]) -> tuple[int, ...]:
    """The standard ones of a list."""
    return tuple(each for each in mixed if isinstance(each, int))


def large(mixed: Iterable[Community]) -> tuple[tuple[int, int, int], ...]:
    """The large ones of a list."""
    return tuple(each for each in mixed if not isinstance(each, int))


def maybe(parse: Parse[T]) -> Parse[T | None]:
    """For a key whose absence means something of its own."""
    return parse


def listed(parse: Parse[T], most: int) -> Parse[tuple[T, ...]]:
    """An array of at most `most` values; a bad one is named by its position."""

    def parse_all(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise UnfitError("must be an array, in square brackets")
        if len(value) > most:
            raise UnfitError(f"must have at most {most} values")
        return tuple(part(f"[{at}]", item, parse) for at, item in enumerate(value))

    return parse_all


def part(key: str, value: object, parse: Parse[T]) -> T:
    """A value inside another one; its problem names it."""
    try:
        return parse(value)
    except UnfitError as problem:
        raise UnfitError(f"{key} {problem}") from None


def endpoint(value: object) -> Endpoint:
    """`192.0.2.1:179` or `[2001:db8::1]:179`."""
    written = text(value)
    match = re.fullmatch(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:\[\]]*)):(?P<port>[0-9]{1,5})", written)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise UnfitError(f"must be an address and a port from 1 to 65535{_endpoint_example(written)}")
    address = _ip(match["six"] or match["four"])
    if (address.version == 6) != (match["six"] is not None):
        raise UnfitError("must have brackets around an IPv6 address, and around that only")
    if isinstance(address, ipaddress.IPv6Address) and address.is_link_local:
        raise UnfitError(f'is link-local; listen on all addresses instead: "[::]:{match["port"]}"')
    if address.is_multicast:
        raise UnfitError("must be an address of this host")
    return Endpoint(Address(address.packed), int(match["port"]))


def _endpoint_example(written: str) -> str:
    """The same with its port and brackets, when only those are missing."""
    for host, port in (written.rpartition(":")[::2], (written, "179")):
        try:
            address = _ip(host)
        except UnfitError:
            continue
        bracketed = f"[{address}]" if address.version == 6 else str(address)
        return f', as in "{bracketed}:{port if port.isdecimal() else 179}"'
    return ', as in "192.0.2.1:179" or "[2001:db8::1]:179"'


def api_listen(value: object) -> str:
    """A Unix socket's absolute path, or an address and port; in the usual spelling."""
    written = text(value)
    try:
        address = parse_api_address(written)
    except ValueError:
        raise UnfitError(f"is no address to serve the API on; {VALID}") from None
    if not written.isprintable():
        raise UnfitError("must have printable characters only")
    return str(address)
