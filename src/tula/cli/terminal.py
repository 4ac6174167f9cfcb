"""What the commands print on a terminal: colours, and tables that fit its width.

Rich is not used for tables: it takes 20 s for the 25,000 lines of 5,000 services.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from typer import style

_GAP = "  "


@dataclass(frozen=True, slots=True)
class Screen:
    """Where something is printed. ``width`` and ``height`` are None for what is no terminal:
    nothing is cut there."""

    width: int | None = None
    height: int | None = None
    colours: bool = False

    def paint(self, text: str, colour: str, *, bold: bool = False) -> str:
        """The text in a colour, where there are colours; as it is with the colour empty."""
        if not self.colours or not (colour or bold):
            return text
        return style(text, fg=colour or None, bold=bold or None)

    def wrap(self, text: str, indent: int = 0, first: str = "") -> list[str]:
        """The text in lines that fit, after ``first``; those that follow are indented."""
        if self.width is None:
            return [first + text]
        wrapped = textwrap.wrap(
            text,
            max(20, self.width),
            initial_indent=first,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return wrapped or [first]

    def cut(self, text: str) -> str:
        """The text, as much of it as fits into a line."""
        return text if self.width is None else cut(text, self.width)


def screen_of(stream: TextIO | None = None) -> Screen:
    """What is known of a stream, by default standard output. NO_COLOR (no-color.org) and
    TERM=dumb turn colours off; COLUMNS and LINES give another size."""
    stream = stream or sys.stdout
    if not stream.isatty():
        return Screen()
    size = shutil.get_terminal_size()
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return Screen(size.columns, size.lines, not plain)


def cut(text: str, width: int) -> str:
    """At most ``width`` characters of the text; an ellipsis stands for the rest."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    ``least``: characters to which it may be cut, 0: it is never cut. ``drop``: the column with the
    highest is left out first where there is no room, those with 0 stay.
    """

    heading: str
    right: bool = False
    least: int = 0
    drop: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table; ``colours`` are by column. ``below`` are lines of their own under it."""

    cells: Sequence[str]
    colours: dict[int, str] = field(default_factory=dict)
    below: Sequence[str] = ()
    bold: bool = False


def table_lines(columns: Sequence[Column], rows: Sequence[Row], screen: Screen) -> Iterable[str]:
    """The lines of a table. Columns in which nothing stands are left out."""
    used = [at for at in range(len(columns)) if any(row.cells[at] for row in rows)]
    widths = {at: max(len(columns[at].heading), *(len(r.cells[at]) for r in rows)) for at in used}
    if screen.width is not None:
        widths = _fit(columns, widths, screen.width)
    headings = [column.heading for column in columns]
    for row in (Row(headings, bold=True), *rows):
        yield _line(row, columns, widths, screen)
        yield from (screen.cut(line) for line in row.below)


def _line(row: Row, columns: Sequence[Column], widths: dict[int, int], screen: Screen) -> str:
    cells, used = [], list(widths)
    for at in used:
        text = cut(row.cells[at], widths[at])
        last = at == used[-1] and not columns[at].right
        padded = text if last else text.ljust(widths[at])
        if columns[at].right:
            padded = text.rjust(widths[at])
        colour = row.colours.get(at, "")
        cells.append(screen.paint(padded, colour, bold=row.bold) if padded.strip() else padded)
    return _GAP.join(cells).rstrip()


def _fit(columns: Sequence[Column], widths: dict[int, int], width: int) -> dict[int, int]:
    """The widths that fit: first columns are cut, then those that matter least left out."""
    kept = dict(widths)
    while True:
        over = sum(kept.values()) + len(_GAP) * (len(kept) - 1) - width
        for at in sorted(kept, key=lambda at: -kept[at]):
            least = columns[at].least
            if over > 0 and least and kept[at] > least:
                taken = min(over, kept[at] - max(least, len(columns[at].heading)))
                over -= max(0, taken)
                kept[at] -= max(0, taken)
        droppable = [at for at in kept if columns[at].drop]
        if over <= 0 or not droppable:
            return kept
        gone = max(droppable, key=lambda at: columns[at].drop)
        kept = {at: widths[at] for at in widths if at in kept and at != gone}


def number(value: float | None) -> str:
    """A count or a rate in at most five characters: ``999``, ``12.3k``, ``4.1G``; a rate below
    10 has a decimal."""
    if value is None:
        return ""
    if isinstance(value, float) and 0 < value < 9.95:
        return f"{value:.1f}"
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5:
            return f"{value:.0f}" if not unit else f"{value:.{0 if value >= 99.95 else 1}f}{unit}"
        value /= 1000
    return f"{value:.0f}P"
