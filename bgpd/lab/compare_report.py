"""What was compared, as values: medians of the runs, side by side, as rows of a table and as JSON.

Pure.  Every figure carries its unit: in the table a column, in JSON the end of its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from bgpd.lab.compare_ends import Measured, Schedule
from bgpd.lab.compare_offloads import TUNNEL
from bgpd.lab.compare_overlay import Offloads, Way


class Row(NamedTuple):
    """One measure of the table."""

    title: str
    unit: str
    key: str
    """In JSON."""
    digits: int


ROWS = (
    Row("round trip, median", "µs", "roundTripMedianMicroseconds", 1),
    Row("round trip, p99", "µs", "roundTripP99Microseconds", 0),
    Row("TCP, one stream", "Gb/s", "tcpOneStreamGigabitsPerSecond", 2),
    Row("TCP, {streams} streams", "Gb/s", "tcpManyStreamsGigabitsPerSecond", 2),
    Row("UDP, 64 bytes", "kpps", "udpSmallKilopacketsPerSecond", 1),
    Row("CPU, one stream", "s/GB", "cpuSecondsPerGigabyte", 2),
)
"""In the order of `Measured`."""


UNIT = 3
"""Its column."""
KINDS = {
    "pod": "pod's link",
    "podFarEnd": "its end on the node",
    "vxlan": "VXLAN device",
    "uplink": "node's link",
    "fabric": "its far end",
}
LABELS = {
    "checksums": ("tx-checksum-ip-generic",),
    "TCP segmentation": ("tx-tcp-segmentation",),
    "generic segmentation": ("tx-generic-segmentation",),
    "segmentation of tunnelled packets": TUNNEL,
    "joining on receipt": ("rx-gro",),
}
"""Features by what they are for."""


class Seen(NamedTuple):
    """What the wire between the nodes showed of pings between the pods."""

    plain: int
    """Pings with the pods' own addresses as the outermost."""
    tunnelled: int
    """Packets that were VXLAN."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Everything that was found."""

    schedule: Schedule
    runs: int
    processors: int
    other_work: float
    """Processors that were busy with other work before the traffic began."""
    mtu: dict[Way, int]
    seen: dict[Way, Seen]
    offloads: dict[Offloads, dict[str, list[str]]]
    """What was on, by kind of device."""
    measured: dict[Offloads, dict[Way, list[Measured]]]

    def medians(self, offloads: Offloads, way: Way) -> Measured:
        """Of the runs, each measure by itself."""
        return Measured(*(median(values) for values in zip(*self.measured[offloads][way], strict=True)))


def table_rows(compared: Compared, offloads: Offloads) -> list[tuple[str, str, str, str, str]]:
    """Measure, native, overlay, unit, and the overlay against native."""
    native, overlay = (zip(*compared.measured[offloads][way], strict=True) for way in Way)
    rows = [
        (
            row.title.format(streams=compared.schedule.streams),
            _with_spread(mine, row.digits),
            _with_spread(its, row.digits),
            row.unit,
            against(median(mine), median(its)),
        )
        for row, mine, its in zip(ROWS, native, overlay, strict=True)
    ]
    mtu = [compared.mtu[way] for way in Way]
    return [*rows, ("MTU of a pod", str(mtu[0]), str(mtu[1]), "bytes", f"{mtu[1] - mtu[0]:+}")]


def table_lines(compared: Compared, offloads: Offloads) -> list[str]:
    """The same as aligned lines with a head; never cut off, however narrow the terminal."""
    rows = [("", *map(str, Way), "", "difference"), *table_rows(compared, offloads)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at in (0, UNIT) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _with_spread(values: tuple[float, ...], digits: int) -> str:
    """The median, and between which figures the runs were."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})"


def against(native: float, overlay: float) -> str:
    """The overlay's figure against the native one."""
    return f"{overlay / native - 1:+.0%}" if native else ""


def offload_lines(on: dict[str, list[str]]) -> list[str]:
    """What the devices do themselves, in words; kinds of devices that do the same share a line."""
    kinds: dict[str, list[str]] = {}
    for kind, names in on.items():
        words = [word for word, features in LABELS.items() if any(name in features for name in names)]
        kinds.setdefault(", ".join(words) or "nothing", []).append(KINDS[kind])
    return [f"{', '.join(same)}: {words}" for words, same in kinds.items()]


def to_json(compared: Compared) -> dict[str, object]:
    """All of it; each measure is the median of the runs, which are listed as well."""
    return {
        "runs": compared.runs,
        "secondsOfEachPart": compared.schedule.seconds,
        "streams": compared.schedule.streams,
        "processors": compared.processors,
        "otherWorkProcessors": round(compared.other_work, 2),
        "ways": {
            way.value: {
                "podMtuBytes": compared.mtu[way],
                "plainPings": compared.seen[way].plain,
                "vxlanPackets": compared.seen[way].tunnelled,
            }
            for way in Way
        },
        "settings": [_setting(compared, offloads) for offloads in compared.measured],
    }


def _setting(compared: Compared, offloads: Offloads) -> dict[str, object]:
    by_way = {
        way.value: _named(compared.medians(offloads, way))
        | {"runs": [_named(each) for each in compared.measured[offloads][way]]}
        for way in Way
    }
    return {"offloads": offloads.value, "on": compared.offloads[offloads], **by_way}


def _named(measured: Iterable[float]) -> dict[str, object]:
    return {row.key: round(value, 3) for row, value in zip(ROWS, measured, strict=True)}
