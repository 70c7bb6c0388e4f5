"""Reading the tables of a TOML file so that every mistake is found in one go.

A `Table` hands out the values of one TOML table; a bad value becomes a `Problem` in the `Report` and
its default is used, so that reading goes on.  What no one asked for is an unknown key.  When all is
read, `Report.finish` raises `InvalidConfigError` with all problems in the order of the file; a value made
of defaults in place of mistakes never leaves this module's callers.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from bgpd.config import Problem
from bgpd.config_lines import KeyPath, key_lines
from bgpd.config_values import Parse, UnfitError
from bgpd.errors import ConfigError

T = TypeVar("T")

_LONGEST_VALUE = 60
_MOST_PROBLEMS = 100
_SECRETS = ("pass", "secret", "key", "token")


class InvalidConfigError(ConfigError):
    """A file that can't be used, with everything that is wrong in it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class _Finding:
    path: KeyPath
    value: str
    text: str


class Report:
    """What was found wrong, or doubtful, in one file."""

    def __init__(self, file: str, source: str = "") -> None:
        self._file = file
        self._source = source
        self._wrong: list[_Finding] = []
        self._doubtful: list[_Finding] = []
        self._wrong_places: set[KeyPath] = set()
        """Where something is wrong, and everything around it."""
        self._tables: list[Table] = []

    def wrong(self, path: KeyPath, value: str, text: str) -> None:
        self._wrong.append(_Finding(path, value, text))
        self._wrong_places.update(path[:depth] for depth in range(1, len(path) + 1))

    def doubtful(self, path: KeyPath, value: str, text: str) -> None:
        self._doubtful.append(_Finding(path, value, text))

    def opened(self, table: Table) -> None:
        self._tables.append(table)

    def is_wrong(self, path: KeyPath) -> bool:
        """Whether there is a problem at this place or inside it."""
        return path in self._wrong_places

    def homes_of(self, key: str) -> list[str]:
        """The sections that do have this key, as headers to write."""
        homes = {table.header() for table in self._tables if key in table.known}
        return sorted(home for home in homes if home)

    def finish(self) -> tuple[Problem, ...]:
        """The warnings; InvalidConfigError if anything is wrong."""
        for table in self._tables:
            table.name_the_unknown()
        if self._wrong:
            raise InvalidConfigError(self._problems(self._wrong))
        return self._problems(self._doubtful)

    def _problems(self, findings: list[_Finding]) -> tuple[Problem, ...]:
        lines = key_lines(self._source) if findings else {}
        problems = [
            Problem(self._file, _line(lines, found.path), dotted(found.path), found.value, found.text)
            for found in findings
        ]
        problems.sort(key=lambda problem: problem.line)
        if len(problems) > _MOST_PROBLEMS:
            left = len(problems) - _MOST_PROBLEMS
            problems[_MOST_PROBLEMS:] = [Problem(self._file, 0, "", "", f"and {left} more")]
        return tuple(problems)


