"""A thousand virtual workers of one batch each: how soon the first begins, how many a second, and in
how much memory; beside a plain loop over the same work.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import plain, small_task
from benchmarks.processes import Memory, cpu_seconds, peak_memory, tree
from benchmarks.runs import own_places
from benchmarks.samples import BATCH_SIZE, random_shard, write_samples
from benchmarks.table import Row
from fedconsole.learning.tasks.mnist import task as mnist

NUM_WORKERS: Final = 1000
_COMMAND: Final = "from fedconsole.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class VirtualRun:
    """Rounds from the second on."""

    first_batch_s: float
    """From the start of the command's process."""
    users_per_second: float
    users_per_cpu_second: float
    """Of all processes: engine, trainers and the command itself."""
    peak: Memory


def run(folder: Path) -> list[Row]:
    write_samples(folder / "mnist.npz", NUM_WORKERS * BATCH_SIZE)
    num_cores = min(NUM_WORKERS, os.cpu_count() or 1)
    rows = []
    with own_places(folder):
        before = plain_users()
        for cohort_size, num_rounds in ((10, 50), (NUM_WORKERS, 1)):
            ours = virtual_run(folder, cohort_size, num_rounds)
            after = plain_users()
            seconds, cpu = ((b + a) / 2 for b, a in zip(before, after, strict=True))
            before = after
            name = f"{NUM_WORKERS:,} virtual workers, {cohort_size:,} per round:"
            rows += [
                Row(f"{name} first batch", ours.first_batch_s, None, "s", "<= 5"),
                Row(
                    f"{name} users per second and core",
                    ours.users_per_second / num_cores,
                    1 / seconds,
                    "1/s",
                    ">= 40",
                ),
                Row(
                    f"{name} users per CPU second",
                    ours.users_per_cpu_second,
                    1 / cpu,
                    "1/s",
                    ">= 40",
                ),
                Row(f"{name} peak memory (PSS)", ours.peak.pss / 1e6, None, "MB", ""),
                Row(f"{name} peak memory (RSS)", ours.peak.rss / 1e6, None, "MB", ""),
            ]
    return rows


def plain_users() -> tuple[float, float]:
    """Seconds, and CPU seconds, of one user of one batch; ten of them are averaged at a time."""
    torch.set_num_threads(1)
    num_users, num_rounds = 10, 10
    shard = random_shard(num_rounds * BATCH_SIZE)
    found = plain.train(
        mnist.build(),
        {str(number): shard for number in range(num_users)},
        mnist.loss,
        batch_size=BATCH_SIZE,
        batches_per_round=1,
        lr=0.01,
    )
    return (
        statistics.median(found.round_seconds) / num_users,
        statistics.median(found.round_cpu_seconds) / num_users,
    )


def virtual_run(folder: Path, cohort_size: int, num_rounds: int) -> VirtualRun:
    """Carry `num_rounds` rounds after a first one, then abort.

    Args:
        folder: has the samples.
    """
    start_s = time.time()
    ends: list[float] = []
    cpu: list[float] = []
    first_batch_s = 0.0
    with _command(folder, cohort_size) as process, peak_memory(process.pid) as peak:
        for line in _lines(process):
            if line["type"] == "worker.batches" and not first_batch_s:
                first_batch_s = _time(line) - start_s
            elif line["type"] == "round.finished":
                ends.append(_time(line))
                cpu.append(cpu_seconds(tree(process.pid)))
                if len(ends) > num_rounds:
                    break
    num_users = num_rounds * cohort_size
    return VirtualRun(
        first_batch_s,
        num_users / (ends[-1] - ends[0]),
        num_users / (cpu[-1] - cpu[0]),
        peak,
    )


@contextmanager
def _command(folder: Path, cohort_size: int) -> Iterator[subprocess.Popen[bytes]]:
    options = {
        "--task": small_task.__file__,
        "--data-dir": folder,
        "--virtual": NUM_WORKERS,
        "--cohort-size": cohort_size,
        "--federate-after-n-batches": 1,
        "--batch-size": BATCH_SIZE,
        "--rounds": 10**6,
    }
    arguments = [str(part) for option in options.items() for part in option]
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "run", "--headless", "--json", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        # Aborts the run; the command ends when its engine has.
        process.send_signal(signal.SIGTERM)
        process.communicate()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)
    raise RuntimeError(f"the run has ended with exit code {process.wait()}")


def _time(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()
