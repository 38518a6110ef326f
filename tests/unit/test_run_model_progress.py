"""What a run's lines add up to: how much is done and left, who was there, what went wrong, and the log."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from fedconsole.sentences import seed_line, sentence
from fedconsole.tui.run_model import RunModel
from fedconsole.tui.run_records import AlarmRecord, Level, LogRecord, RoundRow, Series
from fedconsole.tui.run_records import Test as Evaluation
from tests.support.histories import HOSTILE
from tests.unit.test_run_model import (
    QUORUM,
    Line,
    after,
    batches,
    closed,
    created,
    finished,
    joined,
    line,
    lost,
    opened,
    phase,
    play,
    rejected,
    telemetry,
    update,
    waits,
)

NO_SERIES = Series()


def picture(model: RunModel) -> dict[str, Any]:
    """All that is known, as values; not that there was a line, nor the log."""
    of_lines = {"version", "last_at", "told_at", "_log"}
    known = {name: value for name, value in vars(model).items() if name not in of_lines}
    known["attendance"] = dict(model.attendance.rounds)
    known["workers"] = [replace(row, series=NO_SERIES) for row in model.workers.values()]
    return known


# How much is done and left


def test_the_share_counts_finished_rounds_and_the_batches_of_the_open_one() -> None:
    model = play(created(rounds=4), opened(1, "alice", "bob"))
    assert model.share() == 0
    play(batches("alice", [1.0] * 10), closed(1, "alice"), model=model)
    assert (model.share(), model.num_finished) == (0.25, 1)
    play(opened(2, "alice", "bob"), model=model)
    assert model.share() == 0.25
    play(batches("alice", [1.0] * 5), model=model)
    assert model.share() == (1 + 5 / 10 / 2) / 4
    play(closed(4, "alice"), opened(5, "alice"), batches("alice", [1.0] * 5), model=model)
    assert model.share() == 1.0


@pytest.mark.parametrize("epochs", [None, 3])
def test_without_a_number_of_rounds_neither_share_nor_eta_is_known(epochs: int | None) -> None:
    model = play(created(rounds=None, epochs=epochs), opened(1, "bob"), closed(1, "bob", at=1))
    assert (model.num_rounds, model.share(), model.eta_s(after(2))) == (None, None, None)


def test_the_rounds_of_the_first_epoch_tell_the_number_of_rounds() -> None:
    model = play(created(rounds=None, epochs=3), opened(1, "bob"), opened(2, "bob"))
    assert model.num_rounds is None
    play(opened(3, "bob", epoch=2), opened(4, "bob", epoch=2), model=model)
    assert (model.num_rounds, model.epoch) == (6, 2)


def test_the_eta_is_that_of_rounds_like_the_last_ones() -> None:
    model = play(created(rounds=4), opened(1, "bob"))
    assert model.eta_s(after(5)) is None
    play(closed(1, "bob", at=10, seconds=10.0), model=model)
    assert model.eta_s(after(10)) == (30.0, 0.0)
    play(opened(2, "bob", at=10), closed(2, "bob", at=24, seconds=14.0), model=model)
    assert model.eta_s(after(24)) == (24.0, pytest.approx(4.0))
    play(opened(3, "bob", at=100), model=model)
    assert model.eta_s(after(105)) == (19.0, pytest.approx(4.0))
    assert model.eta_s(after(999)) == (0.0, pytest.approx(4.0))
    assert play(finished(), model=model).eta_s(after(1_000)) is None


def test_what_is_left_of_a_run_that_stops_is_its_open_round() -> None:
    model = play(created(rounds=40), opened(1, "bob"), closed(1, "bob", at=10, seconds=10.0))
    play(opened(2, "bob", at=10), batches("bob", [1.0] * 5), model=model)
    assert (model.num_rounds, model.eta_s(after(14))) == (40, (386.0, 0.0))
    play(line("run.stopping", 14, round=2), model=model)
    assert (model.num_rounds, model.share(), model.eta_s(after(14))) == (2, 0.75, (6.0, 0.0))
    play(closed(2, "bob", at=20, seconds=10.0), model=model)
    assert (model.share(), model.eta_s(after(20))) == (1.0, (0.0, 0.0))


def test_a_pause_is_no_part_of_the_time_that_rounds_take() -> None:
    model = play(created(rounds=4), opened(1, "bob"), closed(1, "bob", at=10, seconds=10.0))
    play(opened(2, "bob", at=10), line("run.pausing", 13, round=2), model=model)
    assert model.eta_s(after(14)) == (26.0, 0.0)
    play(line("run.paused", 15, round=2), model=model)
    assert model.eta_s(after(15)) == model.eta_s(after(70)) == (25.0, 0.0)
    play(line("run.resumed", 75, round=2), model=model)
    assert model.eta_s(after(76)) == (24.0, 0.0)
    play(closed(2, "bob", at=80, seconds=70.0), line("run.paused", 80, round=2), model=model)
    assert model.eta_s(after(99)) == (20.0, 0.0)
    play(line("run.resumed", 99, round=2), opened(3, "bob", at=99), model=model)
    assert model.eta_s(after(100)) == (19.0, 0.0)
    play(closed(3, "bob", at=109, seconds=10.0), model=model)
    assert model.eta_s(after(109)) == (10.0, 0.0)
    assert [row.seconds for row in model.rounds] == [10.0, 70.0, 10.0]


@pytest.mark.parametrize(
    ("halt", "goes_on"),
    [
        (
            line("run.quorum", 60, have=1, need=2, seconds_left=30, phase="waiting"),
            closed(2, "bob", at=70),
        ),
        (line("run.stalled", 60, reason="the disk is full"), update("bob", 2, at=70)),
    ],
    ids=["waiting for workers", "waiting for room on the disk"],
)
def test_a_run_that_stands_still_has_no_eta(halt: Line, goes_on: Line) -> None:
    model = play(
        created(rounds=4), opened(1, "bob"), closed(1, "bob", seconds=10.0), opened(2, "bob")
    )
    assert model.eta_s(after(5)) is not None
    assert play(halt, model=model).eta_s(after(65)) is None
    assert play(goes_on, model=model).eta_s(after(71)) is not None


def test_a_run_that_waits_for_workers_is_as_fast_as_who_trains_meanwhile() -> None:
    model = play(
        created(rounds=4),
        opened(1, "bob"),
        *(batches("bob", [1.0], at=at, first=at) for at in (1, 2)),
    )
    assert model.examples_per_s > 0
    play(line("run.quorum", 3, have=1, need=2, seconds_left=30, phase="waiting"), model=model)
    assert model.examples_per_s == 0
    play(*(batches("bob", [1.0], at=at, first=at) for at in (4, 5)), model=model)
    play(line("run.quorum", 6, have=1, need=2, seconds_left=27, phase="waiting"), model=model)
    assert model.examples_per_s > 0


def test_another_engine_ends_a_pause() -> None:
    model = play(created(rounds=2), opened(1, "bob"), closed(1, "bob", seconds=10.0))
    play(opened(2, "bob"), line("run.paused", 1, round=2), model=model)
    play(line("run.restarted", 50, round=2), opened(2, "bob", at=60), model=model)
    assert model.eta_s(after(64)) == (6.0, 0.0)


def test_under_another_engine_nobody_trains_yet() -> None:
    model = play(created(), opened(1, "bob"))
    play(*(batches("bob", [1.0], at=at, first=at) for at in (1, 2)), model=model)
    bob = play(line("run.restarted", 3, round=1), model=model).workers["bob"]
    assert (bob.phase, bob.examples_per_s) == ("lost", None)


def test_time_passes_until_the_last_line_of_a_finished_run() -> None:
    assert play().elapsed_s(after(9)) == 0.0
    model = play(created(), opened(1, "bob", at=4))
    assert (model.elapsed_s(after(9)), model.elapsed_s(after(-9))) == (9.0, 0.0)
    assert play(finished(at=12), model=model).elapsed_s(after(99)) == 12.0


# Rounds


def test_a_round_adds_its_row_and_its_bytes() -> None:
    model = play(
        created(),
        opened(1, "alice", "bob"),
        closed(1, "alice", "bob", seconds=2.0),
        opened(2, "bob"),
        closed(2, "bob"),
    )
    assert model.rounds == [
        RoundRow(1, 0.5, 2.0, ("alice", "bob"), 10, 20),
        RoundRow(2, 0.5, 1.0, ("bob",), 10, 20),
    ]
    assert (model.bytes_sent, model.bytes_received) == (20, 40)
    assert (model.round, model.cohort, model.round_times.began_at) == (2, ("bob",), None)


def test_attendance_tells_what_came_of_everybody_in_every_round() -> None:
    model = play(opened(1, "alice", "bob", "charlie", "dave"), update("alice"), rejected("bob"))
    at_work = {"alice": "delivered", "bob": "rejected", "charlie": "at work", "dave": "at work"}
    assert model.attendance.rounds == {1: at_work}
    play(closed(1, "alice", "dave"), opened(2, "alice"), rejected("alice"), model=model)
    assert model.attendance.rounds == {
        1: {"alice": "delivered", "bob": "rejected", "charlie": "absent", "dave": "delivered"},
        2: {"alice": "at work"},
    }


def test_only_an_evaluation_of_the_whole_model_is_a_test() -> None:
    model = play(
        line("eval", round=1, worker="bob", loss=9.0, confusion={"a": [9]}),
        line("eval", round=1, worker=None, loss=0.5, accuracy=0.9, confusion={"a": [1]}),
        line("eval", round=2, holdout_loss=0.4, holdout_macro_f1=0.8),
    )
    assert model.tests == [Evaluation(1, 0.5, 0.9, None), Evaluation(2, 0.4, None, 0.8)]
    assert model.confusion == {}


# Quorum


@pytest.mark.parametrize(
    ("plan", "quorum"),
    [
        ({}, 2),
        ({"virtual": 3}, 5),
        ({"cohort_size": 2, "virtual": 3}, 2),
        ({"cohort_size": 3, "min_updates": 1, "virtual": 3}, 1),
    ],
)
def test_the_quorum_is_that_of_the_plan(plan: dict[str, int], quorum: int) -> None:
    assert play(created(**plan)).quorum == quorum


ENOUGH = line(
    "run.quorum", 8, have=2, need=2, of="workers", seconds_left=600.0, phase="training", then="wait"
)


@pytest.mark.parametrize("over", [opened(2, "bob"), closed(1, "bob"), finished("failed"), ENOUGH])
def test_a_quorum_in_danger_is_told_until_the_danger_is_over(over: Line) -> None:
    def danger(model: RunModel) -> tuple[object, ...]:
        return model.have, model.need, model.quorum_seconds_left, model.quorum_at, model.quorum

    model = play(created(virtual=3), QUORUM)
    assert danger(model) == (1, 2, 30.0, after(7), 2)
    assert danger(play(over, model=model)) == (None, None, None, None, 5)


def test_the_time_for_a_quorum_does_not_run_while_the_run_is_paused() -> None:
    model = play(created(), opened(1, "alice"), QUORUM)
    for what in ("run.pausing", "run.paused"):
        play(line(what, 9, round=1, waiting_for=[]), model=model)
        assert (model.have, model.need, model.quorum_seconds_left) == (1, 2, None)
    play(line("run.resumed", 40, round=1), model=model)
    assert (model.have, model.quorum_seconds_left) == (None, None)
    play(QUORUM | {"time": after(40).isoformat()}, model=model)
    assert (model.quorum_seconds_left, model.quorum_at) == (30.0, after(40))
    play(line("run.pausing", 50, round=1), line("run.resumed", 60, round=1), waits(), model=model)
    assert (model.phase.value, model.quorum_seconds_left) == ("waiting", 30.0)


# Alarms and telemetry


def test_an_update_that_comes_when_the_run_is_aborting_is_no_trouble() -> None:
    model = play(created(), joined("bob"), opened(1, "bob"), rejected("bob"))
    assert model.take_log()[-1].level is Level.ERROR
    model = play(created(), joined("bob"), opened(1, "bob"))
    play(line("run.aborting", round=1, waiting_for=["bob"]), rejected("bob"), model=model)
    assert model.take_log()[-1].level is Level.INFO
    assert (model.alarms, model.workers["bob"].error) == ([], "")


def test_what_was_lost_or_rejected_and_the_end_are_alarms() -> None:
    trouble = [lost("alice", at=1), rejected("bob", at=2), finished(at=3)]
    model = play(created(), joined("alice"), opened(1, "alice"), *trouble)
    assert model.alarms == [
        AlarmRecord(after(at), sentence(one), one.get("worker", ""))
        for at, one in enumerate(trouble, start=1)
    ]


def test_a_device_is_an_alarm_each_time_that_it_begins_to_be_throttled() -> None:
    # Bits 16 to 19 only remember that it once was.
    told = (None, 0x50000, 0, 0x50005, 0x4, 0, 0x50000, 0, 0x8)
    model = play(*(telemetry("pi", bits) for bits in told))
    alarm = AlarmRecord(after(0), "pi is throttled", "pi")
    assert model.alarms == [alarm, alarm]
    assert model.take_log() == [LogRecord(after(0), Level.WARNING, "pi", alarm.text)] * 2
    row = model.workers["pi"]
    assert (row.celsius, row.throttled, row.memory_bytes) == (61.5, 8, 1000)


def test_a_device_is_an_alarm_each_time_that_its_disk_begins_to_be_short() -> None:
    told = (None, 600, 511, 400, 700, 300, 1023, 1024, 511)
    free = [None if mib is None else mib << 20 for mib in told]
    model = play(*(telemetry("pi", 0, disk_free_bytes=num) for num in free))
    # In between there was twice as much as is needed: what comes and goes below that is no news.
    alarm = AlarmRecord(after(0), "pi is short of disk space: 511 MiB are free", "pi")
    assert model.alarms == [alarm, alarm]
    assert model.take_log() == [LogRecord(after(0), Level.WARNING, "pi", alarm.text)] * 2


def test_the_newest_500_alarms_are_kept() -> None:
    model = play(*(lost("bob", at=number) for number in range(520)))
    assert [alarm.time for alarm in model.alarms] == [after(number) for number in range(20, 520)]


# The log


@pytest.mark.parametrize(
    ("said", "level"),
    [
        (created(), Level.INFO),
        (phase("bob", "training"), Level.DEBUG),
        (line("heartbeat", text="alive"), Level.DEBUG),
        (line("warning", text="disk is low", worker=None), Level.WARNING),
        (lost("bob"), Level.WARNING),
        (line("worker.straggler", worker="bob", round=1), Level.WARNING),
        (QUORUM, Level.WARNING),
        (rejected("bob"), Level.ERROR),
        (finished("aborted"), Level.INFO),
        (finished("failed"), Level.ERROR),
        (line("log", worker="bob", level="debug", text="hm"), Level.DEBUG),
        (line("log", worker="bob", level="error", text="oh"), Level.ERROR),
        (line("log", worker="bob", level="\x1b[31m", text="ha"), Level.INFO),
    ],
)
def test_each_line_is_logged_once_with_its_level(said: Line, level: Level) -> None:
    model = play(said)
    at = datetime.fromisoformat(said["time"])
    told = LogRecord(at, level, said.get("worker") or "", sentence(said))
    assert model.last_at == at
    assert model.take_log() == [told]
    assert model.take_log() == []


def test_batches_are_logged_only_while_workers_are_few() -> None:
    one = batches("bob", [1.0])
    model = play(one)
    assert model.take_log() == [LogRecord(after(0), Level.DEBUG, "bob", seed_line(one))]
    play(*(joined(f"w{number}") for number in range(50)), model=model)
    model.take_log()
    assert play(one, model=model).take_log() == []


@pytest.mark.parametrize(
    "unknown",
    [
        line("later.addition", text="x"),
        line("run.later", waiting_for=["alice"]),
        line("heartbeat", text="alive"),
        line("log", worker="alice", level="info", text="x"),
        line("preflight", worker="alice", address="pi:1", ok=True),
    ],
)
def test_lines_that_say_nothing_of_the_run_only_go_to_the_log(unknown: Line) -> None:
    script = [created(), joined("alice"), opened(1, "alice"), batches("alice", [1.0], at=2)]
    model = play(*script, unknown)
    assert picture(model) == picture(play(*script))
    assert model.take_log()[-1].text == sentence(unknown)
    assert model.version == 5


def test_what_peers_say_of_themselves_is_harmless_when_it_is_shown() -> None:
    model = play(
        line("run.created", task=HOSTILE, plan={}) | {"run": HOSTILE},
        line("worker.joined", worker=HOSTILE, address=HOSTILE),
        batches(HOSTILE, [1.0]),
        telemetry(HOSTILE, 1),
        line("worker.rejected", worker=HOSTILE, round=1, reason=HOSTILE),
        line("worker.lost", worker=HOSTILE, address=HOSTILE, reason=HOSTILE * 100),
        line("worker.phase", worker=HOSTILE, round=1, phase=HOSTILE),
        line("log", worker=HOSTILE, level="info", text=HOSTILE),
        line("warning", worker=HOSTILE, text=HOSTILE),
    )
    row = model.workers[HOSTILE]
    shown = [model.run, model.task, row.label, row.address, row.phase, row.error]
    for alarm in model.alarms:
        shown += [alarm.text, alarm.worker]
    for record in model.take_log():
        # The tab in the line of 2020 is our own.
        shown += [record.worker, record.text.replace("\tLoss", " Loss")]
    assert len(shown) == 6 + 2 * 3 + 2 * 9
    assert "".join(shown).isprintable()
    assert max(map(len, shown)) <= 1_000
    assert (row.label, row.phase) == ("[/oops][2J]52;c;eA==[red]x", "[/oops][2J]52;c;eA=…")


# What nobody does any more


def training() -> RunModel:
    model = play(created(), joined("alice"), joined("bob"), opened(1, "alice", "bob"))
    for name in ("alice", "bob"):
        play(phase(name, "training"), model=model)
        play(batches(name, [1.0], 1), batches(name, [1.0], 2, first=1), model=model)
    assert model.examples_per_s == 2 * 32
    return model


def paces(model: RunModel) -> list[tuple[str, float | None]]:
    return [(row.phase, row.examples_per_s) for row in model.workers.values()]


def test_a_paused_run_trains_no_examples_and_its_pause_slows_nobody_down() -> None:
    model = training()
    play(line("run.paused", 10, round=1), model=model)
    assert (model.examples_per_s, paces(model)) == (0, [("training", None)] * 2)
    play(line("run.resumed", 500, round=1), batches("bob", [1.0], 500, first=2), model=model)
    assert model.examples_per_s == 0
    play(batches("bob", [1.0], 501, first=3), model=model)
    assert model.examples_per_s == 32


def test_after_its_end_nobody_of_a_run_trains() -> None:
    model = play(lost("bob"), finished(at=9), model=training())
    assert (model.examples_per_s, paces(model)) == (0, [("-", None), ("lost", None)])


def test_after_the_death_of_its_engine_nobody_of_a_run_trains_and_it_is_an_alarm() -> None:
    model = training()
    model.crash("the engine is gone\x1b[2J", after(99))
    assert (model.examples_per_s, paces(model)) == (0, [("-", None)] * 2)
    assert model.alarms == [AlarmRecord(after(99), "the engine is gone[2J", "")]


def test_while_the_task_is_captured_no_workers_are_gathered() -> None:
    model = play(created())
    assert model.phase_word == "PREPARING"
    assert play(joined("bob"), model=model).phase_word == "GATHERING"
