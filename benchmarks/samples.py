"""Random samples in MNIST's shape: the pixels' values do not change the time that training takes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.plain import Shard
from fedconsole.learning.tasks.mnist import task as mnist

BATCH_SIZE: Final = 64


def write_samples(path: Path, num_examples: int) -> None:
    """As a dataset for `small_task`."""
    generator = np.random.default_rng(1)
    x = generator.integers(0, 256, (num_examples, 28, 28), dtype=np.uint8)
    np.savez(path, x=x, y=generator.integers(0, 10, num_examples))


def random_shard(num_examples: int) -> Shard:
    """Ready for the network."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (num_examples, 28, 28), generator=generator)
    return mnist.prepare(x), torch.randint(0, 10, (num_examples,), generator=generator)
