"""The seed's network on batches of 64, by one thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedconsole.learning.tasks.mnist import task

BATCH_SIZE, LR = 64, 0.01


def train_batches(
    arrays: list[np.ndarray],
    folder: Path,
    partition: int,
    num_partitions: int,
    round_number: int,
    num_batches: int,
) -> list[np.ndarray]:
    """The parameters after `num_batches` steps on this round's rows of `x.npy` and `y.npy`."""
    torch.set_num_threads(1)
    net = task.build()
    net.load_state_dict(
        {name: torch.from_numpy(a) for name, a in zip(net.state_dict(), arrays, strict=True)}
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    x, y = _rows(folder, partition, num_partitions, round_number, num_batches * BATCH_SIZE)
    for rows in torch.arange(len(x)).split(BATCH_SIZE):
        optimizer.zero_grad()
        task.loss(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return [tensor.numpy() for tensor in net.state_dict().values()]


def _rows(
    folder: Path, partition: int, num_partitions: int, round_number: int, size: int
) -> tuple[Tensor, Tensor]:
    x, y = np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")
    first = partition * len(x) // num_partitions + (round_number - 1) * size
    rows = np.arange(first, first + size) % len(x)
    return task.prepare(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]).long()
