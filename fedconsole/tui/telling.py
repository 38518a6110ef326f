"""What the app tells in its corner, keeps for the list under `!`, and copies."""

from __future__ import annotations

from collections import deque
from typing import Final

from textual.app import App
from textual.screen import ModalScreen

from fedconsole.tui import lang, messages
from fedconsole.tui.copying import copy
from fedconsole.tui.desk import Desk
from fedconsole.tui.lang import _
from fedconsole.tui.run_records import AlarmRecord
from pi_daemon.protocol.text import clean

_NOTICE_S: Final = 4.0
_MAX_ECHOES: Final = 100
_MAX_TROUBLE: Final = 4_000
_AGAIN_S: Final = 60.0
"""The same alarm rings, and is shown in the corner, once in so long."""


class TellingApp(App[None]):
    """An app that answers to the messages of its screens."""

    def __init__(self, desk: Desk, *, has_bell: bool) -> None:
        super().__init__()
        self.desk = desk
        self.has_bell = has_bell
        self.echoes: deque[messages.Echoed] = deque(maxlen=_MAX_ECHOES)
        self.troubles: deque[AlarmRecord] = deque(maxlen=_MAX_ECHOES)
        """What went wrong here, not in the run."""
        self._held: list[tuple[str, str]] = []
        """Texts and severities that wait for a dialog to close."""
        self._alarmed: dict[str, float] = {}
        """What rang lately, and when by the desk's clock."""

    def tell(self, text: str, severity: str = "information") -> None:
        """Show a text in the corner for some seconds, as it is; not before a dialog has been read."""
        if isinstance(self.screen, ModalScreen):
            self._held.append((text, severity))
            return
        self.notify(
            clean(text),
            severity=severity,  # type: ignore[arg-type]
            timeout=_NOTICE_S if severity == "information" else 2 * _NOTICE_S,
            markup=False,
        )

    def tell_held(self) -> None:
        """What was to be told while a dialog stood there; called when a screen is shown again."""
        held, self._held = self._held, []
        for text, severity in held:
            self.tell(text, severity)

    def keep(self, text: str) -> None:
        """Put what went wrong into the list under `!`."""
        self.troubles.append(AlarmRecord(self.desk.now(), clean(text, _MAX_TROUBLE), ""))

    def tell_setting(self, setting: str) -> None:
        """How a setting that counts until the console is left can be kept."""
        self.tell(_("to keep it: {setting} under [console] in config.toml", setting=setting))

    def use_language(self, language: str) -> None:
        """Say everything in it from now on, also what stands there already."""
        lang.use(language)
        for screen in {screen for stack in self._screen_stacks.values() for screen in stack}:
            for node in (screen, *screen.query("*")):
                if (retell := getattr(node, "retell", None)) is not None:
                    retell()
        self.refresh_css(animate=False)
        self.tell_setting(f'lang = "{language}"')

    # Keys

    def action_copy(self) -> None:
        if selected := self.screen.get_selected_text():
            self.screen.clear_selection()
            self._copy(selected)
            return
        for source in (self.focused, self.screen):
            copy_text = getattr(source, "copy_text", None)
            if copy_text is not None and (text := copy_text()):
                self._copy(text)
                return
        self.tell(_("nothing to copy here"), "warning")

    def action_picture(self) -> None:
        folder = self.desk.export_folder()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.save_screenshot(path=str(folder))
        except OSError as error:
            self.tell(_("cannot write to {folder}: {why}", folder=folder, why=error), "error")
            return
        self.tell(_("picture saved: {path}", path=path))

    def _copy(self, text: str) -> None:
        self.tell(copy(self, text, self.desk.export_folder()))

    # What screens ask for

    def on_echo(self, message: messages.Echo) -> None:
        self.tell(message.command)
        self.echoes.append(messages.Echoed(self.desk.now(), message.command))

    def on_copy(self, message: messages.Copy) -> None:
        self._copy(message.text)

    def on_notice(self, message: messages.Notice) -> None:
        if message.severity == "error":
            self.keep(message.text)
        self.tell(message.text, message.severity)

    def on_trouble(self, message: messages.Trouble) -> None:
        self.keep(message.text)

    def on_alarm(self, message: messages.Alarm) -> None:
        now_s = self.desk.clock()
        self._alarmed = {t: at for t, at in self._alarmed.items() if now_s - at < _AGAIN_S}
        if message.text in self._alarmed:
            return  # as of a device that comes and goes; each stands under `!` and in the log
        self._alarmed[message.text] = now_s
        if self.has_bell:
            self.bell()
        self.tell(message.text, "warning")
