"""Lines that say what went wrong, why, and how to mend it; hidden while all is well."""

from __future__ import annotations

from typing import Final

from rich.text import Text
from textual.widgets import Static

from fedconsole.tui.formats import cut_lines
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.theme import style
from pi_daemon.protocol.text import clean

_MAX_LINES: Final = 5


class Fault(Static):
    DEFAULT_CSS = "Fault { display: none; height: auto; padding: 0 1; }"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, markup=False)
        self._said = ""
        self._is_warning = False
        self._whole = ""

    def say(self, text: str, *, is_warning: bool = False, whole: str = "") -> None:
        """In the operator's language, a line for each thing; "": nothing is wrong.

        `whole` says where all of it stands, if it has no room here.
        """
        if text == self._said:
            return
        self._said, self._is_warning, self._whole = text, is_warning, whole
        self.display = bool(text)
        self._show()

    def _show(self) -> None:
        sign, role = ("warning", "warning") if self._is_warning else ("failed", "bad")
        lines = [clean(line) for line in self._said.split("\n")]
        text = f"{glyph(sign)} " + "\n  ".join(lines)
        # Its width is known when it has been drawn once.
        if width := self.size.width:
            text = cut_lines(text, width, _MAX_LINES, self._whole)
        self.update(Text(text, style(self, role)))

    def on_resize(self) -> None:
        self._show()
