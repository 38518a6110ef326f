"""What the console's dialogs and its palette have in common: they are closed once."""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen, ScreenResultType


class DismissedOnce(ModalScreen[ScreenResultType]):
    """A key or a click that came right behind the one that closes it does nothing.

    Textual would close the screen below, or end with an error where there is none.
    """

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_active else AwaitComplete()

    def action_leave(self) -> None:
        self.dismiss()
