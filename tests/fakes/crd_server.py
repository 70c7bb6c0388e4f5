"""A stand-in for what the API server does with a CustomResourceDefinition: structure, defaults, validation.

Written from the documentation of apiextensions.k8s.io/v1 (structural schemas, validation rules), for the
keywords that deploy/crds use; any other keyword is an error.  A refusal names its rule as `PLACE KEYWORD`, so
that tests can ask whether every rule of a schema refuses something.  CEL is evaluated by cel-python, which
checks no types.
"""

from __future__ import annotations

import copy
import ipaddress
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import celpy
import yaml
from celpy import celtypes

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Schema: TypeAlias = dict[str, Json]

VALIDATIONS = "x-kubernetes-validations"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"
FORMATS = {"int32", "int64", "ipv4", "ipv6", "cidr", "date-time"}
"""Those of version 1.20 that are used here."""
FUNCTIONS = {"has", "size", "matches", "contains", "split", "replace", "int", "all", "exists", "exists_one"}
"""CEL as of version 1.25."""
_STRUCTURE = {"type", "description", "properties", "additionalProperties", "items", "default", "required"}
_SCALAR = {"string", "integer", "boolean"}
_TYPES: dict[str, type] = {"string": str, "boolean": bool, "array": list, "object": dict, "integer": int}
KEYWORDS = {
    "enum", "pattern", "maxLength", "minLength", "minimum", "maximum", "minItems", "maxItems",
    "minProperties", "maxProperties", "format", "anyOf",
}  # fmt: skip


class Refusal(NamedTuple):
    """One rule that a value breaks."""

    rule: str
    text: str


class Definition(NamedTuple):
    """A CustomResourceDefinition with one version."""

    kind: str
    manifest: Schema
    schema: Schema


class Node(NamedTuple):
    """A schema inside a schema; `place` is a path with `[]` for items and `{}` for values of a map."""

    place: str
    schema: Schema


def load(path: Path) -> Definition:
    manifest = cast(Schema, yaml.safe_load(path.read_text()))
    spec = cast(Schema, manifest["spec"])
    (version,) = cast("list[Schema]", spec["versions"])
    schema = cast(Schema, cast(Schema, version["schema"])["openAPIV3Schema"])
    return Definition(str(cast(Schema, spec["names"])["kind"]), manifest, schema)


def nodes(schema: Schema, place: str = "") -> Iterator[Node]:
    """The schema and everything in it that has a type."""
    yield Node(place, schema)
    for name, inner in properties(schema).items():
        if place or name not in ("apiVersion", "kind", "metadata"):
            yield from nodes(inner, f"{place}.{name}" if place else name)
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if keyword in schema:
            yield from nodes(cast(Schema, schema[keyword]), place + mark)


def properties(schema: Schema) -> dict[str, Schema]:
    return cast("dict[str, Schema]", schema.get("properties", {}))


def rules(schema: Schema) -> list[dict[str, str]]:
    return cast("list[dict[str, str]]", schema.get(VALIDATIONS, []))


def rule_names(definition: Definition) -> set[str]:
    """Every rule that could refuse something."""
    return {
        f"{place} {rule}" for place, schema in nodes(definition.schema) for rule in _rules_of(place, schema)
    }


def _rules_of(place: str, schema: Schema) -> Iterator[str]:
    """The root is always an object, and a format of integers says nothing that `maximum` does not."""
    yield from (KEYWORDS & schema.keys()) - ({"format"} if schema["type"] == "integer" else set())
    if place:
        yield "type"
    yield from (f"required {name}" for name in cast("list[str]", schema.get("required", [])))
    yield from (rule["rule"] for rule in rules(schema))
    if schema.get(LIST_TYPE) in ("set", "map"):
        yield LIST_TYPE


# -- structural schemas -------------------------------------------------------------------------------


def structural_faults(definition: Definition) -> list[str]:
    """What makes the API server, or a careful reader, refuse the definition."""
    faults = [f"{place}: {fault}" for place, schema in nodes(definition.schema) for fault in _faults(schema)]
    for place, schema in nodes(definition.schema):
        if "default" in schema:
            value = defaulted(schema, schema["default"])
            faults += [f"{place}: default: {refusal.text}" for refusal in refusals(schema, value, place)]
    return faults


