"""At which pace a stored run comes again; time is a number that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from fedconsole.tui.desk import Line
from fedconsole.tui.replay import SPEEDS, Replay

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
STEP_S = 0.051
"""How exact a replay is: 0.05 s, and what rounding adds."""


class Time:
    """Sleeping moves it on, by `lag_s` too much."""

    def __init__(self, lag_s: float = 0.0) -> None:
        self.now_s = 1_000.0
        self.num_sleeps = 0
        self.lag_s = lag_s
        self.after_sleep: Callable[[], None] = lambda: None

    async def sleep(self, seconds: float) -> None:
        self.num_sleeps += 1
        self.now_s += seconds + self.lag_s
        self.after_sleep()

    def clock(self) -> float:
        return self.now_s


def lines_at(*seconds: float) -> list[Line]:
    return [
        {"time": (START + timedelta(seconds=at)).isoformat(), "number": number}
        for number, at in enumerate(seconds)
    ]


def replay_of(lines: list[Line], speed: float, time: Time) -> Replay:
    return Replay(lines, speed, sleep=time.sleep, clock=time.clock)


async def arrivals(time: Time, speed: float, *seconds: float) -> list[float]:
    """When lines of these times come, counted from the first; all must come, in order."""
    lines = lines_at(*seconds)
    came = []
    times = []
    async for line in replay_of(lines, speed, time):
        came.append(line)
        times.append(time.now_s)
    assert came == lines
    return [at - times[0] for at in times]


@pytest.mark.parametrize("speed", [1.0, 2.0, 20.0, 60.0])
async def test_lines_come_as_many_times_faster_as_the_speed_says(speed: float) -> None:
    seconds = [0.0, 1.0 * speed, 1.5 * speed, 3.0 * speed]
    assert await arrivals(Time(), speed, *seconds) == pytest.approx([0, 1, 1.5, 3], abs=STEP_S)


@pytest.mark.parametrize("speed", [1.0, 60.0])
async def test_nobody_waits_longer_than_two_seconds_for_a_line(speed: float) -> None:
    seconds = [0.0, 3_600.0, 90_000.0, 90_000.0 + speed]
    assert await arrivals(Time(), speed, *seconds) == pytest.approx([0, 2, 4, 5], abs=STEP_S)


async def test_a_clock_that_was_set_back_makes_no_gap() -> None:
    assert await arrivals(Time(), 1.0, 100, 5, 6, 6.5) == pytest.approx([0, 0, 1, 1.5], abs=STEP_S)


async def test_lines_that_are_near_each_other_come_without_a_sleep() -> None:
    time = Time()
    assert await arrivals(time, 10.0, 0, 0.1, 0.2, 0.2, 0.4) == [0.0] * 5
    assert time.num_sleeps == 0


async def test_small_gaps_add_up() -> None:
    tenths = [number / 10 for number in range(101)]
    came = await arrivals(Time(), 10.0, *tenths)
    assert came == pytest.approx([second / 10 for second in tenths], abs=STEP_S)


async def test_what_was_slept_too_long_is_made_up() -> None:
    tenths = [number / 10 for number in range(101)]
    assert await arrivals(Time(lag_s=0.03), 1.0, *tenths) == pytest.approx(tenths, abs=0.08)


async def test_however_many_lines_there_are_all_come_in_order() -> None:
    assert await arrivals(Time(), 1.0, *[0.0] * 1_234) == [0.0] * 1_234
    assert await arrivals(Time(), 1.0, *[0.0] * 500) == [0.0] * 500


async def test_a_run_without_lines_is_over_at_once() -> None:
    assert [line async for line in replay_of([], 1.0, Time())] == []


async def test_a_new_speed_counts_in_the_gap_in_which_it_is_chosen() -> None:
    time = Time()
    replay = replay_of(lines_at(0, 2), 1.0, time)

    def faster_after_half_the_gap() -> None:
        if time.num_sleeps == 20:
            replay.faster()

    time.after_sleep = faster_after_half_the_gap
    assert [line["number"] async for line in replay] == [0, 1]
    assert time.now_s - 1_000 == pytest.approx(1.5, abs=STEP_S)


def test_speeds_go_up_and_down_in_steps_and_end_at_the_ends() -> None:
    replay = Replay([], SPEEDS[0])
    up = [replay.speed]
    for _ in SPEEDS:
        replay.faster()
        up.append(replay.speed)
    down = [replay.speed]
    for _ in SPEEDS:
        replay.slower()
        down.append(replay.speed)
    assert up == [*SPEEDS, SPEEDS[-1]]
    assert down == [*reversed(SPEEDS), SPEEDS[0]]


@pytest.mark.parametrize(
    ("asked", "slower", "speed", "faster"),
    [(0.0, 1, 1, 2), (7.0, 5, 7, 10), (10.0, 5, 10, 20), (1e9, 30, 60, 60)],
)
def test_a_speed_between_the_steps_is_kept_and_others_are_bounded(
    asked: float, slower: float, speed: float, faster: float
) -> None:
    one, other = Replay([], asked), Replay([], asked)
    assert one.speed == speed
    one.slower()
    other.faster()
    assert (one.speed, other.speed) == (slower, faster)


async def next_of(lines: AsyncIterator[Line]) -> Line:
    return await anext(lines)


async def let_others_run() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_while_it_is_held_no_line_comes_not_even_one_that_is_due() -> None:
    time = Time()
    replay = replay_of(lines_at(0, 0, 0), 1.0, time)
    lines = aiter(replay)
    await anext(lines)
    replay.toggle_pause()
    async with asyncio.TaskGroup() as group:
        second = group.create_task(next_of(lines))
        await let_others_run()
        assert (replay.is_paused, second.done()) == (True, False)
        replay.toggle_pause()
    assert (replay.is_paused, second.result()["number"]) == (False, 1)
    assert [line["number"] async for line in lines] == [2]


async def test_a_gap_in_which_it_is_held_goes_on_where_it_was() -> None:
    time = Time()
    replay = replay_of(lines_at(0, 1), 1.0, time)
    lines = aiter(replay)
    await anext(lines)

    def hold_in_the_middle() -> None:
        if time.num_sleeps == 10:
            replay.toggle_pause()

    time.after_sleep = hold_in_the_middle
    async with asyncio.TaskGroup() as group:
        second = group.create_task(next_of(lines))
        await let_others_run()
        assert (second.done(), time.num_sleeps) == (False, 10)
        time.now_s += 3_600
        replay.toggle_pause()
    assert second.result()["number"] == 1
    assert 19 <= time.num_sleeps <= 21
    assert [line async for line in lines] == []
