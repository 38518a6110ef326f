from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fedconsole.tui.run_model import RunModel
from fedconsole.tui.steady_time import SteadyTime

MADE = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
JUMPS = [timedelta(hours=1), timedelta(hours=-1), timedelta(days=365), timedelta(days=-365)]


class Clocks:
    """A wall clock that jumps, and one that does not."""

    def __init__(self) -> None:
        self.wall, self.monotonic_s = MADE, 50.0

    def let_pass(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic_s += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def steady(clocks: Clocks) -> SteadyTime:
    return SteadyTime(lambda: clocks.wall, lambda: clocks.monotonic_s)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_is_taken_out_of_now_and_of_what_is_told_after_it(
    clocks: Clocks, steady: SteadyTime, jump: timedelta
) -> None:
    clocks.let_pass(10)
    clocks.wall += jump
    clocks.let_pass(10)
    assert steady.now() == MADE + timedelta(seconds=20)
    assert steady.of(clocks.wall) == MADE + timedelta(seconds=20)


@pytest.mark.parametrize("jump", JUMPS)
def test_what_was_said_before_a_jump_and_heard_after_it_is_where_it_was(
    clocks: Clocks, steady: SteadyTime, jump: timedelta
) -> None:
    clocks.let_pass(10)
    said = clocks.wall
    clocks.wall += jump
    clocks.let_pass(0.1)
    assert steady.of(said) == MADE + timedelta(seconds=10)


def test_a_clock_that_jumps_to_and_fro_is_followed(clocks: Clocks, steady: SteadyTime) -> None:
    for number, jump in enumerate([*JUMPS, -sum(JUMPS, timedelta(hours=3))], start=1):
        clocks.wall += jump
        clocks.let_pass(5)
        assert steady.of(clocks.wall) == steady.now() == MADE + timedelta(seconds=5 * number)


def test_the_past_of_a_run_stays_when_it_was(steady: SteadyTime) -> None:
    said = MADE - timedelta(days=2)
    assert steady.of(said) == said


@pytest.mark.parametrize("jump", JUMPS)
def test_elapsed_time_and_estimate_of_a_run_do_not_jump(
    clocks: Clocks, steady: SteadyTime, jump: timedelta
) -> None:
    model = RunModel()

    def tell(kind: str, **fields: object) -> None:
        line = {"time": clocks.wall.isoformat(), "type": kind, "run": "r", **fields}
        model.apply(line, steady.of(clocks.wall))

    def finish(number: int) -> None:
        clocks.let_pass(100)
        tell("round.finished", round=number, updates=["alice"], loss=1.0, seconds=100.0)

    def begin(number: int) -> None:
        tell("round.started", round=number, cohort=["alice"], epoch=1)

    tell("run.created", task="digits", plan={"rounds": 4})
    begin(1)
    finish(1)
    clocks.wall += jump
    begin(2)
    clocks.let_pass(30)
    assert model.elapsed_s(steady.now()) == 130
    assert model.eta_s(steady.now()) == (270, 0)
    clocks.wall -= jump
    assert model.elapsed_s(steady.now()) == 130
    assert model.eta_s(steady.now()) == (270, 0)
    finish(2)
    begin(3)
    assert model.elapsed_s(steady.now()) == 230
    assert model.eta_s(steady.now()) == (200, 0)
