from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from textual.message import Message
from textual.pilot import Pilot
from textual.widgets import Button

from fedconsole import report
from fedconsole.coordinator.plan import Plan
from fedconsole.errors import RefusedError, StorageError
from fedconsole.headless import json_line
from fedconsole.history import RoundSummary, RunState, RunSummary
from fedconsole.tui import lang
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.desk import Line
from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.messages import CloneRun, Replay
from fedconsole.tui.opening import Opening
from fedconsole.tui.screens.compare import CompareScreen
from fedconsole.tui.screens.history import HistoryScreen
from fedconsole.tui.screens.run_actions import FORMS
from fedconsole.tui.screens.run_page import PANES, Reading, RunPage
from tests.support.desk import NOW, PreparedDesk

JOURNAL: list[Line] = [
    json.loads(text)
    for text in (Path(__file__).parents[2] / "screenshots" / "run.jsonl").read_text().splitlines()
]
PLAN = {"task": "digits", "workers": ["127.0.0.1:1", "127.0.0.1:2"], "virtual": 0, "lr": 0.5}
SIZES = [(80, 24), (120, 40)]
HOSTILE = "[/oops]\x1b[2J\x1b]52;c;eA==\x07[red]x"


def a_run(number: int, state: str = "completed", **changes: Any) -> RunSummary:
    summary = RunSummary(
        run=f"20261123-{number:04x}",
        state=RunState(state),
        task="digits",
        started=NOW - timedelta(hours=10 - number),
        seconds=61.0,
        rounds=2,
        loss=0.1 * number,
        accuracy=0.9,
        macro_f1=0.8,
        model_id="aa",
        model_path="/models/m",
        reason="all rounds complete: 2",
        plan=PLAN,
    )
    return replace(summary, **changes)


ROUNDS = [
    RoundSummary(1, 2.0, ("alice", "bob"), 0.5, 0.6, 0.8, 10, 20, "aa", None),
    RoundSummary(2, 3.0, ("alice",), 0.3, 0.4, 0.9, 10, 20, "bb", None),
]


@pytest.fixture
def desk(tmp_path: Path) -> PreparedDesk:
    desk = PreparedDesk(folder=tmp_path / "exports")
    for summary in (
        a_run(1),
        a_run(2, "aborted"),
        a_run(3, "failed", task="ecg"),
        a_run(4, "crashed", seconds=None),
        a_run(5, "running", seconds=None, started=NOW - timedelta(seconds=90)),
    ):
        desk.summaries[summary.run] = summary
        desk.round_tables[summary.run] = ROUNDS
        desk.journals[summary.run] = JOURNAL
    desk.running.add("20261123-0005")
    return desk


def line(kind: str, **fields: Any) -> Line:
    return {"time": NOW.isoformat(), "type": kind, "run": "20261123-0004", **fields}


def finished(number: int, updates: Sequence[str]) -> Line:
    return line("round.finished", round=number, updates=updates, loss=1.0, seconds=1.0)


def with_classes(journal: Sequence[Line]) -> list[Line]:
    confusion = {"N": [3, 1], "V": [0, 4]}
    return [
        {**one, "confusion": confusion} if one["type"] == "eval" else one for one in journal
    ]


class Listener(FedconsoleApp):
    """Keeps what it is asked to hand to other modes."""

    CSS_PATH = Path(inspect.getfile(FedconsoleApp)).with_name("console.tcss")

    def __init__(self, desk: PreparedDesk, opening: Opening) -> None:
        super().__init__(desk, opening)
        self.heard: list[Message] = []

    async def on_replay(self, message: Replay) -> None:
        self._keep(message)

    async def on_clone_run(self, message: CloneRun) -> None:
        self._keep(message)

    def _keep(self, message: Message) -> None:
        message.prevent_default()
        self.heard.append(message)


