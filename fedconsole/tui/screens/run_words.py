"""How a run's state, times and metrics are written in tables and headings."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.text import Text
from textual.widget import Widget

from fedconsole.tui.formats import number, percent, span
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.lang import _
from fedconsole.tui.theme import style

if TYPE_CHECKING:
    from fedconsole.history import RunSummary

NO_JOURNAL: Final = "no journal"
"""The state of a folder that holds no run that could be read."""
_STATES: Final = {
    "running": ("running", "accent"),
    "pausing": ("paused", "accent"),
    "paused": ("paused", "accent"),
    "stalled": ("warning", "warning"),
    "completed": ("done", "good"),
    "aborted": ("aborted", "warning"),
    "failed": ("failed", "bad"),
    "crashed": ("crashed", "bad"),
    "unreadable": ("failed", "bad"),
    NO_JOURNAL: ("crashed", "bad"),
}
"""Sign and colour."""


def state_text(widget: Widget, state: str) -> Text:
    """Sign and word."""
    sign, role = _STATES[state]
    return Text(f"{glyph(sign)} {_(state)}", style(widget, role))


def started_text(summary: RunSummary) -> str:
    """In local time."""
    return f"{summary.started.astimezone():%m-%d %H:%M}"


def duration_text(summary: RunSummary, now: datetime) -> str:
    """So far, while it runs."""
    if summary.state.is_going:
        return span((now - summary.started).total_seconds())
    return "-" if summary.seconds is None else span(summary.seconds)


def measure(value: float | None) -> str:
    return "-" if value is None else number(value)


def share(value: float | None) -> str:
    return percent(value)
