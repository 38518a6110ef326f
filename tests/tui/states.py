"""Every screen in every state that it can be in: what snapshots are taken of, and greys compared.

`MATRIX` says which state of `States` is shown by which pictures; where a screen cannot be in a
state, it says why.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Final, NamedTuple

from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from fedconsole.coordinator.plan import Plan
from fedconsole.errors import EngineCrashedError, IdentityChangedError, NotPairedError, StorageError
from fedconsole.fleet.device import Device, Source
from fedconsole.fleet.inventory import Hindrance
from fedconsole.history import RunState, RunSummary
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.desk import Line
from fedconsole.tui.frame import ConsoleScreen, TopBar
from fedconsole.tui.opening import Opening
from screenshots.__main__ import desk_with, fleet, upto
from tests.support.desk import PreparedDesk
from tests.tui.driving import BUSY, DEGRADED, PAUSED, RUN

STATES: Final = ("empty", "loading", "busy", "degraded", "failed")
_DISK_FAULT: Final = "cannot read the journal run.db: disk I/O error"
_MORE_THAN_THE_PLOT_WAITS_FOR: Final = 4
"""It is drawn every third time only."""


# Desks


@dataclass
class FaultyDesk(PreparedDesk):
    """One whose files answer late, badly, or in part."""

    is_silent: bool = False
    """What is read of runs never comes."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Run -> why its journal cannot be read; "" is the folder of all runs."""
    breaks_after: int | None = None
    """Lines of a journal, before the disk fails."""
    is_over: threading.Event = field(default_factory=threading.Event)
    """Lets go of what waits."""

    def _wait(self) -> None:
        if self.is_silent:
            self.is_over.wait()

    def _read(self, run: str) -> None:
        self._wait()
        if run in self.unreadable:
            raise StorageError(self.unreadable[run])

    def run_ids(self) -> list[str]:
        self._read("")
        return super().run_ids()

    def summarize(self, run: str) -> RunSummary | None:
        self._read(run)
        return super().summarize(run)

    def lines(self, run: str) -> Iterator[Line]:
        for number, line in enumerate(super().lines(run)):
            if number == self.breaks_after:
                raise StorageError(_DISK_FAULT)
            yield line

    async def follow(self, run: str) -> AsyncIterator[Line]:
        if run in self.unreadable:
            raise EngineCrashedError(self.unreadable[run])
        async for line in super().follow(run):
            yield line

    async def preflight(self, plan: Plan) -> AsyncIterator[Line]:
        if self.is_silent:
            await asyncio.Event().wait()
        async for line in super().preflight(plan):
            yield line


def _stored(shown: list[Line] = PAUSED) -> FaultyDesk:
    """Three stored runs and three devices."""
    desk = _prepared(len(shown))
    return FaultyDesk(
        wall=desk.wall,
        inventory=fleet(desk.time_s),
        summaries=dict(desk.summaries),
        round_tables=dict(desk.round_tables),
        journals=dict(desk.journals),
    )


@cache
def _prepared(num_lines: int) -> PreparedDesk:
    """With so many lines of the run; kept, as all of them are read to know how the runs stand."""
    return desk_with(PAUSED[:num_lines], is_running=False)


def empty() -> FaultyDesk:
    desk = FaultyDesk()
    desk.inventory.is_searched = True
    return desk


def looking() -> FaultyDesk:
    return FaultyDesk()


def no_search() -> FaultyDesk:
    desk = looking()
    desk.inventory.hindered(Hindrance.STOPPED, "too many open files")
    return desk


def no_multicast() -> FaultyDesk:
    desk = _stored()
    desk.inventory.hindered(Hindrance.NO_MULTICAST, "no such device")
    return desk


def done() -> FaultyDesk:
    desk = _stored()
    desk.inventory.is_searched = True
    return desk


def silent() -> FaultyDesk:
    desk = done()
    desk.is_silent = True
    return desk


def at(lines: list[Line]) -> Callable[[], FaultyDesk]:
    """A run that goes on, at the moment of the last line."""

    def make() -> FaultyDesk:
        desk = _stored(BUSY)
        desk.wall = datetime.fromisoformat(lines[-1]["time"])
        run = lines[0]["run"]
        desk.journals[run] = lines
        desk.running.add(run)
        return desk

    return make


def unanswered() -> FaultyDesk:
    """The engine is there; it has not told anything yet."""
    desk = at(BUSY)()
    desk.journals[RUN] = []
    return desk


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
    return [*BUSY, {**BUSY[-1], **end}]


