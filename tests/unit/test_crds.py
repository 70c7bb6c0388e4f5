"""The six schemas of podbgp.dev: well formed, every rule of use, and the decoders at least as strict.

Every keyword and every CEL rule of every schema must refuse an example.  Those of keywords are made from the
good examples by breaking one thing (too long, too many, the wrong type); those of CEL rules and patterns are
written out in crd_examples.  Each is refused by `bgpd.kube.custom` as well, which trusts no API server.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import pytest
import yaml

from bgpd.kube import custom, custom_wire
from tests.fakes import crd_server
from tests.fakes.crd_server import Definition, Json, Schema

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(__file__).with_name("crd_examples")
DECODERS: dict[str, tuple[Callable[[bytes], object], type[msgspec.Struct]]] = {
    "bgpclusters": (custom.decode_cluster, custom_wire.Cluster),
    "bgppeers": (custom.decode_peer, custom_wire.Peer),
    "bgppolicies": (custom.decode_policy, custom_wire.Policy),
    "bgpadvertisements": (custom.decode_advertisement, custom_wire.Advertisement),
    "bgpaddresspools": (custom.decode_pool, custom_wire.Pool),
    "bgpnodestates": (custom.decode_node_state, custom_wire.NodeState),
}
CRDS = {name: crd_server.load(ROOT / "deploy/crds" / f"{name}.yaml") for name in DECODERS}
FILES = {name: cast(Schema, yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())) for name in DECODERS}


class Example(NamedTuple):
    """An object of one kind, and the rule that it breaks or the text that refuses it."""

    plural: str
    value: Json
    rule: str = ""
    text: str = ""
    title: str = ""


def _listed(section: str) -> list[Example]:
    found = []
    for plural, file in FILES.items():
        good = cast("list[Json]", file["good"])
        for entry in cast("list[Schema]", file.get(section, [])):
            change = cast("dict[str, Json]", entry["change"])
            value = _changed(good[0], change)
            title = f"{plural} {json.dumps(change)}"[:80]
            found.append(
                Example(plural, value, str(entry.get("rule", "")), str(entry.get("text", "")), title)
            )
    return found


def _changed(value: Json, change: dict[str, Json]) -> Json:
    value = copy.deepcopy(value)
    for path, new in change.items():
        *steps, last = path.split(".")
        inner = cast(Schema, value)
        for step in steps:
            inner = cast(Schema, inner[step])
        if new is None:
            del inner[last]
        else:
            inner[last] = new
    return value


GOOD = [
    Example(plural, value, title=f"{plural} {at}")
    for plural, file in FILES.items()
    for at, value in enumerate(cast("list[Json]", file["good"]))
]
BAD, FROZEN, BEYOND = _listed("bad"), _listed("frozen"), _listed("beyond")


def by_title(examples: list[Example]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", examples, ids=[example.title for example in examples])


def refused_by(example: Example, before: Json = None) -> set[str]:
    return {refusal.rule for refusal in crd_server.admit(CRDS[example.plural], example.value, before)}


def decode(example: Example) -> object:
    return DECODERS[example.plural][0](json.dumps(example.value).encode())


# -- the definitions themselves -----------------------------------------------------------------------


@pytest.mark.parametrize("plural", CRDS)
def test_schema_is_structural_bounded_and_described(plural: str) -> None:
    assert crd_server.structural_faults(CRDS[plural]) == []


@pytest.mark.parametrize("plural", CRDS)
def test_definition_can_be_found_and_listed(plural: str) -> None:
    manifest = CRDS[plural].manifest
    spec = cast(Schema, manifest["spec"])
    names, (version,) = cast(Schema, spec["names"]), cast("list[Schema]", spec["versions"])
    columns = cast("list[dict[str, str]]", version["additionalPrinterColumns"])
    assert cast(Schema, manifest["metadata"])["name"] == f"{plural}.podbgp.dev"
    assert (spec["group"], spec["scope"], version["name"]) == ("podbgp.dev", "Cluster", "v1alpha1")
    assert (names["plural"], names["categories"]) == (plural, ["podbgp"])
    assert str(names["kind"]).lower() == names["singular"]
    assert version["subresources"] == {"status": {}}
    assert columns[-1]["name"] == "Age"
    for column in columns:
        path = column["jsonPath"]
        assert column["description"]
        assert path.startswith(".metadata.") or list(_schemas_at(CRDS[plural].schema, path)), path


def _schemas_at(schema: Schema, path: str) -> Iterator[Schema]:
    wanted = re.sub(r"\[[^\]]*\]", "[]", path.removeprefix("."))
    yield from (node.schema for node in crd_server.nodes(schema) if node.place == wanted)


@pytest.mark.parametrize("plural", CRDS)
def test_columns_show_conditions_that_somebody_sets(plural: str) -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "bgpd/kube").glob("*.py")))
    shown = re.findall(r'@\.type=="(\w+)"', (ROOT / f"deploy/crds/{plural}.yaml").read_text())
    assert shown
    assert [name for name in shown if f'Say("{name}"' not in code] == []


def test_short_names_are_different() -> None:
    shorts = [
        cast(Schema, cast(Schema, crd.manifest["spec"])["names"])["shortNames"] for crd in CRDS.values()
    ]
    assert sorted(map(str, shorts)) == sorted(
        f"['{name}']" for name in ("bgpc", "bgpp", "bgppol", "bgpadv", "bgppool", "bgpns")
    )


@pytest.mark.parametrize("plural", CRDS)
def test_lists_are_not_so_deep_that_cel_costs_too_much(plural: str) -> None:
    """The API server multiplies a rule's cost by the items that the lists around it may have."""
    for place, schema in crd_server.nodes(CRDS[plural].schema):
        if crd_server.rules(schema):
            assert _multiplied(CRDS[plural].schema, place) <= 20_000, place


