"""Without colour all states stay apart: every one has a sign or a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from rich.color import Color
from textual.pilot import Pilot

from fedconsole.coordinator.phases import RunPhase
from fedconsole.errors import DeviceFullError, IdentityChangedError, NotPairedError, StorageError
from fedconsole.fleet.device import Device, Source
from fedconsole.fleet.inventory import Presence
from fedconsole.history import RunState, RunSummary
from fedconsole.tui import glyphs
from fedconsole.tui.desk import Line
from fedconsole.tui.opening import Opening
from fedconsole.tui.run_records import Attendance, Level
from fedconsole.tui.screens.live import LiveScreen
from fedconsole.tui.widgets.line_log import LineLog
from screenshots.__main__ import desk_with, upto
from tests.support.desk import PreparedDesk
from tests.support.histories import a_run, finished, line, lines_of, press, text_of
from tests.tui.driving import (
    BUSY,
    DEGRADED,
    PAUSED,
    RUN,
    add_device,
    after,
    console,
    going,
    hello,
    segments_of,
    shows,
    telemetry,
    until,
)
from tests.tui.states import MATRIX, SCENES, STATES, scene

WIDE = (160, 45)


def require_apart(seen: Mapping[Any, str]) -> None:
    """Check that any two states are drawn differently."""
    assert sorted(set(seen.values())) == sorted(seen.values()), seen
    assert "" not in seen.values(), seen


@pytest.fixture(params=["unicode", "ascii"])
def signs(request: pytest.FixtureRequest) -> Any:
    glyphs.use(request.param)
    yield request.param
    glyphs.use("unicode")


async def test_the_presence_of_a_device_is_read_without_colours(signs: str) -> None:
    desk = PreparedDesk()
    now = desk.time_s
    for silence, name in ((0, "online"), (9, "stale"), (99, "offline")):
        desk.time_s = now - silence
        add_device(desk, name, f"10.0.0.{silence}:1")
    desk.time_s = now
    desk.inventory.found(Device("new", "10.0.0.200:1", Source.MDNS))
    for number, (name, error) in enumerate(
        (
            ("not paired", NotPairedError("")),
            ("links full", DeviceFullError("")),
            ("KEY CHANGED", IdentityChangedError("10.0.0.202:1", "", "A" * 52, "B" * 52)),
        )
    ):
        record = desk.inventory.found(Device(name, f"10.0.1.{number}:1", Source.MDNS))
        assert record is not None
        desk.inventory.lost(record.key, "", error)
    async with console(desk, "fleet", WIDE) as pilot:
        states, signs_alone = {}, {}
        for presence in Presence:
            row = next(text for text in lines_of(pilot)[2:14] if text[16:].startswith(presence))
            states[presence], signs_alone[presence] = row[2:16].strip(), row[2]
        counts = lines_of(pilot)[1].partition("│")[0].split("  ")
        assert len({part.split()[0] for part in counts if part.strip()}) == len(Presence)
    require_apart(states)
    require_apart(signs_alone)


def phases() -> dict[RunPhase, list[Line]]:
    """What a run has written when it is in each phase."""
    in_closing = upto(PAUSED, "round.finished", round=3)
    end = PAUSED[-1]
    return {
        RunPhase.GATHERING: BUSY[:1],
        RunPhase.TRAINING: BUSY,
        RunPhase.CLOSING: in_closing,
        RunPhase.WAITING: [
            *in_closing,
            after(in_closing, "run.quorum", have=1, need=3, seconds_left=9.0),
        ],
        RunPhase.PAUSING: [*BUSY, after(BUSY, "run.pausing", waiting_for=[])],
        RunPhase.PAUSED: [*BUSY, after(BUSY, "run.paused", waiting_for=[])],
        RunPhase.ABORTING: [*BUSY, after(BUSY, "run.aborting", waiting_for=[])],
        **{
            phase: [*BUSY, {**end, "outcome": phase.value}]
            for phase in (RunPhase.COMPLETED, RunPhase.FAILED, RunPhase.ABORTED)
        },
    }


async def test_the_phase_of_a_run_is_read_without_colours(signs: str) -> None:
    seen = {}
    for phase, lines in phases().items():
        async with console(going(lines), Opening("live", RUN)) as pilot:
            screen = pilot.app.screen
            assert isinstance(screen, LiveScreen)
            assert screen.model.phase is phase
            seen[phase] = lines_of(pilot)[2].partition(" loss ")[0].strip()
    # No line tells that the model is being saved.
    assert seen.keys() == set(RunPhase) - {RunPhase.FINISHING}
    require_apart(seen)


class Unreadable(PreparedDesk):
    def summarize(self, run: str) -> RunSummary | None:
        if run == "20261123-0009":
            raise StorageError("cannot read the journal")
        if run == "20261123-0008":
            return None
        return super().summarize(run)


async def test_how_a_run_ended_is_read_without_colours(signs: str) -> None:
    desk = Unreadable()
    for number, state in enumerate(RunState):
        desk.summaries[f"20261123-{number:04x}"] = a_run(number, state.value)
    desk.summaries |= {"20261123-0008": a_run(8), "20261123-0009": a_run(9)}
    async with console(desk, "history") as pilot:
        await until(pilot, lambda: "unreadable" in text_of(pilot))
        at = lines_of(pilot)[1].index("state")
        rows = lines_of(pilot)[2 : 2 + len(desk.summaries)]
        states = [text[at:].split("  ")[0] for text in rows]
    assert {text.split(maxsplit=1)[1] for text in states} == {*RunState, "unreadable", "no journal"}
    require_apart(dict(enumerate(states)))


async def test_who_was_in_a_round_is_read_without_colours(signs: str) -> None:
    run = "20261123-0004"
    desk = PreparedDesk(summaries={run: a_run(4)})
    desk.journals[run] = [
        line("round.started", round=1, attempt=1, cohort=["alice", "bob", "charlie", "dora"]),
        line("worker.update", round=1, worker="alice", num_examples=1, loss=1.0, seconds=1.0),
        line("worker.rejected", round=1, worker="bob", reason="NaN"),
        finished(1, ["alice"]),
        line("round.started", round=2, attempt=1, cohort=["dora"]),
    ]
    async with console(desk, Opening("history", run), (80, 24)) as pilot:
        await press(pilot, "tab")
        await shows(pilot, "not in the cohort")
        rows = {text.split()[0]: text.split()[2:] for text in lines_of(pilot)[4:8]}
        legend = lines_of(pilot)[8].split("  ")
    seen = {
        Attendance.DELIVERED: rows["alice"][0],
        Attendance.REJECTED: rows["bob"][0],
        Attendance.ABSENT: rows["charlie"][0],
        Attendance.AT_WORK: rows["dora"][1],
        "not in the cohort": rows["alice"][1],
    }
    require_apart(seen)
    assert {part.strip() for part in legend} == {f"{sign} {word}" for word, sign in seen.items()}


async def test_the_level_of_a_log_line_is_read_without_colours() -> None:
    lines = [
        *BUSY[:1],
        *(after(BUSY, "log", worker="a", level=level.name.lower(), text="hi") for level in Level),
    ]
    async with console(going(lines), Opening("live", RUN)) as pilot:
        pilot.app.screen.query_one(LineLog).focus()
        await press(pilot, "d")
        words = [text.split()[1] for text in lines_of(pilot) if text.endswith("Log from a: hi")]
    assert len(words) == len(Level)
    require_apart(dict(enumerate(words)))


async def test_heat_and_throttling_are_read_without_colours() -> None:
    desk = PreparedDesk()
    bands = {"none": None, "cool": 48.0, "warm": 65.0, "hot": 75.0, "too-hot": 85.0}
    flags = {f"bit-{bit}": 1 << bit for bit in (0, 1, 2, 3, 16, 17, 18, 19)} | {"bit-none": 0}
    health = {name: telemetry(celsius=celsius) for name, celsius in bands.items()}
    health |= {name: telemetry(throttled=bits) for name, bits in flags.items()}
    for number, (name, values) in enumerate(health.items()):
        add_device(desk, name, f"10.0.0.{number}:1", said=hello(name), health=values)
    async with console(desk, "fleet", (120, 40)) as pilot:
        head, *rows = lines_of(pilot)[2 : 3 + len(health)]
    assert len(rows) == len(health)
    cells = {row[16:].split()[0]: row[head.index("°C") - 6 : head.index("data")] for row in rows}
    # The words alone must do, without the number.
    warmth = {name: re.sub(r"\d+", "number", cells[name][:8].strip()) for name in bands}
    require_apart(warmth)
    require_apart({name: cells[name][8:].strip() for name in flags})


async def test_a_lost_and_an_awaited_worker_are_read_without_colours(signs: str) -> None:
    lines = [*BUSY, after(BUSY, "worker.lost", worker="bob", address="x", reason="gone")]
    lines += [after(BUSY, "run.pausing", waiting_for=["alice"])]
    async with console(going(lines), Opening("live", RUN)) as pilot:
        rows = [text for text in lines_of(pilot) if re.match(r"\S[ABC] ", text)]
    assert len(rows) == 3
    assert rows[0][0] == rows[2][0] != rows[1][0]
    assert rows[1].split()[2] == "lost"
    assert [row.split()[2].endswith("…") for row in rows] == [True, False, False]


# The states of the screens


SAID = {
    "fleet-empty": "No devices yet",
    "fleet-loading": "Looking for devices",
    "fleet-busy": "● online",
    "fleet-degraded": "◐ stale",
    "fleet-degraded-no-multicast": "▲ no multicast here",
    "fleet-failed": "✗ the search for devices has stopped (too many open files)",
    "fleet-failed-changed": "✗ IDENTITY CHANGED: kitchen",
    "fleet-failed-pairing": "Give pi-daemon pair on the device",
    "new-run-empty": "No devices found yet",
    "new-run-loading": "Looking for devices",
    "new-run-loading-checking": "trying a batch on every worker",
    "new-run-busy": "ready to start: F9",
    "new-run-degraded": "▲ not there now: charlie, dora",
    "new-run-failed": "✗ to be mended: rounds",
    "new-run-failed-check": "✗ Run 20261126-d516 failed: bob cannot take part",
    "live-empty": "No run is shown",
    "live-loading": "◇ GATHERING",
    "live-loading-unanswered": "waiting for workers",
    "live-busy": "▶ TRAINING",
    "live-busy-pausing": "‖ PAUSING… waiting for alice, charlie",
    "live-busy-paused": "‖ PAUSED ",
    "live-busy-abort": "Abort run 20261126-d516?",
    "live-degraded": "▲ bob lost 00:04, retrying; quorum 2/2 still met",
    "live-failed": "✗ FAILED",
    "history-empty": "No runs yet",
    "history-loading": "Reading the runs",
    "history-busy": "✓ completed",
    "history-degraded": "✗ unreadable",
    "history-failed": "✗ cannot read the folder of runs",
    "run-page-empty": "crashed",
    "run-page-loading": "reading…",
    "run-page-busy": "✓ completed",
    "run-page-degraded": "what stands before it is shown: 200 lines",
    "run-page-failed": "✗ cannot read the journal",
    "compare-empty": "no evaluation to compare",
    "compare-loading": "reading…",
    "compare-busy": "✓ completed",
    "compare-degraded": "✗ unreadable",
    "compare-failed": "none of these runs can be read",
}
"""The sign or the words that tell each state."""


@pytest.mark.parametrize("screen", MATRIX)
async def test_the_states_of_a_screen_are_told_apart_by_signs_and_words_alone(screen: str) -> None:
    scenes = {name: one for name, one in SCENES.items() if name.startswith(f"{screen}-")}
    assert len(scenes) >= len(STATES)
    seen = {}
    for name, one in scenes.items():
        async with scene(one, (80, 24)) as pilot:
            shown = text_of(pilot)
        assert SAID[name] in shown, f"{name} does not say {SAID[name]!r}:\n{shown}"
        # All else, such as the data of a run, differs between scenes and tells nothing of the state.
        seen[name] = " & ".join(sorted({SAID[other] for other in scenes if SAID[other] in shown}))
    require_apart(seen)


# NO_COLOR


def colours(pilot: Pilot[None]) -> set[str]:
    """Those on the screen that are no grey."""
    found = set()
    for segment in segments_of(pilot):
        for colour in (segment.style.color, segment.style.bgcolor) if segment.style else ():
            if colour is not None and not is_grey(colour):
                found.add(str(colour))
    return found


def is_grey(colour: Color) -> bool:
    return colour.is_default or len(set(colour.get_truecolor())) == 1


PLACES = {
    "fleet": (Opening("fleet"), ("space", "down", "d")),
    "new": (Opening("fleet"), ("asterisk", "n", "tab", "x")),
    "live": (Opening("live", DEGRADED[0]["run"]), ()),
    "abort": (Opening("live", DEGRADED[0]["run"]), ("a",)),
    "alarms": (Opening("live", DEGRADED[0]["run"]), ("exclamation_mark",)),
    "history": (Opening("history"), ("space",)),
    "run-page": (Opening("history", RUN), ()),
    "compare": (Opening("history"), ("asterisk", "c")),
    "palette": (Opening("fleet"), ("colon",)),
    "help": (Opening("fleet"), ("question_mark",)),
}


@pytest.mark.parametrize("theme", ["fed-dark", "ansi"])
@pytest.mark.parametrize("place", PLACES)
async def test_no_color_leaves_greys_only(
    place: str, theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    opening, keys = PLACES[place]
    desk = desk_with(upto(DEGRADED, "round.started", round=6), is_running=True)
    async with console(desk, opening, theme=theme) as pilot:
        for key in keys:
            await press(pilot, key)
        await press(pilot)
        assert text_of(pilot).strip()
        assert colours(pilot) == set()


async def test_there_are_colours_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with console(desk_with(BUSY, is_running=False)) as pilot:
        assert colours(pilot)