def stale_and_offline() -> FaultyDesk:
    """One device there, one silent, one gone, one that never answered."""
    desk = _stored(BUSY)
    alice, bob, charlie = desk.inventory.records
    desk.time_s += 9
    desk.inventory.pinged(alice, 0.004, desk.time_s)
    desk.inventory.lost(charlie, "the connection was lost")
    desk.inventory.found(Device("dora", "192.168.0.55:10002", Source.CONFIG))
    assert bob in desk.inventory.records
    return desk


def changed_and_unpaired() -> FaultyDesk:
    """Another key answers in the place of a paired device, and a device is found that is not paired."""
    desk = _stored(BUSY)
    known, found = "LOEWQ3Q" * 7 + "LOE", "MALLORY" * 7 + "MAL"
    place = "192.168.0.56:10002"
    for device, error in (
        (
            Device("kitchen", place, Source.KNOWN, known, is_paired=True),
            IdentityChangedError(place, "kitchen", known, found),
        ),
        (Device("dora", "192.168.0.55:10002", Source.MDNS), NotPairedError("it is not paired")),
    ):
        record = desk.inventory.found(device)
        assert record is not None
        desk.inventory.lost(record.key, str(error), error)
    desk.own_id = "DESK234" * 7 + "DES"
    return desk


def refused() -> FaultyDesk:
    """A check of which one worker of three is not up to."""
    desk = done()
    reason = "its torch 1.13 has no operator aten::rms_norm; install torch 2.4 or later"
    ends = {None: ("alice", "charlie"), reason: ("bob",)}
    names = {record.name: key for key, record in desk.inventory.records.items()}
    checked: list[Line] = [
        {
            "type": "preflight",
            "worker": name,
            "address": names[name],
            "ok": why is None,
            "reason": why,
            "batch_seconds": 0.02,
            "memory_bytes": 3 * 2**20,
            "num_examples": 479,
        }
        for why, workers in ends.items()
        for name in workers
    ]
    desk.preflight_lines = [
        *checked,
        {
            "type": "run.finished",
            "run": RUN,
            "outcome": "failed",
            "reason": f"bob cannot take part: {reason}",
            "exit_code": 3,
        },
    ]
    return desk


def unreadable(*runs: str, why: str = _DISK_FAULT) -> Callable[[], FaultyDesk]:
    def make() -> FaultyDesk:
        desk = done()
        desk.unreadable = dict.fromkeys(runs, why)
        return desk

    return make


def broken_off() -> FaultyDesk:
    desk = done()
    desk.breaks_after = 200
    return desk


def just_begun() -> FaultyDesk:
    """The newest run has lost its engine before a round was finished."""
    desk = done()
    desk.journals[RUN] = BUSY[:1]
    desk.round_tables[RUN] = []
    crashed: dict[str, object] = {
        "state": RunState.CRASHED,
        "seconds": None,
        "rounds": 0,
        "loss": None,
        "accuracy": None,
    }
    ending = {"macro_f1": None, "model_id": None, "model_path": None, "reason": ""}
    desk.summaries[RUN] = _changed(desk.summaries[RUN], crashed | ending)
    return desk


def untested() -> FaultyDesk:
    """Runs without any evaluation."""
    desk = done()
    desk.round_tables = {run: [] for run in desk.summaries}
    return desk


def _changed(summary: RunSummary, changes: Mapping[str, object]) -> RunSummary:
    return replace(summary, **changes)  # type: ignore[arg-type]


_ALL: Final = tuple(done().summaries)
_OTHER: Final = next(run for run in _ALL if run != RUN)


# What is shown


class Scene(NamedTuple):
    """A console in a state: its desk, where it opens, and what is typed then."""

    make: Callable[[], FaultyDesk]
    opening: Opening
    keys: tuple[str, ...] = ()


class Never(str):
    """Why a screen cannot be in a state."""

    __slots__ = ()


FLEET, NEW, HISTORY = Opening("fleet"), Opening("new"), Opening("history")
LIVE, PAGE = Opening("live", RUN), Opening("history", RUN)
_FORM: Final = ("asterisk", "n", "tab")
_COMPARE: Final = ("asterisk", "c")

