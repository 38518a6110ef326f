"""What all screens have in common: a bar of modes above, the keys that work now below."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

from rich.style import Style
from rich.text import Text
from textual import events
from textual.actions import parse
from textual.app import ComposeResult
from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from fedconsole.fleet.inventory import Presence
from fedconsole.tui.desk import Desk
from fedconsole.tui.formats import clock, fit
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.lang import _
from fedconsole.tui.messages import Notice
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.filter_bar import FilteringScreen

if TYPE_CHECKING:
    from fedconsole.tui.app import FedconsoleApp

TICKS_PER_S: Final = 10
MODES: Final = {"fleet": "Fleet", "new": "New run", "live": "Live", "history": "History"}
_FEW_KEYS: Final = 6
_CHOSEN: Final = re.compile(r"\b(?:RUNS|RUN|NAME|WORKERS|PLAN)\b")
"""Placeholders of command lines that a screen fills in. What is typed later (STRING, HOST:PORT) stays."""
_NARROW: Final = 100
_ROWS: Final = [(0, "-short"), (20, "-tall")]
_BREAKPOINTS: Final = [(0, "-narrow"), (_NARROW, "-normal"), (160, "-wide")]


class Command(NamedTuple):
    """An entry of the palette."""

    title: str
    help: str
    callback: Callable[[], Any]
    """May be a coroutine function."""
    why: str = ""
    """Why it cannot be done now; shown, but not searched."""


class OfferedKey(NamedTuple):
    """A binding of the screen that is shown now."""

    key: str
    binding: Binding
    node: DOMNode
    is_enabled: bool


class Line(Widget):
    """One line of text, drawn anew only when it has changed. A click on a part of it does something."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._text = Text()
        self._spans: list[tuple[int, int, str, DOMNode | None]] = []

    def show(self, text: Text) -> None:
        if text != self._text or text.spans != self._text.spans:
            self._text = text
            self.refresh()

    def click_runs(self, start: int, end: int, action: str, node: DOMNode | None = None) -> None:
        """From now on a click on these cells runs an action."""
        self._spans.append((start, end, action, node))

    def forget_clicks(self) -> None:
        self._spans.clear()

    def render(self) -> Text:
        return self._text

    async def on_click(self, event: events.Click) -> None:
        for start, end, action, node in self._spans:
            if start <= event.x < end:
                await self.app.run_action(action, default_namespace=node or self.app)


class TopBar(Line):
    """The modes, this console's name, and how many devices are there."""

    DEFAULT_CSS = "TopBar { background: $panel; }"

    def __init__(self, desk: Desk, mode: str) -> None:
        super().__init__()
        self._desk = desk
        self._mode = mode

    def on_resize(self) -> None:
        self.flush()

    def flush(self) -> None:
        if self.size.width == 0:
            return  # not laid out yet
        text = Text(" fedconsole ", style="bold", no_wrap=True)
        self.forget_clicks()
        for number, (mode, title) in enumerate(MODES.items(), start=1):
            sign = cast("FedconsoleApp", self.app).mode_sign(mode)
            label = f" {number} {_(title)} {f'{sign} ' if sign else ''}"
            look = Style(reverse=True, bold=True) if mode == self._mode else Style()
            text.append(" ")
            start = text.cell_len
            text.append(label, look)
            self.click_runs(start, text.cell_len, f"app.mode('{mode}')")
        right = self._right(self.size.width - text.cell_len)
        text.append(" " * (self.size.width - text.cell_len - right.cell_len))
        text.append_text(right)
        self.show(text)

    def _right(self, width: int) -> Text:
        """As much as there is room for: the devices, the clock, this desk's name."""
        name = Text(f"{fit(self._desk.name, 16)}  ", style(self, "dim"))
        devices, time = self._devices(), f"  {clock(self._desk.now())} "
        for right in (name + devices + time, devices + time, devices + " "):
            if right.cell_len <= width:
                return right
        return Text()

    def _devices(self) -> Text:
        counts = self._desk.inventory.counts(self._desk.clock())
        roles = {Presence.ONLINE: "good", Presence.STALE: "warning", Presence.OFFLINE: "dim"}
        return Text("  ").join(
            Text(f"{glyph(presence.value)} {counts.get(presence, 0)}", style(self, role))
            for presence, role in roles.items()
        )


