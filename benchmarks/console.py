"""The full screen under load, and how soon it is there.

`fedconsole attach` in a pseudo-terminal of 120x40 shows a run of 1,000 workers with 10,000 losses a second,
while a key is pressed about every tenth of a second, for ten minutes: its memory must not grow. A glance takes
`python -m benchmarks.console --minutes 0.3`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psutil

from benchmarks.runs import cpu_seconds, own_places
from benchmarks.table import Row, machine_line, print_table
from fedconsole import paths
from tests.support.terminal import Terminal, terminal

_WORKERS: Final = 1_000
_LOSSES_PER_S: Final = 10_000
_RUN: Final = "20260101-load"
_WARM_UP_S: Final = 120.0
"""By then every worker has as many points as are kept of it, and the caches of Rich and Textual that new
texts go into are full."""
_SAMPLE_S: Final = 5.0
_SLOPE_MINUTES: Final = 5.0
_KEY_S: Final = (0.07, 0.13)
_CURSOR: Final = rb"48;2;31;39;49m[^\n]{0,60}?"
"""The background of the row with the cursor, and what may stand between it and the row's name."""
_ROWS: Final = 40
"""The cursor goes down and up so many, further than the table is high."""
_STARTS: Final = 7


def run(folder: Path, seconds: float = 600.0) -> list[Row]:
    with own_places(folder):
        return [*asyncio.run(_under_load(seconds)), *asyncio.run(_starts())]


async def _under_load(seconds: float) -> list[Row]:
    (paths.runs_dir() / _RUN).mkdir(parents=True)
    feed = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "benchmarks.console_feed", _RUN, str(_WORKERS), str(_LOSSES_PER_S)],
        stdout=subprocess.PIPE,
    )
    assert feed.stdout is not None
    try:
        feed.stdout.readline()
        async with terminal("attach", _RUN, size=(120, 40), is_read=False) as opened:
            await asyncio.sleep(_WARM_UP_S)
            return await _measure(opened, seconds)
    finally:
        feed.kill()
        feed.communicate()


async def _measure(opened: Terminal, seconds: float) -> list[Row]:
    pid = opened.process.pid
    cpu, begun = cpu_seconds(pid), time.monotonic()
    memory: list[tuple[float, float]] = []
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_watch_memory(pid, memory))
        latencies = await _press_keys(opened, seconds)
        watching.cancel()
    passed = time.monotonic() - begun
    share = (cpu_seconds(pid) - cpu) / passed
    name = f"console, {_WORKERS:,} workers, {_LOSSES_PER_S:,} losses/s"
    return [
        Row(f"{name}: key to reaction, median", _ms(statistics.median(latencies)), None, "ms", ""),
        Row(f"{name}: key to reaction, p95", _ms(_p95(latencies)), None, "ms", "< 50"),
        Row(f"{name}: share of a core", 100 * share, None, "%", "< 35"),
        *_memory_rows(name, memory),
        Row(f"{name}: load of the machine", os.getloadavg()[0], None, "", ""),
    ]


async def _watch_memory(pid: int, seen: list[tuple[float, float]]) -> None:
    """Add the time in minutes and the resident MB, every few seconds."""
    while True:
        seen.append((time.monotonic() / 60, psutil.Process(pid).memory_info().rss / 1e6))
        await asyncio.sleep(_SAMPLE_S)


def _memory_rows(name: str, seen: list[tuple[float, float]]) -> list[Row]:
    (begun, first), (ended, last) = seen[0], seen[-1]
    late = [(at, memory) for at, memory in seen if at >= ended - _SLOPE_MINUTES]
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope
    minutes, slope_minutes = ended - begun, ended - late[0][0]
    return [
        Row(f"{name}: memory after {_WARM_UP_S:.0f} s", first, None, "MB", ""),
        Row(f"{name}: memory {minutes:.1f} min later", last, None, "MB", "< 2 more"),
        Row(f"{name}: its slope, last {slope_minutes:.1f} min", slope, None, "MB/min", "< 0.2"),
    ]


async def _press_keys(opened: Terminal, seconds: float) -> list[float]:
    """Move the cursor up and down through the table; seconds from each key to the row that shows it."""
    latencies = []
    end = time.monotonic() + seconds
    chance = random.Random(1)
    path = [*range(1, _ROWS), *range(_ROWS - 2, -1, -1)]
    at = 0
    for row in itertools.cycle(path):
        if time.monotonic() > end:
            break
        opened.output.clear()
        pressed = time.monotonic()
        opened.press("down" if row > at else "up")
        at = row
        if await _seen(opened, re.compile(_CURSOR + f"w{row:04}".encode())):
            latencies.append(time.monotonic() - pressed)
        else:
            print(f"no reaction to a key: row {row}", file=sys.stderr)
        await asyncio.sleep(chance.uniform(*_KEY_S))
    return latencies


async def _seen(opened: Terminal, pattern: re.Pattern[bytes]) -> bool:
    try:
        async with asyncio.timeout(5):
            while not pattern.search(opened.output):
                await opened.grown()
    except TimeoutError:
        return False
    return True


async def _starts() -> list[Row]:
    """From the start of the process to the first frame, without devices or runs."""
    seconds = []
    for _ in range(_STARTS):
        begun = time.monotonic()
        async with terminal(size=(120, 40), is_read=False) as opened:
            while b"History" not in opened.output:
                await opened.grown()
            seconds.append(time.monotonic() - begun)
    bare = [_bare() for _ in range(_STARTS)]
    return [
        Row(
            "console: process start to first frame",
            statistics.median(seconds),
            statistics.median(bare),
            "s",
            "< 0.4",
        )
    ]


def _bare() -> float:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import textual.app"], check=True)
    return time.monotonic() - begun


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def _ms(seconds: float) -> float:
    return 1000 * seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    chosen = parser.parse_args()
    print(machine_line(), flush=True)
    with TemporaryDirectory(prefix="fedconsole-bench-") as own:
        print_table(run(Path(own), 60 * chosen.minutes))
