from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from textual.pilot import Pilot
from textual.widgets import Button

from fedconsole.coordinator.phases import Request
from fedconsole.errors import RefusedError
from fedconsole.tui.desk import Line
from fedconsole.tui.dialogs.alarms import AlarmsDialog
from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.formats import span
from fedconsole.tui.keys import JAMO
from fedconsole.tui.opening import Opening
from fedconsole.tui.screens.history import HistoryScreen
from fedconsole.tui.screens.live import LiveScreen
from fedconsole.tui.screens.run_page import RunPage
from fedconsole.tui.widgets.line_log import LineLog
from screenshots.__main__ import upto
from tests.support.histories import a_run, focused_label, lines_of, press, settle, text_of, told
from tests.tui.driving import (
    BUSY,
    DEGRADED,
    PAUSED,
    RUN,
    after,
    console,
    going,
    offered,
    palette_of,
    put_run,
    shows,
    until,
)

LIVE = Opening("live", RUN)
_BEGIN, _NOW = (datetime.fromisoformat(line["time"]) for line in (BUSY[0], BUSY[-1]))
PASSED_S = (_NOW - _BEGIN).total_seconds()
LOSS_OF_BOB = {"worker": "bob", "address": "127.0.0.1:10002", "reason": "no answer in time"}


def log_of(pilot: Pilot[None]) -> LineLog:
    return pilot.app.screen.query_one(LineLog)


# What is shown


async def test_the_lines_of_a_run_appear_as_headline_workers_and_log() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        first, second = lines_of(pilot)[1:3]
        assert first.startswith(f" {RUN}  digits  round 7/10 ")
        assert f"elapsed {span(PASSED_S)}" in first
        assert second.split()[:2] == ["▶", "TRAINING"]
        assert "workers 3/3, need 3" in second
        rows = [line.split()[:3] for line in lines_of(pilot) if line.startswith("●")]
        assert [row[:2] for row in rows] == [["●A", "alice"], ["●B", "bob"], ["●C", "charlie"]]
        assert "delivered round 7" in text_of(pilot)


@pytest.mark.parametrize(("round_number", "has_spread"), [(1, False), (2, True)])
async def test_the_spread_of_the_eta_is_shown_once_it_is_known(
    round_number: int, has_spread: bool
) -> None:
    lines = upto(PAUSED, "round.finished", round=round_number)
    # Rounds of equal length have none either.
    lines[-1] = {**lines[-1], "seconds": 10.0 * round_number}
    async with console(going(lines), LIVE) as pilot:
        first = lines_of(pilot)[1]
        assert ("ETA 0" in first, "(±" in first) == (True, has_spread)


async def test_what_the_engine_writes_later_appears_too() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        desk.tell(
            RUN,
            after(BUSY, "worker.joined", worker="dora", address="127.0.0.1:5"),
            after(BUSY, "log", worker="dora", level="warning", text="my fan is loud"),
        )
        await shows(pilot, "workers 4/4, need 3", "dora", "WARN", "my fan is loud")


async def test_a_run_at_its_start_says_what_it_waits_for() -> None:
    async with console(going(BUSY[:1]), LIVE) as pilot:
        assert "PREPARING" in text_of(pilot)
        assert "waiting for workers" in text_of(pilot)
        assert "no losses yet" in text_of(pilot)


async def test_the_time_goes_on_without_lines() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        desk.let_pass(300)
        await shows(pilot, f"elapsed {span(PASSED_S + 300)}")


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=365)])
async def test_a_clock_that_jumps_changes_no_duration(jump: timedelta) -> None:
    desk = going([*BUSY, after(BUSY, "run.quorum", 0, have=2, need=3, seconds_left=100.0)])
    async with console(desk, LIVE) as pilot:
        await shows(pilot, "100 s left")
        desk.wall += jump
        desk.let_pass(40)
        await shows(pilot, f"elapsed {span(PASSED_S + 40)}", "60 s left")
        desk.tell(RUN, after(BUSY, "worker.lost", 40 + jump.total_seconds(), **LOSS_OF_BOB))
        await shows(pilot, "bob lost 00:00, retrying")
        desk.let_pass(5)
        await shows(pilot, f"elapsed {span(PASSED_S + 45)}", "bob lost 00:05, retrying")


