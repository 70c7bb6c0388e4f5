"""AS paths as the decision process and loop detection see them."""

from __future__ import annotations

import pytest

from routes.path import AsPath, AsSegment, SegmentKind

SEQUENCE, SET = SegmentKind.SEQUENCE, SegmentKind.SET
CONFED, CONFED_SET = SegmentKind.CONFED_SEQUENCE, SegmentKind.CONFED_SET


@pytest.mark.parametrize(
    ("segments", "length", "neighbor_as", "text"),
    [
        ([], 0, 0, ""),
        ([(SEQUENCE, (1, 2, 2))], 3, 1, "1 2 2"),
        ([(SEQUENCE, (1,)), (SET, (5, 6, 7))], 2, 1, "1 {5 6 7}"),
        ([(SET, (5, 6))], 1, 0, "{5 6}"),
        ([(CONFED, (64512, 64513)), (SEQUENCE, (1,))], 1, 1, "(64512 64513) 1"),
        ([(CONFED_SET, (64512,))], 0, 0, "[64512]"),
        ([(SEQUENCE, ())], 0, 0, ""),
    ],
)
def test_what_is_computed_of_an_as_path(
    segments: list[tuple[SegmentKind, tuple[int, ...]]], length: int, neighbor_as: int, text: str
) -> None:
    path = AsPath.of(tuple(AsSegment(*segment) for segment in segments))
    assert (path.length, path.neighbor_as, str(path)) == (length, neighbor_as, text)


def test_occurrences_are_counted_over_all_segments() -> None:
    path = AsPath.of((AsSegment(SEQUENCE, (1, 2, 1)), AsSegment(SET, (1, 3))))
    assert [path.count(asn) for asn in (1, 2, 9)] == [3, 1, 0]