def _multiplied(schema: Schema, place: str) -> int:
    times = 1
    for at, inner in crd_server.nodes(schema):
        if inner.get("type") == "array" and place.startswith(f"{at}[]"):
            times *= int(cast(int, inner["maxItems"]))
    return times


# -- schemas and decoders have the same fields --------------------------------------------------------


@pytest.mark.parametrize("plural", CRDS)
def test_every_field_is_read_and_none_is_made_up(plural: str) -> None:
    root = DECODERS[plural][1]
    schema = CRDS[plural].schema
    for part in cast(
        "list[str]", list(crd_server.properties(schema).keys() - {"apiVersion", "kind", "metadata"})
    ):
        field = next(f for f in msgspec.structs.fields(root) if f.encode_name == part)
        assert _fields_of(crd_server.properties(schema)[part], part) == _wire_of(field.type, part)


def _fields_of(schema: Schema, place: str) -> dict[str, str]:
    """Each object's fields with what they are when absent: `required`, a default, or nothing."""
    found = {}
    required = cast("list[str]", schema.get("required", []))
    for name, inner in crd_server.properties(schema).items():
        filled = crd_server.defaulted(inner, inner.get("default"))
        at = f"{place}.{name}"
        plain = (
            "required"
            if name in required
            else json.dumps(filled)
            if filled not in (None, "", 0, False)
            else ""
        )
        found[at] = plain
        items = cast(Schema, inner.get("items", inner))
        found.update(_fields_of(items, at))
    return found


def _wire_of(kind: object, place: str) -> dict[str, str]:
    struct = _struct_in(kind)
    found = {}
    for field in msgspec.structs.fields(struct) if struct else ():
        at = f"{place}.{field.encode_name}"
        if field.required:
            default = "required"
        else:
            value = (
                field.default
                if field.default is not msgspec.NODEFAULT
                else cast("Callable[[], object]", field.default_factory)()
            )
            text = (
                msgspec.json.encode(value).decode() if value not in (None, "", 0, False, [], {}, "0") else ""
            )
            default = json.dumps(json.loads(text)) if text and _says_something(value) else ""
        found[at] = default
        found.update(_wire_of(field.type, at))
    return found


def _says_something(value: object) -> bool:
    """A struct of defaults stands for an absent one where nothing in it says anything."""
    return not isinstance(value, custom_wire.Policies | custom_wire.Routes | custom_wire.Drift)


def _struct_in(kind: object) -> type[msgspec.Struct] | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for arg in getattr(kind, "__args__", ()) if (found := _struct_in(arg))), None)


def test_every_wire_field_is_used() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "bgpd/kube").glob("custom*.py")))
    for struct in vars(custom_wire).values():
        if isinstance(struct, type) and issubclass(struct, msgspec.Struct):
            for field in msgspec.structs.fields(struct):
                assert re.search(rf"\w\.{field.name}\b", code), f"{struct.__name__}.{field.name}"


# -- good and bad objects -----------------------------------------------------------------------------


@by_title(GOOD)
def test_good_object_is_taken_by_both(example: Example) -> None:
    crd = CRDS[example.plural]
    assert crd_server.admit(crd, example.value) == []
    filled = Example(example.plural, crd_server.defaulted(crd.schema, example.value))
    assert decode(filled) == decode(example), "a default that is not the schema's"


@by_title(BAD)
def test_bad_object_is_refused_by_both(example: Example) -> None:
    assert example.rule in refused_by(example)
    with pytest.raises(ValueError, match=f"^{CRDS[example.plural].kind} "):
        decode(example)


@by_title(FROZEN)
def test_change_is_refused_that_cannot_be_taken_at_run_time(example: Example) -> None:
    before = cast("list[Json]", FILES[example.plural]["good"])[0]
    assert refused_by(example, before) == {example.rule}
    assert refused_by(example) == set()
    assert refused_by(Example(example.plural, before), before) == set()


