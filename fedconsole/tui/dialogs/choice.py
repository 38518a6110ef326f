"""A question with a few answers; the harmless one has the focus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Static

from fedconsole.tui.dismissed_once import DismissedOnce
from fedconsole.tui.keys import key
from pi_daemon.protocol.text import clean

_LOOK_EVERY_S: Final = 0.1


class Choice(DismissedOnce[str]):
    """Gives the key of the answer; Escape and a click beside the dialog give the default."""

    BINDINGS: ClassVar = [
        key("escape", "leave", "Cancel"),
        key("left,h", "app.focus_previous", "Previous", show=False),
        key("right,l", "app.focus_next", "Next", show=False),
    ]
    DEFAULT_CSS = """
    Choice { align: center middle; }
    Choice > Vertical {
        width: 72; max-width: 96%; height: auto; max-height: 90%;
        padding: 1 2; background: $surface; border: round $primary;
    }
    Choice .title { text-style: bold; margin-bottom: 1; }
    Choice Horizontal { height: auto; align-horizontal: right; margin-top: 1; }
    Choice Button { margin-left: 1; min-width: 10; }
    """

    def __init__(
        self,
        title: str,
        text: str,
        answers: Sequence[tuple[str, str]],
        *,
        default: str,
        is_moot: Callable[[], bool] | None = None,
    ) -> None:
        """`answers` are keys and labels, in the language of the operator; `default` is a key.

        Once `is_moot`, the dialog closes and gives the default.
        """
        super().__init__()
        self._title = title
        self._text = text
        self._answers = answers
        self._default = default
        self._is_moot = is_moot

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(clean(self._title), classes="title", markup=False)
            yield Static(clean(self._text), markup=False)
            with Horizontal():
                for name, label in self._answers:
                    # A label that is no markup: it may hold a worker's name.
                    button = Button("", id=name)
                    button.label = Content(clean(label))
                    yield button

    def on_mount(self) -> None:
        self.query_one(f"#{self._default}", Button).focus()
        if self._is_moot is not None:
            self.set_interval(_LOOK_EVERY_S, self._leave_if_moot)

    def _leave_if_moot(self) -> None:
        # What lies above, such as the help, goes first.
        if self.is_current and self._is_moot is not None and self._is_moot():
            self.action_leave()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.action_leave()

    def action_leave(self) -> None:
        self.dismiss(self._default)
