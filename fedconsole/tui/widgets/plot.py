"""Curves in braille dots: two across and four down in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from fedconsole.tui.formats import fit, number
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.curves import MAX_NAMED, Curve, band, smoothed
from pi_daemon.protocol.text import clean

_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille sign by row and column of its dots."""
_BLANK: Final = 0x2800
_SMOOTHINGS: Final = (0.0, 0.6, 0.9)
_WINDOWS: Final = (1.0, 0.5, 0.25, 0.1)
_WIDE: Final = 100
_AXIS_CELLS: Final = 8
_END_CELLS: Final = 4


@dataclass(slots=True)
class Picture:
    """Cells of a plot, row by row from the top."""

    width: int
    height: int
    dots: list[list[int]] = field(default_factory=list)
    owners: list[list[int]] = field(default_factory=list)
    """Index of the curve that drew last into a cell; -1: none."""
    ends: dict[int, int] = field(default_factory=dict)
    """Curve -> the row where it ends."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of the plane that is drawn."""

    left: float
    right: float
    low: float
    high: float
    is_log: bool = False

    def height_of(self, y: float) -> float:
        """0 at the bottom to 1 at the top; NaN where it cannot be."""
        if not math.isfinite(y) or (self.is_log and y <= 0):
            return math.nan
        if self.is_log:
            y, low, high = math.log10(y), math.log10(self.low), math.log10(self.high)
        else:
            low, high = self.low, self.high
        return (y - low) / (high - low) if high > low else 0.5


def frame_of(curves: Sequence[Curve], *, is_log: bool = False, share: float = 1.0) -> Frame | None:
    """All that the last `share` of the curves covers; None: there is nothing to draw."""
    import numpy as np

    filled = [curve for curve in curves if len(curve.xs)]
    if not filled:
        return None
    right = max(curve.xs[-1] for curve in filled)
    left = min(curve.xs[0] for curve in filled)
    left = right - (right - left) * share
    lows, highs = [], []
    for curve in filled:
        ys = np.asarray(curve.ys, dtype=float)[np.asarray(curve.xs, dtype=float) >= left]
        ys = ys[np.isfinite(ys) & ((ys > 0) | (not is_log))]
        if ys.size:
            lows.append(float(ys.min()))
            highs.append(float(ys.max()))
    if not lows:
        return None
    low, high = min(lows), max(highs)
    if low == high:
        low, high = (low / 2, high * 2) if is_log else (low - 0.5, high + 0.5)
    return Frame(left, right if right > left else left + 1, low, high, is_log)


def draw(curves: Sequence[Curve], frame: Frame, width: int, height: int) -> Picture:
    """Draw curves into `width` x `height` cells; later ones over earlier ones, thick ones 2 dots high."""
    picture = Picture(
        width,
        height,
        [[0] * width for _row in range(height)],
        [[-1] * width for _row in range(height)],
    )
    for index, curve in enumerate(curves):
        _draw_curve(picture, index, curve, frame)
    return picture


