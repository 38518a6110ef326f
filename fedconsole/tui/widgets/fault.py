"""Lines that say what went wrong, why, and how to mend it; hidden while all is well."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from fedconsole.tui.glyphs import glyph
from fedconsole.tui.theme import style
from pi_daemon.protocol.text import clean


class Fault(Static):
    DEFAULT_CSS = "Fault { display: none; height: auto; max-height: 5; padding: 0 1; }"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, markup=False)
        self._said = ""

    def say(self, text: str, *, is_warning: bool = False) -> None:
        """In the operator's language, a line for each thing; "": nothing is wrong."""
        if text == self._said:
            return
        self._said = text
        sign, role = ("warning", "warning") if is_warning else ("failed", "bad")
        lines = [clean(line) for line in text.split("\n")]
        self.update(Text(f"{glyph(sign)} " + "\n  ".join(lines), style(self, role)))
        self.display = bool(text)
