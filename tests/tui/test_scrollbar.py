"""Lines beside a scrollbar: what is drawn below it would be cut, and every cut is remembered."""

from __future__ import annotations

import pytest
from rich.segment import Segment
from textual.pilot import Pilot

from fedconsole.tui.desk import Line
from fedconsole.tui.opening import Opening
from fedconsole.tui.widgets.line_log import LineLog
from fedconsole.tui.widgets.line_table import LineTable
from tests.support.histories import press, text_of
from tests.tui.driving import BUSY, RUN, after, console, going

LIVE = Opening("live", RUN)
_MANY = 60


def crowded() -> list[Line]:
    """More workers than rows, and more lines of the log, long and with signs that Rich measures one by one."""
    lines = list(BUSY)
    for number in range(_MANY):
        worker = f"w{number:02}"
        lines.append(after(BUSY, "worker.joined", worker=worker, address="lab:1"))
        lines.append(after(BUSY, "log", worker=worker, level="info", text=f"{number} …→" * 60))
    return lines


def num_cuts() -> int:
    return Segment._split_cells.cache_info().misses


async def _to_its_end(pilot: Pilot[None], kind: type[LineLog] | type[LineTable]) -> None:
    pane = pilot.app.screen.query_one(kind)
    pane.focus()
    await press(pilot, "home")
    assert pane.show_vertical_scrollbar
    for _ in range(_MANY):
        await press(pilot, "down")


@pytest.mark.parametrize("kind", [LineLog, LineTable])
async def test_no_line_beside_a_scrollbar_is_cut(kind: type[LineLog] | type[LineTable]) -> None:
    async with console(going(crowded()), LIVE) as pilot:
        Segment._split_cells.cache_clear()
        await _to_its_end(pilot, kind)
        assert num_cuts() == 0


@pytest.mark.parametrize("kind", [LineLog, LineTable])
async def test_a_line_ends_beside_the_scrollbar(kind: type[LineLog] | type[LineTable]) -> None:
    async with console(going(crowded()), LIVE) as pilot:
        pane = pilot.app.screen.query_one(kind)
        assert "w00" in text_of(pilot)
        assert pane.render_line(1).cell_length == pane.size.width - 1