MATRIX: Final[dict[str, dict[str, dict[str, Scene] | Never]]] = {
    "fleet": {
        "empty": {"": Scene(empty, FLEET)},
        "loading": {"": Scene(looking, FLEET)},
        "busy": {"": Scene(done, FLEET)},
        "degraded": {
            "": Scene(stale_and_offline, FLEET),
            "no-multicast": Scene(no_multicast, FLEET),
        },
        "failed": {
            "": Scene(no_search, FLEET),
            "changed": Scene(changed_and_unpaired, FLEET, ("end", "d")),
            "pairing": Scene(done, FLEET, ("p",)),
        },
    },
    "new-run": {
        "empty": {"": Scene(empty, NEW)},
        "loading": {
            "": Scene(looking, NEW),
            "checking": Scene(silent, FLEET, ("asterisk", "n", "f5")),
        },
        "busy": {"": Scene(done, FLEET, (*_FORM, "2", "0"))},
        # Chosen workers that are not there now.
        "degraded": {"": Scene(stale_and_offline, FLEET, ("asterisk", "n"))},
        "failed": {
            "": Scene(done, FLEET, (*_FORM, "x")),
            "check": Scene(refused, FLEET, ("asterisk", "n", "f5")),
        },
    },
    "live": {
        "empty": {"": Scene(empty, Opening("live"))},
        "loading": {
            "": Scene(at(upto(PAUSED, "worker.joined")), LIVE),
            "unanswered": Scene(unanswered, LIVE),
        },
        "busy": {
            "": Scene(at(BUSY), LIVE),
            "pausing": Scene(at(upto(PAUSED, "run.pausing")), LIVE),
            "paused": Scene(at(upto(PAUSED, "run.paused")), LIVE),
            "abort": Scene(at(BUSY), LIVE, ("a",)),
        },
        "degraded": {
            "": Scene(
                at(upto(DEGRADED, "round.started", round=6)), Opening("live", DEGRADED[0]["run"])
            ),
        },
        "failed": {"": Scene(at(failed()), LIVE)},
    },
    "history": {
        "empty": {"": Scene(empty, HISTORY)},
        "loading": {"": Scene(silent, HISTORY)},
        "busy": {"": Scene(done, HISTORY)},
        "degraded": {"": Scene(unreadable(_OTHER), HISTORY)},
        "failed": {
            "": Scene(unreadable("", why="cannot read the folder of runs: no permission"), HISTORY)
        },
    },
    "run-page": {
        "empty": {"": Scene(just_begun, PAGE)},
        "loading": {"": Scene(silent, PAGE)},
        "busy": {"": Scene(done, PAGE)},
        "degraded": {"": Scene(broken_off, PAGE)},
        "failed": {"": Scene(unreadable(RUN), PAGE)},
    },
    "compare": {
        "empty": {"": Scene(untested, HISTORY, _COMPARE)},
        "loading": {"": Scene(done, HISTORY, ("asterisk", "silence", "c"))},
        "busy": {"": Scene(done, HISTORY, _COMPARE)},
        "degraded": {"": Scene(unreadable(_OTHER), HISTORY, _COMPARE)},
        "failed": {"": Scene(unreadable(*_ALL), HISTORY, _COMPARE)},
    },
}
SCENES: Final = {
    "-".join(filter(None, (screen, state, variant))): scene
    for screen, states in MATRIX.items()
    for state, scenes in states.items()
    if not isinstance(scenes, Never)
    for variant, scene in scenes.items()
}


@asynccontextmanager
async def scene(of: Scene, size: tuple[int, int]) -> AsyncIterator[Pilot[None]]:
    """The console in this state, all that there is read and drawn."""
    desk = of.make()
    app = FedconsoleApp(desk, of.opening, has_bell=False)
    app.notify = lambda *args, **kwargs: None  # type: ignore[method-assign]
    try:
        async with app.run_test(size=size) as pilot:
            await drawn(pilot)
            for key in of.keys:
                if key == "silence":
                    desk.is_silent = True
                    continue
                await pilot.press(key)
                await drawn(pilot)
            for field_ in app.screen.query(Input):
                field_.cursor_blink = False
            await drawn(pilot)
            yield pilot
    finally:
        desk.is_over.set()


async def drawn(pilot: Pilot[None]) -> None:
    """Let the screen read all that comes, and draw it. Waits for events, not for time."""
    for _ in range(_MORE_THAN_THE_PLOT_WAITS_FOR):
        await pilot.pause(0)
        await _heard_all(pilot.app)
        desk = pilot.app.desk  # type: ignore[attr-defined]
        if not desk.is_silent:
            await asyncio.gather(*(w.wait() for w in pilot.app.workers if w.group == "read"))
        # Below a dialog there is one that shows, too.
        for screen in pilot.app.screen_stack:
            if isinstance(screen, ConsoleScreen):
                screen.flush()
                screen.refresh_bindings()
                screen.query_one(TopBar).flush()
    await _heard_all(pilot.app)
    # A dialog keeps a picture of what is below it.
    pilot.app.screen.refresh()
    await pilot.pause(0)


async def _heard_all(app: App[None]) -> None:
    """What was sent to any widget is handled; a pause of the pilot waits for the upmost screen alone."""
    for widget in [w for screen in app.screen_stack for w in screen.walk_children(with_self=True)]:
        heard = asyncio.Event()
        if widget.call_later(heard.set):
            await heard.wait()
