"""However own paths are replaced, what is known is what was given, and the difference is what changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routes.own_path import OwnPath, OwnPaths
from routes.prefix import Prefix

PREFIXES = [Prefix.parse(f"203.0.113.{number}/32") for number in range(8)]
PATHS = st.builds(OwnPath, st.sampled_from(PREFIXES), st.just(False), med=st.sampled_from([None, 1]))


@given(st.lists(st.lists(PATHS, max_size=12), max_size=6))
def test_replacing_tells_exactly_what_differs(turns: list[list[OwnPath]]) -> None:
    """A prefix that comes twice included, and paths that only change their places."""
    own = OwnPaths()
    for paths in turns:
        before, wanted = dict(own.by_prefix), {path.nlri: path for path in paths}
        changed, gone = own.replace(paths)
        assert own.by_prefix == wanted
        assert {path.nlri: path for path in changed} == dict(wanted.items() - before.items())
        assert {path.nlri for path in gone} == before.keys() - wanted.keys()
        assert len(changed) + len(gone) == len({path.nlri for path in (*changed, *gone)})