def _draw_curve(picture: Picture, index: int, curve: Curve, frame: Frame) -> None:
    num_dots = 4 * picture.height
    last: tuple[int, int] | None = None
    for column, (lowest, highest, end) in _columns(curve, frame, 2 * picture.width):
        bottom, top = (round((1 - h) * (num_dots - 1)) for h in (lowest, highest))
        row = round((1 - end) * (num_dots - 1))
        if last is not None and column - last[0] <= 2 * picture.width:
            _connect(picture, index, last, (column, row), thick=curve.thick)
        for dot in range(top, bottom + 1):
            _set(picture, index, column, dot)
            if curve.thick:
                _set(picture, index, column, dot + 1)
        last = column, row
        picture.ends[index] = max(0, min(picture.height - 1, row // 4))


def _columns(
    curve: Curve, frame: Frame, num_columns: int
) -> list[tuple[int, tuple[float, float, float]]]:
    """For each column of dots with points: the lowest, the highest and the last height in it.

    A gap ends in a column of its own; only its neighbours are drawn.
    """
    import numpy as np

    xs = np.asarray(curve.xs, dtype=float)
    ys = np.asarray(curve.ys, dtype=float)
    is_shown = (xs >= frame.left) & (xs <= frame.right) & np.isfinite(ys)
    if frame.is_log:
        is_shown &= ys > 0
    xs, ys = xs[is_shown], ys[is_shown]
    if not xs.size:
        return []
    low, high = frame.low, frame.high
    if frame.is_log:
        ys, low, high = np.log10(ys), math.log10(low), math.log10(high)
    heights = np.clip((ys - low) / (high - low), 0.0, 1.0)
    places = ((xs - frame.left) / (frame.right - frame.left) * (num_columns - 1)).astype(int)
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    lows = np.minimum.reduceat(heights, starts).tolist()
    highs = np.maximum.reduceat(heights, starts).tolist()
    last = heights[np.append(starts[1:], heights.size) - 1].tolist()
    columns = places[starts].tolist()
    return list(zip(columns, zip(lows, highs, last, strict=True), strict=True))


def _connect(
    picture: Picture, index: int, start: tuple[int, int], end: tuple[int, int], *, thick: bool
) -> None:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    for step in range(1, steps):
        column = start[0] + round((end[0] - start[0]) * step / steps)
        dot = start[1] + round((end[1] - start[1]) * step / steps)
        _set(picture, index, column, dot)
        if thick:
            _set(picture, index, column, dot + 1)


def _set(picture: Picture, index: int, column: int, dot: int) -> None:
    x, y = column // 2, dot // 4
    if 0 <= x < picture.width and 0 <= y < picture.height:
        picture.dots[y][x] |= _DOTS[dot % 4][column % 2]
        picture.owners[y][x] = index


class Plot(Widget, can_focus=True):
    """Shows up to eight curves by name and colour, more as a band; letters stand at their ends."""

    BINDINGS: ClassVar = [
        key("l", "log_y", "Logarithmic scale", show=False),
        key("m", "smoothing", "Smoothing", show=False),
        key("+", "window(1)", "Look closer", show=False),
        key("-", "window(-1)", "Look wider", show=False),
        key("left", "read(-1)", "Read to the left", show=False),
        key("right", "read(1)", "Read to the right", show=False),
    ]
    DEFAULT_CSS = "Plot { height: 1fr; min-height: 4; }"

    def __init__(self, *, empty: str = "no losses yet", id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._empty = empty
        self._curves: Sequence[Curve] = ()
        self._marks: Sequence[float] = ()
        self._x_label = "step"
        self._wants_log: bool | None = None
        """None: logarithmic where the losses span two powers of ten, as in most first rounds."""
        self._is_log = False
        self._smoothing = 0
        self._window = 0
        self._reader: int | None = None
        """Column of dots of the read-out."""
        self._is_dirty = True
        self._lines: list[Strip] = []

    def show(
        self, curves: Sequence[Curve], marks: Sequence[float] = (), x_label: str = "step"
    ) -> None:
        """From the next flush on. `marks` are places on the x axis, such as the ends of rounds."""
        self._curves, self._marks, self._x_label = curves, marks, x_label
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
        rows = [self._row(picture, curves, frame, y) for y in range(down)]
        return [legend, *rows, self._foot(frame, across)]

    def _prepared(self) -> list[Curve]:
        thin = [curve for curve in self._curves if not curve.thick]
        thick = [curve for curve in self._curves if curve.thick]
        shown = thin if len(thin) <= MAX_NAMED else band(thin)
        weight = _SMOOTHINGS[self._smoothing]
        return [*(smoothed(curve, weight) for curve in shown), *thick]

    def _nothing(self, width: int, height: int) -> list[Strip]:
        text = fit(_(self._empty), width)
        look = self.rich_style + style(self, "dim")
        blank = [Strip.blank(width, self.rich_style)] * ((height - 1) // 2)
        return [*blank, Strip([Segment(text.center(width), look)])]

    def _legend(self, curves: Sequence[Curve], frame: Frame, width: int) -> Strip:
        base = self.rich_style
        segments = []
        reading = self._reading(curves, frame)
        for curve in curves:
            name = clean(curve.name, 24)
            value = f" {number(reading[curve.name])}" if curve.name in reading else ""
            label = name if curve.letter == name else f"{curve.letter} {name}"
            segments.append(Segment(f" {label}{value} ", base + Style(color=curve.colour)))
        hints = [self._x_label]
        if reading:
            hints.append(f"{self._x_label} {reading['']:.6g}")
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

    def _row(self, picture: Picture, curves: Sequence[Curve], frame: Frame, y: int) -> Strip:
        base = self.rich_style
        dim = base + style(self, "dim")
        label = {0: frame.high, picture.height - 1: frame.low}.get(y)
        axis = f"{'' if label is None else f'{label:.4g}':>{_AXIS_CELLS - 1}}"
        segments = [Segment(axis[: _AXIS_CELLS - 1], dim), Segment("│", dim)]
        marks = {self._column(frame, mark, picture.width) for mark in self._marks}
        reader = None if self._reader is None else self._reader // 2
        for x in range(picture.width):
            bits, owner = picture.dots[y][x], picture.owners[y][x]
            if x == reader and not bits:
                segments.append(Segment("│", base))
            elif owner < 0:
                segments.append(Segment("┊" if x in marks else " ", dim))
            else:
                curve = curves[owner]
                look = base + Style(color=curve.colour, bold=curve.thick)
                segments.append(Segment(chr(_BLANK | bits), look))
        ends = [index for index, row in picture.ends.items() if row == y]
        for index in ends[: _END_CELLS - 1]:
            letter = curves[index].letter[:1]
            segments.append(Segment(letter, base + Style(color=curves[index].colour, bold=True)))
        return Strip(segments).simplify()

    def _column(self, frame: Frame, x: float, width: int) -> int:
        return int((x - frame.left) / (frame.right - frame.left) * (width - 1))

    def _foot(self, frame: Frame, across: int) -> Strip:
        left, right = f"{frame.left:.6g}", f"{frame.right:.6g}"
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
