"""Which answer each error in an UPDATE deserves (RFC 7606), decided on raw bytes before any value is read.

Owns the framing of path attributes and the rules on flags, lengths, repetition and absence.  A reset
raises; milder answers are collected as `Finding`s, because the strongest of them wins (section 3 h).
Never reads what an attribute means: the codec does, and adds its own findings.
RFC 4271 section 6.3, RFC 4760 section 7, RFC 6793 section 6, RFC 7606, RFC 8092.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, NoReturn

from bgpd.bgp.framing import SessionResetError
from bgpd.bgp.notifications import Code
from routes.path import PeerKind
from routes.peer import Negotiated

OPTIONAL: Final = 0x80
TRANSITIVE: Final = 0x40
PARTIAL: Final = 0x20
EXTENDED_LENGTH: Final = 0x10


class Attr(IntEnum):
    """Type codes of the path attributes that this speaker knows."""

    ORIGIN = 1
    AS_PATH = 2
    NEXT_HOP = 3
    MULTI_EXIT_DISC = 4
    LOCAL_PREF = 5
    ATOMIC_AGGREGATE = 6
    AGGREGATOR = 7
    COMMUNITIES = 8
    ORIGINATOR_ID = 9
    CLUSTER_LIST = 10
    MP_REACH_NLRI = 14
    MP_UNREACH_NLRI = 15
    EXTENDED_COMMUNITIES = 16
    AS4_PATH = 17
    AS4_AGGREGATOR = 18
    LARGE_COMMUNITIES = 32


class UpdateError(IntEnum):
    """Subcodes of the UPDATE message error (RFC 4271 section 4.5)."""

    ATTRIBUTE_LIST = 1
    UNKNOWN_WELL_KNOWN = 2
    MISSING_WELL_KNOWN = 3
    FLAGS = 4
    LENGTH = 5
    ORIGIN = 6
    NEXT_HOP = 8
    OPTIONAL_ATTRIBUTE = 9
    NETWORK_FIELD = 10
    AS_PATH = 11


class Action(IntEnum):
    """What an error does to the UPDATE, weakest first."""

    DISCARD = 1
    """The attribute is left out."""
    WITHDRAW = 2
    """Treat-as-withdraw: what was announced counts as withdrawn."""


class Finding(NamedTuple):
    """One error that does not end the session."""

    action: Action
    subcode: UpdateError
    text: str
    data: bytes = b""
    """The attribute as received, for the NOTIFICATION if there is one after all (section 5.2)."""


class RawAttribute(NamedTuple):
    """A path attribute as it was on the wire."""

    flags: int
    code: int
    value: bytes
    wire: bytes


class Section(NamedTuple):
    """The path attributes of one UPDATE whose framing, flags and lengths are right, and what was not."""

    known: dict[int, RawAttribute]
    unknown: list[RawAttribute]
    """Optional transitive ones, to be passed on."""
    findings: list[Finding]
    seen: set[int]
    """The codes of all, right or wrong."""


class _Rule(NamedTuple):
    flags: int
    length: Callable[[int], bool]
    on_error: Action = Action.WITHDRAW
    internal_only: bool = False


def _exactly(*sizes: int) -> Callable[[int], bool]:
    return sizes.__contains__


def _many(size: int) -> Callable[[int], bool]:
    return lambda length: length > 0 and length % size == 0


_ANY = range(65536).__contains__
_RULES: dict[int, _Rule] = {
    Attr.ORIGIN: _Rule(TRANSITIVE, _exactly(1)),
    Attr.AS_PATH: _Rule(TRANSITIVE, _ANY),
    Attr.NEXT_HOP: _Rule(TRANSITIVE, _exactly(4)),
    Attr.MULTI_EXIT_DISC: _Rule(OPTIONAL, _exactly(4)),
    Attr.LOCAL_PREF: _Rule(TRANSITIVE, _exactly(4), internal_only=True),
    Attr.ATOMIC_AGGREGATE: _Rule(TRANSITIVE, _exactly(0), Action.DISCARD),
    Attr.AGGREGATOR: _Rule(OPTIONAL | TRANSITIVE, _exactly(6, 8), Action.DISCARD),
    Attr.COMMUNITIES: _Rule(OPTIONAL | TRANSITIVE, _many(4)),
    Attr.ORIGINATOR_ID: _Rule(OPTIONAL, _exactly(4), internal_only=True),
    Attr.CLUSTER_LIST: _Rule(OPTIONAL, _many(4), internal_only=True),
    Attr.MP_REACH_NLRI: _Rule(OPTIONAL, _ANY),
    Attr.MP_UNREACH_NLRI: _Rule(OPTIONAL, _ANY),
    Attr.EXTENDED_COMMUNITIES: _Rule(OPTIONAL | TRANSITIVE, _many(8)),
    # RFC 6793 section 6: the smallest AS4_PATH is one segment of one AS number.
    Attr.AS4_PATH: _Rule(
        OPTIONAL | TRANSITIVE, lambda length: length >= 6 and length % 2 == 0, Action.DISCARD
    ),
    Attr.AS4_AGGREGATOR: _Rule(OPTIONAL | TRANSITIVE, _exactly(8), Action.DISCARD),
    Attr.LARGE_COMMUNITIES: _Rule(OPTIONAL | TRANSITIVE, _many(12)),
}
_FAMILY_ATTRIBUTES = (Attr.MP_REACH_NLRI, Attr.MP_UNREACH_NLRI)
_AS4 = (Attr.AS4_PATH, Attr.AS4_AGGREGATOR)


def canonical_flags(code: int) -> int:
    """The Optional and Transitive bits that a known attribute must have."""
    return _RULES[code].flags


def reset(subcode: UpdateError, text: str, data: bytes = b"") -> NoReturn:
    """End the session over this UPDATE."""
    raise SessionResetError(Code.UPDATE, subcode, text, data)


def split_body(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Withdrawn routes, path attributes and NLRI of an UPDATE of at least 4 bytes (section 3 b)."""
    attributes_at = 4 + int.from_bytes(body[:2], "big")
    nlri_at = attributes_at + int.from_bytes(body[attributes_at - 2 : attributes_at], "big")
    if nlri_at > len(body):
        reset(UpdateError.ATTRIBUTE_LIST, "the lengths inside an UPDATE exceed the message")
    return body[2 : attributes_at - 2], body[attributes_at:nlri_at], body[nlri_at:]


