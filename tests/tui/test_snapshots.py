"""Pictures of every screen in its states, small and large, in both languages.

After a wanted change: `pytest tests/tui/test_snapshots.py --snapshot-update`, and look at the pictures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from fedconsole.tui import lang
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.desk import Line
from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.opening import Opening
from screenshots.__main__ import desk_with, read, upto
from tests.support.desk import PreparedDesk

PAUSED, DEGRADED = read("paused"), read("degraded")
RUN = PAUSED[0]["run"]
BUSY = upto(PAUSED, "worker.update", round=7)


def empty() -> PreparedDesk:
    return PreparedDesk()


def at(lines: list[Line]) -> Callable[[], PreparedDesk]:
    """A run that goes on, at the moment of the last line."""

    def make() -> PreparedDesk:
        desk = desk_with(BUSY, is_running=False)
        desk.wall = datetime.fromisoformat(lines[-1]["time"])
        run = lines[0]["run"]
        desk.journals[run] = lines
        desk.running.add(run)
        return desk

    return make


def failed() -> list[Line]:
    end = {
        "type": "run.finished",
        "outcome": "failed",
        "rounds": 6,
        "model_id": None,
        "model_path": None,
        "reason": "2 of 3 workers for longer than 600 s",
        "exit_code": 7,
        "seconds": 631.0,
    }
    return [*BUSY, BUSY[-1] | end]


def stale_and_offline() -> PreparedDesk:
    """One device there, one silent, one gone, one that never answered."""
    from fedconsole.fleet.device import Device, Source

    desk = desk_with(BUSY, is_running=False)
    alice, bob, charlie = desk.inventory.records
    desk.time_s += 9
    desk.inventory.pinged(alice, 0.004, desk.time_s)
    desk.inventory.lost(charlie, "the connection was lost")
    desk.inventory.found(Device("dora", "192.168.0.55:10002", Source.LAST_SEEN))
    assert bob in desk.inventory.records
    return desk


def done() -> PreparedDesk:
    return desk_with(PAUSED, is_running=False)


LIVE = Opening("live", RUN)
STATES: dict[str, tuple[Callable[[], PreparedDesk], Opening, tuple[str, ...]]] = {
    "fleet-empty": (empty, Opening("fleet"), ()),
    "fleet-busy": (done, Opening("fleet"), ()),
    "fleet-degraded": (stale_and_offline, Opening("fleet"), ()),
    "new-run-empty": (empty, Opening("new"), ()),
    "new-run-busy": (done, Opening("fleet"), ("asterisk", "n", "tab", "2", "0")),
    "new-run-failed": (done, Opening("fleet"), ("asterisk", "n", "tab", "x")),
    "live-empty": (empty, Opening("live"), ()),
    "live-loading": (at(upto(PAUSED, "worker.joined")), LIVE, ()),
    "live-busy": (at(BUSY), LIVE, ()),
    "live-pausing": (at(upto(PAUSED, "run.pausing")), LIVE, ()),
    "live-paused": (at(upto(PAUSED, "run.paused")), LIVE, ()),
    "live-degraded": (
        at(upto(DEGRADED, "round.started", round=6)),
        Opening("live", DEGRADED[0]["run"]),
        (),
    ),
    "live-failed": (at(failed()), LIVE, ()),
    "live-abort": (at(BUSY), LIVE, ("a",)),
    "history-empty": (empty, Opening("history"), ()),
    "history-busy": (done, Opening("history"), ()),
    "run-page": (done, Opening("history", RUN), ()),
    "compare": (done, Opening("history"), ("asterisk", "c")),
}
TICKS = 6
"""A plot is drawn every third time only."""
SIZES = {"80x24": (80, 24), "120x40": (120, 40)}


@pytest.fixture(autouse=True)
def one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(params=["en", "ko"])
def language(request: pytest.FixtureRequest) -> Iterator[str]:
    lang.use(request.param)
    yield request.param
    lang.use("en")


async def settle(pilot: Pilot[None]) -> None:
    """Let the screen read and draw all that there is."""
    for _ in range(TICKS):
        await pilot.pause()
        await asyncio.gather(*(w.wait() for w in pilot.app.workers if w.group == "read"))
        if isinstance(pilot.app.screen, ConsoleScreen):
            pilot.app.screen.flush()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", STATES)
def test_the_picture_is_as_it_was(state: str, size: str, language: str, snap_compare: Any) -> None:
    make, opening, keys = STATES[state]

    async def drive(pilot: Pilot[None]) -> None:
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)
        for field in pilot.app.screen.query(Input):
            field.cursor_blink = False
        await settle(pilot)

    app = FedconsoleApp(make(), opening, has_bell=False)
    app.notify = lambda *args, **kwargs: None  # type: ignore[method-assign]
    assert snap_compare(app, terminal_size=SIZES[size], run_before=drive)
