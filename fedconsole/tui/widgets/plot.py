"""A plot of curves: axes, a legend, and what the keys change in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from fedconsole.tui.formats import fit, number
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.theme import readable, style
from fedconsole.tui.widgets.braille import BLANK, Frame, Picture, draw, frame_of, ticks
from fedconsole.tui.widgets.curves import MAX_NAMED, Curve, band, smoothed
from pi_daemon.protocol.text import clean

_SMOOTHINGS: Final = (0.0, 0.6, 0.9)
_WINDOWS: Final = (1.0, 0.5, 0.25, 0.1)
_WIDE: Final = 100
_AXIS_CELLS: Final = 8
_END_CELLS: Final = 5
_MARK_GAP: Final = 8


class Plot(Widget, can_focus=True):
    """Shows up to eight curves by name and colour, more as a band; letters stand at their ends."""

    ALLOW_SELECT = False
    PANE: ClassVar = "Plot"
    BINDINGS: ClassVar = [
        key("l", "log_y", "Logarithmic scale", show=False),
        key("m", "smoothing", "Smoothing", show=False),
        key("+", "window(1)", "Look closer", show=False),
        key("-", "window(-1)", "Look wider", show=False),
        key("left", "read(-1)", "Read to the left", show=False),
        key("right", "read(1)", "Read to the right", show=False),
    ]
    DEFAULT_CSS = "Plot { height: 1fr; min-height: 4; }"

    def __init__(
        self,
        *,
        empty: str = "no losses yet",
        is_smooth: bool = False,
        id: str | None = None,  # noqa: A002
    ) -> None:
        """`is_smooth`: begin with thin curves smoothed; thick ones never are."""
        super().__init__(id=id)
        self._empty = empty
        self._curves: Sequence[Curve] = ()
        self._marks: Sequence[float] = ()
        self._x_label = "step"
        self._chosen: str | None = None
        self._wants_log: bool | None = None
        """None: logarithmic where the losses span two powers of ten, as in most first rounds."""
        self._is_log = False
        self._smoothing = 1 if is_smooth else 0
        self._window = 0
        self._reader: int | None = None
        """Column of dots of the read-out."""
        self._is_dirty = True
        self._lines: list[Strip] = []

    def set_empty(self, text: str) -> None:
        """What stands there without curves; English."""
        self._empty = text
        self._is_dirty = True

    def show(
        self,
        curves: Sequence[Curve],
        marks: Sequence[float] = (),
        x_label: str = "step",
        chosen: str | None = None,
    ) -> None:
        """From the next flush on.

        Args:
            marks: places on the x axis, such as the ends of rounds.
            chosen: the curve that is drawn by itself when many become a band.
        """
        self._curves, self._marks, self._x_label = curves, marks, x_label
        self._chosen = chosen
        self._is_dirty = True

    def flush(self) -> None:
        if self._is_dirty and self.size.height:
            self._is_dirty = False
            self._lines = self._draw(self.size.width, self.size.height)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        if y < len(self._lines):
            return self._lines[y].adjust_cell_length(self.size.width, self.rich_style)
        return Strip.blank(self.size.width, self.rich_style)

    def on_resize(self) -> None:
        self._is_dirty = True
        self.flush()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._is_dirty = True

    def _draw(self, width: int, height: int) -> list[Strip]:
        curves = self._prepared()
        share = _WINDOWS[self._window]
        frame = frame_of(curves, is_log=bool(self._wants_log), share=share)
        if self._wants_log is None and frame is not None and 0 < frame.low * _WIDE < frame.high:
            frame = frame_of(curves, is_log=True, share=share)
        self._is_log = frame is not None and frame.is_log
        across, down = width - _AXIS_CELLS - _END_CELLS, height - 2
        if frame is None or across < 4 or down < 1:
            return self._nothing(width, height)
        picture = draw(curves, frame, across, down)
        legend = self._legend(curves, frame, width)
        labels = ticks(frame, down)
        rows = [self._row(picture, curves, frame, y, labels.get(y)) for y in range(down)]
        return [legend, *rows, self._foot(frame, across)]

    def _prepared(self) -> list[Curve]:
        thin = [curve for curve in self._curves if not curve.thick]
        thick = [curve for curve in self._curves if curve.thick]
        shown = thin
        if len(thin) > MAX_NAMED:
            shown = [*band(thin), *(curve for curve in thin if curve.name == self._chosen)]
        weight = _SMOOTHINGS[self._smoothing]
        return [*(smoothed(curve, weight) for curve in shown), *thick]

    def _nothing(self, width: int, height: int) -> list[Strip]:
        text = fit(_(self._empty), width)
        look = self.rich_style + style(self, "dim")
        blank = [Strip.blank(width, self.rich_style)] * ((height - 1) // 2)
        left = " " * ((width - cell_len(text)) // 2)
        return [*blank, Strip([Segment(left + text, look)]).adjust_cell_length(width, look)]

    def _legend(self, curves: Sequence[Curve], frame: Frame, width: int) -> Strip:
        base = self.rich_style
        segments = []
        reading = self._reading(curves, frame)
        for curve in curves:
            name = clean(curve.name, 24)
            value = f" {number(reading[curve.name])}" if curve.name in reading else ""
            label = name if curve.letter == name else f"{curve.letter} {name}"
            segments.append(
                Segment(f" {label}{value} ", base + Style(color=readable(self, curve.colour)))
            )
        hints = [self._x_label]
        if reading:
            hints.append(f"{self._x_label} {reading['']:.1f}")
        if self._is_log:
            hints.append(_("log"))
        if self._smoothing:
            hints.append(_("smoothed {weight}", weight=_SMOOTHINGS[self._smoothing]))
        if self._window:
            hints.append(_("last {share}%", share=round(100 * _WINDOWS[self._window])))
        hint = Strip(
            [Segment(f" {' '.join(hints[1 if reading else 0 :])} ", base + style(self, "dim"))]
        )
        names = Strip(segments).adjust_cell_length(max(0, width - hint.cell_length), base)
        return Strip.join([names, hint])

    def _reading(self, curves: Sequence[Curve], frame: Frame) -> dict[str, float]:
        """Each curve's value at the cursor, and under "" the place."""
        if self._reader is None:
            return {}
        from bisect import bisect_right

        num_columns = 2 * (self.size.width - _AXIS_CELLS - _END_CELLS)
        x = frame.left + self._reader / max(1, num_columns - 1) * (frame.right - frame.left)
        found = {"": x}
        for curve in curves:
            if (index := bisect_right(curve.xs, x)) > 0:
                found[curve.name] = curve.ys[index - 1]
        return found

    def _row(
        self, picture: Picture, curves: Sequence[Curve], frame: Frame, y: int, label: float | None
    ) -> Strip:
        base = self.rich_style
        dim = base + style(self, "dim")
        axis = f"{'' if label is None else _axis_label(label):>{_AXIS_CELLS - 1}}"
        line = "│" if label is None else "┤"
        segments = [Segment(axis, dim), Segment(line, dim)]
        marks = self._mark_columns(frame, picture.width)
        reader = None if self._reader is None else self._reader // 2
        for x in range(picture.width):
            bits, owner = picture.dots[y][x], picture.owners[y][x]
            if x == reader and not bits:
                segments.append(Segment("│", base))
            elif owner < 0:
                segments.append(Segment("┊" if x in marks else " ", dim))
            else:
                curve = curves[owner]
                look = base + Style(color=readable(self, curve.colour), bold=curve.thick)
                segments.append(Segment(chr(BLANK | bits), look))
        ends = [index for index, row in picture.ends.items() if row == y]
        for index in ends[: _END_CELLS - 1]:
            letter = curves[index].letter[:1]
            segments.append(
                Segment(letter, base + Style(color=readable(self, curves[index].colour), bold=True))
            )
        return Strip(segments).simplify()

    def _mark_columns(self, frame: Frame, width: int) -> set[int]:
        """Where marks are drawn: as many as leave the curves to be seen."""
        columns: set[int] = set()
        last = -_MARK_GAP
        for mark in self._marks:
            column = self._column(frame, mark, width)
            if 0 <= column < width and column - last >= _MARK_GAP:
                columns.add(column)
                last = column
        return columns

    def _column(self, frame: Frame, x: float, width: int) -> int:
        return int((x - frame.left) / (frame.right - frame.left) * (width - 1))

    def _foot(self, frame: Frame, across: int) -> Strip:
        cell = (frame.right - frame.left) / across
        left, right = _place_label(frame.left, cell), _place_label(frame.right, cell)
        gap = "─" * max(1, across - len(left) - len(right) - 2)
        text = " " * (_AXIS_CELLS - 1) + f"└{left} {gap} {right}"
        return Strip([Segment(text, self.rich_style + style(self, "dim"))])

    # Keys

    @property
    def is_log(self) -> bool:
        return self._is_log

    def action_log_y(self) -> None:
        self._wants_log = not self._is_log
        self._redraw()

    def action_smoothing(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(_SMOOTHINGS)
        self._redraw()

    def action_window(self, step: int) -> None:
        self._window = max(0, min(len(_WINDOWS) - 1, self._window + step))
        self._redraw()

    def action_read(self, step: int) -> None:
        last = 2 * max(1, self.size.width - _AXIS_CELLS - _END_CELLS) - 1
        at = last if self._reader is None else self._reader + 2 * step
        self._reader = None if at > last else max(0, at)
        self._redraw()

    def _redraw(self) -> None:
        self._is_dirty = True
        self.flush()


def _axis_label(value: float) -> str:
    """At most seven cells."""
    texts = (f"{value:.{digits}g}" for digits in (4, 3, 2))
    return next((text for text in texts if len(text) < _AXIS_CELLS), f"{value:.0e}")


def _place_label(value: float, cell: float) -> str:
    """To some cells: what lies nearer cannot be told apart in the picture."""
    return f"{round(value, max(0, -math.ceil(math.log10(cell)))):.6g}"
