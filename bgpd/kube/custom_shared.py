"""What several kinds of podbgp.dev/v1alpha1 have in common: names, selectors, policies, conditions.

Turns parts of `custom_wire` into parts of `custom_values`; the kinds themselves are in `custom.py` and the
modules beside it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import msgspec

from bgpd import config_values as values
from bgpd.config_values import Community, UnfitError
from bgpd.kube import custom_fields as fields
from bgpd.kube import custom_wire as wire
from bgpd.kube.custom_fields import Parse, Place
from bgpd.kube.custom_values import Condition, Policies, SecretKey, ServiceScope, Status
from bgpd.kube.selector import EVERYTHING, LabelSelector, Operator, Requirement
from routes.prefix import Family, Prefix

E = TypeVar("E", bound=StrEnum)
W = TypeVar("W", bound=wire.Wire)

BIGGEST = 4294967295
MOST_COUNTED = 2**53
"""The largest integer that every reader of JSON keeps exact."""
FAMILIES = {"IPv4": Family.IPV4, "IPv6": Family.IPV6}

_MOST_POLICIES = 8
_MOST_LABELS = 32
_MOST_VALUES = 64
_MOST_CONDITIONS = 16
_MOST_NAMESPACES = 64
_LONGEST_COMMUNITY = 32

COUNT = values.integer(0, MOST_COUNTED)
_FAMILY = values.choice(*FAMILIES)
_CONDITION = fields.matching(fields.LABEL_KEY, 316, "a condition's type")
_TRUTH = values.choice("True", "False", "Unknown")
_REASON = fields.matching("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", 1024, "one word")
_MESSAGE = fields.text(32768)


class _Named(wire.Wire):
    metadata: wire.Meta


_NAMED = msgspec.json.Decoder(_Named)


def read(raw: bytes, decoder: msgspec.json.Decoder[W], kind: str) -> W:
    """One object in its shape; the name is looked for first, so that an error can say it."""
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as problem:
        raise fields.type_fault(kind, _name_in(raw), raw, problem) from None
    except (RecursionError, UnicodeDecodeError):
        raise ValueError(f"{kind} {_name_in(raw)}: is nested too deeply, or is no UTF-8") from None


def _name_in(raw: bytes) -> str:
    """The name for an error, as far as there is one."""
    try:
        name = _NAMED.decode(raw).metadata.name
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return "without a name"
    try:
        return fields.object_name(name)
    except UnfitError:
        return fields.shown(name)


def place(kind: str, metadata: wire.Meta) -> Place:
    """Where the object's `spec` is, once its name is known to be one."""
    unnamed = Place(kind, fields.shown(metadata.name), "metadata")
    return Place(kind, unnamed.one("name", metadata.name, fields.object_name))


def enum_of(members: type[E]) -> Parse[E]:
    chosen = values.choice(*(member.value for member in members))

    def parse(value: object) -> E:
        return members(chosen(value))

    return parse


def family(value: object) -> Family:
    return FAMILIES[_FAMILY(value)]


def community(value: object) -> Community:
    if len(values.text(value)) > _LONGEST_COMMUNITY:
        raise UnfitError('must be a community as in "65000:100" or "64512:1:2"')
    return values.community(value)


def disjoint(at: Place, field: str, written: list[str], prefixes: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
    """Ranges of which none lies in another, so that every address belongs to one."""
    for number, inner in enumerate(prefixes):
        for other, outer in enumerate(prefixes):
            if number != other and outer.contains(inner):
                at.wrong(f"{field}[{number}]", written[number], f"lies inside {field}[{other}], {outer}")
    return prefixes


def secret_of(at: Place, field: str, secret: wire.SecretKey | None) -> SecretKey | None:
    if secret is None:
        return None
    inner = at.inside(field)
    return SecretKey(
        inner.one("name", secret.name, fields.object_name), inner.one("key", secret.key, fields.secret_key)
    )


def policies_of(at: Place, policies: wire.Policies) -> Policies:
    inner = at.inside("policies")
    return Policies(
        inner.each("import", policies.imports, fields.object_name, _MOST_POLICIES),
        inner.each("export", policies.exports, fields.object_name, _MOST_POLICIES),
    )


def selector_of(at: Place, field: str, selector: wire.Selector | None) -> LabelSelector:
    """Absent selects everything, as an empty one does."""
    if selector is None:
        return EVERYTHING
    inner = at.inside(field)
    inner.count("matchLabels", list(selector.match_labels), _MOST_LABELS)
    labels = tuple(
        (
            inner.one("matchLabels", key, fields.label_key),
            inner.one(f"matchLabels[{key}]", value, fields.label_value),
        )
        for key, value in selector.match_labels.items()
    )
    inner.count("matchExpressions", selector.match_expressions, _MOST_LABELS)
    return LabelSelector(
        tuple(sorted(labels)),
        tuple(
            _requirement(inner.inside(f"matchExpressions[{number}]"), written)
            for number, written in enumerate(selector.match_expressions)
        ),
    )


def _requirement(at: Place, written: wire.Requirement) -> Requirement:
    operator = at.one("operator", written.operator, enum_of(Operator))
    chosen = at.each("values", written.values, fields.label_value, _MOST_VALUES)
    if bool(chosen) != (operator in (Operator.IN, Operator.NOT_IN)):
        at.wrong("values", written.values, "must be given for In and NotIn, and only for them")
    return Requirement(at.one("key", written.key, fields.label_key), operator, frozenset(chosen))


def scope_of(at: Place, selector: wire.Selector | None, namespaces: list[str] | None) -> ServiceScope:
    return ServiceScope(
        selector_of(at, "serviceSelector", selector),
        frozenset(at.maybe_each("namespaces", namespaces, fields.namespace_name, _MOST_NAMESPACES)),
    )


def status_of(at: Place, status: wire.Status) -> Status:
    inner = Place(at.kind, at.name, "status")
    return Status(
        inner.one("observedGeneration", status.observed_generation, COUNT),
        conditions_of(inner, status.conditions),
    )


def conditions_of(at: Place, written: list[wire.Condition]) -> tuple[Condition, ...]:
    at.count("conditions", written, _MOST_CONDITIONS)
    conditions = tuple(
        _condition(at.inside(f"conditions[{number}]"), condition) for number, condition in enumerate(written)
    )
    at.each("conditions", [condition.type for condition in conditions], values.text, _MOST_CONDITIONS)
    return conditions


def _condition(at: Place, written: wire.Condition) -> Condition:
    return Condition(
        at.one("type", written.type, _CONDITION),
        at.one("status", written.status, _TRUTH),
        at.one("reason", written.reason, _REASON),
        at.one("message", written.message, _MESSAGE),
        at.one("lastTransitionTime", written.last_transition_time, fields.moment),
        at.one("observedGeneration", written.observed_generation, COUNT),
    )