async def test_the_end_of_a_run_says_how_it_ended_and_what_to_type_next() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE, (160, 40)) as pilot:
        desk.tell(RUN, {**PAUSED[-1], "model_path": "/models/m"})
        await shows(pilot, f"✓ Run {RUN} completed", "Model: /models/m", "✓ COMPLETED")
        assert f"Next: fedconsole runs show {RUN}" in text_of(pilot)


# Requests


@pytest.mark.parametrize(
    ("lines", "request_made", "word"),
    [
        (BUSY, Request.PAUSE, "Pause"),
        (upto(PAUSED, "run.pausing"), Request.RESUME, "Resume"),
        (upto(PAUSED, "run.paused"), Request.RESUME, "Resume"),
        (upto(PAUSED, "run.resumed"), Request.PAUSE, "Pause"),
    ],
    ids=["training", "pausing", "paused", "resumed"],
)
async def test_one_key_pauses_and_resumes_by_the_phase(
    lines: list[Line], request_made: Request, word: str
) -> None:
    desk = going(lines)
    async with console(desk, LIVE) as pilot:
        assert f" p {word} " in lines_of(pilot)[-1]
        assert {"pause", "resume"} & offered(pilot).keys() == {request_made.value}
        await press(pilot, "p", ends="request")
        assert desk.requests == [(RUN, request_made)]
        assert told(pilot) == [f"fedconsole {request_made} {RUN}"]


async def test_pausing_names_who_has_not_acknowledged_yet() -> None:
    pausing = after(BUSY, "run.pausing", round=7, waiting_for=["alice", "bob", "charlie"])
    desk = going([*BUSY, pausing])
    async with console(desk, LIVE) as pilot:
        assert "‖ PAUSING… waiting for alice, bob, charlie" in text_of(pilot)
        desk.tell(RUN, after(BUSY, "worker.phase", worker="bob", round=7, phase="paused"))
        await shows(pilot, "PAUSING… waiting for alice, charlie ")
        desk.tell(RUN, after(BUSY, "run.paused", round=7, waiting_for=[]))
        await shows(pilot, "‖ PAUSED ")
        assert "waiting for" not in lines_of(pilot)[2]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("a", "The workers stop within a batch. The model of the last complete"),
        ("o", "The open round is completed, then the run ends; it cannot be"),
    ],
    ids=["abort", "stop"],
)
@pytest.mark.parametrize("answer", ["enter", "escape"])
async def test_ending_a_run_asks_and_does_nothing_unless_told_to(
    key: str, words: str, answer: str
) -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        await press(pilot, key)
        assert isinstance(pilot.app.screen, Choice)
        assert focused_label(pilot) == "Cancel"
        assert words in text_of(pilot)
        await press(pilot, answer, ends="ask")
        assert isinstance(pilot.app.screen, LiveScreen)
        assert desk.requests == []


@pytest.mark.parametrize(
    ("key", "label", "request_made", "command"),
    [
        ("a", "Abort now", Request.ABORT, f"fedconsole abort {RUN}"),
        ("a", "Stop after this round", Request.STOP, f"fedconsole abort {RUN} --after-round"),
        ("o", "Stop after this round", Request.STOP, f"fedconsole abort {RUN} --after-round"),
    ],
)
async def test_an_answer_is_carried_out_as_its_label_says(
    key: str, label: str, request_made: Request, command: str
) -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        await press(pilot, key, "left")
        while focused_label(pilot) != label:
            await press(pilot, "left")
        await press(pilot, "enter", ends="request")
        await until(pilot, lambda: desk.requests)
        assert desk.requests == [(RUN, request_made)]
        assert told(pilot) == [command]


