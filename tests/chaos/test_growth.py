"""What counts as growth in a soak."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.chaos.growth import Sample, append, lives, sample

_MB = 1 << 20


def watched(rss_mb: Callable[[float], float], files: Callable[[float], int]) -> list[Sample]:
    """An hour of a process, every ten seconds."""
    return [
        Sample(at_s, "engine", 7, int(rss_mb(at_s) * _MB), 0, files(at_s))
        for at_s in range(0, 3600, 10)
    ]


def test_a_process_that_fills_up_at_first_and_then_has_peaks_does_not_grow() -> None:
    def rss_mb(at_s: float) -> float:
        return min(300.0, at_s * 2) + (100 if at_s % 600 == 0 else 0)

    [life] = lives(watched(rss_mb, lambda at_s: 20 + (at_s % 60 == 0)), 180, 600)
    assert life.problems == []
    assert (life.first_rss_bytes, life.last_rss_bytes) == (300 * _MB, 300 * _MB)


def test_a_process_that_gains_a_little_all_the_time_grows() -> None:
    [life] = lives(watched(lambda at_s: 300 + at_s // 120, lambda at_s: 20), 180, 600)
    assert life.problems == ["engine (pid 7) has grown by 21.0 MB"]
    assert round(life.bytes_per_s * 3600 / _MB) == 30


def test_open_files_that_are_left_behind_are_growth() -> None:
    [life] = lives(watched(lambda at_s: 300, lambda at_s: 20 + int(at_s) // 600), 180, 600)
    assert life.problems == ["engine (pid 7) holds 4 more open files"]


def test_each_process_is_judged_by_itself_and_a_short_life_not_at_all() -> None:
    samples = [
        Sample(at_s, "daemon", 1 if at_s < 3000 else 2, (30 if at_s < 3000 else 90) * _MB, 0, 9)
        for at_s in range(0, 3600, 10)
    ]
    [life] = lives(samples, 180, 600)
    assert (life.pid, life.problems) == (1, [])


def test_a_sample_shows_memory_and_open_files_and_nothing_of_a_process_that_is_gone(
    tmp_path: Path,
) -> None:
    before = sample(0.0, "me", os.getpid())
    assert before is not None
    with (tmp_path / "one").open("w"):
        after = sample(1.0, "me", os.getpid())
    assert after is not None
    assert after.num_files == before.num_files + 1
    assert after.rss_bytes > after.anon_bytes > _MB
    assert sample(2.0, "nobody", 2**22 + 1) is None


def test_samples_are_appended_below_one_heading(tmp_path: Path) -> None:
    for at_s in (0.0, 10.0):
        append(tmp_path / "samples.csv", [Sample(at_s, "engine", 7, 2, 1, 9)])
    assert (tmp_path / "samples.csv").read_text().split() == [
        "at_s,process,pid,rss_bytes,anon_bytes,num_files",
        "0.0,engine,7,2,1,9",
        "10.0,engine,7,2,1,9",
    ]