@by_title(BEYOND)
def test_decoder_refuses_what_a_schema_cannot(example: Example) -> None:
    with pytest.raises(ValueError, match=re.escape(example.text)):
        decode(example)


# -- one broken thing for every keyword ---------------------------------------------------------------

_WRONG_TYPE: dict[str, Json] = {"string": 5, "integer": "5", "boolean": "true", "array": {}, "object": []}
_ODD_TEXTS = ["!", "", "\x07", "-", "no such thing"]


def _broken(definition: Definition, value: Json) -> Iterator[Json]:
    """The value with one thing broken, for each keyword of each field in it."""
    for node, path, _ in _walk(definition.schema, value, ()):
        for wrong in _violations(node, _at(value, path)) if path else ():
            yield _with(value, path, wrong)
        for name in cast("list[str]", node.get("required", [])):
            less = cast(Schema, copy.deepcopy(_at(value, path)))
            less.pop(name, None)
            yield _with(value, path, less)


Step = str | int


def _walk(
    schema: Schema, value: Json, path: tuple[Step, ...]
) -> Iterator[tuple[Schema, tuple[Step, ...], Json]]:
    yield schema, path, value
    if isinstance(value, dict):
        for name, item in value.items():
            if item is None:
                continue
            if inner := crd_server.properties(schema).get(name):
                if path or name in ("spec", "status"):
                    yield from _walk(inner, item, (*path, name))
            elif "additionalProperties" in schema:
                yield from _walk(cast(Schema, schema["additionalProperties"]), item, (*path, name))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _walk(cast(Schema, schema["items"]), item, (*path, at))


def _at(value: Json, path: tuple[Step, ...]) -> Json:
    for step in path:
        value = cast("dict[Step, Json]", value)[step]
    return value


def _with(value: Json, path: tuple[Step, ...], new: Json) -> Json:
    if not path:
        return new
    value = copy.deepcopy(value)
    cast("dict[Step, Json]", _at(value, path[:-1]))[path[-1]] = new
    return value


def _violations(schema: Schema, value: Json) -> Iterator[Json]:
    yield _WRONG_TYPE[str(schema["type"])]
    bound = {
        key: int(item) for key, item in schema.items() if isinstance(item, int) and key.startswith(("m",))
    }
    if isinstance(value, str):
        if "maxLength" in bound:
            yield "a" * (bound["maxLength"] + 1)
        if {"pattern", "format", "anyOf", "enum", "minLength"} & schema.keys():
            yield from _ODD_TEXTS
    elif isinstance(value, int):
        yield from (bound[name] + by for name, by in (("minimum", -1), ("maximum", 1)) if name in bound)
    elif isinstance(value, list) and value:
        yield value * (bound["maxItems"] // len(value) + 1)
        if "minItems" in bound:
            yield []
        if schema[crd_server.LIST_TYPE] in ("set", "map"):
            yield [*value, value[0]]
    elif isinstance(value, dict) and "maxProperties" in bound:
        yield {f"key-{at}": "x" for at in range(bound["maxProperties"] + 1)}
    elif isinstance(value, dict) and "minProperties" in bound:
        yield {}


@pytest.mark.parametrize("plural", CRDS)
def test_every_rule_refuses_something_and_the_decoder_refuses_it_too(plural: str) -> None:
    crd = CRDS[plural]
    used: set[str] = set()
    for good in (example for example in GOOD if example.plural == plural):
        for value in _broken(crd, good.value):
            broken = Example(plural, value)
            if rules := refused_by(broken):
                used |= rules
                with pytest.raises(ValueError, match=f"^{crd.kind} "):
                    pytest.fail(f"decoded in spite of {rules}: {decode(broken)}")
    used |= {example.rule for example in BAD + FROZEN if example.plural == plural}
    assert crd_server.rule_names(crd) - used == set()


def test_broken_json_is_refused_with_a_sentence() -> None:
    for raw in (
        b"",
        b"[",
        b"[]",
        b"{}",
        b'{"metadata":{"name":"x"}}',
        b"\xff",
        b"[" * 100_000,
        b'{"spec":5}',
    ):
        for decoder, _ in DECODERS.values():
            if decoder is custom.decode_node_state and b"metadata" in raw:
                continue  # all of its fields may be absent
            with pytest.raises(ValueError, match=r"^BGP"):
                decoder(raw)


def test_error_names_kind_object_field_value_and_what_is_valid() -> None:
    example = Example("bgppeers", {"metadata": {"name": "tor-1"}, "spec": {"address": "192.0.2.1", "asn": 0}})
    with pytest.raises(
        ValueError, match=r"^BGPPeer tor-1: spec\.asn = 0: must be an integer from 1 to 4294967294$"
    ):
        decode(example)
