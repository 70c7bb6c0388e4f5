"""Objects of podbgp as `kubectl get` prints them, where there need be no kubectl.

Owns the printer columns: they are read from deploy/crds, which is what an API server prints by.  Understands
of JSONPath what is used there.  Pure but for reading that file; columns for `-o wide` and ages are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from bgpd.lab.command import LabError

DEFINITIONS = Path(__file__).resolve().parents[2] / "deploy" / "crds"
_STEP = re.compile(r'\.(\w+)|\[\*\]|\[\?\(@\.(\w+)=="([^"]*)"\)\]')

Table = list[list[str]]
Column = tuple[str, str]
"""A name and a JSONPath."""


def find(value: object, path: str) -> list[object]:
    """What a JSONPath of a printer column selects."""
    found, position = [value], 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise LabError(f"no printer column of ours has a path like {path}")
        position = step.end()
        field, key, wanted = step.groups()
        if field is not None:
            found = [each[field] for each in found if isinstance(each, dict) and field in each]
        else:
            items = [item for each in found if isinstance(each, list) for item in each]
            found = [
                item for item in items if key is None or (isinstance(item, dict) and item.get(key) == wanted)
            ]
    return found


def cell(value: object, path: str) -> str:
    """What is printed for one column."""
    return " ".join(each if isinstance(each, str) else json.dumps(each) for each in find(value, path))


def columns(plural: str) -> list[Column]:
    """The printer columns of a kind."""
    definition = yaml.safe_load((DEFINITIONS / f"{plural}.yaml").read_text())
    (version,) = definition["spec"]["versions"]
    listed = version["additionalPrinterColumns"]
    return [
        (column["name"], column["jsonPath"])
        for column in listed
        if column["type"] != "date" and not column.get("priority")
    ]


def table(plural: str, objects: Sequence[object], more: Sequence[Column] = ()) -> Table:
    """The head and a row for each object."""
    shown = [("Name", ".metadata.name"), *columns(plural), *more]
    rows = [[cell(each, path) for _, path in shown] for each in objects]
    return [[name.upper() for name, _ in shown], *sorted(rows)]


def lines(rows: Table) -> list[str]:
    """The rows with their columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows]
    return ["   ".join(row).rstrip() for row in padded]
