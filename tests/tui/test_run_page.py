from __future__ import annotations

from pathlib import Path

import pytest

from fedconsole.coordinator.plan import Plan
from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.messages import CloneRun
from fedconsole.tui.screens.history import HistoryScreen
from fedconsole.tui.screens.run_page import PANES, RunPage
from fedconsole.tui.screens.run_reading import Reading
from fedconsole.tui.widgets.line_log import LineLog
from tests.support.desk import PreparedDesk
from tests.support.histories import (
    HOSTILE,
    JOURNAL,
    PLAN,
    SIZES,
    a_run,
    desk_with_runs,
    finished,
    heard,
    line,
    lines_of,
    opened,
    press,
    settle,
    text_of,
    with_classes,
)
from tests.tui.driving import resized


@pytest.fixture
def desk(tmp_path: Path) -> PreparedDesk:
    return desk_with_runs(tmp_path / "exports")


@pytest.mark.parametrize(("state", "is_told"), [("failed", True), ("completed", False)])
async def test_the_page_of_a_run_that_failed_says_why(state: str, is_told: bool) -> None:
    desk = PreparedDesk()
    run = a_run(1, state, rounds=0, model_path=None, reason="bob has no dataset 'digits'")
    desk.summaries[run.run] = run
    async with opened(desk, (80, 24)) as pilot:
        await press(pilot, "enter")
        assert ("bob has no dataset 'digits'" in text_of(pilot)) == is_told


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_s_page_has_all_panes(desk: PreparedDesk, size: tuple[int, int]) -> None:
    desk.journals["20261123-0003"] = with_classes(JOURNAL)
    seen = {}
    async with opened(desk, size) as pilot:
        await press(pilot, "down", "down", "enter")
        for pane in PANES:
            seen[pane] = text_of(pilot)
            await press(pilot, "tab")
        assert text_of(pilot) == seen["curves"]
    assert "20261123-0003  ✗ failed  ecg  2 rounds  loss 0.3000" in seen["curves"]
    assert "A alice" in seen["curves"]
    assert "T test" in seen["curves"]
    assert "alice       10/10     ■ ■ ■ ■ ■ ■ ■ ■ ■ ■" in seen["attendance"]
    assert "    2      3   0.3000  0.4000  90.0%" in seen["rounds"]
    assert "75.0%" in seen["classes"]
    assert "lr                         0.5" in seen["plan"]
    assert "batch_size" not in seen["plan"]
    assert "model  /models/m" in seen["plan"]
    assert "Round 10: 3 updates" in seen["log"]
    is_one_at_a_time = size[0] < 100
    assert ("Round 10: 3 updates" not in seen["rounds"]) == is_one_at_a_time


async def test_the_axis_of_rounds_begins_with_a_round(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "down", "enter")
        (axis,) = (line for line in lines_of(pilot) if "└" in line)
        assert axis.split("│")[0].replace("─", "").split() == ["└0", "10"]


async def test_a_click_on_a_tab_shows_its_pane(desk: PreparedDesk) -> None:
    async with opened(desk, (80, 24)) as pilot:
        await press(pilot, "down", "enter")
        tabs = lines_of(pilot)[2]
        assert tabs.split() == ["Losses", "Workers", "Rounds", "Classes", "Plan", "Log"]
        await pilot.click(offset=(tabs.index("Plan"), 2))
        await settle(pilot)
        assert "model  /models/m" in text_of(pilot)


async def test_the_panes_stand_side_by_side_when_the_terminal_grows(desk: PreparedDesk) -> None:
    async with opened(desk, (80, 24)) as pilot:
        await press(pilot, "down", "enter", "tab")
        assert "training" not in text_of(pilot)
        await resized(pilot, 160, 50)
        await settle(pilot)
        for part in ("─Losses", "─Workers", "─Rounds", "─Classes", "─Plan", "─Log"):
            assert part in text_of(pilot)
        await resized(pilot, 80, 24)
        await settle(pilot)
        assert "delivered" in text_of(pilot)
        assert "training" not in text_of(pilot)


