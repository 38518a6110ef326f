"""Numbers, times and texts as people read them on a narrow screen."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final

from rich.cells import cell_len, chop_cells, set_cell_size

from fedconsole.tui.glyphs import glyph

_UNITS: Final = "BKMGTP"


def size(num_bytes: float) -> str:
    """Bytes in at most four digits: 512B, 3.1M, 118M."""
    for unit in _UNITS:
        if num_bytes < 999.5 or unit == _UNITS[-1]:
            break
        num_bytes /= 1024
    digits = 0 if unit == "B" or num_bytes >= 99.5 else 1
    return f"{num_bytes:.{digits}f}{unit}"


def span(seconds: float) -> str:
    """A duration: 04:12, 1:02:03, 3d 04h."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes:02}:{whole % 60:02}"


def age(seconds: float) -> str:
    """How long ago: 12s, 3m, 2h, 5d."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def number(value: float | None, digits: int = 4) -> str:
    """A measurement; "nan" where it is not finite."""
    if value is None or not math.isfinite(value):
        return "nan"
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def clock(time: datetime) -> str:
    """The local time of day."""
    return f"{time.astimezone():%H:%M:%S}"


def fit(text: str, cells: int) -> str:
    """The text, cut to so many cells; a Hangul syllable fills two."""
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, cells - 1).rstrip() + glyph("ellipsis") if cells > 0 else ""


def wrapped(text: str, cells: int) -> list[str]:
    """The text in lines of at most so many cells, broken between words where that is possible."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if cell_len(longer) <= cells:
                line = longer
                continue
            if line:
                lines.append(line)
            *full, line = chop_cells(word, max(2, cells)) or [""]
            lines += full
        lines.append(line)
    return lines


def cut(text: str, cells: int, hint: str) -> str:
    """The text, or as much of it as has room before a hint that says where all of it is."""
    if cell_len(text) <= cells:
        return text
    return f"{fit(text, cells - cell_len(hint) - 1)} {hint}"


def cut_lines(text: str, cells: int, most: int, hint: str) -> str:
    """As `cut`, of a text that may have so many lines."""
    lines = wrapped(text, cells)
    if len(lines) <= most:
        return text
    return "\n".join([*lines[: most - 1], cut(" ".join(lines[most - 1 :]), cells, hint)])
