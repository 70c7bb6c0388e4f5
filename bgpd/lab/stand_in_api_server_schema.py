"""Custom resources against the schema of their definition: defaults, pruning, validation.

The structural OpenAPI v3 schemas of apiextensions.k8s.io/v1, as far as podbgp's own definitions use them.
The real server evaluates CEL rules besides; here they are the caller's to add (`Store(check=...)`).
"""

from __future__ import annotations

import ipaddress
import re

from bgpd.lab.stand_in_api_server_json import Json, child, text

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,),
}  # fmt: skip
_ALWAYS = {"apiVersion", "kind", "metadata"}


def completed(schema: Json, value: object, *, root: bool = True) -> object:
    """The value with defaults, without nulls and without fields that the schema does not know."""
    if isinstance(value, list):
        return [completed(child(schema, "items"), item, root=False) for item in value]
    if not isinstance(value, dict):
        return value
    properties, others = child(schema, "properties"), schema.get("additionalProperties")
    keeps = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or bool(others)
    result: Json = {}
    for name, part in value.items():
        if root and name in _ALWAYS:
            result[name] = part
        elif part is None and name in properties and not child(properties, name).get("nullable"):
            continue  # as the real server since 1.20
        elif name in properties:
            result[name] = completed(child(properties, name), part, root=False)
        elif keeps:
            result[name] = completed(child({"": others}, ""), part, root=False) if others else part
    for name, inner in properties.items():
        if name not in result and isinstance(inner, dict) and "default" in inner:
            result[name] = completed(inner, inner["default"], root=False)
    return result


def problem_in(schema: Json, value: object, where: str = "") -> str:
    """The first thing that the schema refuses, as the API server words it; empty: nothing."""
    wanted = text(schema, "type")
    if value is None and schema.get("nullable"):
        return ""
    if schema.get("x-kubernetes-int-or-string"):
        return "" if isinstance(value, int | str) else f"{where}: must be an integer or a string"
    numeric = isinstance(value, bool) and wanted != "boolean"
    if wanted and (numeric or not isinstance(value, _TYPES.get(wanted, (object,)))):
        return f"{where}: Invalid value: {value!r}: must be of type {wanted}"
    options = schema.get("enum")
    if isinstance(options, list) and value not in options:
        return f"{where}: Unsupported value: {value!r}: supported values: {options}"
    if isinstance(value, dict):
        return _problem_in_object(schema, value, where)
    if isinstance(value, list):
        return _problem_in_list(schema, value, where)
    if isinstance(value, str):
        return _problem_in_text(schema, value, where)
    return _problem_in_number(schema, value, where)


def _problem_in_object(schema: Json, value: Json, where: str) -> str:
    required = schema.get("required")
    for name in required if isinstance(required, list) else []:
        if name not in value:
            return f"{where}.{name}: Required value"
    properties = child(schema, "properties")
    others = child(schema, "additionalProperties")
    for name, part in value.items():
        inner = child(properties, name) if name in properties else others
        if inner and (problem := problem_in(inner, part, f"{where}.{name}".lstrip("."))):
            return problem
    return _size(schema, len(value), where, "Properties")


def _problem_in_list(schema: Json, value: list[object], where: str) -> str:
    for number, item in enumerate(value):
        if problem := problem_in(child(schema, "items"), item, f"{where}[{number}]"):
            return problem
    keys = schema.get("x-kubernetes-list-map-keys")
    kind = text(schema, "x-kubernetes-list-type")
    if isinstance(keys, list) and kind == "map":
        seen = [tuple(str(child({"": item}, "").get(str(key))) for key in keys) for item in value]
    else:
        seen = [(str(item),) for item in value] if kind == "set" else []
    if len(set(seen)) < len(seen):
        return f"{where}: Duplicate value"
    return _size(schema, len(value), where, "Items")


def _problem_in_text(schema: Json, value: str, where: str) -> str:
    pattern = text(schema, "pattern")
    if pattern and not re.search(pattern, value):
        return f"{where}: Invalid value: {value!r}: should match {pattern!r}"
    versions = {"ipv4": 4, "ipv6": 6}
    wanted = versions.get(text(schema, "format"))
    try:
        if wanted and ipaddress.ip_address(value).version != wanted:
            return f"{where}: Invalid value: {value!r}: must be of type {text(schema, 'format')}"
    except ValueError:
        return f"{where}: Invalid value: {value!r}: must be of type {text(schema, 'format')}"
    return _size(schema, len(value), where, "Length")


def _problem_in_number(schema: Json, value: object, where: str) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(low, int | float) and value < low:
        return f"{where}: Invalid value: {value}: should be greater than or equal to {low}"
    if isinstance(high, int | float) and value > high:
        return f"{where}: Invalid value: {value}: should be less than or equal to {high}"
    return ""


def _size(schema: Json, size: int, where: str, what: str) -> str:
    low, high = schema.get(f"min{what}"), schema.get(f"max{what}")
    if isinstance(low, int) and size < low:
        return f"{where}: Invalid value: has {size}, should have at least {low}"
    if isinstance(high, int) and size > high:
        return f"{where}: Too many or too long: has {size}, must have at most {high}"
    return ""
