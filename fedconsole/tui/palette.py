"""What the command palette offers: every action of the screen, the screens, runs, devices and themes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.fuzzy import Matcher
from textual.screen import Screen

from fedconsole.errors import FedconsoleError
from fedconsole.tui import glyphs, lang
from fedconsole.tui.frame import (
    MODES,
    Command,
    ConsoleScreen,
    all_keys,
    command_twin,
    hindrance,
    key_label,
    keys_of,
)
from fedconsole.tui.lang import _
from fedconsole.tui.theme import OWN_COLOURS, THEMES
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from fedconsole.tui.app import FedconsoleApp

_MAX_RUNS: Final = 20
_MAX_DEVICES: Final = 100
_MAX_TEXT: Final = 200
_MAX_HELP: Final = 4_000
"""A command line that is cut does something else."""


class ConsoleCommands(Provider):
    """Textual reads titles and help as markup; a device's name must not be."""

    async def discover(self) -> Hits:
        for title, help_text, callback, why in self._commands():
            shown = Content(title) + _reason(why)
            yield DiscoveryHit(shown, callback, text=title, help=_as_it_is(help_text))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for title, help_text, callback, why in self._commands():
            # The command lines are known by heart to some: they are found, too.
            if (score := max(matcher.match(title), matcher.match(help_text) / 2)) > 0:
                shown = _highlighted(title, matcher) + _reason(why)
                yield Hit(score, shown, callback, text=title, help=_as_it_is(help_text))

    def _commands(self) -> Iterator[Command]:
        return commands(cast("FedconsoleApp", self.app), self.screen)


def _reason(why: str) -> Content:
    return Content(f" ({why})" if why else "")


def _as_it_is(text: str) -> str:
    # A string is read as markup, and no way to escape it keeps every backslash.
    return cast("str", Content(text))


def _highlighted(title: str, matcher: Matcher) -> Content:
    content = Content(title)
    for at in matcher.fuzzy_search.match(matcher.query, title)[1]:
        content = content.stylize(matcher.match_style, at, at + 1)
    return content


def commands(app: FedconsoleApp, screen: Screen[Any]) -> Iterator[Command]:
    """All that can be chosen on a screen, its own actions first."""
    yield from (_harmless(command) for command in _commands(app, screen))


def _commands(app: FedconsoleApp, screen: Screen[Any]) -> Iterator[Command]:
    for offer in all_keys(screen):
        if offer.binding.action in ("palette", "back"):
            continue
        yield Command(
            _(offer.binding.description),
            f"{key_label(offer.binding)}  {command_twin(offer, screen)}".rstrip(),
            partial(app.run_action, offer.binding.action, cast("Any", offer.node)),
            hindrance(offer, screen),
        )
    if (live := app.steerable_screen()) is not None and live is not screen:
        # What acts on its run; its keys mean something else here.
        for offer in keys_of(live):
            if twin := command_twin(offer, live):
                title = _(offer.binding.description)
                steer = partial(app.act_on_live, offer.binding.action)
                yield Command(title, twin, steer, hindrance(offer, live))
    if isinstance(screen, ConsoleScreen):
        yield from screen.commands()
    for mode, name in MODES.items():
        title = _("Go to {screen}", screen=_(name))
        yield Command(title, "", partial(app.run_action, f"mode('{mode}')", app))
    for run_id in _newest_runs(app):
        yield Command(
            _("Open run {run}", run=run_id),
            f"fedconsole {'attach' if app.desk.is_running(run_id) else 'runs show'} {quote(run_id)}",
            partial(app.show_run, run_id),
        )
    for record in list(app.desk.inventory.records.values())[:_MAX_DEVICES]:
        yield Command(
            _("Device {name}", name=record.name),
            f"fedconsole devices show {quote(app.desk.inventory.handle(record))}",
            partial(app.show_device, record.key),
        )
    yield from _settings(app)
    for code, name in lang.LANGUAGES.items():
        title, setting = _("Language: {name}", name=name), f'[console] lang = "{code}"'
        yield Command(title, setting, partial(app.use_language, code))
    for theme in THEMES:
        if app.no_color and theme.name == OWN_COLOURS:
            continue
        yield Command(
            _("Theme: {name}", name=theme.name),
            f'[console] theme = "{theme.name}"',
            _theme_setter(app, theme.name),
        )


def _settings(app: FedconsoleApp) -> Iterator[Command]:
    """Those that count at once, and until the console is left."""
    title = _("Bell: off") if app.has_bell else _("Bell: on")
    word = str(not app.has_bell).lower()
    yield Command(title, f"[console] bell = {word}", partial(_toggle_bell, app))
    name = "unicode" if glyphs.is_ascii() else "ascii"
    title = _("Signs: {name}", name=name)
    yield Command(title, f'[console] glyphs = "{name}"', partial(_use_glyphs, app, name))


def _toggle_bell(app: FedconsoleApp) -> None:
    app.has_bell = not app.has_bell


def _use_glyphs(app: FedconsoleApp, name: str) -> None:
    glyphs.use(name)
    app.refresh_css(animate=False)


def _newest_runs(app: FedconsoleApp) -> list[str]:
    try:
        return app.desk.run_ids()[: -_MAX_RUNS - 1 : -1]
    except FedconsoleError:
        # The History screen says why.
        return []


def _harmless(command: Command) -> Command:
    title, help_text = clean(command.title, _MAX_TEXT), clean(command.help, _MAX_HELP)
    return command._replace(title=title, help=help_text, why=clean(command.why, _MAX_TEXT))


def _theme_setter(app: FedconsoleApp, name: str) -> Callable[[], None]:
    def set_theme() -> None:
        app.theme = name
        app.tell_setting(f'theme = "{name}"')

    return set_theme
