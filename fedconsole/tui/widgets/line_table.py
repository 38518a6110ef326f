"""A table that draws only the lines on the screen, and of these only those that have changed."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from fedconsole.tui.formats import fit
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.filter_bar import Filterable
from fedconsole.tui.widgets.filtering import EVERYTHING, Filter
from fedconsole.tui.widgets.table_cells import (
    GAP,
    Column,
    RowSource,
    centred,
    column_segments,
    laid_out,
    padded,
)

_MARK_CELLS: Final = 2
"""A click there marks a row, or takes its mark away."""
_SORT_S: Final = 0.5
"""Rows that change places more often cannot be read."""


class LineTable(Filterable, can_focus=True):
    ALLOW_SELECT = False
    PANE: ClassVar = "Table"
    BINDINGS: ClassVar = [
        key("up,k", "move(-1)", "Up", show=False),
        key("down,j", "move(1)", "Down", show=False),
        key("pageup", "page(-1)", "Page up", show=False),
        key("pagedown", "page(1)", "Page down", show=False),
        key("home", "edge(-1)", "First", show=False),
        key("end", "edge(1)", "Last", show=False),
        key("enter", "select", "Open", show=False),
        Filterable.FILTER_KEY,
        key("s", "sort_next", "Sort by the next column", show=False),
        key("S", "sort_reverse", "Reverse the order", show=False),
        key("space", "mark", "Mark", show=False),
        key("*", "mark_all", "Mark all", show=False),
    ]
    DEFAULT_CSS = """
    LineTable { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; }
    """

    @dataclass
    class Highlighted(Message):
        """The cursor stands on another row."""

        table: LineTable
        key: str

        @property
        def control(self) -> LineTable:
            return self.table

    @dataclass
    class Selected(Message):
        """Enter, or a click on the row with the cursor."""

        table: LineTable
        key: str

        @property
        def control(self) -> LineTable:
            return self.table

    @dataclass
    class Marked(Message):
        table: LineTable
        keys: frozenset[str]

        @property
        def control(self) -> LineTable:
            return self.table

    def __init__(
        self,
        columns: Sequence[Column],
        source: RowSource,
        *,
        empty: str = "",
        sort: str | None = None,
        reverse: bool = False,
        marks: bool = False,
        filters: bool = True,
        id: str | None = None,  # noqa: A002
    ) -> None:
        """`sort` is a column's key; None keeps the source's order. `empty` is English.

        Where rows can be marked or filtered, the screen answers to Marked, or opens its filter.
        """
        super().__init__(id=id)
        self.marked: frozenset[str] = frozenset()
        self._columns = columns
        self._source = source
        self._empty = empty
        self._sort = sort
        self._is_reversed = reverse
        self._has_marks = marks
        self._has_filter = filters
        self._filter = EVERYTHING
        self._order: list[str] = []
        self._total = 0
        self._cursor = 0
        self._sorted_at = 0.0
        self._is_stale = True
        self._strips: dict[str, tuple[Hashable, Strip]] = {}
        self._shown: list[tuple[Column, int]] = []

    # What is shown

    @property
    def current(self) -> str | None:
        """The row with the cursor."""
        return self._order[self._cursor] if self._order else None

    @property
    def shown(self) -> int:
        return len(self._order)

    @property
    def total(self) -> int:
        return self._total

    def move_to(self, row: str) -> None:
        self._reorder()
        if row in self._order:
            self._set_cursor(self._order.index(row))

    def set_empty(self, text: str) -> None:
        """What stands there while there is no row: English of the catalogue, or as it is."""
        if text != self._empty:
            self._empty = text
            self.refresh()

    def set_filter(self, wanted: Filter) -> None:
        self._filter = wanted
        self._reorder()

    def copy_text(self) -> str | None:
        """The row under the cursor, its columns separated by tabs."""
        if self.current is None:
            return None
        cells = self._source.cells(self.current)
        return "\t".join(cells[c.key].plain.strip() for c in self._columns if c.key in cells)

    def flush(self) -> None:
        """Draw what has changed."""
        now = time.monotonic()
        if self._is_stale or now - self._sorted_at >= _SORT_S:
            self._reorder()
        top = int(self.scroll_offset.y)
        rows = self._order[top : top + self._num_rows]
        changed = [i for i, row in enumerate(rows) if self._stamp(row) != self._drawn(row)]
        if len(changed) > len(rows) // 2:
            self.refresh()
        else:
            for i in changed:
                self.refresh(Region(0, i + 1, self._width, 1))

    @property
    def _width(self) -> int:
        # A line that goes on below the scrollbar is cut there, and Rich remembers 16,384 cut lines.
        return self.scrollable_content_region.width

    @property
    def _num_rows(self) -> int:
        return max(0, self.size.height - 1)

    def _stamp(self, row: str) -> Hashable:
        return (
            self._source.version(row),
            row == self.current,
            row in self.marked,
            self.has_focus,
        )

    def _drawn(self, row: str) -> Hashable:
        found = self._strips.get(row)
        return found[0] if found else None

    def _reorder(self) -> None:
        current = self.current
        keys = self._source.keys()
        self._total = len(keys)
        if not self._filter.is_empty:
            keys = [row for row in keys if self._filter.matches(self._source.fields(row))]
        order = self._sorted(keys)
        self._sorted_at = time.monotonic()
        self._is_stale = False
        if order == self._order:
            return
        self._order = order
        if len(self._strips) > 4 * len(order) + 100:
            self._strips.clear()
        if current in order:
            self._cursor = order.index(current)
        else:
            self._cursor = min(self._cursor, max(0, len(order) - 1))
        if self.current is not None and self.current != current:
            self.post_message(self.Highlighted(self, self.current))
        self.virtual_size = Size(self._width, len(order) + 1)
        self.refresh()

    def _sorted(self, keys: Sequence[str]) -> list[str]:
        if self._sort is None:
            return list(reversed(keys)) if self._is_reversed else list(keys)
        values = {row: self._source.sort_value(row, self._sort) for row in keys}
        known = [row for row in keys if values[row] is not None]
        unknown = [row for row in keys if values[row] is None]
        known.sort(key=lambda row: values[row], reverse=self._is_reversed)
        return known + unknown

    # Drawing

    def render_line(self, y: int) -> Strip:
        width = self._width
        if y == 0:
            return self._header(width)
        index = int(self.scroll_offset.y) + y - 1
        if not self._order:
            return self._empty_line(y, width)
        if index >= len(self._order):
            return Strip.blank(width, self.rich_style)
        row = self._order[index]
        stamp = self._stamp(row)
        found = self._strips.get(row)
        if found is None or found[0] != stamp or found[1].cell_length != width:
            found = stamp, self._row(row, width)
            self._strips[row] = found
        return found[1]

    def _header(self, width: int) -> Strip:
        look = self.rich_style + style(self, "title")
        segments = [Segment(" " * _MARK_CELLS if self._has_marks else "", look)]
        for column, cells in self._layout(width):
            title = _(column.title)
            if column.key == self._sort:
                arrow = glyph("down" if self._is_reversed else "up")
                title = fit(title, cells - 1) + arrow
            segments.append(Segment(padded(fit(title, cells), cells, column.right) + " ", look))
        return Strip(segments).adjust_cell_length(width, look).simplify()

    def _row(self, row: str, width: int) -> Strip:
        base = self.rich_style
        if row == self.current:
            base += style(self, "cursor") if self.has_focus else Style(bold=True)
        cells = self._source.cells(row)
        segments = []
        if self._has_marks:
            is_marked = row in self.marked
            look = base if is_marked else base + style(self, "dim")
            segments.append(Segment(glyph("mark" if is_marked else "no mark"), look))
            segments.append(Segment(" ", base))
        for column, room in self._layout(width):
            segments += column_segments(column, cells.get(column.key), room, base)
            segments.append(Segment(" " * GAP, base))
        return Strip(segments).adjust_cell_length(width, base).simplify()

    def _empty_line(self, y: int, width: int) -> Strip:
        text = _(self._empty) if self._total == 0 else _("nothing matches the filter")
        look = self.rich_style + style(self, "dim")
        line = centred(text, y, width, self.size.height)
        if line is None:
            return Strip.blank(width, self.rich_style)
        return Strip([Segment(line, look)]).adjust_cell_length(width, look)

    def _layout(self, width: int) -> list[tuple[Column, int]]:
        """The columns that have room, with their widths."""
        self._shown = laid_out(self._columns, width - (_MARK_CELLS if self._has_marks else 0))
        return self._shown

    def on_resize(self) -> None:
        self._strips.clear()
        self.virtual_size = Size(self._width, len(self._order) + 1)
        self._keep_in_sight()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()

    # Cursor, marks, order

    def _set_cursor(self, index: int) -> None:
        if not self._order:
            return
        index = max(0, min(index, len(self._order) - 1))
        if index == self._cursor:
            return
        self._cursor = index
        self._keep_in_sight()
        self.refresh()
        self.post_message(self.Highlighted(self, self._order[index]))

    def _keep_in_sight(self) -> None:
        top = int(self.scroll_offset.y)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, force=True)
        elif self._num_rows and self._cursor >= top + self._num_rows:
            self.scroll_to(y=self._cursor - self._num_rows + 1, animate=False, force=True)

    def action_move(self, step: int) -> None:
        self._set_cursor(self._cursor + step)

    def action_page(self, direction: int) -> None:
        self._set_cursor(self._cursor + direction * max(1, self._num_rows - 1))

    def action_edge(self, direction: int) -> None:
        self._set_cursor(0 if direction < 0 else len(self._order) - 1)

    def action_select(self) -> None:
        if self.current is not None:
            self.post_message(self.Selected(self, self.current))

    def action_mark(self) -> None:
        if self.current is not None:
            self.set_marked(self.marked ^ {self.current})
            self.action_move(1)

    def action_mark_all(self) -> None:
        everything = frozenset(self._order)
        self.set_marked(frozenset() if self.marked >= everything else everything)

    def set_marked(self, rows: frozenset[str]) -> None:
        self.marked = rows
        self.refresh()
        self.post_message(self.Marked(self, rows))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("mark", "mark_all"):
            return self._has_marks
        if action == "want_filter":
            return self._has_filter
        return True

    def action_sort_next(self) -> None:
        names = [column.key for column, _width in self._shown if column.sortable]
        if names:
            at = names.index(self._sort) + 1 if self._sort in names else 0
            self._sort_by(names[at % len(names)])

    def action_sort_reverse(self) -> None:
        self._is_reversed = not self._is_reversed
        self._reorder()
        self.refresh()

    def _sort_by(self, column: str) -> None:
        if column == self._sort:
            self._is_reversed = not self._is_reversed
        else:
            self._sort, self._is_reversed = column, False
        self._reorder()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        event.stop()
        if event.y == 0:
            self._click_header(event.x)
            return
        index = int(self.scroll_offset.y) + event.y - 1
        if index >= len(self._order):
            return
        if self._has_marks and event.x < _MARK_CELLS:
            self._set_cursor(index)
            self.set_marked(self.marked ^ {self._order[index]})
        elif index == self._cursor:
            self.action_select()
        else:
            self._set_cursor(index)

    def _click_header(self, x: int) -> None:
        left = _MARK_CELLS if self._has_marks else 0
        for column, width in self._shown:
            if left <= x < left + width and column.sortable:
                self._sort_by(column.key)
            left += width + GAP