async def test_the_whole_plan_is_a_key_away(desk: PreparedDesk) -> None:
    whole = PLAN | {"batch_size": 64, "momentum": 0.0}
    desk.summaries["20261123-0004"] = a_run(4, "crashed", plan=whole)
    async with opened(desk, (80, 24)) as pilot:
        await press(pilot, "down", "enter", "p")
        assert "batch_size                 64" in text_of(pilot)
        await press(pilot, "p")
        assert "batch_size" not in text_of(pilot)
        assert "lr                         0.5" in text_of(pilot)


async def test_capitals_act_on_the_run_while_the_log_has_the_focus(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "down", "enter", "shift+tab", "L")
        assert heard(pilot) == [CloneRun(Plan(workers=("127.0.0.1:1", "127.0.0.1:2"), lr=0.5))]
        await press(pilot, "E")
        assert isinstance(pilot.app.screen, Choice)


async def test_the_log_is_filtered_and_escape_clears_before_it_leaves(desk: PreparedDesk) -> None:
    async with opened(desk, (80, 24)) as pilot:
        await press(pilot, "down", "enter", "shift+tab", "slash", *"charlie", "enter")
        log = [line for line in lines_of(pilot) if "INFO" in line]
        assert log
        assert all("charlie" in line for line in log)
        await press(pilot, "escape")
        assert pilot.app.screen.query(LineLog)
        assert "Test after round 10" in text_of(pilot)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, HistoryScreen)


async def test_rejected_lost_and_unchosen_workers_are_told_apart(desk: PreparedDesk) -> None:
    desk.journals["20261123-0004"] = [
        line("round.started", round=1, attempt=1, cohort=["alice", "bob", HOSTILE]),
        line("worker.update", round=1, worker="alice", num_examples=1, loss=1.0, seconds=1.0),
        line("worker.rejected", round=1, worker="bob", reason="NaN"),
        finished(1, ["alice"]),
        line("round.started", round=2, attempt=1, cohort=["alice"]),
        line("worker.update", round=2, worker="alice", num_examples=1, loss=1.0, seconds=1.0),
        finished(2, ["alice"]),
    ]
    async with opened(desk) as pilot:
        await press(pilot, "down", "enter")
        shown = text_of(pilot)
    assert "alice       2/2       ■ ■" in shown
    assert "bob         0/1       ✗ ·" in shown
    assert "[/oops][2J… 0/1       ○ ·" in shown
    assert "\x1b" not in shown


async def test_many_rounds_scroll(desk: PreparedDesk) -> None:
    desk.journals["20261123-0004"] = [
        text
        for number in range(1, 201)
        for text in (
            line("round.started", round=number, attempt=1, cohort=["alice"]),
            finished(number, ["alice"] if number % 2 else []),
        )
    ]
    async with opened(desk, (80, 24)) as pilot:
        await press(pilot, "down", "enter", "tab")
        assert "alice       100/200   ■ ○ ■ ○" in text_of(pilot)
        await press(pilot, "right")
        assert lines_of(pilot)[3].split()[2:4] == ["10", "15"]
        await press(pilot, "end")
        assert "200" in lines_of(pilot)[3]
        assert lines_of(pilot)[4].endswith("■ ○")


async def test_a_run_without_rounds_has_an_empty_page(desk: PreparedDesk) -> None:
    desk.summaries["20261123-0004"] = a_run(4, "failed", rounds=0, loss=None, accuracy=None)
    desk.round_tables["20261123-0004"] = []
    desk.journals["20261123-0004"] = []
    async with opened(desk) as pilot:
        await press(pilot, "down", "enter")
        shown = text_of(pilot)
    for text in (
        *("loss -", "acc -", "no losses yet", "no round was started", "no round was finished"),
        *("no evaluation by class", "no lines yet"),
    ):
        assert text in shown


async def test_leaving_a_page_ends_the_reading_of_its_journal(desk: PreparedDesk) -> None:
    reading = Reading(desk, "20261123-0004")
    reading.is_wanted = False
    reading.read()
    assert reading.num_lines == 0
    async with opened(desk) as pilot:
        await press(pilot, "down", "enter")
        page = pilot.app.screen
        assert isinstance(page, RunPage)
        await press(pilot, "escape")
        assert not page.reading.is_wanted
