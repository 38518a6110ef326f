"""Below the form of a new run: whether it can start, the equal command line, and the buttons."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Static

from fedconsole.tui.formats import cut_lines
from fedconsole.tui.lang import _
from pi_daemon.protocol.text import clean

_MAX_LINES: Final = 3
_MAX_COMMAND: Final = 4_000


class RunFoot(Vertical):
    DEFAULT_CSS = """
    RunFoot { height: auto; border-top: solid $panel; }
    RunFoot Static { height: auto; padding: 0 1; }
    RunFoot #command { color: $text-muted; }
    RunFoot #buttons { height: 1; padding: 0 1; }
    RunFoot #buttons Button { margin-right: 2; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._state = Text()
        self._command = ""

    def compose(self) -> ComposeResult:
        yield Static(id="missing", markup=False)
        yield Static(id="command", markup=False)
        with Horizontal(id="buttons"):
            yield Button(id="start", compact=True, variant="primary")
            yield Button(id="check", compact=True)

    def on_mount(self) -> None:
        self.retell()

    def retell(self) -> None:
        """In the language in use."""
        self.query_one("#start", Button).label = _("Start")
        self.query_one("#check", Button).label = _("Check")

    def show(self, state: Text, command: str, possible: Container[str]) -> None:
        """`possible`: the ids of the buttons that do something now."""
        self._state, self._command = state, clean(command, _MAX_COMMAND)
        self._draw()
        for button in self.query(Button):
            button.disabled = button.id not in possible

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        state, command = self._state, self._command
        if (room := self.size.width - 2) > 0:
            shown = cut_lines(state.plain, room, _MAX_LINES, _("!: all of it"))
            state = state if shown == state.plain else Text(shown, state.style)
            command = cut_lines(command, room, _MAX_LINES, _("^Y copies all of it"))
        self.query_one("#missing", Static).update(state)
        self.query_one("#command", Static).update(command)
