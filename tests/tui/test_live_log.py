from __future__ import annotations

import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import Input

from fedconsole.tui.desk import Line
from fedconsole.tui.opening import Opening
from fedconsole.tui.widgets.line_log import LineLog
from fedconsole.tui.widgets.line_table import LineTable
from tests.support.histories import lines_of, press, text_of, told
from tests.tui.driving import BUSY, RUN, after, console, going, shows

LIVE = Opening("live", RUN)


def log_of(pilot: Pilot[None]) -> LineLog:
    return pilot.app.screen.query_one(LineLog)


def workers_of(pilot: Pilot[None]) -> LineTable:
    return pilot.app.screen.query_one("#workers", LineTable)


def spoken(number: int, level: str = "info", worker: str = "alice") -> Line:
    return after(BUSY, "log", worker=worker, level=level, text=f"word {number:03}")


async def test_level_keys_choose_the_least_level() -> None:
    levels = ["debug", "info", "warning", "error"]
    lines = [*BUSY[:1], *(spoken(n, level) for n, level in enumerate(levels))]
    async with console(going(lines), LIVE) as pilot:
        log_of(pilot).focus()
        seen = {}
        for key in "diwe":
            await press(pilot, key)
            seen[key] = [n for n in range(4) if f"word {n:03}" in text_of(pilot)]
    assert seen == {"d": [0, 1, 2, 3], "i": [1, 2, 3], "w": [2, 3], "e": [3]}


async def test_the_log_is_filtered_while_typing_and_escape_shows_all_again() -> None:
    lines = [*BUSY[:1], *(spoken(n) for n in range(6))]
    async with console(going(lines), LIVE) as pilot:
        log_of(pilot).focus()
        await press(pilot, "slash", *"003")
        assert "1/7" in text_of(pilot)
        assert "word 003" in text_of(pilot)
        assert "word 002" not in text_of(pilot)
        await press(pilot, "enter")
        assert log_of(pilot).has_focus
        await press(pilot, "escape")
        assert "word 002" in text_of(pilot)


async def test_scrolling_up_holds_the_log_and_counts_what_is_new() -> None:
    desk = going([*BUSY[:1], *(spoken(n) for n in range(60))])
    async with console(desk, LIVE) as pilot:
        log_of(pilot).focus()
        assert "word 059" in text_of(pilot)
        await press(pilot, "up", "up", "up")
        assert not log_of(pilot).is_following
        desk.tell(RUN, *(spoken(n) for n in range(60, 67)))
        await shows(pilot, "▼ 7 new")
        assert "word 066" not in text_of(pilot)
        await press(pilot, "end")
        assert log_of(pilot).is_following
        assert "word 066" in text_of(pilot)
        assert " new " not in text_of(pilot)


async def test_scrolling_back_to_the_end_follows_again() -> None:
    desk = going([*BUSY[:1], *(spoken(n) for n in range(60))])
    async with console(desk, LIVE) as pilot:
        log_of(pilot).focus()
        await press(pilot, "pageup", "pagedown", "pagedown")
        assert log_of(pilot).is_following
        desk.tell(RUN, spoken(60))
        await shows(pilot, "word 060")


async def test_enter_on_a_worker_shows_its_lines_only() -> None:
    lines = [*BUSY, spoken(1, worker="alice"), spoken(2, worker="bob")]
    async with console(going(lines), LIVE) as pilot:
        assert workers_of(pilot).has_focus
        await press(pilot, "down", "enter")
        assert pilot.app.screen.query_one("#filter Input", Input).value == 'worker:"bob"'
        assert "word 002" in text_of(pilot)
        assert "word 001" not in text_of(pilot)
        await press(pilot, "escape")
        assert "word 001" in text_of(pilot)
        assert workers_of(pilot).shown == 3


@pytest.mark.parametrize("pane", ["#plot", "#workers", "#log", None])
async def test_the_filter_opens_whatever_has_the_focus(pane: str | None) -> None:
    async with console(going(BUSY), LIVE) as pilot:
        screen = pilot.app.screen
        screen.set_focus(screen.query_one(pane) if pane else None)
        await press(pilot, "slash", "b", "slash")
        assert screen.query_one("#filter Input", Input).value == "b/"