class KeyBar(Line):
    """The keys that work now, the most important ones first."""

    DEFAULT_CSS = "KeyBar { background: $panel; dock: bottom; }"

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _screen: self.flush())
        self.call_after_refresh(self.flush)

    def on_resize(self) -> None:
        self.flush()

    def flush(self) -> None:
        if not self.is_mounted or self.size.width == 0:
            return
        offers = [offer for offer in offered_keys(self.screen) if offer.binding.show]
        if isinstance(self.screen.focused, Input):
            # Letters go into the field.
            offers = [offer for offer in offers if len(key_label(offer.binding)) > 1]
        usable = [offer for offer in offers if offer.is_enabled]
        own = [offer for offer in usable if offer.node is not self.app]
        general = [offer for offer in usable if offer.node is self.app]
        if self.size.width < _NARROW:
            own = own[:_FEW_KEYS]
        text = Text(no_wrap=True)
        self.forget_clicks()
        tail = Text(no_wrap=True)
        tail_offers = self._append(tail, general)
        for offer in own:
            part = Text()
            spans = self._append(part, [offer])
            if text.cell_len + part.cell_len + tail.cell_len > self.size.width:
                break
            self._remember(spans, text.cell_len)
            text.append_text(part)
        gap = max(0, self.size.width - text.cell_len - tail.cell_len)
        text.append(" " * gap)
        self._remember(tail_offers, text.cell_len)
        text.append_text(tail)
        self.show(text)

    def _append(self, text: Text, offers: list[OfferedKey]) -> list[tuple[int, int, OfferedKey]]:
        spans = []
        for offer in offers:
            start = text.cell_len
            text.append(f" {key_label(offer.binding)}", style(self, "accent"))
            text.append(f" {_(offer.binding.description)} ")
            spans.append((start, text.cell_len, offer))
        return spans

    def _remember(self, spans: list[tuple[int, int, OfferedKey]], offset: int) -> None:
        for start, end, offer in spans:
            self.click_runs(start + offset, end + offset, offer.binding.action, offer.node)


def key_label(binding: Binding) -> str:
    return binding.key_display or binding.key


def offered_keys(screen: Screen[Any]) -> list[OfferedKey]:
    """The bindings of a screen and of what has the focus, each once; twins are left out."""
    found: dict[tuple[int, str, str], OfferedKey] = {}
    for name, active in screen.active_bindings.items():
        # Textual's own bindings, such as those to scroll, have none.
        if active.binding.key_display is None:
            continue
        same = (id(active.node), active.binding.action, active.binding.description)
        if same not in found:
            found[same] = OfferedKey(name, active.binding, active.node, active.enabled)
    # A screen's own keys are what it is for; those of the focused widget come after them.
    return sorted(found.values(), key=lambda offer: _rank(offer.node, screen))


def all_keys(screen: Screen[Any]) -> list[OfferedKey]:
    """As `offered_keys`, and those of the panes that do not have the focus."""
    offers = offered_keys(screen)
    panes = {pane_title(offer.node) for offer in offers} - {""}
    for pane in screen.query("*"):
        if not pane.focusable or (title := pane_title(pane)) in panes | {""}:
            continue
        panes.add(title)
        offers += keys_of(pane)
    return offers


def keys_of(node: DOMNode) -> Iterator[OfferedKey]:
    """The bindings of a screen or a pane, whether it is shown, and has the focus, or not."""
    for binding in type(node).BINDINGS:
        assert isinstance(binding, Binding), "made by keys.key"
        _target, name, parameters = parse(binding.action)
        if (is_enabled := node.check_action(name, parameters)) is not False:
            yield OfferedKey(binding.key, binding, node, bool(is_enabled))


def pane_title(node: DOMNode) -> str:
    """What the help calls a part of a screen; "" for what is no part."""
    return getattr(node, "PANE", "")


def command_twin(offer: OfferedKey, screen: Screen[Any]) -> str:
    """The command line that does the same, with what is chosen on the screen; "": nothing is chosen."""
    names = screen.names() if isinstance(screen, ConsoleScreen) else {}
    words = offer.binding.tooltip or ""
    if not set(_CHOSEN.findall(words)) <= names.keys():
        return ""
    return _CHOSEN.sub(lambda found: names[found[0]], words).strip()


