"""The columns of a table, where its rows come from, and a cell of exactly so many terminal cells."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from fedconsole.tui.formats import fit, wrapped
from pi_daemon.protocol.text import clean

GAP: Final = 1
"""Cells after each column."""
_MAX_CELL: Final = 400


@dataclass(frozen=True, slots=True)
class Column:
    key: str
    title: str
    """English; translated when it is drawn."""
    width: int
    priority: int = 0
    """Where there is no room for all, the highest number goes first."""
    right: bool = False
    flexible: bool = False
    """Takes what the others leave."""
    sortable: bool = True
    most: int | None = None
    """Grows to so many cells before the flexible ones do; of a longer text the end is shown."""


class RowSource(Protocol):
    """What a table shows. It is asked for the rows on the screen only, but for sorting and filters."""

    def keys(self) -> Sequence[str]: ...

    def version(self, key: str) -> Hashable:
        """Changes whenever the row would be drawn differently."""

    def cells(self, key: str) -> Mapping[str, Text]:
        """By column."""

    def sort_value(self, key: str, column: str) -> Any:
        """None comes last."""

    def fields(self, key: str) -> Mapping[str, str]:
        """What a filter looks at."""


def laid_out(columns: Sequence[Column], room: int) -> list[tuple[Column, int]]:
    """Those that fit into so many cells, with their widths; one at least."""
    chosen = list(columns)
    while len(chosen) > 1 and sum(c.width + GAP for c in chosen) > room:
        last = max(chosen, key=lambda c: (c.priority, chosen.index(c)))
        chosen.remove(last)
    rest = max(0, room - sum(c.width + GAP for c in chosen))
    widths = {c.key: c.width for c in chosen}
    for column in chosen:
        if column.most is not None:
            more = min(rest, column.most - column.width)
            widths[column.key] += more
            rest -= more
    flexible = [c for c in chosen if c.flexible]
    for column in flexible:
        widths[column.key] += rest // len(flexible)
    return [(c, widths[c.key]) for c in chosen]


def padded(text: str, cells: int, right: bool) -> str:
    blanks = " " * max(0, cells - cell_len(text))
    return blanks + text if right else text + blanks


def cell_segments(text: Text | None, cells: int, right: bool, base: Style) -> list[Segment]:
    """One cell, exactly so wide, whatever its text holds."""
    if text is None:
        return [Segment(" " * cells, base)]
    plain = text.plain
    # Rich leaves the style of a text without parts of other styles to whoever draws it.
    base += text.style if isinstance(text.style, Style) else Style.parse(text.style)
    cleaned = clean(plain, _MAX_CELL)
    if cleaned != plain or cell_len(cleaned) > cells:
        look = base
        if text.spans and isinstance(text.spans[0].style, Style):
            look += text.spans[0].style
        return [Segment(padded(fit(cleaned, cells), cells, right), look)]
    copy = text.copy()
    blanks = cells - cell_len(plain)
    if right:
        copy.pad_left(blanks)
    else:
        copy.pad_right(blanks)
    return [
        Segment(segment.text, base + segment.style if segment.style else base)
        for segment in copy.render(_CONSOLE)
        if segment.text
    ]


def column_segments(column: Column, text: Text | None, cells: int, base: Style) -> list[Segment]:
    """As `cell_segments`, of a column."""
    if column.most is not None and text is not None:
        text = text[-cells:]
    return cell_segments(text, cells, column.right, base)


def centred(text: str, y: int, width: int, height: int) -> str | None:
    """Line y of a text that stands in the middle; None: that line is blank. Leading blanks included."""
    lines = wrapped(text, width - 2)
    top = max(1, (height - len(lines)) // 2)
    if not top <= y < top + len(lines):
        return None
    line = fit(lines[y - top], width)
    return " " * ((width - cell_len(line)) // 2) + line


def _make_console() -> Any:
    from rich.console import Console

    return Console(force_terminal=True, color_system="truecolor", width=_MAX_CELL)


_CONSOLE: Final = _make_console()