class Table:
    """One TOML table being read.  Each key has at most one problem: the first."""

    def __init__(self, values: Mapping[str, object], path: KeyPath, report: Report) -> None:
        self._values = values
        self._path = path
        self._report = report
        self.known: list[str] = []
        report.opened(self)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def optional(self, key: str, parse: Parse[T], default: T) -> T:
        """The value of `key`, or `default` when it is absent or wrong."""
        self.known.append(key)
        if key not in self._values:
            return default
        return self._parsed((*self._path, key), self._values[key], parse, default)

    def required(self, key: str, parse: Parse[T], placeholder: T) -> T:
        """The value of `key`; absence is a problem."""
        if key not in self._values:
            self._report.wrong((*self._path, key), "", "is missing and has no default")
        return self.optional(key, parse, placeholder)

    def many(self, key: str, parse: Parse[T]) -> list[tuple[int, T]]:
        """The good items of an array, each with its position; an absent one is empty."""
        items: list[object] = self.optional(key, _array, [])
        missing = object()
        parsed: list[tuple[int, T]] = []
        for position, item in enumerate(items):
            path = (*self._path, key, position)
            value = self._parsed(path, item, lambda item: (parse(item),), missing)
            if isinstance(value, tuple):
                parsed.append((position, value[0]))
        return parsed

    def distinct(self, key: str, parse: Parse[T]) -> tuple[T, ...]:
        """The items of an array that may not have the same one twice."""
        first: dict[T, int] = {}
        for position, item in self.many(key, parse):
            if item in first:
                self.wrong(key, f"is the same as {key}[{first[item]}]", position)
            first.setdefault(item, position)
        return tuple(first)

    def table(self, key: str) -> Table:
        """A table inside this one; an absent one is empty."""
        values: Mapping[str, object] = self.optional(key, _table, {})
        return Table(values, (*self._path, key), self._report)

    def tables(self, key: str) -> list[Table]:
        """An array of tables (`[[key]]`)."""
        items: list[Mapping[str, object]] = self.optional(key, _tables, [])
        return [Table(item, (*self._path, key, at), self._report) for at, item in enumerate(items)]

    def holds_table(self, key: str) -> bool:
        return isinstance(self._values.get(key), dict)

    def sound(self, *keys: str) -> bool:
        """Whether none of `keys` has a problem, so that they can be compared with each other."""
        return not any(self._report.is_wrong((*self._path, key)) for key in keys)

    def wrong(self, key: str, text: str, *position: int) -> None:
        """Report `key` (or one item of it) for a reason that lies outside its own value."""
        path = (*self._path, key, *position)
        if not self._report.is_wrong(path):
            self._report.wrong(path, self._shown(key, *position), text)

    def left_out(self, key: str, text: str) -> None:
        """Report `key` as misplaced without looking at what it holds."""
        self.known.append(key)
        self.wrong(key, text)

    def doubtful(self, key: str, text: str, *position: int) -> None:
        """Report `key` as valid but probably not meant."""
        self._report.doubtful((*self._path, key, *position), self._shown(key, *position), text)

    def header(self) -> str:
        """How the header of this table is written; empty for the file itself."""
        name = dotted(tuple(part for part in self._path if isinstance(part, str)))
        in_array = bool(self._path) and isinstance(self._path[-1], int)
        return f"[[{name}]]" if in_array else name and f"[{name}]"

    def name_the_unknown(self) -> None:
        """Report the keys that nobody asked for."""
        for key, value in self._values.items():
            if key not in self.known:
                secret = any(word in key.lower() for word in _SECRETS)
                shown = "" if secret or isinstance(value, dict | list) else show(value)
                self._report.wrong((*self._path, key), shown, f"is no known key{self._advice(key)}")

    def _advice(self, key: str) -> str:
        plain = key.lower().replace("-", "_")
        near = difflib.get_close_matches(plain, self.known, n=1, cutoff=0.6)
        if near:
            return f"; did you mean {near[0]}?"
        if homes := self._report.homes_of(plain):
            return f"; it belongs under {' or '.join(homes)}"
        return f"; known here: {', '.join(self.known)}"

    def _shown(self, key: str, *position: int) -> str:
        value = self._values.get(key)
        for at in position:
            value = value[at] if isinstance(value, list) else value
        return "" if value is None or isinstance(value, dict) else show(value)

    def _parsed(self, path: KeyPath, value: object, parse: Parse[T], default: T) -> T:
        try:
            return parse(value)
        except UnfitError as problem:
            self._report.wrong(path, show(value), str(problem))
            return default


def _array(value: object) -> list[object]:
    if not isinstance(value, list):
        raise UnfitError("must be an array, in square brackets")
    return value


def _table(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise UnfitError("must be a table")
    return value


def _tables(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UnfitError("must be an array of tables, with two brackets around each header")
    return value


def dotted(path: KeyPath) -> str:
    """`peers[2].asn`"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def show(value: object) -> str:
    """A value as TOML would have it, shortened and safe to print."""
    text = _toml(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _toml(value: object) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str() | bool():
            return json.dumps(value)
        case _:
            return str(value)


def _line(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of the innermost part of `path` that the file has."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)
