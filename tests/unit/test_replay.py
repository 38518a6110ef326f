from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from fedconsole.tui.desk import Line
from fedconsole.tui.replay import SPEEDS, Replay

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RUN = Path(__file__).parents[2] / "screenshots" / "run.jsonl"


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.on_sleep()
        await asyncio.sleep(0)


def lines(*seconds: float) -> list[Line]:
    return [
        {"seq": seq, "time": (START + timedelta(seconds=after)).isoformat(), "type": "heartbeat"}
        for seq, after in enumerate(seconds, start=1)
    ]


async def arrivals(replay: Replay, clock: Clock) -> list[float]:
    return [round(clock.now_s, 3) async for _ in replay]


async def test_lines_come_as_far_apart_as_they_were() -> None:
    clock = Clock()
    replay = Replay(lines(0, 1, 1.5, 3), 1, sleep=clock.sleep, clock=clock)
    assert await arrivals(replay, clock) == pytest.approx([0, 1, 1.5, 3], abs=0.06)


async def test_a_higher_speed_divides_the_gaps() -> None:
    clock = Clock()
    replay = Replay(lines(0, 10, 20, 40), 20, sleep=clock.sleep, clock=clock)
    assert await arrivals(replay, clock) == pytest.approx([0, 0.5, 1, 2], abs=0.06)


async def test_no_gap_is_longer_than_two_seconds() -> None:
    clock = Clock()
    replay = Replay(lines(0, 3600, 3601), 1, sleep=clock.sleep, clock=clock)
    assert await arrivals(replay, clock) == pytest.approx([0, 2, 3], abs=0.1)


async def test_many_short_gaps_add_up_to_the_right_time() -> None:
    clock = Clock()
    replay = Replay(lines(*(n / 1000 for n in range(5001))), 1, sleep=clock.sleep, clock=clock)
    arrived = await arrivals(replay, clock)
    assert arrived == pytest.approx([n / 1000 for n in range(5001)], abs=0.06)


async def test_the_speed_may_change_within_a_gap() -> None:
    clock = Clock()
    replay = Replay(lines(0, 2, 12), 1, sleep=clock.sleep, clock=clock)

    def speed_up() -> None:
        if clock.now_s > 1:
            replay.speed = 10

    clock.on_sleep = speed_up
    assert await arrivals(replay, clock) == pytest.approx([0, 1.1, 2.1], abs=0.11)


async def test_a_gap_stays_short_when_the_speed_falls_within_it() -> None:
    clock = Clock()
    replay = Replay(lines(0, 120), 60, sleep=clock.sleep, clock=clock)
    clock.on_sleep = lambda: setattr(replay, "speed", 1)
    assert await arrivals(replay, clock) == pytest.approx([0, 2], abs=0.11)


async def test_a_clock_that_was_set_back_stops_nothing() -> None:
    clock = Clock()
    replay = Replay(lines(0, 1, -3600, -3599), 1, sleep=clock.sleep, clock=clock)
    assert await arrivals(replay, clock) == pytest.approx([0, 1, 1, 2], abs=0.06)


async def test_a_paused_replay_gives_nothing_until_it_goes_on() -> None:
    clock = Clock()
    replay = Replay(lines(0, 1, 2), 1, sleep=clock.sleep, clock=clock)
    source = aiter(replay)
    await anext(source)
    replay.toggle_pause()
    assert replay.is_paused

    async def take() -> Line:
        return await anext(source)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(take())
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert clock.now_s == 0
        replay.toggle_pause()
    assert waiting.result()["seq"] == 2
    assert clock.now_s == pytest.approx(1, abs=0.06)


async def test_a_sleep_that_took_too_long_is_made_up_for() -> None:
    clock = Clock()

    async def oversleep(seconds: float) -> None:
        await clock.sleep(seconds * 3)

    replay = Replay(lines(*range(11)), 1, sleep=oversleep, clock=clock)
    arrived = await arrivals(replay, clock)
    assert arrived == pytest.approx(list(range(11)), abs=0.16)


def test_the_speed_goes_in_steps_from_1_to_60() -> None:
    replay = Replay([], 1000)
    assert replay.speed == 60
    replay.faster()
    assert replay.speed == 60
    seen = [replay.speed]
    for _ in range(8):
        replay.slower()
        seen.append(replay.speed)
    assert seen == [*reversed(SPEEDS), 1, 1]
    replay.speed = 7
    replay.faster()
    assert replay.speed == 10
    assert Replay([], 0).speed == 1


async def test_a_long_journal_is_read_as_it_is_shown() -> None:
    num_read = 0

    def journal() -> Iterator[Line]:
        nonlocal num_read
        for line in lines(*([0] * 5_000)):
            num_read += 1
            yield line

    source = aiter(Replay(journal()))
    await anext(source)
    assert num_read < 1_000


async def test_a_real_run_comes_whole_and_in_order() -> None:
    stored = [json.loads(text) for text in RUN.read_text().splitlines()]
    clock = Clock()
    replayed = [line async for line in Replay(stored, 10, sleep=clock.sleep, clock=clock)]
    assert replayed == stored
    times = [datetime.fromisoformat(line["time"]) for line in stored]
    gaps = [min((b - a).total_seconds() / 10, 2) for a, b in pairwise(times)]
    assert clock.now_s == pytest.approx(sum(gaps), abs=0.1)
