"""Real runs, line by line: the totals are those that their journals tell."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fedconsole.coordinator.phases import RunPhase
from fedconsole.tui.run_model import RunModel
from fedconsole.tui.run_records import RoundRow
from fedconsole.tui.run_records import Test as Evaluation

FOLDER = Path(__file__).parents[2] / "screenshots"
RUNS = sorted(path.stem for path in FOLDER.glob("*.jsonl"))


class Journal:
    """A recorded run, and the model that took in all its lines."""

    def __init__(self, name: str) -> None:
        texts = (FOLDER / f"{name}.jsonl").read_text().splitlines()
        self.lines: list[dict[str, Any]] = [json.loads(text) for text in texts]
        self.model = RunModel()
        self.phases: list[str] = []
        for line in self.lines:
            self.model.apply(line)
            if self.model.phase not in self.phases[-1:]:
                self.phases.append(self.model.phase)

    def all(self, *kinds: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] in kinds]

    def moment(self, index: int) -> datetime:
        return datetime.fromisoformat(self.lines[index]["time"])


@pytest.fixture(scope="module", params=RUNS)
def journal(request: pytest.FixtureRequest) -> Journal:
    return Journal(request.param)


def test_rounds_and_bytes_are_those_of_the_journal(journal: Journal) -> None:
    rows = [
        RoundRow(
            one["round"],
            one["loss"],
            one["seconds"],
            tuple(one["updates"]),
            one["bytes_sent"],
            one["bytes_received"],
        )
        for one in journal.all("round.finished")
    ]
    assert journal.model.rounds == rows
    assert journal.model.bytes_sent == sum(row.bytes_sent for row in rows)
    assert journal.model.bytes_received == sum(row.bytes_received for row in rows)
    assert journal.model.num_finished == journal.lines[-1]["rounds"] == len(rows)


def test_losses_are_those_of_the_journal(journal: Journal) -> None:
    losses: dict[str, list[float]] = defaultdict(list)
    rounds: dict[str, list[float]] = defaultdict(list)
    for one in journal.all("worker.batches"):
        losses[one["worker"]] += one["losses"]
        places = range(one["first"] + 1, one["first"] + len(one["losses"]) + 1)
        rounds[one["worker"]] += [one["round"] - 1 + place / one["batches"] for place in places]
    rows = journal.model.workers
    assert {name: list(row.series.losses) for name, row in rows.items()} == losses
    assert {name: list(row.series.rounds) for name, row in rows.items()} == rounds
    assert {name: row.num_steps for name, row in rows.items()} == {
        name: len(of_one) for name, of_one in losses.items()
    }


def test_attendance_is_that_of_the_journal(journal: Journal) -> None:
    updates = {one["round"]: one["updates"] for one in journal.all("round.finished")}
    assert journal.model.attendance.rounds == {
        one["round"]: {
            name: "delivered" if name in updates[one["round"]] else "absent"
            for name in one["cohort"]
        }
        for one in journal.all("round.started")
    }


def test_tests_are_those_of_the_journal(journal: Journal) -> None:
    assert journal.model.tests == [
        Evaluation(one["round"], one["loss"], one["accuracy"], one["macro_f1"])
        for one in journal.all("eval")
    ]


def test_workers_are_those_of_the_journal(journal: Journal) -> None:
    addresses = {one["worker"]: one["address"] for one in journal.all("worker.joined")}
    num_lost = Counter(one["worker"] for one in journal.all("worker.lost"))
    letters = dict(zip(sorted(addresses), "ABC", strict=True))
    assert [
        (row.name, row.address, row.letter, row.num_lost, row.loss)
        for row in sorted(journal.model.workers.values(), key=lambda row: row.name)
    ] == [
        (name, addresses[name], letters[name], num_lost[name], _last_loss(journal, name))
        for name in sorted(addresses)
    ]


def _last_loss(journal: Journal, name: str) -> float | None:
    """Of the last batch or, if that came later, of the update."""
    said = [one for one in journal.all("worker.batches", "worker.update") if one["worker"] == name]
    loss: float | None = said[-1]["losses"][-1] if "losses" in said[-1] else said[-1]["loss"]
    return loss


def test_a_finished_run_is_complete_and_took_its_time(journal: Journal) -> None:
    model = journal.model
    assert (model.phase, model.ending) == (RunPhase.COMPLETED, journal.lines[-1])
    assert (model.share(), model.eta_s(journal.moment(-1))) == (1.0, None)
    whole = (journal.moment(-1) - journal.moment(0)).total_seconds()
    assert model.elapsed_s(datetime.max.replace(tzinfo=journal.moment(0).tzinfo)) == whole
    assert whole == pytest.approx(journal.lines[-1]["seconds"], abs=0.5)


def test_alarms_and_the_log_miss_nothing(journal: Journal) -> None:
    trouble = journal.all("worker.lost", "worker.rejected", "run.finished")
    assert [(alarm.time, alarm.worker) for alarm in journal.model.alarms] == [
        (datetime.fromisoformat(one["time"]), one.get("worker", "")) for one in trouble
    ]
    quiet = journal.all("worker.telemetry")
    assert len(journal.model.take_log()) == len(journal.lines) - len(quiet)


def test_a_run_that_was_paused_went_through_its_phases() -> None:
    a_round = ["training", "closing"]
    pause = ["training", "pausing", "paused", "training", "closing"]
    assert Journal("paused").phases == [
        "gathering",
        *a_round * 4,
        *pause,
        *a_round * 5,
        "completed",
    ]
