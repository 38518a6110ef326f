"""A log of up to 100,000 lines that draws only those on the screen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import ClassVar, Final

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.geometry import Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip

from fedconsole.tui.formats import fit
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.run_records import Level, LogRecord
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.filter_bar import Filterable
from fedconsole.tui.widgets.filtering import EVERYTHING, Filter
from pi_daemon.protocol.text import clean

MAX_LINES: Final = 100_000
_MAX_TEXT: Final = 4_000
_WORKER_CELLS: Final = 10


_WORDS: Final = {
    Level.DEBUG: "DEBUG",
    Level.INFO: "INFO",
    Level.WARNING: "WARN",
    Level.ERROR: "ERROR",
}
_ROLES: Final = {Level.DEBUG: "dim", Level.WARNING: "warning", Level.ERROR: "bad"}


class LineLog(Filterable, can_focus=True):
    PANE: ClassVar = "Log"
    BINDINGS: ClassVar = [
        Filterable.FILTER_KEY,
        key("space", "toggle_follow", "Hold or follow", show=False),
        key("end", "follow", "Follow", show=False),
        key("home", "to_start", "First line", show=False),
        key("up,k", "scroll_by(-1)", "Up", show=False),
        key("down,j", "scroll_by(1)", "Down", show=False),
        key("pageup", "page(-1)", "Page up", show=False),
        key("pagedown", "page(1)", "Page down", show=False),
        key("n", "match(1)", "Next match", show=False),
        key("N", "match(-1)", "Previous match", show=False),
        *(
            key(
                level.name[0].lower(),
                f"least({level.value})",
                f"From {level.name.lower()}",
                show=False,
            )
            for level in Level
        ),
        key("t", "toggle_time", "Time of day or since the start", show=False),
        key("W", "toggle_wrap", "Wrap long lines", show=False),
        key("S", "save", "Save the log", show=False),
    ]
    DEFAULT_CSS = """
    LineLog { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; }
    """

    @dataclass
    class SaveWanted(Message):
        """The lines that pass the filter are to be written to a file."""

        log: LineLog

        @property
        def control(self) -> LineLog:
            return self.log

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._records: deque[LogRecord] = deque(maxlen=MAX_LINES)
        self._shown: deque[tuple[LogRecord, str]] = deque(maxlen=MAX_LINES)
        """Those that pass the filter: one entry for each line of the screen, with its text."""
        self._filter = EVERYTHING
        self._least = Level.INFO
        self._is_following = True
        self._is_relative = False
        self._wraps = False
        self._num_new = 0
        self._is_dirty = False
        self._start: datetime | None = None

    # Content

    def append(self, records: Iterable[LogRecord]) -> None:
        """Cheap: nothing is drawn before `flush`."""
        for record in records:
            if self._start is None:
                self._start = record.time
            self._records.append(record)
            if self._passes(record):
                self._add(record)
                self._num_new += 1
                self._is_dirty = True

    def flush(self) -> None:
        if not self._is_dirty:
            return
        self._is_dirty = False
        self._resize_content()
        if self._is_following:
            self._num_new = 0
            self._to_end()
        self.refresh()

    def set_filter(self, wanted: Filter) -> None:
        self._filter = wanted
        self._rebuild()

    def matching_lines(self) -> list[str]:
        """What passes the filter, as lines of text."""
        return [
            f"{r.time.isoformat()} {_WORDS[r.level]:5} {r.worker or '-'} {r.text}"
            for r in self._records
            if self._passes(r)
        ]

    def copy_text(self) -> str | None:
        """The lines on the screen."""
        top = int(self.scroll_offset.y)
        rows = islice(self._shown, top, top + self.size.height)
        return "\n".join(self._plain(record, text) for record, text in rows) or None

    @property
    def counts(self) -> tuple[int, int]:
        """Lines that pass the filter, and all."""
        return len(self._shown), len(self._records)

    def state_words(self) -> Text:
        """From which level on, whether it follows, and how times are shown."""
        text = Text(f" {_('log')}", style(self, "title"), no_wrap=True)
        level = _WORDS[self._least]
        follow = _("follows") + f" {glyph('down')}" if self._is_following else _("held")
        times = _("since the start") if self._is_relative else _("time of day")
        wrap = _("wrapped") if self._wraps else ""
        words = [_("from {level}", level=level), follow, times, wrap]
        text.append("  " + "  ".join(filter(None, words)), style(self, "dim"))
        return text

    @property
    def least(self) -> Level:
        return self._least

    @property
    def is_following(self) -> bool:
        return self._is_following

    def _passes(self, record: LogRecord) -> bool:
        return record.level >= self._least and (
            self._filter.is_empty or self._filter.matches(record.fields())
        )

    def _add(self, record: LogRecord) -> None:
        text = clean(record.text, _MAX_TEXT)
        room = self._width - self._prefix_cells
        if not self._wraps or room < 10 or cell_len(text) <= room:
            self._shown.append((record, text))
            return
        self._shown.extend((record, part) for part in chop_cells(text, room))

    def _rebuild(self) -> None:
        self._shown.clear()
        for record in self._records:
            if self._passes(record):
                self._add(record)
        self._is_dirty = True
        self.flush()

    # Drawing

    def render_line(self, y: int) -> Strip:
        width = self._width
        index = int(self.scroll_offset.y) + y
        if index >= len(self._shown):
            return self._blank(y, width)
        record, text = self._shown[index]
        text = fit(text, width - self._prefix_cells)
        base = self.rich_style
        role = _ROLES.get(record.level)
        look = base + style(self, role) if role else base
        is_first = index == 0 or self._shown[index - 1][0] is not record
        segments = [
            Segment(f"{self._time(record) if is_first else '':9}", base + style(self, "dim")),
            Segment(f"{_WORDS[record.level] if is_first else '':6}", look),
            Segment(self._worker(record) if is_first else " " * (_WORKER_CELLS + 1), base),
            *self._text_segments(text, look if record.level > Level.INFO else base),
        ]
        strip = self._selectable(Strip(segments), index).adjust_cell_length(width, base)
        if y == self.size.height - 1 and not self._is_following and self._num_new:
            return self._with_note(strip, width)
        return strip

    def _selectable(self, strip: Strip, index: int) -> Strip:
        """What the mouse has selected of it is marked, and the places are told that it selects by."""
        selection = self.text_selection
        span = None if selection is None else selection.get_span(index)
        if span is not None:
            start, end = span
            end = len(strip.text) if end == -1 else end
            left, right = cell_len(strip.text[:start]), cell_len(strip.text[:end])
            look = self.screen.get_component_rich_style("screen--selection")
            parts = strip.divide([left, right, strip.cell_length])
            strip = Strip.join([p.apply_style(look) if i == 1 else p for i, p in enumerate(parts)])
        return strip.apply_offsets(0, index)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The lines as they are drawn; those that are cut, as far as they were selected."""
        top = 0 if selection.start is None else selection.start.y
        end = len(self._shown) if selection.end is None else selection.end.y + 1
        rows = [self._plain(*row) for row in islice(self._shown, top, end)]
        start = None if selection.start is None else selection.start - (0, top)
        last = None if selection.end is None else selection.end - (0, top)
        return Selection(start, last).extract("\n".join(rows)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def _text_segments(self, text: str, look: Style) -> Iterable[Segment]:
        lowered = text.lower()
        spans = sorted(
            (at, at + len(needle))
            for needle in self._filter.needles
            if (at := lowered.find(needle)) >= 0
        )
        position = 0
        for start, end in spans:
            if start >= position:
                yield Segment(text[position:start], look)
                yield Segment(text[start:end], look + Style(reverse=True))
                position = end
        yield Segment(text[position:], look)

    def _with_note(self, strip: Strip, width: int) -> Strip:
        note = f" {glyph('down')} {_('{n} new', n=self._num_new)} "
        cells = cell_len(note)
        mark = Segment(note, self.rich_style + Style(reverse=True))
        return Strip([*strip.crop(0, width - cells), mark])

    def _blank(self, y: int, width: int) -> Strip:
        if y == 0 and not self._shown:
            text = _("nothing matches the filter") if self._records else _("no lines yet")
            return Strip(
                [Segment(fit(text, width), self.rich_style + style(self, "dim"))]
            ).adjust_cell_length(width, self.rich_style)
        return Strip.blank(width, self.rich_style)

    @property
    def _width(self) -> int:
        # A line that goes on below the scrollbar is cut there, and Rich remembers 16,384 cut lines.
        return self.scrollable_content_region.width

    @property
    def _prefix_cells(self) -> int:
        return 9 + 6 + _WORKER_CELLS + 1

    def _time(self, record: LogRecord) -> str:
        if not self._is_relative or self._start is None:
            return f"{record.time.astimezone():%H:%M:%S}"
        seconds = int((record.time - self._start).total_seconds())
        return f"+{seconds // 60:02}:{seconds % 60:02}"

    def _worker(self, record: LogRecord) -> str:
        name = fit(clean(record.worker, 64), _WORKER_CELLS)
        return name + " " * (_WORKER_CELLS + 1 - cell_len(name))

    def _plain(self, record: LogRecord, text: str) -> str:
        return f"{self._time(record):8} {_WORDS[record.level]:5} {self._worker(record)}{text}"

    def on_resize(self) -> None:
        if self._wraps:
            self._rebuild()
        self._is_dirty = True
        self.flush()

    def _resize_content(self) -> None:
        self.virtual_size = Size(self._width, len(self._shown))

    # Moving

    def _to_end(self) -> None:
        self.scroll_to(y=len(self._shown) - self.size.height, animate=False, force=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        is_at_end = new_value >= len(self._shown) - self.size.height
        if new_value < old_value and not is_at_end:
            self._is_following = False
        elif is_at_end and not self._is_following and new_value > old_value:
            self._is_following = True
            self._num_new = 0
            self.refresh()

    def action_scroll_by(self, step: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + step, animate=False, force=True)

    def action_page(self, direction: int) -> None:
        self.action_scroll_by(direction * max(1, self.size.height - 1))

    def action_to_start(self) -> None:
        self._is_following = False
        self.scroll_to(y=0, animate=False, force=True)

    def action_follow(self) -> None:
        self._is_following = True
        self._num_new = 0
        self._to_end()
        self.refresh()

    def action_toggle_follow(self) -> None:
        if self._is_following:
            self._is_following = False
        else:
            self.action_follow()

    def action_match(self, direction: int) -> None:
        """To the next line above or below that the words of the filter are in."""
        # With a filter every line matches: the next one it is.
        self.action_scroll_by(direction)

    def action_least(self, level: int) -> None:
        self._least = Level(level)
        self._rebuild()

    def action_toggle_time(self) -> None:
        self._is_relative = not self._is_relative
        self.refresh()

    def action_toggle_wrap(self) -> None:
        self._wraps = not self._wraps
        self._rebuild()

    def action_save(self) -> None:
        self.post_message(self.SaveWanted(self))
