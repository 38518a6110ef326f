from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from inspect import isawaitable
from pathlib import Path

import pytest

from fedconsole import report
from fedconsole.coordinator.plan import Plan
from fedconsole.errors import RefusedError, StorageError
from fedconsole.headless import json_line
from fedconsole.history import RunSummary
from fedconsole.tui import lang
from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.messages import CloneRun, Replay
from fedconsole.tui.screens.compare import CompareScreen
from fedconsole.tui.screens.history import HistoryScreen
from fedconsole.tui.screens.live import LiveScreen
from fedconsole.tui.screens.run_actions import FORMS
from fedconsole.tui.screens.run_page import RunPage
from tests.support.desk import NOW, PreparedDesk
from tests.support.histories import (
    HOSTILE,
    JOURNAL,
    PLAN,
    ROUNDS,
    a_run,
    desk_with_runs,
    focused_label,
    heard,
    lines_of,
    opened,
    press,
    settle,
    text_of,
    told,
)


@pytest.fixture
def desk(tmp_path: Path) -> PreparedDesk:
    return desk_with_runs(tmp_path / "exports")


# The table


async def test_all_runs_are_listed_the_newest_first(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        rows = [line.split()[1:] for line in lines_of(pilot)[2:7]]
    local = (NOW - timedelta(seconds=90)).astimezone()
    assert rows[0] == [
        *("20261123-0005", "digits", "▶", "running", f"{local:%m-%d}", f"{local:%H:%M}", "01:30"),
        *("2", "2", "0.5000", "90.0%", "80.0%", "█▁"),
    ]
    assert [(row[0], row[1], row[2], row[3]) for row in rows[1:]] == [
        ("20261123-0004", "digits", "☓", "crashed"),
        ("20261123-0003", "ecg", "✗", "failed"),
        ("20261123-0002", "digits", "◼", "aborted"),
        ("20261123-0001", "digits", "✓", "completed"),
    ]


async def test_a_narrow_terminal_keeps_id_state_loss_and_accuracy(desk: PreparedDesk) -> None:
    async with opened(desk, (60, 15)) as pilot:
        header, *rows = lines_of(pilot)[1:7]
    assert header.split() == ["run", "task", "state", "loss", "acc"]
    assert rows[4].split()[1:] == ["20261123-0001", "digits", "✓", "completed", "0.1000", "90.0%"]


async def test_without_runs_it_says_how_to_start_one() -> None:
    async with opened(PreparedDesk()) as pilot:
        assert "Start one: press 2, or type fedconsole run" in text_of(pilot)
        for key in ("enter", "r", "l", "e", "delete", "c", "space"):
            await press(pilot, key)
        assert isinstance(pilot.app.screen, HistoryScreen)


async def test_a_filter_leaves_what_matches_and_escape_brings_all_back(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "slash", *"state:failed")
        assert "1/5" in text_of(pilot)
        await press(pilot, "enter")
        assert "20261123-0003" in text_of(pilot)
        assert "20261123-0001" not in text_of(pilot)
        await press(pilot, "escape")
        assert "20261123-0001" in text_of(pilot)
        assert isinstance(pilot.app.screen, HistoryScreen)


async def test_runs_are_sorted_by_the_column_that_is_clicked(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        column = lines_of(pilot)[1].index("loss")
        await pilot.click(offset=(column, 1))
        await settle(pilot)
        order = [line.split()[1][-1] for line in lines_of(pilot)[2:7]]
    assert order == ["1", "2", "3", "4", "5"]


@dataclass
class ChangingDesk(PreparedDesk):
    """Counts what is read; `broken` runs cannot be."""

    read: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    """Without a journal."""

    def summarize(self, run: str) -> RunSummary | None:
        self.read.append(run)
        if run in self.broken:
            raise StorageError(f"cannot read the journal of {HOSTILE}")
        return None if run in self.bare else super().summarize(run)


async def test_a_folder_without_a_journal_is_named_and_read_until_it_has_one() -> None:
    desk = ChangingDesk(summaries={"20261123-0001": a_run(1)}, bare={"20261123-0001"})
    async with opened(desk) as pilot:
        assert "no journal" in lines_of(pilot)[2]
        desk.bare.clear()
        desk.time_s += 2.1
        await settle(pilot)
        await settle(pilot)
        assert "completed" in lines_of(pilot)[2]


async def test_only_running_runs_are_read_again() -> None:
    desk = ChangingDesk()
    for summary in (a_run(1), a_run(2, "crashed"), a_run(3, "running", seconds=None)):
        desk.summaries[summary.run] = summary
    async with opened(desk) as pilot:
        assert desk.read == ["20261123-0003", "20261123-0002", "20261123-0001"]
        desk.read.clear()
        desk.time_s += 1.9
        await settle(pilot)
        assert desk.read == []
        desk.time_s += 0.2
        done = a_run(3, "completed", rounds=3, loss=0.25)
        desk.summaries[done.run] = done
        desk.round_tables[done.run] = [*ROUNDS, replace(ROUNDS[0], round=3, loss=0.1)]
        await settle(pilot)
        assert desk.read == ["20261123-0003"]
        await settle(pilot)
        row = lines_of(pilot)[2].split()[1:]
        assert (row[3], row[6:8], row[-1]) == ("completed", ["01:01", "3"], "█▅▁")
        desk.time_s += 10
        await settle(pilot)
        assert desk.read == ["20261123-0003"]


async def test_a_run_that_stands_still_says_so_and_goes_on_being_read() -> None:
    desk = ChangingDesk()
    desk.summaries["20261123-0001"] = a_run(1, "stalled", seconds=None)
    async with opened(desk) as pilot:
        assert "▲ stalled" in text_of(pilot)
        desk.summaries["20261123-0001"] = a_run(1, "running", seconds=None)
        desk.time_s += 3
        await settle(pilot)
        await settle(pilot)
        assert "▶ running" in text_of(pilot)


async def test_a_run_whose_engine_was_just_starting_is_read_again() -> None:
    desk = ChangingDesk()
    desk.summaries["20261123-0001"] = a_run(1, "crashed", started=NOW - timedelta(seconds=5))
    async with opened(desk) as pilot:
        desk.summaries["20261123-0001"] = a_run(1, "running", started=NOW - timedelta(seconds=7))
        desk.time_s += 3
        await settle(pilot)
        await settle(pilot)
        assert "▶ running" in text_of(pilot)


async def test_a_run_that_cannot_be_read_says_why_and_is_drawn_harmlessly() -> None:
    desk = ChangingDesk()
    desk.broken.add("20261123-0001")
    desk.summaries["20261123-0001"] = a_run(1)
    desk.summaries["20261123-0002"] = a_run(2, task=HOSTILE)
    async with opened(desk, (200, 40)) as pilot:
        shown = text_of(pilot)
        await press(pilot, "down", "enter")
        assert isinstance(pilot.app.screen, RunPage)
        assert "✗ cannot read the journal of [/oops][2J]52;c;eA==[red]x" in text_of(pilot)
        assert "if the disk is well, remove it: fedconsole runs rm" in text_of(pilot)
    assert "✗ unreadable" in shown
    assert "cannot read the journal of [/oops][2J" in shown
    assert "[/oops][2J]52;c;eA==[red]x" in shown
    assert "\x1b" not in shown


async def test_runs_that_are_many_are_read_a_few_at_a_time() -> None:
    desk = ChangingDesk()
    for number in range(500):
        desk.summaries[f"r{number:04}"] = a_run(1, run=f"r{number:04}")
    async with opened(desk) as pilot:
        for _ in range(200):
            if len(desk.read) == 500:
                break
            await settle(pilot)
        assert sorted(desk.read) == [f"r{number:04}" for number in range(500)]


# What can be done with a run


async def test_marks_choose_up_to_four_runs_to_compare(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "space", "c")
        assert isinstance(pilot.app.screen, HistoryScreen)
        why = "Compare: not possible now: mark two runs or more with Space"
        assert told(pilot) == [why]
        await press(pilot, "space", "space", "space", "space")
        assert told(pilot) == [why, "at most 4 runs can be compared"]
        await press(pilot, "c")
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        assert screen.copy_text() == (
            "fedconsole runs compare 20261123-0005 20261123-0004 20261123-0003 20261123-0002"
        )
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, HistoryScreen)


async def test_a_run_is_cloned_and_replayed(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "down", "l", "r")
        assert heard(pilot) == [
            CloneRun(Plan(workers=("127.0.0.1:1", "127.0.0.1:2"), lr=0.5)),
            Replay("20261123-0004", 10.0),
        ]


async def test_the_keys_work_under_a_korean_input_method(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "ㄱ")
        assert heard(pilot) == [Replay("20261123-0005", 10.0)]


async def test_a_plan_that_this_version_does_not_take_is_refused_with_its_reason() -> None:
    desk = PreparedDesk(summaries={"20261123-0001": a_run(1, plan=PLAN | {"lr": -1})})
    async with opened(desk) as pilot:
        await press(pilot, "l")
        assert heard(pilot) == []
        (text,) = told(pilot)
        assert text.startswith("this plan cannot be used again: lr is -1")


async def test_enter_opens_a_run(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "down", "enter")
        screen = pilot.app.screen
        assert isinstance(screen, RunPage)
        assert screen.run_id == "20261123-0004"


async def test_deleting_asks_and_does_nothing_unless_told_to(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "down", "delete")
        assert isinstance(pilot.app.screen, Choice)
        assert focused_label(pilot) == "Cancel"
        await press(pilot, "enter")
        assert desk.removed == []
        await press(pilot, "delete", "left", "enter", ends="remove")
        assert desk.removed == ["20261123-0004"]
        assert told(pilot) == ["fedconsole runs rm 20261123-0004 --yes"]
        assert "20261123-0004" not in "\n".join(lines_of(pilot)[:10])


async def test_a_running_run_is_not_deleted(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "delete", ends="remove")
        assert isinstance(pilot.app.screen, HistoryScreen)
        assert told(pilot) == ["run 20261123-0005 is running; abort it first"]


async def test_a_refused_deletion_says_why(desk: PreparedDesk) -> None:
    desk.refusal = RefusedError("its engine is running")
    async with opened(desk) as pilot:
        await press(pilot, "down", "delete", "left", "enter", ends="remove")
        assert told(pilot) == ["its engine is running"]
        assert "20261123-0004" in text_of(pilot)


@pytest.mark.parametrize(("form", "steps"), [("svg", 1), ("json", 2), ("csv", 3), ("markdown", 4)])
async def test_a_run_is_exported_in_each_form(desk: PreparedDesk, form: str, steps: int) -> None:
    async with opened(desk) as pilot:
        await press(pilot, "down", "e")
        assert focused_label(pilot) == "Cancel"
        await press(pilot, *["left"] * steps, "enter", ends="export")
        path = desk.folder / f"20261123-0004.{FORMS[form]}"
        assert told(pilot) == [
            f"written: {path}",
            f"fedconsole runs export 20261123-0004 --{form} > {path}",
        ]
    text = path.read_text()
    record = report.make_record(desk.summaries["20261123-0004"], ROUNDS, JOURNAL)
    assert (
        text
        == {
            "svg": lambda: report.svg(record),
            "json": lambda: "".join(f"{json_line(line)}\n" for line in JOURNAL),
            "csv": lambda: report.csv_text(ROUNDS),
            "markdown": lambda: report.markdown(record),
        }[form]()
    )


async def test_an_export_without_room_says_so(desk: PreparedDesk) -> None:
    desk.folder.write_text("a file where the folder should be")
    async with opened(desk) as pilot:
        await press(pilot, "e", "left", "enter", ends="export")
        (text,) = told(pilot)
        assert text.startswith(f"cannot write to {desk.folder}: ")


async def test_exports_are_in_the_palette(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, HistoryScreen)
        offers = {command.title: command for command in screen.commands()}
        path = desk.folder / "20261123-0005.csv"
        command_line = offers["Export: Rounds (CSV)"].help
        assert command_line == f"fedconsole runs export 20261123-0005 --csv > {path}"
        callback = offers["Export: Rounds (CSV)"].callback
        assert callable(callback)
        exporting = callback()
        assert isawaitable(exporting)
        await exporting
    assert (desk.folder / "20261123-0005.csv").read_text() == report.csv_text(ROUNDS)


async def test_a_run_whose_engine_is_gone_is_resumed_and_shown(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        assert "u Resume" not in text_of(pilot)
        await press(pilot, "down")
        assert "u Resume" in text_of(pilot)
        await press(pilot, "u", ends="take_up")
        assert "fedconsole resume 20261123-0004" in told(pilot)
        assert isinstance(pilot.app.screen, LiveScreen)
    assert desk.taken_up == ["20261123-0004"]


@pytest.mark.parametrize("state", ["paused", "pausing"])
async def test_a_paused_run_says_so_in_both_languages(state: str) -> None:
    desk = PreparedDesk()
    desk.summaries["20261123-0001"] = a_run(1, state, seconds=None)
    async with opened(desk) as pilot:
        assert f"‖ {state}" in text_of(pilot)
    lang.use("ko")
    try:
        async with opened(desk) as pilot:
            assert {"paused": "‖ 일시정지", "pausing": "‖ 멈추는 중"}[state] in text_of(pilot)
    finally:
        lang.use("en")


async def test_a_run_that_never_began_has_a_row_with_its_reason() -> None:
    desk = ChangingDesk(folder=Path("/runs"))
    desk.summaries = {"20261123-0009": None}  # type: ignore[dict-item]
    async with opened(desk, (160, 40)) as pilot:
        row = next(line for line in lines_of(pilot) if "20261123-0009" in line)
        assert "☓ no journal" in row
        assert "MemoryError (/runs/" in row
        desk.summaries["20261123-0009"] = a_run(9, "running", seconds=None)
        desk.time_s += 3
        await settle(pilot)
        await settle(pilot)
        assert "▶ running" in text_of(pilot)
