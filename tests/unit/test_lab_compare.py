"""The comparison with an overlay: what is printed of which figures, and in which order they are taken."""

from __future__ import annotations

from collections import Counter

import pytest

from bgpd.lab.command import LabError
from bgpd.lab.compare import CompareOptions, _order
from bgpd.lab.compare_ends import Measured, Schedule
from bgpd.lab.compare_overlay import Offloads, Way
from bgpd.lab.compare_report import (
    Compared,
    Seen,
    against,
    offload_lines,
    table_lines,
    table_rows,
    to_json,
)

NATIVE = [Measured(40.0, 90.0, 10.0, 11.0, 48.0, 0.8), Measured(42.0, 95.0, 11.0, 12.0, 50.0, 0.9)]
OVERLAY = [Measured(60.0, 120.0, 5.0, 6.0, 30.0, 1.6), Measured(66.0, 130.0, 6.0, 6.0, 31.0, 1.8)]


def compared() -> Compared:
    return Compared(
        Schedule(0.2, 4),
        2,
        2,
        0.1,
        {Way.NATIVE: 1500, Way.OVERLAY: 1450},
        {Way.NATIVE: Seen(2, 0), Way.OVERLAY: Seen(0, 4)},
        {Offloads.ALL: {"uplink": ["tx-tcp-segmentation"]}},
        {Offloads.ALL: {Way.NATIVE: NATIVE, Way.OVERLAY: OVERLAY}},
    )


def test_each_row_has_both_medians_their_spread_the_unit_and_the_difference() -> None:
    rows = {row[0]: row[1:] for row in table_rows(compared(), Offloads.ALL)}
    assert rows["round trip, median"] == ("41.0 (40.0-42.0)", "63.0 (60.0-66.0)", "µs", "+54%")
    assert rows["TCP, one stream"] == ("10.50 (10.00-11.00)", "5.50 (5.00-6.00)", "Gb/s", "-48%")
    assert rows["TCP, 4 streams"][1] == "6.00 (6.00-6.00)"
    assert rows["CPU, one stream"][2:] == ("s/GB", "+100%")
    assert rows["MTU of a pod"] == ("1500", "1450", "bytes", "-50")


def test_the_table_is_aligned_and_whole() -> None:
    head, first, *_, last = table_lines(compared(), Offloads.ALL)
    assert head.split() == ["native", "overlay", "difference"]
    assert first.startswith("round trip, median")
    assert head.index("native") + len("native") == first.index(" (") + len(" (40.0-42.0)")
    assert last.split() == ["MTU", "of", "a", "pod", "1500", "1450", "bytes", "-50"]


def test_json_says_the_same_with_units_in_the_names() -> None:
    value = to_json(compared())
    (setting,) = value["settings"] if isinstance(value["settings"], list) else []
    assert setting["native"]["tcpOneStreamGigabitsPerSecond"] == 10.5
    assert setting["overlay"]["roundTripMedianMicroseconds"] == 63.0
    assert len(setting["overlay"]["runs"]) == 2
    assert setting["on"] == {"uplink": ["tx-tcp-segmentation"]}


@pytest.mark.parametrize(
    ("native", "overlay", "said"), [(2.0, 3.0, "+50%"), (3.0, 3.0, "+0%"), (0.0, 1.0, "")]
)
def test_against(native: float, overlay: float, said: str) -> None:
    assert against(native, overlay) == said


def test_devices_that_do_the_same_share_a_line() -> None:
    on = {"pod": ["tx-tcp-segmentation"], "vxlan": [], "uplink": ["tx-tcp-segmentation"]}
    assert offload_lines(on) == ["pod's link, node's link: TCP segmentation", "VXLAN device: nothing"]


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_every_setting_is_measured_once_a_run_and_no_way_is_always_first(runs: int) -> None:
    order = list(_order(runs))
    assert set(Counter(order).values()) == {runs}
    firsts = Counter(way for _, way in order[::2])
    assert abs(firsts[Way.NATIVE] - firsts[Way.OVERLAY]) <= 1


@pytest.mark.parametrize("duration", [0.0, -1.0, 3_601.0, float("nan")])
def test_a_comparison_is_bounded(duration: float) -> None:
    with pytest.raises(LabError, match="1 to 3600 s"):
        CompareOptions(duration=duration).schedule()


def test_the_default_is_under_forty_seconds_with_everything_around_it() -> None:
    options = CompareOptions()
    parts = options.runs * len(Offloads) * len(Way) * 4
    assert parts * options.schedule().seconds <= 25
