"""What the console tells beside its screens: notices, the help, the palette, and in which language."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

from fedconsole.errors import EngineCrashedError
from fedconsole.tui import lang
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.dialogs.help import HelpDialog
from fedconsole.tui.messages import Alarm, Notice
from fedconsole.tui.opening import Opening
from fedconsole.tui.screens.run_page import RunPage
from tests.support.desk import PreparedDesk
from tests.support.histories import JOURNAL, a_run, lines_of, press, settle, text_of, told
from tests.tui.driving import (
    BUSY,
    RUN,
    add_device,
    console,
    going,
    palette_of,
    shows,
    type_in,
    until,
)

LIVE = Opening("live", RUN)


@pytest.fixture(autouse=True)
def english_again() -> Iterator[None]:
    yield
    lang.use("en")


# Notices


async def test_no_notice_lies_over_a_dialog() -> None:
    app = FedconsoleApp(going(BUSY), LIVE, has_bell=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        app.post_message(Notice("the kettle boils"))
        await shows(pilot, "the kettle boils")
        await press(pilot, "question_mark")
        app.post_message(Notice("the milk burns"))
        await settle(pilot)
        assert isinstance(app.screen, HelpDialog)
        assert [word for word in ("boils", "burns") if word in text_of(pilot)] == []
        await press(pilot, "escape")
        await shows(pilot, "the milk burns")


@pytest.mark.parametrize(
    ("width", "num_letters"), [(80, 36), (80, 37), (80, 38), (120, 56), (120, 57), (120, 58)]
)
async def test_a_notice_shows_all_of_its_text_wherever_its_line_ends(
    width: int, num_letters: int
) -> None:
    text = "worker bob is lost: the link was cut while it sent its losses"[:num_letters]
    app = FedconsoleApp(PreparedDesk(), Opening("history"), has_bell=False)
    async with app.run_test(size=(width, 24), notifications=True) as pilot:
        app.tell(text)
        await until(pilot, lambda: app.screen.query("Toast"))
        await settle(pilot)
        corner = " ".join(line[width // 2 :].strip("▌ ") for line in lines_of(pilot)[3:9])
        assert corner.split() == text.split()


async def test_errors_are_kept_in_the_list() -> None:
    desk = going(BUSY)
    desk.refusal = EngineCrashedError("no engine listens")
    async with console(desk, LIVE) as pilot:
        await press(pilot, "p", ends="request")
        await press(pilot, "exclamation_mark")
        assert "▲ no engine listens" in text_of(pilot)


async def test_a_start_that_fails_at_length_says_where_all_of_it_is() -> None:
    desk = PreparedDesk(refusal=EngineCrashedError("it did not start " * 30 + "at last"))
    async with console(desk, "new", (80, 24)) as pilot:
        await type_in(pilot, "virtual", "1")
        await press(pilot, "f9")
        await shows(pilot, "… !: all of it")
        await press(pilot, "escape", "exclamation_mark")
        await shows(pilot, "at last")


async def test_a_reason_that_has_no_room_on_the_page_of_a_run_stands_beside_its_plan() -> None:
    desk = PreparedDesk()
    summary = a_run(1, "failed", reason="the task is wrong " * 40 + "in line 7")
    desk.summaries[summary.run] = summary
    desk.journals[summary.run] = JOURNAL
    async with console(desk, Opening("history", summary.run), (80, 24)) as pilot:
        await shows(pilot, "… p: all of it")
        await press(pilot, "p")
        assert isinstance(pilot.app.screen, RunPage)
        await press(pilot, "end")
        await shows(pilot, "in line 7")


# The help


async def test_the_help_says_why_a_key_does_nothing_now() -> None:
    async with console(going(BUSY[:1]), LIVE, (120, 60)) as pilot:
        await press(pilot, "question_mark")
        row = next(line for line in lines_of(pilot) if "Stop after this round" in line)
        assert "not possible now: the run is PREPARING" in row
        assert "fedconsole abort" not in row


async def test_what_is_selected_in_a_dialog_is_copied(tmp_path: Path) -> None:
    async with console(going(BUSY, folder=tmp_path), LIVE, (120, 60)) as pilot:
        await press(pilot, "question_mark")
        top = next(y for y, row in enumerate(lines_of(pilot)) if "Stop after this round" in row)
        left = lines_of(pilot)[top].index("fedconsole abort")
        await pilot.mouse_down(offset=(left, top))
        await pilot.hover(offset=(left + 15, top))
        await pilot.mouse_up(offset=(left + 15, top))
        await press(pilot, "y")
        assert (tmp_path / "copied.txt").read_text() == "fedconsole abort"


# Typing ahead


FIELDS = ("task", "rounds", "epochs")


def type_at_once(pilot: Pilot[None], *keys: str) -> None:
    """As a terminal sends what was typed while the console was busy."""
    for one in keys:
        letter = "/" if one == "slash" else one
        pilot.app.post_message(events.Key(one, letter if len(letter) == 1 else None))


async def test_what_is_typed_ahead_of_tab_goes_into_the_next_field() -> None:
    async with console(PreparedDesk(), "new") as pilot:
        pilot.app.screen.query_one("#task", Input).focus()
        await settle(pilot)
        type_at_once(pilot, *"mnist", "tab", *"12", "tab", "3", "shift+tab", "shift+tab", *"x")
        await settle(pilot)
        fields = [pilot.app.screen.query_one(f"#{name}", Input) for name in FIELDS]
        assert [field.value for field in fields[1:]] == ["12", "3"]
        # A field that is entered again is selected, and typed anew.
        assert fields[0].value == "x"


async def test_what_is_typed_ahead_of_a_filter_goes_into_it() -> None:
    async with console(going(BUSY), LIVE) as pilot:
        type_at_once(pilot, "slash", "a", "o", "p")
        await settle(pilot)
        # None of these letters was taken for a key.
        assert pilot.app.screen.query_one("#filter Input", Input).value == "aop"
        await press(pilot, "slash")
        assert pilot.app.screen.query_one("#filter Input", Input).value == "aop/"


async def test_an_alarm_that_comes_again_and_again_is_shown_once_a_minute() -> None:
    desk = PreparedDesk()
    async with console(desk) as pilot:
        for seconds in (0.0, 2.0, 59.0, 61.0):
            desk.time_s = 1_000.0 + seconds
            pilot.app.on_alarm(Alarm("bob is lost", "bob"))  # type: ignore[attr-defined]
        await settle(pilot)
        assert told(pilot).count("bob is lost") == 2


@pytest.mark.parametrize("rows", [3, 8])
async def test_a_palette_takes_keys_in_a_low_terminal(rows: int) -> None:
    async with console(PreparedDesk(), size=(100, 30)) as pilot:
        await press(pilot, "colon")
        await pilot.resize_terminal(100, rows)
        await press(pilot, "pagedown", "pageup", "down", "up", "escape")
        assert len(pilot.app.screen_stack) == 1
        await press(pilot, "colon", "pagedown", "escape")
        assert len(pilot.app.screen_stack) == 1


async def test_the_caret_is_where_the_field_is_when_that_moves() -> None:
    async with console(going(BUSY), LIVE, (120, 40)) as pilot:
        await press(pilot, "slash", "a")
        field = pilot.app.screen.query_one("#filter Input", Input)
        before = pilot.app.cursor_position
        assert before == field.cursor_screen_offset
        await pilot.resize_terminal(120, 30)
        await until(pilot, lambda: pilot.app.cursor_position != before)
        assert pilot.app.cursor_position == field.cursor_screen_offset


async def test_a_new_run_begins_in_its_first_field() -> None:
    async with console(PreparedDesk(), "fleet", (80, 24)) as pilot:
        await press(pilot, "n")
        assert pilot.app.focused is pilot.app.screen.query_one("#task", Input)


async def test_the_keys_of_the_screens_pass_through_the_form_and_tab_begins_it() -> None:
    async with console(PreparedDesk(), "fleet", (80, 24)) as pilot:
        await press(pilot, "2", "4", "2")
        await shows(pilot, "Tab Fields")
        await press(pilot, "tab", "1")
        assert (task := pilot.app.screen.query_one("#task", Input)).value == "1"
        # As the palette does.
        await pilot.app.run_action("mode('history')")
        await press(pilot, "2", "1", "2")
        assert task.screen.is_current
        assert task.value == "1"


# Names


NAMES = ["pi\\", "a\\b", "[/b]\\", "\\[x]", "it's [a\\]"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("searched", [False, True])
async def test_the_palette_shows_command_lines_as_they_are_whatever_the_name(
    name: str, searched: bool
) -> None:
    desk = PreparedDesk()
    add_device(desk, name, "10.0.0.1:10002")
    async with console(desk) as pilot:
        await press(pilot, "colon")
        command = f"fedconsole devices show {shlex.quote(name)}"
        await press(pilot, *("Device" if searched else ""))
        await shows(pilot, command, *([f"Device {name}"] if searched else []))
        assert shlex.split(command)[-1] == name


# Languages


async def test_the_language_is_changed_at_once_and_nothing_typed_is_lost() -> None:
    async with console(going(BUSY), LIVE) as pilot:
        await press(pilot, "2")
        await type_in(pilot, "lr", "0.5")
        await choose(pilot, "Language: 한국어")
        assert 'lang = "ko"' in told(pilot)[-1]
        await shows(pilot, "학습률", "새 실행", "시작", "점검", "더 보기")
        assert "learning rate" not in text_of(pilot)
        assert pilot.app.screen.query_one("#lr", Input).value == "0.5"
        await press(pilot, "escape", "3")
        await shows(pilot, "학습 중", "워커", "경과", "alice")
        await press(pilot, "colon")
        await shows(pilot, "명령 찾기…")
        await press(pilot, "escape")
        await choose(pilot, "언어: English")
        await shows(pilot, "TRAINING", "elapsed")


async def test_a_run_page_changes_its_language_with_its_headings() -> None:
    desk = PreparedDesk()
    desk.summaries["20261123-0001"] = a_run(1)
    desk.journals["20261123-0001"] = JOURNAL
    async with console(desk, Opening("history", "20261123-0001")) as pilot:
        await shows(pilot, "Losses", "what is not the default")
        await choose(pilot, "Language: 한국어")
        await shows(pilot, "손실", "기본값과 다른 것")


async def choose(pilot: Pilot[None], title: str) -> None:
    """As the palette does."""
    (entry,) = (e for e in palette_of(pilot) if e.title == title)
    entry.callback()
    await settle(pilot)
