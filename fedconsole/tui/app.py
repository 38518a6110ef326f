"""The full-screen console. It shows and asks; what carries things out is its desk."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from textual import events
from textual._context import active_message_pump
from textual.app import ScreenStackError
from textual.command import CommandPalette
from textual.css.query import NoMatches
from textual.dom import DOMNode
from textual.driver import Driver
from textual.widget import MountError
from textual.widgets import Input
from textual.worker import NoActiveWorker, WorkerFailed, get_current_worker

from fedconsole.coordinator.phases import Request
from fedconsole.errors import ExitCode, FedconsoleError
from fedconsole.tui import messages, palette
from fedconsole.tui.desk import Desk
from fedconsole.tui.dismissed_once import DismissedOnce
from fedconsole.tui.frame import MODES, ConsoleScreen
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.opening import Opening
from fedconsole.tui.phase_signs import sign_of
from fedconsole.tui.screens.first import first_screen
from fedconsole.tui.telling import TellingApp
from fedconsole.tui.terminal import Terminal
from fedconsole.tui.theme import DEFAULT, OWN_COLOURS, THEMES

if TYPE_CHECKING:
    from fedconsole.tui.screens.live import LiveScreen
    from fedconsole.tui.screens.new_run import NewRunScreen

_SIGNALS: Final = {
    signal.SIGTERM: ExitCode.TERMINATE,
    signal.SIGHUP: ExitCode.HANGUP,
    signal.SIGINT: ExitCode.INTERRUPT,
}


_MISSING: Final = (MountError, NoMatches, ScreenStackError)
"""Of a screen or a widget that is not there."""
_PALETTE_ROWS: Final = 8
"""In fewer its list may have no line, and a key that moves in such a list is an error of Textual's."""


class Palette(CommandPalette, DismissedOnce[Any]):
    """Textual's, closed once, and where there is no room for it."""

    def on_resize(self, event: events.Resize) -> None:
        if event.size.height < _PALETTE_ROWS:
            self.dismiss()


