"""A row of small bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from fedconsole.tui.glyphs import is_ascii

_BARS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = "_.,-=+*#"


def sparkline(values: Sequence[float | None], cells: int) -> str:
    """The last values, each a bar between the lowest and the highest of them; gaps are blanks.

    More values than cells are thinned: a cell shows the mean of those that fall into it.
    """
    if not values or cells < 1:
        return ""
    shown = _thinned(values, cells)
    finite = [value for value in shown if value is not None]
    if not finite:
        return " " * len(shown)
    bars = _ASCII_BARS if is_ascii() else _BARS
    low, high = min(finite), max(finite)
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if v is None else bars[round((v - low) * scale)] for v in shown)


def _thinned(values: Sequence[float | None], cells: int) -> list[float | None]:
    clean = [v if v is not None and math.isfinite(v) else None for v in values]
    if len(clean) <= cells:
        return clean
    bounds = [round(i * len(clean) / cells) for i in range(cells + 1)]
    means: list[float | None] = []
    for start, end in pairwise(bounds):
        finite = [v for v in clean[start:end] if v is not None]
        means.append(sum(finite) / len(finite) if finite else None)
    return means
