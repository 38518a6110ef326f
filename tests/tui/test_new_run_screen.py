from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Collapsible, Input, Select

from fedconsole.coordinator.plan import OnQuorumLoss, Optimizer, Plan
from fedconsole.errors import RefusedError
from fedconsole.tui.screens.live import LiveScreen
from fedconsole.tui.screens.new_run import NewRunScreen
from fedconsole.tui.widgets.form_field import FormField
from fedconsole.tui.widgets.line_table import LineTable
from tests.support.desk import PreparedDesk
from tests.support.histories import a_run, lines_of, press, settle, text_of, told
from tests.tui.driving import add_device, card, console, hello, offered, shows, type_in, until

KITCHEN, ATTIC = "10.0.0.1:10002", "10.0.0.2:10002"
WIDE = (170, 40)
READY = Plan(virtual=3, rounds=2, lr=0.5)


def fleet(**fields: Any) -> PreparedDesk:
    """Two devices; only one of them has the dataset of the default task."""
    desk = PreparedDesk(**fields)
    for name, address, data in (("kitchen", KITCHEN, "digits"), ("attic", ATTIC, "ecg")):
        add_device(desk, name, address, said=hello(name, datasets=[card(data)]))
    return desk


def form_of(pilot: Pilot[None]) -> NewRunScreen:
    screen = pilot.app.screen
    assert isinstance(screen, NewRunScreen)
    return screen


def problem_of(pilot: Pilot[None], name: str) -> str:
    """What stands under a field; "": nothing."""
    (own,) = (each for each in form_of(pilot).query(FormField) if each.spec.name == name)
    error = own.query_one(".error")
    return str(error.render()) if error.display else ""


def foot_of(pilot: Pilot[None]) -> list[str]:
    """What is missing, and the command line."""
    return [str(form_of(pilot).query_one(name).render()) for name in ("#missing", "#command")]


def is_startable(pilot: Pilot[None]) -> bool:
    is_offered = {"start", "check"} <= offered(pilot).keys()
    assert is_offered is not form_of(pilot).query_one("#start", Button).disabled
    return is_offered


def worker_rows(pilot: Pilot[None]) -> list[str]:
    rows = [line.partition("│")[2] for line in lines_of(pilot)[2:20]]
    return [row for row in rows if row.strip()]


async def fill(pilot: Pilot[None], **texts: str) -> None:
    for name, text in texts.items():
        await type_in(pilot, name, text)


async def fold(pilot: Pilot[None], *, is_folded: bool) -> None:
    """The fields that few runs need."""
    form_of(pilot).query_one(Collapsible).collapsed = is_folded
    await settle(pilot)


# Typing


async def test_what_is_wrong_stands_under_its_field_while_it_is_typed() -> None:
    async with console(PreparedDesk(), "new") as pilot:
        form_of(pilot).query_one("#lr", Input).focus()
        seen = []
        for key in ("0", "x", "backspace", "full_stop", "5"):
            await press(pilot, key)
            seen.append(problem_of(pilot, "lr"))
        assert seen == [
            "✗ lr is 0.0: expected a finite learning rate above 0, such as 0.01",
            "✗ lr is '0x': expected a number",
            "✗ lr is 0.0: expected a finite learning rate above 0, such as 0.01",
            "✗ lr is '0.': expected a number",
            "",
        ]
        assert "✗" not in "\n".join(lines_of(pilot)[1:20])


async def test_the_form_is_there_before_all_of_its_fields_and_keeps_what_is_typed_meanwhile() -> (
    None
):
    async with console(fleet(settings={"rounds": 7}), "fleet") as pilot:
        await pilot.app.switch_mode("new")
        form = form_of(pilot)
        assert [field.spec.name for field in form.query(FormField)] == ["task"]
        form.query_one("#task", Input).value = "ecg"
        await until(pilot, lambda: form.query("#more"))
        await settle(pilot)
        typed = {field.spec.name: field.text for field in form.query(FormField) if field.text}
        assert typed == {"task": "ecg", "rounds": "7"}