@asynccontextmanager
async def opened(
    desk: PreparedDesk, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[Pilot[None]]:
    """The console on its History screen, with all runs read."""
    app = Listener(desk, Opening("history"))
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield pilot


async def settle(pilot: Pilot[None], *groups: str) -> None:
    """Until what was started has ended and is drawn."""
    await pilot.pause()
    waited = {"read", *groups}
    await pilot.app.workers.wait_for_complete(
        [worker for worker in pilot.app.workers if worker.group in waited]
    )
    await pilot.pause()
    if isinstance(pilot.app.screen, ConsoleScreen):
        pilot.app.screen.flush()
    await pilot.pause()


async def press(pilot: Pilot[None], *keys: str, ends: str = "") -> None:
    """Press keys and let all follow; `ends`: the group of workers that must end, too."""
    for one in keys:
        await pilot.press(one)
    await settle(pilot, *([ends] if ends else []))


def lines_of(pilot: Pilot[None]) -> list[str]:
    strips = pilot.app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def text_of(pilot: Pilot[None]) -> str:
    return "\n".join(lines_of(pilot))


def told(pilot: Pilot[None]) -> list[str]:
    """What was toasted, the last one last."""
    return [notification.message for notification in pilot.app._notifications]


def heard(pilot: Pilot[None]) -> list[Message]:
    assert isinstance(pilot.app, Listener)
    return pilot.app.heard


def focused_label(pilot: Pilot[None]) -> str:
    assert isinstance(pilot.app.focused, Button)
    return str(pilot.app.focused.label)


# The table


async def test_all_runs_are_listed_the_newest_first(desk: PreparedDesk) -> None:
    async with opened(desk) as pilot:
        rows = [line.split() for line in lines_of(pilot)[2:7]]
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
    assert rows[4].split() == ["20261123-0001", "digits", "✓", "completed", "0.1000", "90.0%"]


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
        order = [line.split()[0][-1] for line in lines_of(pilot)[2:7]]
    assert order == ["1", "2", "3", "4", "5"]


class ChangingDesk(PreparedDesk):
    """Counts what is read; `broken` runs cannot be."""

    def __post_init__(self) -> None:
        self.read: list[str] = []
        self.broken: set[str] = set()

    def summarize(self, run: str) -> RunSummary | None:
        self.read.append(run)
        if run in self.broken:
            raise StorageError(f"cannot read the journal of {HOSTILE}")
        return super().summarize(run)


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
        row = lines_of(pilot)[2].split()
        assert (row[3], row[6:8], row[-1]) == ("completed", ["01:01", "3"], "█▅▁")
        desk.time_s += 10
        await settle(pilot)
        assert desk.read == ["20261123-0003"]


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
    async with opened(desk, (160, 40)) as pilot:
        shown = text_of(pilot)
        await press(pilot, "down", "enter")
        assert isinstance(pilot.app.screen, RunPage)
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
        await press(pilot, "space", "space", "space", "space")
        assert told(pilot) == ["at most 4 runs can be compared"]
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
    assert text == {
        "svg": lambda: report.svg(record),
        "json": lambda: "".join(f"{json_line(line)}\n" for line in JOURNAL),
        "csv": lambda: report.csv_text(ROUNDS),
        "markdown": lambda: report.markdown(record),
    }[form]()


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
        assert offers["Export: Rounds (CSV)"].help == (
            "fedconsole runs export 20261123-0005 --csv"
        )
        callback = offers["Export: Rounds (CSV)"].callback
        assert callable(callback)
        callback()
        await settle(pilot, "export")
    assert (desk.folder / "20261123-0005.csv").read_text() == report.csv_text(ROUNDS)


# One run


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
    assert "A charlie" in seen["curves"]
    assert "T test" in seen["curves"]
    assert "alice       10/10     ■ ■ ■ ■ ■ ■ ■ ■ ■ ■" in seen["attendance"]
    assert "    2      3   0.3000  0.4000  90.0%" in seen["rounds"]
    assert "0.75" in seen["classes"]
    assert "lr                         0.5" in seen["plan"]
    assert "batch_size" not in seen["plan"]
    assert "model  /models/m" in seen["plan"]
    assert "Round 10: 3 updates" in seen["log"]
    is_one_at_a_time = size[0] < 100
    assert ("Round 10: 3 updates" not in seen["rounds"]) == is_one_at_a_time


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
        await pilot.resize_terminal(160, 50)
        await settle(pilot)
        for part in ("─Losses", "─Workers", "─Rounds", "─Classes", "─Plan", "─Log"):
            assert part in text_of(pilot)
        await pilot.resize_terminal(80, 24)
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
        assert isinstance(pilot.app.screen, RunPage)
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


# Several


@pytest.mark.parametrize("size", SIZES)
async def test_compared_runs_show_outcomes_and_only_what_differs(
    desk: PreparedDesk, size: tuple[int, int]
) -> None:
    desk.summaries["20261123-0002"] = a_run(2, "aborted", plan=PLAN | {"lr": 0.25})
    async with opened(desk, size) as pilot:
        await press(pilot, "end", "space", "up", "up", "space", "c")
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


# What all share


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
        *("state", "started", "rounds", "loss", "completed", "Replay", "Export", "option"),
        *("Losses", "Workers", "delivered", "updates", "what is not", "reading", "Next pane"),
    ):
        assert english not in shown
    for korean in ("상태", "완료", "다시 보기", "손실", "라운드", "기본값과 다른 것"):
        assert korean in shown