def hindrance(offer: OfferedKey, screen: Screen[Any]) -> str:
    """Why what a key does is not possible now; "": it is."""
    if offer.is_enabled:
        return ""
    is_own = offer.node is screen
    if (
        isinstance(screen, ConsoleScreen)
        and is_own
        and (why := screen.why_not(offer.binding.action))
    ):
        return _("not possible now: {why}", why=why)
    return _("not possible now")


def _rank(node: DOMNode, screen: Screen[Any]) -> int:
    return 0 if node is screen else 2 if node is screen.app else 1


class TooSmall(Widget):
    """Covers a screen that has no room."""

    MIN_WIDTH: ClassVar = 60
    MIN_HEIGHT: ClassVar = 15
    DEFAULT_CSS = """
    TooSmall {
        display: none; layer: cover; width: 100%; height: 100%;
        background: $background; content-align: center middle;
    }
    """

    def render(self) -> Text:
        need = f"{self.MIN_WIDTH}x{self.MIN_HEIGHT}"
        return Text(_("terminal too small (need {need})", need=need), justify="center")


class ConsoleScreen(FilteringScreen):
    """One of the console's screens."""

    NAME: ClassVar[str] = ""
    """Of its mode."""
    ABOUT: ClassVar[str] = ""
    """A paragraph for the help."""
    HORIZONTAL_BREAKPOINTS = _BREAKPOINTS
    VERTICAL_BREAKPOINTS = _ROWS
    DEFAULT_CSS = """
    ConsoleScreen { layers: default cover; overflow: hidden; }
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        self._num_ticks = 0

    def compose(self) -> ComposeResult:
        yield TopBar(self.desk, self.NAME)
        yield from self.body()
        yield KeyBar()
        yield TooSmall()

    def body(self) -> ComposeResult:
        """What stands between the bars."""
        yield from ()

    def flush(self) -> None:
        """Draw what has changed; called ten times a second while this screen is shown."""

    def back(self) -> bool:
        """Leave a filter or a panel; False: there was none."""
        return False

    def retell(self) -> None:
        """Say in the language in use, which has changed, what is not drawn again by itself."""

    def why_not(self, action: str) -> str:
        """Why an action that is offered cannot be done now; "": there is no more to say."""
        return ""

    def commands(self) -> Iterable[Command]:
        """What the palette offers besides the keys."""
        return ()

    def names(self) -> Mapping[str, str]:
        """What stands for RUN, NAME and the like in the command lines that are shown; quoted for a shell."""
        return {}

    def copy_text(self) -> str | None:
        """What `y` copies when the focused widget has nothing to copy."""
        return None

    def on_mount(self) -> None:
        self.set_interval(1 / TICKS_PER_S, self._tick)
        self.call_after_refresh(self._tick)
        self.screen_layout_refresh_signal.subscribe(self, self._move_caret)

    def _move_caret(self, _screen: Screen[Any]) -> None:
        # Input methods write where the terminal's caret is. Textual moves it with the focus and with what is
        # typed, but a field may get its place later, or another one.
        if isinstance(self.focused, Input):
            self.app.cursor_position = self.focused.cursor_screen_offset

    def on_resize(self, event: events.Resize) -> None:
        is_small = event.size.width < TooSmall.MIN_WIDTH or event.size.height < TooSmall.MIN_HEIGHT
        self.query_one(TooSmall).display = is_small

    def on_key(self, event: events.Key) -> None:
        """Of a key of this screen that does nothing now: why."""
        active = self.active_bindings.get(event.key)
        if active is None or active.enabled or active.node is not self:
            return
        offer = OfferedKey(event.key, active.binding, self, is_enabled=False)
        words = f"{_(active.binding.description)}: {hindrance(offer, self)}"
        self.post_message(Notice(words, "warning"))

    def on_screen_resume(self) -> None:
        cast("FedconsoleApp", self.app).tell_held()
        self._tick()

    def _tick(self) -> None:
        # While the console ends, what is on a screen goes before the screen does.
        if not (self.app.is_running and self.is_current and self.is_mounted):
            return
        self.flush()
        if self._num_ticks % TICKS_PER_S == 0:
            self.refresh_bindings()
        if self._num_ticks % (TICKS_PER_S // 5) == 0:
            self.query_one(TopBar).flush()
        self._num_ticks += 1
