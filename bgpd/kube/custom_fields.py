"""Where in a custom resource a value stands, and the sentence when it does not fit.

An error names kind, object, field, value and what is valid, because it becomes a condition's message that
somebody reads with kubectl.  The first mistake ends the reading.  Parsers are those of the configuration
file (`bgpd/config_values.py`) and take what the schemas in deploy/crds take, or less.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, TypeVar

import msgspec

from bgpd import config_values as values
from bgpd.config_values import UnfitError
from routes.prefix import Address, Prefix

T = TypeVar("T")
Parse = Callable[[object], T]

DNS_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
SECRET_KEY = r"[-._a-zA-Z0-9]+"  # noqa: S105  a pattern for names of keys
LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
LABEL_KEY = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"

_SHOWN = 64
_LONGEST_ADDRESS = 45
_LONGEST_PREFIX = 43
_TYPE_FAULT = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]+)`")
_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_ANYTHING = msgspec.json.Decoder()
_TYPES = {
    "int": "an integer",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "float": "a number with a fraction",
}


@dataclass(frozen=True, slots=True)
class Place:
    """An object, or a part of it."""

    kind: str
    name: str
    path: str = "spec"

    def inside(self, field: str) -> Place:
        return Place(self.kind, self.name, f"{self.path}.{field}")

    def wrong(self, field: str, value: object, fault: str) -> NoReturn:
        """`field` may be empty: the place itself."""
        where = f"{self.path}.{field}" if field else self.path
        raise ValueError(f"{self.kind} {self.name}: {where} = {shown(value)}: {fault}")

    def one(self, field: str, value: object, parse: Parse[T]) -> T:
        try:
            return parse(value)
        except UnfitError as fault:
            self.wrong(field, value, str(fault))

    def maybe(self, field: str, value: object | None, parse: Parse[T]) -> T | None:
        return None if value is None else self.one(field, value, parse)

    def each(
        self, field: str, items: Sequence[object], parse: Parse[T], most: int, least: int = 0
    ) -> tuple[T, ...]:
        """A list without repetitions; those that differ only in spelling count."""
        self.count(field, items, most, least)
        found: dict[T, int] = {}
        for at, item in enumerate(items):
            parsed = self.one(f"{field}[{at}]", item, parse)
            if parsed in found:
                self.wrong(f"{field}[{at}]", item, f"is the same as {field}[{found[parsed]}]")
            found[parsed] = at
        return tuple(found)

    def maybe_each(
        self, field: str, items: Sequence[object] | None, parse: Parse[T], most: int
    ) -> tuple[T, ...]:
        """A list that, where it is given, is not empty."""
        return () if items is None else self.each(field, items, parse, most, 1)

    def count(self, field: str, items: Sequence[object], most: int, least: int = 0) -> None:
        if not least <= len(items) <= most:
            self.wrong(field, f"{len(items)} entries", f"must have {least} to {most}")


def shown(value: object) -> str:
    """A value as JSON in ASCII, cut where it is long."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else _json(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _json(value: object) -> str:
    """Without what a terminal could take for an order."""
    text = msgspec.json.encode(value).decode().encode("ascii", "backslashreplace").decode()
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def type_fault(kind: str, name: str, raw: bytes, problem: msgspec.MsgspecError) -> ValueError:
    """The sentence for JSON that is none, or that has another type than the field."""
    sentence = str(problem)
    at = _AT.search(sentence)
    path = at["path"] if at else ""
    if missing := _MISSING.match(sentence):
        path = f"{path}.{missing['key']}" if path else missing["key"]
        return ValueError(f"{kind} {name}: {path}: is missing")
    if fault := _TYPE_FAULT.match(sentence):
        wanted, got = (
            _TYPES.get(fault[group].partition(" |")[0], fault[group]) for group in ("wanted", "got")
        )
        return ValueError(f"{kind} {name}: {path}{_value_at(raw, path)}: must be {wanted}, not {got}")
    return ValueError(f"{kind} {name}: {path}{': ' if path else ''}can't be read: {sentence[:200]}")


def _value_at(raw: bytes, path: str) -> str:
    """` = VALUE`, or nothing where the path can't be followed (an object's keys are not named)."""
    try:
        value: object = _ANYTHING.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ""
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return ""
    return f" = {shown(value)}"


# -- parsers ------------------------------------------------------------------------------------------


def matching(pattern: str, longest: int, valid: str) -> Parse[str]:
    compiled = re.compile(pattern)

    def parse(value: object) -> str:
        written = values.text(value)
        if len(written) > longest or not compiled.fullmatch(written):
            raise UnfitError(f"must be {valid}")
        return written

    return parse


def text(longest: int, shortest: int = 0) -> Parse[str]:
    """For people; where it is shown, control characters must not reach a terminal."""

    def parse(value: object) -> str:
        written = values.text(value)
        if not shortest <= len(written) <= longest:
            raise UnfitError(f"must have {shortest} to {longest} characters")
        return written

    return parse


def prefix(value: object) -> Prefix:
    written = values.text(value)
    if len(written) > _LONGEST_PREFIX or re.search("/0[0-9]", written):
        raise UnfitError("must be a prefix as in 10.244.0.0/16 or fd00:10:244::/48")
    return values.prefix(written)


def address(value: object) -> Address:
    written = values.text(value)
    if len(written) > _LONGEST_ADDRESS:
        raise UnfitError("must be an IPv4 or IPv6 address")
    return values.unicast()(written)


def moment(value: object) -> datetime:
    """RFC 3339, with an offset."""
    written = values.text(value)
    try:
        parsed = msgspec.convert(written[:_SHOWN], datetime)
    except msgspec.ValidationError:
        raise UnfitError("must be a time as in 2026-01-31T12:00:00Z") from None
    if parsed.tzinfo is None or len(written) > _SHOWN:
        raise UnfitError("must be a time with its offset from UTC, as in 2026-01-31T12:00:00Z")
    return parsed


object_name = matching(DNS_SUBDOMAIN, 253, "the name of an object (lower-case letters, digits, - and .)")
namespace_name = matching(DNS_LABEL, 63, "a name of at most 63 lower-case letters, digits and -")
secret_key = matching(SECRET_KEY, 253, "a key of letters, digits, -, _ and .")
label_key = matching(LABEL_KEY, 317, "a label's key as in example.com/name")
label_value = matching(LABEL_VALUE, 63, "a label's value (at most 63 letters, digits, -, _ and .)")
