"""Drawing curves into braille dots: two across and four down in each cell. No widget, no colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fedconsole.tui.widgets.curves import ROUND, Curve, round_values

BLANK: Final = 0x2800
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille sign by row and column of its dots."""
_ROWS_PER_TICK: Final = 3
_LIMIT: Final = 1e300
"""Below it the height of a frame is finite."""


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
        ys = ys[(np.abs(ys) < _LIMIT) & ((ys > 0) | (not is_log))]
        if ys.size:
            lows.append(float(ys.min()))
            highs.append(float(ys.max()))
    if not lows:
        return None
    low, high = min(lows), max(highs)
    if low == high:
        low, high = (low / 2, high * 2) if is_log else (low - 0.5, high + 0.5)
    return Frame(left, right if right > left else left + 1, low, high, is_log)


def ticks(frame: Frame, num_rows: int) -> dict[int, float]:
    """Row -> the round value that belongs there; top and bottom where no two round ones fit."""
    wanted = max(2, num_rows // _ROWS_PER_TICK)
    rows = {
        _dot(frame.height_of(value), num_rows) // 4: value
        for value in _round_values(frame, wanted)
        if frame.low <= value <= frame.high
    }
    return rows if len(rows) > 1 else {0: frame.high, num_rows - 1: frame.low}


def _round_values(frame: Frame, wanted: int) -> list[float]:
    if frame.is_log:
        first, last = (math.floor(math.log10(end)) for end in (frame.low, frame.high))
        num_decades = last - first + 1
        factors = ROUND[:3] if 3 * num_decades <= wanted else ROUND[:1]
        stride = max(1, math.ceil(num_decades / wanted))
        return [factor * 10.0**e for e in range(first, last + 1, stride) for factor in factors]
    return round_values(frame.low, frame.high, wanted)


def _dot(height: float, num_rows: int) -> int:
    """Row of dots from the top for a height of 0 to 1."""
    return round((1 - height) * (4 * num_rows - 1))


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
    last: tuple[int, int] | None = None
    for column, (lowest, highest, end) in _columns(curve, frame, 2 * picture.width):
        bottom, top, row = (_dot(h, picture.height) for h in (lowest, highest, end))
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
