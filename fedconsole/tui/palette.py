"""What the command palette offers: every action of the screen, the screens, runs, devices and themes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, cast

from textual.app import SystemCommand
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.markup import escape
from textual.screen import Screen

from fedconsole.errors import FedconsoleError
from fedconsole.tui import glyphs
from fedconsole.tui.frame import MODES, ConsoleScreen, OfferedKey, all_keys, command_twin, key_label
from fedconsole.tui.lang import _
from fedconsole.tui.theme import OWN_COLOURS, THEMES
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from fedconsole.tui.app import FedconsoleApp

_MAX_RUNS: Final = 20
_MAX_DEVICES: Final = 100
_MAX_TEXT: Final = 200


class ConsoleCommands(Provider):
    """Textual reads titles and help as markup; a device's name must not be."""

    async def discover(self) -> Hits:
        for title, help_text, callback, _discover in self.app.get_system_commands(self.screen):
            yield DiscoveryHit(Content(title), callback, text=title, help=escape(help_text))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for title, help_text, callback, _discover in self.app.get_system_commands(self.screen):
            # The command lines are known by heart to some: they are found, too.
            if (score := max(matcher.match(title), matcher.match(help_text) / 2)) > 0:
                highlighted = matcher.highlight(escape(title))
                yield Hit(score, highlighted, callback, text=title, help=escape(help_text))


def commands(app: FedconsoleApp, screen: Screen[Any]) -> Iterator[SystemCommand]:
    """All that can be chosen on a screen, its own actions first."""
    yield from (_harmless(command) for command in _commands(app, screen))


def _commands(app: FedconsoleApp, screen: Screen[Any]) -> Iterator[SystemCommand]:
    for offer in all_keys(screen):
        if offer.binding.action in ("palette", "back"):
            continue
        title = _(offer.binding.description)
        if not offer.is_enabled:
            title = _unable(title, offer, screen)
        help_text = f"{key_label(offer.binding)}  {command_twin(offer, screen)}".rstrip()
        run = partial(app.run_action, offer.binding.action, cast("Any", offer.node))
        yield SystemCommand(title, help_text, run)
    if isinstance(screen, ConsoleScreen):
        for command in screen.commands():
            yield SystemCommand(command.title, command.help, command.callback)
    for mode, name in MODES.items():
        title = _("Go to {screen}", screen=_(name))
        yield SystemCommand(title, "", partial(app.run_action, f"mode('{mode}')", app))
    for run_id in _newest_runs(app):
        yield SystemCommand(
            _("Open run {run}", run=run_id),
            f"fedconsole runs show {run_id}",
            partial(app.show_run, run_id),
        )
    for record in list(app.desk.inventory.records.values())[:_MAX_DEVICES]:
        yield SystemCommand(
            _("Device {name}", name=record.name),
            f"fedconsole devices show {quote(record.name)}",
            partial(app.show_device, record.key),
        )
    yield from _settings(app)
    for theme in THEMES:
        if app.no_color and theme.name == OWN_COLOURS:
            continue
        yield SystemCommand(
            _("Theme: {name}", name=theme.name),
            f'[console] theme = "{theme.name}"',
            _theme_setter(app, theme.name),
        )


def _settings(app: FedconsoleApp) -> Iterator[SystemCommand]:
    """Those that count at once, and until the console is left."""
    title = _("Bell: off") if app.has_bell else _("Bell: on")
    word = str(not app.has_bell).lower()
    yield SystemCommand(title, f"[console] bell = {word}", partial(_toggle_bell, app))
    name = "unicode" if glyphs.is_ascii() else "ascii"
    title = _("Signs: {name}", name=name)
    yield SystemCommand(title, f'[console] glyphs = "{name}"', partial(_use_glyphs, app, name))


def _toggle_bell(app: FedconsoleApp) -> None:
    app.has_bell = not app.has_bell


def _use_glyphs(app: FedconsoleApp, name: str) -> None:
    glyphs.use(name)
    app.refresh_css(animate=False)


def _unable(title: str, offer: OfferedKey, screen: Screen[Any]) -> str:
    why = ""
    if isinstance(screen, ConsoleScreen) and offer.node is screen:
        why = screen.why_not(offer.binding.action)
    if not why:
        return _("{title} (not possible now)", title=title)
    return _("{title} (not possible now: {why})", title=title, why=why)


def _newest_runs(app: FedconsoleApp) -> list[str]:
    try:
        return app.desk.run_ids()[: -_MAX_RUNS - 1 : -1]
    except FedconsoleError:
        # The History screen says why.
        return []


def _harmless(command: SystemCommand) -> SystemCommand:
    title, help_text = (clean(text, _MAX_TEXT) for text in (command.title, command.help))
    return command._replace(title=title, help=help_text)


def _theme_setter(app: FedconsoleApp, name: str) -> Callable[[], None]:
    def set_theme() -> None:
        app.theme = name
        app.tell(_('to keep it: theme = "{name}" under [console] in config.toml', name=name))

    return set_theme
