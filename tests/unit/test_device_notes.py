from __future__ import annotations

from fedconsole.engine.device_notes import LIMITS, Bucket, Kind

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
