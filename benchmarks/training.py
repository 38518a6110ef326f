"""The seed's work by three real daemons, and in plain PyTorch: what federating adds to training.

As a program it is one of the processes that do the plain work side by side.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import psutil
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks import plain, small_task
from benchmarks.processes import cpu_seconds
from benchmarks.runs import engine_run, own_places
from benchmarks.samples import BATCH_SIZE, random_shard, write_samples
from benchmarks.table import Row
from fedconsole.coordinator.plan import Plan
from fedconsole.fleet.local import local_daemons
from fedconsole.learning.tasks.mnist import task as mnist

NUM_WORKERS: Final = 3
NUM_BATCHES: Final = 50
NUM_ROUNDS: Final = 10
_PLAIN_ROUNDS: Final = 4
_REPEATS: Final = 2
_LR: Final = 0.01


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one round: the median of those from the second one on."""

    seconds: float
    cpu_seconds: float


def run(folder: Path) -> list[Row]:
    write_samples(folder / "mnist.npz", NUM_WORKERS * NUM_BATCHES * BATCH_SIZE)
    loops, parallels, federated = [], [], []
    with own_places(folder):
        for _ in range(_REPEATS):
            loops.append(one_after_the_other())
            federated.append(asyncio.run(by_daemons(folder)))
            parallels.append(side_by_side())
    ours_s = statistics.mean(cost.seconds for cost in federated)
    ours_cpu_s = statistics.mean(cost.cpu_seconds for cost in federated)
    loop_cpu_s = statistics.mean(cost.cpu_seconds for cost in loops)
    name = f"{NUM_WORKERS} daemons x {NUM_BATCHES} batches:"
    return [
        Row(f"{name} CPU of a round", ours_cpu_s, loop_cpu_s, "s", "<= 1.15 x"),
        Row(f"{name} a round", ours_s, statistics.mean(parallels), "s", "<= 1.15 x"),
    ]


def one_after_the_other() -> Cost:
    """Workers in turn, in this process, on one thread."""
    torch.set_num_threads(1)
    shard = random_shard(_PLAIN_ROUNDS * NUM_BATCHES * BATCH_SIZE)
    found = plain.train(
        mnist.build(),
        {str(number): shard for number in range(NUM_WORKERS)},
        mnist.loss,
        batch_size=BATCH_SIZE,
        batches_per_round=NUM_BATCHES,
        lr=_LR,
    )
    return Cost(
        statistics.median(found.round_seconds[1:]), statistics.median(found.round_cpu_seconds[1:])
    )


def side_by_side() -> float:
    """Seconds of a round of workers in a process each, on one thread each."""
    command = [sys.executable, "-m", "benchmarks.training"]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(NUM_WORKERS)
    ]
    net = mnist.build()
    seconds = []
    for _ in range(_PLAIN_ROUNDS):
        start_s = time.perf_counter()
        model = parameters_to_vector(net.parameters()).detach()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(model.numpy().data)
            worker.stdin.flush()
        mean = torch.zeros_like(model, dtype=torch.float64)
        for worker in workers:
            assert worker.stdout is not None
            update = bytearray(worker.stdout.read(model.nbytes))
            mean += torch.frombuffer(update, dtype=model.dtype) / NUM_WORKERS
        vector_to_parameters(mean.float(), net.parameters())
        seconds.append(time.perf_counter() - start_s)
    for worker in workers:
        worker.communicate()  # the end of its input ends it
    return statistics.median(seconds[1:])


def main() -> None:
    """Read a model, train, write the update; until there is no more."""
    torch.set_num_threads(1)
    net = mnist.build()
    x, y = random_shard(NUM_BATCHES * BATCH_SIZE)
    size = parameters_to_vector(net.parameters()).nbytes
    while model := sys.stdin.buffer.read(size):
        vector_to_parameters(
            torch.frombuffer(bytearray(model), dtype=torch.float32), net.parameters()
        )
        _train(net, torch.split(x, BATCH_SIZE), torch.split(y, BATCH_SIZE))
        sys.stdout.buffer.write(parameters_to_vector(net.parameters()).detach().numpy().data)
        sys.stdout.buffer.flush()


def _train(net: nn.Module, xs: Sequence[torch.Tensor], ys: Sequence[torch.Tensor]) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=_LR)
    for x, y in zip(xs, ys, strict=True):
        optimizer.zero_grad()
        mnist.loss(net(x), y).backward()
        optimizer.step()


async def by_daemons(folder: Path) -> Cost:
    """CPU seconds of the engine, the daemons and their trainers together."""
    ends: list[float] = []
    cpu: list[float] = []
    async with local_daemons(NUM_WORKERS, f"mnist={folder / 'mnist.npz'}") as addresses:
        plan = Plan(
            task=small_task.__file__,
            workers=tuple(addresses),
            rounds=NUM_ROUNDS,
            federate_after_n_batches=NUM_BATCHES,
            batch_size=BATCH_SIZE,
            lr=_LR,
        )
        async with engine_run(plan) as engine:
            async for line in engine.lines():
                if line["type"] == "round.finished":
                    ends.append(datetime.fromisoformat(line["time"]).timestamp())
                    cpu.append(cpu_seconds(psutil.Process().children(recursive=True)))
    return Cost(_median_step(ends), _median_step(cpu))


def _median_step(values: Sequence[float]) -> float:
    return statistics.median(after - before for before, after in pairwise(values))


if __name__ == "__main__":
    main()
