"""Rows that are all there from the start, for a table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from rich.text import Text

from fedconsole.report import shown
from fedconsole.tui.widgets.filtering import EVERYTHING
from fedconsole.tui.widgets.line_table import LineTable
from pi_daemon.protocol.text import clean

Format = Callable[[Any], str]


class FixedRows:
    """Values by column; a row is called by its place, counted from 0."""

    def __init__(self, formats: Mapping[str, Format] | None = None) -> None:
        """`formats` say how a column's values are written, where the plain way is not good enough."""
        self._formats = formats or {}
        self._rows: Sequence[Mapping[str, Any]] = ()
        self._version = 0

    def put(self, rows: Sequence[Mapping[str, Any]], table: LineTable) -> None:
        """Show these from now on in the table that was given this source."""
        self._rows = rows
        self._version += 1
        # Sorts at once, not when the table does it next by itself.
        table.set_filter(EVERYTHING)

    def keys(self) -> Sequence[str]:
        return [str(index) for index in range(len(self._rows))]

    def version(self, key: str) -> Hashable:
        return self._version

    def cells(self, key: str) -> Mapping[str, Text]:
        return {
            column: Text(clean(self._formats.get(column, shown)(value)))
            for column, value in self._rows[int(key)].items()
        }

    def sort_value(self, key: str, column: str) -> Any:
        return self._rows[int(key)].get(column)

    def fields(self, key: str) -> Mapping[str, str]:
        return {column: cell.plain for column, cell in self.cells(key).items()}
