"""One line to type a filter into, below what it filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.widgets import Input, Static

from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.widgets.filtering import EVERYTHING, Filter, FilterError, parse


class FilterBar(Horizontal):
    """Hidden until it is opened. Enter keeps the filter, Escape clears it."""

    BINDINGS: ClassVar = [
        key("escape", "clear", "Clear the filter", show=False),
        key("up", "earlier", "Earlier filter", show=False),
    ]
    DEFAULT_CSS = """
    FilterBar { height: 1; display: none; background: $panel; }
    FilterBar > Input, FilterBar > Input:focus {
        height: 1; border: none; padding: 0; background: $panel; width: 1fr;
    }
    FilterBar > Static { height: 1; width: auto; padding: 0 1; }
    """

    @dataclass
    class Changed(Message):
        bar: FilterBar
        filter: Filter

        @property
        def control(self) -> FilterBar:
            return self.bar

    @dataclass
    class Closed(Message):
        """The operator is done with it; what is filtered should have the focus again."""

        bar: FilterBar

        @property
        def control(self) -> FilterBar:
            return self.bar

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.filter = EVERYTHING
        self._earlier: list[str] = []
        self._at = 0

    def compose(self) -> ComposeResult:
        yield Static("/", markup=False)
        yield Input(select_on_focus=False, compact=True)
        yield Static("", id="count", markup=False)

    def on_mount(self) -> None:
        self.retell()

    def retell(self) -> None:
        """In the language in use."""
        hint = _("word, !word, ~regex, field:word; Enter keeps, Esc clears")
        self.query_one(Input).placeholder = hint

    @property
    def is_open(self) -> bool:
        return bool(self.display)

    def open(self, text: str | None = None) -> None:
        """To type a filter, or with this one."""
        self.display = True
        field = self.query_one(Input)
        if text is not None:
            field.value = text
        # Textual's own way of asking for the focus gives it some keys later.
        self.screen.set_focus(field)

    def set_count(self, shown: int, total: int) -> None:
        if self.is_open and not self._is_wrong:
            self._say(f"{shown}/{total}")

    def clear(self) -> bool:
        """Match everything again and hide; False: it was hidden."""
        was_open = self.is_open
        self.query_one(Input).value = ""
        self.display = False
        self._use(EVERYTHING)
        return was_open

    _is_wrong = False

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        try:
            wanted = parse(event.value)
        except FilterError as error:
            self._is_wrong = True
            self._say(str(error))
            return
        self._is_wrong = False
        self._say("")
        self._use(wanted)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self.filter.is_empty:
            self.display = False
        else:
            self._earlier = [*(t for t in self._earlier if t != event.value), event.value]
            self._at = len(self._earlier)
        self.post_message(self.Closed(self))

    def action_clear(self) -> None:
        self.clear()
        self.post_message(self.Closed(self))

    def action_earlier(self) -> None:
        if self._earlier:
            self._at = (self._at - 1) % len(self._earlier)
            field = self.query_one(Input)
            field.value = self._earlier[self._at]
            field.cursor_position = len(field.value)

    def _use(self, wanted: Filter) -> None:
        if wanted.text != self.filter.text:
            self.filter = wanted
            self.post_message(self.Changed(self, wanted))

    def _say(self, text: str) -> None:
        self.query_one("#count", Static).update(_(text))


class FilteringScreen(Screen[None]):
    """A screen that opens the filter of its panes."""

    def open_filter(self, pane: Filterable) -> None:
        """A pane asks for it."""
        self.query_one(FilterBar).open()


class Filterable(ScrollView):
    """A pane whose lines a filter chooses."""

    # At once, not when the pane has had its turn: what is typed next goes into the filter.
    FILTER_KEY: ClassVar = key("/", "want_filter", "Filter", priority=True)

    def action_want_filter(self) -> None:
        assert isinstance(self.screen, FilteringScreen)
        self.screen.open_filter(self)
