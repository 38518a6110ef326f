"""What the screen is for, its keys, and the command lines that do the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from fedconsole.tui.frame import OfferedKey, key_label
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _

_KEY_CELLS = 10
_TITLE_CELLS = 26


class HelpDialog(ModalScreen[None]):
    BINDINGS: ClassVar = [key("escape,q,?,f1", "app.pop_screen", "Back")]
    DEFAULT_CSS = """
    HelpDialog { align: center middle; }
    HelpDialog > VerticalScroll {
        width: 90; max-width: 96%; height: auto; max-height: 90%;
        padding: 1 2; background: $surface; border: round $primary;
    }
    """

    def __init__(self, about: str, offers: Sequence[OfferedKey]) -> None:
        super().__init__()
        self._about = about
        self._offers = offers

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(self._text())

    def _text(self) -> Text:
        text = Text(f"{_(self._about)}\n\n")
        last_owner: object = None
        for offer in self._offers:
            if last_owner is not None and offer.node is not last_owner:
                text.append("\n")
            last_owner = offer.node
            text.append(_padded(key_label(offer.binding), _KEY_CELLS), "bold")
            title = _(offer.binding.description)
            text.append(_padded(title, _TITLE_CELLS), "" if offer.is_enabled else "dim")
            text.append(f"{offer.binding.tooltip}\n", "dim")
        text.append(f"\n{_('A key that is dim cannot be used now. Escape closes this.')}")
        return text


def _padded(text: str, cells: int) -> str:
    return text + " " * max(1, cells - cell_len(text))
