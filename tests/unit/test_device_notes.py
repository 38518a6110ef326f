from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fedconsole.engine.device_notes import LIMITS, Bucket, DeviceNotes, Kind
from fedconsole.engine.worker import Job
from pi_daemon.protocol.messages import Batches
from tests.support.jobs import a_job

LINES, STATES, LOSSES = (LIMITS[kind] for kind in (Kind.LINE, Kind.STATE, Kind.LOSS))


def test_a_burst_goes_through_and_then_so_many_a_second() -> None:
    bucket = Bucket(LINES)
    assert sum(bucket.admit(5.0) for _ in range(LINES.burst + 50)) == LINES.burst
    admitted = sum(bucket.admit(5.0 + number / 10_000) for number in range(1, 20_001))
    assert admitted == 2 * LINES.per_s
    assert bucket.take_dropped() == 50 + 20_000 - admitted
    assert bucket.take_dropped() == 0


def test_a_silence_saves_up_no_more_than_a_burst() -> None:
    bucket = Bucket(LINES)
    assert bucket.admit(0.0)
    assert sum(bucket.admit(3_600.0) for _ in range(2 * LINES.burst)) == LINES.burst


def test_rounds_in_quick_succession_allow_for_their_states_however_many() -> None:
    bucket = Bucket(STATES)
    for _ in range(1_000):
        bucket.grant_round(num_batches=1)
        assert all(bucket.admit(0.0) for _ in range(STATES.of_round))
    assert bucket.take_dropped() == 0


def test_rounds_that_bring_nothing_about_save_nothing_up() -> None:
    bucket = Bucket(STATES)
    for _ in range(1_000):
        bucket.grant_round(num_batches=1)
    admitted = sum(bucket.admit(0.0) for _ in range(10_000))
    assert admitted == STATES.burst + STATES.of_round


def test_a_round_longer_than_the_burst_may_tell_every_loss_again_and_again() -> None:
    bucket = Bucket(LOSSES)
    num_batches = 10 * LOSSES.burst
    bucket.grant_round(num_batches)
    assert all(bucket.admit(1.0 * turn, num_batches) for turn in range(LOSSES.of_batch))


# Losses


class Losses:
    """What of them reaches the journal: (round, index of the first, how many)."""

    def __init__(self, job: Job) -> None:
        self.noted: list[tuple[int, int, int]] = []
        self.notes = DeviceNotes(job, self._note)

    def tell(self, first: int, num: int, *, round_number: int = 1, attempt: int = 1) -> None:
        losses = tuple(float(index) for index in range(first, first + num))
        self.notes.take_batches(Batches("r1", round_number, attempt, first, 100, losses))

    def _note(self, _kind: str, *, losses: Iterable[float], **fields: Any) -> None:
        first = fields["first"]
        values = list(losses)
        assert values == [float(index) for index in range(first, first + len(values))]
        self.noted.append((fields["round"], first, len(values)))


@pytest.fixture
async def job(tmp_path: Path) -> Job:
    return a_job(tmp_path / "r1")


@pytest.fixture
async def losses(job: Job) -> Losses:
    job.names.set_result(None)
    return Losses(job)


async def test_what_a_device_tells_again_over_a_new_link_is_noted_once(losses: Losses) -> None:
    losses.tell(0, 10)
    losses.tell(10, 5)
    losses.tell(0, 20)
    losses.tell(0, 20, attempt=2)
    losses.tell(15, 10)
    assert losses.noted == [(1, 0, 10), (1, 10, 5), (1, 15, 5), (1, 20, 5)]


async def test_losses_of_batches_that_are_trained_anew_are_noted_anew(losses: Losses) -> None:
    losses.tell(0, 10)
    losses.notes.train_anew()
    losses.tell(0, 3, attempt=2)
    losses.tell(0, 4, round_number=2)
    assert losses.noted == [(1, 0, 10), (1, 0, 3), (2, 0, 4)]


async def test_nothing_is_noted_of_a_worker_whose_name_in_the_run_is_not_known(job: Job) -> None:
    losses = Losses(job)
    losses.tell(0, 10)
    job.names.set_result(None)
    losses.tell(0, 10, attempt=2)
    assert losses.noted == [(1, 0, 10)]
