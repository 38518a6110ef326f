from __future__ import annotations

from typing import Any

from fedconsole.tui.desk import Line
from tests.support.desk import NOW, SlowDesk
from tests.support.histories import press, text_of
from tests.tui.driving import console, shows, until
from tests.tui.test_new_run_screen import (
    ATTIC,
    KITCHEN,
    WIDE,
    fill,
    fleet,
    foot_of,
    form_of,
    is_startable,
)


def trial(address: str, **fields: Any) -> Line:
    return {
        "time": NOW.isoformat(),
        "type": "preflight",
        "run": "r",
        "address": address,
        "worker": address,
        "ok": True,
        "reason": None,
        "batch_seconds": 0.25,
        "memory_bytes": 3 * 2**20,
        "num_examples": 640,
        **fields,
    }


def end(**fields: Any) -> Line:
    return {
        "time": NOW.isoformat(),
        "type": "run.finished",
        "run": "r",
        "outcome": "completed",
        "reason": None,
        "exit_code": 0,
        **fields,
    }


async def test_f5_shows_each_worker_s_trial_and_how_long_it_will_take() -> None:
    lines = [trial(KITCHEN), trial(ATTIC, batch_seconds=0.5), end()]
    async with console(fleet(preflight_lines=lines), "fleet", WIDE) as pilot:
        await press(pilot, "asterisk", "n")
        await fill(pilot, rounds="6", federate_after_n_batches="20")
        await press(pilot, "f5")
        await shows(pilot, "✓ 0.250 s a batch, 3.0M", "✓ 0.500 s a batch, 3.0M")
        # 6 rounds of 20 batches at the pace of the slower one.
        assert foot_of(pilot)[0] == (
            "✓ 2 workers are ready; training will take about 01:00; sending and tests come on top"
        )
        assert is_startable(pilot)
        await fill(pilot, rounds="7")
        await shows(pilot, "ready to start: F9")
        assert "a batch, 3.0M" not in text_of(pilot)


async def test_a_check_shows_what_speaks_against_a_worker_that_is_ready() -> None:
    worries = ["it is hot: 82 °C", "its clock is 120 min behind"]
    lines = [trial(KITCHEN, worries=worries), trial(ATTIC, worries=[]), end()]
    async with console(fleet(preflight_lines=lines), "fleet", (220, 40)) as pilot:
        await press(pilot, "asterisk", "n")
        await fill(pilot, rounds="6")
        await press(pilot, "f5")
        await shows(
            pilot, "✓ 0.250 s a batch, 3.0M  ▲ it is hot: 82 °C; its clock is", "✓ 2 workers"
        )


async def test_a_check_that_found_the_dataset_counts_more_than_what_the_fleet_knows() -> None:
    async with console(fleet(preflight_lines=[trial(ATTIC), end()]), "new", WIDE) as pilot:
        form_of(pilot).choose_workers([ATTIC])
        await shows(pilot, "no chosen worker has digits")
        await press(pilot, "f5")
        await shows(pilot, "✓ 1 workers are ready")
        assert is_startable(pilot)


async def test_a_check_that_fails_says_which_worker_and_why() -> None:
    lines = [
        trial(KITCHEN),
        trial(ATTIC, ok=False, reason="no dataset digits"),
        end(outcome="failed", reason="1 of 2 workers is not ready", exit_code=4),
    ]
    async with console(fleet(preflight_lines=lines), "fleet", WIDE) as pilot:
        await press(pilot, "asterisk", "n", "f5")
        await shows(pilot, "✗ no dataset digits", "✓ 0.250 s a batch")
        assert foot_of(pilot)[0] == (
            "✗ Run r failed: 1 of 2 workers is not ready. "
            "Mend it or choose other workers, then F5 again"
        )


async def test_nothing_starts_during_a_check() -> None:
    desk = SlowDesk(preflight_lines=[end()])
    async with console(desk, "new") as pilot:
        await fill(pilot, virtual="3")
        await press(pilot, "f5")
        words = "trying a batch on every worker… 0 of 3 answered, {} s"
        assert foot_of(pilot)[0] == words.format(0)
        desk.let_pass(12)
        await until(pilot, lambda: foot_of(pilot)[0] == words.format(12))
        assert not is_startable(pilot)
        await press(pilot, "f9")
        assert desk.started == []
        desk.may_go_on.set()
        await shows(pilot, "0 workers are ready")
        assert is_startable(pilot)


async def test_a_check_says_nothing_of_a_plan_that_was_typed_meanwhile() -> None:
    desk = SlowDesk(preflight_lines=[trial(KITCHEN), end()])
    async with console(desk, "new", WIDE) as pilot:
        await fill(pilot, virtual="3")
        await press(pilot, "f5")
        await fill(pilot, task="mnist")
        assert "trying a batch on every worker… 0 of 3" in foot_of(pilot)[0]
        desk.may_go_on.set()
        await until(pilot, lambda: is_startable(pilot))
        assert foot_of(pilot)[0] == (
            "▲ the form was changed during the check: F5 checks it as it is now"
        )
        assert form_of(pilot).trials == {}


async def test_a_check_counts_for_a_plan_that_was_changed_back_meanwhile() -> None:
    desk = SlowDesk(preflight_lines=[trial(KITCHEN), end()])
    async with console(desk, "new", WIDE) as pilot:
        await fill(pilot, virtual="3", rounds="2")
        await press(pilot, "f5")
        await fill(pilot, rounds="20")
        await fill(pilot, rounds="2")
        desk.may_go_on.set()
        await shows(pilot, "✓ 1 workers are ready")