async def test_a_run_that_will_stop_after_its_round_says_so() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        desk.tell(RUN, after(BUSY, "run.stopping", round=7))
        await shows(pilot, "TRAINING, stops after this round", "round 7/7")
        assert "stop" not in offered(pilot)
        reasons = {command.title: command.why for command in palette_of(pilot)}
        words = "not possible now: it stops after this round already"
        assert reasons["Stop after this round"] == words
        await press(pilot, "a")
        labels = [str(button.label) for button in pilot.app.screen.query(Button)]
        assert labels == ["Abort now", "Cancel"]


async def test_the_question_whether_to_stop_closes_when_another_console_has_asked() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        await press(pilot, "o")
        assert isinstance(pilot.app.screen, Choice)
        desk.tell(RUN, after(BUSY, "run.stopping", round=7))
        await until(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        assert desk.requests == []


@pytest.mark.parametrize(
    ("lines", "possible"),
    [
        (BUSY[:1], {"abort"}),
        (BUSY, {"pause", "abort", "stop"}),
        (upto(PAUSED, "run.paused"), {"resume", "abort", "stop"}),
        ([*BUSY, after(BUSY, "run.aborting", waiting_for=["alice"])], {"abort"}),
        (PAUSED, set()),
    ],
    ids=["gathering", "training", "paused", "aborting", "completed"],
)
async def test_what_is_not_possible_now_is_neither_offered_nor_asked_for(
    lines: list[Line], possible: set[str]
) -> None:
    desk = going(lines)
    async with console(desk, LIVE) as pilot:
        asked = {"pause", "resume", "abort", "stop"}
        assert asked & offered(pilot).keys() == possible
        for key, actions in (("p", {"pause", "resume"}), ("o", {"stop"}), ("a", {"abort"})):
            if not actions & possible:
                await press(pilot, key)
                assert isinstance(pilot.app.screen, LiveScreen)
        assert desk.requests == []


@pytest.mark.parametrize("key", ["p", JAMO["p"]])
async def test_a_key_that_is_not_possible_now_says_why(key: str) -> None:
    desk = going(BUSY[:1])
    async with console(desk, LIVE) as pilot:
        await press(pilot, key)
        words = "Pause: not possible now: the run is PREPARING"
        assert (told(pilot), desk.requests) == ([words], [])


async def test_without_a_request_to_stop_the_question_offers_to_abort_only() -> None:
    desk = going([*BUSY, after(BUSY, "run.aborting", waiting_for=["alice"])])
    async with console(desk, LIVE) as pilot:
        assert "ABORTING… waiting for alice" in text_of(pilot)
        await press(pilot, "a")
        labels = [str(button.label) for button in pilot.app.screen.query(Button)]
        assert labels == ["Abort now", "Cancel"]


async def test_why_a_request_was_refused_is_shown() -> None:
    desk = going(BUSY)
    desk.refusal = RefusedError("cannot pause: the run is finishing; possible now: abort")
    async with console(desk, LIVE) as pilot:
        await press(pilot, "p", ends="request")
        assert told(pilot) == ["cannot pause: the run is finishing; possible now: abort"]
        assert desk.requests == []


# Trouble


async def test_a_lost_worker_gives_a_banner_and_an_alarm() -> None:
    lines = upto(DEGRADED, "round.started", round=4)
    run, lost = lines[0]["run"], upto(DEGRADED, "worker.lost")[-1]
    desk = going(lines)
    async with console(desk, Opening("live", run)) as pilot:
        desk.tell(run, {**lost, "time": lines[-1]["time"]})
        desk.let_pass(39)
        await shows(pilot, "▲ bob lost 00:39, retrying; quorum 2/2 still met", "○B bob")
        words = f"bob ({lost['address']}) lost: {lost['reason']}."
        assert told(pilot) == [words]
        await press(pilot, "exclamation_mark")
        assert isinstance(pilot.app.screen, AlarmsDialog)
        assert f"▲ {words}" in text_of(pilot)
        await press(pilot, "escape")
        desk.tell(run, after(lines, "worker.rejoined", worker="bob", address=lost["address"]))
        await until(pilot, lambda: "retrying" not in text_of(pilot))
        assert "●B bob" in text_of(pilot)


async def test_what_is_shown_of_an_engine_that_says_nothing_is_marked_as_old() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        desk.let_pass(39)
        await shows(pilot, f"elapsed {span(PASSED_S + 39)}")
        assert "has said nothing" not in text_of(pilot)
        desk.let_pass(22)
        await shows(pilot, "▲ the engine has said nothing for 01:01")
        desk.tell(RUN, after(BUSY, "heartbeat", 61, text="the engine is alive"))
        await until(pilot, lambda: "has said nothing" not in text_of(pilot))


@pytest.mark.parametrize("num_alarms", [2, 5])
async def test_alarms_that_come_together_are_told_each_but_not_more_than_three(
    num_alarms: int,
) -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        reasons = [f"reason {number}" for number in range(num_alarms)]
        lines = [after(BUSY, "worker.rejected", worker="bob", round=7, reason=r) for r in reasons]
        desk.tell(RUN, *lines)
        expected = min(num_alarms, 3) + (num_alarms > 3)
        await until(pilot, lambda: len(told(pilot)) >= expected)
        words = told(pilot)
        assert [r for r in reasons if any(r in w for w in words)] == reasons[:3]
        assert ("and 2 more, see !" in words) == (num_alarms == 5)
        assert len(words) == expected


async def test_without_trouble_there_are_no_alarms() -> None:
    async with console(going(BUSY), LIVE) as pilot:
        await press(pilot, "exclamation_mark")
        assert "no alarms" in text_of(pilot)


async def test_the_commands_that_were_echoed_stand_beside_the_alarms() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE) as pilot:
        await press(pilot, "p")
        await until(pilot, lambda: told(pilot))
        desk.let_pass(5)
        await press(pilot, "o", "left", "enter")
        await until(pilot, lambda: len(told(pilot)) > 1)
        await press(pilot, "exclamation_mark")
        shown = text_of(pilot).partition("Commands so far")[2]
        later, earlier = f"fedconsole abort {RUN} --after-round ", f"fedconsole pause {RUN} "
        assert 0 < shown.find(later) < shown.find(earlier)