@pytest.mark.parametrize("size", [(60, 15), WIDE], ids=str)
async def test_tab_waits_for_the_next_field_and_what_is_typed_behind_it_too(
    size: tuple[int, int],
) -> None:
    async with console(fleet(), "fleet", size) as pilot:
        await pilot.app.switch_mode("new")
        assert len(form_of(pilot).query(FormField)) == 1
        await press(pilot, "tab", "tab", "2", "0")
        assert form_of(pilot).query_one("#rounds", Input).value == "20"


async def test_what_is_missing_is_listed_and_the_start_is_disabled_until_nothing_is() -> None:
    async with console(PreparedDesk(), "new") as pilot:
        assert foot_of(pilot) == [
            "✗ there are no workers: choose some on the right, or say how many to simulate",
            "",
        ]
        assert not is_startable(pilot)
        await fill(pilot, virtual="3", rounds="many", batch_size="0")
        assert foot_of(pilot) == ["✗ to be mended: rounds, batch size", ""]
        assert not is_startable(pilot)
        await fill(pilot, rounds="2", batch_size="")
        assert foot_of(pilot) == ["ready to start: F9", "fedconsole run --virtual 3 --rounds 2"]
        assert is_startable(pilot)


async def test_nothing_starts_while_something_is_missing() -> None:
    desk = PreparedDesk()
    async with console(desk, "new") as pilot:
        await press(pilot, "f9", "ctrl+r", "enter", "f5", "ctrl+y")
        assert desk.started == []
        why = "not possible now: the form is not complete"
        assert told(pilot) == [
            f"{name}: {why}" for name in ("Start", "Start", "Check", "Copy the command")
        ]


async def test_a_field_that_is_folded_away_is_named_when_it_is_wrong() -> None:
    async with console(PreparedDesk(), "new") as pilot:
        await fold(pilot, is_folded=False)
        await fill(pilot, virtual="1", holdout="1")
        await fold(pilot, is_folded=True)
        assert foot_of(pilot)[0] == "✗ to be mended: holdout"


async def test_values_of_fields_that_are_folded_away_stay_and_are_there_when_unfolded() -> None:
    desk = PreparedDesk(plan=Plan(virtual=2, rounds=3, holdout=0.25, eval_every="epoch"))
    async with console(desk, "new") as pilot:
        await press(pilot, "ctrl+l")
        await fill(pilot, rounds="4")
        options = "--virtual 2 --rounds 4 --holdout 0.25 --eval-every epoch"
        assert foot_of(pilot)[1] == f"fedconsole run {options}"
        for is_folded in (False, True, False):
            await fold(pilot, is_folded=is_folded)
            assert foot_of(pilot)[1] == f"fedconsole run {options}"
        assert form_of(pilot).query_one("#holdout", Input).value == "0.25"
        assert form_of(pilot).query_one("#eval_every", Input).value == "epoch"
        await fill(pilot, holdout="")
        assert foot_of(pilot)[1] == "fedconsole run --virtual 2 --rounds 4 --eval-every epoch"


async def test_settings_of_files_stand_in_the_form_from_the_start() -> None:
    desk = PreparedDesk(settings={"virtual": 2, "lr": 0.1, "workers": ("127.0.0.1:9",)})
    async with console(desk, "new") as pilot:
        ready = "ready to start: F9  ▲ not there now: 127.0.0.1:9; a run would wait for them"
        # The line does the same where those files are not.
        command = "fedconsole run --worker 127.0.0.1:9 --virtual 2 --lr"
        assert foot_of(pilot) == [ready, f"{command} 0.1"]
        await fill(pilot, lr="0.2")
        assert foot_of(pilot)[1] == f"{command} 0.2"


# Workers


async def test_devices_are_chosen_in_the_table_and_say_what_they_lack() -> None:
    async with console(fleet(), "new") as pilot:
        assert "kitchen" in text_of(pilot)
        assert "has no digits" in next(line for line in lines_of(pilot) if "attic" in line)
        form_of(pilot).query_one("#workers").focus()
        await press(pilot, "space", "enter")
        assert form_of(pilot).state.workers == (KITCHEN, ATTIC)
        await press(pilot, "enter")
        assert foot_of(pilot)[1] == f"fedconsole run --worker {ATTIC}"
        await fill(pilot, task="ecg")
        await shows(pilot, "has no ecg")
        assert "has no ecg" in next(line for line in lines_of(pilot) if "kitchen" in line)


