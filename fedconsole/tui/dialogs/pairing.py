"""Asks for the line that a device prints when it is to be paired."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Static

from fedconsole.errors import FedconsoleError
from fedconsole.tui.desk import Desk
from fedconsole.tui.dismissed_once import DismissedOnce
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.widgets.fault import Fault
from pi_daemon.protocol.text import clean
from pi_daemon.trust.join import MAX_JOIN, JoinError, parse_join
from pi_daemon.trust.keys import in_groups


class PairingDialog(DismissedOnce[str | None]):
    """Gives the name of the device that is paired now; None: it was left."""

    BINDINGS: ClassVar = [key("escape", "leave", "Cancel")]
    DEFAULT_CSS = """
    PairingDialog { align: center middle; }
    PairingDialog > Vertical {
        width: 76; max-width: 96%; height: auto; max-height: 90%;
        padding: 1 2; background: $surface; border: round $primary;
    }
    PairingDialog .title { text-style: bold; margin-bottom: 1; }
    PairingDialog Input { margin: 1 0; }
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self._is_busy = False

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(_("Pair a device"), classes="title", markup=False)
            yield Static(
                _(
                    "Give pi-daemon pair on the device, and paste the line here that it prints. "
                    "It is good for ten minutes, and once."
                ),
                markup=False,
            )
            # Its secret is on no picture of the screen.
            yield Input(placeholder="fp1:…", password=True, max_length=MAX_JOIN)
            yield Static(id="who", markup=False)
            yield Fault(id="why")

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Changed)
    def _show_whose(self, event: Input.Changed) -> None:
        event.stop()
        self.query_one(Fault).say("")
        try:
            join = parse_join(event.value)
        except JoinError:
            words = ""
        else:
            words = _(
                "device  {id}\nat      {address}",
                id=in_groups(join.device_id),
                address=clean(join.address, 80),
            )
        self.query_one("#who", Static).update(words)

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        if not self._is_busy:
            self._is_busy = True
            self.run_worker(self._pair(event.value))

    async def _pair(self, text: str) -> None:
        try:
            name = await self._desk.pair(text)
        except FedconsoleError as error:
            self.query_one(Fault).say(str(error))
        else:
            self.dismiss(name)
        finally:
            self._is_busy = False

    def action_leave(self) -> None:
        self.dismiss(None)