async def test_a_quorum_in_danger_counts_down() -> None:
    desk = going([*BUSY, after(BUSY, "run.quorum", 0, have=2, need=3, seconds_left=100.0)])
    async with console(desk, LIVE) as pilot:
        assert "▲ 2 of 3 needed; 100 s left" in text_of(pilot)
        desk.let_pass(40)
        await shows(pilot, "▲ 2 of 3 needed; 60 s left")
        desk.tell(RUN, after(BUSY, "run.paused", 40, round=7, waiting_for=[]))
        await shows(pilot, "PAUSED")
        assert "▲ 2 of 3 needed" in text_of(pilot)
        assert "s left" not in text_of(pilot)
        resumed = after(BUSY, "run.resumed", 40, round=7)
        again = after(BUSY, "run.quorum", 40, have=2, need=3, seconds_left=90.0)
        desk.tell(RUN, resumed, again)
        await shows(pilot, "TRAINING", "▲ 2 of 3 needed; 90 s left")


def waiting(**fields: object) -> Line:
    said = {"have": 2, "need": 3, "seconds_left": 100.0, "phase": "waiting", "then": "fail"}
    return after(BUSY, "run.quorum", 0, **said | fields)


async def test_a_run_that_lacks_workers_counts_down_to_what_happens_then() -> None:
    desk = going([*BUSY, waiting()])
    async with console(desk, LIVE, (120, 40)) as pilot:
        await shows(pilot, "WAITING", "2 of 3 needed; 100 s left, then it fails; f or g: choose")
        assert {"fewer": "f", "wait": "g"}.items() <= offered(pilot).items()
        desk.let_pass(40)
        await shows(pilot, "60 s left, then it fails")
        desk.tell(RUN, after(BUSY, "run.fewer", 41, round=7, have=2, need=3))
        await until(pilot, lambda: "f or g" not in text_of(pilot))
        assert {"fewer", "wait"} & offered(pilot).keys() == set()