async def test_the_lines_that_pass_the_filter_are_saved(tmp_path: Path) -> None:
    desk = going([*BUSY[:1], *(spoken(n) for n in range(6))], folder=tmp_path)
    async with console(desk, LIVE) as pilot:
        log_of(pilot).focus()
        await press(pilot, "slash", *"003", "enter", "S")
        path = desk.folder / f"{RUN}.log"
        assert told(pilot) == [f"log saved: {path}"]
        assert path.read_text() == f"{spoken(3)['time']} INFO  alice Log from alice: word 003\n"


MEGABYTE = 2**20


async def test_a_line_of_a_megabyte_is_cut_to_what_is_read_and_hides_no_other() -> None:
    long = after(BUSY, "log", worker="alice", level="info", text="long " * (MEGABYTE // 5))
    desk = going([*BUSY[:1], spoken(1), long, spoken(2)])
    async with console(desk, LIVE, (120, 50)) as pilot:
        log = log_of(pilot)
        log.focus()
        await press(pilot, "z")
        rows = [line for line in text_of(pilot).splitlines() if "long long" in line]
        assert len(rows) == 1
        assert rows[0].endswith("…")
        await press(pilot, "W")
        # All of it that is kept stands between its neighbours.
        await shows(pilot, "word 001", "long long", "word 002")
        kept = next(line for line in log.matching_lines() if "long long" in line)
        assert kept.endswith("…")
        assert len(kept) < MEGABYTE // 500


async def test_many_lines_of_a_megabyte_cost_no_more_than_short_ones() -> None:
    async def seconds(text: str) -> float:
        """Of the processor, to take in and to draw so many lines of this text."""
        line = after(BUSY, "log", worker="alice", level="info", text=text)
        desk = going([*BUSY[:1], *([line] * 500), spoken(1)])
        began = time.process_time()
        async with console(desk, LIVE) as pilot:
            await shows(pilot, "word 001")
        return time.process_time() - began

    short = await seconds("x" * 4_000)
    # Uncut it would be hundreds of times as much.
    assert await seconds("x" * MEGABYTE) < 6 * short


# Selecting with the mouse


async def drag(pilot: Pilot[None], start: tuple[int, int], end: tuple[int, int]) -> None:
    """From a cell of the screen to another."""
    await pilot.mouse_down(offset=start)
    await pilot.hover(offset=end)
    await pilot.mouse_up(offset=end)


async def test_what_the_mouse_selects_in_the_log_is_marked_and_copied(tmp_path: Path) -> None:
    desk = going([*BUSY[:1], *(spoken(n) for n in range(6))], folder=tmp_path)
    async with console(desk, LIVE) as pilot:
        rows = lines_of(pilot)
        top = next(y for y, row in enumerate(rows) if "word 002" in row)
        left = rows[top].index("word 002")
        end = rows[top + 1].index("003") + 2
        await drag(pilot, (left, top), (end, top + 1))
        assert (pilot.app.screen.get_selected_text() or "").splitlines()[:1] == ["word 002"]
        await press(pilot, "y")
        first, second = (tmp_path / "copied.txt").read_text().splitlines()
        assert (first, second.split()[1:3]) == ("word 002", ["INFO", "alice"])
        assert second.endswith("Log from alice: word 003")
        # The next y copies as if nothing had been selected.
        assert pilot.app.screen.get_selected_text() is None


async def test_hangul_is_selected_by_its_syllables(tmp_path: Path) -> None:
    said = after(BUSY, "log", worker="앨리스", level="info", text="팬이 시끄럽습니다")
    async with console(going([*BUSY[:1], said], folder=tmp_path), LIVE) as pilot:
        top = next(y for y, row in enumerate(lines_of(pilot)) if "시끄럽" in row)
        start = cell_len(lines_of(pilot)[top].partition("시끄럽")[0])
        await drag(pilot, (start, top), (start + 4, top))
        await press(pilot, "y")
        assert (tmp_path / "copied.txt").read_text() == "시끄럽"
