"""What a run's lines say of its phase, its workers and their losses; see test_run_model_progress.py, too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedconsole.coordinator.phases import Request, RunPhase
from fedconsole.sentences import sentence
from fedconsole.tui.run_model import RunModel
from fedconsole.tui.run_records import AlarmRecord, Series

Line = dict[str, Any]

START = datetime(2026, 11, 22, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def line(kind: str, at: float = 0, **fields: Any) -> Line:
    return {"v": 1, "seq": 1, "time": after(at).isoformat(), "type": kind, "run": "r1", **fields}


def created(**plan: Any) -> Line:
    plan = {"workers": ["pi:1", "pj:1"], "virtual": 0, "rounds": 4, "batch_size": 32} | plan
    return line("run.created", task="digits", plan=plan)


def joined(name: str) -> Line:
    return line("worker.joined", worker=name, address=f"{name}:1")


def opened(number: int, *cohort: str, at: float = 0, epoch: int = 1) -> Line:
    return line("round.started", at, round=number, attempt=1, cohort=cohort, epoch=epoch)


def closed(number: int, *updates: str, at: float = 0, seconds: float = 1.0) -> Line:
    return line(
        "round.finished",
        at,
        round=number,
        updates=updates,
        loss=0.5,
        seconds=seconds,
        bytes_sent=10,
        bytes_received=20,
    )


def batches(name: str, losses: Sequence[float | None], at: float = 0, **fields: Any) -> Line:
    own = {"round": 1, "first": 0, "batches": 10} | fields
    return line("worker.batches", at, worker=name, losses=losses, **own)


def phase(name: str, what: str) -> Line:
    return line("worker.phase", worker=name, round=1, phase=what)


def telemetry(name: str, throttled: int | None, **fields: Any) -> Line:
    return line(
        "worker.telemetry",
        worker=name,
        celsius=61.5,
        throttled=throttled,
        memory_bytes=1000,
        load=None,
        **fields,
    )


def update(name: str, number: int = 1, at: float = 0, **fields: Any) -> Line:
    own = {"num_examples": 9, "loss": 0.25, "seconds": 1.0} | fields
    return line("worker.update", at, worker=name, round=number, **own)


def lost(name: str, at: float = 0) -> Line:
    return line("worker.lost", at, worker=name, address=f"{name}:1", reason="no answer")


def rejected(name: str, number: int = 1, at: float = 0) -> Line:
    return line("worker.rejected", at, worker=name, round=number, reason="holds NaN")


def finished(outcome: str = "completed", at: float = 0) -> Line:
    return line("run.finished", at, outcome=outcome, rounds=1, reason="", exit_code=0, seconds=1.0)


STARTED = line("run.started", round=0, waiting_for=[])
QUORUM = line("run.quorum", 7, have=1, need=2, seconds_left=30.0)


def waits() -> Line:
    return line("run.quorum", have=1, need=2, seconds_left=30.0, phase="waiting", then="fail")


def play(*lines: Line, model: RunModel | None = None) -> RunModel:
    model = model or RunModel()
    for one in lines:
        model.apply(one)
    return model


def letters(model: RunModel) -> dict[str, str]:
    return {row.name: row.letter for row in model.workers.values()}


# Phases


def test_a_worker_that_was_lost_before_its_name_was_known_has_one_row() -> None:
    gone: Any = {"worker": "bob:1", "address": "bob:1", "reason": "no answer"}
    model = play(joined("alice"), line("worker.lost", **gone), joined("bob"), joined("charlie"))
    assert letters(model) == {"alice": "A", "bob": "B", "charlie": "C"}
    assert (model.num_here, model.workers["bob"].phase) == (3, "waiting")


def test_the_phase_follows_the_lines_and_offers_what_it_allows() -> None:
    script = [
        (created(), "gathering"),
        (joined("alice"), "gathering"),
        (QUORUM, "gathering"),
        (STARTED, "training"),
        (opened(1, "alice"), "training"),
        (QUORUM, "training"),
        (closed(1, "alice"), "closing"),
        (QUORUM, "waiting"),
        (opened(2, "alice"), "training"),
        (waits(), "waiting"),
        (line("run.fewer", round=2, have=1, need=2), "closing"),
        (closed(2, "alice"), "closing"),
        (waits(), "waiting"),
        (line("run.fewer", round=3, have=1, need=2), "waiting"),
        (opened(2, "alice"), "training"),
        (line("run.stopping", round=2), "training"),
        (line("run.pausing", round=2, waiting_for=["alice"]), "pausing"),
        (closed(2, "alice"), "pausing"),
        (line("run.paused", round=2, waiting_for=[]), "paused"),
        (line("run.resumed", round=2, waiting_for=[]), "training"),
        (line("run.aborting", round=2, waiting_for=["alice"]), "aborting"),
        (opened(3, "alice"), "aborting"),
        (finished("aborted"), "aborted"),
    ]
    model = RunModel()
    phases = [(one["type"], play(one, model=model).phase.value) for one, _phase in script]
    assert phases == [(one["type"], expected) for one, expected in script]
    assert model.is_finished
    assert model.is_stopping
    assert model.allowed == frozenset()
    assert Request.RESUME in play(line("run.paused", round=1)).allowed


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("completed", RunPhase.COMPLETED),
        ("aborted", RunPhase.ABORTED),
        ("failed", RunPhase.FAILED),
        ("a later version's word", RunPhase.FAILED),
    ],
)
def test_the_last_line_is_the_ending_and_an_alarm(outcome: str, expected: RunPhase) -> None:
    end = finished(outcome, at=5)
    model = play(created(), end)
    assert (model.phase, model.ending) == (expected, end)
    assert model.alarms == [AlarmRecord(after(5), sentence(end), "")]


@pytest.mark.parametrize("kind", ["run.pausing", "run.aborting"])
@pytest.mark.parametrize(
    "answer", [phase("bob", "paused"), phase("bob", "waiting"), update("bob"), lost("bob")]
)
def test_who_stopped_delivered_or_was_lost_is_waited_for_no_more(kind: str, answer: Line) -> None:
    model = play(line(kind, round=1, waiting_for=["alice", "bob"]))
    play(phase("bob", "sending"), model=model)
    assert model.waiting_for == {"alice", "bob"}
    assert play(answer, model=model).waiting_for == {"alice"}


@pytest.mark.parametrize(
    "end", [line("run.paused", round=1), line("run.resumed", round=1), finished()]
)
def test_after_the_request_nobody_is_waited_for(end: Line) -> None:
    assert play(line("run.pausing", round=1, waiting_for=["bob"]), end).waiting_for == set()


# Workers


def test_letters_go_by_joining_and_from_the_first_round_on_by_name() -> None:
    model = play(created(), joined("charlie"), joined("alice"))
    assert letters(model) == {"charlie": "A", "alice": "B"}
    play(joined("bob"), opened(1, "alice", "bob", "charlie"), model=model)
    assert letters(model) == {"charlie": "C", "alice": "A", "bob": "B"}
    play(closed(1, "alice"), joined("aaron"), opened(2, "aaron"), model=model)
    assert letters(model) == {"charlie": "C", "alice": "A", "bob": "B", "aaron": "D"}


def test_there_are_26_letters() -> None:
    model = play(*(joined(f"w{number:02}") for number in range(28)))
    assert "".join(letters(model).values()) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert list(letters(model).values())[25:] == ["Z", "", ""]


def test_a_worker_is_virtual_if_its_address_says_so() -> None:
    model = play(joined("pi"), line("worker.joined", worker="alice", address="virtual:1"))
    assert [row.is_virtual for row in model.workers.values()] == [False, True]


def test_a_worker_is_a_straggler_until_it_is_told_to_do_something_else() -> None:
    late = line("worker.straggler", worker="bob", round=1)
    model = play(joined("bob"), phase("bob", "training"), late)
    assert model.workers["bob"].phase == "straggler"
    assert play(phase("bob", "receiving"), model=model).workers["bob"].phase == "receiving"


def test_a_worker_is_lost_and_comes_back() -> None:
    model = play(joined("bob"), lost("bob", at=3), lost("bob", at=4))
    bob = model.workers["bob"]
    assert (bob.phase, bob.lost_at, bob.num_lost, bob.error) == ("lost", after(4), 2, "no answer")
    assert model.num_here == 0
    play(line("worker.rejoined", worker="bob", address="bob:2"), model=model)
    assert (bob.phase, bob.lost_at, bob.num_lost, bob.address) == ("waiting", None, 2, "bob:2")
    assert model.num_here == 1


def test_an_update_ends_a_worker_s_round_and_its_trouble() -> None:
    first = update("bob", bytes_sent=1, bytes_received=2)
    second = update("bob", 2, bytes_sent=10, bytes_received=20)
    bob = play(rejected("bob"), first, second, update("bob", 3)).workers["bob"]
    assert (bob.phase, bob.loss, bob.error) == ("done", 0.25, "")
    assert (bob.bytes_sent, bob.bytes_received) == (11, 22)


def test_a_row_s_version_grows_with_what_changes_it_and_no_other_does() -> None:
    model = play(joined("alice"), joined("bob"))
    before = {name: row.version for name, row in model.workers.items()}
    for grown, one in enumerate(
        (opened(1, "alice"), batches("alice", [1.0]), phase("alice", "x"), telemetry("alice", 0)),
        start=1,
    ):
        play(one, model=model)
        assert model.workers["alice"].version == before["alice"] + grown
    assert model.workers["bob"].version == before["bob"]


# Losses


def test_batches_become_losses_over_steps_time_and_rounds() -> None:
    model = play(
        created(),
        opened(1, "alice"),
        batches("alice", [4.0, None], at=2),
        batches("alice", [2.0], at=3, first=2),
    )
    row = model.workers["alice"]
    assert (row.batch, row.num_batches, row.loss, row.num_steps) == (3, 10, 2.0, 3)
    play(
        closed(1, "alice", at=5),
        opened(2, "alice", at=5),
        batches("alice", [1.0], at=6, round=2, batches=2),
        model=model,
    )
    assert (row.batch, row.num_batches, row.loss, row.num_steps) == (1, 2, 1.0, 4)
    assert list(row.series.steps) == [1, 2, 3, 4]
    assert list(row.series.times) == [2, 2, 3, 6]
    assert list(row.series.rounds) == [0.1, 0.2, 0.3, 1.5]
    assert [None if math.isnan(loss) else loss for loss in row.series.losses] == [4, None, 2, 1]
    assert model.round_ends == [(1, 3, 5.0)]


def test_the_loss_is_the_mean_of_those_who_are_there_and_have_one() -> None:
    model = play(*(batches(name, [float(loss)]) for loss, name in enumerate("abc", start=1)))
    assert model.loss == 2.0
    play(lost("a"), batches("b", [None]), model=model)
    assert model.loss == 3.0
    assert play().loss is None


def test_examples_per_second_are_smoothed_and_summed_over_the_cohort() -> None:
    model = play(created(batch_size=32), opened(1, "alice", "bob"))
    for name in ("alice", "bob"):
        play(phase(name, "training"), batches(name, [1.0] * 10, at=0), model=model)
        assert model.workers[name].examples_per_s is None
        play(batches(name, [1.0] * 10, at=2), batches(name, [1.0] * 10, at=3), model=model)
        assert model.workers[name].examples_per_s == pytest.approx(0.7 * 160 + 0.3 * 320)
    assert model.examples_per_s == pytest.approx(2 * 208)
    assert play(phase("bob", "sending"), model=model).examples_per_s == pytest.approx(2 * 208)
    assert play(lost("bob"), model=model).examples_per_s == pytest.approx(208)
    play(batches("alice", [1.0], at=3), model=model)
    assert model.workers["alice"].examples_per_s == pytest.approx(208)


@pytest.mark.parametrize("num_points", [7, 8, 100, 5_000])
def test_a_long_series_is_thinned_evenly(num_points: int) -> None:
    series = Series()
    for step in range(1, num_points + 1):
        series.add(step, step + 0.1, step + 0.2, step + 0.3, limit=8)
        assert len(series.steps) < 8
    steps = list(series.steps)
    assert len(steps) >= 4
    for shift, values in enumerate((series.steps, series.times, series.rounds, series.losses)):
        assert list(values) == [step + shift / 10 for step in steps]
    gaps = [b - a for a, b in zip(steps, [*steps[1:], num_points + 1], strict=True)]
    assert steps[0] == 1
    assert max(gaps) <= 2 * num_points / 4
    assert min(gaps[:-1]) * 2 >= max(gaps)
    assert list(series.recent) == [n + 0.3 for n in range(1, num_points + 1)][-60:]


def test_the_more_workers_there_are_the_fewer_points_each_may_have() -> None:
    model = play(batches("w0", [1.0] * 30_000, batches=30_000))
    assert 10_000 <= len(model.workers["w0"].series.losses) < 20_000
    play(*(joined(f"w{number}") for number in range(2_000)), model=model)
    for _ in range(6):
        play(batches("w0", [1.0] * 30_000, batches=30_000), model=model)
    assert 100 <= len(model.workers["w0"].series.losses) < 200
    assert model.workers["w0"].num_steps == 7 * 30_000


def test_a_run_that_stands_still_says_why_until_the_next_line_comes() -> None:
    model = RunModel()
    model.apply(created())
    model.apply(line("run.stalled", reason="cannot write run.db: disk is full"))
    assert model.stalled == "cannot write run.db: disk is full"
    assert model.alarms[-1].text == "The run stands still: cannot write run.db: disk is full."
    model.apply(opened(1, "alice"))
    assert model.stalled == ""