async def test_no_start_is_offered_when_no_chosen_worker_has_the_dataset() -> None:
    desk = fleet()
    words = "✗ no chosen worker has digits: deal it, or choose others"
    async with console(desk, "new") as pilot:
        form_of(pilot).choose_workers([ATTIC])
        await shows(pilot, words)
        assert not is_startable(pilot)
        assert "check" in offered(pilot)
        await press(pilot, "f9", "enter")
        assert desk.started == []
        await fill(pilot, task="ecg")
        assert (foot_of(pilot)[0], is_startable(pilot)) == ("ready to start: F9", True)
        await fill(pilot, task="")
        assert foot_of(pilot)[0] == words
        form_of(pilot).choose_workers([ATTIC, KITCHEN])
        await until(pilot, lambda: is_startable(pilot))
        form_of(pilot).choose_workers([ATTIC])
        desk.inventory.told_datasets(ATTIC, hello("attic", datasets=[card()]).datasets, desk.time_s)
        await until(pilot, lambda: is_startable(pilot))
        assert foot_of(pilot)[0] == "ready to start: F9"


@pytest.mark.parametrize("other", [{"workers": ("10.9.9.9:1",)}, {"virtual": 1}], ids=str)
async def test_a_worker_whose_data_nobody_knows_may_start(other: dict[str, Any]) -> None:
    desk = fleet(plan=Plan(**{"workers": (ATTIC,), **other}))
    async with console(desk, "new") as pilot:
        await press(pilot, "ctrl+l")
        assert is_startable(pilot)


async def test_escape_leaves_the_fields_for_the_table_and_never_the_console() -> None:
    async with console(fleet(), "new") as pilot:
        await press(pilot, "tab")
        assert isinstance(pilot.app.focused, Input)
        await press(pilot, "escape")
        assert isinstance(pilot.app.focused, LineTable)
        await press(pilot, "escape", "escape", "4", "2")
        assert form_of(pilot).is_current


# The command line


async def test_the_equal_command_line_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my task.py").touch()
    async with console(PreparedDesk(), "new") as pilot:
        await fold(pilot, is_folded=False)
        await fill(pilot, virtual="3", task="my task.py", stop_at="accuracy=0.95")
        command = "fedconsole run --task 'my task.py' --virtual 3 --stop-at accuracy=0.95"
        assert foot_of(pilot)[1] == command
        assert command in text_of(pilot)
        await press(pilot, "ctrl+y")
        assert pilot.app.clipboard == command
        assert told(pilot) == [f"copied: {command[:59]}…"]


async def test_the_plan_is_written_to_a_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with console(PreparedDesk(), "new") as pilot:
        await fill(pilot, virtual="3", rounds="2")
        form_of(pilot).query_one("#workers").focus()
        await press(pilot, "f6", "f6")
        path = tmp_path / "run.toml"
        assert path.read_text() == "[run]\nvirtual = 3\nrounds = 2\n"
        assert told(pilot) == [
            f"fedconsole run --config {path}",
            f"{path} exists; move it away first",
        ]


# Start


async def test_f9_starts_exactly_the_plan_that_is_shown() -> None:
    desk = fleet()
    async with console(desk, "new") as pilot:
        await fold(pilot, is_folded=False)
        form_of(pilot).query_one("#workers").focus()
        await press(pilot, "asterisk")
        form_of(pilot).query_one("#optimizer", Select).value = "adam"
        form_of(pilot).query_one("#on_quorum_loss", Select).value = "fail"
        await fill(pilot, rounds="4", lr="0.02", min_updates="1", round_timeout_s="30", seed="7")
        shown = foot_of(pilot)[1]
        assert shlex.split(shown)[2:] == [
            *("--worker", KITCHEN, "--worker", ATTIC, "--rounds", "4", "--lr", "0.02"),
            *("--optimizer", "adam", "--min-updates", "1", "--round-timeout", "30.0"),
            *("--on-quorum-loss", "fail", "--seed", "7"),
        ]
        await press(pilot, "f9")
        await shows(pilot, "PREPARING")
        assert desk.started == [
            Plan(
                workers=(KITCHEN, ATTIC),
                rounds=4,
                lr=0.02,
                optimizer=Optimizer.ADAM,
                min_updates=1,
                round_timeout_s=30.0,
                on_quorum_loss=OnQuorumLoss.FAIL,
                seed=7,
            )
        ]
        screen = pilot.app.screen
        assert isinstance(screen, LiveScreen)
        assert screen.run_id == "20261123-0001"
        assert told(pilot) == [shown]


