"""The columns of a table, where its rows come from, and a cell of exactly so many terminal cells."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from fedconsole.tui.formats import fit
from pi_daemon.protocol.text import clean

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


def padded(text: str, cells: int, right: bool) -> str:
    blanks = " " * max(0, cells - cell_len(text))
    return blanks + text if right else text + blanks


def cell_segments(text: Text | None, cells: int, right: bool, base: Style) -> list[Segment]:
    """One cell, exactly so wide, whatever its text holds."""
    if text is None:
        return [Segment(" " * cells, base)]
    plain = text.plain
    cleaned = clean(plain, _MAX_CELL)
    if cleaned != plain or cell_len(cleaned) > cells:
        look = base + (text.style if isinstance(text.style, Style) else Style.parse(text.style))
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


def _make_console() -> Any:
    from rich.console import Console

    return Console(force_terminal=True, color_system="truecolor", width=_MAX_CELL)


_CONSOLE: Final = _make_console()
