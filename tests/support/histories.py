"""Stored runs on a desk, and a console that shows them."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from textual.message import Message
from textual.pilot import Pilot
from textual.widgets import Button

from fedconsole.history import RoundSummary, RunState, RunSummary
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.desk import Line
from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.messages import CloneRun, Replay
from fedconsole.tui.opening import Opening
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


def desk_with_runs(folder: Path) -> PreparedDesk:
    """Five runs, one in each state; `folder` takes the exports."""
    desk = PreparedDesk(folder=folder)
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
    return [{**one, "confusion": confusion} if one["type"] == "eval" else one for one in journal]


class Listener(FedconsoleApp):
    """Keeps what it is asked to hand to other modes."""

    CSS_PATH = str(Path(inspect.getfile(FedconsoleApp)).with_name("console.tcss"))

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
    for _ in range(2):
        await pilot.pause()
        if isinstance(pilot.app.screen, ConsoleScreen):
            pilot.app.screen.flush()
        waited = {"read", *groups}
        for worker in [worker for worker in pilot.app.workers if worker.group in waited]:
            await worker.wait()
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