async def test_a_missing_worker_that_is_made_ready_is_named() -> None:
    lost = after(BUSY, "worker.lost", 0, worker="bob", address="b", reason="link closed")
    desk = going([*BUSY, lost, waiting(then="wait", preparing=["bob"])])
    async with console(desk, LIVE, (120, 40)) as pilot:
        await shows(pilot, "bob lost 00:00, back and getting ready")
        desk.tell(RUN, waiting())
        await shows(pilot, "bob lost 00:00, retrying")


async def test_more_time_is_given_by_one_key() -> None:
    desk = going([*BUSY, waiting()])
    async with console(desk, LIVE) as pilot:
        await press(pilot, "g", ends="request")
        assert desk.requests == [(RUN, Request.WAIT)]
        assert told(pilot)[-1:] == [f"fedconsole quorum {RUN} wait"]


@pytest.mark.parametrize(
    ("label", "requests"),
    [
        ("Cancel", []),
        ("Go on with 2", [(RUN, Request.FEWER)]),
        ("Give more time", [(RUN, Request.WAIT)]),
        ("Abort now", [(RUN, Request.ABORT)]),
    ],
)
async def test_going_on_with_fewer_is_a_question_whose_first_answer_is_to_leave_it(
    label: str, requests: list[object]
) -> None:
    desk = going([*BUSY, waiting()])
    async with console(desk, LIVE) as pilot:
        await press(pilot, "f")
        assert isinstance(pilot.app.screen, Choice)
        assert "2 of 3 needed" in text_of(pilot)
        assert focused_label(pilot) == "Cancel"
        while focused_label(pilot) != label:
            await press(pilot, "left")
        await press(pilot, "enter", ends="request")
        assert desk.requests == requests


async def test_nobody_is_nobody_to_go_on_with() -> None:
    desk = going([*BUSY, waiting(have=0)])
    async with console(desk, LIVE) as pilot:
        await press(pilot, "f")
        labels = [str(button.label) for button in pilot.app.screen.query(Button)]
        assert labels == ["Give more time", "Abort now", "Cancel"]


# Replay, and what only changes the picture


async def test_a_replay_is_held_and_goes_faster_and_slower() -> None:
    desk = going(PAUSED)
    desk.running.clear()
    async with console(desk, Opening("live", replay=(RUN, 10.0))) as pilot:
        await shows(pilot, "REPLAY 10x")
        await press(pilot, "greater_than_sign")
        assert "REPLAY 20x" in text_of(pilot)
        await press(pilot, "less_than_sign", "less_than_sign", "p")
        assert "REPLAY 5x held" in text_of(pilot)
        await press(pilot, "p")
        assert lines_of(pilot)[1].endswith("REPLAY 5x")


async def test_a_replay_that_is_over_can_no_longer_be_held() -> None:
    desk = going([PAUSED[0], {**PAUSED[-1], "time": PAUSED[0]["time"]}])
    desk.running.clear()
    async with console(desk, Opening("live", replay=(RUN, 10.0))) as pilot:
        await shows(pilot, "COMPLETED")
        await until(pilot, lambda: not {"replay_pause", "slower", "faster"} & offered(pilot).keys())
        await press(pilot, "p", "greater_than_sign")
        assert lines_of(pilot)[1].endswith("REPLAY 10x")


