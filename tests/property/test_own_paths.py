"""However own paths are replaced, what is known is what was given, and the difference is what changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routes.own_path import OwnPath, OwnPaths
from routes.prefix import Prefix

PREFIXES = [Prefix.parse(f"203.0.113.{number}/32") for number in range(40)]
POOL = [OwnPath(nlri, unreachable=False, med=med) for nlri in PREFIXES for med in (None, 1)]
"""The same objects come again and again, as they do where one of thousands changes."""
EDITS = st.tuples(st.integers(0, 60), st.integers(0, 3), st.lists(st.sampled_from(POOL), max_size=3))
START = st.lists(st.sampled_from(POOL), max_size=60)


@given(START, st.lists(st.lists(EDITS, max_size=4), max_size=6))
def test_replacing_tells_exactly_what_differs(
    paths: list[OwnPath], turns: list[list[tuple[int, int, list[OwnPath]]]]
) -> None:
    """A few places are others each time; a prefix that comes twice included."""
    own = OwnPaths()
    for edits in ([], *turns):
        for at, left, came in edits:
            paths[at : at + left] = came
        before, wanted = dict(own.by_prefix), {path.nlri: path for path in paths}
        changed, gone = own.replace(paths)
        assert own.by_prefix == wanted
        assert {path.nlri: path for path in changed} == dict(wanted.items() - before.items())
        assert {path.nlri for path in gone} == before.keys() - wanted.keys()
        assert len(changed) + len(gone) == len({path.nlri for path in (*changed, *gone)})