def check_section(block: bytes, negotiated: Negotiated) -> Section:
    """Frame the path attributes and apply to each the rules of sections 3, 4 and 7."""
    section = Section({}, [], [], set())
    position, end = 0, len(block)
    while position < end:
        wide = block[position] & EXTENDED_LENGTH
        value_at = position + (4 if wide else 3)
        length = int.from_bytes(block[position + 2 : value_at], "big")
        if value_at > end or value_at + length > end:
            # Section 4: the Total Attribute Length still locates the NLRI.
            text = "the path attributes end in the middle of one"
            section.findings.append(Finding(Action.WITHDRAW, UpdateError.ATTRIBUTE_LIST, text))
            break
        next_at = value_at + length
        raw = RawAttribute(
            block[position], block[position + 1], block[value_at:next_at], block[position:next_at]
        )
        position = next_at
        if raw.code in section.seen:
            _repeated(raw, section)
            continue
        section.seen.add(raw.code)
        _check_attribute(raw, section, negotiated)
    return section


def _repeated(raw: RawAttribute, section: Section) -> None:
    if raw.code in _FAMILY_ATTRIBUTES:  # section 3 g
        reset(UpdateError.ATTRIBUTE_LIST, f"{_name(raw.code)} occurs twice", raw.wire)
    text = f"{_name(raw.code)} occurs twice; the first one counts"
    section.findings.append(Finding(Action.DISCARD, UpdateError.ATTRIBUTE_LIST, text, raw.wire))


def _check_attribute(raw: RawAttribute, section: Section, negotiated: Negotiated) -> None:
    rule = _RULES.get(raw.code)
    if rule is None:
        _unknown(raw, section)
        return
    found = _fault(raw, rule, negotiated)
    if found is None:
        section.known[raw.code] = raw
    else:
        section.findings.append(found)


def _unknown(raw: RawAttribute, section: Section) -> None:
    if not raw.flags & OPTIONAL:
        # RFC 7606 leaves this error as RFC 4271 section 6.3 has it.
        text = f"attribute {raw.code} claims to be well-known and is not"
        reset(UpdateError.UNKNOWN_WELL_KNOWN, text, raw.wire)
    if raw.flags & TRANSITIVE:
        section.unknown.append(raw)


def _fault(raw: RawAttribute, rule: _Rule, negotiated: Negotiated) -> Finding | None:
    """Why a known attribute can't be used, if it can't."""
    name = _name(raw.code)
    if rule.internal_only and negotiated.kind is PeerKind.EBGP:
        text = f"{name} from an external peer is ignored"
        return Finding(Action.DISCARD, UpdateError.OPTIONAL_ATTRIBUTE, text, raw.wire)
    if raw.code in _AS4 and negotiated.four_octet:
        # RFC 6793 section 6: the AS_PATH of such a peer already says it all.
        text = f"{name} from a peer with four-octet AS numbers is ignored"
        return Finding(Action.DISCARD, UpdateError.OPTIONAL_ATTRIBUTE, text, raw.wire)
    if raw.flags & (OPTIONAL | TRANSITIVE) != rule.flags:
        text = f"{name} has the flags {raw.flags:#04x}"
        if raw.code in _FAMILY_ATTRIBUTES:  # section 5.3
            reset(UpdateError.OPTIONAL_ATTRIBUTE, text, raw.wire)
        return Finding(rule.on_error, UpdateError.FLAGS, text, raw.wire)
    length_right = rule.length(len(raw.value))
    if raw.code == Attr.AGGREGATOR:  # RFC 6793 section 4.1: its size follows the AS numbers'
        length_right = len(raw.value) == (8 if negotiated.four_octet else 6)
    if not length_right:
        text = f"{name} has {len(raw.value)} bytes"
        return Finding(rule.on_error, UpdateError.LENGTH, text, raw.wire)
    return None


def check_mandatory(section: Section, negotiated: Negotiated, *, in_nlri_field: bool) -> None:
    """Note what an UPDATE that announces something has to carry and does not (section 3 d)."""
    needed = [Attr.ORIGIN, Attr.AS_PATH]
    if in_nlri_field:
        needed.append(Attr.NEXT_HOP)
    if negotiated.kind is PeerKind.IBGP:
        needed.append(Attr.LOCAL_PREF)
    for code in needed:
        if code not in section.seen:
            text, data = f"{code.name} is missing", bytes((code,))
            section.findings.append(Finding(Action.WITHDRAW, UpdateError.MISSING_WELL_KNOWN, text, data))


def _name(code: int) -> str:
    return Attr(code).name if code in _RULES else f"attribute {code}"