async def test_a_replay_can_be_asked_for_nothing() -> None:
    desk = going(PAUSED)
    desk.running.clear()
    async with console(desk, Opening("live", replay=(RUN, 10.0))) as pilot:
        await until(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        screen = pilot.app.screen
        keys = offered(pilot)
        assert {"pause", "resume", "abort", "stop"} & keys.keys() == set()
        assert {name: keys[name] for name in ("replay_pause", "slower", "faster")} == {
            "replay_pause": "p",
            "slower": "<",
            "faster": ">",
        }
        await press(pilot, "a", "o", "p")
        assert pilot.app.screen is screen
        assert desk.requests == []


async def test_what_a_replay_shows_is_no_news_and_escape_leads_back_to_the_history() -> None:
    desk = going(PAUSED[:1])
    desk.journals[RUN] = [PAUSED[0], {**PAUSED[-1], "time": PAUSED[0]["time"]}]
    desk.running.clear()
    async with console(desk, Opening("live", replay=(RUN, 60.0))) as pilot:
        await shows(pilot, "✓ COMPLETED")
        assert told(pilot) == []
        await press(pilot, "slash", "b", "enter", "escape")
        assert isinstance(pilot.app.screen, LiveScreen)
        live = pilot.app.screen
        await press(pilot, "escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, HistoryScreen))
        # As a second Escape does that came before the first was done.
        pilot.app.call_later(pilot.app.leave_replay, live)  # type: ignore[attr-defined]
        await settle(pilot)
        # The Live screen is that of the run that goes on.
        other = a_run(7, "running")
        desk.summaries[other.run] = other
        put_run(desk, [{**line, "run": other.run} for line in BUSY])
        await press(pilot, "3")
        await shows(pilot, other.run, "p Pause")


async def test_the_x_axis_goes_over_steps_time_and_rounds() -> None:
    async with console(going(BUSY), LIVE) as pilot:
        seen = []
        for _ in range(4):
            await settle(pilot)
            legend = next(line for line in lines_of(pilot) if "A alice" in line)
            seen.append(legend.split("T test")[1].split()[0])
            await press(pilot, "x")
    assert seen == ["step", "seconds", "round", "step"]


async def test_a_pane_is_zoomed_and_escape_brings_the_others_back() -> None:
    async with console(going(BUSY), LIVE) as pilot:
        log_of(pilot).focus()
        await press(pilot, "z")
        assert log_of(pilot).is_maximized
        assert "●A alice" not in text_of(pilot)
        # How the run stands, and the keys, are seen of any pane.
        assert "TRAINING" in "".join(lines_of(pilot)[:2])
        assert "p Pause" in lines_of(pilot)[-1]
        assert "delivered round 7" in text_of(pilot)
        await press(pilot, "escape")
        assert "●A alice" in text_of(pilot)
        await press(pilot, "z", "z")
        assert not log_of(pilot).is_maximized


async def test_a_key_opens_the_page_of_the_run() -> None:
    async with console(going(BUSY), LIVE) as pilot:
        await press(pilot, "r")
        assert isinstance(pilot.app.screen, RunPage)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, LiveScreen)


async def test_an_ending_that_has_no_room_says_where_all_of_it_is() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE, (80, 24)) as pilot:
        desk.tell(RUN, {**PAUSED[-1], "outcome": "failed", "reason": "the disk is full " * 9})
        await shows(pilot, f"✗ Run {RUN} failed: the disk is full", "… !: all of it")
        await press(pilot, "exclamation_mark")
        assert text_of(pilot).count("full") >= 9


async def test_how_a_run_ended_comes_before_what_to_type_next() -> None:
    desk = going(BUSY)
    async with console(desk, LIVE, (80, 24)) as pilot:
        desk.tell(RUN, {**PAUSED[-1], "outcome": "failed", "reason": "x" * 30, "model_path": "/m"})
        await shows(pilot, f"✗ Run {RUN} failed: {'x' * 30}.")
        assert "Next" not in text_of(pilot)


async def test_a_wide_screen_has_longer_trends() -> None:
    trends = {}
    for width in (90, 140):
        async with console(going(BUSY), LIVE, (width, 30)) as pilot:
            row = next(line for line in lines_of(pilot) if line.startswith("●A"))
            trends[width] = "".join(sign for sign in row if sign in "▁▂▃▄▅▆▇█")
    assert 12 <= len(trends[90]) < len(trends[140]) == 20
    assert trends[140].endswith(trends[90])


async def test_a_run_that_is_joined_late_says_that_its_lines_are_still_read() -> None:
    desk = going(BUSY)
    desk.wall += timedelta(seconds=20)
    async with console(desk, LIVE) as pilot:
        await shows(pilot, "catching up")
        desk.let_pass(2)
        await until(pilot, lambda: "catching up" not in text_of(pilot))
