"""What the screen is for, its keys, and the command lines that do the same."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from fedconsole.tui.dismissed_once import DismissedOnce
from fedconsole.tui.frame import (
    MODES,
    ConsoleScreen,
    all_keys,
    command_twin,
    hindrance,
    key_label,
    pane_title,
)
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from pi_daemon.protocol.text import clean

_KEY_CELLS = 10
_TITLE_CELLS = 26
_MAX_TWIN = 4_000


class HelpDialog(DismissedOnce[None]):
    BINDINGS: ClassVar = [
        key("escape,q,?,f1", "leave", "Back"),
        key("y", "app.copy", "Copy"),
    ]
    DEFAULT_CSS = """
    HelpDialog { align: center middle; }
    HelpDialog > VerticalScroll {
        width: 90; max-width: 96%; height: auto; max-height: 90%;
        padding: 1 2; background: $surface; border: round $primary;
    }
    """

    def __init__(self, screen: ConsoleScreen) -> None:
        """Of this screen, as it is now."""
        super().__init__()
        self._screen = screen

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(self._text())

    def _text(self) -> Text:
        screen = self._screen
        text = Text(f"{_(screen.ABOUT)}\n")
        heading = ""
        for offer in all_keys(screen):
            is_own = offer.node is screen
            title = pane_title(offer.node) or (MODES[screen.NAME] if is_own else "Everywhere")
            if title != heading:
                heading = title
                text.append(f"\n{_(title)}\n", "bold underline")
            text.append(_padded(key_label(offer.binding), _KEY_CELLS), "bold")
            words = _padded(_(offer.binding.description), _TITLE_CELLS)
            text.append(words, "" if offer.is_enabled else "dim")
            beside = hindrance(offer, screen) or command_twin(offer, screen)
            text.append(f"{clean(beside, _MAX_TWIN)}\n", "dim")
        text.append(f"\n{_('Escape closes this.')}")
        return text


def _padded(text: str, cells: int) -> str:
    return text + " " * max(1, cells - cell_len(text))
