"""The Live screen after its engine has died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedconsole.errors import RefusedError
from fedconsole.tui.desk import Line
from fedconsole.tui.formats import span
from fedconsole.tui.opening import Opening
from fedconsole.tui.screens import taking_up
from fedconsole.tui.screens.live import LiveScreen
from tests.support.desk import PreparedDesk
from tests.support.histories import lines_of, press, settle, text_of, told
from tests.tui.driving import BUSY, RUN, after, console, going, offered, shows, until
from tests.tui.test_live_screen import LIVE, PASSED_S


@dataclass
class BrokenDesk(PreparedDesk):
    """Its engines end in the midst of a run; `last` is raised then, if it is not None."""

    last: RefusedError | None = None
    is_mended: bool = False
    """The next engine goes on."""

    async def follow(self, run: str) -> AsyncIterator[Line]:
        if self.is_mended:
            async for line in super().follow(run):
                yield line
        for line in self.journals[run]:
            yield line
        self.running.discard(run)
        if self.last is not None:
            raise self.last

    def resume_elsewhere(self, run: str) -> None:
        """As another terminal does."""
        self.is_mended = True
        self.running.add(run)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (None, f"the engine of run {RUN} ended without a last word; finished rounds are kept"),
        (RefusedError("the journal cannot be read"), "the journal cannot be read"),
    ],
)
async def test_an_engine_that_ends_without_a_last_word_is_told_of(
    last: RefusedError | None, words: str
) -> None:
    desk = BrokenDesk(journals={RUN: BUSY}, running={RUN}, last=last)
    async with console(desk, LIVE) as pilot:
        await shows(pilot, words)
        assert {"pause", "abort", "stop"} & offered(pilot).keys() == set()
        await press(pilot, "p", "o", "a")
        assert isinstance(pilot.app.screen, LiveScreen)
        assert desk.requests == []


async def test_a_run_whose_engine_died_is_shown_as_crashed_and_can_be_resumed() -> None:
    desk = BrokenDesk(journals={RUN: BUSY}, running={RUN})
    async with console(desk, LIVE) as pilot:
        dead = pilot.app.screen
        await shows(pilot, "☓ CRASHED", "3 Live ☓")
        desk.let_pass(300)
        await settle(pilot)
        first, second = lines_of(pilot)[1:3]
        assert (f"elapsed {span(PASSED_S)}" in first, "ETA" in first) == (True, False)
        assert [word for word in ("TRAINING", "workers", "ex/s") if word in second] == []
        assert offered(pilot)["take_up"] == "u"
        await press(pilot, "u", ends="take_up")
        assert desk.taken_up == [RUN]
        assert f"fedconsole resume {RUN}" in told(pilot)
        await until(pilot, lambda: pilot.app.screen is not dead)


async def test_a_run_that_was_resumed_elsewhere_is_shown_again_from_its_first_line_on() -> None:
    desk = BrokenDesk(journals={RUN: [*BUSY]}, running={RUN})
    async with console(desk, LIVE) as pilot:
        await shows(pilot, "☓ CRASHED")
        desk.let_pass(2)
        await settle(pilot)
        assert "☓ CRASHED" in text_of(pilot)
        desk.resume_elsewhere(RUN)
        desk.tell(RUN, after(BUSY, "run.restarted", 9, round=7))
        desk.let_pass(2)
        await shows(pilot, "▶ TRAINING", "round 7/10", "3 Live ▶")
        assert "without a last word" not in text_of(pilot)
        assert "take_up" not in offered(pilot)
        assert {"pause", "abort", "stop"} <= offered(pilot).keys()


async def test_until_the_new_engine_says_something_nothing_of_the_old_one_is_shown_as_news() -> (
    None
):
    wall = datetime.fromisoformat(BUSY[-1]["time"]) + timedelta(seconds=60)
    desk = BrokenDesk(journals={RUN: [*BUSY]}, running={RUN}, wall=wall)
    async with console(desk, LIVE) as pilot:
        await shows(pilot, "☓ CRASHED")
        desk.is_mended = True
        await press(pilot, "u", ends="take_up")
        await shows(pilot, "PREPARING", "round 7/10", "ETA —")
        second = lines_of(pilot)[2]
        assert ("TRAINING" in second, "ex/s" in second) == (False, False)
        assert "has said nothing" not in text_of(pilot)
        asked = {"pause", "abort", "stop"}
        assert asked & offered(pilot).keys() == {"abort"}
        desk.tell(RUN, after(BUSY, "run.restarted", 61, round=7))
        await shows(pilot, "▶ TRAINING")
        assert asked <= offered(pilot).keys()


async def test_resuming_what_was_resumed_elsewhere_joins_it() -> None:
    desk = BrokenDesk(journals={RUN: BUSY}, running={RUN})
    async with console(desk, LIVE) as pilot:
        await shows(pilot, "☓ CRASHED")
        desk.resume_elsewhere(RUN)
        desk.refusal = RefusedError("it is resumed already")
        await press(pilot, "u", ends="take_up")
        await shows(pilot, "▶ TRAINING")
        assert "it is resumed already" not in told(pilot)
        assert f"fedconsole resume {RUN}" not in told(pilot)


@dataclass
class ReadingDesk(BrokenDesk):
    """Its engines read a journal that never ends."""

    has_left: bool = False

    async def take_up(self, run: str) -> None:
        self.taken_up.append(run)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.has_left = True
            raise


async def test_while_a_long_journal_is_read_that_is_told_and_the_console_can_be_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(taking_up, "TELL_S", 0.01)
    desk = ReadingDesk(journals={RUN: BUSY}, running={RUN})
    async with console(desk, LIVE) as pilot:
        await shows(pilot, "☓ CRASHED")
        await pilot.press("u")
        words = f"reading the journal of {RUN}: it is long; quitting leaves the run as it is"
        await until(pilot, lambda: words in told(pilot))
        await pilot.press("u")
        await press(pilot, "4")
        assert not desk.has_left
    assert desk.has_left
    assert desk.taken_up == [RUN]


async def test_a_run_with_an_engine_has_nothing_to_resume() -> None:
    async with console(going(BUSY), LIVE) as pilot:
        assert "take_up" not in offered(pilot)


@pytest.mark.parametrize("is_running", [True, False])
async def test_the_end_of_a_replay_is_a_crash_only_if_the_engine_is_gone(is_running: bool) -> None:
    desk = going(BUSY[:1])
    if not is_running:
        desk.running.clear()
    async with console(desk, Opening("live", replay=(RUN, 10.0))) as pilot:
        await shows(pilot, "REPLAY 10x", RUN)
        await until(pilot, lambda: not any(w.name == "_follow" for w in pilot.app.workers))
        await settle(pilot)
        assert ("without a last word" in text_of(pilot)) is not is_running
        assert ("☓ CRASHED" in text_of(pilot)) is not is_running
        assert "take_up" not in offered(pilot)


async def test_an_engine_that_dies_before_its_first_line_is_told_of_with_its_log() -> None:
    desk = BrokenDesk(journals={RUN: []}, running={RUN}, folder=Path("/runs"))
    async with console(desk, LIVE) as pilot:
        await shows(pilot, f"it never began: MemoryError (/runs/{RUN}/engine.log)")


async def test_the_workers_of_an_engine_that_died_train_no_more() -> None:
    async with console(BrokenDesk(journals={RUN: BUSY}, running={RUN}), LIVE) as pilot:
        await shows(pilot, "☓ CRASHED")
        rows = [line.split()[:3] for line in lines_of(pilot) if line.startswith("●")]
        assert rows == [["●A", "alice", "-"], ["●B", "bob", "-"], ["●C", "charlie", "-"]]


async def test_last_words_that_have_no_room_say_where_all_of_them_are() -> None:
    desk = BrokenDesk(journals={RUN: BUSY}, running={RUN}, last=RefusedError("no room " * 20))
    async with console(desk, LIVE, (80, 24)) as pilot:
        await shows(pilot, "… !: all of it")
        await press(pilot, "exclamation_mark")
        assert text_of(pilot).count("no room") >= 20
