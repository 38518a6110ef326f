"""Corners of several screens: odd texts in forms and dialogs, keys beside fields, slow checks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from fedconsole.errors import RefusedError, UsageError
from fedconsole.fleet.device import parse_address
from fedconsole.tui.desk import Line
from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.opening import Opening
from fedconsole.tui.screens.live import LiveScreen
from fedconsole.tui.screens.new_run import NewRunScreen
from pi_daemon.protocol.text import clean
from tests.support.desk import PreparedDesk, SlowDesk
from tests.support.histories import (
    a_run,
    desk_with_runs,
    press,
    settle,
    text_of,
    told,
)
from tests.tui.driving import (
    BUSY,
    RUN,
    add_device,
    after,
    console,
    offered,
    put_run,
    shows,
    type_in,
    until,
)
from tests.tui.test_hostile_texts import RUN as STORED
from tests.tui.test_hostile_texts import WIDE, ending, harm, journal, stored
from tests.tui.test_new_run_check import end
from tests.tui.test_new_run_screen import foot_of

CONTROL = "bad\x1b[2J\x9b2J\u202e\u200b\0"


def test_no_invisible_character_passes() -> None:
    text = "a\u180e\u2061\u2062\u2063\u2064\u206a\u206f\ufff9\U000e0041b"
    assert clean(text) == "ab"


async def test_a_cloned_plan_with_hostile_texts_is_drawn_harmlessly() -> None:
    plan = {"task": CONTROL, "workers": [CONTROL], "virtual": 0, "init_from": CONTROL}
    desk = PreparedDesk(summaries={"20261123-0001": a_run(1, plan=plan)})
    async with console(desk, "history", WIDE) as pilot:
        await press(pilot, "l")
        assert isinstance(pilot.app.screen, NewRunScreen)
        assert harm(pilot) == set()


async def test_why_a_start_was_refused_is_drawn_harmlessly_in_the_form() -> None:
    desk = PreparedDesk(refusal=RefusedError(CONTROL))
    async with console(desk, "new", WIDE) as pilot:
        await type_in(pilot, "virtual", "1")
        await press(pilot, "f9")
        await until(pilot, lambda: told(pilot))
        assert harm(pilot) == set()


async def test_the_names_of_a_plan_s_options_are_drawn_harmlessly() -> None:
    desk = PreparedDesk(summaries={STORED: a_run(4, plan={"lr": 1.0, CONTROL: 2})})
    desk.journals[STORED] = journal()
    async with console(desk, Opening("history", STORED), WIDE) as pilot:
        await shows(pilot, "what is not the default")
        assert harm(pilot) == set()


@pytest.mark.parametrize("key", ["e", "delete"])
async def test_dialogs_about_a_run_with_a_hostile_id_are_drawn_harmlessly(key: str) -> None:
    async with console(stored([CONTROL]), "history", WIDE) as pilot:
        await press(pilot, key)
        assert "00bad" in text_of(pilot)
        assert harm(pilot) == set()


@pytest.mark.parametrize("key", ["a", "q"])
async def test_dialogs_about_a_going_run_with_a_hostile_id_are_drawn_harmlessly(key: str) -> None:
    desk = PreparedDesk()
    desk.journals[CONTROL] = [{**one, "run": CONTROL} for one in BUSY]
    desk.running.add(CONTROL)
    async with console(desk, Opening("live", CONTROL), WIDE) as pilot:
        await press(pilot, key)
        assert harm(pilot) == set()


async def test_the_path_of_a_model_is_drawn_harmlessly() -> None:
    desk = PreparedDesk()
    put_run(desk, [*journal(), {**ending("end"), "model_path": CONTROL}])
    async with console(desk, Opening("live", STORED), WIDE) as pilot:
        await shows(pilot, "Model: bad")
        assert harm(pilot) == set()


@dataclass
class BrokenDesk(PreparedDesk):
    async def follow(self, run: str) -> AsyncIterator[Line]:
        for line in self.journals[run]:
            yield line
        raise RefusedError(CONTROL)


async def test_last_words_are_drawn_harmlessly() -> None:
    desk = BrokenDesk(journals={RUN: BUSY}, running={RUN})
    async with console(desk, Opening("live", RUN), WIDE) as pilot:
        await shows(pilot, "bad")
        assert harm(pilot) == set()


def test_an_address_holds_no_control_characters() -> None:
    with pytest.raises(UsageError):
        parse_address("a\x1bcb:1")


async def test_an_address_is_drawn_harmlessly_in_the_details() -> None:
    desk = PreparedDesk()
    add_device(desk, "kitchen", CONTROL)
    async with console(desk, "fleet", WIDE) as pilot:
        assert "found by" in text_of(pilot)
        assert harm(pilot) == set()


async def test_the_plan_is_written_to_a_file_while_a_field_has_the_focus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with console(PreparedDesk(), "new") as pilot:
        await type_in(pilot, "virtual", "3")
        await press(pilot, "tab")
        assert isinstance(pilot.app.focused, Input)
        await press(pilot, "f6")
        assert (tmp_path / "run.toml").exists()


async def test_what_is_typed_during_a_check_is_judged_after_it() -> None:
    desk = SlowDesk(preflight_lines=[end()])
    async with console(desk, "new") as pilot:
        await type_in(pilot, "virtual", "3")
        await press(pilot, "f5")
        await type_in(pilot, "lr", "x")
        assert foot_of(pilot)[0] == "✗ to be mended: learning rate"
        desk.may_go_on.set()
        await settle(pilot)
        await settle(pilot)
        assert foot_of(pilot)[0] == "✗ to be mended: learning rate"


@pytest.mark.parametrize("name", ["new", "compare"])
async def test_a_filter_is_offered_only_where_there_is_one(name: str) -> None:
    desk = desk_with_runs(Path("exports"))
    async with console(desk, "new" if name == "new" else "history") as pilot:
        if name == "new":
            await press(pilot, "escape")
        else:
            await press(pilot, "space", "space", "c")
            pilot.app.screen.query_one("#outcomes").focus()
            await settle(pilot)
        if "want_filter" in offered(pilot):
            await press(pilot, "slash")
            assert isinstance(pilot.app.focused, Input)


async def test_the_log_of_a_stored_run_is_saved(tmp_path: Path) -> None:
    desk = desk_with_runs(tmp_path)
    async with console(desk, Opening("history", "20261123-0001")) as pilot:
        await press(pilot, "shift+tab", "S")
        assert told(pilot) == [f"log saved: {tmp_path / '20261123-0001.log'}"]


async def test_a_question_about_a_run_goes_when_the_run_has_ended_meanwhile() -> None:
    desk = PreparedDesk(journals={RUN: list(BUSY)}, running={RUN})
    async with console(desk, Opening("live", RUN)) as pilot:
        await press(pilot, "a")
        await shows(pilot, "Abort now")
        desk.tell(RUN, {**ending("all rounds complete"), "run": RUN})
        await until(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        await shows(pilot, "FAILED")
        assert desk.requests == []


async def test_a_question_about_too_few_workers_goes_when_the_run_waits_no_more() -> None:
    waits: Any = {"have": 2, "need": 3, "seconds_left": 9.0, "phase": "waiting", "then": "fail"}
    lines = [*BUSY, after(BUSY, "run.quorum", **waits)]
    desk = PreparedDesk(journals={RUN: lines}, running={RUN})
    async with console(desk, Opening("live", RUN)) as pilot:
        await shows(pilot, "WAITING")
        await press(pilot, "f")
        await shows(pilot, "Go on with 2")
        desk.tell(RUN, after(lines, "run.fewer", round=7, have=2, need=3))
        await until(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        assert desk.requests == []


async def test_a_run_that_ends_while_its_operator_is_asked_does_not_keep_him() -> None:
    desk = PreparedDesk(journals={RUN: list(BUSY)}, running={RUN})
    async with console(desk, Opening("live", RUN)) as pilot:
        await press(pilot, "q")
        desk.refusal = RefusedError("no engine listens")
        desk.tell(RUN, {**ending("all rounds complete"), "run": RUN})
        await shows(pilot, "FAILED")
        await press(pilot, "left", "enter")
        await until(pilot, lambda: pilot.app._exit)


@pytest.mark.parametrize("mode", ["fleet", "new", "live", "history"])
async def test_a_screen_that_is_taken_down_as_the_console_ends_shows_nothing_more(
    mode: str,
) -> None:
    async with console(PreparedDesk(), mode) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, ConsoleScreen)
        # As it is then: the app runs no more, and what is on a screen goes before the screen does.
        pilot.app._running = False
        await screen.query_children("*").remove()
        screen._tick()
        pilot.app._running = True


@pytest.mark.parametrize("mode", ["new", "live", "history"])
async def test_a_screen_that_is_opened_as_the_console_ends_does_not_end_it_as_a_fault(
    mode: str,
) -> None:
    async with console(PreparedDesk(), "fleet") as pilot:
        app = pilot.app
        was_opened = asyncio.Event()

        async def leave_and_open() -> None:
            app.exit()
            await app.run_action(f"mode('{mode}')")
            was_opened.set()

        app.call_later(leave_and_open)
        await was_opened.wait()
    assert app.return_code == 0
