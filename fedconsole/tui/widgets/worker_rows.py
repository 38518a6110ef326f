"""The workers of a run as rows of a table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from rich.style import Style
from rich.text import Text
from textual.widget import Widget

from fedconsole.tui.formats import number, size
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.lang import _
from fedconsole.tui.run_model import RunModel
from fedconsole.tui.run_records import WorkerRow
from fedconsole.tui.theme import SERIES, readable, style
from fedconsole.tui.widgets.health import heat, throttle_flags
from fedconsole.tui.widgets.sparkline import sparkline
from fedconsole.tui.widgets.table_cells import Column

_TREND_CELLS: Final = 20
_BAR_CELLS: Final = 6

COLUMNS: Final = (
    Column("worker", "worker", 15, flexible=True),
    Column("phase", "phase", 9),
    Column("batch", "batch", 19, priority=1),
    Column("loss", "loss", 8, right=True),
    Column("trend", "trend", 12, priority=3, sortable=False, most=_TREND_CELLS),
    Column("rate", "ex/s", 6, priority=2, right=True),
    Column("bytes", "bytes", 13, priority=5),
    Column("celsius", "°C", 7, priority=2, right=True),
    Column("flags", "flags", 8, priority=4),
    Column("memory", "RAM", 6, priority=6, right=True),
    Column("lost", "lost", 4, priority=7, right=True),
    Column("error", "last error", 12, priority=3, flexible=True),
)


class WorkerRows:
    """A RowSource over a RunModel."""

    def __init__(self, model: RunModel, widget: Widget) -> None:
        """`widget` is asked for the theme."""
        self._model = model
        self._widget = widget

    def keys(self) -> Sequence[str]:
        return list(self._model.workers)

    def version(self, key: str) -> Hashable:
        return self._model.workers[key].version, key in self._model.waiting_for

    def cells(self, key: str) -> Mapping[str, Text]:
        row = self._model.workers[key]
        temperature, role = heat(row.celsius)
        return {
            "worker": self._name(row),
            "phase": self._phase(row, key in self._model.waiting_for),
            "batch": Text(_progress(row)),
            "loss": Text(number(row.loss) if row.num_steps else "-"),
            "trend": Text(sparkline(list(row.series.recent), _TREND_CELLS)),
            "rate": Text("-" if row.examples_per_s is None else f"{row.examples_per_s:.0f}"),
            "bytes": Text(_traffic(row)),
            "celsius": Text(temperature, style(self._widget, role) if role else ""),
            "flags": Text(throttle_flags(row.throttled)),
            "memory": Text("-" if row.memory_bytes is None else size(row.memory_bytes)),
            "lost": Text(str(row.num_lost) if row.num_lost else "-"),
            "error": Text(row.error or "-"),
        }

    def sort_value(self, key: str, column: str) -> Any:
        row = self._model.workers[key]
        match column:
            case "worker":
                return row.label.lower()
            case "phase":
                return row.phase
            case "batch":
                return row.batch
            case "loss":
                return row.loss
            case "rate":
                return row.examples_per_s
            case "bytes":
                return row.bytes_sent + row.bytes_received
            case "celsius":
                return row.celsius
            case "memory":
                return row.memory_bytes
            case "lost":
                return row.num_lost
            case _:
                return row.error or None

    def fields(self, key: str) -> Mapping[str, str]:
        row = self._model.workers[key]
        return {"worker": row.label, "phase": row.phase, "error": row.error, "address": row.address}

    def _name(self, row: WorkerRow) -> Text:
        is_here = row.lost_at is None
        sign = glyph("online" if is_here else "offline")
        look = Style()
        if not is_here:
            look = style(self._widget, "bad")
        elif row.letter and len(self._model.workers) <= len(SERIES):
            colour = SERIES[(ord(row.letter) - ord("A")) % len(SERIES)]
            look = Style(color=readable(self._widget, colour))
        text = Text(f"{sign}{row.letter} ", look)
        text.append(f"{row.label}{' SIM' if row.is_virtual else ''}")
        return text

    def _phase(self, row: WorkerRow, is_awaited: bool) -> Text:
        word = _(row.phase)
        if row.lost_at is not None:
            return Text(word, style(self._widget, "bad"))
        if is_awaited:
            return Text(f"{word}…", style(self._widget, "warning"))
        if row.phase == "straggler":
            return Text(word, style(self._widget, "warning"))
        return Text(word)


def _traffic(row: WorkerRow) -> str:
    if not row.bytes_sent and not row.bytes_received:
        return "-"
    sent, received = size(row.bytes_sent), size(row.bytes_received)
    return f"{glyph('send')}{sent} {glyph('receive')}{received}"


def _progress(row: WorkerRow) -> str:
    if not row.num_batches:
        return "-"
    share = row.batch / row.num_batches
    full = round(share * _BAR_CELLS)
    bar = glyph("bar_full") * full + glyph("bar_empty") * (_BAR_CELLS - full)
    return f"{bar} {row.batch}/{row.num_batches} {100 * share:.0f}%"
