"""What holds for every screen: the palette, the command-line twins, the keys, leaving, the sizes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from textual.binding import Binding
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input

from fedconsole.coordinator.phases import Request
from fedconsole.coordinator.plan import Plan
from fedconsole.errors import RefusedError
from fedconsole.tui import lang
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.frame import ConsoleScreen, all_keys, command_twin, offered_keys
from fedconsole.tui.keys import JAMO
from fedconsole.tui.opening import Opening
from fedconsole.tui.screens.compare import CompareScreen
from fedconsole.tui.screens.fleet import FleetScreen
from fedconsole.tui.screens.history import HistoryScreen
from fedconsole.tui.screens.live import LiveScreen
from fedconsole.tui.screens.new_run import NewRunScreen
from fedconsole.tui.screens.no_run import NoRunScreen
from fedconsole.tui.screens.run_page import RunPage
from tests.support.command_lines import parsed, plan_of
from tests.support.desk import PreparedDesk
from tests.support.histories import (
    JOURNAL,
    PLAN,
    ROUNDS,
    a_run,
    focused_label,
    lines_of,
    press,
    settle,
    text_of,
    told,
)
from tests.tui.driving import (
    BUSY,
    PAUSED,
    RUN,
    add_device,
    after,
    console,
    going,
    palette_of,
    put_run,
    resized,
    shows,
    type_in,
    until,
)

SCREENS: dict[str, tuple[type[ConsoleScreen], Opening, tuple[str, ...]]] = {
    "fleet": (FleetScreen, Opening("fleet"), ()),
    "new": (NewRunScreen, Opening("fleet"), ("n", "escape")),
    "no-run": (NoRunScreen, Opening("live"), ()),
    "live": (LiveScreen, Opening("live", RUN), ()),
    "history": (HistoryScreen, Opening("history"), ("asterisk",)),
    "run-page": (RunPage, Opening("history", "20261123-0001"), ()),
    "compare": (CompareScreen, Opening("history"), ("asterisk", "c")),
}
"""Each with what opens it."""
ONLY_SHOW = {
    *(
        "go_to_field(1)",
        "go_to_field(-1)",
        "pane(1)",
        "pane(-1)",
        "other_metric",
        "next_axis",
        "zoom",
        "want_filter",
        "app.focus_next",
    ),
    "app.focus_previous",
    *("replay_pause", "slower", "faster", "last_run", "copy_command", "app.mode('new')"),
}
"""Actions that change the picture or the form, but no run, no device and no file."""
every_screen = pytest.mark.parametrize("name", SCREENS)


def a_desk() -> PreparedDesk:
    """Two devices, three stored runs, and one that goes on."""
    desk = PreparedDesk()
    add_device(desk, "kitchen", "10.0.0.1:10002")
    add_device(desk, "attic", "10.0.0.2:10002")
    for summary in (a_run(1), a_run(2), a_run(3, "failed")):
        desk.summaries[summary.run] = summary
        desk.round_tables[summary.run] = ROUNDS
        desk.journals[summary.run] = JOURNAL
    put_run(desk, BUSY)
    return desk


@asynccontextmanager
async def screen_of(
    name: str, desk: PreparedDesk | None = None, size: tuple[int, int] = (160, 50)
) -> AsyncIterator[Pilot[None]]:
    kind, opening, keys = SCREENS[name]
    async with console(desk or a_desk(), opening, size) as pilot:
        for key in keys:
            await press(pilot, key)
        await until(pilot, lambda: type(pilot.app.screen) is kind)
        yield pilot


def entries(pilot: Pilot[None]) -> set[tuple[str, str]]:
    """Titles and helps of the palette."""
    return {(entry.title, entry.help) for entry in palette_of(pilot)}


def twin_pattern(tooltip: str) -> str:
    """A command line with whatever is chosen on the screen in the place of RUN and the like."""
    return re.sub("RUNS|RUN|NAME|WORKERS|PLAN", r"\\S.*", re.escape(tooltip))


def bindings_of(kind: type[ConsoleScreen]) -> list[Binding]:
    """Its own, without those of all screens."""
    return [binding for binding in kind.BINDINGS if isinstance(binding, Binding)]


# The palette, and the command line that does the same


TYPED_LATER = {"STRING": "fp1:aaaa", "HOST:PORT": "10.0.0.9:10002"}
"""What a line cannot hold before its key was pressed."""


def shown_lines(pilot: Pilot[None]) -> list[str]:
    """Of the palette, which has those of the help, too; with something for what is typed later."""
    lines = []
    for _title, help_text in entries(pilot):
        _key, mark, rest = help_text.partition("fedconsole ")
        for placeholder, text in TYPED_LATER.items():
            rest = rest.replace(placeholder, text)
        lines += [mark + rest] if mark else []
    return lines


def test_command_lines_that_fedconsole_does_not_take_are_noticed() -> None:
    for text in (
        "fedconsole pauze 2026",
        "fedconsole runs shows 2026",
        "fedconsole pause 2026 --hard",
        "fedconsole doctor 2026",
        "fedconsole run ...",
        "fedconsole run --worker",
        "fedconsole run --rounds many",
        "fedconsole quorum 2026 perhaps",
    ):
        with pytest.raises(AssertionError):
            parsed(text)


@every_screen
async def test_every_action_of_a_screen_is_in_the_palette(name: str) -> None:
    async with screen_of(name) as pilot:
        screen = pilot.app.screen
        found = entries(pilot)
        own = {
            (binding.action, binding.description, binding.tooltip)
            for binding in bindings_of(SCREENS[name][0])
            if screen.check_action(binding.action.partition("(")[0], ()) is not False
        }
        offered = {
            (offer.binding.action, offer.binding.description, offer.binding.tooltip)
            for offer in offered_keys(screen)
        }
        assert own <= offered
        missing = [
            action
            for action, title, tooltip in offered
            if not any(
                words == title and re.search(f"{twin_pattern(tooltip)}$", help_text)
                for words, help_text in found
            )
        ]
        # These two would only close the palette again.
        assert set(missing) <= {"palette", "back"}


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ("Pause", "not possible now: the run is PREPARING")),
        ("ko", ("일시정지", "지금은 불가: 실행이 준비 중")),
    ],
)
async def test_the_palette_says_why_something_is_not_possible_now(
    language: str, words: tuple[str, str]
) -> None:
    lang.use(language)
    try:
        async with console(going(BUSY[:1]), Opening("live", RUN)) as pilot:
            assert words in {(entry.title, entry.why) for entry in palette_of(pilot)}
            await press(pilot, "colon")
            await shows(pilot, "{} ({})".format(*words))
    finally:
        lang.use("en")


async def test_the_palette_does_not_search_the_reasons() -> None:
    async with console(going(BUSY[:1]), Opening("live", RUN)) as pilot:
        await press(pilot, "colon", *"PREPARING")
        await shows(pilot, "No matches found")


@pytest.mark.parametrize("name", sorted(SCREENS.keys() - {"no-run"}))
async def test_every_screen_offers_once_what_steers_the_run_that_goes_on(name: str) -> None:
    desk = a_desk()
    async with console(desk, Opening("live", RUN), (160, 50)) as pilot:
        await shows(pilot, "TRAINING")
        kind, opening, keys = SCREENS[name]
        await press(pilot, {"fleet": "1", "live": "3", "history": "4"}[opening.mode])
        if opening.run == "20261123-0001":
            assert isinstance(pilot.app, FedconsoleApp)
            await pilot.app.show_run(opening.run)
        await press(pilot, *keys)
        await until(pilot, lambda: type(pilot.app.screen) is kind)
        steering = [
            *("fedconsole pause", "fedconsole abort", "fedconsole abort --after-round"),
            "fedconsole runs show",
        ]
        offered = [
            re.sub(r"^. +", "", command.help).replace(f" {RUN}", "")
            for command in palette_of(pilot)
            if RUN in command.help and not command.title.startswith("Open run")
        ]
        assert sorted(offered) == sorted(steering)


async def test_what_the_palette_asks_of_a_run_is_asked_on_the_live_screen() -> None:
    desk = a_desk()
    async with console(desk, Opening("live", RUN), (160, 50)) as pilot:
        await press(pilot, "1", "colon", *"abort")
        await shows(pilot, f"fedconsole abort {RUN}")
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Choice))
        assert pilot.app.current_mode == "live"
        assert "Abort run" in text_of(pilot)
        await press(pilot, "escape", "4", "colon", *"pause")
        await shows(pilot, f"fedconsole pause {RUN}")
        await press(pilot, "enter")
        await until(pilot, lambda: desk.requests)
        assert (pilot.app.current_mode, desk.requests) == ("live", [(RUN, Request.PAUSE)])


@pytest.mark.parametrize("opening", [Opening("live", RUN), Opening("live", replay=(RUN, 60))])
async def test_what_does_not_go_on_is_not_offered_elsewhere(opening: Opening) -> None:
    desk = a_desk()
    async with console(desk, opening, (160, 50)) as pilot:
        desk.tell(RUN, PAUSED[-1])
        if opening.run:
            await shows(pilot, "COMPLETED")
        await press(pilot, "1")
        assert [entry for entry in palette_of(pilot) if "abort" in entry.help] == []


@every_screen
async def test_what_acts_on_a_run_or_a_device_has_a_command_line_that_can_be_pasted(
    name: str,
) -> None:
    kind, _opening, _keys = SCREENS[name]
    bindings = bindings_of(kind)
    assert [b.action for b in bindings if not b.tooltip and b.action not in ONLY_SHOW] == []
    async with screen_of(name) as pilot:
        screen = pilot.app.screen
        for line in shown_lines(pilot):
            parsed(line)
            assert re.findall(r"\b[A-Z]{4,}\b|RUN", line) == [], line
        for offer in all_keys(screen):
            if offer.is_enabled and offer.binding.tooltip:
                assert command_twin(offer, screen), offer.binding.action


@pytest.mark.parametrize("name", ["fleet", "new", "history"])
async def test_without_a_choice_no_command_line_is_shown_that_lacks_it(name: str) -> None:
    async with screen_of(name, PreparedDesk()) as pilot:
        for line in shown_lines(pilot):
            parsed(line)
            assert re.findall(r"\b[A-Z]{4,}\b|RUN", line) == [], line


def twin_of(pilot: Pilot[None], action: str) -> str:
    screen = pilot.app.screen
    (offer,) = (each for each in offered_keys(screen) if each.binding.action == action)
    return command_twin(offer, screen)


async def test_the_command_line_of_a_new_run_names_every_marked_device() -> None:
    async with screen_of("fleet") as pilot:
        assert plan_of(twin_of(pilot, "new_run")).workers == ("10.0.0.2:10002",)
        await press(pilot, "asterisk")
        assert plan_of(twin_of(pilot, "new_run")).workers == ("10.0.0.1:10002", "10.0.0.2:10002")


async def test_the_command_lines_of_the_form_are_those_of_its_plan() -> None:
    async with screen_of("new") as pilot:
        assert twin_of(pilot, "start") != ""
        await type_in(pilot, "rounds", "7")
        await type_in(pilot, "virtual", "3")
        plan = Plan(workers=("10.0.0.2:10002",), virtual=3, rounds=7)
        assert plan_of(twin_of(pilot, "start")) == plan
        assert plan_of(twin_of(pilot, "check")) == plan
        assert parsed(twin_of(pilot, "check"))["dry_run"] is True
        await type_in(pilot, "rounds", "many")
        assert (twin_of(pilot, "start"), twin_of(pilot, "check")) == ("", "")


@pytest.mark.parametrize("name", ["history", "run-page"])
async def test_the_command_line_of_a_clone_is_that_of_its_plan(name: str) -> None:
    async with screen_of(name) as pilot:
        plan = msgspec.convert(PLAN, Plan)
        assert plan_of(twin_of(pilot, "clone")) == plan
        assert plan.workers


async def test_devices_of_one_name_are_named_by_their_addresses() -> None:
    desk = PreparedDesk()
    for number in (1, 2):
        add_device(desk, "attic", f"10.0.0.{number}:1")
    add_device(desk, "living room", "10.0.0.3:1")
    async with screen_of("fleet", desk) as pilot:
        shown = {parsed(line)["name"] for line in shown_lines(pilot) if " devices show " in line}
        assert shown == {"10.0.0.1:1", "10.0.0.2:1", "living room", "10.0.0.9:10002"}


async def test_a_run_that_goes_on_is_opened_by_attach() -> None:
    desk = a_desk()
    desk.running.add("20261123-0002")
    async with screen_of("fleet", desk) as pilot:
        found = dict(entries(pilot))
        assert found["Open run 20261123-0002"] == "fedconsole attach 20261123-0002"
        assert found["Open run 20261123-0001"] == "fedconsole runs show 20261123-0001"


async def test_the_live_mode_shows_the_newest_run_that_goes_on() -> None:
    desk = going(BUSY)
    desk.summaries = {"20201123-0001": a_run(1), RUN: a_run(2)}
    async with console(desk, "fleet") as pilot:
        await press(pilot, "3")
        await until(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        assert isinstance(pilot.app.screen, LiveScreen)
        assert pilot.app.screen.run_id == RUN
        desk.running.clear()
    async with console(desk, "fleet") as pilot:
        await press(pilot, "3")
        assert isinstance(pilot.app.screen, NoRunScreen)


async def test_the_palette_carries_out_what_is_chosen_in_it() -> None:
    desk = a_desk()
    async with screen_of("live", desk) as pilot:
        await press(pilot, "colon")
        assert isinstance(pilot.app.screen, CommandPalette)
        await press(pilot, *"Pause")
        await shows(pilot, "fedconsole pause ")
        await press(pilot, "enter")
        await until(pilot, lambda: desk.requests)
        assert desk.requests == [(RUN, Request.PAUSE)]


async def test_the_palette_opens_runs_devices_modes_and_themes() -> None:
    async with screen_of("fleet") as pilot:
        found = entries(pilot)
        assert found >= {
            ("Open run 20261123-0003", "fedconsole runs show 20261123-0003"),
            ("Device attic", "fedconsole devices show attic"),
            ("Go to History", ""),
            ("Theme: fed-light", '[console] theme = "fed-light"'),
        }
        chosen = {c.title: c.callback for c in palette_of(pilot)}
        await chosen["Open run 20261123-0003"]()
        page = pilot.app.screen
        assert isinstance(page, RunPage)
        assert page.run_id == "20261123-0003"
        await chosen["Device kitchen"]()
        await shows(pilot, "fedconsole devices show kitchen")
        chosen["Theme: fed-light"]()
        assert pilot.app.theme == "fed-light"


async def choose(pilot: Pilot[None], title: str) -> None:
    """As the palette does."""
    (entry,) = (e for e in palette_of(pilot) if e.title == title)
    entry.callback()
    await settle(pilot)


async def test_settings_that_count_at_once_are_in_the_palette() -> None:
    desk = a_desk()
    async with screen_of("fleet", desk) as pilot:
        assert "● online" in text_of(pilot)
        try:
            await choose(pilot, "Signs: ascii")
            desk.let_pass(1)
            await until(pilot, lambda: "●" not in text_of(pilot))
            assert "* online" in text_of(pilot)
        finally:
            await choose(pilot, "Signs: unicode")
            desk.let_pass(1)
        await until(pilot, lambda: "● online" in text_of(pilot))
        await choose(pilot, "Bell: on")
        assert "Bell: off" in {title for title, _help in entries(pilot)}


async def test_every_worker_of_a_run_has_an_entry_that_shows_its_lines_only() -> None:
    async with screen_of("live") as pilot:
        await choose(pilot, "Only the lines of bob")
        await shows(pilot, '/ worker:"bob"')


async def test_a_run_that_waits_has_its_choices_in_the_palette_with_their_command_lines() -> None:
    desk = a_desk()
    waits: Any = {"have": 2, "need": 3, "seconds_left": 9.0, "phase": "waiting", "then": "fail"}
    put_run(desk, [*BUSY, after(BUSY, "run.quorum", **waits)])
    async with screen_of("live", desk) as pilot:
        await shows(pilot, "WAITING")
        choices = {
            ("Go on with fewer", f"f  fedconsole quorum {RUN} fewer"),
            ("Give more time", f"g  fedconsole quorum {RUN} wait"),
        }
        assert choices <= entries(pilot)


# Keys


@every_screen
async def test_no_letter_of_a_screen_is_hidden_by_the_widget_with_the_focus(name: str) -> None:
    async with screen_of(name) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, ConsoleScreen)
        hidden = []
        # Fields take every letter as text.
        for widget in [widget for widget in screen.focus_chain if not isinstance(widget, Input)]:
            widget.focus()
            await settle(pilot)
            active = screen.active_bindings
            for node in (screen, pilot.app):
                for action, key in shown_letters_of(node).items():
                    twins = {key, JAMO.get(key, key)}
                    if any(active[twin].node is not node for twin in twins):
                        hidden.append((str(widget), action, key))
        assert hidden == []


def shown_letters_of(node: Any) -> dict[str, str]:
    """Action -> the letter or digit that the foot and the help call its key."""
    return {
        binding.action: binding.key_display
        for bindings in node._bindings.key_to_bindings.values()
        for binding in bindings
        if len(binding.key_display or "") == 1
        and binding.key_display.isalnum()
        and node.check_action(binding.action, ())
    }


@every_screen
async def test_numbers_go_to_the_four_modes_and_back(name: str) -> None:
    async with screen_of(name) as pilot:
        screen = pilot.app.screen
        for number, mode in enumerate(("fleet", "new", "live", "history"), start=1):
            if isinstance(pilot.app.screen, NewRunScreen):
                # Its fields take numbers as text until Escape.
                await press(pilot, "escape")
            await press(pilot, str(number))
            assert pilot.app.current_mode == mode
        if isinstance(screen, (RunPage, CompareScreen)):
            assert pilot.app.screen is screen


# Leaving


@pytest.mark.parametrize("name", ["fleet", "no-run", "history", "run-page", "compare"])
async def test_q_leaves_at_once_when_no_run_is_shown(name: str) -> None:
    async with screen_of(name) as pilot:
        await press(pilot, "q", ends="leave")
        assert pilot.app.return_code == 0


async def test_q_leaves_at_once_when_the_run_has_ended() -> None:
    desk = a_desk()
    async with screen_of("live", desk) as pilot:
        desk.tell(RUN, PAUSED[-1])
        await shows(pilot, "COMPLETED")
        await press(pilot, "q", ends="leave")
        assert pilot.app.return_code == 0


@pytest.mark.parametrize(
    ("mode", "key"), [("1", "escape"), ("3", "enter"), ("3", "escape"), ("4", "enter")]
)
async def test_q_asks_while_a_run_goes_on_and_stays_unless_told_to(mode: str, key: str) -> None:
    desk = a_desk()
    async with screen_of("live", desk) as pilot:
        await press(pilot, mode)
        screen = pilot.app.screen
        await press(pilot, "q")
        assert isinstance(pilot.app.screen, Choice)
        assert f"Run {RUN} goes on" in text_of(pilot)
        assert focused_label(pilot) == "Cancel"
        await press(pilot, key, ends="leave")
        assert pilot.app.screen is screen
        assert (pilot.app.return_code, desk.requests) == (None, [])


@pytest.mark.parametrize(("label", "requests"), [("Detach", []), ("Abort", [(RUN, Request.ABORT)])])
async def test_leaving_detaches_or_aborts(label: str, requests: list[object]) -> None:
    desk = a_desk()
    async with screen_of("live", desk) as pilot:
        await press(pilot, "q")
        while focused_label(pilot) != label:
            await press(pilot, "left")
        await press(pilot, "enter", ends="leave")
        assert (pilot.app.return_code, desk.requests) == (0, requests)


async def test_an_abort_that_is_refused_does_not_leave() -> None:
    desk = a_desk()
    async with screen_of("live", desk) as pilot:
        desk.refusal = RefusedError("its engine does not answer")
        await press(pilot, "q")
        while focused_label(pilot) != "Abort":
            await press(pilot, "left")
        await press(pilot, "enter", ends="leave")
        assert told(pilot) == ["its engine does not answer"]
        assert pilot.app.return_code is None


@every_screen
async def test_escape_never_leaves_the_console(name: str) -> None:
    async with screen_of(name) as pilot:
        await press(pilot, *["escape"] * 6)
        assert pilot.app.return_code is None
        assert isinstance(pilot.app.screen, ConsoleScreen)
        assert pilot.app.current_mode == pilot.app.screen.NAME


# Sizes


@every_screen
async def test_a_terminal_that_is_too_small_says_so_until_it_grows(name: str) -> None:
    async with screen_of(name, size=(80, 24)) as pilot:
        await until(pilot, lambda: lines_of(pilot)[0].startswith(" fedconsole "))
        before = lines_of(pilot)[0]
        await resized(pilot, 40, 10)
        await settle(pilot)
        shown = [line.strip() for line in lines_of(pilot) if line.strip()]
        assert shown == ["terminal too small (need 60x15)"]
        await resized(pilot, 80, 24)
        await until(pilot, lambda: lines_of(pilot)[0] == before)
        assert "too small" not in text_of(pilot)


@every_screen
async def test_no_size_ends_the_console(name: str) -> None:
    async with screen_of(name) as pilot:
        for width, height in ((1, 1), (60, 15), (80, 24), (2, 90), (250, 2), (250, 70), (500, 200)):
            await resized(pilot, width, height)
            await settle(pilot)
            lines = lines_of(pilot)
            assert (len(lines), pilot.app.return_code) == (height, None)
            assert all(len(line) <= width for line in lines)
        assert isinstance(pilot.app, FedconsoleApp)
