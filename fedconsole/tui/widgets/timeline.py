"""Who was in which round: a row for each worker, a column for each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from fedconsole.tui.formats import fit
from fedconsole.tui.glyphs import glyph
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.run_records import Attendance
from fedconsole.tui.theme import style
from pi_daemon.protocol.text import clean

_NAME_CELLS: Final = 12
_COUNT_CELLS: Final = 10
_HEAD_CELLS: Final = _NAME_CELLS + _COUNT_CELLS
_ROUND_CELLS: Final = 2
_LABEL_EVERY: Final = 5
_SIGNS: Final = {
    Attendance.DELIVERED: ("mark", "good"),
    Attendance.REJECTED: ("failed", "bad"),
    Attendance.ABSENT: ("absent", "warning"),
    Attendance.AT_WORK: ("running", "accent"),
}


class Timeline(ScrollView, can_focus=True):
    ALLOW_SELECT = False
    PANE: ClassVar = "Timeline"
    BINDINGS: ClassVar = [
        key("left,h", "move(-1, 0)", "Earlier rounds", show=False),
        key("right,l", "move(1, 0)", "Later rounds", show=False),
        key("up,k", "move(0, -1)", "Up", show=False),
        key("down,j", "move(0, 1)", "Down", show=False),
        key("home", "edge(0)", "First round", show=False),
        key("end", "edge(1)", "Last round", show=False),
    ]
    DEFAULT_CSS = "Timeline { height: 1fr; scrollbar-size: 1 1; }"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._workers: Sequence[str] = ()
        self._rounds: Mapping[int, Mapping[str, str]] = {}
        self._num_rounds = 0
        self._empty = "reading…"

    def show(self, workers: Sequence[str], attendance: Attendance) -> None:
        self._empty = "no round was started"
        self._workers = workers
        self._rounds = attendance.rounds
        self._num_rounds = max(self._rounds, default=0)
        width = _HEAD_CELLS + _ROUND_CELLS * self._num_rounds
        self.virtual_size = Size(width, len(workers) + 2)
        self.refresh()

    def copy_text(self) -> str | None:
        """All of it, a line for each worker."""
        rounds = range(1, self._num_rounds + 1)
        return "\n".join(
            f"{clean(name)}\t{''.join(self._sign(name, number)[0] for number in rounds)}"
            for name in self._workers
        )

    # Drawing

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        index = int(self.scroll_offset.y) + y - 1
        if y == 0:
            segments = self._header(width, base)
        elif index < len(self._workers):
            segments = self._row(self._workers[index], width, base)
        elif index == len(self._workers):
            segments = [Segment(self._legend(), base + style(self, "dim"))]
        else:
            segments = []
        return Strip(segments).adjust_cell_length(width, base)

    def _rounds_shown(self, width: int) -> range:
        first = int(self.scroll_offset.x) // _ROUND_CELLS + 1
        room = max(0, width - _HEAD_CELLS) // _ROUND_CELLS
        return range(first, min(self._num_rounds, first + room - 1) + 1)

    def _header(self, width: int, base: Style) -> list[Segment]:
        rounds = self._rounds_shown(width)
        line = [" "] * (_ROUND_CELLS * len(rounds))
        for number in rounds:
            if number == 1 or number % _LABEL_EVERY == 0:
                label = str(number)
                at = min(_ROUND_CELLS * (number - rounds.start), len(line) - len(label))
                line[at : at + len(label)] = label
        head = _filled(_("worker"), _NAME_CELLS) + _filled(_("delivered"), _COUNT_CELLS)
        return [Segment(head + "".join(line), base + style(self, "title"))]

    def _row(self, name: str, width: int, base: Style) -> list[Segment]:
        parts = [cells[name] for cells in self._rounds.values() if name in cells]
        count = f"{parts.count(Attendance.DELIVERED)}/{len(parts)}"
        segments = [Segment(_filled(clean(name), _NAME_CELLS) + _filled(count, _COUNT_CELLS), base)]
        for number in self._rounds_shown(width):
            sign, role = self._sign(name, number)
            segments.append(Segment(f"{sign} ", base + style(self, role)))
        return segments

    def _sign(self, worker: str, number: int) -> tuple[str, str]:
        """Sign and role."""
        what = self._rounds.get(number, {}).get(worker, "")
        sign, role = _SIGNS.get(what, ("none", "dim"))
        return glyph(sign), role

    def _legend(self) -> str:
        if not self._workers:
            return _(self._empty)
        seen = {what for cells in self._rounds.values() for what in cells.values()}
        words = [
            f"{glyph(sign)} {_(what)}" for what, (sign, _role) in _SIGNS.items() if what in seen
        ]
        return "  ".join([*words, f"{glyph('none')} {_('not in the cohort')}"])

    # Moving

    def action_move(self, across: int, down: int) -> None:
        offset = self.scroll_offset
        step = _ROUND_CELLS * _LABEL_EVERY
        self.scroll_to(
            x=(offset.x // _ROUND_CELLS) * _ROUND_CELLS + across * step,
            y=offset.y + down,
            animate=False,
            force=True,
        )

    def action_edge(self, end: int) -> None:
        self.scroll_to(x=end * self.virtual_size.width, animate=False, force=True)


def _filled(text: str, cells: int) -> str:
    text = fit(text, cells - 1)
    return text + " " * (cells - cell_len(text))
