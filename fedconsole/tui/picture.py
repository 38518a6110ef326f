"""Draws a screen of the console without a terminal, once it has come to rest."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import Input

from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.frame import TICKS_PER_S

_SAME_LOOKS: Final = 5
"""Two ticks of the screen each. Plots are drawn every second to fifth tick."""
_CELL: Final = 12.2
"""Width of a cell in Textual's drawings."""


async def draw(
    app: FedconsoleApp,
    size: tuple[int, int],
    *,
    compared: Sequence[str] = (),
    keys: Sequence[str] = (),
) -> str:
    """The SVG of what the console shows after its start.

    Args:
        size: columns and lines.
        compared: two to four runs, shown beside each other.
        keys: pressed one after the other.
    """
    async with app.run_test(size=size, notifications=False) as pilot:
        if compared:
            from fedconsole.tui.screens.compare import CompareScreen

            await app.push_screen(CompareScreen(app.desk, compared))
        await _come_to_rest(pilot)
        for key in keys:
            await pilot.press(key)
            await _come_to_rest(pilot)
        return mended(app.export_screenshot(title="fedconsole"))


async def _come_to_rest(pilot: Pilot[None]) -> None:
    """Until everything is read and drawn: each part of that changes the picture."""
    before, num_same = "", 0
    while num_same < _SAME_LOOKS:
        for field in pilot.app.screen.query(Input):
            field.cursor_blink = False
        await pilot.pause(2 / TICKS_PER_S)
        now = pilot.app.export_screenshot()
        num_same = num_same + 1 if now == before else 0
        before = now


def mended(svg: str) -> str:
    """Words that stand apart, and some dots at a time, as texts of their own: programs without the
    drawing's font misplace them."""
    return re.sub(r"<text ([^>]*?)>([^<]*(?:&#160;|[⠀-⣿]{2})[^<]*)</text>", _split, svg)


def _split(match: re.Match[str]) -> str:
    attributes, content = match.groups()
    start = re.search(r'\bx="([\d.]+)"', attributes)
    if start is None or "textLength" not in attributes:
        return match[0]
    parts = []
    column = 0
    for piece in re.split(r"((?:&#160;){2,}|^&#160;|[⠀-⣿]{1,2})", content):
        cells = cell_len(html.unescape(piece))
        if piece.replace("&#160;", ""):
            place = f'x="{float(start[1]) + column * _CELL:g}"'
            own = attributes.replace(start[0], place)
            own = re.sub(r'textLength="[\d.]+"', f'textLength="{cells * _CELL:g}"', own)
            parts.append(f"<text {own}>{piece}</text>")
        column += cells
    return "".join(parts)
