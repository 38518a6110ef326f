"""A task file whose model has 100 MB in tensors of very different sizes."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import nn

from fedconsole.learning.tasks.task import Task


def build() -> nn.Module:
    sizes = (64, 1024, 2048, 4096, 2048, 2048, 900)
    layers = [
        layer for inner, outer in pairwise(sizes) for layer in (nn.Linear(inner, outer), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


task = Task(
    name="large",
    dataset="large",
    sample_shape=(64,),
    sample_dtype="float32",
    num_classes=10,
    build=build,
    loss=F.cross_entropy,
)
