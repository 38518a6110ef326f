"""The Live mode before there is a run."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.widgets import Static

from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _


class NoRunScreen(ConsoleScreen):
    NAME = "live"
    ABOUT = (
        "Here a run is shown while it goes on. Start one on the New run screen, or open one of the "
        "History that is still running."
    )
    BINDINGS: ClassVar = [
        key("n", "app.mode('new')", "New run"),
        key("h", "app.mode('history')", "History", cli="fedconsole runs list"),
    ]
    DEFAULT_CSS = "NoRunScreen > Static { width: 1fr; height: 1fr; content-align: center middle; }"

    def body(self) -> ComposeResult:
        yield Static(id="hint", markup=False)

    def on_mount(self) -> None:
        self.retell()

    def retell(self) -> None:
        words = _("No run is shown.\n\nn  start one    h  look at earlier ones")
        self.query_one("#hint", Static).update(words)
