"""`make bench-ecg`: heartbeats of 22 patients on 11 daemons, tested on 21 others; beside central training.

Per class and macro F1 of the tasks `ecg` and `ecg-rr`, for three seeds. Every setting was chosen on
patients held out of the training records (docs/ecg.md); nothing here may be chosen by its outcome.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.runs import engine_run, own_places
from benchmarks.table import machine_line
from fedconsole.coordinator.plan import Optimizer, Plan
from fedconsole.fleet.local import daemons_with
from fedconsole.learning.tasks.ecg import TRAINING_RECORDS, beats_of
from fedconsole.learning.tasks.loading import load_task
from pi_daemon.ecg.beats import CLASSES

TASKS = ("ecg", "ecg-rr")
SEEDS = (1, 2, 3)
PATIENTS_PER_DAEMON = 2
"""Neighbours in the list of records."""
NUM_WORKERS = len(TRAINING_RECORDS) // PATIENTS_PER_DAEMON
ROUNDS, BATCHES_PER_ROUND, BATCH_SIZE = 60, 5, 64
LR, MOMENTUM = 0.04, 0.9
CENTRAL_LR = 0.001
EVAL_EVERY = {"ecg": 5, "ecg-rr": 1}
"""Rounds from test to test; a test costs as much as several rounds."""
REPORTED_ROUNDS = (40, 45, 50, 55, 60)
"""Their tests' mean is reported: from one test to the next the figures swing by up to 0.1."""
TEST_BATCH_SIZE = 64
"""The fastest on one thread: its activations fit into the cache."""
FIGURES = (*CLASSES, "macro_f1", "accuracy")
"""F1 of each class; its mean over N, S, V and F; and what hides both."""

Confusion = list[list[int]]
"""Row: true class, column: predicted class."""


@dataclass(frozen=True)
class Tested:
    """One evaluation on the test records."""

    round: int
    figures: dict[str, float]
    """By the names of `FIGURES`."""
    confusion: Confusion


@dataclass(frozen=True)
class Measured:
    """One training."""

    seed: int
    seconds: float
    num_steps: int
    evaluations: list[Tested]

    def mean(self, figure: str) -> float:
        """What counts: the mean over the tests after `REPORTED_ROUNDS`."""
        return statistics.fmean(
            test.figures[figure] for test in self.evaluations if test.round in REPORTED_ROUNDS
        )


def tested(round_number: int, confusion: Confusion) -> Tested:
    # Not the product's own metrics: this counts again.
    matrix = np.array(confusion)
    right = matrix.diagonal()
    f1 = (2 * right / np.maximum(matrix.sum(0) + matrix.sum(1), 1)).tolist()
    figures = (*f1, statistics.fmean(f1[:4]), float(right.sum() / matrix.sum()))
    return Tested(round_number, dict(zip(FIGURES, figures, strict=True)), confusion)


# By daemons


def write_shards(data: Path, folder: Path, task: str) -> Iterator[list[str]]:
    """Each daemon's options: a file with the beats of its patients."""
    for first in range(0, len(TRAINING_RECORDS), PATIENTS_PER_DAEMON):
        records = TRAINING_RECORDS[first : first + PATIENTS_PER_DAEMON]
        path = folder / f"{'-'.join(map(str, records))}.npz"
        x, y = beats_of(data, records, with_intervals=task == "ecg-rr")
        np.savez(path, x=x, y=y)
        yield ["--dataset", f"{task}={path}"]


def federated(data: Path, task: str, seed: int) -> Measured:
    return asyncio.run(_federated(data, task, seed))


async def _federated(data: Path, task: str, seed: int) -> Measured:
    with TemporaryDirectory(prefix="fedconsole-ecg-") as temporary, own_places(Path(temporary)):
        async with daemons_with(list(write_shards(data, Path(temporary), task))) as addresses:
            plan = Plan(
                task=task,
                workers=tuple(addresses),
                rounds=ROUNDS,
                federate_after_n_batches=BATCHES_PER_ROUND,
                batch_size=BATCH_SIZE,
                test_batch_size=TEST_BATCH_SIZE,
                optimizer=Optimizer.SGD,
                lr=LR,
                momentum=MOMENTUM,
                eval_every=EVAL_EVERY[task],
                data_dir=str(data.parent),
                seed=seed,
            )
            async with engine_run(plan) as run:
                lines = [line async for line in run.lines()]
    evaluations = [
        tested(line["round"], list(line["confusion"].values()))
        for line in lines
        if line["type"] == "eval"
    ]
    num_steps = ROUNDS * NUM_WORKERS * BATCHES_PER_ROUND
    return Measured(seed, lines[-1]["seconds"], num_steps, evaluations)


