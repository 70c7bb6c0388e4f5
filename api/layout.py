"""Text in columns, for rich's console: fast, and never wrapped into a mess.

rich's own tables take a third of a millisecond a row, seven seconds for 20,000 routes; these take
microseconds.  On a terminal a listing is fitted into its width by shortening the columns that may be; into
a file or pipe everything is written in full.  What peers and operators wrote is shown with its control
characters escaped, so that no peer can write to a terminal.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

GAP = "  "
NOTE_MARGIN = " " * 6
NARROWEST = 7
UNLIMITED = 10_000
PLAIN = Style()
BOLD = Style(bold=True)
DIM = Style(dim=True)
GOOD = Style(color="green")
BAD = Style(color="red")
WARN = Style(color="yellow")


def printable(text: str) -> str:
    """The text with everything escaped that could act on a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a listing; left out when every cell of it is empty."""

    heading: str
    right: bool = False
    """Aligned right: for numbers."""
    shrinks: bool = False
    """Shortened before the others when the terminal is too narrow."""
    note: bool = False
    """For the last column: what does not fit at the end of the lines goes below them, whole."""


@dataclass(slots=True)
class Listing:
    """Rows of cells under headings."""

    columns: Sequence[Column]
    rows: list[Sequence[str]] = field(default_factory=list)
    styles: dict[int, Style] = field(default_factory=dict)
    """Row number to style, where it is not plain."""
    indent: int = 0

    def add(self, *cells: str, style: Style | None = None) -> None:
        """Add a row."""
        if style is not None:
            self.styles[len(self.rows)] = style
        self.rows.append([printable(cell) for cell in cells])

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width - self.indent
        widths, notes_below = self._layout(width)
        margin = " " * self.indent
        yield from _line(margin + self._cells([column.heading for column in self.columns], widths), BOLD)
        for number, row in enumerate(self.rows):
            style = self.styles.get(number, PLAIN)
            yield from _line(margin + self._cells(row, widths), style)
            if notes_below:
                for line in textwrap.wrap(row[-1], width - len(NOTE_MARGIN), break_on_hyphens=False):
                    yield from _line(margin + NOTE_MARGIN + line, style)

    def _layout(self, width: int) -> tuple[dict[int, int], bool]:
        """The columns to show, each with its width, and whether notes go below their lines."""
        natural = {
            i: max(len(column.heading), *(len(row[i]) for row in self.rows))
            for i, column in enumerate(self.columns)
            if any(row[i] for row in self.rows)
        }
        last = len(self.columns) - 1
        total = sum(natural.values()) + len(GAP) * (len(natural) - 1)
        notes_below = last in natural and self.columns[last].note and total > width
        if notes_below:
            del natural[last]
        shrinks = [self.columns[i].shrinks for i in natural]
        return dict(zip(natural, fitted([*natural.values()], shrinks, width), strict=True)), notes_below

    def _cells(self, row: Sequence[str], widths: dict[int, int]) -> str:
        cells = []
        for i, width in widths.items():
            text = row[i] if len(row[i]) <= width else row[i][: width - 1] + "…"
            cells.append(text.rjust(width) if self.columns[i].right else text.ljust(width))
        return GAP.join(cells).rstrip()


def make_console() -> Console:
    """Standard output: as wide as the terminal, or without bound when it is a file or pipe."""
    return Console(
        width=None if sys.stdout.isatty() else UNLIMITED, markup=False, highlight=False, emoji=False
    )


def fitted(natural: Sequence[int], shrinks: Sequence[bool], width: int) -> list[int]:
    """Column widths for lines of `width`: first those that may shrink are shortened, then the widest."""
    widths = list(natural)
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    for candidates in ([i for i, may in enumerate(shrinks) if may], list(range(len(widths)))):
        while excess > 0:
            widest = max(candidates, key=lambda i: widths[i], default=None)
            if widest is None or widths[widest] <= NARROWEST:
                break
            widths[widest] -= 1
            excess -= 1
    return widths


@dataclass(slots=True)
class Fields:
    """Names with values, one to a line; long values go on below themselves."""

    rows: list[tuple[str, str, Style]] = field(default_factory=list)
    indent: int = 2

    def add(self, name: str, value: str, style: Style = PLAIN) -> None:
        """Add a line; one without a value is left out."""
        if value:
            self.rows.append((name, printable(value), style))

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        names = max((len(name) for name, _, _ in self.rows), default=0)
        start = self.indent + names + len(GAP)
        room = max(20, options.max_width - start)
        for name, value, style in self.rows:
            for number, line in enumerate(textwrap.wrap(value, room, break_on_hyphens=False)):
                label = name if number == 0 else ""
                yield Segment((" " * self.indent + label).ljust(start))
                yield from _line(line, style)


def paragraph(text: str, style: Style = PLAIN) -> Paragraph:
    """Prose, wrapped on a terminal."""
    return Paragraph(printable(text), style)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """See `paragraph`."""

    text: str
    style: Style

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        lines = textwrap.wrap(self.text, options.max_width, break_on_hyphens=False)
        for line in lines or [""]:
            yield from _line(line, self.style)


def _line(text: str, style: Style) -> Iterator[Segment]:
    yield Segment(text, style)
    yield Segment.line()


def counted(number: int, noun: str) -> str:
    """`1 path`, `2 paths`, `0 entries`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def commas(items: Iterable[object]) -> str:
    """Items in a sentence."""
    return ", ".join(str(item) for item in items)
