from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from fedconsole.coordinator.plan import Plan
from fedconsole.errors import RefusedError, StorageError
from fedconsole.history import RoundSummary, RunState, RunSummary
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.desk import Line
from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.opening import Opening
from fedconsole.tui.screens.compare import CompareScreen
from fedconsole.tui.screens.history import HistoryScreen
from fedconsole.tui.screens.run_actions import FORMS
from fedconsole.tui.screens.run_page import RunPage
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


@asynccontextmanager
async def opened(
    desk: PreparedDesk, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[Pilot[None]]:
    """The console on its History screen, with all runs read."""
    app = FedconsoleApp(desk, Opening("history"))
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


async def test_a_run_is_cloned_into_the_form(
    desk: PreparedDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloned: list[Plan] = []
    async with opened(desk) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, HistoryScreen)
        monkeypatch.setattr(
            screen, "post_message", lambda message: cloned.append(message.plan) or True
        )
        screen.action_clone()
    assert cloned == [Plan(workers=("127.0.0.1:1", "127.0.0.1:2"), lr=0.5)]
