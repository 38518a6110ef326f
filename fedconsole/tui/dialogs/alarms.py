"""What went wrong, the latest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from fedconsole.tui.formats import clock
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _

if TYPE_CHECKING:
    from fedconsole.tui.run_records import AlarmRecord


class AlarmsDialog(ModalScreen[None]):
    BINDINGS: ClassVar = [key("escape,q,!", "app.pop_screen", "Back")]
    DEFAULT_CSS = """
    AlarmsDialog { align: center middle; }
    AlarmsDialog > VerticalScroll {
        width: 90; max-width: 96%; height: auto; max-height: 90%;
        padding: 1 2; background: $surface; border: round $warning;
    }
    """

    def __init__(self, records: Sequence[AlarmRecord]) -> None:
        super().__init__()
        self._records = records

    def compose(self) -> ComposeResult:
        text = Text()
        for record in reversed(self._records):
            text.append(f"{clock(record.time)}  {glyph('warning')} {record.text}\n")
        with VerticalScroll():
            yield Static(text if self._records else _("no alarms"), markup=False)