def _faults(schema: Schema) -> Iterator[str]:
    kind = schema.get("type")
    known = _STRUCTURE | KEYWORDS | {VALIDATIONS, LIST_TYPE, LIST_KEYS}
    yield from (f"unknown keyword {keyword}" for keyword in schema.keys() - known)
    if kind not in _TYPES:
        yield f"type {kind}"
    if not schema.get("description"):
        yield "no description"
    if kind == "object" and ("properties" in schema) == ("additionalProperties" in schema):
        yield "needs either properties or additionalProperties"
    if missing := set(cast("list[str]", schema.get("required", []))) - properties(schema).keys():
        yield f"requires what it does not have: {missing}"
    yield from _unbounded(schema)
    yield from _list_faults(schema)
    if not {schema.get("format")} <= FORMATS | {None}:
        yield f"format {schema['format']}"
    for inner in cast("list[Schema]", schema.get("anyOf", [])):
        if not inner.keys() <= {"format", "pattern"}:
            yield "anyOf with more than validation"
    for pattern in [schema, *cast("list[Schema]", schema.get("anyOf", []))]:
        if re.search(r"\(\?[=!<]|\\[1-9]", str(pattern.get("pattern", ""))):
            yield "a pattern that RE2 does not know"
    for rule in rules(schema):
        if not rule.get("message"):
            yield f"rule without a message: {rule['rule']}"
        code = re.sub(r"'[^']*'", "''", rule["rule"])
        if unknown := set(re.findall(r"(\w+)\(", code)) - FUNCTIONS:
            yield f"rule with functions newer than 1.25: {unknown}"


def _unbounded(schema: Schema) -> Iterator[str]:
    bounds = {
        "string": ("enum" in schema or "maxLength" in schema),
        "integer": ("minimum" in schema and "maximum" in schema),
        "array": ("maxItems" in schema and "items" in schema),
        "object": ("additionalProperties" not in schema or "maxProperties" in schema),
    }
    if not bounds.get(str(schema.get("type")), True):
        yield "has no bounds"


def _list_faults(schema: Schema) -> Iterator[str]:
    if schema.get("type") != "array":
        return
    items, how = cast(Schema, schema["items"]), schema.get(LIST_TYPE)
    if how not in ("set", "map", "atomic"):
        yield "no list type"
    if how == "set" and items.get("type") not in _SCALAR:
        yield "a set of something else than scalars"
    keys = set(cast("list[str]", schema.get(LIST_KEYS, [])))
    if how == "map" and not (keys and keys <= set(cast("list[str]", items.get("required", [])))):
        yield "keys that items need not have"


# -- values -------------------------------------------------------------------------------------------


def defaulted(schema: Schema, value: Json) -> Json:
    """Without null fields and with defaults, as the API server has it (since 1.20) before it validates."""
    value = copy.deepcopy(value)
    if isinstance(value, dict):
        value = {name: item for name, item in value.items() if item is not None}
        for name, inner in properties(schema).items():
            if name not in value and "default" in inner:
                value[name] = copy.deepcopy(inner["default"])
            if name in value:
                value[name] = defaulted(inner, value[name])
    if isinstance(value, list) and "items" in schema:
        value = [defaulted(cast(Schema, schema["items"]), item) for item in value]
    return value


def admit(definition: Definition, value: Json, before: Json = None) -> list[Refusal]:
    """What the API server says to a creation, or to a change of `before`."""
    old = None if before is None else defaulted(definition.schema, before)
    return list(refusals(definition.schema, defaulted(definition.schema, value), "", old))


def refusals(schema: Schema, value: Json, place: str, old: Json = None) -> Iterator[Refusal]:
    """CEL is asked only about what the schema itself does not refuse."""
    found = list(_schema_refusals(schema, value, place))
    yield from found
    if not found:
        yield from _cel_refusals(schema, value, place, old)


def _schema_refusals(schema: Schema, value: Json, place: str) -> Iterator[Refusal]:
    kind = _TYPES[str(schema["type"])]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield Refusal(f"{place} type", f"{place}: {value!r} is no {schema['type']}")
        return
    for keyword in sorted(KEYWORDS & schema.keys()):
        if not _fits(keyword, schema[keyword], value):
            yield Refusal(f"{place} {keyword}", f"{place}: {value!r}: {keyword} {schema[keyword]!r}")
    if isinstance(value, dict):
        for name in cast("list[str]", schema.get("required", [])):
            if name not in value:
                yield Refusal(f"{place} required {name}", f"{place}: {name} is missing")
    if isinstance(value, list) and (duplicate := _duplicate(schema, value)) is not None:
        yield Refusal(f"{place} {LIST_TYPE}", f"{place}: {duplicate!r} twice")
    for inner, mark, item, _ in _inside(schema, value, None):
        yield from _schema_refusals(inner, item, _place(place, mark))


