"""On which line of a TOML file each key stands.

`tomllib` does not say, and an error that names the line saves its reader a search.  This scan is
only ever given text that `tomllib` has accepted, and only when something is wrong with it: it decides
nothing but the line number in an error message.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

KeyPath = tuple[str | int, ...]
"""`("peers", 2, "asn")`: the place of a value; positions in arrays count from 0."""

_TOKEN = re.compile(
    r"""
      (?P<skip>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<string>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    | (?P<mark>[\[\]{}=,.])
    | (?P<bare>[^\s\[\]{}=,.\"'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "skip":
            yield _Token(match.group(), line)
        line += match.group().count("\n")
    yield _Token("\n", line)


class _Scan:
    """One pass over the tokens.  `lines` grows as keys are met; the first line of a key counts."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._arrays: dict[KeyPath, int] = {}
        self.lines: dict[KeyPath, int] = {}

    def run(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._at < len(self._tokens):
            token = self._next()
            if token.text == "[":
                table = self._header(token.line)
            elif token.text != "\n":
                self._at -= 1
                self._pair(table)
        return self.lines

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _peek(self) -> str:
        return self._tokens[self._at].text

    def _header(self, line: int) -> KeyPath:
        of_array = self._peek() == "["
        if of_array:
            self._next()
        path: KeyPath = ()
        names = self._key("]")
        for position, name in enumerate(names):
            path = (*path, name)
            last = position == len(names) - 1
            if last and of_array:
                self._arrays[path] = self._arrays.get(path, -1) + 1
                self.lines.setdefault(path, line)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        if of_array:
            self._next()
        self.lines.setdefault(path, line)
        return path

    def _key(self, end: str) -> list[str]:
        names = []
        while (text := self._next().text) != end:
            if text != ".":
                names.append(_name(text))
        return names

    def _pair(self, table: KeyPath) -> None:
        line = self._tokens[self._at].line
        path = table
        for name in self._key("="):
            path = (*path, name)
            self.lines.setdefault(path, line)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self._peek()
        if opening in ("[", "{"):
            self._next()
            self._members(path, of_array=opening == "[")
            return
        while self._peek() not in ("\n", ",", "]", "}"):
            self._next()

    def _members(self, path: KeyPath, *, of_array: bool) -> None:
        """The rest of an array or an inline table, its bracket included."""
        position = 0
        while True:
            token = self._next()
            if token.text in ("]", "}"):
                return
            if token.text in ("\n", ","):
                continue
            self._at -= 1
            if of_array:
                self.lines.setdefault((*path, position), token.line)
                self._value((*path, position))
                position += 1
            else:
                self._pair(path)


def _name(token: str) -> str:
    """A key without its quotes."""
    if token[0] not in "\"'":
        return token
    parsed = tomllib.loads(f"key = {token}")["key"]
    return str(parsed)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line of every key, table and array item of valid TOML."""
    return _Scan(text).run()