class FedconsoleApp(TellingApp):
    """Four modes over one desk."""

    TITLE = "fedconsole"
    CSS_PATH = "console.tcss"
    COMMANDS: ClassVar = {palette.ConsoleCommands}
    ENABLE_COMMAND_PALETTE = False
    """Ours opens with `:` as well, and tells the reason for what cannot be done now."""
    BINDINGS: ClassVar = [
        key("?,f1", "help", "Help"),
        key("ctrl+p,:", "palette", "Commands"),
        key("q", "leave", "Quit"),
        *(
            key(str(number), f"mode('{mode}')", title, show=False)
            for number, (mode, title) in enumerate(MODES.items(), start=1)
        ),
        key("escape", "back", "Back", show=False),
        key("!", "alarms", "Alarms, and commands so far", show=False),
        key("y", "copy", "Copy", show=False),
        key("ctrl+s", "picture", "Save a picture", show=False),
        key("ctrl+z", "suspend_process", "Suspend", show=False),
        key("ctrl+c", "interrupt", "Leave at once", show=False, priority=True),
    ]

    def __init__(
        self,
        desk: Desk,
        opening: Opening | None = None,
        *,
        theme: str = DEFAULT,
        has_bell: bool = True,
    ) -> None:
        self._opening = opening or Opening()
        # Textual would make an empty screen first, and read all styles once more for ours.
        self.DEFAULT_MODE = self._opening.mode  # type: ignore[misc]
        super().__init__(desk, has_bell=has_bell)
        for known in THEMES:
            self.register_theme(known)
        # Without colours the terminal's own are all alike.
        self.theme = DEFAULT if self.no_color and theme == OWN_COLOURS else theme
        for mode in MODES:
            self.add_mode(mode, partial(first_screen, mode, desk))

    def on_load(self) -> None:
        # Before the terminal is changed: from then on it has to be given back.
        self._catch_signals()

    async def on_mount(self) -> None:
        self.run_worker(self.desk.watch(), name="fleet", exit_on_error=False)
        if self._opening.run is not None:
            await self.show_run(self._opening.run)
        if self._opening.replay is not None:
            await self._replay(*self._opening.replay)

    def on_ready(self) -> None:
        if not gc.isenabled():
            gc.freeze()  # what the start has made is never looked through again
            gc.enable()

    def _build_driver(self, *args: Any, **options: Any) -> Driver:
        driver = super()._build_driver(*args, **options)
        if (file := getattr(driver, "_file", None)) is not None:
            driver._file = Terminal(file)  # type: ignore[attr-defined]
            signal.signal(signal.SIGCONT, partial(self._go_on, driver))
        return driver

    @staticmethod
    def _go_on(driver: Any, *_: object) -> None:
        # After Ctrl-Z alone the terminal was given back before. To begin twice would lose its first modes.
        if driver._must_signal_resume:
            driver.resume_application_mode()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number, code in _SIGNALS.items():
            # An ignored one stays ignored: that is how nohup asks.
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._end, code)

    def _handle_exception(self, error: Exception) -> None:
        # Once the app leaves, Textual mounts nothing and takes its screens down; what a screen or a late
        # message looks for then is not there.
        is_leaving = self._exit or not self.screen_stack
        cause = error.error if isinstance(error, WorkerFailed) else error
        if not ((is_leaving or self._is_of_closed_screen()) and isinstance(cause, _MISSING)):
            super()._handle_exception(error)

    def _is_of_closed_screen(self) -> bool:
        """Whether what goes wrong now is the work of a screen that was closed meanwhile."""
        node: object
        try:
            node = get_current_worker().node
        except NoActiveWorker:
            node = active_message_pump.get()
        if not isinstance(node, DOMNode) or node is self:
            return False
        shown = {screen for stack in self._screen_stacks.values() for screen in stack}
        return shown.isdisjoint(node.ancestors_with_self)

    def _end(self, code: ExitCode) -> None:
        self.exit(return_code=code)

    # Keys

    async def action_mode(self, mode: str) -> None:
        if mode == "live" and self._live_screen() is None and (run := self._newest_going()):
            await self.show_run(run)
        else:
            await self.switch_mode(mode)
            if isinstance(self.focused, Input):
                # In a field that was left with the palette the next number would be typed.
                self.screen.set_focus(None)

    def _newest_going(self) -> str | None:
        try:
            runs = self.desk.run_ids()
        except FedconsoleError:
            return None  # the history says why
        return next((run for run in reversed(runs) if self.desk.is_running(run)), None)

    async def action_back(self) -> None:
        screen = self.screen
        if isinstance(screen, ConsoleScreen) and not screen.back() and len(self.screen_stack) > 1:
            await self.pop_screen()

    def action_interrupt(self) -> None:
        self._end(ExitCode.INTERRUPT)

    def action_leave(self) -> None:
        self.run_worker(self._leave(), exclusive=True, group="leave")

    async def _leave(self) -> None:
        run = self._active_run()
        if run is None:
            self.exit()
            return
        from fedconsole.tui.dialogs.farewell import farewell

        answer = await self.push_screen_wait(farewell(run, ends_too=self._opening.is_demo))
        if answer == "abort":
            try:
                await self.desk.request(run, Request.ABORT)
            except FedconsoleError as error:
                # One that has ended while the question stood there needs no abort.
                if self._active_run() is not None:
                    self.tell(str(error), "error")
                    return
        if answer != "cancel":
            self.exit()

    def _live_screen(self) -> LiveScreen | None:
        """That of the run that is shown there."""
        if not (stack := self._screen_stacks.get("live")):
            return None
        # Not before it is there: the bar of modes asks for it before the first frame.
        from fedconsole.tui.screens.live import LiveScreen

        return next((screen for screen in stack if isinstance(screen, LiveScreen)), None)

    def _active_run(self) -> str | None:
        """The run on the Live screen, if it has not ended."""
        screen = self.steerable_screen()
        return None if screen is None else screen.run_id

    def steerable_screen(self) -> LiveScreen | None:
        """The Live screen, if its run goes on."""
        screen = self._live_screen()
        return screen if screen is not None and screen.is_steerable else None

    async def act_on_live(self, action: str) -> None:
        """Show the run that goes on, and do what a key of its screen does."""
        if (screen := self.steerable_screen()) is None:
            return  # it has ended since this was offered
        await self.switch_mode("live")
        while self.screen is not screen:
            await self.pop_screen()
        await self.run_action(action, screen)

    def mode_sign(self, mode: str) -> str:
        """How the run on the Live screen stands, as one sign, for the bar of modes."""
        if mode != "live" or (screen := self._live_screen()) is None:
            return ""
        return glyph(sign_of(screen.model))

    def action_help(self) -> None:
        from fedconsole.tui.dialogs.help import HelpDialog

        if isinstance(self.screen, ConsoleScreen):
            self.push_screen(HelpDialog(self.screen))

    def action_palette(self) -> None:
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(Palette(placeholder=_("Search for commands…")))

    def action_alarms(self) -> None:
        from fedconsole.tui.dialogs.alarms import AlarmsDialog

        screen = self._live_screen()
        alarms = [] if screen is None else screen.alarms()
        self.push_screen(AlarmsDialog(sorted([*alarms, *self.troubles]), list(self.echoes)))

    async def show_device(self, device: str) -> None:
        from fedconsole.tui.screens.fleet import FleetScreen

        await self.switch_mode("fleet")
        if isinstance(self.screen, FleetScreen):
            self.screen.show_device(device)

    # What screens ask for

    async def on_open_run(self, message: messages.OpenRun) -> None:
        await self.show_run(message.run, message.taken_up_at)

    async def on_replay(self, message: messages.Replay) -> None:
        await self._replay(message.run, message.speed)

    async def on_clone_run(self, message: messages.CloneRun) -> None:
        await self._show_form(lambda form: form.fill(message.plan))

    async def on_choose_workers(self, message: messages.ChooseWorkers) -> None:
        await self._show_form(lambda form: form.choose_workers(message.addresses))

    async def _show_form(self, fill: Callable[[NewRunScreen], None]) -> None:
        from fedconsole.tui.screens.new_run import NewRunScreen

        await self.switch_mode("new")
        if isinstance(self.screen, NewRunScreen):
            fill(self.screen)

    async def show_run(self, run: str, taken_up_at: datetime | None = None) -> None:
        if self.desk.is_running(run):
            from fedconsole.tui.screens.live import LiveScreen

            await self.switch_mode("live")
            shown = self.screen
            # What is shown of an engine that is gone, or of a replay, does not go on.
            if not (isinstance(shown, LiveScreen) and shown.run_id == run and shown.is_steerable):
                live = LiveScreen(self.desk, run)
                live.model.taken_up_at = taken_up_at
                await self._show_live(live)
        else:
            from fedconsole.tui.screens.run_page import RunPage

            await self.switch_mode("history")
            await self.push_screen(RunPage(self.desk, run))

    async def _replay(self, run: str, speed: float) -> None:
        from fedconsole.tui.replay import Replay
        from fedconsole.tui.screens.live import LiveScreen

        await self.switch_mode("live")
        await self._show_live(LiveScreen(self.desk, run, Replay(self.desk.lines(run), speed)))

    async def leave_replay(self, replay: LiveScreen) -> None:
        """For the history; the Live screen is free for the run that goes on."""
        # A second Escape may have asked for the same before the first was done.
        if self.screen is replay:
            await self.pop_screen()
            await self.switch_mode("history")

    async def _show_live(self, screen: ConsoleScreen) -> None:
        """In place of the run that is shown there."""
        while len(self.screen_stack) > 1:
            await self.pop_screen()
        await self.push_screen(screen)
