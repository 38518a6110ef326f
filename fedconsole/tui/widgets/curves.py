"""Curves as data: smoothing, what stands for many, and a drawing for a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from xml.sax.saxutils import escape

from pi_daemon.protocol.text import clean

MAX_NAMED: Final = 8
ROUND: Final = (1.0, 2.0, 5.0, 10.0)
"""First digits of round numbers."""
_X_TICKS, _Y_TICKS = 10, 5
_BAND_SIGNS: Final = {"min": "-", "median": "~", "max": "+"}
_WIDTH, _HEIGHT, _MARGIN = 800, 400, 56


@dataclass(frozen=True, slots=True)
class Curve:
    """Points with rising `xs`; a y that is not finite leaves a gap."""

    name: str
    letter: str
    """Stands at its right end."""
    colour: str
    xs: Sequence[float]
    ys: Sequence[float]
    thick: bool = False


def smooth(ys: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average; `weight` 0 changes nothing, near 1 much. Gaps stay gaps."""
    smoothed = []
    mean: float | None = None
    for y in ys:
        if math.isfinite(y):
            mean = y if mean is None else weight * mean + (1 - weight) * y
            smoothed.append(mean)
        else:
            smoothed.append(y)
    return smoothed


def band(curves: Sequence[Curve], num_points: int = 200) -> list[Curve]:
    """The lowest, the median and the highest of many curves, at evenly spaced places."""
    import numpy as np

    filled = [curve for curve in curves if len(curve.xs)]
    if not filled:
        return []
    start = min(curve.xs[0] for curve in filled)
    end = max(curve.xs[-1] for curve in filled)
    xs = np.linspace(start, end, num_points)
    table = np.array(
        [np.interp(xs, c.xs, c.ys, left=math.nan, right=math.nan) for c in filled], dtype=float
    )
    is_known = np.isfinite(table).any(axis=0)
    xs, table = xs[is_known], table[:, is_known]
    if not xs.size:
        return []
    rows = {
        "min": np.nanmin(table, axis=0),
        "median": np.nanmedian(table, axis=0),
        "max": np.nanmax(table, axis=0),
    }
    colours = {"min": "#56b4e9", "median": "#e69f00", "max": "#d55e00"}
    return [
        Curve(name, _BAND_SIGNS[name], colours[name], xs.tolist(), ys.tolist())
        for name, ys in rows.items()
    ]


def smoothed(curve: Curve, weight: float) -> Curve:
    return replace(curve, ys=smooth(curve.ys, weight)) if weight else curve


def bounds(curves: Sequence[Curve], *, positive: bool = False) -> tuple[float, float] | None:
    """Lowest and highest finite y; None: there is none."""
    finite = [
        y for curve in curves for y in curve.ys if math.isfinite(y) and (y > 0 or not positive)
    ]
    return (min(finite), max(finite)) if finite else None


def round_values(low: float, high: float, wanted: int, *, least_step: float = 0) -> list[float]:
    """Round numbers between `low` and a higher `high`, evenly spaced, `wanted` or some fewer."""
    # Each divided for itself: the difference of two huge numbers is infinite.
    distance = max(high / wanted - low / wanted, least_step)
    power = 10.0 ** math.floor(math.log10(distance))
    step = next(factor * power for factor in ROUND if factor * power >= distance)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def to_svg(
    curves: Sequence[Curve],
    marks: Sequence[float] = (),
    title: str = "",
    x_label: str = "step",
    y_label: str = "loss",
) -> str:
    """A drawing of its own: axes, ticks, curves, and a legend. Every `x` is counted in whole numbers."""
    height = bounds(curves)
    xs = [x for curve in curves for x in curve.xs]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _label(_WIDTH / 2, 20, title, "middle"),
    ]
    if height is None or not xs:
        parts.append(_label(_WIDTH / 2, _HEIGHT / 2, "no data", "middle"))
        return "\n".join([*parts, "</svg>", ""])
    low, high = height if height[1] > height[0] else (height[0] - 0.5, height[0] + 0.5)
    left, right = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) * (_WIDTH - 2 * _MARGIN)
        up = (y - low) / (high - low) * (_HEIGHT - 2 * _MARGIN)
        return _MARGIN + across, _HEIGHT - _MARGIN - up

    bottom = _HEIGHT - _MARGIN
    parts.append(
        f'<path d="M{_MARGIN} {_MARGIN}V{bottom}H{_WIDTH - _MARGIN}" fill="none" stroke="#444444"/>'
    )
    parts += [
        *(
            _label(place(x, low)[0], bottom + 18, f"{x:.6g}", "middle")
            for x in round_values(left, right, _X_TICKS, least_step=1)
        ),
        *(
            _label(_MARGIN - 6, place(left, y)[1] + 4, f"{y:.4g}", "end")
            for y in round_values(low, high, _Y_TICKS)
        ),
    ]
    parts.append(_label(_WIDTH / 2, _HEIGHT - 12, x_label, "middle"))
    parts.append(_label(_MARGIN, _MARGIN - 10, y_label, "middle"))
    for mark in marks:
        if left <= mark <= right:
            x = place(mark, low)[0]
            parts.append(
                f'<path d="M{x:.1f} {_MARGIN}V{bottom}" stroke="#cccccc" stroke-dasharray="2 4"/>'
            )
    for number, curve in enumerate(curves):
        d = _path(curve, place)
        width = 2.5 if curve.thick else 1.25
        parts.append(
            f'<path d="{d}" fill="none" stroke="{escape(curve.colour)}" stroke-width="{width}"/>'
        )
        legend_y = _MARGIN + 16 * number
        parts.append(
            f'<path d="M{_WIDTH - _MARGIN - 110} {legend_y - 4}h16" '
            f'stroke="{escape(curve.colour)}" stroke-width="{width}"/>'
        )
        parts.append(_label(_WIDTH - _MARGIN - 90, legend_y, curve.name, "start"))
    return "\n".join([*parts, "</svg>", ""])


def _path(curve: Curve, place: Callable[[float, float], tuple[float, float]]) -> str:
    steps = []
    pen = "M"
    for x, y in zip(curve.xs, curve.ys, strict=True):
        if not math.isfinite(y):
            pen = "M"
            continue
        across, down = place(x, y)
        steps.append(f"{pen}{across:.1f} {down:.1f}")
        pen = "L"
    return "".join(steps)


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(clean(text, 80))}</text>'