# In plain PyTorch, all data in one place


def central(data: Path, task_name: str, seed: int) -> Measured:
    """As many steps of the same size on the pooled shards; Adam, whose state lasts to the end.

    A round is as many steps as the daemons take in one.
    """
    torch.set_num_threads(1)
    task = load_task(task_name)
    arrays = beats_of(data, TRAINING_RECORDS, with_intervals=task_name == "ecg-rr")
    x, y = map(torch.from_numpy, arrays)
    test = task.test_data(data.parent)
    assert test is not None
    test_x, test_y = map(torch.from_numpy, test)
    began = time.perf_counter()
    torch.manual_seed(seed)
    net = task.build()
    optimizer = torch.optim.Adam(net.parameters(), lr=CENTRAL_LR)
    order = torch.empty(0, dtype=torch.int64)
    evaluations, num_steps = [], 0
    for round_number in range(1, ROUNDS + 1):
        for _ in range(NUM_WORKERS * BATCHES_PER_ROUND):
            if len(order) < BATCH_SIZE:
                order = torch.randperm(len(x))
            rows, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
            optimizer.zero_grad()
            task.loss(net(task.prepare(x[rows])), y[rows]).backward()
            optimizer.step()
            num_steps += 1
        if round_number % EVAL_EVERY[task_name] == 0:
            with torch.no_grad():
                parts = [
                    net(task.prepare(part)).argmax(1) for part in test_x.split(TEST_BATCH_SIZE)
                ]
            pairs = torch.bincount(5 * test_y + torch.cat(parts), minlength=25)
            evaluations.append(tested(round_number, pairs.view(5, 5).tolist()))
    return Measured(seed, time.perf_counter() - began, num_steps, evaluations)


# What is told


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summary(runs: Sequence[Measured]) -> dict[str, tuple[float, float]]:
    """What counts of each figure, over the seeds."""
    return {name: spread([run.mean(name) for run in runs]) for name in FIGURES}


def print_rounds(title: str, runs: Sequence[Measured]) -> None:
    print(f"\n{title}: F1 on DS2 without 202 by round, mean ± standard deviation of the seeds")
    print(f"{'round':>5}" + "".join(f"{name:>16}" for name in FIGURES))
    for tests in zip(*(run.evaluations for run in runs), strict=True):
        cells = (spread([test.figures[name] for test in tests]) for name in FIGURES)
        print(f"{tests[0].round:5}" + "".join(f"{mean:8.3f} ± {by:5.3f}" for mean, by in cells))


def print_task(task: str, by_daemons: Sequence[Measured], plain: Sequence[Measured]) -> None:
    print_rounds(f"{task}, 11 daemons", by_daemons)
    print_rounds(f"{task}, central", plain)
    print(f"\n{task}: mean of the tests after rounds {REPORTED_ROUNDS}, over {len(plain)} seeds:")
    ours, central_ = summary(by_daemons), summary(plain)
    for name in ours:
        (mean, by), (other, other_by) = ours[name], central_[name]
        print(
            f"  {name:9} 11 daemons {mean:.3f} ± {by:.3f}   "
            f"central {other:.3f} ± {other_by:.3f}   ratio {mean / other if other else 0:.2f}"
        )


def find_data() -> Path:
    folder = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = folder / "mitbih_beats.npz"
    if not path.exists():
        sys.exit(
            f"{path} is not there: it holds every labelled beat of the MIT-BIH Arrhythmia Database "
            "(docs/ecg.md says how); name its folder in FEDCONSOLE_DATA"
        )
    return path.resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, action="append", help="only this one")
    parser.add_argument("--seed", type=int, action="append", help="only this one")
    options = parser.parse_args()
    data = find_data()
    seeds = options.seed or SEEDS
    print(machine_line())
    for task in options.task or TASKS:
        # Two at a time: a test takes one core, and longer than the rounds between.
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            jobs: list[list[Future[Measured]]] = [
                [pool.submit(train, data, task, seed) for seed in seeds]
                for train in (federated, central)
            ]
            by_daemons, plain = ([job.result() for job in some] for some in jobs)
        print_task(task, by_daemons, plain)
        if tuple(seeds) == SEEDS:
            figures = {
                "machine": machine_line(),
                "federated": [asdict(run) for run in by_daemons],
                "central": [asdict(run) for run in plain],
                "federated_mean": summary(by_daemons),
                "central_mean": summary(plain),
            }
            results = Path(__file__).parent / "results"
            results.mkdir(exist_ok=True)
            (results / f"{task}.json").write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
