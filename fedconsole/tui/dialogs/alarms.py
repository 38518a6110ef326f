"""What went wrong, and which command lines were echoed, the latest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from fedconsole.tui.dismissed_once import DismissedOnce
from fedconsole.tui.formats import clock
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from fedconsole.tui.messages import Echoed
    from fedconsole.tui.run_records import AlarmRecord


_MAX_COMMAND: Final = 400


class AlarmsDialog(DismissedOnce[None]):
    BINDINGS: ClassVar = [key("escape,q,!", "leave", "Back"), key("y", "app.copy", "Copy")]
    DEFAULT_CSS = """
    AlarmsDialog { align: center middle; }
    AlarmsDialog > VerticalScroll {
        width: 90; max-width: 96%; height: auto; max-height: 90%;
        padding: 1 2; background: $surface; border: round $warning;
    }
    """

    def __init__(self, records: Sequence[AlarmRecord], echoes: Sequence[Echoed] = ()) -> None:
        super().__init__()
        self._records = records
        self._echoes = echoes

    def compose(self) -> ComposeResult:
        text = Text()
        for record in reversed(self._records):
            text.append(f"{clock(record.time)}  {glyph('warning')} {record.text}\n")
        if not self._records:
            text.append(_("no alarms") + "\n")
        if self._echoes:
            text.append(f"\n{_('Commands so far')}\n", "bold")
        for echo in reversed(self._echoes):
            text.append(f"{clock(echo.time)}  {clean(echo.command, _MAX_COMMAND)}\n")
        with VerticalScroll():
            yield Static(text, markup=False)
