from __future__ import annotations

from pathlib import Path

import pytest

from fedconsole.tui import lang
from fedconsole.tui.screens.compare import CompareScreen
from fedconsole.tui.screens.run_page import PANES, RunPage
from tests.support.desk import PreparedDesk
from tests.support.histories import (
    PLAN,
    SIZES,
    a_run,
    desk_with_runs,
    lines_of,
    opened,
    press,
    text_of,
)


@pytest.fixture
def desk(tmp_path: Path) -> PreparedDesk:
    return desk_with_runs(tmp_path / "exports")


@pytest.mark.parametrize("size", SIZES)
async def test_compared_runs_show_outcomes_and_only_what_differs(
    desk: PreparedDesk, size: tuple[int, int]
) -> None:
    desk.summaries["20261123-0002"] = a_run(2, "aborted", plan=PLAN | {"lr": 0.25})
    async with opened(desk, size) as pilot:
        await press(pilot, "end", "space", "up", "space", "c")
        shown = text_of(pilot)
        assert isinstance(pilot.app.screen, CompareScreen)
        assert "loss of the evaluation after each round" in shown
        assert "A 20261123-0002  B 20261123-0001" in shown
        rows = {line.split()[0]: line.split() for line in lines_of(pilot) if line.strip()}
        assert rows["A"][:5] == ["A", "20261123-0002", "digits", "◼", "aborted"]
        assert rows["B"][:5] == ["B", "20261123-0001", "digits", "✓", "completed"]
        assert rows["lr"] == ["lr", "0.25", "0.5"]
        assert not {"seed", "task", "workers"} & rows.keys()
        await press(pilot, "x")
        assert "accuracy of the evaluation after each round" in text_of(pilot)


@pytest.mark.parametrize("size", SIZES)
async def test_every_worker_of_a_plan_has_a_line_until_there_are_too_many(
    desk: PreparedDesk, size: tuple[int, int]
) -> None:
    many = [f"192.168.0.{number}:10002" for number in range(1, 14)]
    desk.summaries["20261123-0002"] = a_run(2, plan=PLAN | {"workers": many})
    async with opened(desk, size) as pilot:
        await press(pilot, "end", "space", "up", "space", "c", "tab", "tab")
        seen = set()
        for _ in many:
            seen |= set(lines_of(pilot))
            await press(pilot, "down")
    rows = [line.rstrip("▁▂▃▄▅▆▇█ ").split() for line in seen]
    assert ["workers", many[0], "127.0.0.1:1"] in rows
    assert [many[1], "127.0.0.1:2"] in rows
    assert all([address] in rows for address in many[2:10])
    assert ["and", "3", "more"] in rows


async def test_equal_plans_are_said_to_be_equal(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "space", "space", "c")
        assert "the plans are the same" in text_of(pilot)


async def test_enter_opens_a_compared_run_and_escape_comes_back(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "down", "space", "space", "c", "tab", "enter")
        screen = pilot.app.screen
        assert isinstance(screen, RunPage)
        assert screen.run_id == "20261123-0004"
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, CompareScreen)


@pytest.mark.parametrize("size", SIZES)
async def test_every_text_of_these_screens_has_a_korean_twin(
    desk: PreparedDesk, size: tuple[int, int]
) -> None:
    lang.use("ko")
    try:
        async with opened(desk, size) as pilot:
            shown = text_of(pilot)
            await press(pilot, "space", "space", "c")
            shown += text_of(pilot)
            await press(pilot, "escape", "down", "enter")
            for _ in PANES:
                shown += text_of(pilot)
                await press(pilot, "tab")
    finally:
        lang.use("en")
    for english in (
        *("state", "started", "✓ completed", "Replay", "Export", "option", "evaluation"),
        *("Losses", "Workers", "what is not", "reading", "Next pane", "journal"),
    ):
        assert english not in shown
    for korean in ("상태", "완료", "다시 보기", "손실", "라운드", "기본값과 다른 것"):
        assert korean in shown
