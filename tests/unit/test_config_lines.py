"""The line of each key, in every way that TOML can be written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.config_lines import KeyPath, key_lines

TEXT = '''\
top = 1 # comment with [brackets] = and "quotes"
"quoted key" = 2
a.b.c = 3

[speaker]
asn = 65000
listen = [
  "1.2.3.4:179", # one
  # none
  "]",
]
motto = """
[not.a.table]
asn = "no"
"""
path = 'C:\\'

[[peers]]
address = "x"
limits = { low = 1, high = [
  7] }
[peers.inner]
deep = 1.5

[[peers]]
asn = 2

[[peers.sub]]
k = 1
[[ peers . sub ]]
k = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 1),
        (("quoted key",), 2),
        (("a", "b", "c"), 3),
        (("speaker",), 5),
        (("speaker", "asn"), 6),
        (("speaker", "listen"), 7),
        (("speaker", "listen", 0), 8),
        (("speaker", "listen", 1), 10),
        (("speaker", "motto"), 12),
        (("speaker", "path"), 16),
        (("peers", 0), 18),
        (("peers", 0, "address"), 19),
        (("peers", 0, "limits", "high"), 20),
        (("peers", 0, "limits", "high", 0), 21),
        (("peers", 0, "inner", "deep"), 23),
        (("peers", 1), 25),
        (("peers", 1, "asn"), 26),
        (("peers", 1, "sub", 0, "k"), 29),
        (("peers", 1, "sub", 1, "k"), 31),
    ],
)
def test_each_key_is_found_on_its_line(path: KeyPath, line: int) -> None:
    assert key_lines(TEXT)[path] == line


def paths(value: object, path: KeyPath = ()) -> set[KeyPath]:
    """Every place in parsed TOML."""
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return {path} - {()} | {found for key, item in inner for found in paths(item, (*path, key))}


def test_nothing_else_is_found() -> None:
    assert set(key_lines(TEXT)) == paths(tomllib.loads(TEXT))


KEY = st.text("abc-_1", min_size=1, max_size=3)
QUOTED = st.text("ab[]{}=,.#\\\"'\n \t", max_size=8).map(
    lambda text: '"' + text.translate({34: '\\"', 92: "\\\\", 10: "\\n"}) + '"'
)
LITERAL = st.text('ab[]{}=,.#\\" \t', max_size=8).map(lambda text: f"'{text}'")
LONG = st.text("ab[]{}=,.#\n'", max_size=8).map(lambda text: f'"""{text}"""')
SCALAR = st.one_of(
    QUOTED, LITERAL, LONG, st.sampled_from(["1", "-2.5", "true", "1979-05-27T07:32:00Z", "1e3"])
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ",\n # c\n ".join(items) + "]"),
        st.dictionaries(KEY, inner, max_size=3).map(
            lambda items: "{ " + ", ".join(f"{key} = {value}" for key, value in items.items()) + " }"
        ),
    ),
    max_leaves=6,
)
SECTION = st.tuples(KEY, st.dictionaries(KEY, VALUE, max_size=3))


@given(st.lists(SECTION, max_size=4, unique_by=lambda section: section[0]), st.booleans())
def test_any_valid_file_can_be_scanned(sections: list[tuple[str, dict[str, str]]], as_array: bool) -> None:
    text = ""
    for name, pairs in sections:
        text += f"[[{name}]]\n" if as_array else f"[ {name} ]\n"
        text += "".join(f"{key} = {value} # end\n" for key, value in pairs.items())
    lines = key_lines(text)
    assert set(lines) == paths(tomllib.loads(text))
    source = text.split("\n")
    assert all(str(path[-1]) in source[line - 1] for path, line in lines.items() if isinstance(path[-1], str))
