"""docs/kubernetes.md has every field of every custom resource, as its schema has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.fakes import crd_server
from tests.fakes.crd_server import Definition, Schema

ROOT = Path(__file__).parents[2]
CRDS = [crd_server.load(file) for file in sorted((ROOT / "deploy/crds").glob("bgp*.yaml"))]
TEXT = (ROOT / "docs/kubernetes.md").read_text()
SHARED = ("Selector.", "Secret.", "conditions[]", "policies.import[]", "policies.export[]")
"""Inside of these is documented once, under `Shared parts`."""


def rows(definition: Definition) -> Iterator[str]:
    """The reference of one kind: a line of a table for each field."""
    parents = dict(crd_server.nodes(definition.schema))
    for place, schema in parents.items():
        parent, _, name = place.rpartition(".")
        if not name or any(mark in place for mark in SHARED) or place.endswith(("[]", "{}")):
            continue
        required = cast("list[str]", parents[parent].get("required", []))
        value = _type(schema) + _default(schema, required=name in required)
        yield f"| `{place}` | {value} | {_text(schema)} |"


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{name}`" for name in cast("list[str]", schema["enum"]))
    if schema["type"] == "integer":
        return f"{schema['minimum']} to {schema['maximum']}"
    if schema["type"] == "array":
        return f"list, at most {schema['maxItems']}"
    return {"boolean": "true or false", "object": "object"}.get(str(schema["type"]), "text")


def _default(schema: Schema, *, required: bool) -> str:
    default = schema.get("default")
    if required:
        return "; required"
    if default is None or default == {}:
        return ""
    written = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
    return f"; `{written.lower() if isinstance(default, bool) else written}`"


def _text(schema: Schema) -> str:
    return str(schema["description"]).replace("|", "\\|")


@pytest.mark.parametrize("definition", CRDS, ids=lambda definition: definition.kind)
def test_every_field_is_documented(definition: Definition) -> None:
    section = TEXT.partition(f"\n### {definition.kind}\n")[2].partition("\n### ")[0]
    documented = [line for line in section.splitlines() if line.startswith("| `")]
    assert documented == list(rows(definition))


def test_every_overlay_is_documented() -> None:
    for overlay in (ROOT / "deploy/kubernetes/overlays").iterdir():
        assert f"overlays/{overlay.name}" in TEXT, overlay.name