@pytest.mark.parametrize("key", ["enter", "ctrl+r"])
async def test_other_keys_start_too(key: str) -> None:
    desk = PreparedDesk()
    async with console(desk, "new") as pilot:
        await fill(pilot, virtual="3", rounds="2", lr="0.5")
        await press(pilot, "tab", key)
        await shows(pilot, "PREPARING")
        assert desk.started == [READY]


async def test_a_refused_start_says_why_and_keeps_what_was_typed() -> None:
    desk = PreparedDesk(refusal=RefusedError("the disk is full"))
    async with console(desk, "new") as pilot:
        await fill(pilot, virtual="3", rounds="2", lr="0.5")
        await press(pilot, "f9")
        await shows(pilot, "the disk is full")
        assert told(pilot) == ["the disk is full"]
        assert foot_of(pilot) == [
            "✗ the disk is full",
            "fedconsole run --virtual 3 --rounds 2 --lr 0.5",
        ]
        desk.refusal = None
        await press(pilot, "f9")
        await shows(pilot, "PREPARING")
        assert desk.started == [READY]


# Choosing among many


async def test_the_workers_can_be_filtered_and_only_those_shown_are_marked() -> None:
    async with console(fleet(), "new", WIDE) as pilot:
        await press(pilot, "escape", "slash", *"kit")
        await shows(pilot, " 1/2")
        # What is typed there is no part of the form.
        assert form_of(pilot).query_one("#task", Input).value == ""
        await press(pilot, "enter", "asterisk")
        assert form_of(pilot).state.workers == (KITCHEN,)
        await press(pilot, "escape")
        assert [row.split()[0] for row in worker_rows(pilot)[:2]] == ["□", "■"]
        assert form_of(pilot).state.workers == (KITCHEN,)


# Plans of other runs


async def test_the_last_run_s_settings_come_back() -> None:
    async with console(PreparedDesk(plan=READY), "new") as pilot:
        await fill(pilot, momentum="0.9")
        await press(pilot, "ctrl+l")
        assert foot_of(pilot)[1] == "fedconsole run --virtual 3 --rounds 2 --lr 0.5"
        assert told(pilot) == ["the form shows that run's plan"]


async def test_without_a_last_run_the_form_stays_as_it_is() -> None:
    async with console(PreparedDesk(), "new") as pilot:
        await fill(pilot, momentum="0.9")
        await press(pilot, "ctrl+l")
        assert form_of(pilot).query_one("#momentum", Input).value == "0.9"
        assert told(pilot) == ["there is no run yet"]


async def test_a_run_of_the_history_is_cloned_into_the_form() -> None:
    plan = {"task": "digits", "workers": [KITCHEN, "10.9.9.9:1"], "virtual": 0, "lr": 0.5}
    desk = fleet(summaries={"20261123-0001": a_run(1, plan=plan | {"nesterov": False})})
    async with console(desk, "history") as pilot:
        await press(pilot, "f")
        command = f"fedconsole run --worker {KITCHEN} --worker 10.9.9.9:1 --lr 0.5"
        assert foot_of(pilot)[1] == command
        # A worker that is not in the fleet now stays in sight.
        await until(pilot, lambda: [row[0] for row in worker_rows(pilot)] == ["■", "□", "■"])
        await press(pilot, "f9")
        await shows(pilot, "PREPARING")
        assert desk.started == [Plan(workers=(KITCHEN, "10.9.9.9:1"), lr=0.5)]