def _inside(schema: Schema, value: Json, old: Json) -> Iterator[tuple[Schema, str, Json, Json]]:
    """What a value holds; items of lists have no counterpart in the old value."""
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, inner in properties(schema).items():
            if name in value and name not in ("apiVersion", "kind", "metadata"):
                yield inner, name, value[name], before.get(name)
        if "additionalProperties" in schema:
            for item in value.values():
                yield cast(Schema, schema["additionalProperties"]), "{}", item, None
    elif isinstance(value, list):
        for item in value:
            yield cast(Schema, schema["items"]), "[]", item, None


def _place(place: str, mark: str) -> str:
    return place + mark if mark in ("[]", "{}") or not place else f"{place}.{mark}"


def _duplicate(schema: Schema, value: Sequence[Json]) -> Json:
    how, keys = schema.get(LIST_TYPE), cast("list[str]", schema.get(LIST_KEYS, []))
    seen: list[Json] = []
    for item in value if how in ("set", "map") else ():
        key: Json = [item.get(name) for name in keys] if how == "map" and isinstance(item, dict) else item
        if key in seen:
            return key
        seen.append(key)
    return None


def _fits(keyword: str, wanted: Json, value: Json) -> bool:
    if isinstance(value, int) and isinstance(wanted, int):
        return {"minimum": value >= wanted, "maximum": value <= wanted}.get(keyword, True)
    if isinstance(value, str | list | dict) and isinstance(wanted, int):
        return len(value) <= wanted if keyword.startswith("max") else len(value) >= wanted
    if keyword == "enum":
        return value in cast("list[Json]", wanted)
    if keyword == "anyOf":
        each = (dict(inner) for inner in cast("list[Schema]", wanted))
        return any(all(_fits(key, item, value) for key, item in inner.items()) for inner in each)
    if keyword == "pattern":
        return re.search(_python(str(wanted)), str(value)) is not None
    return not isinstance(value, str) or _has_format(str(wanted), value)


def _python(pattern: str) -> str:
    """RE2's `$` is the very end; Python's stands also before a last newline."""
    return re.sub(r"\$$", r"\\Z", pattern)


def _has_format(name: str, text: str) -> bool:
    try:
        if name == "cidr":
            return "/" in text and ipaddress.ip_interface(text) is not None
        if name == "date-time":
            return datetime.fromisoformat(text).tzinfo is not None
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text and address.version == int(name.removeprefix("ipv"))


# -- CEL ----------------------------------------------------------------------------------------------


def _cel_refusals(schema: Schema, value: Json, place: str, old: Json) -> Iterator[Refusal]:
    for rule in rules(schema):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        if not _holds(rule["rule"], value, old):
            yield Refusal(f"{place} {rule['rule']}", f"{place}: {rule['message']}")
    for inner, mark, item, before in _inside(schema, value, old):
        yield from _cel_refusals(inner, item, _place(place, mark), before)


def _environment() -> celpy.Environment:
    """Making one raises the interpreter's recursion limit for everybody: it is set back."""
    limit = sys.getrecursionlimit()
    try:
        return celpy.Environment()
    finally:
        sys.setrecursionlimit(limit)


_ENVIRONMENT = _environment()


@cache
def _program(rule: str) -> celpy.Runner:
    functions = {"split": _split, "replace": _replace}
    return _ENVIRONMENT.program(_ENVIRONMENT.compile(rule), functions=functions)


def _split(text: celtypes.StringType, separator: celtypes.StringType) -> celtypes.ListType:
    return celtypes.ListType([celtypes.StringType(part) for part in text.split(separator)])


def _replace(
    text: celtypes.StringType, old: celtypes.StringType, new: celtypes.StringType
) -> celtypes.StringType:
    return celtypes.StringType(text.replace(old, new))


def _holds(rule: str, value: Json, old: Json) -> bool:
    known: Mapping[str, object] = {"self": celpy.json_to_cel(value), "oldSelf": celpy.json_to_cel(old)}
    return bool(_program(rule).evaluate(known))
